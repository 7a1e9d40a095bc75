"""The controls of DIFF V2's start, of its weight decay, and of V1's lambda."""

import copy
import dataclasses

import pytest
import torch
from test_variants import TINY, inputs, layer
from torch.testing import assert_close

from minidiff import GPT
from minidiff.model import ATTENTION, rope_table
from minidiff.train import TrainConfig, make_optimizer, train
from minidiff.variants import START, VARIANTS, build, variant
from minidiff.variants.controls import LATE, double_output


def new(make, name):
    torch.manual_seed(0)
    return make(TINY, name)


@pytest.mark.parametrize("name", VARIANTS)
def test_build_gives_the_first_weights_that_a_config_cannot_say(name):
    built, plain = new(build, name), new(lambda config, name: GPT(variant(config, name)), name)
    assert built.config == plain.config == variant(TINY, name)
    same = [torch.equal(a, b) for a, b in zip(built.parameters(), plain.parameters(), strict=True)]
    assert all(same) == (name not in START)


@pytest.mark.parametrize("name", START)
def test_build_gives_what_training_begins_with(config, name):
    begun = []

    def start(model):
        START[name](model)
        begun.append(copy.deepcopy(model.state_dict()))

    train(dataclasses.replace(config, model=variant(TINY, name), steps=1), on_start=start)
    built = new(build, name).state_dict()
    assert all(torch.equal(built[key], weight) for key, weight in begun[0].items())


@pytest.mark.parametrize("layers", [1, 3])
def test_doubled_output_is_twice_that_of_diff_v2(layers):
    plain, doubled = (GPT(dataclasses.replace(TINY, n_layer=layers)) for _ in "ab")
    doubled.load_state_dict(plain.state_dict())
    double_output(doubled)
    x, rope = torch.randn(2, 9, 16), rope_table(TINY)[:9]
    for one, two in zip(plain.blocks, doubled.blocks, strict=True):
        assert_close(two.attn(x, rope), 2 * one.attn(x, rope))
    with pytest.raises(ValueError, match="needs DIFF V2 layers"):
        double_output(GPT(dataclasses.replace(TINY, attention="softmax")))


def test_quiet_softmax_has_a_smaller_output_and_nothing_else_changes():
    plain, quiet = (new(build, name) for name in ("softmax_1.5h", "softmax_1.5h_quiet"))
    x, rope = torch.randn(2, 9, 16), rope_table(TINY)[:9]
    assert_close(quiet.blocks[0].attn(x, rope), 0.4 * plain.blocks[0].attn(x, rope))
    changed = [
        name
        for name, weight in plain.state_dict().items()
        if not torch.equal(weight, quiet.state_dict()[name])
    ]
    assert changed == [f"blocks.{i}.attn.o_proj.weight" for i in range(TINY.n_layer)]


def test_late_lambda_starts_as_softmax_of_the_even_heads():
    late, even = layer("diff_late_lambda"), layer("softmax")
    with torch.no_grad():
        late.lambda_proj.weight.zero_()
        heads = late.q_proj.weight.unflatten(0, (-1, 2, TINY.head_dim))[:, 0]  # of each pair
        even.q_proj.weight.copy_(heads.flatten(0, 1))
    x, (_, k, v) = inputs(late)
    rope = rope_table(TINY)[:9].double()
    found = late.mix(late.qkv(x, rope)[0], k, v, x) - even.mix(even.qkv(x, rope)[0], k, v, x)
    odd = even.mix(late.qkv(x, rope)[0][:, :, 1::2], k, v, x)
    assert_close(found, -torch.sigmoid(torch.tensor(-4.0)).double() * odd)
    assert torch.sigmoid(torch.tensor(-LATE)) < 0.02


def test_only_no_decay_spares_lambda_from_weight_decay():
    def spared(name):  # shapes of the matrices without decay
        model = GPT(variant(TINY, name))
        _, free = make_optimizer(model, TrainConfig(weight_decay=0.1)).param_groups
        assert free["weight_decay"] == 0
        named = {id(p): key for key, p in model.named_parameters()}
        return {named[id(p)].split(".")[-2] for p in free["params"] if p.dim() > 1}

    assert spared("diff_no_decay") == {"lambda_proj"} and spared("diff_v2") == set()


def test_v1_with_a_sigmoid_starts_at_lambda_init_and_stays_below_1():
    for index in (0, 5):
        attn = ATTENTION["diff_v1_sigmoid"](dataclasses.replace(TINY), index)
        with torch.no_grad():
            attn.lambda_q1.zero_()
            attn.lambda_q2.zero_()
            assert_close(attn.lam(), torch.tensor(attn.lambda_init))
            attn.lambda_q1.fill_(9.0), attn.lambda_k1.fill_(9.0)
            assert attn.lam() <= 1
