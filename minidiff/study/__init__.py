"""Studying: is DIFF V2 better, and by more than chance?

Open compare.py first: several variants, several seeds, one results file. evidence.py reads the
stored results, claims.py makes the table of published claims from them.
"""
