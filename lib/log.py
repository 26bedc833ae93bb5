"""The one append-only log: a line of JSON a row, on disk before anything is done about it.

Knows lines, how one is proved, the lock and the disk. A line that a kill cut off counts for nothing and the next
append repairs it; any other change is Tampered. Does not know what a row means. Does not cover whole lines taken out
where each vouches for itself alone, nor the last lines of a chain.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any

from lib.files import CRLF, Tampered, canonical, sha256, sync_folder

START = "0" * 64  # what the first line of a chain follows
Row = dict[str, Any]


@dataclass(frozen=True)
class Chain:
    """Every line holds its number and the hash of the line before, so the newest vouches for all."""

    field: str  # without it a row of this log is none
    chained = True

    def line(self, row: Row, number: int, before: str) -> bytes:
        """A row as a line."""
        # Half a surrogate pair has no UTF-8; spelt out as an escape it is JSON all the same, and reads back as it was.
        return canonical({"n": number, "prev": before, **row}).encode("utf-8", "backslashreplace")

    def row(self, line: bytes, number: int, before: str) -> Row:
        """The row of a line. Raises ValueError where it is not the next of the chain."""
        # The chain is checked on the bytes: parsing comes only after they are known to be whole.
        if f'"prev":"{before}"'.encode() not in line:
            raise ValueError("does not follow the line before it")
        try:
            row: Row = json.loads(line)
            if row["n"] != number or self.field not in row:
                raise ValueError(f"expected number {number} and a {self.field}")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"changed since it was written (not a row: {error})") from error
        return row


@dataclass(frozen=True)
class Hashed:
    """Every line ends in the sha256 of the rest of it."""

    chained = False

    def line(self, row: Row, number: int, before: str) -> bytes:
        """A row as a line."""
        try:
            body = canonical(row).encode()
        except UnicodeEncodeError:  # half a character
            body = json.dumps(row, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
        return body[:-1] + f',"sha256":"{sha256(body)}"}}'.encode()

    def row(self, line: bytes, number: int, before: str) -> Row:
        """The row of a line. Raises ValueError where the line does not prove itself."""
        body = line.rpartition(b',"sha256":"')[0] + b"}"
        if line[len(body) - 1 :] != f',"sha256":"{sha256(body)}"}}'.encode():
            raise ValueError("changed since it was written")
        row: Row = json.loads(body)
        return row


class Log:
    """All rows of one file, oldest first. Raises Tampered naming the first line that was changed.

    Several threads and processes may append; each sees the others' lines when it next catches up.
    """

    def __init__(self, path: Path, scheme: Chain | Hashed) -> None:
        """Reads the file as far as it goes; `scheme` makes a line of a row and proves a line when it is read."""
        self.path, self.scheme = path, scheme
        self.head = START  # hash of the last whole line of a chain
        self.torn = False  # whether something without its end follows that line
        self.end = 0  # bytes read so far: always the end of a whole line
        self._rows: list[Row] = []
        self._count = 0  # lines read so far
        self._seen = hashlib.sha256()  # of a chain's bytes
        # Re-entrant: `extend` and `_repair` catch up while they hold it.
        self._lock = threading.RLock()
        self.catch_up()

    @property
    def rows(self) -> list[Row]:
        return self._rows

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def keep(self, row: Row, place: int) -> None:
        """Take in a row, whose line begins at that byte of the file."""
        self._rows.append(row)

    def catch_up(self) -> None:
        """Read the whole lines that were written since the last look, by whomever. Raises Tampered."""
        with self._lock, self._unread() as file:
            self.torn = False
            # Line by line: a file may be larger than memory, and not every log keeps all of its rows.
            for line in file:
                if not line.endswith(b"\n"):
                    self.torn = True
                    break
                self.keep(self._row(line, self._count + 1), self.end)
                self._count += 1
                self.end += len(line)
                if self.scheme.chained:
                    self.head = sha256(line[:-1])
                    self._seen.update(line)

    def _row(self, line: bytes, number: int) -> Row:
        """The row of a whole line. Raises Tampered."""
        try:
            return self.scheme.row(line[:-1], number, self.head)
        except ValueError as error:
            why = CRLF if line.endswith(b"\r\n") else error
            raise Tampered(f"{self.path}:{number}: {why}") from error

    def extend(self, rows: Iterable[Row]) -> None:
        """Add rows; on return they are on disk. Raises OSError, Tampered, ValueError on what JSON does not have."""
        import fcntl

        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Unbuffered: one write is one call of the system, which says how much of it was taken.
        with self._lock, open(self.path, "ab+", buffering=0) as out:
            fcntl.flock(out, fcntl.LOCK_EX)  # it dies with the process
            # Others may have written since the last look: the chain goes on from the newest line, not from ours.
            self.catch_up()
            self._repair(out)
            first, lines, before = not self.end, [], self.head
            for number, row in enumerate(rows, self._count + 1):
                lines.append(self.scheme.line(row, number, before) + b"\n")
                before = sha256(lines[-1][:-1])
            data = b"".join(lines)
            # A full disk takes a part. What is torn of it counts for nothing, and the next append repairs it.
            if out.write(data) != len(data):
                raise OSError(f"{self.path}: the disk took only part of what was written")
            os.fsync(out.fileno())
            # A new file is only as durable as its folder's entry for it.
            if first:
                sync_folder(self.path.parent)
            # Read back like lines of anybody: what is in memory is what the disk holds.
            self.catch_up()

    def _unread(self) -> IO[bytes]:
        """The file behind the last whole line. Raises Tampered where the lines before it are not as they were."""
        file: IO[bytes] = open(self.path, "rb") if self.path.exists() else io.BytesIO()
        try:
            missing = self.end - file.seek(0, os.SEEK_END)
            if missing > 0:
                raise Tampered(f"{self.path}: {missing} bytes shorter than a moment ago")
            # Lines that vouch for themselves are checked once; those of a chain may be changed while this process runs.
            if self.scheme.chained:
                file.seek(0)
                if sha256(file.read(self.end)) != self._seen.hexdigest():
                    raise Tampered(f"{self.path}: changed since it was read a moment ago")
            file.seek(self.end)
        except BaseException:
            file.close()
            raise
        return file

    def _repair(self, out: IO[bytes]) -> None:
        """With the lock held: finish a last line that lacks only its end, cut off one that lacks more.

        Of a chain even that one goes: whoever decided since then has decided without it.
        """
        if not self.torn:
            return
        with self._unread() as file:
            rest = file.read()
        try:
            self.scheme.row(rest, 0, "")  # no line of a chain is number 0
        except ValueError:
            out.truncate(self.end)
        else:
            out.write(b"\n")
        self.catch_up()


def now() -> str:
    """The time as rows hold it."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
