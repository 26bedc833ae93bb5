"""Sealing a run: all of its files at once and once, then its line in the ledger.

A run is read only when its SEALED is complete; `ledger.jsonl` has a line a run, each with the hash of the line before,
and can always be rebuilt from the folders. Knows bytes, names and the order of numbers. Does not know what a record
means, nor how a run was made.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from lib.files import Tampered, locked, rows, sha256, sha256_file, sums, sync_folder, write_new
from lib.log import START, Chain, Log
from lib.runs.record import CaseRow, Json, Record, record_of

SEAL = "SEALED"
LEDGER = "ledger.jsonl"
LINES = Chain("record")


def checked_lines(path: Path) -> list[Json]:
    """The ledger's rows after a check of the hash chain. Raises Tampered naming the first bad line."""
    log = Log(path, LINES)
    # Not as in other logs: a torn line has its sealed run, and read without it an older champion would be the last.
    if log.torn:
        raise Tampered(f"{path}: the last line is cut off; `notch verify --repair` rebuilds it from the sealed runs")
    return log.rows


def sealed_folders(folder: Path) -> list[Path]:
    """The complete runs of a folder, in the order of their numbers."""
    found = (p.parent for p in folder.glob("[0-9]*-*/" + SEAL))
    return sorted((p for p in found if number_of(p) is not None), key=lambda p: (number_of(p), p.name))


def read_record(run: Path) -> Record:
    """The record of a sealed run. Raises OSError, BadRecord, ValueError."""
    return record_of(json.loads((run / "record.json").read_bytes()))


def read_cases(run: Path) -> list[CaseRow]:
    """The rows of a sealed run's cases. Raises OSError, BadRecord, ValueError."""
    text = (run / "cases.jsonl").read_text(encoding="utf-8")
    return [CaseRow.read(json.loads(line)) for line in rows(text)]


def number_of(run: Path) -> int | None:
    """The number of a run's folder, or None where the name is not one that notch gives."""
    match = re.fullmatch(r"(\d{4,})-.+", run.name)
    return int(match[1]) if match else None


def rebuilt(folder: Path) -> list[bytes]:
    """The ledger's lines as the sealed folders say they must be. Raises Tampered on a broken record."""
    lines: list[bytes] = []
    before = START
    for number, run in enumerate(sealed_folders(folder), 1):
        path = run / "record.json"
        try:
            # As it lies there and not as the type reads it: later code may know a field more, and lines must not change.
            # As it lies there, not as the type reads it: to later code a field may be known that no line has.
            record = json.loads(path.read_bytes())
            line = LINES.line({"id": run.name, "seal": sha256_file(run / SEAL), "record": record}, number, before)
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise Tampered(f"{path}: cannot be read as a record ({error})") from error
        lines.append(line)
        before = sha256(line)
    return lines


def sync(folder: Path) -> list[str]:
    """Bring the ledger up to the sealed runs after an interruption, and clear what was left half done.

    Adds missing last lines and completes a torn one; returns what was done, in words. Raises Tampered where lines
    and folders contradict each other. Call it with the lock held.
    """
    done = []
    # With the lock held nobody is still at work on one of them.
    for leftover in folder.glob(".tmp-*"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        done.append(f"cleared {leftover.name}, left by an interrupted run")
    path = folder / LEDGER
    want = rebuilt(folder)
    *have, torn = (path.read_bytes() if path.exists() else b"").split(b"\n")
    # Lines that are there must be what the folders say; only then may those that are missing be added.
    if have != want[: len(have)]:
        number = next((i for i, (a, b) in enumerate(zip(have, want, strict=False)) if a != b), len(want)) + 1
        raise Tampered(f"{path}:{number}: differs from the sealed run; nothing was written")
    missing = [json.loads(line) for line in want[len(have) :]]
    if torn or missing:
        Log(path, LINES).extend(missing)
    if torn:
        done.append("cut off a torn last line of the ledger")
    return done + [f"added {row['id']} to the ledger" for row in missing]


def seal(folder: Path, slug: str, files: dict[str, bytes], finish: Callable[[str], dict[str, bytes]]) -> str:
    """Seal a run: all files and SEALED appear at once, under the next number; then its ledger line. Returns the id.

    `finish(id)` gives the files that need to know the id. Raises OSError (disk full: nothing stays).
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock"):
        sync(folder)
        # The lock is held until the folder has its name, so no other process takes the same number.
        # By their count: a gap would be a run that was taken out, which `sync` has just refused.
        number = len(sealed_folders(folder)) + 1
        run = f"{number:04d}-{slug}"
        temp = folder / f".tmp-{run}"
        # Beside its place, not in /tmp: a rename is atomic only within one file system.
        temp.mkdir()
        try:
            for name, data in {**files, **finish(run)}.items():
                (temp / name).parent.mkdir(parents=True, exist_ok=True)
                write_new(temp / name, data)
            names = [p.relative_to(temp).as_posix() for p in temp.rglob("*") if p.is_file()]
            # Last of all: a folder without it is no run, so a kill before this line leaves none.
            write_new(temp / SEAL, sums(temp, names))
            # The names too, before and after: a file's bytes may be on disk while its folder does not list it yet.
            sync_folder(temp)
            os.rename(temp, folder / run)
            sync_folder(folder)
        # Also where a person stops it: the number is free again for the next run.
        except BaseException:
            shutil.rmtree(temp, ignore_errors=True)
            raise
        sync(folder)
    return run
