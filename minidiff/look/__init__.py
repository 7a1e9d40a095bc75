"""Looking: what is inside a trained model, and the course's pictures of it.

Open probe.py first: it measures RMS, lambda, sinks and outliers. plots.py draws them; widgets.py
and the JavaScript beside it are the interactive explorers.
"""
