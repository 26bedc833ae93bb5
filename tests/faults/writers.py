"""Faults under a writer: a child that seals, pays and logs is killed, meets a full disk or a folder it may not write.

The child says of every row that it is on disk; what it said must be there afterwards, once. It is forked from this
process, which must have no threads: run it through `python -m tests.faults`.
"""

import os
import resource
import signal
import subprocess
import time
from collections import Counter

from lib.claude.store import NAME, Store
from lib.files import OneLine
from lib.lab.execute import prepare
from lib.loop import events as loop_events
from lib.loop.events import Events
from lib.report import site
from lib.runs import pending
from lib.runs.ledger import Ledger
from lib.runs.seal import sealed_folders
from tests.faults.ground import (
    LOST,
    TORN,
    TWICE,
    UNCLEAR,
    Wrong,
    copy,
    missing,
    reply,
    seal_next,
    sealed_bytes,
    unsound,
)
from tests.lab.conftest import record_of

NOBODY = 65534
PAGE = 4096  # bytes of the least thing that a disk in memory can hold


def fork(work):
    """Run `work(say)` in a child; returns its process id and the pipe that it says things into."""
    hear, tell = os.pipe()
    child = os.fork()
    if child:
        os.close(tell)
        return child, hear
    code = 1
    try:
        os.close(hear)
        work(lambda text: os.write(tell, f"{text}\n".encode()))
        code = 0
    except (OneLine, OSError) as error:
        text = str(error)
        os.write(tell, ("unclear not one line\n" if "\n" in text or not text else f"error {text}\n").encode())
    except BaseException as error:
        os.write(tell, f"unclear {error!r:.200}\n".encode())
    finally:
        os._exit(code)


def finish(child, hear):
    """Wait for a child; returns what it said, line by line, each as (word, rest)."""
    with os.fdopen(hear, "rb") as pipe:
        text = pipe.read().decode()
    os.waitpid(child, 0)
    return [line.partition(" ")[::2] for line in text.splitlines()]


def write_rows(folder, first, count=40):
    """Work for a child: runs, paid replies and events in turn, each said once it is on disk."""

    def work(say):
        for number in range(first, first + count):
            say(f"sealed {seal_next(folder, slug=f'run-{number}', seed=number, key=f'key-{number}')}")
            Store(folder / NAME).append(reply(f"k{number}"))
            say(f"paid k{number}")
            Events(folder).append("word", said=f"w{number}")
            say(f"logged w{number}")

    return work


def promised(folder, lines):
    """What was said to be on disk and is not, or is there twice."""
    runs = Counter(record.slug for record in Ledger.read(folder).records)
    paid = Counter(row["key"] for row in Store(folder / NAME))
    logged = Counter(event["said"] for event in Events(folder))
    there = {"sealed": Counter(p.name for p in sealed_folders(folder)), "paid": paid, "logged": logged}
    wrong = [Wrong(LOST, f"{word} {name}") for word, name in lines if word in there and not there[word][name]]
    wrong += [Wrong(TWICE, f"{name}") for known in (runs, paid, logged) for name, n in known.items() if n > 1]
    wrong += [Wrong(UNCLEAR, rest) for word, rest in lines if word == "unclear"]
    return wrong


def after(folder, before, lines, number):
    """The next call works, finds what was there, and what the child had said is there once."""
    wrong = finish(*fork(write_rows(folder, number, 1)))
    wrong = [Wrong(UNCLEAR, f"the next call: {word} {rest}") for word, rest in wrong if word in ("error", "unclear")]
    wrong += promised(folder, lines) + missing(before, folder) + unsound(folder)
    return wrong + [Wrong(TORN, text) for text in loop_events.verify(folder)]


def killed_writer(ground, at, rng, count):
    """A writer killed at a random moment."""
    before = sealed_bytes(ground)
    for _ in range(count):
        folder = copy(ground, at)
        child, hear = fork(write_rows(folder, 100))
        time.sleep(rng.uniform(0.002, 0.4))
        os.kill(child, signal.SIGKILL)
        yield after(folder, before, finish(child, hear), 900)


