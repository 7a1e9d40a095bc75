"""Is the gain of DIFF V2 only its start? Three controls that begin or are decayed otherwise.

At first a head's two maps are almost equal and lambda is 0.5, so a head's output is about half as
large as a softmax head's: a smaller step into the residual stream. Each control takes one such
difference away. If it is as good as DIFF V2, that difference did not matter.
"""

import torch

from minidiff.attention import differential
from minidiff.model import DiffV2Attention, register
from minidiff.variants.ablations import DiffAblation

LATE = 4.0  # sigmoid(-4) = 0.018


@register("diff_late_lambda")
class DiffLateLambdaAttention(DiffAblation):
    """Lambda starts at 0.018 and not at 0.5: at first this is softmax of the even heads."""

    def subtract(self, attn, x):
        return differential(attn, self.lambda_proj(x) - LATE)  # NEW


@register("diff_no_decay")
class DiffNoDecayAttention(DiffV2Attention):
    """DIFF V2 whose W_lambda has no weight decay, which pulls every lambda towards 0.5."""

    def __init__(self, config, layer_index=0):
        super().__init__(config, layer_index)
        self.lambda_proj.weight.no_decay = True  # NEW: train.make_optimizer asks for it


@torch.no_grad()
def double_output(model):
    """Let a DIFF V2 model start with outputs as large as softmax's: W_O times 2.

    Raises:
        ValueError: there is no DIFF V2 layer.
    """
    layers = [m for m in model.modules() if isinstance(m, DiffV2Attention)]
    if not layers:
        raise ValueError("double_output needs DIFF V2 layers")
    for layer in layers:
        layer.o_proj.weight *= 2
