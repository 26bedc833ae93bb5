"""Fit the prices of the offline judge to real verdicts, and say how well it does on runs that it was not fitted to.

usage: python -m scripts.fit_offline_judge PATH_TO_reference

Knows the folder of the published study's verdicts (`fmdiscovery/`: gold.jsonl, verdicts/*.jsonl), whose texts stay out
of this repository; only the numbers printed here go into `lib/measure/offline_judge.py`. Writes nothing.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from pprint import pformat

import numpy as np
from numpy.typing import NDArray

from lib.measure.against import read, spearman
from lib.measure.judge import DIMENSIONS, Verdict
from lib.measure.offline_judge import find, score, verdict
from lib.measure.score import quality

Floats = NDArray[np.float64]

# For each price: what it is believed to be before any data, and the least that it may be, so that a fault which the
# data hardly shows (no model of the study wrote telegrams) still costs what it must. Own faults first, halo last.
PRIORS: dict[str, dict[str, tuple[float, float]]] = {
    "atomicity": {
        "joined": (4.0, 3.5),
        "long": (1.0, 0.5),
        "missing": (0.5, 0.0),
        "untouched": (0.5, 0.0),
        "narrow": (1.0, 0.0),
        "foreign": (1.0, 1.0),
    },
    "specificity": {
        "vague": (6.0, 5.0),
        "thin": (4.0, 2.0),
        "aloof": (1.0, 0.0),
        "missing": (1.5, 0.0),
        "strange": (0.6, 0.0),
        "narrow": (1.0, 0.0),
    },
    "coverage": {"missing": (4.0, 4.0), "untouched": (1.0, 0.0), "narrow": (1.5, 0.0), "foreign": (0.5, 0.5)},
    "naturalness": {
        "broken": (5.0, 4.5),
        "third": (1.5, 1.0),
        "crowd": (2.0, 0.0),
        "thin": (1.0, 0.0),
        "missing": (1.5, 0.0),
        "narrow": (1.5, 0.0),
    },
    "non_redundancy": {
        "pair": (1.5, 1.5),
        "crowd": (3.0, 0.5),
        "extra": (3.0, 3.0),
        "missing": (0.5, 0.0),
        "untouched": (0.5, 0.0),
        "narrow": (1.5, 0.3),
    },
}
RIDGE = 60.0
# "strange" sets the level of all answers alike: fitting it to a few runs fits their level. "foreign" is a guard against
# questions of another task, which no model of the study asked; it is as high as agreement on left-out runs bears.
BY_HAND = frozenset({"strange", "foreign"})
# Wins and ties among these 78 verdicts are 4 and 5. The thresholds take as many wins and half of the ties: most of what
# looks like a tie is a loss, and with all of them fewer verdicts agree (0.83 instead of 0.86 on left-out runs).
SHARES = (0.05, 0.03)


@dataclass(frozen=True)
class Row:
    """One judged answer of the study."""

    run: str
    amount: dict[str, float]
    scores: tuple[float, ...]
    verdict: Verdict
    length: float  # of the answer, in lengths of gold


def load(folder: Path) -> list[Row]:
    """Every judged answer below `folder`, with its faults counted. Raises BadVerdicts, OSError."""
    rows = []
    for stored in (s for path in sorted((folder / "verdicts").glob("*.jsonl")) for s in read(path)[0]):
        gold, judgment = stored.case.gold, stored.judgment
        length = len(stored.answer.text) / len("\n".join([gold.title, *gold.questions]))
        amount, scores = find(gold, stored.answer).amount, tuple(judgment.scores[d] for d in DIMENSIONS)
        rows.append(Row(stored.run, amount, scores, judgment.verdict, length))
    return rows


def fit(rows: list[Row]) -> dict[str, dict[str, float]]:
    """Prices by dimension: ridge towards the priors, each at or above its floor, by coordinate descent."""
    prices = {}
    for k, dimension in enumerate(DIMENSIONS):
        faults, prior = list(PRIORS[dimension]), list(PRIORS[dimension].values())
        x = np.array([[r.amount[f] for f in faults] for r in rows])
        lost = 5 - np.array([r.scores[k] for r in rows])
        w = np.array([p for p, _ in prior])
        for _ in range(500):
            for j, (start, floor) in enumerate(prior):
                if faults[j] in BY_HAND:
                    continue
                rest = lost - x @ w + x[:, j] * w[j]
                w[j] = max(floor, (x[:, j] @ rest + RIDGE * start) / (x[:, j] @ x[:, j] + RIDGE))
        prices[dimension] = {f: round(float(v), 2) for f, v in zip(faults, w, strict=True)}
    return prices


def predict(rows: list[Row], prices: dict[str, dict[str, float]]) -> Floats:
    """Scores, a row an answer and a column a dimension."""
    return np.array([list(score(r.amount, prices).values()) for r in rows])


def thresholds(scores: Floats) -> tuple[float, float]:
    """Means from which an answer wins and ties, so that SHARES of the study's would."""
    win, tie = np.quantile(scores.mean(axis=1), [1 - SHARES[0], 1 - sum(SHARES)])
    return round(float(win), 2), round(float(tie), 2)


