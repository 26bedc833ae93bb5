"""What a fault is done to, and what must be true of it afterwards.

Knows a small folder of sealed runs with paid replies and events, and how to compare two states of it. A fault answers
with a list of `Wrong`, empty where every promise was kept.
"""

import shutil
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from lib.claude.store import NAME, Store
from lib.files import OneLine
from lib.lab.execute import prepare
from lib.loop.events import Events
from lib.runs.ledger import Ledger
from lib.runs.seal import LEDGER, SEAL, sealed_folders
from lib.runs.verify import verify
from tests.lab.conftest import seal_run

LOST, TORN, TWICE, UNCLEAR = "lost", "torn", "twice", "unclear"
NOTEBOOK = '{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}'  # of a run: a page can be made of it
LOGS = (LEDGER, "events.jsonl", NAME)


class Wrong(NamedTuple):
    """One broken promise."""

    what: str  # lost, torn, twice, unclear
    text: str


def reply(key, dollars=0.01):
    return {"type": "reply", "key": key, "fingerprint": "f", "replicate": 0, "text": f"reply {key}", "dollars": dollars,
            "batch": "", "value": {"reason": "so"}}  # fmt: skip


def build(folder):
    """A folder of three sealed runs, four events and five paid replies, one of them in a batch. Returns it."""
    seal_run(folder, slug="baseline", text=NOTEBOOK)
    seal_run(folder, {f"case-{i:02d}": 0.3 + 0.02 * i for i in range(12)}, slug="better", text=NOTEBOOK)
    seal_run(folder, slug="again", seed=1, text=NOTEBOOK)
    events = Events(folder)
    for number in range(4):
        events.append("word", said=f"word {number}")
    store = Store(folder / NAME)
    for key in "abcd":
        store.append(reply(key))
    store.append({"type": "batch", "batch": "b1", "calls": ["e"], "worst": 0.5})
    store.append(reply("e"), {"type": "batch ended", "batch": "b1"})
    return folder


def seal_next(folder, **changes):
    """Seal one more run as `notch run` does: the folder is made ready first. Returns its id."""
    prepare(folder)
    return seal_run(folder, text=NOTEBOOK, **changes)


def copy(ground, to):
    """A fresh copy of the ground at `to`, whatever a fault had left there."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(ground, to)
    return to


def overwrite(path, data):
    path.chmod(0o644)
    path.write_bytes(data)


def sealed_bytes(folder):
    """The bytes of every sealed run, by run and name."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for run in sealed_folders(folder)
        for path in run.rglob("*")
        if path.is_file()
    }


def missing(before, folder):
    """Runs that were sealed before and are not there byte for byte."""
    after = sealed_bytes(folder)
    return [Wrong(LOST, name) for name, data in before.items() if after.get(name) != data]


def unsound(folder):
    """What a folder shows that nothing may do to it: runs without a seal, keys done twice, lines that do not follow."""
    torn = [p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != "." and not (p / SEAL).exists()]
    wrong = [Wrong(TORN, f"{name} without a seal") for name in torn]
    wrong += [Wrong(TORN, text) for text in verify(folder)]
    if wrong:
        return wrong
    records = Ledger.read(folder).records
    keys = Counter(record.key for record in records if record.key and record.status != "crashed")
    wrong += [Wrong(TWICE, f"{key[:12]} sealed {n} times") for key, n in keys.items() if n > 1]
    if len(records) != len(sealed_folders(folder)):
        wrong.append(Wrong(LOST, f"{len(records)} lines for {len(sealed_folders(folder))} sealed runs"))
    return wrong


class Answer:
    """What a call said: nothing, or an error."""

    error: Exception | None = None


@contextmanager
def one_line(wrong, expected=True):
    """Whatever fails inside must say so in one line of an expected error; `expected` that it fails at all."""
    answer = Answer()
    try:
        yield answer
    except (OneLine, OSError) as error:
        answer.error = error
        if "\n" in str(error) or not str(error):
            wrong.append(Wrong(UNCLEAR, f"not one line: {error!r}"))
        if not expected:
            wrong.append(Wrong(UNCLEAR, f"refused: {error}"))
    except Exception as error:
        answer.error = error
        wrong.append(Wrong(UNCLEAR, f"a traceback: {error!r:.200}"))
    else:
        if expected:
            wrong.append(Wrong(UNCLEAR, "no word about it"))


def named(texts, path):
    """A broken promise where no sentence names the file that was harmed."""
    if any(Path(path).name in text for text in texts):
        return []
    return [Wrong(UNCLEAR, f"nothing names {path}: {list(texts)[:2]}")]
