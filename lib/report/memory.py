"""What the loop remembers, as tables: lessons by lever class, dead ends, what it cost.

Knows lessons and events. Pure functions of a folder of runs. Does not know how either came about.
"""

from __future__ import annotations

import pandas as pd

from lib.lab import lessons as remembered
from lib.lab.events import Events
from lib.lab.ledger import Ledger
from lib.lab.show import Markdown, interval, table
from lib.report import tables


def lessons(ledger: Ledger) -> Markdown:
    """A row a lever class of the newest era: what was predicted, what came, how the predictions did."""
    return table(remembered.lessons(ledger, tables.latest(ledger)).rename(columns={"best": "best run"}))


def predictions(ledger: Ledger) -> pd.DataFrame:
    """A row a tested prediction of the newest era: predicted, measured with its interval, and the reading."""
    f = remembered.outcomes(ledger, tables.latest(ledger))
    f = f.assign(interval=list(map(interval, f.delta_low, f.delta_high)))
    return f[["id", "lever", "gate", "status", "predicted", "delta", "interval", "reading"]]


def dead_ends(ledger: Ledger) -> Markdown:
    """What need not be tried again, why, and what would revive it."""
    ends = remembered.dead_ends(ledger, tables.latest(ledger))
    return table(ends.replace({"run": {"": "whole class"}}).rename(columns={"revive": "revive when"}))


def costs(ledger: Ledger) -> Markdown:
    """Seconds and dollars by run and in total, the proposer's dollars beside them."""
    f = ledger.frame()[["id", "seconds", "dollars"]]
    asked = sum(e.get("dollars", 0.0) for e in Events(ledger.folder))
    ends = [("proposer", None, asked), ("total", f.seconds.sum(), f.dollars.sum() + asked)]
    return table(pd.concat([f, pd.DataFrame(ends, columns=f.columns)]) if len(f) else f)


def refusals(ledger: Ledger) -> Markdown:
    """Refused proposals by rule, and how many of each."""
    f = pd.DataFrame(Events(ledger.folder).of("refused"), columns=["rule", "by"])
    return table(f.value_counts(["rule", "by"]).rename("refused").reset_index())
