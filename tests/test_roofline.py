"""The roofline: what it says a step needs is what a real step does, and no kernel is left out."""

import json
import re
import shutil

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from minidiff import GPT, GPTConfig, variant
from minidiff.bench import roofline, work
from minidiff.bench.train import SIZES, flops_per_token
from minidiff.model import rotate
from minidiff.study.evidence import RESULTS, load
from minidiff.train import TrainConfig, make_optimizer

TINY = GPTConfig(n_layer=2, n_head=4, n_kv_head=2, head_dim=8, n_embd=32, block_size=16,
                 backend="naive")  # fmt: skip
BATCH = 3
MODELS = ("softmax_1.5h", "diff_v2")
BENCH = load(RESULTS / roofline.STEPS)
PROFILES = {
    (size, name): lines for size, found in BENCH["profile"].items() for name, lines in found.items()
}
STORED = load(RESULTS / "roofline.json")


def tiny(name):
    """A model whose attention is plain matrix products, and its tokens (B, T)."""
    torch.manual_seed(0)
    return GPT(variant(TINY, name)), torch.randint(257, (BATCH, TINY.block_size))


def total(parts, what):
    return sum(getattr(part, what) for part in parts)


# ---- What is needed ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_flops_of_matrix_products_are_those_that_pytorch_counts(name):
    model, tokens = tiny(name)
    needs = work.needed(model, BATCH, pair=False)
    with FlopCounterMode(display=False) as forward:
        loss = model(tokens, tokens)[1]
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    forward, backward = (
        {str(op): flops for op, flops in counter.get_flop_counts()["Global"].items()}
        for counter in (forward, backward)
    )
    logits = total(needs["logits"], "flops")
    assert forward["aten.mm"] == total(needs["matmuls, forward"], "flops") + logits / 3
    gradients = ("matmuls, input gradient", "matmuls, weight gradient")
    blocks = sum(total(needs[group], "flops") for group in gradients)
    assert backward["aten.mm"] == blocks + logits * 2 / 3
    # the naive path computes the whole square, and stores the maps: 4 products for 5 backward
    assert forward["aten.bmm"] == 2 * total(needs["attention, forward"], "flops")
    assert backward["aten.bmm"] == 2 * total(needs["attention, backward"], "flops") * 4 / 5


@pytest.mark.parametrize("name", MODELS)
def test_the_flops_of_the_mfu_are_those_of_the_groups(name):
    model, _ = tiny(name)
    needs = work.needed(model, BATCH, pair=False)
    again = total(needs["attention, backward"], "flops") / 5  # the scores: no part of the MFU
    step = sum(total(parts, "flops") for parts in needs.values()) - again
    assert step == BATCH * TINY.block_size * flops_per_token(model)


def test_a_pair_needs_4_products_forward_and_8_backward_where_two_heads_take_4_and_10():
    two_steps, pair = (work.attention(TINY, 2, BATCH, pair) for pair in (False, True))
    product = BATCH * TINY.block_size**2 * TINY.head_dim  # the causal half of 2 T^2 d
    assert [part.flops / product / TINY.n_head for part in two_steps] == [4, 10]
    assert [part.flops / product / TINY.n_head for part in pair] == [4, 8]


def size_of(*tensors):
    return sum(t.numel() * t.element_size() for t in tensors)


def test_bytes_of_a_matrix_product_are_those_of_its_three_matrices():
    x, weight = (torch.empty(shape, dtype=torch.bfloat16) for shape in ((5, 7), (11, 7)))
    assert work.matmul(5, 7, 11).bytes == size_of(x, weight, x @ weight.T)


