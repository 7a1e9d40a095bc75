"""The two figures of the claims: that of the README, and the gap over training of all pairs."""

import math

from minidiff.study.entries import LONG, MAIN
from minidiff.study.evidence import gap_over_training

PAIR = ("diff_v2", "softmax_1.5h")
LABELS = {"diff_v2": "DIFF V2", "softmax_1.5h": "softmax 1.5h"}


def figures(judged, evidence):
    """{"worth_it": the README's figure, "gap_over_training": that of CLAIMS.md}."""
    from minidiff.look import worth  # matplotlib, which other commands do not need

    main = evidence.studies(MAIN)[0]
    losses = {
        LABELS[name]: {lr: main.mean(name, "val_loss", lr) for lr in main.rates(name)}
        for name in PAIR
    }
    chosen = [main, *(study for study in evidence.studies(LONG) if study is not main)]
    gaps = {
        label: [row for row in gap if row[0] >= 500]  # before, the seeds differ too much to be seen
        for label, gap in gaps_of(chosen, lambda study: f"{study.steps}").items()
        if not math.isnan(gap[-1][2])  # of one seed
    }
    fair, found = {}, {each.claim.number: each.primary for each in judged}
    for label, number in (("equal steps", "3, 12"), ("equal time", "Q2")):
        if found[number] and not math.isnan(found[number].interval()[0]):
            fair[label] = (found[number].number, *found[number].interval())
    return {
        "worth_it": worth.worth_it(losses, gaps, fair if len(fair) > 1 else None),
        "gap_over_training": worth.training_gaps(gaps_of(evidence.all)),
    }


def names(study):
    """The files of a study, in short."""
    return ", ".join(name.removeprefix("evidence_") for name in study.files)


def gaps_of(studies, label=lambda study: names(study)):
    """label -> the gap over training, for each study and rate that has a pair."""
    found = {}
    for study in studies:
        for lr in study.rates(*PAIR):
            if pairs := study.pairs(*PAIR, lr):
                seeds = f"{len(pairs)} seed{'s' * (len(pairs) > 1)}"
                found[f"{label(study)}, {lr:g} ({seeds})"] = gap_over_training(pairs)
    return found
