"""Calibration: what a judge says about texts whose faults are known, and what repeats say about its noise.

Knows how texts become rows (a judgment each) and rows become readings: the response matrix, identity, paraphrase,
attacks, the controls at both ends of the scale, halo, the A/A floor. Works with any judge. Does not know which judge it
is, nor where answers come from. Every reading follows from the rows alone, so `notch verify` computes it again.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lib.log import Row
from lib.measure import keep
from lib.measure.answer import Answer, NoAnswer, spec_gate
from lib.measure.checks import noise
from lib.measure.checks.damage import STRENGTHS, Text, plain, texts
from lib.measure.judge import DIMENSIONS, Judge, Judgment
from lib.measure.leak import leaked
from lib.measure.ruler import Case
from lib.measure.score import VALUE, Outcome, case_quality
from lib.measure.stats import bca

NOISE = ("same", "greedy", "fresh")  # judged again; answered again greedily; answered again by sampling
# Controls: answers whose worth is known. Those at the bottom know nothing of the task but its words, or not even them.
GOLD, DAMAGED, OTHER, TOY, PLAIN = "gold", "damaged gold", "gold of another task", "toy template", "any-task set"
BOTTOM = (OTHER, TOY, PLAIN)


# --- rows ----------------------------------------------------------------------------------------


def row_of(part: str, case: str, outcome: Outcome, **more: Any) -> Row:
    """One judgment as a row of cases.jsonl. Notes stay out: they quote texts that follow from gold and code."""
    judged = isinstance(outcome, Judgment)
    return {
        "part": part, "case": case,
        "judgment": {k: getattr(outcome, k) for k in ("scores", "verdict", "flipped", "dollars")} if judged else None,
        "no_answer": outcome.reason if isinstance(outcome, NoAnswer) else None,
        "unscored": None if judged or isinstance(outcome, NoAnswer) else outcome.reason,
        "quality": case_quality(outcome), **more,
    }  # fmt: skip


def placed(judge: Judge, cases: Sequence[Case]) -> list[Row]:
    """Gold, its paraphrase, its damages, a plain answer and the attacks, judged: a row each."""
    every = texts(cases)
    outcomes = judge.judge_all([(t.case, t.answer) for t in every])
    return [_placed(t, o) for t, o in zip(every, outcomes, strict=True)]


def _placed(text: Text, outcome: Outcome) -> Row:
    more: Row = {"kind": text.kind}
    if text.part == "damage":
        more |= {"dimension": text.dimension, "strength": text.strength}
    if text.part == "attack":
        gate = spec_gate(text.answer.title, text.answer.questions)
        more |= {"honest": text.honest, "leak": leaked(text.case, text.answer)}
        more["refused"] = gate.reason if isinstance(gate, NoAnswer) else ""
    return row_of(text.part, text.case.id, outcome, **more)


def again(judge: Judge, pairs: Sequence[tuple[Case, Answer]], repeat: int) -> list[Row]:
    """The same stored answers judged once more: a row each."""
    outcomes = judge.judge_all(pairs)
    return [row_of("same", case.id, o, repeat=repeat) for (case, _), o in zip(pairs, outcomes, strict=True)]


def control(judge: Judge, cases: Sequence[Case], others: Mapping[str, Sequence[Answer | NoAnswer]]) -> list[Row]:
    """Answers whose worth is known beforehand, judged: a row each. `others`: more of them by name, an answer a case."""
    sets: dict[str, Sequence[Answer | NoAnswer]] = {
        GOLD: [_gold(c) for c in cases], **others,
        OTHER: [_gold(c) for c in deranged(cases)], PLAIN: [plain(c) for c in cases],
    }  # fmt: skip
    every = [(name, c, a) for name, answers in sets.items() for c, a in zip(cases, answers, strict=True)]
    judged = iter(judge.judge_all([(c, a) for _, c, a in every if isinstance(a, Answer)]))  # one batch for all of them
    return [row_of("control", c.id, next(judged) if isinstance(a, Answer) else a, kind=name) for name, c, a in every]


def _gold(case: Case) -> Answer:
    if case.gold is None:
        raise ValueError(f"case {case.id!r} has no gold answer, and a calibration starts from gold")
    return Answer(case.gold.title, case.gold.questions)


def deranged(cases: Sequence[Case], seed: int = 0) -> list[Case]:
    """For each case another one, each taken once, of another area wherever no area has more than half of the cases.

    >>> [c.id for c in deranged([Case("a", "x"), Case("b", "y")])]
    ['b', 'a']
    """
    order = list(range(len(cases)))
    random.Random(seed).shuffle(order)
    order.sort(key=lambda i: cases[i].area)
    areas = [c.area for c in cases]
    # Areas stand in blocks: turned on by the largest block, none meets itself.
    turn = max(map(areas.count, areas)) % len(cases) or 1
    taken = dict(zip(order, order[turn:] + order[:turn], strict=True))
    return [cases[taken[i]] for i in range(len(cases))]


# --- readings ------------------------------------------------------------------------------------


def readings(rows: Sequence[Row]) -> dict[str, Any]:
    """Everything that follows from the rows without simulation. Plain data, for a record."""
    gold = {r["case"]: r for r in rows if r["part"] == "gold"}
    damaged = [r for r in rows if r["part"] == "damage"]
    judged = [r["judgment"] for r in rows if r["judgment"]]
    reading: dict[str, Any] = {
        "judged": len(judged),
        "unscored": sum(r["unscored"] is not None for r in rows),
        "flips": sum(j["flipped"] for j in judged) / len(judged) if judged else None,
        "identity": _identity(list(gold.values())),
        "matrix": {d: _change([r for r in damaged if r["dimension"] == d], gold) for d in DIMENSIONS},
        "strengths": _strengths(damaged, gold),
        "paraphrase": _paraphrase(rows, gold),
        "attacks": _attacks(rows, gold),
        "controls": _controls(rows),
    }
    reading["own_falls_most"] = {d: _falls_most(d, changes) for d, changes in reading["matrix"].items()}
    for part in NOISE:
        repeats = repeats_of(rows, part)
        reading[part] = noise.noise(repeats).as_dict() if repeats else None
    reading["floors"] = {
        "greedy": _floor(reading, ("same", "greedy")),  # what judging again and answering greedily again move
        "sampled": _floor(reading, NOISE) if reading["fresh"] else None,  # and what drawing other answers moves
    }
    reading["floor"] = _floor(reading, NOISE)
    return reading


def _floor(reading: dict[str, Any], parts: Sequence[str]) -> float | None:
    return max((reading[p]["floor"] for p in parts if reading[p]), default=None)


def _change(rows: Sequence[Row], gold: dict[str, Row]) -> dict[str, float]:
    """Mean change of each dimension against gold."""
    both = [(r["judgment"]["scores"], gold[r["case"]]["judgment"]["scores"]) for r in rows if _paired(r, gold)]
    return {d: _mean([a[d] - b[d] for a, b in both]) for d in DIMENSIONS} if both else {}


def _paired(row: Row, other: dict[str, Row]) -> bool:
    return bool(row["judgment"] and row["case"] in other and other[row["case"]]["judgment"])


def _falls_most(dimension: str, changes: dict[str, float]) -> bool:
    return bool(changes) and changes[dimension] < 0 and min(changes, key=lambda d: changes[d]) == dimension


def _strengths(damaged: Sequence[Row], gold: dict[str, Row]) -> dict[str, dict[str, Any]]:
    """By kind of damage: its dimension, and the mean change of all five for 1, 2 and 3 questions."""
    strengths = {}
    for kind, dimension in {r["kind"]: r["dimension"] for r in damaged}.items():
        mine = [r for r in damaged if r["kind"] == kind]
        change = {str(n): _change([r for r in mine if r["strength"] == n], gold) for n in STRENGTHS}
        strengths[kind] = {"dimension": dimension, "change": change}
    return strengths


def _identity(rows: Sequence[Row]) -> dict[str, Any]:
    judged = [r["judgment"] for r in rows if r["judgment"]]
    return {
        "cases": len(rows),
        "ties": sum(j["verdict"] == "tie" for j in judged),
        "fives": sum(all(s == 5 for s in j["scores"].values()) for j in judged),
    }


def _paraphrase(rows: Sequence[Row], gold: dict[str, Row]) -> dict[str, Any]:
    mine = [r for r in rows if r["part"] == "paraphrase" and _paired(r, gold)]
    same = sum(r["judgment"]["verdict"] == gold[r["case"]]["judgment"]["verdict"] for r in mine)
    change = _mean([r["quality"] - gold[r["case"]]["quality"] for r in mine])
    return {"cases": len(mine), "dims": _change(mine, gold), "quality": change, "same_verdict": same}


def _attacks(rows: Sequence[Row], gold: dict[str, Row]) -> dict[str, dict[str, Any]]:
    """By attack: its mean quality beside that of its honest text, and on how many cases it is above it."""
    honest = {"gold": gold, "plain": {r["case"]: r for r in rows if r["part"] == "honest"}}
    tricks = [r for r in rows if r["part"] == "attack"]
    attacks = {}
    for kind in dict.fromkeys(r["kind"] for r in tricks):
        mine = [r for r in tricks if r["kind"] == kind and _paired(r, honest[r["honest"]])]
        values = [(r["quality"], honest[r["honest"]][r["case"]]["quality"]) for r in mine]
        gains = [a - b for a, b in values]
        attacks[kind] = {
            "against": mine[0]["honest"] if mine else "", "cases": len(mine),
            "quality": _mean([a for a, _ in values]), "honest": _mean([b for _, b in values]),
            "above": sum(g > keep.HAIR for g in gains), "most": max(gains, default=0.0),
            "leaks": sum(bool(r["leak"]) for r in mine), "refused": sum(bool(r["refused"]) for r in mine),
        }  # fmt: skip
    return attacks


def _controls(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each control scored as a run is, over its cases; a case may have several texts (gold damaged in all ways)."""
    by: dict[str, list[Row]] = {}
    for r in rows:
        if r["part"] in ("control", "damage"):
            by.setdefault(r["kind"] if r["part"] == "control" else DAMAGED, []).append(r)
    return [_control(name, mine) for name, mine in by.items()]