@pytest.mark.parametrize("pair", [False, True])
def test_bytes_of_attention_are_those_of_its_tensors(pair):
    B, T, h, h_kv, d = BATCH, TINY.block_size, TINY.n_head, TINY.n_kv_head, TINY.head_dim
    q = torch.empty(B, T, 2 * h, d, dtype=torch.bfloat16)
    k = v = torch.empty(B, T, h_kv, d, dtype=torch.bfloat16)
    sums = torch.empty(B, 2 * h, T)
    forward, backward = work.attention(TINY, 2, BATCH, pair)
    if pair:
        logits = torch.empty(B, T, h, dtype=torch.bfloat16)
        out = out2 = grad = torch.empty(B, T, h, d, dtype=torch.bfloat16)
        saved = (q, k, v, logits, out, out2, sums)
        assert forward.bytes == size_of(*saved)
        assert backward.bytes == size_of(*saved, grad) + size_of(q, k, v, logits)
    else:
        out = grad = torch.empty_like(q)
        assert forward.bytes == size_of(q, k, v, out, sums)
        assert backward.bytes == size_of(q, k, v, out, sums, grad) + size_of(q, k, v)


@pytest.mark.parametrize("name", MODELS)
def test_bytes_between_the_matrix_products_are_those_of_a_real_step(name):
    """In mixed precision: the tensors that a block's modules take and give, by their dtypes."""
    model, tokens = tiny(name)
    needs = work.needed(model, BATCH, pair=False)
    seen = {}
    for module_name, module in model.named_modules():
        module.register_forward_hook(
            lambda m, args, out, key=module_name: seen.update({key: (args[0], out)})
        )
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(tokens)[0]
    x, end = seen["blocks.0"]
    a, mlp = seen["blocks.0.attn"][1], seen["blocks.0.mlp"][1]
    half = torch.empty_like(
        x, dtype=torch.bfloat16
    )  # a norm's output, as the next product reads it
    assert x.dtype == end.dtype == torch.float32 and a.dtype == mlp.dtype == half.dtype
    norms = size_of(x, half) + size_of(x, a, half) + size_of(x, a, mlp, end)
    assert needs["norms and residual, forward"] == [work.Work(0, norms)] * TINY.n_layer
    readers = [key for key in seen if re.fullmatch(r"blocks\.0\.attn\.(q|k|v|lambda)_proj", key)]
    second = size_of(half, half, x, a, end) + size_of(x, half)
    first = size_of(*[half for _ in readers], x, x) + size_of(x, half)
    assert needs["norms and residual, backward"][0].bytes == second + first
    gate, up, inner = (seen[f"blocks.0.mlp.{key}"] for key in ("w1", "w3", "w2"))
    ways = size_of(gate[1], up[1], inner[0]), size_of(gate[1], up[1], inner[0], gate[1], up[1])
    assert [part.bytes for part in needs["SwiGLU"][:2]] == list(ways)
    q, k = (seen[f"blocks.0.attn.{key}_proj"][1] for key in "qk")
    assert rotate(q.unflatten(-1, (-1, TINY.head_dim)), model.rope).dtype == q.dtype
    assert needs["rotary"][0].bytes == 2 * size_of(q, k)
    assert total(needs["cross entropy"], "bytes") == 3 * size_of(logits)
    final, table = seen["norm"][0], model.embed.weight  # (N, D) and (V, D)
    last = size_of(final, half) + size_of(half, final, final)
    assert total(needs["embedding, last norm"], "bytes") == 2 * size_of(final, table) + last
    if name == "diff_v2":
        lam, out = seen["blocks.0.attn.lambda_proj"][1], seen["blocks.0.attn.o_proj"][0]
        forward, backward = needs["subtraction"][:2]
        assert forward.bytes == size_of(q, lam, out)  # 2h heads have the size of q
        assert backward.bytes == size_of(out, q[..., ::2], lam) + size_of(q, lam)
    else:
        assert "subtraction" not in needs


