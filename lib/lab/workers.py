"""Where the notebooks of a study are executed: in kernels of this machine, or on the workers of a Dask cluster.

Knows who may work, who was lost, and which row waits for what; a lost worker costs the time of its row, since the
scheduler gives the row to another. Does not know plans, and seals nothing: that the study alone does, in its order.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lib import weights
from lib.files import Exit, OneLine
from lib.lab import execute, orders
from lib.lab.base import Runnable
from lib.lab.execute import Executed
from lib.lab.orders import Order, Reply
from lib.runs.provenance import code_state
from lib.runs.record import Json
from lib.runs.seal import LEDGER

PATIENCE = 600  # s without one worker, while machines wake up
EVERY = 1.0  # s between two looks at who has joined or left


class Pool:
    """Where notebooks are executed. `environment` is for the kernels of this machine: it may name its folders."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self.environment = dict(environment or {})

    def carry_out(
        self, template: str, parameters: Json, runnable: Runnable, environment: Mapping[str, str] | None = None
    ) -> Executed:
        """Execute a row here and now. Raises what `execute.carry_out` raises."""
        return execute.carry_out(template, parameters, runnable, {**self.environment, **(environment or {})})


class NoWorker(OneLine):
    """No worker can do what is asked, or the scheduler cannot be reached; what is sealed stays."""

    exit = Exit.MISSING


# --- this machine


class Local(Pool):
    """Up to `count` notebooks executed at a time here, each in a kernel of its own."""

    def __init__(self, count: int, environment: Mapping[str, str] | None = None) -> None:
        super().__init__(environment)
        # More than run at a time: rows are sealed in order, and a slow one must not leave the others idle.
        self.ahead = 2 * count if count > 1 else 0
        self._threads = ThreadPoolExecutor(count)
        self._kernels: dict[Future[Executed], set[int]] = {}  # process ids of the kernels that run

    def __enter__(self) -> Local:
        return self

    def __exit__(self, *_: object) -> None:
        """What has not begun is dropped, what runs is killed; nothing of it is sealed."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        # A thread may be about to start its kernel, so one round is not enough.
        while running := [kernels for future, kernels in self._kernels.items() if not future.done()]:
            for kernels in running:
                orders.kill(kernels)
            time.sleep(0.05)

    def start(
        self, template: str, parameters: Json, runnable: Runnable, environment: Mapping[str, str] | None = None
    ) -> Future[Executed]:
        """Begin to execute a row in a thread, with a kernel of its own; it is sealed by whoever reads the future."""
        kernels: set[int] = set()
        environment = {**self.environment, **(environment or {})}
        future = self._threads.submit(orders.carried_out, template, parameters, runnable, kernels, environment)
        self._kernels[future] = kernels
        return future


# --- the coordinator


class Cluster(Pool):
    """The admitted workers of a Dask cluster. Raises NoWorker, also later where none is left for ten minutes."""

    def __init__(self, address: str, environment: Mapping[str, str] | None = None) -> None:
        """Connects, and admits nobody yet. Raises NoWorker without the extra, or where no scheduler answers in 20 s."""
        super().__init__(environment)
        try:
            from distributed import Client
        except ImportError:
            raise NoWorker("--scheduler needs the packages of a cluster: pip install -e '.[cluster]'") from None
        # What it has to say of a lost worker is said here, in one line.
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        try:
            self.client = Client(address, timeout=20, set_as_default=False)
        except (OSError, ValueError) as error:
            raise NoWorker(f"no Dask scheduler answers at {address!r} ({error}); `dask scheduler` starts one") from None
        # A name of its own: studies may share a cluster, and each admits and stops for itself.
        self.address, self.session, self.version = address, f"notch-{uuid.uuid4().hex[:12]}", orders.version()
        self._threads: dict[str, int] = {}  # by address of an admitted worker
        self._refused: dict[str, str] = {}  # why, by address
        self._rows: list[Row] = []  # under way
        self._begun = 0
        self._looked, self._last_there = 0.0, 0.0  # s on the monotonic clock

    def __enter__(self) -> Cluster:
        self.look()
        if not self._threads:
            raise NoWorker(
                f"no worker at {self.address} can be used; start one with `dask worker` in a copy of this project"
            )
        return self

    def __exit__(self, *_: object) -> None:
        """Ends this study's rows on the workers; the workers and the rows of other studies go on."""
        # The scheduler may be what is gone.
        with contextlib.suppress(OSError):
            self.client.cancel([row.future for row in self._rows])
            self._run(orders.stop, self.session, workers=list(self._threads))
        self.client.close()

    @property
    def ahead(self) -> int:
        """How many rows are begun before their turn: two for each thread of the workers."""
        return 2 * sum(self._threads.values())

    def start(
        self, template: str, parameters: Json, runnable: Runnable, environment: Mapping[str, str] | None = None
    ) -> Row | None:
        """Queue a row for the workers; None where it must run here: it is paid for, or reads what cannot travel."""
        if environment or not orders.travels(template, runnable):
            return None
        paths = orders.sealed_files(runnable, template)
        places = {name: weights.sum_of(path) for name, path in paths.items()}
        ledger = (runnable.runs_folder / LEDGER).read_bytes() if runnable.ledger.records else b""
        order = Order(self.session, self.version, template, parameters, runnable.key, ledger, places)
        contents = {places[name]: path for name, path in paths.items()}
        self._begun += 1
        # What comes first in the plan goes first.
        self._rows.append(Row(self, order, runnable, contents, -self._begun))
        return self._rows[-1]

    def forget(self, row: Row) -> None:
        """Let go of a row whose reply is here: its notebook and its adapter are in the study's hands."""
        self._rows.remove(row)

    def look(self) -> None:
        """Admit or refuse who has joined, forget who has left, and see to rows that cannot go on by themselves."""
        if time.monotonic() - self._looked < EVERY:
            return
        self._looked = time.monotonic()
        try:
            there = self.client.nthreads()
        except OSError as error:
            raise NoWorker(
                f"the scheduler at {self.address} is gone ({error}); what is sealed stays, call again"
            ) from None
        for worker in self._threads.keys() - there.keys():
            self._say(f"worker {worker} is lost; what it had begun goes to another, or waits {PATIENCE} s for one")
            del self._threads[worker]
        # Mended and started again, it may have the same address.
        for worker in self._refused.keys() - there.keys():
            del self._refused[worker]
        unknown = there.keys() - self._threads.keys() - self._refused.keys()
        for worker, fault in self._run(orders.admit, self.session, self.version, workers=list(unknown)).items():
            if fault:
                self.refuse(worker, str(fault))
            else:
                self._threads[worker] = there[worker]
        if self._threads:
            self._last_there = self._looked
        elif self._rows and self._looked - self._last_there > PATIENCE:
            raise NoWorker(f"no worker of {self.address} for {PATIENCE} s; what is sealed stays, call again")
        for row in self._rows:
            row.see_to()

    def refuse(self, worker: str, why: str) -> None:
        """Give a worker nothing more."""
        if worker not in self._refused:
            self._say(f"worker {worker} is refused: {why}")
        self._refused[worker] = why
        if self._threads.pop(worker, 0):
            self._run(orders.dismiss, self.session, workers=[worker])

    def send(self, worker: str, contents: dict[str, Path]) -> None:
        """Bring files to the cache of a worker."""
        self._run(orders.keep, {digest: path.read_bytes() for digest, path in contents.items()}, workers=[worker])

    def _run(self, function: Any, *args: Any, workers: list[str]) -> dict[str, Any]:
        """What a function gives on workers, or what it raised there: one may be lost meanwhile."""
        return self.client.run(function, *args, workers=workers, on_error="return") if workers else {}

    def _say(self, text: str) -> None:
        print(f"notch: {text}", file=sys.stderr, flush=True)


