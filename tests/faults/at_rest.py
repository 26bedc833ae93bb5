"""Faults of files that lie there: cut, flipped, half deleted, filled with rubbish, dated in the future.

Each function takes a sealed ground, a place to harm a copy at, a random generator and a count, and yields the broken
promises of one fault after the other. No process is started and nothing waits.
"""

import json
import os

from lib.claude.store import NAME, Store, paid
from lib.files import Tampered
from lib.lab.execute import prepare
from lib.log import Hashed
from lib.loop import events as loop_events
from lib.loop.events import Events
from lib.runs import pending
from lib.runs.ledger import Ledger
from lib.runs.seal import LEDGER, SEAL, rebuilt, sealed_folders
from lib.runs.verify import verify, verify_ledger
from tests.faults.ground import (
    LOGS,
    LOST,
    TORN,
    TWICE,
    UNCLEAR,
    Wrong,
    copy,
    missing,
    named,
    one_line,
    overwrite,
    reply,
    seal_next,
    sealed_bytes,
    unsound,
)
from tests.lab.conftest import record_of


def last_line(path):
    """Where the last line of a log begins and ends."""
    data = path.read_bytes()
    return data.rstrip(b"\n").rfind(b"\n") + 1, len(data)


def ledger_cut(ground, at, rng, count):
    """The ledger cut at every byte of its last line: whatever runs next rebuilds it to the byte."""
    whole = (ground / LEDGER).read_bytes()
    start, end = last_line(ground / LEDGER)
    folder = copy(ground, at)
    for cut in chosen(range(start, end), count, rng):
        wrong = []
        overwrite(folder / LEDGER, whole[:cut])
        if cut > start:  # at its first byte nothing is torn: a line is missing, and `verify` says which
            with one_line(wrong):
                Ledger.read(folder)
        wrong += named(verify_ledger(folder), LEDGER)
        prepare(folder)
        if (folder / LEDGER).read_bytes() != whole:
            wrong.append(Wrong(LOST, f"cut at {cut}: the ledger is not as it was"))
        yield wrong


def events_cut(ground, at, rng, count):
    """The event log cut at every byte of its last line: that event was decided by nobody, the others stay."""
    whole = (ground / "events.jsonl").read_bytes()
    start, end = last_line(ground / "events.jsonl")
    folder = copy(ground, at)
    for cut in chosen(range(start, end), count, rng):
        wrong = []
        overwrite(folder / "events.jsonl", whole[:cut])
        with one_line(wrong, expected=False):
            Events(folder).append("word", said="after")
            said = [event["said"] for event in Events(folder)]
            if said != ["word 0", "word 1", "word 2", "after"]:
                wrong.append(Wrong(LOST, f"cut at {cut}: {said}"))
        wrong += [Wrong(TORN, text) for text in loop_events.verify(folder)]
        yield wrong


def judgments_cut(ground, at, rng, count):
    """The paid replies cut at every byte of their last line: every other one stays, and is counted once."""
    folder = copy(ground, at)
    path = folder / NAME
    Store(path).append(reply("last", dollars=1.0))
    whole = path.read_bytes()
    start, end = last_line(path)
    for cut in chosen(range(start, end), count, rng):
        wrong = []
        overwrite(path, whole[:cut])
        with one_line(wrong, expected=False):
            Store(path).append(reply("new", dollars=2.0))
            store = Store(path)
            kept = [row["key"] for row in store]
            # Only its line end was missing: then the reply is whole, and was paid for.
            expected = ["a", "b", "c", "d", "e", *(["last"] if cut == end - 1 else []), "new"]
            if kept != expected:
                wrong.append(Wrong(LOST, f"cut at {cut}: {kept}"))
            if round(paid(path), 6) != round(sum(row["dollars"] for row in store), 6) or store.pending():
                wrong.append(Wrong(TWICE, f"cut at {cut}: {paid(path)} dollars"))
        yield wrong


def chosen(places, count, rng):
    """All places where count is 0, else so many of them, the two ends among them."""
    if not count or count >= len(places):
        return list(places)
    return sorted({places[0], places[-1], *rng.sample(places, max(count - 2, 0))})


