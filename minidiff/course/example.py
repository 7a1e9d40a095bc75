"""Three tokens A, B, C and one query: the example that notebooks 00 to 04 share; and a prompt.

The scores are logarithms, so that softmax is a fraction: e^score is (1, 2, 1) and (2, 1, 1).

|         | A   | B   | C   | sum |
|---------|-----|-----|-----|-----|
| a1      | 1/4 | 2/4 | 1/4 | 1   |
| a2      | 2/4 | 1/4 | 1/4 | 1   |
| a1-a2/2 | 0   | 3/8 | 1/8 | 1/2 |

Both maps look at A and C, which the query does not need: noise. B has half of the weight in a1, and
three quarters of what is left of it. The values are rows of +1 and -1, so each has RMS 1 and no two
of them are correlated; and all three agree in channel 0, where no average can be silent.
"""

import torch

TOKENS = ("A", "B", "C")
SCORES_1 = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64).log()  # of the first query
SCORES_2 = torch.tensor([2.0, 1.0, 1.0], dtype=torch.float64).log()  # of the second
LAM = 0.5
A1, A2 = SCORES_1.softmax(0), SCORES_2.softmax(0)  # (3,) each
W = A1 - LAM * A2  # (3,): 0, 3/8, 1/8
VALUES = torch.tensor(
    [[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1]], dtype=torch.float64
)  # (3, 4): of A, B, C
CONTEXT = W @ VALUES  # (4,): what DIFF V2 gives: 1/2, -1/4, 1/4, -1/2

# What notebooks 03 and 04 show to the trained models, and what 03 tests a guess on.
PROMPT = '''class Queue:
    """First in, first out. Items wait in a list; the oldest leaves first."""

    def __init__(self, items=(), maxsize=0):
        self.items = list(items)
        self.maxsize = maxsize

    def put(self, item):
        """Add an item at the end, or raise an error when the queue is full."""
        if self.maxsize and len(self.items) >= self.maxsize:
            raise ValueError("queue is full")
        self.items.append(item)

    def get(self):
        """Remove the oldest item and return it."""
        if not self.items:
            raise IndexError("queue is empty")
        return self.items.pop(0)
'''
SECOND_PROMPT = '''import math


def area(radius):
    """The area of a circle, which must not be smaller than a point."""
    if radius < 0:
        raise ValueError("a radius is never negative")
    return math.pi * radius**2


def largest(numbers, default=None):
    """Return the largest of several numbers, or the default of none."""
    best = default
    for number in numbers:
        if best is None or number > best:
            best = number
    return best


for radius in range(3):
    print(f"radius {radius}: area {area(radius):.2f}")
'''
