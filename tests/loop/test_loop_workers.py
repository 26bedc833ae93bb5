"""A loop whose runs others execute: the same runs in the same order as here, whoever of them is lost."""

import os
import signal
import threading
import time

import pytest

from lib.loop.events import Events
from lib.loop.loop import Loop, Settings
from lib.loop.next_run import Rules
from lib.loop.proposers.search import Search
from lib.loop.validate import Base
from tests.children import kernels
from tests.lab.cluster import CLUSTER, sealed

TOTAL = 5  # the baseline, its run on the dev gate, two screens, what one of them led to


def looped(folder, **told):
    """What a loop did in a folder: its runs as they are sealed, and what it accepted, in order."""
    settings = Settings(total=TOTAL, base=Base(model="toy"), rules=Rules(at_once=2), **told)
    work = Loop(folder / "runs", folder / "steer", settings, Search(3))
    said = [(p.what, p.record.id if p.record else p.message) for p in work.run()]
    events = [(e["n"], e["kind"], e.get("proposal"), e.get("runs")) for e in Events(folder / "runs")]
    return said, events, sealed(folder / "runs")


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """What the loop does when nobody helps it."""
    return looped(tmp_path_factory.mktemp("here"))


@pytest.mark.slow
def test_workers_of_this_machine_change_nothing_of_what_comes_out(here, tmp_path):
    there = looped(tmp_path / "three", workers=3)
    assert here == there and len(here[2]) == TOTAL
    assert [kind for _, kind, *_ in here[1]][:3] == ["started", "accepted", "accepted"]


@CLUSTER
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_cluster_seals_the_same_in_the_same_order_though_a_worker_is_killed_in_the_middle(here, tmp_path):
    from distributed import LocalCluster

    killed = []

    def kill(worker):
        ends = time.monotonic() + 300
        while time.monotonic() < ends and not kernels(worker):
            time.sleep(0.05)
        if kernels(worker):
            killed.extend([worker, *kernels(worker)])
            os.kill(worker, signal.SIGKILL)

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        breaker = threading.Thread(target=kill, args=(cluster.workers[0].process.pid,), daemon=True)
        breaker.start()
        there = looped(tmp_path / "there", scheduler=cluster.scheduler_address)
        breaker.join()
    assert here == there and len(killed) > 1