def bit_flipped(ground, at, rng, count):
    """A bit flipped anywhere in the sealed runs, the ledger, the events and the paid replies: named, and never used."""
    files = [p.relative_to(ground) for run in sealed_folders(ground) for p in run.rglob("*") if p.is_file()]
    files += [LEDGER, "events.jsonl", NAME]
    folder = copy(ground, at)
    for _ in range(count):
        name, wrong = rng.choice(files), []
        path = folder / name
        before = path.read_bytes()
        place = rng.randrange(len(before))
        overwrite(path, before[:place] + bytes([before[place] ^ 1 << rng.randrange(8)]) + before[place + 1 :])
        if path.name == NAME:
            harmed(lambda path=path: Store(path), path, before, wrong)
        elif path.name == "events.jsonl":
            harmed(lambda: Events(folder), path, before, wrong)
        else:
            try:
                wrong += named(verify(folder), path)
            except Exception as error:
                wrong.append(Wrong(UNCLEAR, f"verify: {error!r:.200}"))
        overwrite(path, before)
        yield wrong


def harmed(read, path, before, wrong):
    """A log with one byte changed is refused by its line; at its very end it reads as a line that was cut off."""
    try:
        rows = list(read())
    except Tampered as error:
        wrong += named([str(error)], path)
    except Exception as error:
        wrong.append(Wrong(UNCLEAR, f"{path.name}: {error!r:.200}"))
    else:
        if len(rows) >= before.count(b"\n"):
            wrong.append(Wrong(UNCLEAR, f"{path.name}: read as if nothing had happened"))


def half_deleted(ground, at, rng, count):
    """Files of a sealed run deleted: named, the next seal refuses rather than give the number again, and goes on when
    they are back."""
    before = sealed_bytes(ground)
    for _ in range(count):
        folder, wrong = copy(ground, at), []
        run = rng.choice(sealed_folders(folder))
        files = sorted(p for p in run.rglob("*") if p.is_file())
        gone = rng.sample(files, rng.randrange(1, len(files) + 1))
        kept = {path: path.read_bytes() for path in gone}
        for path in gone:
            path.unlink()
        if not verify(folder):
            wrong.append(Wrong(UNCLEAR, f"{[p.name for p in gone]}: verify says nothing"))
        if SEAL in [p.name for p in gone] or "record.json" in [p.name for p in gone]:
            with one_line(wrong):
                seal_next(folder, slug="next", seed=7)
        for path, data in kept.items():
            path.write_bytes(data)
        with one_line(wrong, expected=False):
            seal_next(folder, slug="after", seed=8)
        yield wrong + missing(before, folder) + unsound(folder)


RUBBISH = (
    b"{}", b"null", b"[]", b'"text"', b"\x00" * 40, b"\xff\xfe\x00garbage", b'{"type":"reply"', b"[" * 5000, b"", b" ",
    b'{"n":1,"prev":"","record":{}}', b'{"type":"reply","key":"a","dollars":-1e9}', "{\u2028}".encode(),
    b'{"sha256":"0"}', b"NaN", b'{"n":true}', b"{" * 100_000,
)  # fmt: skip


def rubbish_line(ground, at, rng, count):
    """A line of rubbish anywhere in one of the logs: refused by file and line; nothing is appended behind it."""
    folder = copy(ground, at)
    for _ in range(count):
        name, wrong = rng.choice(LOGS), []
        path = folder / name
        before = path.read_bytes()
        lines = before.splitlines(keepends=True)
        place = rng.randrange(len(lines) + 1)
        line = rng.choice(RUBBISH)
        if rng.random() < 0.3:
            line = rng.randbytes(rng.randrange(1, 200)).replace(b"\n", b"")
        overwrite(path, b"".join([*lines[:place], line + b"\n", *lines[place:]]))
        harm = path.read_bytes()
        with one_line(wrong) as answer:
            if name == LEDGER:
                seal_next(folder, slug="next", seed=7)
            elif name == NAME:
                Store(path).append(reply("new"))
            else:
                Events(folder).append("word", said="new")
        wrong += named([str(answer.error)], path)
        if path.read_bytes() != harm:
            wrong.append(Wrong(LOST, f"{name} was written behind rubbish"))
        overwrite(path, before)
        yield wrong


def hashed_rubbish(ground, at, rng, count):
    """A line of the store that proves itself and is no row of it (another tool's, an older form's): one clear line."""
    odd = ({}, {"type": "batch", "batch": "b", "worst": "much"}, {"type": "reply"}, {"type": 5}, {"type": "batch"}, {"type": "reply", "key": "z", "value": 1},
           {"type": "batch ended"}, {"type": "reply", "key": "z", "dollars": "much", "value": {}},
           {"type": "candidate"}, {"type": "reply", "key": ["z"], "value": {}}, {"type": "news"})  # fmt: skip
    folder = copy(ground, at)
    path = folder / NAME
    before = path.read_bytes()
    for row in list(odd)[: count or None]:
        wrong = []
        overwrite(path, before + Hashed().line(row, 0, "") + b"\n")
        try:
            store = Store(path)
            store.has("f", 0)
            total = paid(path)
        except Tampered as error:
            wrong += named([str(error)], path)
        except Exception as error:
            wrong.append(Wrong(UNCLEAR, f"{row}: {error!r:.200}"))
        else:
            if len(store._places) < 5 or not 0 <= total < 1:
                wrong.append(Wrong(LOST, f"{row}: {total} dollars"))
        overwrite(path, before)
        yield wrong


