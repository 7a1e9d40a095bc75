"""Measure writing on a GPU, within 90 s: a table, and writing.json in $OUT or here.

    python notebooks/results/measure_writing.py [seconds]

Parts that fail print their traceback and leave the rest alone. From the root of the repository.
"""

import functools
import json
import os
import statistics
import sys
import tempfile
import time
import traceback
from pathlib import Path

BEGIN = time.perf_counter()
LIMIT = float(sys.argv[1]) if len(sys.argv) > 1 else 85.0
os.environ["TRITON_CACHE_DIR"] = tempfile.mkdtemp()  # as on a machine that never wrote
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch  # noqa: E402

from minidiff.bench.train import SIZES  # noqa: E402
from minidiff.fast import step  # noqa: E402
from minidiff.fast.decoder import record_graph, token_step, write  # noqa: E402
from minidiff.fast.draw import draw  # noqa: E402
from minidiff.generate import KVCache, sample  # noqa: E402
from minidiff.model import GPT, GPTConfig  # noqa: E402
from minidiff.variants import variant  # noqa: E402

FOUND, DEVICE = {}, torch.device("cuda")
SHAPE = SIZES["25m"][0]
NAMES = ("softmax_h", "softmax_1.5h", "diff_v2")


def part(function):
    """Run it now unless time is up; a failure is printed and the rest goes on."""
    left, start = LIMIT - (time.perf_counter() - BEGIN), time.perf_counter()
    if left < 5:
        print(f"== {function.__name__}: skipped, {left:.0f} s left", flush=True)
        return
    print(f"== {function.__name__}", flush=True)
    try:
        with torch.inference_mode():
            function()
            torch.cuda.synchronize()
    except Exception:
        print(traceback.format_exc()[-3000:], flush=True)
        FOUND.setdefault("failed", []).append(function.__name__)
    print(f"   ({time.perf_counter() - start:.1f} s)", flush=True)
    text = json.dumps(FOUND, indent=1)
    Path(os.environ.get("OUT", "."), "writing.json").write_text(text, encoding="utf-8")


def time_left():
    return LIMIT - (time.perf_counter() - BEGIN)


def seconds(call):
    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - start


@functools.cache
def model(name, shape=SHAPE):
    torch.manual_seed(0)
    with torch.inference_mode(False), DEVICE:
        return GPT(variant(shape, name)).bfloat16()


def prepared(net, B, make_step, filled=500):
    """A graph of one token through the step and the draw, and a function that replays n of them."""
    prompt = torch.zeros(B, 1, dtype=torch.long, device=DEVICE)
    cache = KVCache(net.config.block_size, DEVICE)
    net(prompt, cache=cache)
    text = prompt.new_zeros(B, net.config.block_size)
    token, seed = prompt.clone(), torch.full((1,), 1, dtype=torch.long, device=DEVICE)
    one = make_step(net, cache, B)

    def call():
        draw(one(token)[:, -1], token, text, cache.length, seed, 0.8, 40)

    cache.length.fill_(filled)
    graph, _ = record_graph(call)

    def replay(n):
        cache.length.fill_(filled)
        for _ in range(n):
            graph.replay()

    replay.keep = one, token, text, seed  # a graph does not keep its inputs alive
    return replay


def microseconds(replay, n=300):
    """Of one token, the median of five."""
    replay(20)
    return statistics.median(seconds(lambda: replay(n)) / n * 1e6 for _ in range(5))


def kernels(replay, top=0):
    """(number of kernels, their microseconds) of a token, by the profiler; prints the largest."""
    from torch.profiler import ProfilerActivity, profile

    replay(3)
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        replay(4)
        torch.cuda.synchronize()
    rows = [e for e in found.key_averages() if e.self_device_time_total > 0]
    rows.sort(key=lambda e: -e.self_device_time_total)
    for e in rows[:top]:
        each = e.self_device_time_total / e.count
        print(f"      {e.count / 4:6.1f} x {each:6.2f} us  {e.key[:80]}", flush=True)
    count = sum(e.count for e in rows) / 4
    return count, sum(e.self_device_time_total for e in rows) / 4


def fused(net, cache, B):
    return token_step(net, cache, B, True)


def modules(net, cache, B):
    return token_step(net, cache, B, False)


print(torch.cuda.get_device_name(), torch.__version__)


@part
def first_call_on_a_new_machine():
    """Everything cold: CUDA, cuBLAS, and an empty Triton cache."""
    prompt = torch.zeros(1, 16, dtype=torch.long, device=DEVICE)
    net = model("diff_v2")
    rows = FOUND["first_calls_s"] = {}
    rows["1 token, cold"] = seconds(lambda: net.generate(prompt, 1, seed=0))
    rows["100 tokens (modules), cold"] = seconds(
        lambda: write(net, prompt, 100, 0.8, 40, 0, fused=False)
    )
    rows["500 tokens (fused), cold"] = seconds(lambda: write(net, prompt, 500, 0.8, 40, 0))
    rows["500 tokens (fused), warm"] = seconds(lambda: write(net, prompt, 500, 0.8, 40, 0))
    print(json.dumps(rows, indent=1))


