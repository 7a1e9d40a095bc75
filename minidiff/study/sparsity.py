"""Sparse attention on a trained dense model: what does each way to choose blocks lose? (claim 15)

    found = sparsity(model, text, "pair", block=32, top_k=4)    # plain numbers
    retrieval(sparse_twin(model, "pair", 32, 4))                # what it can still recall

Nothing is trained: the same weights see fewer keys.

    python -m minidiff.study.sparsity RUN_FOLDER ... --out results.json    # all choices, both
"""

import dataclasses
import datetime
import json
import shlex
import sys
from pathlib import Path

import torch
import tyro

from minidiff.data import open_data
from minidiff.files import new_file, replace_text
from minidiff.model import GPT
from minidiff.parsing import one_line_errors, one_line_refusals
from minidiff.runs import load_run
from minidiff.study.retrieval import predictions, retrieval
from minidiff.train import pick_device
from minidiff.variants.sparse import SHARES, TILE, choose_blocks, tiles_of, visible


def sparse_twin(model, share, block=32, top_k=4):
    """The same weights with attention over chosen blocks.

    Args:
        model: a GPT with attention "diff_v2", or "softmax" (then share is "head" or "group").
        share, block, top_k: as in :func:`minidiff.variants.sparse.choose_blocks`.
    """
    dense = model.config.attention
    if dense not in ("diff_v2", "softmax"):
        raise ValueError(f"attention={dense!r}: only diff_v2 and softmax have a sparse twin")
    if dense == "softmax" and share not in ("head", "group"):
        raise ValueError(f"share={share!r}: softmax has no pairs of heads; use head or group")
    name = f"sparse_{share}" if dense == "diff_v2" else "sparse_softmax"
    twin = GPT(dataclasses.replace(model.config, attention=name))
    twin.load_state_dict(model.state_dict())
    for layer in twin.blocks:
        layer.attn.block, layer.attn.top_k, layer.attn.share = block, top_k, share
    return twin.to(model.embed.weight).eval()


def sparsity(model, text, share, *, block=32, top_k=4):
    """What a choice keeps, on text (N, T), T > top_k * block; mean over layers, heads and queries.

    Only queries with more than top_k blocks to choose from count, but for the loss.

    Returns:
        keys_seen: share of the causal keys that a head sees.
        mass_kept: share of the dense softmax maps on them (both branches of DIFF V2).
        tiles_loaded: share of the causal tiles of 128 queries and 128 keys in which any query
            sees a key: what flex_attention computes.
        supports_differ: share of (pair, query) whose two heads see different keys; DIFF V2 only.
        map_change: sum |sparse - dense| over the sum |dense| of the map that multiplies the values,
            at the inputs that the dense model has.
        loss, loss_dense: nats per token, and their difference loss_change, with its standard error
            over the windows.
    """
    T = text.shape[1]
    if top_k * block >= T:
        raise ValueError(f"text of {T} tokens is seen whole by {top_k} blocks of {block}")
    twin, columns = sparse_twin(model, share, block, top_k), {}
    for row in text:
        for name, value in _layers(model, twin, row[None], block, top_k, share):
            columns.setdefault(name, []).append(value)
    found = {name: torch.stack(values).mean().item() for name, values in columns.items()}
    dense, sparse = (predictions(net, text, T - 1)[0].mean(1) for net in (model, twin))  # (N,)
    change = sparse - dense
    found |= {"loss": sparse.mean().item(), "loss_dense": dense.mean().item()}
    error = change.std().item() / len(change) ** 0.5
    return found | {"loss_change": change.mean().item(), "loss_change_se": error}


