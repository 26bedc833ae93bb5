"""Examples: the worst and the best cases of the stock model and of the best adapter, beside a frontier's answer and gold.

Knows the sealed cases of the full gate and the ruler's gold. Shows nothing of the sealed gate: a case that is read is
worn out.
"""

from __future__ import annotations

import html
from itertools import zip_longest
from typing import Any

from lib.files import RULER
from lib.lab.show import Markdown, cell, fold, grid, number, plural
from lib.measure.ruler import Case, Ruler
from lib.report import trained
from lib.report.era import Era
from lib.runs.ledger import Ledger

EACH = 3  # cases at either end
LINE = 140  # characters of a raw reply
Row = dict[str, Any]


def answers(ledger: Ledger, fingerprint: str, ruler: Ruler | None = None) -> Markdown:
    """For stock and the best adapter run three worst and three best cases, a fold each, ties by case id.

    Gold stands beside them where the era's ruler is the one at hand.
    """
    ruler = ruler or Ruler.load(RULER)
    frontier = _frontier(ledger, fingerprint)
    runs = {
        trained.stock(ledger, fingerprint): "The stock model",
        trained.best(ledger, fingerprint, True): "The best adapter",
    }
    parts = [_section(ledger, name, run, frontier, _open(ledger, run, ruler)) for run, name in runs.items() if run]
    return Markdown("\n\n".join(parts) or "No run on the full gate yet, so there is no example.")


def _frontier(ledger: Ledger, fingerprint: str) -> str:
    """The stronger anchor of stored frontier answers, "" where none is sealed."""
    f = Era(ledger, fingerprint).frontiers
    return "" if f.empty else f.id[f.quality.idxmax()]


def _open(ledger: Ledger, run: str, ruler: Ruler) -> dict[str, Case]:
    """The cases of the full gate by id; without gold where the run was judged on another ruler."""
    record = ledger.get(run)
    same = ruler.fingerprint(record["identity"].get("judge", {})) == record["fingerprint"]
    return {c.id: c if same else Case(c.id, c.task, None, c.gate) for c in ruler.gate("full")}


def _section(ledger: Ledger, name: str, run: str, frontier: str, cases: dict[str, Case]) -> str:
    rows = [row for row in ledger.cases(run) if row["quality"] is not None and row["case"] in cases]
    beside = {row["case"]: row for row in ledger.cases(frontier)} if frontier else {}
    worst = sorted(rows, key=lambda r: (r["quality"], r["case"]))[:EACH]
    rest = [row for row in rows if row not in worst]  # where all score the same, six cases and not three twice
    best = sorted(rest, key=lambda r: (-r["quality"], r["case"]))[:EACH]
    silent = sum(row["answer"] is None for row in rows)
    none = " So there is no best and no worst: the first six by case id show what it wrote." * (silent == len(rows))
    lines = [f"**{name}, {run}**: {plural(len(rows) - silent, 'valid answer')} to {plural(len(rows), 'task')}.{none}"]
    for end, chosen in (("worst", worst), ("best", best)):
        for row in chosen:
            sources = {run: row} | ({frontier: beside[row["case"]]} if row["case"] in beside else {})
            lines.append(_case(end, row, sources, cases[row["case"]]))
    return "\n\n".join(lines)


def _case(end: str, row: Row, sources: dict[str, Row], case: Case) -> str:
    """One task as a fold: a column a source, title and questions down, above them what came where no answer did."""
    failures = [_failure(run, r) for run, r in sources.items() if not r["answer"]]
    given = {run: (r["quality"], r["answer"]) for run, r in sources.items() if r["answer"]}
    columns = {run: [number(q), a["title"], *a["questions"]] for run, (q, a) in given.items()}
    if case.gold:
        columns["gold"] = ["", case.gold.title, *case.gold.questions]
    labels = ["quality", "title", *map(str, range(1, max(map(len, columns.values()), default=2) - 1))]
    rows = zip_longest(labels, *columns.values(), fillvalue="")
    table = grid(["", *map(cell, columns)], (map(cell, row) for row in rows))
    score = f"{end}, {row['quality']:.3f}" if row["answer"] else "no answer"
    summary = html.escape(f"{score}: {case.task} ({case.id})", quote=False)
    return fold(Markdown("\n\n".join([*failures, table])), summary).text


def _failure(run: str, row: Row) -> str:
    """Why a case has no answer, and the last that the model wrote, cut to a line."""
    text = next((" ".join(c["text"].split()) for c in reversed(row["calls"]) if c.get("text")), "")
    wrote = f"It wrote: “{cell(text[:LINE])}{'…' * (len(text) > LINE)}”" if text else "It wrote nothing."
    return f"{cell(run)} has **no answer** ({cell(row['no_answer'] or '')}), so it scores 0. {wrote}"
