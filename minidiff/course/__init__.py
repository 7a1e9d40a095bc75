"""The course: what the notebooks share, and the checks that answer a student's exercises.

Open checks.py first: it says how a check is written. checks_00.py and its like hold those of one
notebook, check.py collects them; example.py has the three tokens that notebooks 00 to 04 share.
"""