@pytest.mark.slow
def test_bytes_of_the_optimizer_are_those_of_its_tensors():
    model, tokens = tiny("diff_v2")
    optimizer = make_optimizer(model, TrainConfig())
    model(tokens, tokens)[1].backward()
    optimizer.step()
    expected = 0
    for p in model.parameters():
        first, second = (optimizer.state[p][key] for key in ("exp_avg", "exp_avg_sq"))
        expected += size_of(p.grad) + size_of(p, p.grad, first, second) + size_of(p, first, second)
    needs = work.needed(model, BATCH, pair=True)
    assert total(needs["clipping and AdamW"], "bytes") == expected
    weights = [m.weight for m in model.modules() if isinstance(m, torch.nn.Linear)]
    casts = [size_of(w, w.bfloat16()) for w in weights]
    assert total(needs["casts of weights"], "bytes") == 2 * sum(casts)


def test_a_roof_is_the_slower_of_computing_and_reading():
    part = work.Work(flops=10, bytes=100)
    assert part.roof_ms(peak=1, bandwidth=1000) == 10_000
    assert part.roof_ms(peak=1000, bandwidth=1) == 100_000


# ---- What was measured -------------------------------------------------------------------------


def kernels(lines):
    for line in lines:
        ms, calls, name = re.fullmatch(r" *([\d.]+) ms +[\d.]+% +(\d+)x (.*)", line).groups()
        yield float(ms), int(calls), name


@pytest.mark.parametrize("key", PROFILES, ids=" ".join)
def test_every_kernel_is_of_one_group_and_the_groups_make_the_profile(key):
    lines = PROFILES[key]
    found = roofline.measured(lines)
    assert set(found) <= set(roofline.GROUPS)
    assert sum(ms for ms, _ in found.values()) == pytest.approx(sum(k[0] for k in kernels(lines)))
    assert sum(n for _, n in found.values()) == sum(k[1] for k in kernels(lines))
    ms, share = re.match(r" *([\d.]+) ms +([\d.]+)%", lines[0]).groups()  # what is not listed is
    whole = 100 * float(ms) / float(share)  # next to nothing: of all kernels, to 0.05%
    assert sum(ms for ms, _ in found.values()) == pytest.approx(whole, rel=0.01)


@pytest.mark.parametrize("key", PROFILES, ids=" ".join)
def test_layouts_tell_the_forward_from_both_gradients(key):
    """Each has one product for each matrix of a block, and split products one sum each."""
    size, name = key
    layers = SIZES[size][0].n_layer
    products = 8 if name in ("diff_v2", "pair", "two_steps") else 7  # W_lambda
    found = list(kernels(PROFILES[key]))
    for group in ("forward", "input gradient", "weight gradient"):
        pattern = roofline.GROUPS[f"matmuls, {group}"]
        calls = sum(n for _, n, k in found if "nvjet" in k and re.search(pattern, k))
        assert calls == layers * products, group
    assert sum(n for _, n, k in found if "cutlass" in k) == 3
    split = sum(n for _, n, k in found if "nvjet" in k and "splitK" in k)
    assert split == sum(n for _, n, k in found if "splitKreduce" in k and "false, float" in k)
    assert all(re.search(r"_NT[NT]$", k) for _, _, k in found if "nvjet" in k and "splitK" in k)
    assert sum(n for _, n, k in found if "reduce_kernel<128" in k) == 2 * layers  # a gain a norm


@pytest.mark.parametrize(
    "kernel", ["an_unknown_kernel", "triton_poi_fused_silu_sigmoid_0", "_forward_of_mine", ""]
)
def test_a_kernel_of_no_group_or_of_two_is_refused_by_name(kernel):
    with pytest.raises(ValueError, match=f"{kernel}.*roofline.GROUPS"):
        roofline.group_of(kernel)


@pytest.mark.slow
def test_what_is_stored_is_what_the_code_makes():
    assert STORED["command"] == "python -m minidiff.bench.roofline"
    made = json.loads(json.dumps(roofline.roofline(RESULTS)))
    assert made == {key: value for key, value in STORED.items() if key != "command"}


