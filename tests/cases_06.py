"""Answers to the exercises of notebook 06: right ones, and wrong ones with what must be said."""

DV = (11 / 16, 1 / 16)
RIGHT = {  # a check -> answers that are right
    "shared_backward": [(DV, 11, 15), ([0.6875, 0.0625], 11.0, 15)],
}
WRONG = {  # a check -> typical wrong answers, and what must be said
    "shared_backward": [
        (((0.75, 0.25), 11, 15), "both maps"),
        (((13 / 16, 7 / 16), 11, 15), "taken away"),
        (((5 / 8, -1 / 8), 11, 15), "section 6.1"),
        (((1, 1), 11, 15), "which weight"),
        ((DV, 11, 12), "Three have"),
        ((DV, 12, 15), "one product for all"),
        ((DV, 9, 15), "computed once"),
        ((DV, 15, 15), "save something"),
        ((DV, 10, 15), "Which three"),
    ],
}
