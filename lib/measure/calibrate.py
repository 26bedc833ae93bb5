"""Calibration: what a judge says about texts whose faults are known, and what repeats say about its noise.

Knows how texts become rows (a judgment each) and rows become readings: the response matrix, identity, paraphrase,
attacks, the controls at both ends of the scale, halo, the A/A floor. Works with any judge. Does not know which judge it
is, nor where answers come from. Every reading follows from the rows alone, so `notch verify` computes it again.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lib.files import attributes
from lib.log import Row
from lib.measure import keep
from lib.measure.answer import Answer, NoAnswer, spec_gate
from lib.measure.checks import noise
from lib.measure.checks.damage import STRENGTHS, Text, as_gold, plain, texts
from lib.measure.judge import DIMENSIONS, Judge, Judgment
from lib.measure.leak import leaked
from lib.measure.ruler import Case
from lib.measure.score import VALUE, Outcome, case_quality
from lib.measure.stats import interval

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("part", "case", "kind", "dimension", "strength", "honest", "leak", "refused", "quality", "verdict", "flipped",
           "no_answer", "unscored")  # fmt: skip
NOISE = ("same", "greedy", "fresh")  # judged again; answered again greedily; answered again by sampling
# Controls: answers whose worth is known. Those at the bottom know nothing of the task but its words, or not even them.
GOLD, DAMAGED, OTHER, TOY, PLAIN = "gold", "damaged gold", "gold of another task", "toy template", "any-task set"
BOTTOM = (OTHER, TOY, PLAIN)


# --- rows ----------------------------------------------------------------------------------------


def row_of(part: str, case: str, outcome: Outcome, **more: Any) -> Row:
    """One judgment as a row of cases.jsonl. Notes stay out: they quote texts that follow from gold and code."""
    judgment = no_answer = unscored = None
    if isinstance(outcome, Judgment):
        judgment = attributes(outcome, ("scores", "verdict", "flipped", "dollars"))
    elif isinstance(outcome, NoAnswer):
        no_answer = outcome.reason
    else:
        unscored = outcome.reason
    return {
        "part": part, "case": case,
        "judgment": judgment, "no_answer": no_answer, "unscored": unscored,
        "quality": case_quality(outcome), **more,
    }  # fmt: skip


def placed(judge: Judge, cases: Sequence[Case]) -> list[Row]:
    """Gold, its paraphrase, its damages, a plain answer and the attacks, judged: a row each."""
    every = texts(cases)
    outcomes = judge.judge_all([(t.case, t.answer) for t in every])
    return list(map(_placed, every, outcomes))


def _placed(text: Text, outcome: Outcome) -> Row:
    """A row: of a damage with its dimension and strength, of an attack with what would stop it in a real run."""
    more: Row = {"kind": text.kind}
    if text.part == "damage":
        more |= {"dimension": text.dimension, "strength": text.strength}
    if text.part == "attack":
        # An attack that the gate or the leak guard stops never reaches a judge in a real run; both are told apart.
        more |= {"honest": text.honest, "leak": leaked(text.case, text.answer), "refused": ""}
        gate = spec_gate(text.answer.title, text.answer.questions)
        if isinstance(gate, NoAnswer):
            more["refused"] = gate.reason
    return row_of(text.part, text.case.id, outcome, **more)


def again(judge: Judge, pairs: Sequence[tuple[Case, Answer]], repeat: int) -> list[Row]:
    """The same stored answers judged once more: a row each."""
    outcomes = judge.judge_all(pairs)
    return [row_of("same", case.id, o, repeat=repeat) for (case, _), o in zip(pairs, outcomes, strict=True)]


def control(judge: Judge, cases: Sequence[Case], others: Mapping[str, Sequence[Answer | NoAnswer]]) -> list[Row]:
    """Answers whose worth is known beforehand, judged: a row each. `others`: more of them by name, an answer a case."""
    sets: dict[str, Sequence[Answer | NoAnswer]] = {
        GOLD: list(map(as_gold, cases)), **others,
        OTHER: list(map(as_gold, deranged(cases))), PLAIN: list(map(plain, cases)),
    }  # fmt: skip
    every = [(name, c, a) for name, answers in sets.items() for c, a in zip(cases, answers, strict=True)]
    # All controls at once: a batch each would take up to a day each.
    judged = iter(judge.judge_all([(c, a) for _, c, a in every if isinstance(a, Answer)]))
    rows = []
    for name, case, answer in every:
        outcome: Outcome = next(judged) if isinstance(answer, Answer) else answer
        rows.append(row_of("control", case.id, outcome, kind=name))
    return rows


def deranged(cases: Sequence[Case], seed: int = 0) -> list[Case]:
    """For each case another one, each taken once, of another area wherever no area has more than half of the cases.

    >>> [c.id for c in deranged([Case("a", "x"), Case("b", "y")])]
    ['b', 'a']
    """
    areas = [c.area for c in cases]
    order = list(range(len(cases)))
    random.Random(seed).shuffle(order)
    order.sort(key=areas.__getitem__)
    # Areas stand in blocks: turned on by the largest block, none meets itself.
    turn = max(map(areas.count, areas)) % len(cases) or 1
    others = list(cases)
    for place, other in zip(order, order[turn:] + order[:turn], strict=True):
        others[place] = cases[other]
    return others


# --- readings ------------------------------------------------------------------------------------


def readings(rows: Sequence[Row]) -> Row:
    """Everything that follows from the rows without simulation. Plain data, for a record."""
    f = frame(rows)
    judged = f[f.verdict.notna()]
    damaged, gold = f[f.part == "damage"], f[f.part == "gold"]
    matrix, falls = {}, {}
    for dimension in DIMENSIONS:
        matrix[dimension] = _change(damaged[damaged.dimension == dimension], gold)
        falls[dimension] = _falls_most(dimension, matrix[dimension])
    noises = {part: _noise(rows, part) for part in NOISE}
    # Judging again and answering greedily again move so much; drawing other answers moves more, once it is measured.
    floor, floors = _floor(noises, NOISE), {"greedy": _floor(noises, ("same", "greedy")), "sampled": None}
    if noises["fresh"]:
        floors["sampled"] = floor
    flips = _mean(judged.flipped.tolist()) if len(judged) else None
    return {
        "judged": len(judged),
        "unscored": int(f.unscored.sum()),
        "flips": flips,
        "identity": _identity(gold),
        "matrix": matrix,
        "strengths": _strengths(damaged, gold),
        "paraphrase": _paraphrase(f[f.part == "paraphrase"], gold),
        "attacks": _attacks(f),
        "controls": _controls(f),
        "own_falls_most": falls,
        **noises,
        "floors": floors,
        "floor": floor,
    }


def frame(rows: Sequence[Row]) -> pd.DataFrame:
    """The rows as a table, a score a column; what was not judged has no scores and no verdict."""
    import pandas as pd

    flat = []
    for row in rows:
        judgment = row["judgment"] or {"scores": {}, "verdict": None, "flipped": None}
        missing = {"no_answer": row["no_answer"] is not None, "unscored": row["unscored"] is not None}
        flat.append({**row, **judgment, **judgment["scores"], **missing})
    return pd.DataFrame(flat, columns=[*COLUMNS, *DIMENSIONS])


def _noise(rows: Sequence[Row], part: str) -> Row | None:
    repeats = repeats_of(rows, part)
    return noise.noise(repeats).as_dict() if repeats else None


def _floor(noises: Mapping[str, Row | None], parts: Sequence[str]) -> float | None:
    """The largest that was measured: a difference must stand above every source of noise, not above their mean."""
    return max((reading["floor"] for reading in map(noises.get, parts) if reading), default=None)


def _beside(f: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Judged rows, each with the judged row of the same case in `other`, whose columns get `_`."""
    both = f.merge(other, on="case", suffixes=("", "_"))
    return both[both.verdict.notna() & both.verdict_.notna()]


