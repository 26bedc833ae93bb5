"""What the loop remembers, as tables: lessons by lever class, dead ends.

Knows lessons. Pure functions of a ledger. Does not know how they came about.
"""

from __future__ import annotations

from lib.lab.show import Markdown, table
from lib.loop import lessons as remembered
from lib.report import tables
from lib.runs.ledger import Ledger


def lessons(ledger: Ledger) -> Markdown:
    """A row a lever class of the newest era: what was predicted, what came, how the predictions did."""
    return table(remembered.lessons(ledger, tables.latest(ledger)).rename(columns={"best": "best run"}))


def dead_ends(ledger: Ledger) -> Markdown:
    """What need not be tried again, why, and what would revive it."""
    ends = remembered.dead_ends(ledger, tables.latest(ledger))
    return table(ends.replace({"run": {"": "whole class"}}).rename(columns={"revive": "revive when"}))
