"""The store of replies: each one that was paid for, a line of its own, never written twice.

Knows keys, replies and sent batches: a line is on disk before its reply is used, and proves itself by its own sha256.
Does not know what a reply means nor who asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from lib import log
from lib.files import Tampered
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

    Several processes may append to one file; each sees the others' lines when it next looks something up. A reply stays
    on disk, where its key finds it: a million of them would not fit in memory.
    """

    def __init__(self, path: Path | str) -> None:
        self._places: dict[str, int] = {}  # by key: where the newest reply begins that holds a value
        self._judged: set[str] = set()  # fingerprints with replicates of those
        self._batches: dict[str, Row] = {}
        self.dollars = {False: 0.0, True: 0.0}  # that judging cost, and, under True, the answers of models
        super().__init__(Path(path), Line())

    def reply(self, key: str) -> Row | None:
        """The newest reply under a key that holds a value; a faulty reply was paid for but answers nothing."""
        self.catch_up()
        if key not in self._places:
            return None
        return next(self.since(self._places[key]))

    def has(self, fingerprint: str, replicate: int) -> bool:
        """Whether any reply of this ruler, judge and replicate is here."""
        self.catch_up()
        return f"{fingerprint} {replicate}" in self._judged

    def pending(self) -> list[Row]:
        """Batches that were sent and whose results are not all here yet, oldest first."""
        with self._lock:
            self.catch_up()
            return list(self._batches.values())

    def append(self, *rows: Row) -> None:
        """Add rows; on return they are on disk. Raises OSError, ValueError on what JSON does not have."""
        self.extend(rows)

    def keep(self, row: Row, place: int) -> None:
        """Sort in a row. `catch_up` holds the lock: else another thread would miss a reply and buy it again."""
        kind = row["type"]
        self.dollars[kind == CANDIDATE] += row.get("dollars", 0.0)
        if kind == REPLY:
            # A faulty reply holds no value: it was paid for, and answers nothing.
            if "value" in row:
                self._places[row["key"]] = place
                self._judged.add(f"{row.get('fingerprint')} {row.get('replicate')}")
        elif kind == BATCH:
            self._batches[row["batch"]] = row
        elif kind == ENDED:
            self._batches.pop(row["batch"], None)

    def since(self, place: int = 0) -> Iterator[Row]:
        """The rows from a place in the file on, read and proved again."""
        if place < self.end:
            with open(self.path, "rb") as file:
                file.seek(place)
                while file.tell() < self.end:
                    yield self._row(file.readline(), 0)

    @property
    def rows(self) -> list[Row]:
        """All of them, of whatever type: what a large store holds may not fit in memory."""
        return [*self.since()]

    def __iter__(self) -> Iterator[Row]:
        return filter(lambda row: row["type"] == REPLY, self.since())


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
    pending = [] if candidates else store.pending()
    return store.dollars[candidates] + sum(batch.get("worst", 0.0) for batch in pending)


def verify(path: Path) -> list[str]:
    """What is wrong with a store, one sentence, or nothing."""
    try:
        Store(path)
    except Tampered as error:
        return [str(error)]
    return []
