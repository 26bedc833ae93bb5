"""A comparison of models as tables: the confirmation experiment as a reader wants it.

Knows the readings of `lib.measure.checks.compare`. Does not know how they were made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from lib.lab.models import in_short, moved
from lib.log import Row
from lib.measure import calibrate
from lib.measure.judge import DIMENSIONS, DIMS
from lib.report.era import Era, scored
from lib.runs.ledger import Ledger
from lib.runs.record import ComparisonRecord
from lib.show import Markdown, bullets, candidate_name, interval, table

Beside = Iterable[Mapping[str, Any]]  # controls of a calibration of the same gate, to stand below the candidates


def runs(readings: Row) -> pd.DataFrame:
    """A row a run of a comparison in order: group, who answered and what it took, scores, differences to the first.

    Differences have columns such as `difference.delta` (quality) and `dims.coverage.p`, missing for a group's first run.
    """
    f = pd.json_normalize(readings["groups"], "runs", "group").rename(columns=lambda name: name.removeprefix("scores."))
    about = pd.json_normalize([{"run": run, **c} for run, c in readings["candidates"].items()])
    f = f.merge(about, on="run", how="left")
    return f.assign(candidate=f.candidate.map(candidate_name))


def _beside(readings: Row, beside: Beside) -> pd.DataFrame:
    """The runs of a comparison, gold, and the controls that are none of them, scored; all that a table needs."""
    f = runs(readings)
    below = []
    if readings["ceiling"]:
        below.append({"candidate": "gold against itself", **readings["ceiling"]})
    # What is a candidate and a control at once, as a frontier may be, stands once, as the candidate.
    here = {*f.model, calibrate.GOLD} if below else {*f.model}
    below += [{"candidate": c["name"], **c} for c in beside if c["name"] not in here]
    return scored(pd.concat([f, pd.json_normalize(below)], ignore_index=True)).rename(columns={"group": "pipeline"})


def _shown(f: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Some columns; `pipeline` before them only where there are several."""
    several = f.pipeline.nunique() > 1
    return f[["pipeline", *columns] if several else columns]


def models(readings: Row, beside: Beside = ()) -> pd.DataFrame:
    """A row a candidate: quality with its interval, W/T/L over all cases, and the difference to the first of its group."""
    f = _beside(readings, beside)
    cloud = f.model.fillna("").str.startswith("claude-").map({True: "cloud", False: "on-device"})
    f = f.rename(columns={"difference.delta": "delta", "difference.p": "p", "useful.mean": "useful"})
    f = f.reindex(columns=[*f, *{"delta", "p", "useful", "difference.low", "difference.high"}.difference(f)])
    f["where"] = cloud.where(f.model.notna(), "")
    f["95 % of delta"] = list(map(interval, f["difference.low"], f["difference.high"]))
    f["calls_a_case"], f["new_tokens_a_case"] = f.calls / f.cases, f.generation_tokens / f.cases
    columns = ["candidate", "where", "quality", "interval", "coverage", "wtl", "no_answer", "cases", "delta", "p",
               "95 % of delta", "useful", "calls_a_case", "new_tokens_a_case"]  # fmt: skip
    if cloud[f.model.notna()].nunique() == 1:
        columns.remove("where")
    if f.useful.isna().all():
        columns.remove("useful")
    return _shown(f, columns)


def dimensions(readings: Row, beside: Beside = ()) -> pd.DataFrame:
    """The five dimensions of every candidate, unrounded means of the judged cases, gold and controls below them."""
    return _shown(_beside(readings, beside), ["candidate", *DIMENSIONS]).rename(columns=DIMS)


def differences(readings: Row) -> pd.DataFrame:
    """Of every candidate and dimension the paired difference to the first of its group, with p and interval."""
    f = runs(readings).rename(columns={"group": "pipeline"})
    f = f[f["difference.n"].notna()]
    parts = []
    for name, test in {"quality": "difference", **{DIMS[d]: f"dims.{d}" for d in DIMS}}.items():
        around = list(map(interval, f[f"{test}.low"], f[f"{test}.high"]))
        part = f.assign(of=name, delta=f[f"{test}.delta"], p=f[f"{test}.p"], interval=around, cases=f[f"{test}.n"])
        parts.append(part)
    by_run = pd.concat(parts).sort_index(kind="stable").astype({"cases": "Int64"})
    return _shown(by_run, ["candidate", "of", "delta", "p", "interval", "cases"])


# --- in the report -------------------------------------------------------------------------------


def section(ledger: Ledger, fingerprint: str) -> Markdown:
    """The confirmation experiment of the report: table, dimensions and sentences of one comparison."""
    era = Era(ledger, fingerprint)
    record = era.comparison()
    if record is None:
        return Markdown("Not run yet: `notch confirm --models smollm2,stored:claude`.")
    beside: Beside = []
    if record.gate == "full" and era.calibration is not None:
        beside = sorted(era.calibration.found.controls, key=lambda c: -c["quality"])
    parts = [
        f"From {record.id}; every candidate is a sealed run of its own, and none of this is part of the climb.",
        table(models(record.found.as_dict(), beside)).text, "The dimensions, unrounded:",
        table(dimensions(record.found.as_dict(), beside)).text,
    ]  # fmt: skip
    return Markdown("\n\n".join(parts))


def sentences(ledger: Ledger, fingerprint: str) -> Markdown:
    """What changing only the model moved, in sentences."""
    era = Era(ledger, fingerprint)
    record = era.comparison()
    if record is None:
        return Markdown("Not run yet: `notch confirm --models smollm2,stored:claude`.")
    lines = moved(record.found)
    for other in ledger.records:
        if (
            isinstance(other, ComparisonRecord)
            and other.fingerprint == fingerprint
            and other not in (record, era.comparison(True))
        ):
            lines.append(f"Also compared, {other.id}: {in_short(other.found)}.")
    return bullets(lines)


def regression(ledger: Ledger, fingerprint: str) -> Markdown:
    """The newest base beside the old one, a row a pipeline and base."""
    record = Era(ledger, fingerprint).comparison(base=True)
    if record is None:
        return Markdown("No other base was tried yet: `notch confirm --base MODEL`.")
    return Markdown(
        f"From {record.id}: {in_short(record.found)}. An adapter of the old base does not fit the new one, so the champion's "
        f"pipeline runs bare on both.\n\n{table(models(record.found.as_dict())).text}"
    )
