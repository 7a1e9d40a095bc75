"""The retrieval tasks: their prompts, their numbers on models whose answers are known."""

import ast
import hashlib
import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch.testing import assert_close

from minidiff import GPT, GPTConfig, load_pretrained
from minidiff.data import decode
from minidiff.generate import generate
from minidiff.study import retrieval as study

TINY = GPTConfig(n_layer=2, n_head=4, n_kv_head=2, head_dim=8, n_embd=16, block_size=128)


class Copier(torch.nn.Module):
    """Looks the last ``width`` bytes up in the context; gives ``p`` to what followed last time."""

    def __init__(self, width, p=0.9, block_size=256):
        super().__init__()
        self.config = GPTConfig(block_size=block_size)
        self.embed = torch.nn.Embedding(1, 1)  # says on which device the model is
        self.width, self.p = width, p

    def forward(self, idx):
        rest = (1 - self.p) / 256
        probability = torch.full((*idx.shape, 257), 1 / 257, dtype=torch.float64)
        for row, tokens in zip(probability, idx.tolist(), strict=True):
            last = {}  # the last width bytes -> what followed
            for i in range(len(tokens)):
                key = tuple(tokens[max(0, i + 1 - self.width) : i + 1])
                if key in last:
                    row[i] = rest
                    row[i, last[key]] = self.p
                if i + 1 < len(tokens):
                    last[key] = tokens[i + 1]
        return probability.log(), None


@given(n_lines=st.integers(1, 40), prompts=st.integers(1, 8), seed=st.integers(0, 2**31))
@settings(max_examples=30)
def test_a_prompt_is_python_and_its_answer_is_the_value_of_the_name(n_lines, prompts, seed):
    tokens = study.recall_prompts(n_lines, prompts, seed)
    assert tokens.shape == (prompts, 1 + 14 * n_lines + 12) and (tokens[:, 0] == 256).all()
    for row in tokens:
        *lines, question = decode(row).split("\n")
        values = {}
        for line in lines:
            name, value = line.split(" = ")
            assert name.isalpha() and name.islower() and len(name) == 4
            values[name] = ast.literal_eval(value)
        assert len(values) == n_lines  # no name repeats
        name, value = question.split(" = ")
        assert values[name] == value[1:] and len(value) == 5 and value[1:].isdigit()


@pytest.mark.parametrize("n", [600, 4096])  # drawn at once, a row in three repeats a name, or all
def test_names_do_not_repeat_even_where_a_draw_would(n):
    names = study._distinct(40, n, torch.Generator().manual_seed(0))
    assert all(len({tuple(name) for name in row}) == n for row in names.tolist())


@pytest.mark.parametrize(("n", "digest"), [(16, "1d51dff6526493e3"), (256, "e3b7185ae8d25396")])
def test_the_prompts_of_stored_results_stay_what_they_were(n, digest):
    tokens = study.recall_prompts(n, 32)
    assert hashlib.sha256(tokens.numpy().tobytes()).hexdigest().startswith(digest)


def test_digits_letters_and_the_line_asked_for_are_uniform():
    tokens = study.recall_prompts(8, 2000, seed=1)
    lines = tokens[:, 1 : 1 + 8 * 14].unflatten(1, (8, 14))
    for place in (8, 11):  # the first and the last digit
        digits = torch.bincount(lines[:, :, place].flatten() - ord("0"), minlength=10)
        assert stats.chisquare(digits.float()).pvalue > 1e-3
    letters = torch.bincount(lines[:, :, 0].flatten() - ord("a"), minlength=26)
    assert stats.chisquare(letters.float()).pvalue > 1e-3
    asked = (lines[:, :, :12] == tokens[:, None, -12:]).all(-1).int().argmax(1)
    assert stats.chisquare(torch.bincount(asked, minlength=8).float()).pvalue > 1e-3


def test_a_model_that_looks_the_name_up_recalls_all_and_one_that_does_not_guesses():
    found = study.recall(Copier(width=8), n_lines=8, prompts=40)  # `kzbq = '`, the whole name
    assert found["recall_8"] == 1 and found["recall_8_se"] == 0
    assert found["recall_nats_8"] == pytest.approx(-math.log(0.9), rel=1e-3)
    found = study.recall(Copier(width=3, p=0.5), n_lines=8, prompts=40)  # ` = '`: the last line
    assert 0 < found["recall_8"] < 0.5  # right where the last line is asked for: 1 in 8
    guess = study.recall(Copier(width=99), n_lines=8, prompts=40)  # has never seen 99 alike
    assert guess["recall_8"] == 0 and guess["recall_nats_8"] == pytest.approx(math.log(257))


def test_exact_recall_is_what_greedy_decoding_writes():
    model, tokens = load_pretrained("diff_v2"), study.recall_prompts(4, 12, seed=3)
    _, right = study.predictions(model, tokens, 4)
    written = generate(model, tokens[:, :-4], 4, temperature=0)
    exact = (written == tokens).all(1)
    assert 0 < exact.sum() < 12 and (right.all(1) == exact).all()