def _change(f: pd.DataFrame, gold: pd.DataFrame) -> dict[str, float]:
    """Mean change of each dimension against gold."""
    # Case by case: a damage that fits only some of the cases must not be read against the gold of others.
    both = _beside(f, gold)
    if both.empty:
        return {}
    return {d: _mean((both[d] - both[f"{d}_"]).tolist()) for d in DIMENSIONS}


def _falls_most(dimension: str, changes: Mapping[str, float]) -> bool:
    """Whether this dimension falls, and no other falls more."""
    return bool(changes) and changes[dimension] < 0 and min(changes, key=changes.__getitem__) == dimension


def _strengths(damaged: pd.DataFrame, gold: pd.DataFrame) -> Row:
    """By kind of damage: its dimension, and the mean change of all five for 1, 2 and 3 questions."""
    strengths = {}
    for kind, f in damaged.groupby("kind", sort=False):
        strengths[kind] = {"dimension": f.dimension.iloc[0], "change": {}}
        for n in STRENGTHS:
            strengths[kind]["change"][str(n)] = _change(f[f.strength == n], gold)
    return strengths


def _identity(gold: pd.DataFrame) -> Row:
    """How many golds there are, how many tie with themselves, and how many get 5 in every dimension."""
    # Gold against itself: anything but a tie and five times 5 is a fault of the judge.
    fives = (gold[list(DIMENSIONS)] == 5).all(axis=1)
    return {"cases": len(gold), "ties": int((gold.verdict == "tie").sum()), "fives": int(fives.sum())}


