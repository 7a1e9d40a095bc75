"""Looking: what is inside a trained model, and the course's pictures of it.

Open probe.py first: it measures RMS, lambda, sinks and outliers. plots.py draws them. live.py and
forms.py are the explorers of the notebooks; page/ has their JavaScript.
"""
