"""Speed and memory: of attention (ops.py), of training steps (train.py), of decoding (decode.py).

Each benchmark takes a config, prints and writes every row as soon as it is measured, and ends with
a figure. Every number is the median over the rounds; the names that end in ``_low`` and ``_high``
hold the extremes.
"""
