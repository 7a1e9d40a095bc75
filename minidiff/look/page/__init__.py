"""The page that runs trained models in the browser: JavaScript in engine/ and ui/; see README.md.

The bundle in dist/ is built by build.mjs and committed; build.py makes the static folder.
"""
