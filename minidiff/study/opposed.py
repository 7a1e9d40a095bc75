"""Does an ordinary softmax model learn the subtraction of DIFF V2? A number for each model."""

import torch


def opposed_heads(model):
    """Cosines between the W_O slices of heads that share keys and values: is one minus another?

    A softmax model with 2h heads computes DIFF V2's subtraction where the cosine is -1 (claim 14);
    two independent slices have a cosine near 0.

    Returns:
        opposed_min, the smallest cosine in the model, and opposed_share, the share of heads that
        have a partner with a cosine below -0.9. Nothing for another attention than softmax, or
        where no two heads share keys and values.
    """
    c, closest = model.config, []
    if c.attention != "softmax" or c.n_head == c.n_kv_head:
        return {}
    for block in model.blocks:
        weight = block.attn.o_proj.weight.detach().float()  # (D, h*d)
        slices = weight.T.unflatten(0, (c.n_kv_head, -1, c.head_dim))
        slices = torch.nn.functional.normalize(slices.flatten(2), dim=-1)  # (h_kv, group, d*D)
        closest.append((slices @ slices.mT).amin(-1).flatten())  # (h,)
    closest = torch.cat(closest)
    share = (closest < -0.9).float().mean()
    return {"opposed_min": closest.min().item(), "opposed_share": share.item()}
