"""How processor seconds and memory grow: `python -m tests.bench_scale [RUNS] [NAMES]`. Prints a line each, asserts nothing on speed.

RUNS (1,000) is the larger size of a folder of runs; a ruler has a tenth as many cases, a store of judgments a hundred
times as many lines; the smaller size of each is a quarter. The exponent says how seconds grow: 1 is linear. Every figure
is of a process of its own, whose start and imports are not in the seconds; peak memory is that of the process or of a
kernel of it, whichever held more. The folders are the project's study, sealed again and again under new numbers, seeds
and hypotheses, with a few bytes for each adapter's weights. 10,000 runs take some gigabytes where temporary files lie.
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import tempfile
from functools import partial
from math import log
from pathlib import Path
from random import Random

from lib.files import NOTEBOOKS, ROOT, sha256, sums
from lib.log import START, Chain
from lib.runs.seal import SEAL, sealed_folders, sync

NAMED = re.compile(r"(\d{4,}-[a-z0-9-]+)")  # what may be the id of a run
EVENTS = Chain("kind")
UNIT = 2**20 if sys.platform == "darwin" else 2**10  # of ru_maxrss in a megabyte
LOOKED_UP = 2_000  # replies

# --- what is measured on --------------------------------------------------------------------------


def make_runs(folder, count):
    """A folder of so many sealed runs with its ledger and its events."""
    study = sealed_folders(ROOT / "runs")
    ids = [run.name for run in study]
    texts = {run.name: dict(_files(run)) for run in study[:count]}
    events = (ROOT / "runs" / "events.jsonl").read_bytes().splitlines()
    head, lines = START, []
    folder.mkdir(parents=True)
    for at in range(0, count, len(ids)):
        names = {run: f"{at + n:04d}-{run.partition('-')[2]}" for n, run in enumerate(ids, 1)}
        heads = {START: head}  # of the study's events, where they stand here
        for old in events:
            row = json.loads(_renamed(NAMED.split(old.decode()), names))
            del row["n"], row["prev"]
            lines.append(EVENTS.line(row, len(lines) + 1, head))
            heads[sha256(old)] = head = sha256(lines[-1])
        for run in ids[: count - at]:
            _seal(folder / names[run], texts[run], names, heads, at)
    (folder / "events.jsonl").write_bytes(b"\n".join([*lines, b""]))
    sync(folder)


def _files(run):
    """The files of a run by name, cut where the id of a run may stand."""
    for path in run.rglob("*"):
        name = path.relative_to(run).as_posix()
        if path.suffix in (".safetensors", ".xz"):
            yield name, ["weights"]
        elif path.is_file() and name != SEAL:
            yield name, NAMED.split(path.read_text(encoding="utf-8"))


def _renamed(parts, names):
    return "".join(names.get(part, part) for part in parts)


def _seal(run, files, names, heads, at):
    """One run again: another number, seed and hypothesis, so that no two runs of the folder are the same attempt."""
    for name, parts in files.items():
        text = _renamed(parts, names)
        if name == "record.json":
            record = json.loads(text)
            record |= {"seed": record["seed"] + at, "key": sha256(f"{record['key']} {at}")[:32]}
            text = json.dumps(record | {"hypothesis": f"{record['hypothesis']} ({at})"}, indent=1, sort_keys=True)
        if name == "proposal.json":
            text = json.dumps(json.loads(text) | {"events": heads[json.loads(text)["events"]]}, indent=1)
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(text, encoding="utf-8")
    (run / SEAL).write_text(sums(run, list(files)), encoding="utf-8")


def make_ruler(folder, count):
    """A frozen ruler of so many cases, eight in ten of them on the full gate."""
    from lib.measure.ruler import freeze
    from tests.conftest import write_ruler

    verbs = "build mend sell paint move clean insure measure lend store".split()
    things = "kite boat attic fence piano oven ladder saddle loom sledge".split()
    places = "north south harbour village island valley border forest market station".split()
    gates = ["full"] * 8 + ["dev", "confirm"]
    cases = []
    for n in range(count):
        task = f"{verbs[n % 10]} the {things[n // 10 % 10]} of the {places[n // 100 % 10]} {n // 1000 or ''}".strip()
        cases.append((f"case-{n:04d}", gates[n % 10], "home", task))
    freeze(write_ruler(folder, cases))


def make_store(path, count):
    """A store of so many replies to three calls a case, as the judge by Claude has them."""
    from lib.claude.store import REPLY, Line

    line, chance = Line(), Random(0)
    calls = (("rubric", "none"), ("pairwise", "gold_first"), ("pairwise", "candidate_first"))
    with open(path, "wb") as out:
        for n in range(count):
            kind, order = calls[n % 3]
            value = {
                "reason": f"Question {n % 7 + 1} repeats what question 2 asks; the budget is never asked for. " * 2
            }
            value |= (
                {"coverage": chance.randint(1, 5), "atomicity": 4, "naturalness": 5}
                if kind == "rubric"
                else {"verdict": "A"}
            )
            usage = {
                "input_tokens": 1200,
                "output_tokens": 180,
                "cache_read_input_tokens": 900,
                "service_tier": "standard",
            }
            row = {"type": REPLY, "key": _key(n), "batch": "", "fingerprint": sha256("ruler"), "case": f"case-{n % 1000:04d}",
                   "kind": kind, "order": order, "replicate": 0, "attempt": 0, "text": json.dumps(value), "model": "claude-sonnet",
                   "message_id": f"msg_{n:024d}", "request_id": f"req_{n:024d}", "stop_reason": "end_turn", "usage": usage,
                   "dollars": 0.0042, "at": "2026-11-26T09:19:33+00:00", "value": value}  # fmt: skip
            out.write(line.line(row, 0, "") + b"\n")


def _key(n):
    return sha256(f"key {n}")


# --- what is measured: each imports what it needs and returns the work ----------------------------


def read_ledger(folder):
    from lib.runs.ledger import Ledger

    return lambda: Ledger.read(folder).frame()


def verify(folder):
    from lib.cli.runs import verify

    def work():
        assert verify.callback(folder, False, False, True) == 0

    return work


def report(name, folder):
    from lib.files import write_atomic
    from lib.lab.execute import render
    from lib.report.site import notebook_path, page, page_path

    def work():
        out, target = notebook_path(folder, name), page_path(folder, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        render(NOTEBOOKS / out.name, out, folder)
        write_atomic(target, page(out, []))

    return work


def site(folder):
    from lib.report.site import INDEXES, write_site

    html = folder.parent / "site"
    html.mkdir()
    return partial(write_site, folder, html, [*INDEXES])


def load_ruler(folder):
    from lib.measure.ruler import GATES, Ruler

    def work():
        ruler = Ruler.load()
        assert sum(len(ruler.gate(name)) for name in GATES) == len(ruler.cases)

    return work


def experiment(folder):
    from lib.lab import execute

    return partial(execute.run, "10_experiment", {"model": "toy", "hypothesis": "bench"}, "bench", folder)


def look_up(path):
    from lib.claude.store import Store

    def work():
        store = Store(path)
        count = len(list(store))
        for n in range(0, count, max(1, count // LOOKED_UP)):
            assert store.reply(_key(n)) and not store.reply(_key(-1 - n))

    return work


def verify_store(path):
    from lib.claude import store

    def work():
        assert store.verify(path) == []

    return work


# --- measuring -------------------------------------------------------------------------------------

MAKE = {"runs": make_runs, "ruler": make_ruler, "store": make_store}
# By name: what it is measured on, what is said of it, the work. Beside each the processor seconds, exponent and megabytes
# of 10,000 runs (a ruler of 1,000 cases, a store of 1,000,000 lines) on one of two idle cores, 26 November 2026. The
# folder of runs was 1.3 GB, its site 1.3 GB.
WORK = {
    "ledger": ("runs", "ledger read, as a table", read_ledger),  # 2.8 s, 1.06, 336 MB
    "verify": ("runs", "verify, nothing kept from before", verify),  # 82 s, 0.94, 380 MB
    "verify-again": ("runs", "verify again", verify),  # 4.9 s, 0.99, 380 MB
    "20_report": ("runs", "report: 20_report, run and rendered", partial(report, "20_report")),  # 122 s, 0.91, 966 MB
    "21_runs": ("runs", "report: 21_runs, run and rendered", partial(report, "21_runs")),  # 66 s, 1.07, 873 MB
    "site": ("runs", "site: a page a run, the table, the comparison", site),  # 542 s, 1.07, 853 MB
    "ruler": ("ruler", "ruler loaded, every gate", load_ruler),  # 0.03 s, 0.84, 49 MB
    "experiment": ("ruler", "toy experiment on the full gate, sealed", experiment),  # 82 s, 0.73, 530 MB
    "store": ("store", "judgments.jsonl read, 2,000 replies looked up", look_up),  # 7.4 s, 0.93, 227 MB
    "store-verify": ("store", "judgments.jsonl verified", verify_store),  # 7.6 s, 1.01, 227 MB
}
PART = {"runs": 1, "ruler": 1 / 10, "store": 100}  # of RUNS


def child(what, *arguments, **environment):
    """Processor seconds of a piece of work and the most megabytes of memory that its process, or a kernel of it, held."""
    command = [sys.executable, "-m", "tests.bench_scale", "--child", what, *map(str, arguments)]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE, text=True)
    out = process.stdout.read()
    process.stdout.close()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{what} of {arguments[0]} ended with {process.returncode}: {out[-500:]}")
    return float(out.split()[-1]), used.ru_maxrss / UNIT


def work(what, path, count=""):
    """What a child does."""
    if count:
        done = partial(MAKE[what], path, int(count))
    else:
        done = WORK[what][2](path)
    began = seconds()
    done()
    print(f"\n{seconds() - began:.4f}")


def seconds():
    """Processor time of this process and of those that it waited for: what others do here does not count."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def measured(most, names, temp):
    """A line for each of the names: both sizes, seconds at each, the exponent, megabytes at the larger one."""
    made = {}
    for name in names:
        on, said, _ = WORK[name]
        sizes = [max(1, int(most * PART[on] * part)) for part in (1 / 4, 1)]
        found = []
        for size in sizes:
            path = temp / f"{on}-{size}" / on
            if path not in made:
                path.parent.mkdir()
                made[path] = child(on, path, size)
            # Scores that verify keeps belong to these folders alone; everything else needs the weights of the real cache.
            own = {"NOTCH_CACHE": str(path.parent / "cache")} if name.startswith("verify") else {}
            if on == "ruler":
                own["NOTCH_RULER"] = str(path)
            found.append(child(name, path.parent / "own-runs" if name == "experiment" else path, **own))
        (small, _), (large, memory) = found
        yield said, sizes, small, large, log(large / small) / log(sizes[1] / sizes[0]), memory


def main(most=1_000, names=tuple(WORK)):
    with tempfile.TemporaryDirectory(prefix="notch-") as folder:
        print(f"{'what':48} {'size':>10} {'cpu s':>8} {'size':>10} {'cpu s':>8} {'exponent':>8} {'peak MB':>8}")
        for said, (few, many), small, large, exponent, memory in measured(most, names, Path(folder)):
            print(f"{said:48} {few:10,} {small:8.3f} {many:10,} {large:8.3f} {exponent:8.2f} {memory:8.0f}", flush=True)
        for path in sorted(p for p in Path(folder).glob("*/*") if p.name in (*MAKE, "site")):
            size = sum(p.stat().st_size for p in (path, *path.rglob("*")) if p.is_file())
            print(f"{path.relative_to(folder)}: {size / 1e6:.0f} MB")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        work(sys.argv[2], Path(sys.argv[3]), *sys.argv[4:])
    else:
        numbers = [int(a) for a in sys.argv[1:] if a.isdecimal()]
        main(*numbers[:1] or [1_000], [a for a in sys.argv[1:] if not a.isdecimal()] or [*WORK])
