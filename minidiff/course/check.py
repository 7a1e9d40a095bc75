"""All checks under one name: ``from minidiff.course import check``, then ``check.NAME(answer)``."""

from minidiff.course.checks_00 import copied_byte, differential_step, weight_zero
from minidiff.course.checks_07 import (
    best_difference,
    equal_time,
    interval_of_three,
    power,
    sign_test,
)
from minidiff.course.checks_08 import (
    bounded_lambda,
    cure_verdicts,
    head_order,
    norm_jacobian,
    pairing,
)

__all__ = [
    "best_difference",
    "bounded_lambda",
    "copied_byte",
    "cure_verdicts",
    "differential_step",
    "equal_time",
    "head_order",
    "interval_of_three",
    "norm_jacobian",
    "pairing",
    "power",
    "sign_test",
    "weight_zero",
]
