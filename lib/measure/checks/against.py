"""A judge beside verdicts that another judge has stored: how far they agree, case by case and run by run.

Knows the verdicts taken by hand on this ruler, and the folder of the published study's (a file a run, gold.jsonl in
the folder above; its README has the fields). Keeps numbers only: texts are read, judged and forgotten. Does not know which of the two judges is right.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from lib.files import RULER, OneLine
from lib.forms import read_rows
from lib.measure.answer import Answer
from lib.measure.judge import DIMENSIONS, Judge, Judgment, Verdict
from lib.measure.ruler import Case, Gold, Ruler
from lib.measure.score import quality

VERDICTS: dict[str, Verdict] = {"fmBetter": "win", "tie": "tie", "goldBetter": "loss"}
AGAIN = 60  # of the verdicts by hand; three calls each


class BadVerdicts(OneLine, ValueError):
    """A file of verdicts that cannot be used; the message says which file and line, and what was expected."""


@dataclass(frozen=True)
class Stored:
    """One answer with the judgment that somebody stored."""

    run: str
    case: Case
    answer: Answer
    judgment: Judgment


@dataclass(frozen=True)
class Pair:
    """One case judged twice; numbers only."""

    run: str
    ours: Judgment
    stored: Judgment


def read(path: Path) -> tuple[list[Stored], int]:
    """The judged answers of one file, and how many rows have no judgment. Raises BadVerdicts, OSError."""
    places = [folder / "gold.jsonl" for folder in (path.parent, path.parent.parent)]
    file = next((f for f in places if f.exists()), None)
    if file is None:
        raise BadVerdicts(f"{path}: no gold.jsonl beside it or in the folder above")
    gold = {g["id"]: g for _, g in read_rows(file, dict[str, Any], BadVerdicts)}
    judged, unjudged = [], 0
    for where, row in read_rows(path, dict[str, Any], BadVerdicts):
        try:
            if row["pairwise"] is None:
                unjudged += 1
                continue
            g = gold[row["id"]]
            case = Case(row["id"], g.get("input") or g.get("task") or "", Gold(g["title"], tuple(g["questions"])))
            scores = {d: float(row["nonRedundancy" if d == "non_redundancy" else d]) for d in DIMENSIONS}
            answer = Answer(row["title"], tuple(row["questions"]))
            judged.append(Stored(path.stem, case, answer, Judgment(scores, VERDICTS[row["pairwise"]])))
        except (KeyError, TypeError, ValueError) as error:
            raise BadVerdicts(f"{where}: not a row of verdicts ({type(error).__name__}: {error})") from error
    return judged, unjudged


def by_hand() -> list[Stored]:
    """Sixty of the verdicts in ruler/verdicts.jsonl, first readings drawn by lot, each source in turn."""
    cases, path = {c.id: c for c in Ruler.load().cases}, RULER / "verdicts.jsonl"
    if not path.exists():
        raise BadVerdicts(f"{path}: this ruler keeps no verdicts by hand; name a file of stored verdicts instead")
    drawn: dict[str, list[Stored]] = {}
    for _, row in read_rows(path, dict[str, Any], BadVerdicts):
        if row.get("read") == 1:  # the first line tells how they were taken
            answer = Answer(row["title"], tuple(row["questions"]))
            judged = Judgment(row["scores"], row["verdict"], row["flipped"])
            drawn.setdefault(row["source"], []).append(Stored("by hand", cases[row["case"]], answer, judged))
    lot = random.Random("by hand")
    mixed = [lot.sample(drawn[source], len(drawn[source])) for source in sorted(drawn)]
    return [row for turn in zip_longest(*mixed) for row in turn if row][:AGAIN]


def compare(judge: Judge, rows: Sequence[Stored]) -> tuple[list[Pair], int]:
    """Both judgments of every answer, and how many the judge could not score."""
    outcomes = judge.judge_all([(r.case, r.answer) for r in rows])
    pairs = [Pair(r.run, o, r.judgment) for r, o in zip(rows, outcomes, strict=True) if isinstance(o, Judgment)]
    return pairs, len(rows) - len(pairs)


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Rank correlation; 0.0 where one of the two never varies, and so ranks nothing.

    >>> spearman([1, 2, 3], [1, 4, 9]), spearman([1, 2, 3], [5, 5, 5])
    (1.0, 0.0)
    """
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic) if min(len(set(a)), len(set(b))) > 1 else 0.0


def agreement(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Spearman of quality and dimensions, agreement of verdicts, and the runs in the order of each judge."""
    overall = _run(pairs)
    runs = {run: _run([p for p in pairs if p.run == run]) for run in dict.fromkeys(p.run for p in pairs)}
    most = max((sum(p.stored.verdict == v for p in pairs) for v in VERDICTS.values()), default=0)
    return {
        "cases": len(pairs), "quality": overall["spearman"],
        "dims": {d: _rho([p.ours.scores[d] for p in pairs], [p.stored.scores[d] for p in pairs]) for d in DIMENSIONS},
        "same": overall["same"], "always": most / max(1, len(pairs)), "runs": runs,
        "order": {w: sorted(runs, key=lambda r: -runs[r][w]) for w in ("ours", "stored")},
    }  # fmt: skip


def _run(pairs: Sequence[Pair]) -> dict[str, Any]:
    ours = [quality(p.ours.scores, p.ours.verdict) for p in pairs]
    stored = [quality(p.stored.scores, p.stored.verdict) for p in pairs]
    n = max(1, len(pairs))
    same = sum(p.ours.verdict == p.stored.verdict for p in pairs) / n
    return {"cases": len(pairs), "ours": sum(ours) / n, "stored": sum(stored) / n,
            "spearman": _rho(ours, stored), "same": same}  # fmt: skip


def _rho(ours: list[float], stored: list[float]) -> float:
    return round(spearman(ours, stored), 4) if len(ours) > 2 else 0.0


def text(agreed: dict[str, Any], unjudged: int = 0, unscored: int = 0) -> str:
    """Agreement as text for a terminal."""
    counts = ((unjudged, "rows have no verdict"), (unscored, "were unscored here"))
    left_out = [f"{n} {what}" for n, what in counts if n]
    lines = [f"{agreed['cases']} answers judged by both" + (f" ({', '.join(left_out)})" if left_out else "")]
    lines.append(f"Spearman of case quality   {agreed['quality']:.3f}")
    lines += [f"            {d.replace('_', '-'):15s}{v:.3f}" for d, v in agreed["dims"].items()]
    lines.append(f"same verdict {agreed['same']:.2f} ({agreed['always']:.2f} by always saying the commonest one)")
    for name, run in agreed["runs"].items():
        lines.append(
            f"{name}: {run['cases']} cases, quality {run['ours']:.3f} (stored {run['stored']:.3f}), Spearman "
            f"{run['spearman']:.3f}, same verdict {run['same']:.2f}"
        )
    if len(agreed["runs"]) > 1:
        same = "the same order" if agreed["order"]["ours"] == agreed["order"]["stored"] else "another order"
        lines.append(
            f"runs, best first: {', '.join(agreed['order']['ours'])} (stored: {', '.join(agreed['order']['stored'])}; {same})"
        )
    return "\n".join(lines)
