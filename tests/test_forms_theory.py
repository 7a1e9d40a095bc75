"""The formulas of the explorers in JavaScript, against theory.py and the package."""

import json
import subprocess

import numpy as np
import pytest
import torch
from test_page import NODE, PAGE, node_only

import minidiff
from minidiff import theory
from minidiff.course import example

pytestmark = node_only
SCORES = [f"{token}{query}" for query in "12" for token in "abc"]


def javascript(program, inputs=None):
    """Run a program that turns `inputs` into a result; it may use theory.mjs and the explorers."""
    imports = {
        "theory": "* as theory",
        "difference": "{ difference, differenceOfThree }",
        "rms": "{ rms }",
        "cost": "{ cost }",
    }
    lines = [
        f"import {what} from {json.dumps((PAGE / 'forms' / f'{name}.mjs').as_uri())};"
        for name, what in imports.items()
    ]
    lines += [f"const inputs = {json.dumps(inputs)};"]
    source = "\n".join([*lines, f"console.log(JSON.stringify({program}));"])
    command = [NODE, "--input-type=module", "-"]
    done = subprocess.run(command, input=source, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def peaked_rows(case):
    """The two softmax rows (n,) float64 that the RMS explorer describes, written out in full."""
    logits = torch.zeros(2, case["n"], dtype=torch.float64)
    logits[0, 0] = case["gap1"]
    logits[1, 0 if case["same"] else 1] = case["gap2"]
    return logits.softmax(-1)


def test_rms_and_effective_tokens_agree_with_python():
    rng = np.random.default_rng(0)
    cases = [
        {
            "n": int(2 ** rng.uniform(1, 12)),
            "gap1": rng.uniform(0, 14),
            "gap2": rng.uniform(0, 14),
            "lam": rng.uniform(),
            "rho": rng.uniform(),
            "same": bool(rng.integers(2)),
        }
        for _ in range(200)
    ]
    program = """inputs.map((s) => {
        const row = theory.differenceRow(s.n, s.gap1, s.gap2, s.lam, s.same);
        const a1 = theory.differenceRow(s.n, s.gap1, s.gap2, 0, s.same);
        const total = row.reduce((sum, [weight, count]) => sum + count * weight, 0);
        return [theory.expectedRms(row, s.rho), total, theory.effectiveTokens(a1)];
    })"""
    for case, (rms, total, tokens) in zip(cases, javascript(program, cases), strict=True):
        a1, a2 = peaked_rows(case)
        row = a1 - case["lam"] * a2
        # float64 rounding over up to 4096 terms: well under 1e-9
        assert rms == pytest.approx(float(theory.expected_rms(row, case["rho"])), rel=1e-9)
        assert total == pytest.approx(1 - case["lam"], abs=1e-12)
        assert tokens == pytest.approx(float(theory.effective_tokens(a1)), rel=1e-9)


def test_bounds_agree_with_python():
    rng = np.random.default_rng(1)
    cases = [[int(2 ** rng.uniform(0, 14)), rng.uniform(), rng.uniform()] for _ in range(100)]
    program = """inputs.map(([n, lam, rho]) =>
        [[n], [n, lam], [n, null, rho], [n, lam, rho]].map((a) => theory.rmsBounds(...a)))"""
    for (n, lam, rho), found in zip(cases, javascript(program, cases), strict=True):
        softmax, diff, softmax_rho, diff_rho = found
        assert softmax == pytest.approx(theory.rms_bounds(n), rel=1e-9)
        assert diff == pytest.approx(theory.rms_bounds(n, lam), rel=1e-9)
        # rows at the ends of what is possible, and what the theorem says of them
        uniform, peak = torch.full((n,), 1 / n, dtype=torch.float64), torch.eye(n, 1)[:, 0].double()
        other = torch.roll(peak, 1) if n > 1 else peak
        rows = [uniform, peak, (1 - lam) * uniform, peak - lam * other]
        expected = [float(theory.expected_rms(row, rho)) for row in rows]
        assert [*softmax_rho, *diff_rho] == pytest.approx(expected, rel=1e-9)


def test_costs_agree_with_python():
    rng = np.random.default_rng(2)
    cases = []
    for _ in range(100):
        n_kv_head = int(rng.integers(1, 9))
        n_head = n_kv_head * int(rng.integers(1, 9))
        sizes = 64 * int(rng.integers(1, 100)), n_head, n_kv_head, 2 * int(rng.integers(1, 129))
        cases.append([*sizes, int(rng.integers(1, 10**6))])
    program = """inputs.map(([D, h, hKv, d, n]) => [
        theory.attentionParams(D, h, hKv, d), theory.attentionParams(D, h, hKv, d, true),
        theory.saved(D, h, hKv, d), theory.decodeAttentionCost(n, h, hKv, d)])"""
    for case, found in zip(cases, javascript(program, cases), strict=True):
        *shape, n = case
        assert found[0] == theory.attention_params(*shape)
        assert found[1] == theory.attention_params(*shape, diff_v2=True)
        assert found[2] == pytest.approx(theory.saved_against_2h_heads(*shape), rel=1e-9, abs=1e-12)
        assert tuple(found[3]) == theory.decode_attention_cost(n, *shape[1:])


def test_the_published_size_shows_22_percent():
    # FACTS: D=4096, h=32, h_kv=8, d=128 saves 22.05% against 2h heads and adds 40.3% against h
    words = javascript("cost.draw(cost.scenes['A large model'])")
    assert "22.05% fewer" in words and "40.31% more" in words


def test_the_difference_of_three_tokens_is_that_of_the_package():
    rng = np.random.default_rng(4)
    cases = [dict(zip([*SCORES, "lam"], rng.uniform(-6, 6, 7), strict=True)) for _ in range(100)]
    cases = [case | {"lam": rng.uniform()} for case in cases]
    for case, found in zip(cases, javascript("inputs.map(differenceOfThree)", cases), strict=True):
        rows = [[case[key] for key in SCORES[:3]], [case[key] for key in SCORES[3:]]]
        maps = torch.tensor(rows).double().softmax(-1)
        logit = torch.logit(torch.tensor(case["lam"]))[None, None, None]
        w = minidiff.differential(maps[None, None], logit)[0, 0, 0]
        for name, expected in (("a1", maps[0]), ("a2", maps[1]), ("w", w)):
            assert found[name] == pytest.approx(expected.tolist(), abs=1e-6)


def test_the_first_scene_is_the_courses_example():
    scene = javascript("difference.scenes['Noise in both']")
    scores = [*example.SCORES_1.tolist(), *example.SCORES_2.tolist()]
    assert scene == pytest.approx(dict(zip(SCORES, scores, strict=True)) | {"lam": example.LAM})
    drawing = javascript("difference.draw(inputs)", scene)
    for number in ("0.25", "0.375", "0.125", "1 − λ = 0.5", "<b>50%</b>", "<b>75%</b>"):
        assert number in drawing


@pytest.mark.slow
@pytest.mark.parametrize(
    "what, program",
    [
        ("n", "rms.controls.find((c) => c.key === 'n').high"),
        ("gap1", "rms.controls.find((c) => c.key === 'gap1').high"),
        ("a1", "difference.controls[0].high"),
        ("n_head", "cost.controls[0].high"),
        ("n_keys", "cost.controls[4].high"),
    ],
)
def test_python_and_javascript_refuse_the_same(what, program):
    """What a box of the explorer takes, its Python function takes; and no more."""
    pytest.importorskip("anywidget", reason="the notebook packages are not installed here")
    from minidiff.look import forms

    start = {
        "n": lambda x: forms.rms_explorer(n=x),
        "gap1": lambda x: forms.rms_explorer(gap1=x),
        "a1": lambda x: forms.difference_explorer(scores1=(x, 0, 0)),
        "n_head": lambda x: forms.cost_explorer(n_head=x, n_kv_head=1),
        "n_keys": lambda x: forms.cost_explorer(n_keys=x),
    }[what]
    most = javascript(program)
    assert start(most).start
    with pytest.raises(ValueError, match=f"{what}={most + 1} must be"):
        start(most + 1)
