"""The store of replies: each one that was paid for, a line of its own, never written twice.

Knows keys, replies and sent batches: a line is on disk before its reply is used, and proves itself by its own sha256.
Does not know what a reply means nor who asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from lib import log
from lib.log import Hashed, Log, Row

NAME = "judgments.jsonl"  # beside the ledger: what was paid for once serves every run of the folder
REPLY, BATCH, ENDED, CANDIDATE = "reply", "batch", "batch ended", "candidate"  # the types of line
# What a line of each type cannot be without; a type that a later version adds is read and counts for nothing here.
NEEDS = {REPLY: "key", BATCH: "batch", ENDED: "batch"}


class Line(Hashed):
    """A line of the store: it proves itself, and holds what its type needs."""

    def row(self, line: bytes, number: int, before: str) -> Row:
        """The row of a line. Raises ValueError where the line does not prove itself, or lacks what its type needs."""
        row = super().row(line, number, before)
        name = NEEDS.get(str(row.get("type")), "type")
        if not isinstance(row.get(name), str):
            raise ValueError(f"no line of this store: its {name} is {row.get(name)!r:.40}, expected a text")
        # Every look at a budget adds these up; a text among them is said here, with its line.
        for name in ("dollars", "worst"):
            if not isinstance(row.get(name, 0.0), int | float):
                raise ValueError(f"no line of this store: its {name} is {row[name]!r:.40}, expected a number")
        return row


class Store(Log):
    """Replies by key. Opening reads the file and raises Tampered naming the first line that was changed.

    Several processes may append to one file; each sees the others' lines when it next looks something up.
    """

    def __init__(self, path: Path | str) -> None:
        self._values: dict[str, Row] = {}
        self._batches: dict[str, Row] = {}
        super().__init__(Path(path), Line())

    def reply(self, key: str) -> Row | None:
        """The newest reply under a key that holds a value; a faulty reply was paid for but answers nothing."""
        self.catch_up()
        return self._values.get(key)

    def has(self, fingerprint: str, replicate: int) -> bool:
        """Whether any reply of this ruler, judge and replicate is here."""
        with self._lock:
            self.catch_up()
            return any(r["fingerprint"] == fingerprint and r["replicate"] == replicate for r in self._values.values())

    def pending(self) -> list[Row]:
        """Batches that were sent and whose results are not all here yet, oldest first."""
        with self._lock:
            self.catch_up()
            return list(self._batches.values())

    def append(self, *rows: Row) -> None:
        """Add rows; on return they are on disk. Raises OSError, ValueError on what JSON does not have."""
        self.extend(rows)

    def catch_up(self) -> list[Row]:
        """Read what was written since the last look, by this process or another. Raises Tampered."""
        # Under the lock to the end: between reading and sorting in, another thread would miss a reply and buy it again.
        with self._lock:
            rows = super().catch_up()
            for row in rows:
                # A faulty reply holds no value: it was paid for, and answers nothing.
                if row["type"] == REPLY and "value" in row:
                    self._values[row["key"]] = row
                elif row["type"] == BATCH:
                    self._batches[row["batch"]] = row
                elif row["type"] == ENDED:
                    self._batches.pop(row["batch"], None)
            return rows

    def __len__(self) -> int:
        return sum(r["type"] == REPLY for r in self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter([r for r in self.rows if r["type"] == REPLY])


def book(path: Path, model: str, dollars: float) -> None:
    """Put on disk what a model cost that was asked for answers: the record of its run says it too, unless the run
    crashes before it has one."""
    if dollars:
        Store(path).append({"type": CANDIDATE, "model": model, "dollars": dollars, "at": log.now()})


def paid(path: Path, candidates: bool = False) -> float:
    """Dollars that judging cost, runs that crashed among it: of replies, and the most that batches can have cost that
    are not read yet or never can be. With `candidates`, the dollars that models cost for their answers. Raises Tampered.
    """
    if not path.exists():
        return 0.0
    # Read again only when the file has changed: whoever shows many runs asks for this at each of them.
    about = path.stat()
    return _paid(path, candidates, about.st_size, about.st_mtime_ns)


@lru_cache(maxsize=8)
def _paid(path: Path, candidates: bool, size: int, changed: int) -> float:
    """The sum itself; `size` and `changed` only make a file that has grown another entry of the cache."""
    store = Store(path)
    rows = [row for row in store.rows if (row["type"] == CANDIDATE) == candidates]
    pending = [] if candidates else store.pending()
    return sum(row.get("dollars", 0.0) for row in rows) + sum(batch.get("worst", 0.0) for batch in pending)


def verify(path: Path) -> list[str]:
    """What is wrong with a store, one sentence, or nothing."""
    return log.verify(path, Line())
