"""Kills a loop at random moments and runs it again until it ends: `python -m tests.loop.kill_loop --kills 50`.

Knows how to start `notch loop` with the toy model, when to kill, and what must be true afterwards: the asked number of
sealed runs, none twice, none torn, everything verified. Prints a line a folder and exits 1 at the first broken promise.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from lib.files import ROOT
from lib.loop import events
from lib.loop.proposal import setup_of
from lib.runs.ledger import Ledger
from lib.runs.seal import SEAL, sealed_folders
from lib.runs.verify import verify


def start(folder, runs, *more):
    env = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [
        sys.executable,
        "-m",
        "lib.cli",
        "loop",
        "--runs",
        str(runs),
        "--runs",
        str(folder),
        "-p",
        "model",
        "toy",
    ]
    return subprocess.Popen(
        [*command, "--no-report", *more], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def broken(folder, runs):
    """What is not as promised in a folder that a loop has finished, in sentences."""
    wrong = [*verify(folder), *events.verify(folder)]
    records = Ledger.read(folder).records
    if len(records) != runs:
        wrong.append(f"{len(records)} runs instead of {runs}")
    wrong += [f"{p.name}: torn" for p in folder.iterdir() if p.is_dir() and not (p / SEAL).exists()]
    did = Counter((r.kind, r.gate, r.of, r.seed, setup_of(r)) for r in records)
    wrong += [f"{key[1]} run done {n} times" for key, n in did.items() if n > 1]
    accepted = Counter(e["n"] for e in events.Events(folder).of("accepted"))
    offer = Counter(json.dumps(e["parameters"], sort_keys=True) for e in events.Events(folder).of("accepted"))
    wrong += [f"a proposal was accepted {n} times" for n in [*accepted.values(), *offer.values()] if n > 1]
    return wrong


def torture(folder, runs, kills, rng, longest, say=print, more=()):
    """Run one folder to its end with at most so many kills. Returns how many there were, and what is broken."""
    done = 0
    while True:
        child = start(folder, runs, *more)
        try:
            wait = rng.uniform(0.05, longest) if done < kills else None
            out, err = child.communicate(timeout=wait)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            child.communicate()
            done += 1
            count = len(sealed_folders(folder)) if folder.exists() else 0
            say(f"  kill {done} after {wait:.2f} s, {count} sealed", flush=True)
            continue
        if child.returncode:
            return done, [f"exit code {child.returncode}: {err.strip()}"]
        return done, broken(folder, runs)


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--runs", type=int, default=6, help="sealed runs a folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=float, default=8.0, help="seconds until the latest kill")
    told = parser.parse_args()
    rng, done, folders, began = random.Random(told.seed), 0, 0, time.time()
    with tempfile.TemporaryDirectory(prefix="notch-kill-") as temp:
        while done < told.kills:
            folders += 1
            folder = Path(temp) / str(folders) / "runs"
            n, wrong = torture(folder, told.runs, told.kills - done, rng, told.longest)
            done += n
            print(
                f"folder {folders}: {n} kills, {'; '.join(wrong) or f'{told.runs} sealed runs, all sound'}", flush=True
            )
            if wrong:
                sys.exit(1)
    print(f"{done} kills, {folders} folders, {time.time() - began:.0f} s: nothing lost, nothing twice, nothing torn")


if __name__ == "__main__":
    main()
