"""What waits to be finished: answers and judgments of a run whose judge failed on some case.

Such a run is not sealed: its answers are paid for and its judge is yet to come back. They lie beside the sealed runs in
`.pending/KEY`, in files as a sealed run has them, until a later call with the same key judges what is missing. Knows
files. Does not know why a judgment is missing, nor what finishes it.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lib.files import canonical, write_atomic
from lib.runs.record import CaseRow, Record
from lib.runs.seal import read_cases, read_record

FOLDER = ".pending"


def place(runs: Path, key: str) -> Path:
    """Where the run of this key waits."""
    return runs / FOLDER / key


def keep(runs: Path, record: Record, cases: Sequence[CaseRow]) -> None:
    """Write what is there so far, over what was there before."""
    folder = place(runs, record.key)
    folder.mkdir(parents=True, exist_ok=True)
    # The record last: a first write that is cut off leaves nothing that `read` takes for a run.
    write_atomic(folder / "cases.jsonl", "".join(f"{canonical(row.as_dict())}\n" for row in cases))
    write_atomic(folder / "record.json", json.dumps(record.as_dict(), indent=1, sort_keys=True, ensure_ascii=False))


def read(runs: Path, key: str) -> tuple[Record, list[CaseRow]] | None:
    """What waits under a key, None where nothing does or where a kill left only a part of it."""
    folder = place(runs, key)
    try:
        return read_record(folder), read_cases(folder)
    except (OSError, ValueError, RecursionError):  # the last of brackets without end
        return None


def clear(runs: Path, key: str) -> None:
    """Forget what waited: it is sealed."""
    shutil.rmtree(place(runs, key), ignore_errors=True)


def reasons(cases: Sequence[CaseRow]) -> list[tuple[str, int]]:
    """Why cases are unscored, the most frequent reason first, each with its number of cases."""
    return Counter(row.unscored for row in cases if row.unscored is not None).most_common()
