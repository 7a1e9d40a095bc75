"""What is written from the claims: CLAIMS.md, the README's answer and table, two figures.

``python -m minidiff claims --write`` makes them; a test compares the texts with what is stored.
"""

import re
from pathlib import Path

from minidiff.files import read_text, replace_text
from minidiff.study.claims import by_holm, claims
from minidiff.study.entries import timed_against
from minidiff.study.evidence import RESULTS, SET_ASIDE, Evidence
from minidiff.study.figures import LABELS, PAIR, figures, gaps_of, names
from minidiff.study.findings import joint_confidence, verdict

BEGIN, END = "<!-- claims -->\n", "<!-- end of claims -->\n"
INTRODUCTION = "Lower loss than equal-size softmax{}?\n"
SIDES = {"for": "yes", "open": "undecided", "against": "no"}
IN_FIGURE = "Loss against learning rate, two texts; the gap over training; what is held equal"
FIGURE = f"![{IN_FIGURE}](notebooks/results/worth_it.png)"
SEEDS = 6  # the answer names no rate with fewer
ANSWERS = {
    "supported": "yes",
    "mixed": "yes and no",
    "undecided": "undecided",
    "contradicted": "no",
    "not tested": "not tested",
}


def write(folder=RESULTS, readme=None):
    """CLAIMS.md and the two figures into the folder, and the README's part into it, if given."""
    folder, evidence, judged = Path(folder), Evidence(folder), claims(folder)
    replace_text(folder / "CLAIMS.md", claims_text(judged, evidence))
    for name, fig in figures(judged, evidence).items():
        fig.savefig(folder / f"{name}.png", dpi=80, metadata={"Software": None})
    if readme:
        put_into(readme, readme_text(judged))


def put_into(readme, text):
    """Replace what stands between the two marks of a Markdown file."""
    fix = "give a Markdown file with the two marks of the table"
    before, mark, rest = read_text(readme, fix).partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{readme} has no <!-- claims --> and <!-- end of claims --> to fill")
    replace_text(readme, before + mark + text + end + after)


def rows(lines, *heads):
    """A Markdown table."""
    table = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return "\n".join(table + ["| " + " | ".join(map(str, line)) + " |" for line in lines]) + "\n"


# ---- The README --------------------------------------------------------------------------------


def readme_text(judged):
    """Four answers in at most 60 words, the figure, and a row for each claim with a question."""
    found = {each.claim.number: each for each in judged}
    loss, time, large = (found[number] for number in ("3, 12", "Q2", "Q4"))
    size = f" ({_where(loss).rpartition(', ')[0]})" if loss.primary else ""
    lines = [
        INTRODUCTION.format(size),
        _case("Python, same steps", loss) + _other_rates(loss, _rate(large)),
        _case("English", found["Q13"]) + _other_rates(found["Q13"]),
        _case("Python, same GPU time", time) + _other_kernels(time),
        _case("Large rate" + (f", {_rate(large)}" if large.primary else ""), large),
    ]
    table = rows(
        (
            (each.claim.question, f"**{each.verdict}**", *_over_sizes(each),
             _notebook(each, "notebooks"))
            for each in judged if each.claim.question
        ),
        "question", "verdict", "number [95%]", "of what", "where", "why",
    )  # fmt: skip
    return "\n".join(lines) + f"\n\n{FIGURE}\n\n{table}"


def _over_sizes(each):
    """(number, of what, where) of a claim; for a bench the range over all sizes of its kind."""
    first = each.primary
    if not first or first.test != "range":
        return _number(each), _what(each), _where(each)
    kind, _, size = first.where.partition(", ")  # "whole step, 64 x 2048", or the size alone
    alike = [f.number for f in each.findings if f.what == first.what
             and (not size or f.where.startswith(kind + ", "))]  # fmt: skip
    where = f"{len(alike)} sizes" + (f", {kind}" if size else "")
    return f"{min(alike):.2f} to {max(alike):.2f}", _what(each), where


def _case(fixed, each):
    """One reader's case: the answer and the number."""
    return f"- {fixed}: **{ANSWERS[each.verdict]}**, {_number(each).replace('Not', 'not')}"


