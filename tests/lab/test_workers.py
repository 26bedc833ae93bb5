"""A study on the workers of a Dask cluster seals what it seals here, whoever of them dies or has another version."""

import os
import signal
import subprocess
import sys
import time

import pytest

from lib.files import ROOT
from lib.lab import study
from lib.lab.study import read
from lib.lab.workers import NoWorker, pool
from tests.children import kernels, wait_for_kernel
from tests.lab.cluster import CLUSTER, HERE, Machines, copy, sealed

PLAN = """
name: four
common: {model: toy}
runs:
  - {name: first, lever: baseline, hypothesis: One plain call.}
  - name: eight
    lever: over-generate and prune
    predicted: 0.01
    hypothesis: Eight questions, one dropped.
    pipeline: [{step: ask, n: 8}, {step: prune, by: last}]
  - {name: broken, lever: decoding, hypothesis: h, decoding: {max_tokens: 1}}
  - {name: twin, lever: baseline, hypothesis: One plain call.}
"""


@pytest.fixture
def plan(tmp_path):
    path = tmp_path / "four.yaml"
    path.write_text(PLAN, encoding="utf-8")
    return path


@pytest.fixture
def machines(tmp_path):
    machines = Machines(tmp_path)
    yield machines
    machines.end()


def gone(pids, timeout=60):
    from psutil import pid_exists

    ends = time.monotonic() + timeout
    while any(map(pid_exists, pids)) and time.monotonic() < ends:
        time.sleep(0.2)
    return not any(map(pid_exists, pids))


@pytest.mark.skipif(HERE, reason="distributed is installed")
def test_without_the_packages_of_a_cluster_a_study_says_what_to_install():
    with pytest.raises(NoWorker, match=r"pip install -e '\.\[cluster\]'"):
        pool(1, "tcp://127.0.0.1:9")


@CLUSTER
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_an_address_where_no_scheduler_is_is_one_line(plan, tmp_path):
    with pytest.raises(NoWorker, match="no Dask scheduler answers at 'tcp://127.0.0.1:9'") as stopped:
        list(study.run(read(plan), tmp_path / "runs", scheduler="tcp://127.0.0.1:9"))
    assert "\n" not in str(stopped.value)


@CLUSTER
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_local_cluster_seals_what_this_process_seals(plan, tmp_path):
    from distributed import LocalCluster

    states = {}
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        for folder, scheduler in (("here", ""), ("cluster", cluster.scheduler_address)):
            running = study.run(read(plan), tmp_path / folder, scheduler=scheduler)
            states[folder] = [(p.entry.name, p.state) for p in running]
    assert (
        states["here"]
        == states["cluster"]
        == [("first", "ran"), ("eight", "ran"), ("broken", "ran"), ("twin", "there")]
    )
    assert sealed(tmp_path / "here") == sealed(tmp_path / "cluster")
    notebook = (tmp_path / "cluster" / "0002-eight" / "experiment.ipynb").read_text(encoding="utf-8")
    assert "0001-first" in notebook and "/tmp/notch-" not in notebook


@CLUSTER
@pytest.mark.slow
def test_a_killed_worker_loses_nothing_and_one_of_another_version_is_refused_by_name(plan, tmp_path, machines):
    address = machines.scheduler()
    first, second, other = (copy(tmp_path / name) for name in ("first", "second", "other"))
    with open(other / "lib" / "agent" / "prompt.py", "a") as file:
        file.write("# a line more\n")
    dies, stays, refused = (machines.worker(where) for where in (first, second, other))
    command = [sys.executable, "-m", "lib.cli", "study", str(plan), "--runs", str(tmp_path / "runs"), "--no-report"]
    with open(tmp_path / "log", "w") as log:
        child = subprocess.Popen([*command, "--scheduler", address], cwd=ROOT, stdout=log, stderr=log)
        machines.started.append(child)
        wait_for_kernel(dies, timeout=240)
        orphans = kernels(dies.pid)
        os.kill(dies.pid, signal.SIGKILL)
        assert child.wait(timeout=400) == 0, (tmp_path / "log").read_text()
    said = (tmp_path / "log").read_text()
    assert "is refused: it has another lib/agent/prompt.py;" in said and said.count("is refused") == 1
    assert said.count("is lost") == 1 and "3 runs in" in said
    assert kernels(refused.pid) == [] and refused.poll() is None and stays.poll() is None
    assert [run for run, *_ in sealed(tmp_path / "runs")] == ["0001-first", "0002-eight", "0003-broken"]
    assert orphans and gone(orphans)
