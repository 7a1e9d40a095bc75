"""The two figures of the claims: that of the README, and the gap over training of all pairs."""

import math

from minidiff.study.entries import ENGLISH, LONG, MAIN, timed_against
from minidiff.study.evidence import gap_over_training

PAIR = ("diff_v2", "softmax_1.5h")
OWN = "equal time,\nthis kernel"
LABELS = {"diff_v2": "DIFF V2", "softmax_1.5h": "softmax 1.5h"}


def figures(judged, evidence):
    """{"worth_it": the README's figure, "gap_over_training": that of CLAIMS.md}."""
    from minidiff.look import worth  # matplotlib, which other commands do not need

    main = evidence.studies(MAIN)[0]
    texts = zip(("Python", "English"), (main, *evidence.studies(ENGLISH)[:1]), strict=False)
    losses = {
        f"{text}, {len(study.shared_seeds(PAIR[0]))} seeds": losses_of(study)
        for text, study in texts
    }
    chosen = [main, *(study for study in evidence.studies(LONG) if study is not main)]
    gaps = {
        label: [row for row in gap if row[0] >= 500]  # before, the seeds differ too much to be seen
        for label, gap in gaps_of(
            chosen, lambda pairs: f"{pairs[0][0]['steps']}, ", most_seeds=True
        ).items()
        if not math.isnan(gap[-1][2])  # of one seed
    }
    found = {each.claim.number: each for each in judged}
    fair = {"equal steps": found["3, 12"].primary, OWN: found["Q2"].primary}
    for finding in found["Q2"].secondary if fair[OWN] else ():
        fair[f"equal time,\n{timed_against(finding).replace('_', ' ')}"] = finding
    fair = {label: (f.number, *f.interval()) for label, f in fair.items()
            if f and not math.isnan(f.interval()[0])}  # fmt: skip
    return {
        "worth_it": worth.worth_it(losses, gaps, fair if len(fair) > 1 else None),
        "gap_over_training": worth.gap_panels(
            [
                (title_of(study), gaps)
                for study in evidence.all
                if (gaps := gaps_of([study], lambda pairs: ""))
            ]
        ),
    }


def losses_of(study):
    """label -> {rate: (mean, low, high)} of the pair, over the same seeds: some are harder."""
    return {
        LABELS[name]: {
            lr: study.mean(name, "val_loss", lr, study.shared_seeds(name))
            for lr in study.rates(name)
        }
        for name in PAIR
    }


def names(files):
    """The names of results files, in short."""
    return ", ".join(name.removeprefix("evidence_") for name in files)


def files_of(pairs):
    """The files that hold the runs of some pairs, in short, and a comma."""
    return names(dict.fromkeys(row["file"] for pair in pairs for row in pair)) + ", "


def title_of(study):
    """What a study is, and the file that holds it, where it is one: two may have one label."""
    return f"{study.label} ({names(study.files)})" if len(study.files) == 1 else study.label


def gaps_of(studies, label=files_of, most_seeds=False):
    """label -> the gap over training, for each study and rate that has a pair.

    ``label``: what stands before the rate, from the pairs. ``most_seeds``: of each study only the
    rates with the most pairs.
    """
    found = {}
    for study in studies:
        pairs = {lr: study.pairs(*PAIR, lr) for lr in study.rates(*PAIR)}
        most = max(map(len, pairs.values()), default=0) if most_seeds else 0
        for lr, same in pairs.items():
            if same and len(same) >= most:
                seeds = f"{len(same)} seed{'s' * (len(same) > 1)}"
                found[f"{label(same)}{lr:g} ({seeds})"] = gap_over_training(same)
    return found
