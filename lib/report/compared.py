"""A comparison of models as tables: the confirmation experiment as a reader wants it.

Knows the readings of `lib.measure.checks.compare`. Does not know how they were made.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from lib.lab.models import moved
from lib.lab.show import Markdown, bullets, interval, table
from lib.measure import calibrate
from lib.measure.judge import DIMENSIONS
from lib.report.tables import DIMS, controls, widest
from lib.runs.ledger import COUNTS, Ledger

Readings = dict[str, Any]
Beside = Iterable[Readings]  # controls of a calibration of the same gate, to stand below the candidates


def each(readings: Readings) -> list[tuple[str, Readings, Readings]]:
    """Every run of a comparison in order: the name of its group, who answered, its scores and difference."""
    return [(g["group"], readings["candidates"][run["run"]], run) for g in readings["groups"] for run in g["runs"]]


def _rows(readings: Readings, beside: Beside = ()) -> list[tuple[str, Readings, Readings]]:
    """The runs of a comparison, gold, and the controls that are none of them."""
    gold = ("ceiling", {"candidate": "gold against itself", "model": ""}, {"scores": readings["ceiling"]})
    rows = each(readings) + ([gold] if readings["ceiling"] else [])
    here = {candidate["model"] for _, candidate, _ in rows} | ({calibrate.GOLD} if readings["ceiling"] else set())
    return rows + [
        ("control", {"candidate": c["name"], "model": ""}, {"scores": c}) for c in beside if c["name"] not in here
    ]


def _frame(rows: list[Readings], readings: Readings) -> pd.DataFrame:
    """Rows as a table; `pipeline` only where there are several."""
    frame = pd.DataFrame(rows)
    return frame.drop(columns="pipeline") if len(readings["groups"]) == 1 and rows else frame


def models(readings: Readings, beside: Beside = ()) -> pd.DataFrame:
    """A row a candidate: quality with its interval, W/T/L over all cases, and the difference to the first of its group."""
    frame = _frame([_row(*row) for row in _rows(readings, beside)], readings)
    idle = {"where": len({*frame["where"]} - {""}) == 1, "useful": frame["useful"].isna().all()}
    return frame.drop(columns=[column for column, drop in idle.items() if drop])


def _row(group: str, candidate: Readings, run: Readings) -> Readings:
    s, d = run["scores"], run.get("difference") or {}
    n = sum(s[k] for k in COUNTS)
    where = ("cloud" if candidate["model"].startswith("claude-") else "on-device") if candidate["model"] else ""
    return {
        "pipeline": group, "candidate": candidate["candidate"], "where": where, "quality": s["quality"],
        "interval": interval(s["low"], s["high"], ""), "coverage": s["dims"].get("coverage"),
        "wtl": f"{s['wins']}/{s['ties']}/{s['losses']}", "no_answer": s["no_answer"], "cases": n,
        "delta": d.get("delta"), "p": d.get("p"), "95 % of delta": interval(d.get("low"), d.get("high")),
        "useful": (candidate.get("useful") or {}).get("mean"),
        "calls_a_case": candidate["calls"] / n if "calls" in candidate else None,
        "new_tokens_a_case": candidate["generation_tokens"] / n if "generation_tokens" in candidate else None,
    }  # fmt: skip


def dimensions(readings: Readings, beside: Beside = ()) -> pd.DataFrame:
    """The five dimensions of every candidate, unrounded means of the judged cases, gold and controls below them."""
    rows = [
        {"pipeline": group, "candidate": candidate["candidate"]} | {DIMS[d]: run["scores"]["dims"].get(d) for d in DIMS}
        for group, candidate, run in _rows(readings, beside)
    ]
    return _frame(rows, readings)


def differences(readings: Readings) -> pd.DataFrame:
    """Of every candidate and dimension the paired difference to the first of its group, with p and interval."""
    rows = [
        {"pipeline": group, "candidate": candidate["candidate"], "of": name.replace("_", "-"), "delta": t["delta"],
         "p": t["p"], "interval": interval(t["low"], t["high"]), "cases": t["n"]}
        for group, candidate, run in each(readings) if "difference" in run
        for name, t in {"quality": run["difference"], **{d: run["dims"][d] for d in DIMENSIONS}}.items()
    ]  # fmt: skip
    return _frame(rows, readings)


# --- in the report -------------------------------------------------------------------------------


def section(ledger: Ledger, fingerprint: str) -> Markdown:
    """The confirmation experiment of the report: table, dimensions and sentences of one comparison."""
    record = widest(ledger, fingerprint)
    if record is None:
        return Markdown("Not run yet: `notch confirm --models smollm2,stored:claude`.")
    readings = record["found"]
    beside = controls(ledger, fingerprint).values() if record["gate"] == "full" else ()
    parts = [
        f"From {record['id']}; every candidate is a sealed run of its own, and none of this is part of the climb.",
        table(models(readings, beside)).text, bullets(moved(record.found)).text, "The dimensions, unrounded:",
        table(dimensions(readings, beside)).text,
    ]  # fmt: skip
    return Markdown("\n\n".join(parts))


def regression(ledger: Ledger, fingerprint: str) -> Markdown:
    """The newest base beside the old one, a row a pipeline and base."""
    record = widest(ledger, fingerprint, base=True)
    if record is None:
        return Markdown("No other base was tried yet: `notch confirm --base MODEL`.")
    return Markdown(f"From {record['id']}: {record['decision']['reason']}.\n\n{table(models(record['found'])).text}")
