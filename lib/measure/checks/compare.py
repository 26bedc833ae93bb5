"""Runs side by side: the same cases answered by several models, each compared with the first, case by case.

Knows judgments by group and run. Does not know which model stands behind a run, nor how a run was made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from itertools import chain
from operator import itemgetter

from lib.log import Row
from lib.measure.answer import NoAnswer
from lib.measure.judge import DIMENSIONS, Judgment, Unscored
from lib.measure.score import Outcome, score
from lib.measure.stats import on_both

CEILING = "gold"  # the part of rows that judge every gold answer as if it were a candidate


def readings(rows: Sequence[Row]) -> Row:
    """Of every group its runs: scores, and the paired difference to the group's first run in quality and dimensions.

    Rows carry `group`, `run`, `case`, `quality` and the outcome; rows of the group "gold" make the ceiling.
    """
    groups: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        groups.setdefault(row["group"], {}).setdefault(row["run"], []).append(row)
    gold = list(chain.from_iterable(groups.pop(CEILING, {}).values()))
    ceiling = score(list(map(_outcome, gold))).as_dict() if gold else {}
    # Lists, not mappings: which run stands first has a meaning, and canonical JSON sorts keys.
    return {"groups": [{"group": name, "runs": _group(runs)} for name, runs in groups.items()], "ceiling": ceiling}


def _group(runs: dict[str, list[Row]]) -> list[Row]:
    """Scores of each run; of all but the first also the paired differences from it, in quality and by dimension."""
    first = next(iter(runs.values()))
    sides = []
    for run, rows in runs.items():
        side: Row = {"run": run, "scores": score(list(map(_outcome, rows))).as_dict()}
        # A run beside itself would show a difference of 0 with p = 1, which reads like a finding.
        if rows is not first:
            dims = {d: _difference(rows, first, partial(_score, d)) for d in DIMENSIONS}
            side |= {"difference": _difference(rows, first, itemgetter("quality")), "dims": dims}
        sides.append(side)
    return sides


def _score(dimension: str, row: Row) -> float | None:
    return row["judgment"]["scores"].get(dimension) if row["judgment"] else None


def _difference(rows: Sequence[Row], first: Sequence[Row], value: Callable[[Row], float | None]) -> Row:
    """The mean difference in a value of two runs, on the cases that have one in both."""
    test = on_both(_values(rows, value), _values(first, value))
    # Nothing to compare is said as such: 0 would read like two runs that are equal.
    if test is None:
        return {"delta": None, "p": None, "low": None, "high": None, "n": 0}
    return asdict(test)


def _values(rows: Sequence[Row], value: Callable[[Row], float | None]) -> dict[str, float]:
    """By case, without those that have none."""
    values = {}
    for row in rows:
        number = value(row)
        if number is not None:
            values[row["case"]] = number
    return values


def _outcome(row: Row) -> Outcome:
    """A row as what it was sealed as: a Judgment, a NoAnswer or an Unscored."""
    if row["judgment"] is not None:
        return Judgment(row["judgment"]["scores"], row["judgment"]["verdict"])
    if row["no_answer"] is not None:
        return NoAnswer(row["no_answer"])
    return Unscored(row["unscored"] or "")
