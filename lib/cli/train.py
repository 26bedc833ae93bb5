"""notch train: an adapter from the command line, from a run's adapter on, or from a request that a person approved."""

from __future__ import annotations

import contextlib
import getpass
import json
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from lib.cli.options import AS_JSON, PARAMETERS, RUNS, YAML, values
from lib.files import ROOT, Exit

MINUTE = 60.0  # s between two lines where there is no terminal


@click.command()
@PARAMETERS
@YAML
@click.option("--name", default="", help="Slug of the run (default: from method and data).")
@click.option("--from-run", default="", metavar="RUN", help="Go on from the adapter of this run.")
@click.option("--request", default="", metavar="ID", help="Train what was asked for, once a person approved it.")
@click.option("--approve", is_flag=True, help="With --request: say yes to it. Trains nothing yet.")
@click.option("--reject", default="", metavar="WHY", help="With --request: say no, and why.")
@click.option("--who", default="", help="Who approves or rejects (default: you).")
@click.option("--requests", "listed", is_flag=True, help="List what was asked for.")
@click.option("--steer", type=click.Path(file_okay=False, path_type=Path), default=None,
              help="Folder of requests (default: steer/requests beside the runs).")  # fmt: skip
@RUNS
@AS_JSON
def train(parameters: Any, as_yaml: Any, name: str, from_run: str, request: str, approve: bool, reject: str,
          who: str, listed: bool, steer: Path | None, runs: Path, as_json: bool) -> int:  # fmt: skip
    """Train an adapter and seal it as a run. It is measured by experiments that use it (`-p adapter RUN`)."""
    from lib.lab.base import BadParameters
    from lib.loop import training_requests as requests

    if (approve or reject) and not request:
        raise BadParameters("--approve and --reject go with --request ID")
    steer = steer or requests.default_folder(runs)
    if listed:
        for one in requests.requests(steer):
            click.echo(
                f"{one.id}: {one.state}, expected {one.expected:+.3f}, {' '.join(one.why.split())} {one.unchecked}".rstrip()
            )
        return Exit.OK
    if approve or reject:
        who = who or getpass.getuser()
        decided = requests.reject(steer, request, reject, who) if reject else requests.approve(steer, request, who)
        click.echo(f"{decided.id} is {decided.state}" + (f"; now: {decided.command}" if approve else ""))
        return Exit.OK
    given = values(parameters, as_yaml)
    if from_run:
        from lib.runs.ledger import Ledger

        record = Ledger.read(runs).get(from_run)
        if not (runs / record["id"] / "adapter").is_dir():
            raise BadParameters(f"{record['id']} has no adapter; --from-run names a run of `notch train`")
        given = {"model": record["model"], **given, "adapter": record["id"]}
    record = _asked(request, given, name, steer, runs) if request else _train(given, name, runs)
    click.echo(json.dumps(record.as_dict(), indent=1, ensure_ascii=False) if as_json else summary(record, runs))
    return Exit.OK


def summary(record: dict[str, Any], runs: Path) -> str:
    """One line about a training, and one with the command that measures it."""
    found = record["found"]
    where = "" if runs.resolve() == (ROOT / "runs").resolve() else f" --runs {runs}"
    then = f'\nmeasure it: notch run -p lever adapter -p adapter {record["id"]} -p model {record["model"]} -p hypothesis "..."{where}'
    if not found["curve"]:
        return f"{record['id']}: {len(record['found']['parameters']['merge'])} adapters merged, {found['adapter_bytes'] / 1000:.0f} kB{then}"
    first, last = found["curve"][0], found["curve"][found["epoch"]]
    return (
        f"{record['id']}: {found['method']} on {found['data']['train']} pairs in {record['seconds']:.0f} s, valid loss "
        f"{first['valid_loss']:.3f} -> {last['valid_loss']:.3f} at epoch {found['epoch']}, adapter of "
        f"{found['adapter_bytes'] / 1000:.0f} kB{then}"
    )


def _asked(request: str, given: dict[str, Any], name: str, steer: Path, runs: Path) -> dict[str, Any]:
    """Train an approved request; its state follows what happens."""
    from lib.lab.base import BadParameters
    from lib.loop import training_requests as requests

    one = requests.get(steer, request)
    if given:
        raise BadParameters(f"request {one.id} has its own parameters; -p and -y would train something else")
    if one.state != "approved":
        raise BadParameters(
            f"request {one.id} is {one.state}; only an approved one is trained (--approve, by a person)"
        )
    # Without a hash the pairs are made, guarded and paid for by the training itself, as the request says.
    now = one.training.check().data_hash if one.data else ""
    if now != one.data:
        raise BadParameters(
            f"request {one.id}: its data is {now[:12]} now, {one.data[:12]} was approved; open a new request"
        )
    requests.advance(steer, one.id, "running")
    try:
        record = _train({**one.parameters, "request": one.id}, name or one.id[5:], runs)
    except BaseException as error:
        requests.advance(steer, one.id, "approved", why=f"the training failed: {' '.join(str(error).split())[:200]}")
        raise
    requests.advance(steer, one.id, "delivered", run=record["id"])
    return record


def _train(parameters: dict[str, Any], name: str, runs: Path) -> dict[str, Any]:
    from lib.lab import execute
    from lib.lab.training import PROGRESS

    with bar() as progress:
        return execute.run("11_train", parameters, name, runs, environment={PROGRESS: str(progress)})


@contextlib.contextmanager
def bar() -> Iterator[Path]:
    """What the kernel tells of its progress, through a file: a bar on a terminal, a line a minute elsewhere."""
    done, terminal = threading.Event(), sys.stderr.isatty()
    with tempfile.TemporaryDirectory(prefix="notch-") as temp:
        path = Path(temp) / "progress"

        def follow() -> None:
            while not done.wait(0.5 if terminal else MINUTE):
                if path.exists():
                    state = path.read_text(encoding="utf-8")
                    click.echo(f"\r{state}" if terminal else state.rstrip(), err=True, nl=not terminal)

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield path
        finally:
            done.set()
            thread.join()
            if terminal:
                click.echo("\r\x1b[K", err=True, nl=False)