def _other_rates(each, told=""):
    """The ends of what other rates give but for one rate, where there are six seeds or more."""
    if not each.primary:
        return ""
    what, same = each.primary.what, each.primary.where.rpartition(", ")[0] + ", rate "
    alike = (f for f in each.secondary if f.what == what and f.where.startswith(same))
    found = {f.where.removeprefix(same): f for f in alike if len(f.sample) >= SEEDS}
    others = {f.number: f"{f.number:+.3f} at {rate}" for rate, f in found.items() if rate != told}
    ends = dict.fromkeys(others[number] for number in (min(others), max(others))) if others else ()
    return f" ({', '.join(ends)})".replace("at ", "at rate ", 1) if ends else ""


def _other_kernels(each):
    """The answers in equal time by other kernels, and against the smaller softmax, if any."""
    sides = {}
    for finding in each.secondary if each.primary else ():
        sides.setdefault(SIDES[finding.side()], []).append(timed_against(finding))
    said = "; ".join(f"{', '.join(others)}: **{side}**" for side, others in sides.items())
    return f" ({said})" if said else ""


def _rate(each):
    return _where(each).split(", ")[-1].removeprefix("rate ")


def _number(each):
    return str(each.primary) if each.primary else "Not run yet"


def _what(each):
    return re.split(": |, at (?:most|least)", each.primary.what)[0] if each.primary else ""


def _where(each):
    return each.primary.where if each.primary else ""


# ---- CLAIMS.md ---------------------------------------------------------------------------------


def claims_text(judged, evidence):
    """The whole table, one line a number, and where each comes from."""
    summary = rows(
        (
            (each.claim.number, each.claim.says, f"**{each.verdict}**", _number(each), _what(each),
             _where(each), _notebook(each), f"`{each.claim.command}`" if each.claim.command else "")
            for each in judged
        ),
        "#", "claim", "verdict", "primary number", "what", "where", "notebook", "command",
    )  # fmt: skip
    numbers = rows(
        (line for each in judged for line in _lines(each)),
        "#", "number", "where", "value [95%]", "of", "says", "made by",
    )  # fmt: skip
    return TEXT.format(
        summary=summary, numbers=numbers, rule=" ".join(verdict.__doc__.split()),
        holm=_holm(judged), losses=_losses(evidence), gaps=_gap_table(evidence),
        files=_files(evidence),
    )  # fmt: skip


def _notebook(each, folder=".."):
    name = each.claim.notebook
    return f"[{name[:2]}]({folder}/{name}.ipynb)" if name else ""


def _lines(each):
    """A line for each finding of a claim; the primary one is bold."""
    confidence = joint_confidence(each.secondary)
    for finding in each.findings:
        first = finding is each.primary
        side = finding.side() if first else finding.side(confidence)
        mark = "**" if first else ""
        yield (each.claim.number, f"{mark}{finding.what}{mark}", finding.where,
               str(finding), finding.of, f"{mark}{side}{mark}", finding.made)  # fmt: skip


def _holm(judged):
    """Which primary checks keep their side when they are tested together."""
    many, kept = by_holm(judged)
    return f"over the {many} of them that have a test, these keep their side: {'; '.join(kept)}."


def _losses(evidence):
    """Loss of the pair at every rate, in every study."""
    lines = []
    for study in evidence.all:
        for name in PAIR:
            rates = study.rates(name)
            best = study.best_rate(name) if len(rates) > 1 else None
            for lr in rates:
                mean, low, high = study.mean(name, "val_loss", lr)
                span = f"{mean:.4f}" + (f" [{low:.4f}, {high:.4f}]" if low == low else "")
                lines.append((study.label, names(study.files), LABELS[name], f"{lr:g}", span,
                              len(study.runs(name, lr)), "best" if lr == best else ""))  # fmt: skip
    table = rows(lines, "runs", "files", "model", "rate", "loss [95%]", "seeds", "")
    return f"{table}\n{_diverged(evidence)}\n"


