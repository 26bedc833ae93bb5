"""The loop's own log: a line an event, each with the hash of the line before, beside the ledger.

Knows which kinds of event a folder of runs has seen, and that a line that a kill cut off was decided by nobody. Does
not know what an event means. Does not cover whole last lines taken out, but for those that a sealed run's
proposal.json vouches for.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lib.files import Tampered
from lib.log import START, Chain, Log, Row, now

NAME = "events.jsonl"  # beside the ledger
PROPOSAL = "proposal.json"  # in the folder of a run that the loop made; names the last event before it
Event = Row


class Events(Log):
    """All events of a folder of runs. Several processes may append; each sees the others' lines at its next look."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / NAME, Chain("kind"))

    def append(self, kind: str, **data: Any) -> Event:
        """Add an event; on return it is on disk. Raises OSError, Tampered."""
        self.extend([{"at": now(), "kind": kind, **data}])
        return self.rows[-1]

    def of(self, *kinds: str) -> list[Event]:
        """The events of these kinds, oldest first."""
        return [r for r in self.rows if r["kind"] in kinds]

    def last(self, *kinds: str) -> Event | None:
        """The newest event of these kinds, or None."""
        return next((r for r in reversed(self.rows) if r["kind"] in kinds), None)


@dataclass(frozen=True)
class Origin:
    """What a run was made for, as the proposal.json beside it says."""

    purpose: str  # baseline, reference, screen, decide, repeat, confirm
    event: int | None  # the accepted proposal that it tests
    steered: int | None  # the wish that stood then


# Kept: what is sealed does not change, and each look at a proposal asks for every run that came after it.
@lru_cache(maxsize=4096)
def origin(run: Path) -> Origin | None:
    """What a sealed run was made for; None for a run that no loop made."""
    try:
        plain = json.loads((run / PROPOSAL).read_bytes())
    except FileNotFoundError:
        return None
    return Origin(plain["purpose"], plain["event"], plain["steered"])


def verify(folder: Path) -> list[str]:
    """What is wrong with a folder's events, in sentences. A torn last line is not wrong: nothing was decided by it."""
    try:
        events = Events(folder)
    except Tampered as error:
        return [str(error)]
    # Each run names the last event before it, so lines cut off the end are missed by a later run.
    heads = {START, *(row["prev"] for row in events), events.head}
    faults = []
    for path in sorted(folder.glob(f"[0-9]*-*/{PROPOSAL}")):
        try:
            missing = json.loads(path.read_bytes())["events"] not in heads
        except (OSError, ValueError, KeyError, TypeError) as error:
            faults.append(f"{path}: cannot be read ({type(error).__name__}: {error})")
            continue
        if missing:
            faults.append(f"{folder / NAME}: lines are missing or changed that {path.parent.name} was sealed after")
    return faults
