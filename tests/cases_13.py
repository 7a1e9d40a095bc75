"""Answers to exercise 1 of notebook 13: right ones, and wrong ones with what must be said."""

from minidiff.course.checks_13 import _share_of_the_most_frequent as share

RIGHT = {"most_frequent": [(share(8),), (share(8) + 0.002,)]}
WRONG = {
    "most_frequent": [
        ((0.25,), "blind guess"),
        ((0.34,), "any fact"),
        ((share(4),), "four facts"),
        ((0.7,), "simulate more"),
        ((42,), "between 0 and 1"),
    ],
}
