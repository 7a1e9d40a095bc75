"""All checks under one name: ``from minidiff.course import check``, then ``check.NAME(answer)``."""

from minidiff.course.checks_00 import copied_byte, differential_step, weight_zero
from minidiff.course.checks_01 import (
    attention_layer,
    best_constant,
    channel_order,
    kv_head,
    one_output,
    pair_step,
    repaired_order,
    saving,
)
from minidiff.course.checks_02 import (
    leaning_values,
    needed_gap,
    norm_growth,
    one_row,
    opposed_values,
    same_token,
    sink,
    without_sink,
)
from minidiff.course.checks_03 import (
    both_ends,
    own_variant,
    quietest_lambda,
    silenced_head,
    who_learns,
)
from minidiff.course.checks_04 import (
    clipped,
    hidden_sink,
    silent_score,
    three_shares,
    without_bos,
)
from minidiff.course.checks_05 import (
    accumulated,
    adamw,
    fair,
    loss,
    resumed,
    training_steps,
    units,
    windows,
)
from minidiff.course.checks_06 import (
    foretold,
    intensity,
    merge,
    shared_backward,
    step_cost,
)
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
from minidiff.course.checks_09 import (
    block_costs,
    causal_choices,
    quest_score,
    split_pair,
)
from minidiff.course.checks_10 import (
    cache_sizes,
    prefill_pairs,
    reach,
    step_reads,
    window_mask,
)
from minidiff.course.checks_11 import (
    balance_gradient,
    depends_on_experts,
    outside_experts,
    two_experts,
)
from minidiff.course.checks_12 import alike, cancelled, more_prompts, needle_gap, quieter
from minidiff.course.checks_13 import (
    harder_world,
    most_frequent,
    own_attention,
    prediction,
    verdict_of,
)

__all__ = ["copied_byte", "differential_step", "weight_zero"]
__all__ += ["attention_layer", "best_constant", "channel_order", "kv_head"]  # 01
__all__ += ["one_output", "pair_step", "repaired_order", "saving"]
__all__ += ["needed_gap", "one_row", "opposed_values", "same_token", "sink"]  # 02
__all__ += ["leaning_values", "norm_growth", "without_sink"]  # 02b
__all__ += ["both_ends", "own_variant", "quietest_lambda", "silenced_head", "who_learns"]  # 03
__all__ += ["clipped", "hidden_sink", "silent_score", "three_shares", "without_bos"]  # 04
__all__ += ["accumulated", "adamw", "fair", "loss", "resumed"]  # 05
__all__ += ["training_steps", "units", "windows"]
__all__ += ["foretold", "intensity", "merge", "shared_backward", "step_cost"]  # 06
__all__ += ["best_difference", "equal_time", "interval_of_three", "power", "sign_test"]  # 07
__all__ += ["bounded_lambda", "cure_verdicts", "head_order", "norm_jacobian", "pairing"]  # 08
__all__ += ["block_costs", "causal_choices", "quest_score", "split_pair"]  # 09
__all__ += ["cache_sizes", "prefill_pairs", "reach", "step_reads", "window_mask"]  # 10
__all__ += ["balance_gradient", "depends_on_experts", "outside_experts", "two_experts"]  # 11
__all__ += ["alike", "cancelled", "more_prompts", "needle_gap", "quieter"]  # 12
__all__ += ["harder_world", "most_frequent", "own_attention", "prediction", "verdict_of"]  # 13