@torch.no_grad()
def _layers(model, twin, idx, block, top_k, share):
    """(name, value) of every layer, while the dense model runs on one sequence (1, T)."""
    device = model.embed.weight.device
    T, x = idx.shape[1], model.embed(idx.to(device))
    rope, position = model.rope[:T], torch.arange(T, device=device)
    late = slice(top_k * block, None)  # queries that must leave a block out
    for layer, sparse in zip(model.blocks, twin.blocks, strict=True):
        normed = layer.attn_norm(x)
        q, k, _ = layer.attn.qkv(normed, rope)
        chosen = choose_blocks(q, k, position, block=block, top_k=top_k, share=share)
        if TILE % block == 0:
            tiles = tiles_of(chosen, block)  # (1, G, T / 128, T / 128)
            yield "tiles_loaded", tiles.sum() / torch.ones_like(tiles).tril().sum()
        mask = visible(chosen, position, block, T)
        mask = mask.repeat_interleave(q.shape[2] // mask.shape[1], dim=1)[
            :, :, late
        ]  # (1, H, ., T)
        yield "keys_seen", (mask.sum(-1) / (position[late] + 1)).mean()
        yield "mass_kept", (layer.attn.branches(q, k)[:, :, late] * mask).sum(-1).mean()
        if len(mask[0]) == 2 * model.config.n_head:
            yield "supports_differ", (mask[:, 0::2] != mask[:, 1::2]).any(-1).float().mean()
        dense, ours = (net.attn.weights(q, k, normed)[:, :, late] for net in (layer, sparse))
        yield "map_change", ((ours - dense).abs().sum(-1) / dense.abs().sum(-1)).mean()
        x = layer(x, rope)


@dataclasses.dataclass
class Study:
    """Every way to choose, on trained models: what it keeps, its loss, what it can recall."""

    folders: tyro.conf.Positional[tuple[Path, ...]]  # of runs with DIFF V2 or softmax
    out: Path = Path("runs/sparsity.json")  # a new file: a row for each choice and dense model
    data: str = "python"  # validation text, as for training
    windows: int = 32  # of it, block_size long
    budgets: tuple[tuple[int, int], ...] = ((32, 4), (32, 8), (128, 2))  # block, top_k
    prompts: int = 512  # of each recall task; 0 leaves retrieval out
    device: str = "auto"  # auto (a GPU if there is one), cpu, cuda

    def __post_init__(self):
        if self.windows < 2:  # of one alone there is no error
            raise ValueError(f"--windows {self.windows}: give at least 2")
        if self.prompts < 2 and self.prompts != 0:
            raise ValueError(f"--prompts {self.prompts}: give at least 2, or 0 for none")

    def run(self):
        """Measure and write; returns what the file holds."""
        with new_file(self.out):
            return self._run()

    def _run(self):
        device = pick_device(self.device)
        self.found = {
            "command": shlex.join(["python", *sys.orig_argv[1:]]),
            "date": str(datetime.date.today()),
            "machine": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
            "torch": torch.__version__,
            "rows": [],
        }
        for folder in self.folders:
            model = load_run(folder, device)
            c, about = model.config, {"run": folder.name, "attention": model.config.attention}
            text, _ = next(
                open_data(self.data, c.vocab_size, c.block_size).val.fixed_batches(
                    1, self.windows, c.block_size
                )
            )
            self._add(about | {"share": "dense"} | self._retrieval(model))
            shares = SHARES if c.attention == "diff_v2" else ("head", "group")
            for (block, top_k), share in ((b, s) for b in self.budgets for s in shares):
                row = about | {"share": share, "block": block, "top_k": top_k}
                row |= sparsity(model, text, share, block=block, top_k=top_k)
                self._add(row | self._retrieval(sparse_twin(model, share, block, top_k)))
        return self.found

    def _retrieval(self, model):
        return retrieval(model, prompts=self.prompts) if self.prompts else {}

    def _add(self, row):
        self.found["rows"].append(row)
        print(json.dumps(row), flush=True)
        text = json.dumps(self.found, indent=1) + "\n"
        replace_text(self.out, text)


if __name__ == "__main__":
    with one_line_errors():
        with one_line_refusals():
            study = tyro.cli(Study)
        study.run()
