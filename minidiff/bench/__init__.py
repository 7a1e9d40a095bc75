"""Speed and memory: of attention (ops.py), of training steps (train.py), of decoding (decode.py).

Open train.py first. Each takes a config, prints and writes every row as soon as it is measured, and
ends with a figure. A number is the median over the rounds; ``_low`` and ``_high`` are the extremes.
roofline.py measures nothing: it sets stored profiles of a step beside what it needs (work.py).
"""
