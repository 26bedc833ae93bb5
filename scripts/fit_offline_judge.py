"""Fits the offline judge to Claude's verdicts on this ruler, and says how far it agrees on what shaped nothing.

usage: python -m scripts.fit_offline_judge [--write] [--study FOLDER]

Reads ruler/verdicts.jsonl. Prices, levels and cuts come from the 27 tasks that are not held out, first readings alone;
the 13 held-out tasks are looked at once everything stands, and so is FOLDER, the published study's own verdicts
(`fmdiscovery/`, whose texts stay out of this repository), on which nothing is fitted. With --write the constants and
the judge's scores of the ruler's calibration texts go into lib/measure/offline_judge.json.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import isotonic_regression, lsq_linear
from scipy.stats import spearmanr

from lib.files import RULER, canonical, rows
from lib.measure import offline_judge
from lib.measure.answer import Answer
from lib.measure.judge import DIMENSIONS
from lib.measure.offline_judge import Amounts, Constants, amounts, scores_of, texts_of, verdict_of
from lib.measure.ruler import Case, Gold, Ruler, read
from lib.measure.score import VALUE, quality
from lib.runs.offline import vectors
from lib.weights import PINNED

# Which faults a dimension may be lowered by; what they cost is fitted, and never less than nothing.
PRICED = {
    "atomicity": ("joined", "listed", "long", "searched", "pairs"),
    "specificity": ("far", "off", "uncritical", "missing", "short", "vague", "searched", "pasted", "pairs"),
    "coverage": ("missing", "uncritical", "off", "searched", "pairs"),
    "naturalness": ("unformed", "preface", "pasted", "searched", "short", "long", "openings", "pairs"),
    "non_redundancy": ("nearest", "crowd", "pairs", "searched", "unformed", "openings"),
}
LEADING = (
    "missing",
    "uncritical",
    "far",
    "off",
    "searched",
    "pasted",
    "unformed",
    "pairs",
    "crowd",
    "long",
    "short",
    "openings",
    "joined",
    "listed",
    "preface",
)
# At least so much, so that a fault that these answers hardly show still costs what the damage set needs.
LEAST = {
    ("atomicity", "joined"): 1.0,
    ("specificity", "vague"): 3.0,
    ("coverage", "missing"): 2.0,
    ("naturalness", "unformed"): 1.0,
    ("naturalness", "preface"): 1.0,
    ("non_redundancy", "pairs"): 1.0,
}
RIDGE = 10.0
KNOTS = 10  # of the rising line that reads points as a score
MADE = ("grammar", "wording", "penalty", "demos", "prune", "best", "sft", "orpo")  # how a model-made source begins
SETTINGS = 39  # of the fit that were tried on the 27 tasks: features, ridge, verdicts with and without signs, knots


@dataclass(frozen=True)
class Row:
    """One judged answer with its faults."""

    case: str
    source: str
    found: Amounts
    gold: Amounts
    scores: tuple[float, ...]
    verdict: str
    read: int

    @property
    def quality(self) -> float:
        return quality(dict(zip(DIMENSIONS, self.scores, strict=True)), self.verdict)  # type: ignore[arg-type]


def judged(ruler: Ruler) -> tuple[list[Row], set[str]]:
    """Every verdict with its faults, and the ids of the held-out tasks."""
    about, *lines = (json.loads(line) for line in rows((RULER / "verdicts.jsonl").read_text(encoding="utf-8")))
    cases = {c.id: c for c in ruler.cases}
    embed([Answer(r["title"], tuple(r["questions"])) for r in lines] + [gold_answer(c) for c in ruler.cases])
    return [
        _row(cases[r["case"]], r["source"], r["title"], r["questions"], r["scores"], r["verdict"], r["read"])
        for r in lines
    ], set(about["held_out"])


_vectors: dict[str, Any] = {}


def embed(answers: Sequence[Answer]) -> None:
    """Vectors of all their texts at once: answer by answer it takes ten times as long."""
    texts = list(dict.fromkeys(t for answer in answers for t in texts_of(answer) if t not in _vectors))
    if texts:
        _vectors.update(zip(texts, vectors(texts), strict=True))


def gold_answer(case: Case) -> Answer:
    """Gold as an answer."""
    assert case.gold
    return Answer(case.gold.title, case.gold.questions)


def _row(
    case: Case, source: str, title: str, asked: Sequence[str], scores: dict[str, float], verdict: str, reading: int
) -> Row:
    answer, gold = Answer(title, tuple(asked)), gold_answer(case)
    embed([answer, gold])
    gold_amounts, found = (amounts(case, a, vectors, _vectors) for a in (gold, answer))
    return Row(case.id, source, found, gold_amounts, tuple(scores[d] for d in DIMENSIONS), verdict, reading)


def fit(train: Sequence[Row]) -> Constants:
    """Constants from judged answers."""
    best, prices, levels = {}, {}, {}
    for k, dimension in enumerate(DIMENSIONS):
        names = PRICED[dimension]
        x, y = _table(train, names), np.array([r.scores[k] for r in train])
        least = np.array([LEAST.get((dimension, n), 0.0) for n in names])
        start, cost = _signed(x, y, least)
        best[dimension], prices[dimension] = start, dict(zip(names, cost, strict=True))
        levels[dimension] = _levels(start - x @ np.array(cost), y)
    others = [r for r in train if r.source != "gold"]  # gold against itself is a tie by rule
    ahead = np.array([[r.gold.of[f] - r.found.of[f] for f in LEADING] + [-r.found.copied] for r in others])
    _, worth = _signed(-ahead, np.array([VALUE[r.verdict] for r in others]), np.zeros(len(LEADING) + 1))
    cuts = _cuts(ahead @ np.array(worth), [r.verdict for r in others])
    return Constants(
        _rounded(best),
        {d: _rounded(p) for d, p in prices.items()},
        levels,
        _rounded(dict(zip(LEADING, worth, strict=False))),
        round(worth[-1], 4),
        cuts,
    )


def _table(some: Sequence[Row], names: Sequence[str]) -> Any:
    return np.array([[r.found.of[n] for n in names] for r in some])


def _signed(x: Any, y: Any, least: Any) -> tuple[float, list[float]]:
    """Start and costs of `y = start - x @ costs`, each cost at least so much; ridge on costs in units of the spread."""
    spread = x.std(0) + 1e-9
    n = x.shape[1]
    a = np.vstack(
        [np.hstack([np.ones((len(x), 1)), -x / spread]), np.hstack([np.zeros((n, 1)), np.sqrt(RIDGE) * np.eye(n)])]
    )
    lows, highs = np.concatenate([[-np.inf], least * spread]), np.full(n + 1, np.inf)
    found = lsq_linear(a, np.concatenate([y, np.zeros(n)]), bounds=(lows, highs)).x
    return float(found[0]), [float(v) for v in found[1:] / spread]


def _levels(points: Any, y: Any) -> list[list[float]]:
    """Knots of a rising line from points to scores: isotonic regression, averaged over tenths of the answers."""
    order = np.argsort(points, kind="stable")
    rising = isotonic_regression(y[order]).x
    parts = np.array_split(np.arange(len(points)), KNOTS)
    knots = [[round(float(points[order][p].mean()), 4), round(float(rising[p].mean()), 4)] for p in parts]
    # Beyond the last answers a point stays a point, so that more fault still costs.
    return [[knots[0][0] - 4, max(1.0, knots[0][1] - 2)], *knots, [knots[-1][0] + 2, 5.0]]


def _cuts(ahead: Any, verdicts: Sequence[str]) -> tuple[float, float]:
    """Leads from which as many answers win, and win or tie, as Claude let win and tie."""
    order = np.sort(ahead)[::-1]
    wins, ties = verdicts.count("win"), verdicts.count("tie")
    at = [wins, wins + ties]
    first, second = (round(float((order[max(0, k - 1)] + order[min(k, len(order) - 1)]) / 2), 4) for k in at)
    return first, second


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {k: round(v, 4) for k, v in values.items()}


# --- how far it agrees ---------------------------------------------------------------------------------


def predicted(some: Sequence[Row], made: Constants) -> tuple[Any, list[str], Any]:
    """Scores (answers, dimensions), verdicts and qualities by the judge with these constants."""
    scores = [scores_of(r.found, made) for r in some]
    verdicts = [verdict_of(r.found, r.gold, made) for r in some]
    return (
        np.array([[s[d] for d in DIMENSIONS] for s in scores]),
        verdicts,
        np.array([quality(s, v) for s, v in zip(scores, verdicts, strict=True)]),
    )


def kappa(a: Sequence[str], b: Sequence[str]) -> float:
    """Cohen's kappa of two lists of verdicts."""
    n = len(a)
    same = sum(x == y for x, y in zip(a, b, strict=True)) / n
    chance = sum(list(a).count(v) * list(b).count(v) for v in VALUE) / n**2
    return (same - chance) / (1 - chance) if chance < 1 else 1.0


