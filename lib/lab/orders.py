"""A row of a plan that another machine executes: what goes out, what comes back, and whether that machine may.

Out go the parameters, the ledger of the moment and the hashes of the sealed files that the notebook reads; back come
the executed notebook and the files beside it. A machine that differs in one byte of code, templates or ruler is
refused by name. Knows no plan, and seals nothing. Does not cover what is paid for: that stays where the key is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lib import weights
from lib.files import NOTEBOOKS, ROOT, RULER, OneLine, hidden, sha256_file, without_paths, write_atomic
from lib.lab import execute
from lib.lab.base import Runnable
from lib.lab.execute import Executed
from lib.lab.kernel import Fault
from lib.measure.ruler import Ruler
from lib.models import load, provenance
from lib.runs.ledger import Ledger
from lib.runs.record import Json
from lib.runs.seal import LEDGER
from lib.runs.secrets import held

# What else a plan has takes seconds, or looks at the sealed gate.
TRAVEL = ("10_experiment", "11_train")
# An adapter that is named by its run is the same file wherever that run lies; a path is another file on each machine.
BY_RUN = re.compile(r"[a-z0-9-]+(/epoch-\d\d)?")


def carried_out(
    template: str, parameters: Json, runnable: Runnable, kernels: set[int], environment: Mapping[str, str] | None = None
) -> Executed:
    """What `execute.carry_out` gives or raises, in a thread that other rows use too."""
    try:
        return execute.carry_out(template, parameters, runnable, environment, kernels)
    finally:
        # A process id may be given again: an ended kernel must not be killed.
        kernels.clear()
        asyncio.get_event_loop().close()  # that the kernel's client left to this thread


def kill(kernels: set[int]) -> None:
    """End kernels by their process ids."""
    for kernel in list(kernels):
        with contextlib.suppress(ProcessLookupError):
            os.kill(kernel, signal.SIGKILL)


# --- what travels


@dataclass(frozen=True)
class Order:
    """A row as it goes to a worker."""

    session: str  # of the study, and the name of the resource that only admitted workers have
    version: dict[str, str]  # what the worker must have: see `version`
    template: str
    parameters: Json
    key: str  # of the run; weights of the worker that are others give another
    ledger: bytes
    files: dict[str, str]  # place in the folder of runs -> sha256


@dataclass(frozen=True)
class Reply:
    """What a worker makes of an order: files that it lacks, a refusal, or the notebook as its kernel left it."""

    worker: str  # address
    lacks: tuple[str, ...] = ()  # sha256
    refusal: str = ""
    notebook: str = ""  # JSON
    error: Fault | None = None
    files: dict[str, bytes] | None = None  # what a training made


def version() -> dict[str, str]:
    """sha256 of all that decides what a run does, by name: lib with its data, the templates, the ruler's seal.

    Raises BadRuler, Tampered.
    """
    # Data too: the judge's constants and the bank decide as much as code. Compiled files differ by themselves.
    paths = [p for p in (ROOT / "lib").rglob("*") if p.is_file() and p.suffix != ".pyc"]
    paths += NOTEBOOKS.glob("1*.ipynb")
    names = {p.relative_to(ROOT).as_posix(): p for p in paths}
    sums = {name: sha256_file(path) for name, path in sorted(names.items()) if not hidden(name)}
    return sums | {"ruler/FROZEN": Ruler.load(RULER).seal}


def difference(wanted: dict[str, str]) -> str:
    """How this process differs from a version, "" where it does not."""
    here = version()
    others = sorted(n for n in wanted.keys() | here.keys() if wanted.get(n) != here.get(n))
    if not others:
        return ""
    return f"it has another {', '.join(others[:3])}{' ...' if others[3:] else ''}; bring it to this version and start it again"


def free(runnable: Runnable) -> bool:
    """Whether judge and model cost nothing but time."""
    return runnable.judge == "offline" and load.backend(runnable.model) is not load.CLOUD


def travels(template: str, runnable: Runnable) -> bool:
    """Whether another machine may execute it.

    What is paid for stays with the key and the store of paid replies, what reads a file of this machine with the file.
    """
    data: Json = getattr(runnable, "data", {})
    if template not in TRAVEL or not free(runnable):
        return False
    if data.get("path") or data.get("source") == "claude":
        return False
    folder, adapters = runnable.runs_folder, [a for a in runnable.adapters if a]
    named = all(BY_RUN.fullmatch(a) for a in adapters)
    return named and all(provenance.find(a, folder).is_relative_to(folder) for a in adapters)


def sealed_files(runnable: Runnable, template: str) -> dict[str, Path]:
    """The sealed files that its notebook reads, by their place in the folder of runs."""
    ledger, paths = runnable.ledger, []
    for adapter in filter(None, runnable.adapters):
        paths += [p for p in provenance.find(adapter, ledger.folder).iterdir() if p.is_file() and not hidden(p.name)]
    if template == "10_experiment":
        paths += [ledger.folder / run / "cases.jsonl" for run in _rivals(ledger, runnable)]
    return {p.relative_to(ledger.folder).as_posix(): p for p in paths}


def _rivals(ledger: Ledger, runnable: Runnable) -> list[str]:
    """Ids of the runs whose cases the keep rule may read: the champion, what the dev gate compares with, repeats."""
    of: str = getattr(runnable, "of", "")
    ids = {r.id for r in (ledger.champion(runnable.fingerprint), ledger.screened(runnable.fingerprint)) if r}
    for record in ledger.records:
        if of and (record.of or record.named(of)):
            ids |= {record.id, ledger.of(record)}
    return [r.id for r in ledger.records if r.id in ids and r.scores]


# --- on a worker


_running: list[tuple[str, set[int]]] = []  # session and kernels of each row that this process executes


def kept(digest: str) -> Path:
    """Where a worker keeps a file that travelled, named by its content: it comes once."""
    return weights.cache() / "travelled" / digest


async def admit(session: str, wanted: dict[str, str], dask_worker: Any) -> str:
    """Let a worker have rows of a study; else why not. Raises Tampered, BadRuler."""
    fault = difference(wanted)
    if not fault:
        await dask_worker.set_resources(**{session: dask_worker.state.nthreads})
    return fault


async def dismiss(session: str, dask_worker: Any) -> None:
    """Let a worker have no more rows of a study."""
    await dask_worker.set_resources(**{session: 0})


async def stop(session: str, dask_worker: Any) -> None:
    """End the rows of a study that run on this worker."""
    await dismiss(session, dask_worker)
    # A row may be about to start its kernel, so one round is not enough.
    while running := [kernels for owner, kernels in _running if owner == session]:
        for kernels in running:
            kill(kernels)
        await asyncio.sleep(0.05)


def keep(contents: dict[str, bytes]) -> None:
    """Put files that travelled into the cache, by their sha256."""
    for digest, content in contents.items():
        kept(digest).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(kept(digest), content)


def lacks(digest: str) -> bool:
    """Whether a file must be sent, for it is not here or no longer what it was."""
    return not kept(digest).exists() or weights.sum_of(kept(digest)) != digest


def work(order: Order) -> Reply:
    """Execute a row on this worker. A fault of the machine is a refusal: the row is for another one."""
    from distributed import get_worker

    worker = get_worker().address
    try:
        # Again: the files may have changed since it was admitted.
        if fault := difference(order.version):
            return Reply(worker, refusal=fault)
        if missing := tuple(filter(lacks, set(order.files.values()))):
            return Reply(worker, lacks=missing)
        with tempfile.TemporaryDirectory(prefix="notch-") as folder:
            return _executed(order, worker, Path(folder).resolve())
    except (OneLine, OSError) as error:
        return Reply(worker, refusal=f"{type(error).__name__}: {error}")


def lay_out(order: Order, folder: Path) -> None:
    """Make a folder of runs with the ledger and the files of an order, under the names that they have at home."""
    (folder / LEDGER).write_bytes(order.ledger)
    for name, digest in order.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        # Linked and not copied: adapters are large, and rows of one study share theirs.
        (folder / name).symlink_to(kept(digest))


def _executed(order: Order, worker: str, folder: Path) -> Reply:
    """The same in a folder of runs that has what the order names. Raises OneLine, OSError."""
    lay_out(order, folder)
    runnable = execute.accept(order.template, order.parameters, folder)
    # A model's own folder has the same path here, and may hold other weights: the key knows its content.
    if runnable.key != order.key:
        return Reply(worker, refusal=f"the weights of model {runnable.model!r} are others than the coordinator's")
    kernels: set[int] = set()
    under_way = (order.session, kernels)
    _running.append(under_way)
    try:
        done = carried_out(order.template, order.parameters, runnable, kernels)
    finally:
        _running.remove(under_way)
    # The paths and secrets of this machine are unknown to the coordinator, which looks for its own before it seals.
    text = json.dumps(done.notebook, ensure_ascii=False).replace(str(folder), "runs")
    if secret := held([text]):
        return Reply(worker, refusal=f"the notebook holds the value of its {secret}")
    files = None if done.record is None else runnable.files(done.record)
    error = done.error
    if error:
        message = without_paths(error.message.replace(str(folder), "runs"), runnable.model)
        error = replace(error, message=message)
    return Reply(worker, (), "", without_paths(text, runnable.model), error, files)