@part
def the_fused_step_is_the_model():
    rows = FOUND["errors"] = {}
    for name in NAMES:
        torch.manual_seed(1)
        small = GPTConfig(n_layer=2, n_head=4, n_kv_head=2, head_dim=64, n_embd=192, block_size=96)
        with torch.inference_mode(False), DEVICE:
            net = GPT(variant(small, name)).requires_grad_(False)
        for block in net.blocks:  # far from uniform attention
            block.attn.q_proj.weight.mul_(10)
            block.attn.k_proj.weight.mul_(10)
        net = net.bfloat16()
        for B in (1, 3):
            idx = torch.randint(0, 256, (B, 64), device=DEVICE)
            exact = net.double()(idx)[0]
            net = net.bfloat16()
            plain = net(idx)[0].double()
            for how, make in (("fused", fused), ("modules", modules)):
                cache = KVCache(96, DEVICE)
                parts, token = [net(idx[:, :5], cache=cache)[0]], idx[:, 5:6].clone()
                length = cache.length.clone()
                one = make(net, cache, B)  # must outlive the graph
                graph, out = record_graph(functools.partial(one, token))
                cache.length.copy_(length)
                for i in range(5, 64):
                    token.copy_(idx[:, i : i + 1])
                    graph.replay()
                    parts.append(out.clone())
                got = torch.cat(parts, dim=1).double()
                norm = exact.norm(dim=-1)
                worst = ((got - exact).norm(dim=-1) / norm).max().item()
                base = ((plain - exact).norm(dim=-1) / norm).max().item()
                rows[f"{name} B={B} {how}"] = [worst, base]
                print(f"   {name} B={B} {how}: worst {worst:.4f}, full bf16 forward {base:.4f}")


@part
def seeds_and_draws():
    prompt = torch.zeros(2, 16, dtype=torch.long, device=DEVICE)
    net = model("diff_v2")
    run = functools.partial(net.generate, prompt, 300, temperature=0.8, top_k=40)
    one, again, other = run(seed=1), run(seed=1), run(seed=2)
    print("   same seed same text:", torch.equal(one, again), "other:", torch.equal(one, other))
    plain = write(net, prompt, 300, 0.8, 40, 1, fused=False)
    print("   share of tokens as by the modules:", (plain == one).float().mean().item())
    print("   rows differ:", not torch.equal(one[0], one[1]), "long seed:", run(seed=2**62)[0, -3:])
    greedy = net.generate(prompt, 200, temperature=0)
    logits = net(greedy)[0][:, 15:-1]
    print("   greedy is argmax:", (logits.argmax(-1) == greedy[:, 16:]).float().mean().item())
    n, V = 200_000, 257
    logits = torch.randn(1, V, device=DEVICE) * 2
    token = torch.empty(n, 1, dtype=torch.long, device=DEVICE)
    for temperature, top_k in ((1.0, None), (0.7, 40), (1.3, 5), (1.0, 256)):
        text, length = token.new_zeros(n, 3), torch.ones(1, dtype=torch.int32, device=DEVICE)
        seed = torch.full((1,), 7, dtype=torch.long, device=DEVICE)
        draw(logits.expand(n, V).contiguous(), token, text, length, seed, temperature, top_k)
        counts = torch.bincount(token.flatten(), minlength=V).double()
        z = logits[0] / temperature
        if top_k:
            z = z.masked_fill(z < z.topk(top_k).values[-1], -torch.inf)
        p = z.softmax(0).double()
        keep = p * n > 5
        chi = ((counts - p * n)[keep] ** 2 / (p * n)[keep]).sum().item()
        outside = counts[p == 0].sum().item()
        print(f"   T={temperature} top_k={top_k}: chi2 {chi:.0f} for {int(keep.sum()) - 1}, "
              f"outside {outside:.0f}, stored {torch.equal(text[:, 1:2], token)}")  # fmt: skip
        FOUND.setdefault("chi2", []).append([temperature, top_k, chi, int(keep.sum()) - 1])


@part
def tokens_per_second():
    prompt = torch.zeros(1, 1, dtype=torch.long, device=DEVICE)
    n = SHAPE.block_size - 1
    runs = {}
    for name in NAMES:
        net = model(name)
        runs[name, "default"] = functools.partial(
            net.generate, prompt, n, temperature=0.8, top_k=40, seed=0
        )
        runs[name, "modules"] = functools.partial(write, net, prompt, n, 0.8, 40, 0, fused=False)
    for run in runs.values():
        run()
    times = {key: [] for key in runs}
    for _ in range(4):
        for key, run in runs.items():
            times[key].append(seconds(run))
    table = FOUND["generate"] = {}
    for (name, how), values in times.items():
        speed = n / statistics.median(values)
        ratio = statistics.median(
            a / b for a, b in zip(values, times["softmax_h", how], strict=True)
        )
        table[f"{name} {how}"] = {"tokens_per_s": speed, "time_vs_softmax_h": ratio}
        print(f"   {name:13s} {how:8s} {speed:8.0f} tokens/s  {ratio:.3f} of softmax_h's time")


