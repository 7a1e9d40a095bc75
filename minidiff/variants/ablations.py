"""The three ablations of DIFF V2 that its authors report: wrong pairs, no lambda, no sigmoid.

Claim and ablation numbers are those of the notebooks/results/CLAIMS.md.
"""

from minidiff.attention import differential
from minidiff.model import DiffV2Attention, register


class DiffAblation(DiffV2Attention):
    """DIFF V2 with another ``subtract``: (B, T, 2h, ...) -> (B, T, h, ...), outputs or maps."""

    def mix(self, q, k, v, x, n_keys=None):
        return self.subtract(self.attend(q, k, v, n_keys), x)

    def weights(self, q, k, x):
        return self.subtract(self.branches(q, k).transpose(1, 2), x).transpose(1, 2)


@register("diff_halves")
class DiffHalvesAttention(DiffAblation):
    """Ablation 1 (claim 9): a[i] - lambda a[i+h], whose key/value heads differ.

    With h_kv = 1 this only renames the query heads. With h_kv > 1 the two maps of a pair multiply
    different values, so no single map gives the output: ``weights @ v`` is *not* ``mix``.
    """

    def subtract(self, attn, x):
        paired = attn.unflatten(2, (2, -1)).transpose(2, 3).flatten(2, 3)  # NEW: 0, h, 1, h+1, ...
        return differential(paired, self.lambda_proj(x))


@register("diff_no_lambda")
class DiffNoLambdaAttention(DiffAblation):
    """Ablation 2 (claim 10): a1 - a2. Rows sum to 0; at initialisation almost nothing is left."""

    def __init__(self, config, layer_index=0):
        super().__init__(config, layer_index)
        del self.lambda_proj  # NEW

    def subtract(self, attn, x):
        return attn[:, :, 0::2] - attn[:, :, 1::2]  # NEW


@register("diff_no_sigmoid")
class DiffNoSigmoidAttention(DiffAblation):
    """Ablation 3 (claim 11): lambda = W_lambda x, of any size and sign, so the RMS is unbounded.

    Nothing is initialised specially, as in the published module: lambda starts near 0 and not, as
    with the sigmoid, near 0.5. At first this is therefore softmax attention of the even heads.
    """

    def subtract(self, attn, x):
        lam = self.lambda_proj(x).unsqueeze(-1)  # NEW: (B, T, h, 1), no sigmoid
        return attn[:, :, 0::2] - lam * attn[:, :, 1::2]
