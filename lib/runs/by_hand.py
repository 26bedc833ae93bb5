"""Verdicts that a frontier model gave by hand on answers to the sealed gate, once a climb was closed.

Knows the lines of `runs/verdicts.jsonl`, that an answer in them is the one a sealed look holds, and what the replies
behind a line add up to. Does not know how they were taken: the first line of the file says so. They shaped nothing;
nothing may be tuned to them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lib.files import rows
from lib.forms import Number, read_rows
from lib.measure import judge_calls
from lib.measure.judge import DIMENSIONS, Judgment, Verdict
from lib.measure.score import quality
from lib.runs.record import Json
from lib.runs.seal import SEAL, read_cases

VERDICTS = "verdicts.jsonl"
BLIND = "verdicts-blind.jsonl"  # some of these answers read once more, by prompts without one dimension
CALLS = judge_calls.PROTOCOLS["balanced"]  # the prompts that the first line names, gold first and second


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
    flipped: bool = False  # the two orders disagreed
    calls: tuple[Json, ...] = ()  # kind, order and reply of each prompt; none where there was nothing to read

    @property
    def quality(self) -> float:
        """Quality of the case by hand, 0 to 1."""
        if not self.scores:
            return 0.0
        return quality(self.scores, self.verdict)


def about(folder: Path, name: str = VERDICTS) -> Json:
    """The first line: who read, when, how, and the fingerprint of the era; {} where nothing was read.

    Of a blind reading also the dimension that its prompts went `without`.
    """
    path = folder / name
    if not path.exists():
        return {}
    first: Json = json.loads(rows(path.read_text(encoding="utf-8"))[0])["about"]
    return first


def read(folder: Path, name: str = VERDICTS) -> list[ByHand]:
    """All lines but the first. Raises ValueError naming file, line and field."""
    path = folder / name
    if not path.exists():
        return []
    return [row for _, row in read_rows(path, ByHand, skip=1)]


def seen(without: str = "") -> tuple[str, ...]:
    """The dimensions that a reader scored: all, or all but one."""
    return tuple(d for d in DIMENSIONS if d != without)


def judgment(calls: Sequence[Json], dimensions: tuple[str, ...] = DIMENSIONS) -> Judgment:
    """What the three replies to an answer add up to, by the cloud judge's rule; one that was not read has lost.

    Raises ValueError where a reply is missing or has another form.
    """
    if not calls:
        return Judgment({}, "loss")
    replies = {(call["kind"], call["order"]): call["reply"] for call in calls}
    values = {}
    for call in CALLS:
        value = judge_calls.parse(json.dumps(replies.get((call.kind, call.order))), call.kind, dimensions)
        if isinstance(value, judge_calls.Fault):
            raise ValueError(f"{call.kind}, {call.order}: {value.reason}")
        values[call] = value
    return judge_calls.judgment(values, dimensions, 0.0)


def verify(folder: Path) -> list[str]:
    """What is wrong with the files: a line that is none, an answer and a quality that no sealed look holds, or scores
    and a verdict that do not follow from the replies."""
    return [*_faults(folder, VERDICTS), *_faults(folder, BLIND)]


def _faults(folder: Path, name: str) -> list[str]:
    """The same of one of the two files; nothing where it is not there."""
    path = folder / name
    if not path.exists():
        return []
    try:
        dimensions = seen(about(folder, name).get("without", ""))
        readings = list(read_rows(path, ByHand, skip=1))
    except (ValueError, KeyError, IndexError, TypeError) as error:
        return [f"{path}: {error}"]
    held, wrong = _held(folder, {row.run for _, row in readings}), []
    for place, row in readings:
        if row.run and held.get((row.run, row.case)) != (row.title, row.questions, row.offline):
            wrong.append(f"{place}: {row.source}, {row.case}: not what {row.run} holds")
        if fault := _unfounded(row, dimensions):
            wrong.append(f"{place}: {row.source}, {row.case}: {fault}")
    return wrong


def _unfounded(row: ByHand, dimensions: tuple[str, ...]) -> str:
    """What of a line does not follow from its replies, "" where all does."""
    if bool(row.calls) != bool(row.questions):
        return "an answer without replies, or replies without an answer"
    try:
        again = judgment(row.calls, dimensions)
    except (ValueError, KeyError, TypeError) as error:
        return f"a reply is missing or has another form ({error})"
    if (again.scores, again.verdict, again.flipped) != (row.scores, row.verdict, row.flipped):
        return "scores or verdict do not follow from the replies"
    return ""


def _held(folder: Path, runs: set[str]) -> dict[tuple[str, str], tuple[str, tuple[str, ...], float | None]]:
    """Title, questions and quality by run and case, as sealed looks have them."""
    held: dict[tuple[str, str], tuple[str, tuple[str, ...], float | None]] = {}
    for run in runs:
        # A name and no path: a line of the file must not lead out of the folder.
        if Path(run).name != run or not (folder / run / SEAL).exists():
            continue
        for case in read_cases(folder / run):
            held[run, case.case] = ("", (), case.quality)
            if case.answer:
                held[run, case.case] = (case.answer.title, tuple(case.answer.questions), case.quality)
    return held