def test_steps_add_up_and_no_group_is_far_above_its_roof():
    assert {step["size"] for step in STORED["steps"]} == {"25m", "350m", "1b_layers"}
    for facts in STORED["steps"]:
        rows = [r for r in STORED["rows"] if (r["size"], r["way"]) == (facts["size"], facts["way"])]
        assert len(rows) == (16 if facts["way"] == "two steps" else 15)
        for key in ("ms", "roof_ms"):
            whole = facts["kernels_ms" if key == "ms" else key]
            assert sum(row[key] for row in rows) == pytest.approx(whole, rel=1e-4)
        assert facts["kernels_ms"] + facts["no_kernel_ms"] == pytest.approx(facts["step_ms"], 1e-3)
        assert facts["mfu"] < facts["mfu_kernels"] < facts["mfu_roof"] < 1
        assert max(row["share"] for row in rows) < 1.04  # the cache serves some reads


def test_a_way_is_the_row_that_was_trained_so():
    for size in ("25m", "350m", "1b_layers"):
        found = roofline.ways(BENCH, size)
        backends = {way: row["backend"] for way, row in found.items()}
        assert backends == {
            "softmax 1.5h": "sdpa", "softmax, pair's code": "one_by_one",
            "fused pair": "pair", "two steps": "sdpa",
        }  # fmt: skip
        assert found["fused pair"]["variant"] == ("pair" if size == "1b_layers" else "diff_v2")


def test_steps_and_copy_of_two_cards_are_refused(tmp_path):
    for name, gpu in ((roofline.STEPS, "H200"), (roofline.COPY, "H100")):
        file = {"machine": {"device": f"NVIDIA {gpu}"}, "rows": [], "profile": {}}
        (tmp_path / name).write_text(json.dumps(file), encoding="utf-8")
    with pytest.raises(ValueError, match=r"of an H200, .* of an H100: measure on one"):
        roofline.roofline(tmp_path)


@pytest.mark.parametrize("lacks", ["profile", "one_by_one"])
def test_results_that_lack_a_profile_or_a_row_name_the_command_that_makes_it(tmp_path, lacks):
    file = json.loads(json.dumps(BENCH))
    file.pop(lacks, None)
    file["rows"] = [row for row in file["rows"] if row["variant"] != lacks]
    (tmp_path / roofline.STEPS).write_text(json.dumps(file), encoding="utf-8")
    shutil.copy(RESULTS / roofline.COPY, tmp_path)
    with pytest.raises(ValueError, match=rf"no '{lacks}' in it: .*measure\.sh pair_bench"):
        roofline.roofline(tmp_path)


def test_the_same_products_take_longer_beside_another_kernel_for_attention():
    """The clock: those of one model, in steps in a row. Passes bound by memory do not care."""
    ms = {(row["size"], row["way"], row["group"]): row["ms"] for row in STORED["rows"]}
    for size in ("25m", "350m"):
        by_cudnn, by_triton = (
            sum(ms[size, way, f"matmuls, {part}"] for part in ("forward", "input gradient"))
            for way in ("softmax 1.5h", "softmax, pair's code")
        )
        assert 1.02 < by_triton / by_cudnn < 1.07
        passes = [ms[size, way, "SwiGLU"] for way in ("softmax 1.5h", "softmax, pair's code")]
        assert passes[1] == pytest.approx(passes[0], rel=0.005)


def test_the_targets_are_met_by_a_step_that_is_as_much_shorter():
    for facts in STORED["steps"]:
        if facts["size"] in roofline.MFU:
            less = facts["step_ms"] - facts["over_mfu_ms"]
            target = roofline.MFU[facts["size"]]
            assert facts["mfu"] * facts["step_ms"] / less == pytest.approx(target, rel=5e-3)
        if facts["way"] == "softmax 1.5h":
            softmax = facts
        if "over_softmax_ms" in facts:
            less = facts["step_ms"] - facts["over_softmax_ms"]
            speed = roofline.SPEED[facts["size"]]
            assert softmax["step_ms"] / less == pytest.approx(speed, rel=1e-3)