def verdicts_of(rows: list[Row], scores: Floats, cuts: tuple[float, float]) -> list[Verdict]:
    """Verdicts by the rule of the judge."""
    return [verdict(r.amount, r.length, list(s), cuts) for r, s in zip(rows, scores, strict=True)]


def left_out(rows: list[Row]) -> str:
    """Leave one run out: agreement on runs that the prices were not fitted to, over all and a run, as a table."""
    runs = sorted({r.run for r in rows})
    order = [r for run in runs for r in rows if r.run == run]
    scores, verdicts = [], []
    for run in runs:
        seen, unseen = [r for r in rows if r.run != run], [r for r in rows if r.run == run]
        prices = fit(seen)
        cuts = thresholds(predict(seen, prices))
        scores.append(predict(unseen, prices))
        verdicts += verdicts_of(unseen, scores[-1], cuts)
    return agreement(order, np.vstack(scores), verdicts)


def agreement(rows: list[Row], scores: Floats, verdicts: list[Verdict]) -> str:
    """How predicted scores and verdicts agree with the real ones: Spearman over all and by run, and verdict counts."""
    real = np.array([r.scores for r in rows])
    ours = np.array([quality(dict(zip(DIMENSIONS, s, strict=True)), v) for s, v in zip(scores, verdicts, strict=True)])
    true = np.array([quality(dict(zip(DIMENSIONS, r.scores, strict=True)), r.verdict) for r in rows])
    run = np.array([r.run for r in rows])
    names = sorted(set(run))
    lines = [f"{'Spearman':16s}{'all':>8s}" + "".join(f"{n[:16]:>18s}" for n in names)]
    for name, a, b in [("quality", ours, true), *((d, scores[:, k], real[:, k]) for k, d in enumerate(DIMENSIONS))]:
        per = "".join(f"{spearman(a[run == n], b[run == n]):18.2f}" for n in names)
        lines.append(f"{name:16s}{spearman(a, b):8.3f}{per}")
    for name in names:
        of = [i for i in range(len(rows)) if run[i] == name]
        counts = [
            f"{sum(v[i] == w for i in of)}"
            for v in (verdicts, [r.verdict for r in rows])
            for w in ("win", "tie", "loss")
        ]
        same = np.mean([verdicts[i] == rows[i].verdict for i in of])
        lines.append(
            f"{name}: quality {ours[of].mean():.3f} (real {true[of].mean():.3f}), W/T/L {'/'.join(counts[:3])} "
            f"(real {'/'.join(counts[3:])}), same verdict {same:.2f}"
        )
    same = np.mean([c == r.verdict for c, r in zip(verdicts, rows, strict=True)])
    always = np.mean([r.verdict == "loss" for r in rows])
    hits = sum(c != "loss" and r.verdict != "loss" for c, r in zip(verdicts, rows, strict=True))
    return "\n".join(
        [*lines, f"same verdict {same:.2f}, {always:.2f} by calling all a loss; {hits} of the non-losses found"]
    )


def main() -> None:
    """Print prices and thresholds for offline_judge, then the agreement on left-out runs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("reference", type=Path, help="the folder that has fmdiscovery/, or that folder itself")
    folder = parser.parse_args().reference
    rows = load(folder / "fmdiscovery" if (folder / "fmdiscovery").is_dir() else folder)
    if not rows:
        parser.error(f"{folder}: no judged answer in verdicts/*.jsonl, here or in fmdiscovery/")
    prices = fit(rows)
    scores = predict(rows, prices)
    cuts = thresholds(scores)
    print(f"PRICES = {pformat(prices, sort_dicts=False, width=110)}\nWIN, TIE = {cuts[0]}, {cuts[1]}\n")
    print(f"Fitted to all {len(rows)} answers, judged on the same (too good):")
    print(agreement(rows, scores, verdicts_of(rows, scores, cuts)))
    print(f"\nLeave one run out:\n{left_out(rows)}")


if __name__ == "__main__":
    main()
