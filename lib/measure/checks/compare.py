"""Runs side by side: the same cases answered by several models, each compared with the first, case by case.

Knows judgments by group and run. Does not know which model stands behind a run, nor how a run was made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from operator import itemgetter
from typing import Any

from lib.log import Row
from lib.measure.answer import NoAnswer
from lib.measure.judge import DIMENSIONS, Judgment, Unscored
from lib.measure.score import Outcome, score
from lib.measure.stats import paired

CEILING = "gold"  # the part of rows that judge every gold answer as if it were a candidate


def readings(rows: Sequence[Row]) -> dict[str, Any]:
    """Of every group its runs: scores, and the paired difference to the group's first run in quality and dimensions.

    Rows carry `group`, `run`, `case`, `quality` and the outcome; rows of the group "gold" make the ceiling.
    """
    groups: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        groups.setdefault(row["group"], {}).setdefault(row["run"], []).append(row)
    ceiling = groups.pop(CEILING, {})
    gold = [_outcome(r) for some in ceiling.values() for r in some]
    return {
        # Lists, not mappings: which run stands first has a meaning, and canonical JSON sorts keys.
        "groups": [{"group": name, "runs": _group(runs)} for name, runs in groups.items()],
        "ceiling": score(gold).as_dict() if gold else {},
    }


def _group(runs: dict[str, list[Row]]) -> list[dict[str, Any]]:
    first = next(iter(runs.values()))
    sides = []
    for run, rows in runs.items():
        side: dict[str, Any] = {"run": run, "scores": score([_outcome(r) for r in rows]).as_dict()}
        if rows is not first:
            dims = {d: _difference(rows, first, partial(_score, d)) for d in DIMENSIONS}
            side |= {"difference": _difference(rows, first, itemgetter("quality")), "dims": dims}
        sides.append(side)
    return sides


def _score(dimension: str, row: Row) -> float | None:
    return row["judgment"]["scores"].get(dimension) if row["judgment"] else None


def _difference(rows: Sequence[Row], first: Sequence[Row], value: Callable[[Row], float | None]) -> dict[str, Any]:
    """The mean difference in a value of two runs, on the cases that have one in both."""
    mine, its = ({r["case"]: v for r in some if (v := value(r)) is not None} for some in (rows, first))
    both = mine.keys() & its.keys()
    if not both:
        return {"delta": None, "p": None, "low": None, "high": None, "n": 0}
    return asdict(paired({c: mine[c] for c in both}, {c: its[c] for c in both}))


def _outcome(row: Row) -> Outcome:
    if row["judgment"] is not None:
        j = row["judgment"]
        return Judgment(j["scores"], j["verdict"])
    return NoAnswer(row["no_answer"]) if row["no_answer"] is not None else Unscored(row["unscored"] or "")
