"""What stands around a run's notebook on its page: what it was and what became of it, and every case behind a line.

Knows sealed records and cases, and escapes every text of theirs. Shows no case of the sealed gate: one that is read is
worn out. Does not know notebooks.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

from lib.measure.judge import DIMS, Judgment
from lib.measure.ruler import Case
from lib.runs.record import CaseRow, Json, Record
from lib.show import attempt, chance, interval

SEALED_GATE = "confirm"


def text(value: object) -> str:
    """Text of others as text of a page."""
    return html.escape(str(value))


def head(record: Record, before: str, after: str) -> str:
    """Name, neighbours, hypothesis, status, quality and decision of a run."""
    neighbours = []
    if before:
        neighbours.append(f'<a rel="prev" href="{before}.html">← {before}</a>')
    if after:
        neighbours.append(f'<a rel="next" href="{after}.html">{after} →</a>')
    facts = [("status", f"<b>{text(record.status)}</b> {text(record.decision.reason)}")]
    if record.scores:
        s = record.scores
        bounds = text(interval(s.low, s.high, ""))
        counts = f"{s.wins} wins, {s.ties} ties, {s.losses} losses, {s.no_answer} without an answer"
        facts.append(("quality", f"{s.quality:.3f} (95 % {bounds}); {counts}"))
    d = record.decision
    if d.delta is not None and d.p is not None:
        rival = f'<a href="{text(d.against)}.html">{text(d.against)}</a>'
        facts.append(("difference", f"{d.delta:+.3f} to {rival} (95 % {text(interval(d.low, d.high))}, {chance(d.p)})"))
    if record.pipeline:
        facts.append(("pipeline", f"<code>{text(attempt(record.pipeline, record.decoding))}</code>"))
    if record.model:
        facts.append(("model", text(record.candidate)))
    if record.error:
        facts.append(("error", f"<pre>{text(record.error)}</pre>"))
    rows = "".join(f"<tr><th scope=row>{name}</th><td>{value}</td></tr>" for name, value in facts)
    return (
        f'<p class="near">{" · ".join(neighbours)}</p><h1>{text(record.id)}</h1>'
        f"<blockquote>{text(record.hypothesis)}</blockquote><table>{rows}</table>"
    )


def cases(record: Record, rows: Sequence[CaseRow], known: dict[str, Case]) -> str:
    """A fold a case, worst first: answer beside gold, judgment with what lowered each score, calls.

    `known` are the ruler's cases by id: empty where the run was judged on another ruler, and then gold is not shown.
    """
    if not record.scores or record.gate == SEALED_GATE:
        return ""
    ordered = sorted(rows, key=lambda r: (r.quality is not None, r.quality or 0.0, r.case))
    folds = "".join(fold(row, known.get(row.case)) for row in ordered)
    return f'<section id="cases"><h2>Every case, the worst first</h2>{folds}</section>'


def fold(row: CaseRow, case: Case | None) -> str:
    """One case behind a line that says how it ended."""
    outcome, quality = row.outcome, "unscored"
    if row.quality is not None:
        quality = f"{row.quality:.3f}"
    ended = outcome.verdict if isinstance(outcome, Judgment) else f"no verdict: {row.no_answer or row.unscored}"
    sides = _answer(row)
    if case is not None and case.gold is not None:
        sides += _questions("gold", case.gold.title, case.gold.questions)
    calls = "".join(_call(n, call) for n, call in enumerate(row.calls, 1))
    summary = f"{quality} {text(ended)} · {text(row.task)}"
    body = f'<div class="sides">{sides}</div>{_judgment(outcome)}{calls}'
    return f'<details id="{text(row.case)}"><summary>{summary}</summary>{body}</details>'


def _answer(row: CaseRow) -> str:
    if row.answer is None:
        return f"<div><h3>no answer</h3><p>{text(row.no_answer or '')}</p></div>"
    return _questions("answer", row.answer.title, row.answer.questions)


def _questions(name: str, title: str, questions: Sequence[str]) -> str:
    items = "".join(f"<li>{text(q)}</li>" for q in questions)
    return f"<div><h3>{name}</h3><p><b>{text(title)}</b></p><ol>{items}</ol></div>"


def _judgment(outcome: object) -> str:
    """Scores by dimension with what lowered each, "" of a case without a judgment."""
    if not isinstance(outcome, Judgment):
        return ""
    rows = ""
    for name, shown in DIMS.items():
        if name in outcome.scores:
            note = text(outcome.notes.get(name, ""))
            rows += f"<tr><th scope=row>{shown}</th><td>{outcome.scores[name]:.2f}</td><td>{note}</td></tr>"
    return f"<table><tr><th>dimension</th><th>score</th><th>what lowered it</th></tr>{rows}</table>"


def _call(number: int, call: Json) -> str:
    """One call as a part of the page that unfolds: the messages, then the reply."""
    said = "".join(
        f"<p><b>{text(m.get('role', ''))}</b></p><pre>{text(m.get('content', ''))}</pre>"
        for m in call.get("messages", [])
    )
    step, reply = text(call.get("step", "call")), text(call.get("text", ""))
    return f"<details><summary>call {number}: {step}</summary>{said}<p><b>reply</b></p><pre>{reply}</pre></details>"