def file_replaced(ground, at, rng, count):
    """A file of a sealed run replaced by rubbish: named, no traceback, and no run is sealed after it."""
    folder = copy(ground, at)
    for _ in range(count):
        wrong = []
        path = rng.choice([p for run in sealed_folders(folder) for p in run.iterdir()])
        before = path.read_bytes()
        overwrite(path, rng.choice(RUBBISH))
        with one_line(wrong, expected=False):
            wrong += named(verify(folder), path)
        if path.name in (SEAL, "record.json"):  # what a line of the ledger says
            with one_line(wrong):
                seal_next(folder, slug="next", seed=7)
        overwrite(path, before)
        yield wrong + unsound(folder)


def pending_rubbish(ground, at, rng, count):
    """What waits for its judge, cut or filled with rubbish: it is as if nothing waited, and the next call writes it anew."""
    folder = copy(ground, at)
    record = record_of({}).revised(key="k")
    for _ in range(count):
        wrong = []
        pending.keep(folder, record, [])
        path = pending.place(folder, "k") / rng.choice(("record.json", "cases.jsonl"))
        data = path.read_bytes()
        line = rng.choice(RUBBISH)
        path.write_bytes(data[: rng.randrange(len(data) + 1)] if rng.random() < 0.5 else line)
        with one_line(wrong, expected=False):
            pending.read(folder, "k")
            pending.keep(folder, record, [])
            if pending.read(folder, "k") is None:
                wrong.append(Wrong(LOST, "what waits cannot be written anew"))
        yield wrong


def clock_back(ground, at, rng, count):
    """All files dated off by years, or by the hour of a summer time, and lines from a time that has not come yet."""
    before = sealed_bytes(ground)
    hour, year = 3600, 365 * 86400
    for number in range(count):
        folder, wrong = copy(ground, at), []
        shift = rng.choice((hour, -hour, year, -year, 20 * year, rng.randrange(-year, year)))
        for path in folder.rglob("*"):
            about = path.stat()
            os.utime(path, (about.st_atime + shift, max(about.st_mtime + shift, 0)))
        with one_line(wrong, expected=False):
            seal_next(folder, slug="next", seed=number, started="2099-03-28T02:30:00+01:00")
            seal_next(folder, slug="earlier", seed=number + 1000, started="1999-10-31T02:30:00+01:00")
            log = Events(folder)
            log.extend([{"at": "2099-01-01T00:00:00+00:00", "kind": "word", "said": "later"}])
            log.append("word", said="now")
            if [event["said"] for event in Events(folder)][-2:] != ["later", "now"]:
                wrong.append(Wrong(LOST, "events out of order"))
            Store(folder / NAME).append(reply("new"))
            if len(list(Store(folder / NAME))) != 6:
                wrong.append(Wrong(LOST, "a paid reply"))
        yield wrong + missing(before, folder) + unsound(folder)


def rebuilt_from_runs(ground, at, rng, count):
    """The ledger deleted, emptied or replaced by rubbish: rebuilt from the runs, or refused, never begun anew."""
    before, whole = sealed_bytes(ground), (ground / LEDGER).read_bytes()
    for number in range(count):
        folder, wrong = copy(ground, at), []
        path = folder / LEDGER
        way = number % 3
        if way == 0:
            path.unlink()
        elif way == 1:
            overwrite(path, b"")
        else:
            overwrite(path, rng.randbytes(500) + b"\n")
        with one_line(wrong, expected=way == 2):
            seal_next(folder, slug="next", seed=7)
            if not path.read_bytes().startswith(whole):
                wrong.append(Wrong(LOST, "the ledger is not as it was"))
        if way == 2:
            path.unlink()
            with one_line(wrong, expected=False):
                seal_next(folder, slug="next", seed=7)
        if [json.loads(line)["id"] for line in rebuilt(folder)] != [p.name for p in sealed_folders(folder)]:
            wrong.append(Wrong(LOST, "the ledger lists other runs"))
        yield wrong + missing(before, folder) + unsound(folder)
