"""Two one-thread workers in folders of their own beside one machine: the same rows to the digit, and how long each took.

    python -m tests.lab.cluster [--rows 30] [--plan reference] [--model toy] [--keep DIR]

Runs the first rows of a plan on one worker, on two, and on two of which one is killed -9 in the middle, each time through
a Dask scheduler on this machine. Rows that need another row, look at the sealed gate, compare models or read an adapter
of this checkout are left out, and so are those that the model cannot do. Prints how many rows are equal, and the seconds; exits 1 where one differs. Knows how to
start and end the processes; does not show what two kinds of machines do.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from itertools import islice
from pathlib import Path

import pytest

from lib.agent.pipeline import BadPipeline
from lib.files import ROOT, canonical
from lib.forms import read_yaml
from lib.lab import execute, study
from lib.lab.base import BadParameters
from lib.runs.ledger import Ledger
from lib.runs.verify import verify
from tests.children import kernels

HERE = importlib.util.find_spec("distributed") is not None
CLUSTER = pytest.mark.skipif(not HERE, reason="distributed is not installed: pip install -e '.[cluster]'")


def sealed(folder):
    """What must be the same wherever it was executed."""
    assert verify(folder) == []
    ledger = Ledger.read(folder)
    return [(r.id, r.key, r.status, r.scores, r.decision, ledger.cases(r.id)) for r in ledger.records]


def copy(folder, source=ROOT):
    """The project as another machine has it: code, templates, ruler."""
    for name in ("lib", "ruler"):
        shutil.copytree(source / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "notebooks").mkdir()
    for path in (source / "notebooks").glob("1*.ipynb"):
        shutil.copy(path, folder / "notebooks")
    return folder


class Machines:
    """A scheduler and workers as processes, each worker in a folder of its own."""

    def __init__(self, folder):
        self.folder, self.file, self.started = folder, folder / "scheduler.json", []

    def start(self, module, where, *options):
        env = os.environ | {"PYTHONPATH": str(where)}
        command = [
            sys.executable,
            "-m",
            f"distributed.cli.{module}",
            "--scheduler-file",
            str(self.file),
            "--no-dashboard",
        ]
        child = subprocess.Popen(
            [*command, *options], cwd=where, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.started.append(child)
        return child

    def scheduler(self):
        self.start("dask_scheduler", ROOT, "--host", "127.0.0.1", "--port", "0")
        ends = time.monotonic() + 300
        while not (self.file.exists() and self.file.read_text().strip().endswith("}")):
            assert time.monotonic() < ends, "the scheduler did not start"
            time.sleep(0.1)
        from json import loads

        return loads(self.file.read_text())["address"]

    def worker(self, where):
        local = ["--local-directory", str(self.folder / "dask"), "--host", "127.0.0.1"]
        return self.start("dask_worker", where, "--nthreads", "1", "--no-nanny", *local)

    def wait_for(self, address, count, timeout=300):
        from distributed import Client

        with Client(address, timeout=timeout, set_as_default=False) as client:
            client.wait_for_workers(count, timeout=timeout)

    def end(self):
        for child in self.started:
            child.kill()
            child.wait()


# --- the program


def rows_of(plan, count, model):
    """The first rows of a plan that stand alone, as a plan; on another model if one is named."""
    file = study.PLANS / f"{plan}.yaml"
    raw = read_yaml(file.read_text(encoding="utf-8"), str(file), BadParameters)
    own = {"model": model} if model else {}

    def alone(row):
        text = canonical(row)
        return not row.keys() & {"confirm", "models", "train", "rejudge"} and not any(
            word in text for word in ('"run":', '"adapter"', '"of":', '"model":')
        )

    def runs(row):
        """Whether the model can do what the row asks: the toy has no grammar."""
        try:
            execute.accept("10_experiment", {k: v for k, v in (common | row).items() if k != "name"})
        except (BadPipeline, BadParameters):
            return False
        return True

    common = (raw.get("common") or {}) | own
    rows = list(islice((row for row in raw["runs"] if alone(row) and runs(row)), count))
    return {"name": f"{plan}-{len(rows)}", "common": common, "runs": rows}


def kill_in_the_middle(child, runs, after, done):
    """Kill -9 a worker with a row under way, once so many rows are sealed."""
    while not done.is_set():
        if len(list(runs.glob("[0-9]*-*"))) >= after and kernels(child.pid):
            os.kill(child.pid, signal.SIGKILL)
            done.killed = True
            return
        time.sleep(0.05)


def timed(folder, project, file, count, workers, kill=False):
    """The sealed rows of a plan that so many workers executed, how long it took, and whether one was killed."""
    machines, done, runs = Machines(folder), threading.Event(), folder / "runs"
    done.killed = False
    try:
        address = machines.scheduler()
        children = []
        for number in range(workers):
            (folder / f"machine-{number}").mkdir()
            children.append(machines.worker(copy(folder / f"machine-{number}", project)))
        machines.wait_for(address, workers)
        if kill:
            after = count // 2 - 1  # of few rows: as soon as it works
            threading.Thread(target=kill_in_the_middle, args=(children[0], runs, after, done), daemon=True).start()
        began = time.monotonic()
        command = [sys.executable, "-m", "lib.cli", "study", str(file), "--runs", str(runs), "--no-report"]
        env = os.environ | {"PYTHONPATH": str(project)}
        subprocess.run([*command, "--scheduler", address], cwd=project, env=env)  # a row that crashed is a row too
        seconds = time.monotonic() - began
    finally:
        done.set()
        machines.end()
    return sealed(runs), seconds, done.killed


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=30)
    parser.add_argument("--plan", default="reference", help="of notebooks/plans")
    parser.add_argument("--model", default="", help="instead of the plan's own: toy is quick")
    parser.add_argument("--keep", type=Path, default=None, help="a new folder that the runs stay in")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="notch-cluster-") as temp:
        place = told.keep or Path(temp)
        place.mkdir(parents=True, exist_ok=True)
        file = place / "rows.yaml"
        rows = rows_of(told.plan, told.rows, told.model)
        file.write_text(canonical(rows), encoding="utf-8")  # JSON is YAML
        # The coordinator runs in a copy too: the checkout may be worked on meanwhile.
        (place / "project").mkdir()
        project, found = copy(place / "project"), {}
        for name, workers in (("one", 1), ("two", 2), ("one-of-two-killed", 2)):
            (place / name).mkdir()
            print(f"{name}:", flush=True)
            found[name] = timed(place / name, project, file, len(rows["runs"]), workers, name.endswith("killed"))
    first = found["one"][0]
    wrong = abs(len(first) - len(rows["runs"]))
    for name, (rows, seconds, killed) in found.items():
        equal = sum(a == b for a, b in zip(first, rows, strict=False))
        different = max(len(first), len(rows)) - equal
        wrong += different + (name.endswith("killed") and not killed)
        note = "" if not name.endswith("killed") else ", a worker killed -9" if killed else ", NO worker was killed"
        print(
            f"{name}: {equal} of {len(first)} rows equal to one worker's, {different} different, {seconds:.1f} s{note}"
        )
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
