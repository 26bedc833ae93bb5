"""What each class of lever did: runs, best, cost, and what did not work.

Knows the ledger as a table. Negatives get a table of their own: a lever that was tried and failed is a result.
"""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

from lib.files import canonical
from lib.loop import lessons as remembered
from lib.measure.keep import ALPHA
from lib.report.era import latest
from lib.runs.ledger import Ledger
from lib.show import Markdown, chance, grid, interval, plural, table

METHODS = ("grpo", "orpo", "sft", "gad", "merge")  # how an adapter was trained, as its training run says


def methods(f: pd.DataFrame) -> pd.Series:
    """How the adapter of each run of a ledger was trained, "" for a run without one or where nothing says.

    Of a training it is its own method: the adapter in its record is its parent, which may be trained otherwise.
    """
    own = {r.id: r.method or r.slug for r in f[f.kind == "train"].itertuples()}  # one that crashed has a name alone

    def method(run: str, adapter: str) -> str:
        named = (own[i] for i in [run, *re.findall(r"\d{4,}-[a-z0-9-]+", adapter)] if i in own)
        text = next(named, adapter).lower()
        return next((m for m in METHODS if re.search(rf"(?<![a-z]){m}", text)), "")

    return pd.Series(list(map(method, f.id, f.adapter)), f.index, dtype=str)


def experiments(ledger: Ledger, fingerprint: str) -> pd.DataFrame:
    """The competing experiments of one era on either open gate; `lever` is their class, adapters by their training."""
    f = ledger.frame()
    how = methods(f).str.upper()
    adapter = ("adapter (" + how + ")").where(how != "", "adapter")
    other = (f.lever + ", on an adapter").where(f.adapter != "", f.lever)
    f = f.assign(lever=adapter.where(f.lever == "adapter", other), plain=f.lever)
    f = f.assign(alike=remembered.alike(f) | (f.adapter != ""))
    return f[f.competes & (f.fingerprint == fingerprint)]


def classes(ledger: Ledger, fingerprint: str) -> pd.DataFrame:
    """A row a lever class and gate: how many runs, how many kept, the best of them and what it costs a case."""
    f = experiments(ledger, fingerprint)
    f = f[f.alike]
    groups = f.assign(kept=f.status == "kept").groupby(["lever", "gate"], sort=False)
    best = f.loc[groups.quality.idxmax()]
    rows = best.assign(
        runs=groups.size().values, kept=groups.kept.sum().values, gate=best.gate + "-" + best.cases.astype(str)
    ).rename(columns={"quality": "best quality", "id": "best run"})
    return rows[["lever", "runs", "kept", "best quality", "coverage", "gate", "delta", "p", "calls_a_case",
                  "new_tokens_a_case", "best run"]]  # fmt: skip


def summary(ledger: Ledger, fingerprint: str) -> Markdown:
    """The lever table in one sentence, and how far coverage moved over all runs."""
    f, every = experiments(ledger, fingerprint), ledger.frame()
    if f.empty:
        return Markdown("No experiment yet.")
    full, cover = f[f.gate == "full"], f.set_index("id").coverage.dropna()
    levers = plural(f.plain[f.plain != "baseline"].nunique(), "lever class", "lever classes")
    gone = (every.fingerprint == fingerprint) & (every.status.isin(["crashed", "invalid"]) | every.idle)
    lines = [
        f"{plural(len(f), 'experiment')} in {levers}: {len(full)} on the full gate, {sum(full.status == 'kept')} of them kept "
        f"(the first run too, with nothing to beat), and {len(f) - len(full)} on the dev gate, which keeps nothing."
    ]
    if gone.any():
        lines.append(
            f"Left out: {plural(gone.sum(), 'run')} that crashed, broke a rule or never came to ask the model."
        )
    if not f.alike.all():
        lines.append(
            f"Not in the tables: {plural((~f.alike).sum(), 'run')} without the adapter of the run that it was compared with, "
            "which changed two things at once."
        )
    if len(cover):
        lines.append(f"Coverage, unrounded, lay between {cover.min():.2f} ({cover.idxmin()}) and {cover.max():.2f} "
                     f"({cover.idxmax()}).")  # fmt: skip
    return Markdown(" ".join(lines))


def negatives(ledger: Ledger, fingerprint: str) -> pd.DataFrame:
    """Runs of the full gate that were not kept, worst first: what was predicted, what came, and how sure that is."""
    f = experiments(ledger, fingerprint)
    f = f[(f.gate == "full") & (f.status != "kept") & f.delta.notna()]
    f = f.assign(
        interval=list(map(interval, f.delta_low, f.delta_high)),
        reading=f.status.where((f.p >= ALPHA) | (f.delta >= 0), "worse beyond chance"),
    ).sort_values("delta", kind="stable")
    return f[["id", "lever", "predicted", "delta", "interval", "p", "calls_a_case", "reading"]]


def failed(ledger: Ledger, fingerprint: str) -> Markdown:
    """A row for each class with runs that were not kept, the best and the worst of these; then how the hypotheses did."""
    f = experiments(ledger, fingerprint)
    f = f[f.gate == "full"]
    rows = [_row(lever, runs) for lever, runs in f.groupby("lever", sort=False) if (runs.status != "kept").any()]
    hoped = f[f.delta.notna() & (f.predicted > 0)]
    text = "Every run on the full gate was kept, so nothing failed."
    if rows:
        text = grid(("lever", "kept", "best of the others", "worst"), rows)
    if len(hoped):
        text += f"\n\nOf {plural(len(hoped), 'hypothesis', 'hypotheses')} that promised a gain, "
        text += f"{sum(hoped.predicted > hoped.delta)} promised more than came."
    seen = known(ledger, fingerprint)
    if len(seen):
        text += f" Set up as in an earlier era: {plural(len(seen), 'run')}, so roughly what would come was known."
    return Markdown(text)


def known(ledger: Ledger, fingerprint: str) -> list[str]:
    """The runs of an era's full gate whose setup and weights an earlier era had scored: their prediction tested nothing."""
    f = ledger.frame()
    f = f[(f.kind == "experiment") & (f.gate == "full") & f.competes]
    earlier = f[f.fingerprint != fingerprint]
    mine = f[f.fingerprint == fingerprint]
    tried = {_setup(row) for row in earlier.itertuples()}
    return [row.id for row in mine.itertuples() if _setup(row) in tried]


def _setup(row: Any) -> str:
    return f"{canonical(row.pipeline)} {canonical(row.decoding)} {row.model} {row.weights}"


def _row(lever: object, runs: pd.DataFrame) -> list[str]:
    """One class: how many of its runs were kept, and what the best and the worst of the others moved quality by."""
    lost = runs[runs.status != "kept"]
    moved = [
        f"{r.delta:+.3f} ({r.id}, {chance(r.p)})" for r in lost[lost.delta.notna()].sort_values("delta").itertuples()
    ]
    return [
        str(lever),
        f"{len(runs) - len(lost)} of {len(runs)}",
        *(moved[-1:] or [""]),
        *(moved[:1] if moved[1:] else [""]),
    ]


# --- what the loop remembers ----------------------------------------------------------------------


def lessons(ledger: Ledger) -> Markdown:
    """A row a lever class of the newest era: what was predicted, what came, how the predictions did."""
    return table(remembered.lessons(ledger, latest(ledger)).rename(columns={"best": "best run"}))


def dead_ends(ledger: Ledger) -> Markdown:
    """What need not be tried again, why, and what would revive it."""
    ends = remembered.dead_ends(ledger, latest(ledger))
    return table(ends.replace({"run": {"": "whole class"}}).rename(columns={"revive": "revive when"}))
