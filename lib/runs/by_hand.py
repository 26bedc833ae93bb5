"""Verdicts that a frontier model gave by hand on answers to the sealed gate, once a climb was closed.

Knows the lines of `runs/verdicts.jsonl` and that an answer in them is the one a sealed look holds. Does not know how
they were taken: the first line of the file says so. They shaped nothing; nothing may be tuned to them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lib.files import rows
from lib.forms import Number, read_rows
from lib.measure.judge import Verdict
from lib.measure.score import quality
from lib.runs.record import Json
from lib.runs.seal import SEAL, read_cases

VERDICTS = "verdicts.jsonl"


@dataclass(frozen=True)
class ByHand:
    """One source's answer to one case of the sealed gate; no scores where it gave no valid answer, which has lost."""

    source: str  # what answered, in a reader's words
    case: str
    offline: Number  # quality of the case by the offline judge, 0 to 1
    offline_verdict: Verdict
    verdict: Verdict
    run: str = ""  # the sealed look that holds the answer; "" for a control and for stored answers
    title: str = ""
    questions: tuple[str, ...] = ()
    scores: dict[str, Number] = field(default_factory=dict)  # by dimension, 1 to 5

    @property
    def quality(self) -> float:
        """Quality of the case by hand, 0 to 1."""
        if not self.scores:
            return 0.0
        return quality(self.scores, self.verdict)


def about(folder: Path) -> Json:
    """The first line: who read, when, how, and the fingerprint of the era; {} where nothing was read."""
    path = folder / VERDICTS
    if not path.exists():
        return {}
    first: Json = json.loads(rows(path.read_text(encoding="utf-8"))[0])["about"]
    return first


def read(folder: Path) -> list[ByHand]:
    """All lines but the first. Raises ValueError naming file, line and field."""
    path = folder / VERDICTS
    if not path.exists():
        return []
    return [row for _, row in read_rows(path, ByHand, skip=1)]


def verify(folder: Path) -> list[str]:
    """What is wrong with the file: a line that is none, or an answer and a quality that no sealed look holds."""
    path = folder / VERDICTS
    try:
        about(folder)
        readings = read(folder)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        return [f"{path}: {error}"]
    return [f"{path}: {row.source}, {row.case}: not what {row.run} holds" for row in _strangers(folder, readings)]


def _strangers(folder: Path, readings: Sequence[ByHand]) -> list[ByHand]:
    held: dict[tuple[str, str], tuple[str, tuple[str, ...], float | None]] = {}
    for run in {row.run for row in readings if row.run}:
        # A name and no path: a line of the file must not lead out of the folder.
        if Path(run).name != run or not (folder / run / SEAL).exists():
            continue
        for case in read_cases(folder / run):
            held[run, case.case] = ("", (), case.quality)
            if case.answer:
                held[run, case.case] = (case.answer.title, tuple(case.answer.questions), case.quality)
    return [r for r in readings if r.run and held.get((r.run, r.case)) != (r.title, r.questions, r.offline)]
