"""Somebody edits the measure, a run or the ledger while a loop runs: it stops with exit code 5 and says what changed.

The loop works in a copy of the checkout, so that the ruler may be broken.
"""

import os
import shutil
import subprocess
import sys
import time

import pytest

from lib.files import ROOT
from lib.runs.seal import sealed_folders
from tests.children import wait_for_kernel

TIMEOUT = 120


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """What a loop with the toy model needs of the checkout."""
    copy = tmp_path_factory.mktemp("checkout")
    skip = shutil.ignore_patterns("__pycache__", "*.safetensors", "tokenizer.json")
    shutil.copytree(ROOT / "lib", copy / "lib", ignore=skip)
    shutil.copytree(ROOT / "ruler", copy / "ruler")
    (copy / "notebooks").mkdir()
    for path in (ROOT / "notebooks").glob("1*.ipynb"):
        shutil.copy(path, copy / "notebooks")
    return copy


@pytest.fixture
def checkout(original, tmp_path):
    shutil.copytree(original, tmp_path / "checkout")
    return tmp_path / "checkout"


def start(checkout, runs=9):
    env = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(checkout)}
    command = [sys.executable, "-m", "lib.cli", "loop", "--runs", str(runs), "--runs", "work/runs", "-p", "model", "toy",
               "--no-report"]  # fmt: skip
    return subprocess.Popen(command, cwd=checkout, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(child, folder, count):
    """Wait until so many runs are sealed and stand in the ledger, whose line follows the seal."""
    ends = time.monotonic() + TIMEOUT
    ledger = folder / "ledger.jsonl"
    while time.monotonic() < ends and child.poll() is None:
        lines = ledger.read_text(encoding="utf-8").count("\n") if ledger.exists() else 0
        if folder.exists() and min(len(sealed_folders(folder)), lines) >= count:
            return
        time.sleep(0.02)
    raise AssertionError(f"no {count} runs: {child.communicate()}")


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text, path
    path.chmod(0o644)
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


# One of each thing that is looked at: ruler, runs, code. Other files of a folder of runs: tests/faults/test_attacks.py;
# of the ruler: tests/measure/test_ruler.py.
EDITS = {
    "gold": (lambda c: edit(c / "ruler" / "gold.jsonl", "?", "??"), "gold.jsonl"),
    "the ledger": (lambda c: edit(c / "work" / "runs" / "ledger.jsonl", "0001-", "0007-"), "ledger.jsonl"),
    "the scoring code": (lambda c: edit(c / "lib" / "measure" / "score.py", '"loss": 0.0', '"loss": 1.0'), "score.py"),
}  # fmt: skip


def stopped(child, named):
    out, err = child.communicate(timeout=TIMEOUT)
    assert child.returncode == 5, out + err
    assert named in err and len(err.strip().splitlines()) == 1 and "Traceback" not in err


@pytest.mark.slow
@pytest.mark.parametrize("what", EDITS)
def test_an_edit_while_it_runs_stops_it_with_exit_code_5_and_calling_it_again_does_not_get_past_it(checkout, what):
    change, named = EDITS[what]
    runs = checkout / "work" / "runs"
    with start(checkout) as child:
        wait_for(child, runs, 1)
        change(checkout)
        stopped(child, named)
    there = len(sealed_folders(runs))
    assert there < 9
    with start(checkout) as child:
        stopped(child, named)
    assert len(sealed_folders(runs)) == there


@pytest.mark.slow
def test_a_ruler_edited_under_a_running_kernel_leaves_an_invalid_run_without_scores(checkout):
    from lib.runs.ledger import Ledger

    with start(checkout, runs=2) as child:
        wait_for(child, checkout / "work" / "runs", 1)
        wait_for_kernel(child)  # of the second run
        edit(checkout / "ruler" / "gold.jsonl", "?", "??")
        out, err = child.communicate(timeout=TIMEOUT)
    assert child.returncode == 5, out + err
    [later] = Ledger.read(checkout / "work" / "runs").records[1:]
    assert later.status == "invalid" and later.scores is None
