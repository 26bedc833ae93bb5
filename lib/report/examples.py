"""Examples: the worst and the best cases of the stock model and of the best adapter, beside a frontier's answer and gold.

Knows the sealed cases of the full gate and the ruler's gold. Shows nothing of the sealed gate: a case that is read is
worn out.
"""

from __future__ import annotations

import html

import pandas as pd

from lib.files import RULER
from lib.measure.ruler import Case, Ruler
from lib.report import trained
from lib.report.era import Era
from lib.runs.ledger import Ledger
from lib.runs.record import CaseRow, Record
from lib.show import Markdown, cell, fold, grid, number, plural

EACH = 3  # cases at either end
LINE = 140  # characters of a raw reply


def answers(ledger: Ledger, fingerprint: str, ruler: Ruler | None = None) -> Markdown:
    """For stock, or what ran first, and the best adapter run three worst and three best cases, a fold each, ties by case id.

    Gold stands beside them where the era's ruler is the one at hand.
    """
    ruler = ruler or Ruler.load(RULER)
    frontier = Era(ledger, fingerprint).frontier_run
    stock, best = trained.stock(ledger, fingerprint), trained.best(ledger, fingerprint, True)
    first = {"stock": "The stock model", "first run": "The first run"}[trained.called(ledger, fingerprint)]
    parts = [
        _section(ledger, name, run, frontier, _open(ledger.get(run), ruler))
        for run, name in {stock: first, best: "The best adapter"}.items()
        if run
    ]
    return Markdown("\n\n".join(parts) or "No run on the full gate yet, so there is no example.")


def one(ledger: Ledger, fingerprint: str, ruler: Ruler | None = None) -> Markdown:
    """The champion's middle case by quality: the stock model, the champion, the frontier and gold beside each other."""
    era = Era(ledger, fingerprint)
    if era.champion is None:
        return Markdown("No run was kept yet, so there is no answer of a champion to show.")
    cases = _open(era.champion, ruler or Ruler.load(RULER))
    rows = _scored(ledger, era.champion.id, cases)
    if not rows:
        return Markdown("No case of the champion is on this ruler, so there is none to show.")
    # Neither the best nor the worst: one that shows what to expect.
    middle = sorted(rows, key=lambda r: (r.quality or 0.0, r.case))[len(rows) // 2]
    sources = {}
    for run in filter(None, [trained.stock(ledger, fingerprint), era.champion.id, era.frontier_run]):
        row = next((row for row in ledger.cases(run) if row.case == middle.case), None)
        if row is not None:
            sources[run] = row
    case = cases[middle.case]
    return Markdown(f"**{cell(case.task)}** ({cell(case.id)})\n\n{_beside(sources, case)}")


def _open(record: Record, ruler: Ruler) -> dict[str, Case]:
    """The cases of the full gate by id; without gold where the run was judged on another ruler."""
    cases = ruler.gate("full")
    if ruler.fingerprint(record.identity.judge) != record.fingerprint:
        cases = tuple(Case(c.id, c.task, None, c.gate) for c in cases)
    return {c.id: c for c in cases}


def _scored(ledger: Ledger, run: str, cases: dict[str, Case]) -> list[CaseRow]:
    """The rows of a run that have a quality and a case here."""
    return [row for row in ledger.cases(run) if row.quality is not None and row.case in cases]


def _section(ledger: Ledger, name: str, run: str, frontier: str, cases: dict[str, Case]) -> str:
    """The worst and the best cases of one run under its name."""
    rows = _scored(ledger, run, cases)
    beside = {row.case: row for row in ledger.cases(frontier)} if frontier else {}
    worst = sorted(rows, key=lambda r: (r.quality or 0.0, r.case))[:EACH]
    # Where all score the same, six cases and not three twice.
    rest = [row for row in rows if row not in worst]
    best = sorted(rest, key=lambda r: (-(r.quality or 0.0), r.case))[:EACH]
    valid = sum(row.answer is not None for row in rows)
    none = "" if valid else " So there is no best and no worst: the first six by case id show what it wrote."
    lines = [f"**{name}, {run}**: {plural(valid, 'valid answer')} to {plural(len(rows), 'task')}.{none}"]
    for end, chosen in (("worst", worst), ("best", best)):
        for row in chosen:
            sources = {run: row}
            if row.case in beside:
                sources[frontier] = beside[row.case]
            lines.append(_case(end, row, sources, cases[row.case]))
    return "\n\n".join(lines)


def _case(end: str, row: CaseRow, sources: dict[str, CaseRow], case: Case) -> str:
    """One task as a fold."""
    score = f"{end}, {row.quality:.3f}" if row.answer else "no answer"
    summary = html.escape(f"{score}: {case.task} ({case.id})", quote=False)
    return fold(Markdown(_beside(sources, case)), summary).text


def _beside(sources: dict[str, CaseRow], case: Case) -> str:
    """A column for each source and gold, title and questions down; where no answer came, why, and what was written."""
    columns = {}
    for run, source in sources.items():
        rest = [source.answer.title, *source.answer.questions] if source.answer else _failure(source)
        columns[run] = [number(source.quality), *rest]
    if case.gold:
        columns["gold"] = ["", case.gold.title, *case.gold.questions]
    # Of unequal length where somebody asked more than seven; the gaps of a shorter column stay empty.
    table = pd.DataFrame({cell(run): pd.Series(map(cell, texts)) for run, texts in columns.items()}).fillna("")
    labels = ["quality", "title", *map(str, range(1, len(table) - 1))]
    return grid(["", *table], zip(labels, *(table[run] for run in table), strict=False))


def _failure(row: CaseRow) -> list[str]:
    """Why a case has no answer, and the last that the model wrote, cut to a line."""
    replies = [" ".join(call["text"].split()) for call in row.calls if call.get("text")]
    wrote = "It wrote nothing."
    if replies:
        more = "…" if len(replies[-1]) > LINE else ""
        wrote = f"It wrote: “{replies[-1][:LINE]}{more}”"
    return [f"no answer: {row.no_answer or ''}", wrote]