def _paraphrase(f: pd.DataFrame, gold: pd.DataFrame) -> Row:
    """Mean change of the dimensions and of quality against gold's own wording, and how many verdicts stay."""
    both = _beside(f, gold)
    change = _mean((both.quality - both.quality_).tolist())
    same = int((both.verdict == both.verdict_).sum())
    return {"cases": len(both), "dims": _change(f, gold), "quality": change, "same_verdict": same}


def _attacks(f: pd.DataFrame) -> Row:
    """By attack: its mean quality beside that of its honest text, and on how many cases it is above it."""
    # Each attack beside the text that it is built on: what it gains over that is the trick's.
    honest = {"gold": f[f.part == "gold"], "plain": f[f.part == "honest"]}
    attacks = {}
    for kind, tricks in f[f.part == "attack"].groupby("kind", sort=False):
        against = tricks.honest.iloc[0]
        both = _beside(tricks, honest[against])
        if both.empty:
            against = ""
        gains = both.quality - both.quality_
        attacks[kind] = {
            "against": against, "cases": len(both),
            "quality": _mean(both.quality.tolist()), "honest": _mean(both.quality_.tolist()),
            "above": int((gains > keep.HAIR).sum()), "most": max(gains, default=0.0),
            "leaks": int(both.leak.astype(bool).sum()), "refused": int(both.refused.astype(bool).sum()),
        }  # fmt: skip
    return attacks


def _controls(f: pd.DataFrame) -> list[Row]:
    """Each control scored as a run is, over its cases; a case may have several texts (gold damaged in all ways)."""
    chosen = f[f.part.isin(("control", "damage"))]
    names = chosen.kind.where(chosen.part == "control", DAMAGED)
    return [_control(name, own) for name, own in chosen.groupby(names, sort=False)]


def _control(name: str, f: pd.DataFrame) -> Row:
    """Mean quality over cases with its interval, counts of verdicts, and the mean of each dimension."""
    judged = f[f.verdict.notna()]
    # A mean a case first: gold damaged in all ways has many texts a case, which are no independent witnesses.
    values = [_mean(own.tolist()) for _, own in f.quality.dropna().groupby(f.case, sort=False)]
    low, high = interval(values)
    counts = judged.verdict.value_counts()
    dims = {d: _mean(judged[d].tolist()) for d in DIMENSIONS} if len(judged) else {}
    return {
        "name": name, "quality": _mean(values), "low": low, "high": high,
        "wins": int(counts.get("win", 0)), "ties": int(counts.get("tie", 0)), "losses": int(counts.get("loss", 0)),
        "no_answer": int(f.no_answer.sum()), "unscored": int(f.unscored.sum()), "dims": dims,
    }  # fmt: skip