@part
def first_token():
    rows = FOUND["first_token_ms"] = {}
    for T in (1, 16, 512):
        prompt = torch.zeros(1, T, dtype=torch.long, device=DEVICE)
        for name in NAMES:
            run = functools.partial(model(name).generate, prompt, 1, seed=0)
            run()
            rows[f"{name} T={T}"] = 1e3 * statistics.median(seconds(run) for _ in range(7))
            eager = functools.partial(model(name), prompt)
            rows[f"{name} T={T}, one forward"] = 1e3 * statistics.median(
                seconds(eager) for _ in range(7)
            )
    print(json.dumps({k: round(v, 2) for k, v in rows.items()}, indent=1))


@part
def device_time_of_a_token():
    rows = FOUND["token"] = {}
    for name in NAMES:
        for how, make in (("fused", fused), ("modules", modules)):
            replay = prepared(model(name), 1, make)
            us = microseconds(replay)
            count, busy = kernels(replay, top=9 if how == "fused" else 0)
            rows[f"{name} {how}"] = {"us": us, "kernels": count, "kernels_us": busy}
            print(f"   {name:13s} {how:8s} {us:6.1f} us a token, {count:.0f} kernels {busy:.1f} us")


@part
def several_sequences():
    rows, step.MAX_BATCH_SMALL = FOUND.setdefault("batches", {}), 64
    try:
        for B in (4, 8, 16, 32):
            for name in ("softmax_h", "diff_v2"):
                for how, make in (("fused", fused), ("modules", modules)):
                    us = microseconds(prepared(model(name), B, make), 100)
                    rows[f"B={B} {name} {how}"] = us
                    print(f"   B={B:3d} {name:10s} {how:8s} {us:8.1f} us")
    finally:
        step.MAX_BATCH_SMALL = 32


@part
def a_wide_model():
    """The benchmark's: 8 layers, h=16, d=128, D=2048; 8k of context."""
    shape = GPTConfig(n_layer=8, n_head=16, n_kv_head=4, head_dim=128, n_embd=2048,
                      block_size=8192 + 256)  # fmt: skip
    rows = FOUND["wide"] = {}
    for name in ("softmax_h", "diff_v2"):
        net = model(name, shape)
        rows[f"{name} weights GB"] = sum(p.nbytes for p in net.parameters()) / 1e9
        for B in (1, 4, 8):
            for how, make in (("fused", fused), ("modules", modules)):
                replay = prepared(net, B, make, filled=8000)
                rows[f"{name} B={B} {how}"] = us = microseconds(replay, 50)
                print(f"   {name:10s} B={B} {how:8s} {us:8.1f} us")
                if B == 1 and how == "fused":
                    kernels(replay, top=9)
    model.cache_clear()


@part
def tuning():
    rows, kept = FOUND["tuning"] = {}, (step.PROGRAMS, step.TILE, step.WARPS)
    try:
        for programs, tile, warps in (
            (128, 4096, 4), (256, 4096, 4), (128, 4096, 8), (128, 2048, 2), (64, 4096, 4),
            (512, 2048, 4), (128, 8192, 8),
        ):  # fmt: skip
            if time_left() < 20:
                break
            step.PROGRAMS, step.TILE, step.WARPS = programs, tile, warps
            pair = [microseconds(prepared(model(n), 1, fused)) for n in ("softmax_h", "diff_v2")]
            rows[f"{programs} programs, tile {tile}, {warps} warps"] = pair
            print(f"   programs {programs} tile {tile} warps {warps}: {pair[0]:.1f} {pair[1]:.1f}")
    finally:
        step.PROGRAMS, step.TILE, step.WARPS = kept


@part
def torch_compile():
    """The other way: the model's own modules through torch.compile, then recorded."""
    rows = FOUND["torch_compile"] = {}
    for name in ("diff_v2", "softmax_h"):
        if time_left() < 14:
            print("   no time for", name)
            break

        def compiled(net, cache, B):
            return torch.compile(lambda token: net(token, cache=cache)[0], dynamic=False)

        start = time.perf_counter()
        replay = prepared(model(name), 1, compiled)
        took = time.perf_counter() - start
        us = microseconds(replay)
        count, busy = kernels(replay)
        rows[name] = {"us": us, "kernels": count, "kernels_us": busy, "ready_s": took}
        print(f"   {name}: {us:.1f} us a token; {count:.0f} kernels, {busy:.1f} us; {took:.1f} s")


@part
def sampling_as_before():
    """What drawing cost outside the graph: generate.sample alone."""
    logits = torch.randn(1, 257, device=DEVICE)
    rng = torch.Generator(DEVICE).manual_seed(0)
    us = seconds(lambda: [sample(logits, 0.8, 40, rng) for _ in range(200)]) / 200 * 1e6
    FOUND["sample_us"] = us
    print(f"   {us:.0f} us")


print(json.dumps(FOUND, indent=1))
print(f"done in {time.perf_counter() - BEGIN:.0f} s; failed: {FOUND.get('failed', 'nothing')}")