def agreement(some: Sequence[Row], made: Constants) -> dict[str, Any]:
    """Spearman of quality over all and within model-made sources, of each dimension, kappa, and bias by source."""
    scores, verdicts, mine = predicted(some, made)
    its = np.array([r.quality for r in some])
    own = np.array([r.source.startswith(MADE) for r in some])
    sources = sorted({r.source for r in some})
    bias = {
        s: float(np.mean([m - i for m, i, r in zip(mine, its, some, strict=True) if r.source == s])) for s in sources
    }
    return {
        "quality": _rho(mine, its), "model-made": _rho(mine[own], its[own]) if own.any() else None,
        **{d: _rho(scores[:, k], [r.scores[k] for r in some]) for k, d in enumerate(DIMENSIONS)},
        "kappa": kappa(verdicts, [r.verdict for r in some]), "bias": float(np.mean([abs(b) for b in bias.values()])),
        "by source": {s: round(b, 3) for s, b in bias.items()},
        "verdicts": {v: [verdicts.count(v), [r.verdict for r in some].count(v)] for v in VALUE},
    }  # fmt: skip


def _rho(a: Any, b: Any) -> float:
    return float(spearmanr(a, b)[0])


def interval(some: Sequence[Row], of: Callable[[Sequence[Row]], float], seed: str = "interval") -> tuple[float, float]:
    """95 % interval of a figure, by drawing tasks with all their answers."""
    rng, tasks = random.Random(seed), sorted({r.case for r in some})
    groups = {t: [r for r in some if r.case == t] for t in tasks}
    drawn = [of([r for t in rng.choices(tasks, k=len(tasks)) for r in groups[t]]) for _ in range(400)]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def ceiling(some: Sequence[Row], again: Sequence[Row]) -> dict[str, float]:
    """Claude's second readings beside its first, on the same answers."""

    def key(r: Row) -> str:
        return canonical([r.case, r.source, [r.found.of[f] for f in sorted(r.found.of)]])

    first = {key(r): r for r in some}
    pairs = [(first[key(r)], r) for r in again if key(r) in first]
    made = {d: _rho([a.scores[k] for a, _ in pairs], [b.scores[k] for _, b in pairs]) for k, d in enumerate(DIMENSIONS)}
    return {"quality": _rho([a.quality for a, _ in pairs], [b.quality for _, b in pairs]), **made,
            "kappa": kappa([a.verdict for a, _ in pairs], [b.verdict for _, b in pairs]), "n": len(pairs)}  # fmt: skip


