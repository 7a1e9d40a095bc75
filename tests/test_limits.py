"""Estimates of memory: from below, and made before anything is allocated."""

import dataclasses
import resource
import sys
import time

import pytest
import torch
from training import TINY

from minidiff import GPT, VARIANTS, GPTConfig, limits, variant
from minidiff.generate import KVCache
from minidiff.limits import cache_bytes, check_training, memory, model_bytes, training_bytes
from minidiff.runs import load_run
from minidiff.train import PRESETS, TrainConfig, train
from minidiff.writing import sample

CPU = torch.device("cpu")


def saved_bytes(model, x):
    """What a forward pass keeps for the backward pass, but for the weights."""
    own, kept = {t.untyped_storage().data_ptr() for t in model.state_dict().values()}, {}
    own.add(model.rope.untyped_storage().data_ptr())

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # alive: no address comes twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(x, x)[1].backward()
    return sum(size for size, _ in kept.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("deep", [2, 40])
def test_the_estimate_is_from_below_and_near(name, deep):
    model = dataclasses.replace(TINY, n_layer=deep, n_head=4, n_kv_head=2)
    config = TrainConfig(model=variant(model, name), batch_size=4, grad_accum=2)
    real = GPT(config.model)
    weights, table = model_bytes(config.model)
    exact = sum(p.nbytes for p in real.parameters())
    assert weights == pytest.approx(exact, rel=2e-3)  # over 32 layers: in proportion
    assert table == real.rope.nbytes
    activations = training_bytes(config) - 4 * weights - table
    kept = saved_bytes(real, torch.zeros(2, 16, dtype=torch.long))
    assert kept / 20 < activations <= kept


@pytest.mark.parametrize(
    "settings",
    [
        {"model": {"n_embd": 300_000}},
        {"model": {"n_layer": 10**9}},
        {"model": {"vocab_size": 2 * 10**9}},
        {"model": {"head_dim": 2 * 10**9}},
        {"model": {"block_size": 2 * 10**9}},
        {"batch_size": 10**9},
        {"batch_size": 8 * 10**9, "grad_accum": 10**9},
        {"eval_batches": 10**12},
    ],
)
def test_what_cannot_fit_is_refused_at_once_with_the_bytes(config, settings):
    model = dataclasses.replace(PRESETS["laptop"].model, **settings.pop("model", {}))
    config = dataclasses.replace(config, model=model, **settings)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    with pytest.raises(ValueError, match=r"needs at least [\d,.inf]+ GB of memory, and cpu has"):
        train(config)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200_000 * (1024 if sys.platform == "darwin" else 1)  # kilobytes; bytes
    assert time.perf_counter() - start < 20


def test_what_can_fit_is_not_refused():
    for config in PRESETS.values():
        check_training(config, CPU)
    check_training(TrainConfig(model=GPTConfig(n_layer=24, n_embd=1024, block_size=2048)), CPU)


def test_the_memory_of_this_machine_is_known():
    assert 1e8 < memory(CPU) < 1e14


@pytest.mark.parametrize("name", ["diff_v2", "softmax_h", "yoco_diff_v2"])
def test_the_cache_of_a_huge_block_size_counts_where_a_model_writes(monkeypatch, name):
    """The weights and the rotary table fit; the cache, made for all of block_size, would not."""
    config = variant(dataclasses.replace(TINY, n_layer=4), name)
    cache = KVCache(config.block_size)
    GPT(config)(torch.zeros(1, 2, dtype=torch.long), cache=cache)
    real = sum(x.nbytes for layer in cache.layers.values() for x in layer)
    assert cache_bytes(config, CPU) == real
    monkeypatch.setattr(limits, "memory", lambda device: sum(model_bytes(config)) + real - 1)
    limits.check_model(config, CPU, "config.json")
    with pytest.raises(ValueError, match=r"config\.json needs at least .* GB of memory"):
        limits.check_model(config, CPU, "config.json", writes=True)


def test_sample_refuses_a_cache_that_does_not_fit(config, monkeypatch):
    folder = train(dataclasses.replace(config, steps=1))
    needed = sum(model_bytes(config.model))
    monkeypatch.setattr(limits, "memory", lambda device: needed)
    load_run(folder)
    with pytest.raises(ValueError, match=r"config\.json needs at least"):
        sample(folder, "a")