class Row:
    """A row on the cluster."""

    def __init__(
        self, cluster: Cluster, order: Order, runnable: Runnable, files: dict[str, Path], priority: int
    ) -> None:
        """Sends the order at once. `files` are by sha256; of rows that wait the highest `priority` goes first."""
        self.cluster, self.order, self.runnable, self.files, self.priority = cluster, order, runnable, files, priority
        self.reply: Reply | None = None
        self._submit()

    def _submit(self) -> None:
        # Not pure: to the same order, sent again once its files are there, Dask would give the reply of before.
        self.future = self.cluster.client.submit(
            orders.work, self.order, pure=False, resources={self.order.session: 1}, priority=self.priority
        )

    def see_to(self) -> None:
        """Take the reply where there is one; a row that came back undone is sent out again."""
        if self.reply is not None or self.future.status != "finished":
            return
        reply: Reply = self.future.result()
        if reply.lacks:
            self.cluster.send(reply.worker, {digest: self.files[digest] for digest in reply.lacks})
        elif reply.refusal:
            self.cluster.refuse(reply.worker, reply.refusal)
        else:
            self.reply = reply
            return
        self._submit()

    def result(self) -> Executed:
        """Wait for it. Raises NoWorker, also where it took too many workers with it."""
        while self.reply is None:
            self.cluster.look()
            if self.future.status in ("error", "cancelled", "lost"):
                raise NoWorker(f"{self.order.template} was given up by the cluster ({_one_line(self.future)}); what is sealed stays, "
                               "call again, or run it here without --scheduler")  # fmt: skip
            time.sleep(0.05)
        self.cluster.forget(self)
        done = execute.concluded(self.runnable, json.loads(self.reply.notebook), self.reply.error, self.reply.files)
        record = done.record
        if record and (record.key != self.runnable.key or record.code.sha256 != code_state()["sha256"]):
            raise NoWorker(f"worker {self.reply.worker} executed other code or another run than was asked; start it in the "
                           "folder of the project, with nothing else of it on its path")  # fmt: skip
        return done


def _one_line(future: Any) -> str:
    """What became of a row that the scheduler gave up."""
    if future.status != "error":
        return future.status
    error = future.exception()
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def pool(workers: int, scheduler: str = "", environment: Mapping[str, str] | None = None) -> Local | Cluster:
    """Where a study is executed: on the cluster of a scheduler, else in so many kernels here. Raises NoWorker."""
    return Cluster(scheduler, environment) if scheduler else Local(workers, environment)