def test_standard_error_is_that_of_the_mean():
    found = study._mean("x", torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0]))
    assert found == {"x": pytest.approx(0.6), "x_se": pytest.approx(stats.sem([0, 1, 1, 0, 1]))}


def test_loss_by_position_splits_the_loss_into_halves_and_counts_each_token_once():
    model, text = GPT(TINY).double(), torch.randint(0, 257, (3, 128))
    found = study.loss_by_position(model, text)
    starts = [1, 4, 8, 16, 32, 64]
    loss = torch.nn.functional.cross_entropy(
        model(text[:, :-1])[0].mT, text[:, 1:], reduction="none"
    )
    for start, end in zip(starts, [*starts[1:], 128], strict=True):
        expected = torch.stack([loss[:, i - 1] for i in range(start, end)]).mean().item()
        assert found[f"loss_after_{start}"] == pytest.approx(expected)
    sizes = [3, 4, 8, 16, 32, 64]
    total = sum(n * found[f"loss_after_{s}"] for n, s in zip(sizes, starts, strict=True))
    assert total / 127 == pytest.approx(model(text[:, :-1], text[:, 1:])[1].item())
    assert found["context_gain"] == pytest.approx(found["loss_after_4"] - found["loss_after_64"])


@pytest.mark.parametrize("vocab_size", [257, 50])
def test_induction_prompts_repeat_themselves_and_nothing_else(vocab_size):
    tokens = study.induction_prompts(vocab_size, 30, 200, seed=0)
    bos, first, second = tokens.split((1, 30, 30), 1)
    assert (bos == vocab_size - 1).all() and (first == second).all()
    low, high = (32, 126) if vocab_size == 257 else (0, 48)
    assert first.min() == low and first.max() == high


def test_induction_gain_of_a_model_that_copies():
    found = study.induction(Copier(width=2), length=20, sequences=4)
    # Where two random tokens in a row are new, the first copy is a guess and the second is known.
    assert found["first"] == pytest.approx(math.log(257), abs=0.1)
    assert found["second"] == pytest.approx(-math.log(0.9), abs=0.6)
    assert found["gain"] == pytest.approx(found["first"] - found["second"])


def test_attention_at_the_offset_is_one_over_the_keys_where_attention_is_uniform():
    model = GPT(TINY)
    with torch.no_grad():
        for block in model.blocks:
            block.attn.q_proj.weight.zero_()
    found = study.induction_heads(model, length=10)
    expected = sum(1 / (i + 1) for i in range(11, 20)) / 9  # query i sees i + 1 keys
    assert found["induction_attention_max"] == pytest.approx(expected)
    assert found["induction_attention_mean"] == pytest.approx(expected)


def test_a_trained_model_has_an_induction_head_and_gains_from_it():
    model = load_pretrained("softmax_1.5h")
    assert study.induction_heads(model, 32)["induction_attention_max"] > 0.3
    assert study.induction(model, 32)["gain"] > 1


def test_longer_keeps_the_weights_and_takes_more_positions():
    model = GPT(TINY).eval()
    twin, idx = study.longer(model, 300), torch.randint(0, 257, (1, 300))
    assert_close(twin(idx[:, :128])[0], model(idx[:, :128])[0])
    assert twin(idx)[0].shape == (1, 300, 257)


@pytest.mark.parametrize("attention", ["diff_v2", "softmax"])
def test_retrieval_gives_plain_numbers_and_the_same_again(attention):
    model = GPT(GPTConfig(attention=attention, n_layer=1, block_size=128))
    text, state = torch.randint(0, 257, (2, 128)), torch.get_rng_state()
    found = study.retrieval(model, text=text, prompts=4, sequences=2)
    assert (torch.get_rng_state() == state).all()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    wanted = {"recall_4", "recall_nats_8_se", "context_gain", "loss_after_64", "induction_far_gain"}
    assert wanted <= set(found) and "recall_16" not in found  # 128 bytes hold eight lines
    torch.manual_seed(5)
    assert study.retrieval(model, text=text, prompts=4, sequences=2) == found
    assert (
        study.retrieval(model, 1, prompts=4, sequences=2)["recall_nats_4"] != found["recall_nats_4"]
    )


def test_a_model_of_other_tokens_is_asked_what_it_can_be_asked():
    model = GPT(GPTConfig(n_layer=1, block_size=80, vocab_size=100))
    found = study.retrieval(model, prompts=2, sequences=2)
    assert "induction_near_gain" in found and not any(key.startswith("recall") for key in found)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="at least 68"):
        study.retrieval(GPT(GPTConfig(n_layer=1, block_size=67)))
    with pytest.raises(ValueError, match="T from 64 to 128"):
        study.loss_by_position(GPT(TINY), torch.zeros(1, 63, dtype=torch.long))