def qualities(rows: Sequence[Row]) -> dict[str, float]:
    """Mean quality of each case's rows, without the unscored."""
    by: dict[str, list[float]] = {}
    for r in rows:
        if r["quality"] is not None:
            by.setdefault(r["case"], []).append(r["quality"])
    return {case: _mean(values) for case, values in by.items()}


def repeats_of(rows: Sequence[Row], part: str) -> list[list[float]]:
    """Qualities of the repeats of one part, a row a repeat; cases that are unscored in any of them are left out."""
    by: dict[int, dict[str, float]] = {}
    for r in rows:
        if r["part"] == part:
            repeat = by.setdefault(r["repeat"], {})
            if r["quality"] is not None:
                repeat[r["case"]] = float(r["quality"])
    if len(by) < 2:
        return []
    first, *others = by.values()
    # In the order of the first: simulations draw by column, so another order would give other figures.
    cases = [c for c in first if all(c in repeat for repeat in others)]
    if not cases:
        return []
    return [list(map(repeat.__getitem__, cases)) for repeat in by.values()]


def worlds(rows: Sequence[Row], floors: Mapping[str, float | None], seed: int = 0) -> Row:
    """What the noise means for the keep rule with each floor, by simulation: what it sees, what luck makes it keep.

    Repeats with sampled decoding are what a change that changes nothing looks like, also for greedy runs: there a
    change that does no good still reshuffles answers. Without them, judging again is all that is known.
    """
    repeats: list[list[float]] = []
    for part in ("fresh", "greedy", "same"):
        repeats = repeats or repeats_of(rows, part)
    result: Row = {"detectable": None, "null_world": None, "greedy_world": None}
    floor = floors["sampled"]
    if floor is None:
        floor = floors["greedy"]
    if repeats and floor is not None:
        result["detectable"] = noise.detectable(repeats, floor, seed=seed)
        result["null_world"] = noise.null_world(repeats, floor, seed=seed).as_dict()
    if repeats and floors["greedy"] is not None:
        result["greedy_world"] = noise.null_world(repeats, floors["greedy"], seed=seed).as_dict()
        result["greedy_world"]["detectable"] = noise.detectable(repeats, floors["greedy"], seed=seed)
    return result


# --- halo ----------------------------------------------------------------------------------------


def halo(judgments: Sequence[Row]) -> Row:
    """How far the dimensions say the same, and how much of the verdict the scores explain.

    Takes stored judgments (`scores`, `verdict`) of any runs. `r2` is of the verdict (1, 0.5, 0) on the scores by least
    squares; None stands where nothing varies or too little is there. Above 0.93 dimensions collapse (arXiv 2509.20293).
    """
    import pandas as pd

    full = [j for j in judgments if set(DIMENSIONS) <= j["scores"].keys()]
    x = pd.DataFrame([j["scores"] for j in full], columns=list(DIMENSIONS), dtype=float)
    y = np.array([VALUE[j["verdict"]] for j in full], dtype=float)
    r2 = mean = None
    # With no more judgments than coefficients any verdicts would be explained.
    if len(y) > len(DIMENSIONS) + 1 and np.ptp(y) > 0:
        design = np.column_stack([np.ones(len(y)), x])  # (judgments, 1 + dimensions)
        residual = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
        r2 = round(float(1 - residual.var() / y.var()), 6)
    r = x.corr(min_periods=3).round(6)
    pairs = r.to_numpy()[np.tril_indices(len(r), -1)]  # each pair of dimensions once
    pairs = pairs[np.isfinite(pairs)].tolist()
    if pairs:
        mean = _mean(pairs)
    table = r.astype(object).where(r.notna(), None).to_dict("index")
    return {"judgments": len(full), "correlation": table, "mean": mean, "r2": r2}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
