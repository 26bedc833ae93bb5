"""The loop's own log: a line an event, each with the hash of the line before, beside the ledger.

Knows lines and their chain. A line that a kill cut off is ignored and cut away by the next append; any other change is
Tampered. Does not know what an event means. Does not cover whole last lines taken out, but for those that a sealed
run's proposal.json vouches for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from lib.files import canonical, locked, sha256, sync_folder
from lib.measure.ruler import Tampered

NAME = "events.jsonl"  # beside the ledger
PROPOSAL = "proposal.json"  # in the folder of a run that the loop made; names the last event before it
START = "0" * 64
Event = dict[str, Any]


class Events:
    """All events of a folder of runs. Several processes may append; each sees the others' lines at its next look."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.rows: list[Event] = []
        self.head = START  # hash of the last whole line
        self._end = 0
        self._prefix = sha256(b"")
        self.catch_up()

    def catch_up(self) -> None:
        """Read what was written since the last look. Raises Tampered naming the first bad line."""
        data = self.path.read_bytes() if self.path.exists() else b""
        if sha256(data[: self._end]) != self._prefix:
            raise Tampered(f"{self.path}: changed since it was read a moment ago")
        whole = data[: data.rfind(b"\n") + 1]
        for line in whole[self._end :].split(b"\n")[:-1]:
            self.rows.append(_checked(self.path, line, len(self.rows) + 1, self.head))
            self.head = sha256(line)
        self._end, self._prefix = len(whole), sha256(whole)

    def append(self, kind: str, **data: Any) -> Event:
        """Add an event; on return it is on disk. Raises OSError, Tampered."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.path.parent / ".events"):
            self.catch_up()
            row = {"n": len(self.rows) + 1, "prev": self.head, "at": now(), "kind": kind, **data}
            line = canonical(row).encode("utf-8", "backslashreplace") + b"\n"
            new = not self.path.exists()
            with open(self.path, "ab") as out:
                if out.tell() > self._end:
                    out.truncate(self._end)  # a torn line of a process that was killed
                out.write(line)
                out.flush()
                os.fsync(out.fileno())
            if new:
                sync_folder(self.path.parent)
            self.catch_up()
        return self.rows[-1]

    def of(self, *kinds: str) -> list[Event]:
        """The events of these kinds, oldest first."""
        return [r for r in self.rows if r["kind"] in kinds]

    def last(self, *kinds: str) -> Event | None:
        """The newest event of these kinds, or None."""
        return next((r for r in reversed(self.rows) if r["kind"] in kinds), None)

    def __iter__(self) -> Iterator[Event]:
        return iter(self.rows)


def _checked(path: Path, line: bytes, number: int, before: str) -> Event:
    try:
        row = json.loads(line)
        sound = row["n"] == number and row["prev"] == before and isinstance(row["kind"], str)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Tampered(f"{path}:{number}: changed since it was written (not an event: {error})") from error
    if not sound:
        raise Tampered(f"{path}:{number}: does not follow the line before it")
    return row


def verify(folder: Path) -> list[str]:
    """What is wrong with a folder's events, in sentences. A torn last line is not wrong: nothing was decided by it."""
    try:
        heads = [START, *_heads(folder)]
    except Tampered as error:
        return [str(error)]
    wrong = []
    for path in sorted(folder.glob(f"[0-9]*-*/{PROPOSAL}")):
        try:
            head = json.loads(path.read_bytes())["events"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            wrong.append(f"{path}: cannot be read ({type(error).__name__}: {error})")
            continue
        if head not in heads:
            wrong.append(f"{folder / NAME}: lines are missing or changed that {path.parent.name} was sealed after")
    return wrong


def _heads(folder: Path) -> list[str]:
    events = Events(folder)
    return [row["prev"] for row in events][1:] + [events.head]


def now() -> str:
    """The time as events write it."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
