"""A judge beside verdicts that another judge has stored: how far they agree, case by case and run by run.

Knows the verdicts taken by hand on this ruler, and the folder of the published study's (a file a run, gold.jsonl in
the folder above; its README has the fields). Keeps numbers only: texts are read, judged and forgotten. Does not know
which of the two judges is right.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Literal

from lib.files import RULER, OneLine
from lib.forms import read_rows
from lib.log import Row
from lib.measure.answer import Answer
from lib.measure.checks.agreement import Agreement, Pair
from lib.measure.judge import DIMENSIONS, Judge, Judgment, Verdict
from lib.measure.ruler import Case, Gold, Ruler

VERDICTS: dict[str, Verdict] = {"fmBetter": "win", "tie": "tie", "goldBetter": "loss"}
AGAIN = 60  # of the verdicts by hand; three calls each


class BadVerdicts(OneLine, ValueError):
    """A file of verdicts that cannot be used; the message says which file and line, and what was expected."""


@dataclass(frozen=True)
class StudyLine:
    """An answer of the study and what was said of it; nothing where nothing was answered or said."""

    id: str
    title: str | None
    questions: tuple[str, ...] | None
    pairwise: Literal["fmBetter", "tie", "goldBetter"] | None = None
    atomicity: float | None = None
    specificity: float | None = None
    coverage: float | None = None
    naturalness: float | None = None
    nonRedundancy: float | None = None  # noqa: N815  the study's spelling


@dataclass(frozen=True)
class GoldLine:
    """A task of the study and what an expert answered."""

    id: str
    input: str
    title: str
    questions: tuple[str, ...]


@dataclass(frozen=True)
class Stored:
    """One answer with the judgment that somebody stored."""

    run: str
    case: Case
    answer: Answer
    judgment: Judgment


def read(path: Path) -> tuple[list[Stored], int]:
    """The judged answers of one file, and how many rows have no judgment. Raises BadVerdicts, OSError."""
    file = path.parent / "gold.jsonl"
    if not file.exists():
        # Mostly above: one file of gold serves all files of verdicts.
        file = path.parent.parent / "gold.jsonl"
    if not file.exists():
        raise BadVerdicts(f"{path}: no gold.jsonl beside it or in the folder above")
    gold = {row.id: row for _, row in read_rows(file, GoldLine, BadVerdicts)}
    judged, unjudged = [], 0
    for where, row in read_rows(path, StudyLine, BadVerdicts):
        if row.pairwise is None or row.title is None or row.questions is None:
            unjudged += 1
            continue
        if row.id not in gold:
            raise BadVerdicts(f"{where}: id is {row.id!r:.40}, which has no line in {file}")
        known = gold[row.id]
        scores = (row.atomicity, row.specificity, row.coverage, row.naturalness, row.nonRedundancy)
        given = tuple(score or 0.0 for score in scores)
        if min(given) < 1 or max(given) > 5:
            raise BadVerdicts(f"{where}: scores are {scores}: expected 1 to 5 for each of {', '.join(DIMENSIONS)}")
        judgment = Judgment(dict(zip(DIMENSIONS, given, strict=True)), VERDICTS[row.pairwise])
        case = Case(row.id, known.input, Gold(known.title, known.questions))
        judged.append(Stored(path.stem, case, Answer(row.title, row.questions), judgment))
    return judged, unjudged


def by_hand() -> list[Stored]:
    """Sixty of the verdicts in ruler/verdicts.jsonl, first readings drawn by lot, each source in turn."""
    cases, path = Ruler.load().by_id, RULER / "verdicts.jsonl"
    if not path.exists():
        raise BadVerdicts(f"{path}: this ruler keeps no verdicts by hand; name a file of stored verdicts instead")
    by_source: dict[str, list[Stored]] = {}
    for _, row in read_rows(path, Row, BadVerdicts):
        # The first line tells how they were taken. Second readings only measure the reader's own repeatability.
        if row.get("read") == 1:
            judgment = Judgment(row["scores"], row["verdict"], flipped=row["flipped"])
            judged = Stored("by hand", cases[row["case"]], Answer(row["title"], row["questions"]), judgment)
            by_source.setdefault(row["source"], []).append(judged)
    lot = random.Random("by hand")
    # In turn, or the source with most verdicts would fill the sixty; sorted, so that the lot repeats.
    mixed = [lot.sample(by_source[source], len(by_source[source])) for source in sorted(by_source)]
    return list(filter(None, chain.from_iterable(zip_longest(*mixed))))[:AGAIN]


def compare(judge: Judge, rows: Sequence[Stored]) -> tuple[list[Pair], int]:
    """Both judgments of every answer, and how many the judge could not score. Raises BadVerdicts where it scored none."""
    outcomes = judge.judge_all([(r.case, r.answer) for r in rows])
    both = zip(rows, outcomes, strict=True)
    pairs = [Pair(r.run, r.case.id, o, r.judgment) for r, o in both if isinstance(o, Judgment)]
    if not pairs:
        raise BadVerdicts(f"of {len(rows)} answers with a verdict none was scored: there is nothing to compare")
    return pairs, len(rows) - len(pairs)


def text(agreed: Agreement, unjudged: int = 0, unscored: int = 0) -> str:
    """Agreement as text for a terminal."""
    counts = ((unjudged, "rows have no verdict"), (unscored, "were unscored here"))
    left_out = ", ".join(f"{n} {what}" for n, what in counts if n)
    lines = [f"{agreed.n} answers judged by both" + f" ({left_out})" * bool(left_out)]
    lines.append(f"Spearman of case quality   {agreed.spearman:.3f}")
    for dimension, rho in agreed.dims.items():
        lines.append(f"            {dimension.replace('_', '-'):15s}{rho:.3f}")
    lines.append(f"same verdict {agreed.same / agreed.n:.2f} ({agreed.always:.2f} by always saying the commonest one)")
    for run in agreed.runs.itertuples():
        lines.append(
            f"{run.Index}: {run.cases} cases, quality {run.ours:.3f} (stored {run.stored:.3f}), Spearman "
            f"{run.spearman:.3f}, same verdict {run.same:.2f}"
        )
    if len(agreed.runs) > 1:
        ours, stored = agreed.order("ours"), agreed.order("stored")
        same = "the same order" if ours == stored else "another order"
        lines.append(f"runs, best first: {', '.join(ours)} (stored: {', '.join(stored)}; {same})")
    return "\n".join(lines)
