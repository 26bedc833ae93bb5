"""The judgment store: every reply that a judge was paid for, one line each, never written twice.

Knows lines, keys and the disk: a line is on disk before its judgment is used, a line proves itself by its own sha256,
a line that a kill cut off is ignored and repaired by the next append. Does not know what a reply means nor who asked.
Does not cover lines taken out whole: each line vouches for itself, not for its neighbours.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from lib.files import canonical, runs_folder, sha256, sync_folder
from lib.measure.ruler import Tampered

NAME = "judgments.jsonl"  # beside the ledger: what was paid for once serves every run of the folder
REPLY, BATCH, ENDED = "reply", "batch", "batch ended"  # the three types of line
Row = dict[str, Any]


def default_path() -> Path:
    """The store of the current folder of runs."""
    return runs_folder() / NAME


def key_of(fingerprint: str, case: str, text: str, kind: str, order: str, replicate: int) -> str:
    """Names one question to a judge, 64 hex characters: cache key, resume key and batch `custom_id` in one.

    `text` is the candidate's, `kind` and `order` say which call it is, `replicate` asks the same thing afresh.
    """
    plain = text.encode("utf-8", "backslashreplace").decode()  # half a character has no UTF-8 of its own
    return sha256(canonical([fingerprint, case, plain, kind, order, replicate]))


def line_of(row: Row) -> bytes:
    """A row as its line: sorted JSON that ends in the sha256 of the rest."""
    try:
        body = canonical(row).encode()
    except UnicodeEncodeError:
        body = json.dumps(row, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    return body[:-1] + f',"sha256":"{sha256(body)}"}}\n'.encode()


def row_of(line: bytes) -> Row | None:
    """The row of a line, None when it is not byte for byte what was written."""
    try:
        row = json.loads(line)
        row.pop("sha256")
        return row if line_of(row) == line else None
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return None


class Store:
    """Replies by key. Opening reads the file and raises Tampered naming the first line that was changed.

    Several processes may append to one file; each sees the others' lines when it next looks something up.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.rows: list[Row] = []
        self._lock = threading.RLock()
        self._end = 0  # bytes read so far: always the end of a whole line
        self._scored: dict[str, Row] = {}
        self._batches: dict[str, Row] = {}
        self._catch_up()

    def reply(self, key: str) -> Row | None:
        """The newest reply under a key that holds a value; a faulty reply was paid for but answers nothing."""
        with self._lock:
            self._catch_up()
            return self._scored.get(key)

    def has(self, fingerprint: str, replicate: int) -> bool:
        """Whether any reply of this ruler, judge and replicate is here."""
        with self._lock:
            self._catch_up()
            return any(r["fingerprint"] == fingerprint and r["replicate"] == replicate for r in self._scored.values())

    def pending(self) -> list[Row]:
        """Batches that were sent and whose results are not all here yet, oldest first."""
        with self._lock:
            self._catch_up()
            return list(self._batches.values())

    def append(self, *rows: Row) -> None:
        """Add rows; on return they are on disk. Raises OSError, ValueError on what JSON does not have."""
        data = b"".join(map(line_of, rows))
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            new = not self.path.exists()
            with open(self.path, "ab+", buffering=0) as out:
                fcntl.flock(out, fcntl.LOCK_EX)
                self._catch_up()
                self._repair(out)
                if out.write(data) != len(data):
                    raise OSError(f"{self.path}: the disk took only part of what was written")
                os.fsync(out.fileno())
                self._end += len(data)
                for row in rows:
                    self._index(row)
            if new:
                sync_folder(self.path.parent)

    def __len__(self) -> int:
        return sum(r["type"] == REPLY for r in self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter([r for r in self.rows if r["type"] == REPLY])

    # --- the file

    def _catch_up(self) -> None:
        """Read the whole lines that were written since the last look, by this process or another."""
        size = self.path.stat().st_size if self.path.exists() else 0
        if size == self._end:
            return
        if size < self._end:
            raise Tampered(f"{self.path}: {self._end - size} bytes shorter than a moment ago")
        with open(self.path, "rb") as file:
            file.seek(self._end)
            data = file.read()
        for line in data[: data.rfind(b"\n") + 1].splitlines(keepends=True):
            row = row_of(line)
            if row is None:
                raise Tampered(f"{self.path}:{len(self.rows) + 1}: changed since it was written")
            self._end += len(line)
            self._index(row)

    def _repair(self, out: IO[bytes]) -> None:
        """With the lock held: finish a last line that lacks only its end, cut off one that lacks more."""
        out.seek(self._end)
        tail = out.read()
        if not tail:
            return
        row = row_of(tail + b"\n")
        if row is None:
            out.truncate(self._end)
            return
        out.write(b"\n")
        self._end += len(tail) + 1
        self._index(row)

    def _index(self, row: Row) -> None:
        self.rows.append(row)
        if row["type"] == REPLY and "value" in row:
            self._scored[row["key"]] = row
        elif row["type"] == BATCH:
            self._batches[row["batch"]] = row
        elif row["type"] == ENDED:
            self._batches.pop(row["batch"], None)


def paid(path: Path) -> float:
    """Dollars that the replies of a store cost, those of runs that crashed among them. Raises Tampered."""
    if not path.exists():
        return 0.0
    about = path.stat()
    return _paid(path, about.st_size, about.st_mtime_ns)


@lru_cache(maxsize=8)
def _paid(path: Path, size: int, changed: int) -> float:
    return sum(row["dollars"] for row in Store(path))


def verify(path: Path) -> list[str]:
    """What is wrong with a store, one sentence, or nothing. A torn last line is not wrong."""
    try:
        Store(path)
    except Tampered as error:
        return [str(error)]
    return []
