"""Is the gain of DIFF V2 only its start? Controls that begin or are decayed otherwise.

At first a head's two maps are almost equal and lambda is 0.5, so a head's output is about half as
large as a softmax head's: a smaller step into the residual stream. Each control takes one such
difference away. If it is as good as DIFF V2, that difference did not matter. If it is worse, more
than the start may be to blame: see each. The other way round softmax is given the small start.
"""

import torch

from minidiff.attention import differential
from minidiff.model import DiffV2Attention, register
from minidiff.variants.ablations import DiffAblation

LATE = 4.0  # sigmoid(-4) = 0.018
QUIET = 0.4  # 1 - lambda = 1/2, and 1/sqrt(1.5) since W_O adds up more heads


@register("diff_late_lambda")
class DiffLateLambdaAttention(DiffAblation):
    """Lambda starts at 0.018 and not at 0.5: at first this is softmax of the even heads.

    The shift stays, so that lambda also learns more slowly: its slope is 0.018 and not 0.25, and
    weight decay pulls it to 0.018.
    """

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
    """Let a DIFF V2 model start with outputs as large as those of softmax_h: W_O times 2.

    With 1.5h heads softmax's are larger still, by sqrt(1.5) where its heads are independent.

    Raises:
        ValueError: there is no DIFF V2 layer.
    """
    layers = [m for m in model.modules() if isinstance(m, DiffV2Attention)]
    if not layers:
        raise ValueError("double_output needs DIFF V2 layers")
    for layer in layers:
        layer.o_proj.weight *= 2


@torch.no_grad()
def quiet_output(model):
    """Let softmax with 1.5h heads start with outputs as small as those of DIFF V2: W_O times QUIET.

    If it is then as good as DIFF V2, the small start was the gain.
    """
    for block in model.blocks:
        block.attn.o_proj.weight *= QUIET