def full_disk(ground, at, rng, count):
    """A limit on the size of a file, which stops a write in its middle as a full disk does; later there is room."""
    before = sealed_bytes(ground)
    largest = max(p.stat().st_size for p in ground.rglob("*") if p.is_file())
    for _ in range(count):
        folder, limit = copy(ground, at), rng.randrange(1, 2 * largest)
        work = write_rows(folder, 100, 8)

        def limited(say, work=work, limit=limit):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            work(say)

        lines = finish(*fork(limited))
        wrong = [] if any(word == "error" for word, _ in lines) else [Wrong(UNCLEAR, f"{limit}: no word")]
        yield wrong + after(folder, before, lines, 900)


def full_memory_disk(ground, at, rng, count):
    """A real disk, of memory, with room for a few pages more; later it has room again. Needs the right to mount."""
    before = sealed_bytes(ground)
    at.mkdir(parents=True, exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(at)], capture_output=True).returncode:
        return
    try:
        for number in range(count):
            subprocess.run(["mount", "-o", "remount,size=8m", str(at)], check=True)
            folder = copy(ground, at / "runs")
            about = os.statvfs(at)
            used = (about.f_blocks - about.f_bfree) * about.f_frsize
            size = used + PAGE * (number % 40)
            subprocess.run(["mount", "-o", f"remount,size={size}", str(at)], check=True)
            lines = finish(*fork(write_rows(folder, 100, 40)))
            subprocess.run(["mount", "-o", "remount,size=8m", str(at)], check=True)
            wrong = [] if any(word == "error" for word, _ in lines) else [Wrong(UNCLEAR, f"{size}: no word")]
            yield wrong + after(folder, before, lines, 900)
    finally:
        subprocess.run(["umount", str(at)], check=True)


def read_only(ground, at, rng, count):
    """A folder that may be read and not written: each kind of write says so, nothing is changed, reading works."""
    before = {p: p.read_bytes() for p in ground.rglob("*") if p.is_file()}
    record = record_of({}).revised(key="k")
    writes = {
        "prepare": lambda folder: prepare(folder),
        "seal": lambda folder: seal_next(folder, slug="next", seed=9),
        "new folder": lambda folder: prepare(folder / "deeper" / "runs"),
        "pay": lambda folder: Store(folder / NAME).append(reply("new")),
        "log": lambda folder: Events(folder).append("word", said="new"),
        "wait": lambda folder: pending.keep(folder, record, []),
        "report": lambda folder: site.write(folder),
    }
    folder = copy(ground, at)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    for name in list(writes)[: count or None]:

        def work(say, write=writes[name]):
            if os.getuid() == 0:  # whom no mode of a file stops
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            say(f"read {len(Ledger.read(folder).records)}")
            write(folder)

        lines = finish(*fork(work))
        wrong = [Wrong(UNCLEAR, rest) for word, rest in lines if word == "unclear"]
        if [word for word, _ in lines] != ["read", "error"]:
            wrong.append(Wrong(UNCLEAR, f"{name}: {lines}"))
        if {ground / p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()} != before:
            wrong.append(Wrong(LOST, f"{name} changed what may only be read"))
        yield wrong
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)


def writers_at_once(ground, at, rng, count):
    """Three writers on one folder, one of them killed: every row once, in one chain."""
    before = sealed_bytes(ground)
    for _ in range(count):
        folder = copy(ground, at)
        children = [fork(write_rows(folder, first, 6)) for first in (100, 200, 300)]
        time.sleep(rng.uniform(0.01, 0.6))
        os.kill(children[0][0], signal.SIGKILL)
        lines = [line for child in children for line in finish(*child)]
        wrong = [Wrong(UNCLEAR, rest) for word, rest in lines if word == "error"]
        if sum(word == "sealed" for word, _ in lines) < 12:
            wrong.append(Wrong(LOST, "a writer ended early"))
        yield wrong + after(folder, before, lines, 900)
