"""Studying: is DIFF V2 better, and by more than chance?

Open compare.py first: several variants, several seeds, one results file. evidence.py puts the
stored results together; entries.py has the claims, checks.py and findings.py judge them.
retrieval.py asks what a model can do with its context, long_context.py asks it of many runs, and
sparsity.py what is lost with fewer keys. capstone.py is the lab of notebook 13.
"""