def _control(name: str, rows: Sequence[Row]) -> dict[str, Any]:
    judged, values = [r["judgment"] for r in rows if r["judgment"]], list(qualities(rows).values())
    low, high = bca(values) if values else (0.0, 0.0)
    wins, ties, losses = (sum(j["verdict"] == v for j in judged) for v in VALUE)
    return {
        "name": name, "quality": _mean(values), "low": low, "high": high, "wins": wins, "ties": ties, "losses": losses,
        "no_answer": sum(r["no_answer"] is not None for r in rows),
        "unscored": sum(r["unscored"] is not None for r in rows),
        "dims": {d: _mean([j["scores"][d] for j in judged]) for d in DIMENSIONS} if judged else {},
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
    by: dict[int, dict[str, float | None]] = {}
    for r in rows:
        if r["part"] == part:
            by.setdefault(r["repeat"], {})[r["case"]] = r["quality"]
    if len(by) < 2:
        return []
    cases = [c for c in next(iter(by.values())) if all(values.get(c) is not None for values in by.values())]
    return [[float(values[c] or 0.0) for c in cases] for values in by.values()] if cases else []


def worlds(rows: Sequence[Row], floors: Mapping[str, float | None], seed: int = 0) -> dict[str, Any]:
    """What the noise means for the keep rule with each floor, by simulation: what it sees, what luck makes it keep.

    Repeats with sampled decoding are what a change that changes nothing looks like, also for greedy runs: there a
    change that does no good still reshuffles answers. Without them, judging again is all that is known.
    """
    repeats = next((r for part in ("fresh", "greedy", "same") if (r := repeats_of(rows, part))), [])
    result: dict[str, Any] = {"detectable": None, "null_world": None, "greedy_world": None}
    floor = floors["sampled"] if floors["sampled"] is not None else floors["greedy"]
    if repeats and floor is not None:
        result["detectable"] = noise.detectable(repeats, floor, seed=seed)
        result["null_world"] = noise.null_world(repeats, floor, seed=seed).as_dict()
    if repeats and floors["greedy"] is not None:
        result["greedy_world"] = noise.null_world(repeats, floors["greedy"], seed=seed).as_dict()
        result["greedy_world"]["detectable"] = noise.detectable(repeats, floors["greedy"], seed=seed)
    return result


# --- halo ----------------------------------------------------------------------------------------


def halo(judgments: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How far the dimensions say the same, and how much of the verdict the scores explain.

    Takes stored judgments (`scores`, `verdict`) of any runs. `r2` is of the verdict (1, 0.5, 0) on the scores by least
    squares; None stands where nothing varies or too little is there. Above 0.93 dimensions collapse (arXiv 2509.20293).
    """
    import pandas as pd

    full = [j for j in judgments if all(d in j["scores"] for d in DIMENSIONS)]
    x = pd.DataFrame([j["scores"] for j in full], columns=list(DIMENSIONS), dtype=float)
    y = np.array([VALUE[j["verdict"]] for j in full], dtype=float)
    r2 = None
    if len(y) > len(DIMENSIONS) + 1 and np.ptp(y) > 0:
        design = np.column_stack([np.ones(len(y)), x])
        left = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
        r2 = round(float(1 - left.var() / y.var()), 6)
    r = x.corr(min_periods=3).round(6)
    pairs = [float(p) for p in r.to_numpy()[np.tril_indices(len(r), -1)] if np.isfinite(p)]
    table = r.astype(object).where(r.notna(), None).to_dict("index")
    return {"judgments": len(full), "correlation": table, "mean": _mean(pairs) if pairs else None, "r2": r2}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
