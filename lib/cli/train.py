"""notch train: an adapter from the command line, from a run's adapter on, or from a request that a person approved."""

from __future__ import annotations

import getpass
import json
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lib.cli.options import AS_JSON, PARAMETERS, RUNS, must_exist, progress, values
from lib.files import PROGRESS, ROOT, Exit

if TYPE_CHECKING:
    from lib.runs.record import TrainingRecord


@click.command()
@PARAMETERS
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
def train(parameters: Any, name: str, from_run: str, request: str, approve: bool, reject: str,
          who: str, listed: bool, steer: Path | None, runs: Path, as_json: bool) -> int:  # fmt: skip
    """Train an adapter and seal it as a run. It is measured by experiments that use it (`-p adapter RUN`)."""
    from lib.lab.base import BadParameters
    from lib.loop import training_requests as requests

    given = values(parameters)
    _refuse_both({"--requests": listed, "--approve": approve, "--reject": reject, "--from-run": from_run})
    _refuse_both({"--request": request, "--requests": listed, "--from-run": from_run, "-p": given and not from_run})
    if (approve or reject) and not request or who and not (approve or reject):
        raise BadParameters("--approve and --reject go with --request ID, and --who with one of the two")
    if listed and not steer:
        must_exist(runs)
    steer, who = steer or requests.default_folder(runs), who or _you()
    if listed:
        for one in requests.requests(steer):
            why = " ".join(one.why.split())
            click.echo(f"{one.id}: {one.state}, expected {one.expected:+.3f}, {why} {one.unchecked}".rstrip())
        return Exit.OK
    if reject:
        click.echo(f"{requests.reject(steer, request, reject, who).id} is rejected")
        return Exit.OK
    if approve:
        one = requests.approve(steer, request, who)
        click.echo(f"{one.id} is {one.state}; now: {one.command}")
        return Exit.OK
    if request:
        record = _train_request(steer, request, name, runs)
    else:
        record = _train(_going_on(given, from_run, runs), name, runs)
    click.echo(json.dumps(record.as_dict(), indent=1, ensure_ascii=False) if as_json else summary(record, runs))
    return Exit.OK


def _you() -> str:
    """The name of whoever calls, or the number where the system has no name for it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def _refuse_both(options: dict[str, Any]) -> None:
    """Refuse two options of which one would have no effect."""
    from lib.lab.base import BadParameters

    both = [option for option, value in options.items() if value]
    if len(both) > 1:
        raise BadParameters(f"{both[0]} and {both[1]} cannot act together; take one of the two out")


def _going_on(given: dict[str, Any], from_run: str, runs: Path) -> dict[str, Any]:
    """Parameters of a training that goes on from the adapter of a run, if one is named."""
    from lib.lab.base import BadParameters
    from lib.runs.ledger import Ledger

    if not from_run:
        return given
    _refuse_both({"--from-run": from_run, "-p adapter": given.get("adapter")})
    record = Ledger.read(runs).get(from_run)
    if not (runs / record.id / "adapter").is_dir():
        raise BadParameters(f"{record.id} has no adapter; --from-run names a run of `notch train`")
    return {"model": record.model, **given, "adapter": record.id}


def _train_request(steer: Path, request: str, name: str, runs: Path) -> TrainingRecord:
    """Train an approved request; its state follows what happens."""
    from lib.lab.base import BadParameters
    from lib.loop import training_requests as requests

    one = requests.get(steer, request)
    if one.state != "approved":
        raise BadParameters(
            f"request {one.id} is {one.state}; only an approved one is trained (--approve, by a person)"
        )
    # Without a hash the pairs are made, guarded and paid for by the training itself, as the request says.
    now = one.training(runs).check().data_hash if one.data else ""
    if now != one.data:
        raise BadParameters(
            f"request {one.id}: its data is {now[:12]} now, {one.data[:12]} was approved; open a new request"
        )
    requests.advance(steer, one.id, "running")
    try:
        record = _train({**one.parameters, "request": one.id}, name or one.id[5:], runs)
    # Also where a person stops it: a request that stays running could not be trained any more.
    except BaseException as error:
        requests.advance(steer, one.id, "approved", why=f"the training failed: {' '.join(str(error).split())[:200]}")
        raise
    requests.advance(steer, one.id, "delivered", run=record.id)
    return record


def _train(parameters: dict[str, Any], name: str, runs: Path) -> TrainingRecord:
    """The sealed record of 11_train, run with its progress shown. Raises what `execute.run` raises."""
    from lib.lab import execute

    with progress() as folder:
        carry = partial(execute.carry_out, environment={PROGRESS: str(folder)})
        return execute.run("11_train", parameters, name, runs, carry=carry)  # type: ignore[return-value]


def summary(record: TrainingRecord, runs: Path) -> str:
    """One line about a training, and one with the command that measures it."""
    what, size = record.found, f"{record.found.adapter_bytes / 1000:.0f} kB"
    if what.curve:
        first, last = what.curve[0]["valid_loss"], what.curve[what.epoch]["valid_loss"]
        done = (f"{what.method} on {what.data['train']} pairs in {record.seconds:.0f} s, valid loss {first:.3f} -> "
                f"{last:.3f} at epoch {what.epoch}, adapter of {size}")  # fmt: skip
    else:
        done = f"{len(what.parameters['merge'])} adapters merged, {size}"
    where = "" if runs.resolve() == (ROOT / "runs").resolve() else f" --runs {runs}"
    use = f'notch run -p lever adapter -p adapter {record.id} -p model {record.model} -p hypothesis "..."{where}'
    return f"{record.id}: {done}\nmeasure it: {use}"