def baselines(some: Sequence[Row]) -> dict[str, float]:
    """Likeness to gold alone, which is what a judge by gold would see; a constant has a correlation of 0."""
    return {"likeness to gold": _rho([-r.found.of["missing"] for r in some], [r.quality for r in some])}


def study(folder: Path, made: Constants) -> dict[str, float]:
    """Agreement with the published study's own judge, run by run; nothing was fitted there."""
    golds = {r["id"]: r for r in map(json.loads, rows((folder / "gold.jsonl").read_text(encoding="utf-8")))}
    names = {"non_redundancy": "nonRedundancy"}
    found, every, its = {}, [], []
    for path in sorted((folder / "verdicts").glob("*.jsonl")):
        mine = []
        for raw in map(json.loads, rows(path.read_text(encoding="utf-8"))):
            if raw.get("questions") and raw.get("pairwise") and all(raw.get(names.get(d, d)) for d in DIMENSIONS):
                g = golds[raw["id"]]
                case = Case(raw["id"], g["input"], Gold(g["title"], tuple(g["questions"]), g["questions"][0]))
                verdict = {"fmBetter": "win", "tie": "tie"}.get(raw["pairwise"], "loss")
                mine.append(
                    _row(
                        case,
                        path.stem,
                        raw["title"],
                        raw["questions"],
                        {d: raw[names.get(d, d)] for d in DIMENSIONS},
                        verdict,
                        1,
                    )
                )
        _, _, q = predicted(mine, made)
        found[path.stem] = _rho(q, [r.quality for r in mine])
        every += list(q)
        its += [r.quality for r in mine]
    return {**found, "all": _rho(every, its), "n": len(its)}


def main(arguments: Sequence[str]) -> int:
    """Fit, print, and with --write keep."""
    ruler = read(RULER)
    every, held = judged(ruler)
    confirm = {c.id for c in ruler.cases if c.gate == "confirm"}
    first = [r for r in every if r.read == 1]
    train = [r for r in first if r.case not in held | confirm]
    made = fit(train)
    for name, some in (("27 tasks that it was fitted on", train), ("13 held-out tasks", [r for r in first if r.case in held]),
                       ("sealed gate, no lever", [r for r in first if r.case in confirm])):  # fmt: skip
        print(name, len(some), json.dumps(agreement(some, made)))
        for figure in ("quality", "model-made", "kappa") if name.startswith("13") else ():
            print(" ", figure, interval(some, lambda s, f=figure: agreement(s, made)[f] or 0.0))
        print("  baselines", baselines(some))
    print("ceiling", json.dumps(ceiling(first, [r for r in every if r.read == 2])), "settings tried", SETTINGS)
    if "--study" in arguments:
        print("study", json.dumps(study(Path(arguments[arguments.index("--study") + 1]), made)))
    if "--write" in arguments:
        write(made, ruler)
    return 0


def write(made: Constants, ruler: Ruler) -> None:
    """Keep the constants with what the judge then says of the calibration texts."""
    cases = {c.id: c for c in ruler.cases}
    texts = [json.loads(line) for line in rows((RULER / "calibration.jsonl").read_text(encoding="utf-8"))]
    scores = []
    for t in texts:
        found = amounts(cases[t["case"]], Answer(t["title"], tuple(t["questions"])), vectors)
        scores.append([round(v, 2) for v in scores_of(found, made).values()])
    embedder = next(f.sha256 for f in PINNED["minilm"].files if f.name == "model.safetensors")
    kept = {"constants": made.__dict__, "embedder": embedder[:16], "calibration": scores}
    offline_judge.CONSTANTS.write_text(json.dumps(kept, indent=None) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
