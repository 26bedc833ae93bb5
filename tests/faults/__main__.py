"""`make faults`: some 500 faults of all kinds, besides two logs and a ledger cut at every byte of their last line.

    python -m tests.faults [--seed N] [--scale X] [--jobs N] [KIND ...]

Prints the seed and a line a kind: how many faults, what was lost, torn, twice or said unclearly. Exit code 1 where
anything was, or where a kind broke off. The same seed draws the same faults; when a kill falls is the machine's affair.
Several jobs are processes of their own: what forks must have no threads.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path

from tests.faults import at_rest, commands, writers
from tests.faults.ground import LOST, TORN, TWICE, UNCLEAR, build

EVERY = 0  # every place there is
PROMISES = (LOST, TORN, TWICE, UNCLEAR)
BROKEN = "broke off"
# Kind: the faults, and how many of them a whole run has.
KINDS = {
    "ledger cut": (at_rest.ledger_cut, EVERY),
    "event log cut": (at_rest.events_cut, EVERY),
    "paid replies cut": (at_rest.judgments_cut, EVERY),
    "bit flipped": (at_rest.bit_flipped, 100),
    "run half deleted": (at_rest.half_deleted, 30),
    "file replaced": (at_rest.file_replaced, 30),
    "ledger lost": (at_rest.rebuilt_from_runs, 12),
    "line of rubbish": (at_rest.rubbish_line, 60),
    "sound line of another log": (at_rest.hashed_rubbish, EVERY),
    "waiting run harmed": (at_rest.pending_rubbish, 30),
    "clock set back or forward": (at_rest.clock_back, 12),
    "read-only folder": (writers.read_only, EVERY),
    "full disk (limit)": (writers.full_disk, 40),
    "full disk (in memory)": (writers.full_memory_disk, 40),
    "writer killed": (writers.killed_writer, 40),
    "three writers, one killed": (writers.writers_at_once, 10),
    "weights harmed": (commands.harmed_weights, 8),
    "fetch killed": (commands.killed_fetch, 8),
    "two and three at once": (commands.at_once, 3),
} | {f"{name} killed": (partial(commands.killed, subject), 6) for name, subject in commands.SUBJECTS.items()}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)} (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0, help="of the counts; below 1 not every byte is cut at")
    parser.add_argument(
        "--jobs", type=int, default=min(4, os.cpu_count() or 1), help="kinds at a time (default: a core each)"
    )
    options = parser.parse_args()
    unknown = [kind for kind in options.kinds if kind not in KINDS]
    if unknown:
        parser.error(f"no kind {unknown[0]!r}")
    print(f"seed {options.seed}, scale {options.scale:g}")
    print(f"{'':28}{'faults':>8}{LOST:>8}{TORN:>8}{TWICE:>8}{UNCLEAR:>9}{'seconds':>9}", flush=True)
    kinds = options.kinds or list(KINDS)
    began = time.monotonic()
    total = apart(kinds, options) if options.jobs > 1 and len(kinds) > 1 else here(kinds, options)
    total["seconds"] = round(time.monotonic() - began)
    print(line("all", total), flush=True)
    return int(any(total[what] for what in (*PROMISES, BROKEN)))


def here(kinds, options):
    """Kinds one after the other in this process."""
    total: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="notch-faults-") as temp:
        Path(temp).chmod(0o755)  # a child that is nobody must find its way in
        ground = build(Path(temp) / "ground")
        for kind in kinds:
            total += tried(kind, ground, Path(temp) / kind.replace(" ", "-"), options.seed, options.scale)
    return total


def apart(kinds, options):
    """Kinds in processes of their own, several at a time: those that take minutes first, those of files in one."""
    files = [kind for kind in kinds if KINDS[kind][0] in vars(at_rest).values()]
    groups = [*([kind] for kind in reversed(kinds) if kind not in files), *([files] if files else ())]
    total: Counter[str] = Counter()
    with ThreadPoolExecutor(options.jobs) as pool:
        for done in as_completed([pool.submit(child, group, options) for group in groups]):
            group, code, text = done.result()
            print(text, flush=True)
            rows = [row for row in text.splitlines() if row[:28].strip() in group]
            for row in rows:
                total.update(dict(zip(("faults", *PROMISES), map(int, row[28:].split()), strict=False)))
            # Without a line of its own nothing is known about a kind, and that is no success.
            total[BROKEN] += len(rows) != len(group) or code not in (0, 1)
    return total


def child(kinds, options):
    """The kinds, the exit code and the lines of a process that tries them."""
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "tests.faults",
        "--jobs",
        "1",
        "--seed",
        options.seed,
        "--scale",
        options.scale,
    ]
    done = subprocess.run([*map(str, command), *kinds], capture_output=True, text=True)
    lines = [row for row in done.stdout.splitlines()[2:] if row[:28].strip() != "all"]
    if done.returncode not in (0, 1) or not lines:
        lines += [f"{', '.join(kinds)}: broke off", done.stderr.strip()[-2000:]]
    return kinds, done.returncode, "\n".join(lines)


def tried(kind, ground, at, seed, scale):
    """All faults of one kind, told as one line and counted."""
    faults, count = KINDS[kind]
    if scale < 1:
        count = math.ceil((count or 40) * scale)
    counts, texts, began = Counter(), [], time.monotonic()
    # Each kind draws its own, so that one kind alone can be tried again.
    for wrong in faults(ground, at, random.Random(f"{seed} {kind}"), count):
        counts["faults"] += 1
        counts.update(w.what for w in wrong)
        texts += [f"    {w.what}: {w.text}" for w in wrong]
    counts["seconds"] = round(time.monotonic() - began)
    print("\n".join([line(kind, counts), *texts[:10]]), flush=True)
    return counts


def line(kind, counts):
    told = "".join(f"{counts[what]:>8}" for what in ("faults", LOST, TORN, TWICE))
    return f"{kind:28}{told}{counts[UNCLEAR]:>9}{counts['seconds']:>9}"


if __name__ == "__main__":
    sys.exit(main())
