"""All checks under one name: ``from minidiff.course import check``, then ``check.NAME(answer)``."""

from minidiff.course.checks_00 import copied_byte, differential_step, weight_zero

__all__ = ["copied_byte", "differential_step", "weight_zero"]