def _diverged(evidence):
    """The runs that have no place in any mean: who leaves them out must say so."""
    stopped = [
        f"{row['variant']} at {row['lr']:g}, seed {row['seed']} ({row['file']})"
        for study in evidence.all for row in study.rows if "diverged" in row
    ]  # fmt: skip
    of = sum(len(study.rows) for study in evidence.all)
    return f"Diverged, and in no mean: {len(stopped)} of {of} runs. {'; '.join(stopped)}".strip()


def _gap_table(evidence):
    """The paired difference at every validation step, in every study and at every rate."""
    lines = [
        (label, step, f"{mean:+.4f}" + (f" [{low:+.4f}, {high:+.4f}]" if low == low else ""))
        for label, gap in gaps_of(evidence.all).items()
        for step, mean, low, high in gap
    ]
    return rows(lines, "files, rate (seeds)", "step", "DIFF V2 minus softmax 1.5h [95%]")


def _files(evidence):
    """What each file says of itself."""
    lines = []
    for name, data in sorted(evidence.files.items()):
        settings, machine = data.get("settings", {}), data.get("machine", "")
        card = machine if isinstance(machine, str) else machine["device"]
        torch = data.get("torch") or machine["torch"]
        text = settings.get("data") or data.get("data_fingerprint", "")
        backend = settings.get("backend", "")
        lines.append((f"`{name}.json`", card, torch, backend, data.get("commit", ""),
                      data.get("date", "")[:10], text))  # fmt: skip
    return rows(lines, "file", "card", "torch", "backend", "commit", "date", "text")


TEXT = f"""# The claims, one by one

Written by `python -m minidiff claims --write` from the files beside it: change those, not this.
[README.md](README.md) says how the runs were made.

## Verdicts

{{summary}}
**How a verdict is made.** {{rule}}

**What the intervals are.** Variants are compared seed by seed, on the same text in the same order.
*value [95%]* is a mean with Student's t interval over the seeds; for spikes, which are counts, the
share of the seeds with fewer (ties are left out), with its exact interval: a sign test, in which a
seed counts once, however many rates it was run at, and under six seeds decide nothing; for benches
the median and the range over rounds; for the parts of one run the same, which decides nothing.
*one run* has no interval. Two benches of one and the same code differ by up to 2%.
*says* is where the interval lies: for, against, or open where it holds the bound (0, or what the
number names); *shown* has no vote. For the lines that are not bold it is the wider interval, 95%
for all of a claim together, that counts.

**How many.** Each primary interval counts for itself; with Holm's correction
{{holm}} The best rate
of a model is that with the lowest mean loss, of those with three seeds, over the seeds that all of
these have: chosen on the same runs, from a grid a factor of 1.4 to 2 apart. "Over the seeds that
all have" was added on 2026-11-26, when the rates between the first ones had been run, with three
seeds. Before, six seeds at one rate were held against three at another, and 0.0007 came out as
DIFF V2's best, by 0.0007 nats. There 2a, 2b, Q1 and Q2 were undecided and 5b contradicted; the
ablations, 13b, the cures and Q9 had no runs; and by Holm only 14 stayed. 3, 12 was supported by
either rule: -0.015 [-0.028, -0.001]. The primary checks
were named when the first round of runs was known, and before the second: what the first round says
is less than a prediction; Q13 was added when its first three runs were known; its seeds 3 to 8 were
named before they ran, its other rates when all nine seeds at 0.001 were known. Seeds 3 to 5 of the
main pair were added when 0 to 2 were known, which makes intervals of six seeds too confident; 6 to
11 were named before they ran (notebook 07 shows them alone). Not in any table:
{", ".join(f"`{name}`" for name in SET_ASIDE)}.

**Units.** Loss is in nats a byte. Published: 0.02 to 0.03 nats a token, which at four bytes a token
is 0.005 to 0.008 a byte.

## Every number

{{numbers}}
## Loss against the learning rate

{{losses}}
*best*: over the seeds that all rates of three seeds have. Another row may be lower by its seeds.

## The gap over training

![Loss of DIFF V2 minus softmax against the step, all pairs](gap_over_training.png)

Beyond ±0.03 the axis is squeezed.

{{gaps}}
## The files

{{files}}"""
