"""notch loop, log, propose, next: the door to the autoresearch loop.

Knows options and lines. Does not know what a loop does.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import click

from lib.cli.options import (
    AS_JSON,
    SCHEDULER,
    SEALED_RUNS,
    WORKERS,
    check_workers,
    folder_of,
    line,
    say_report,
    values,
)
from lib.files import Exit, writable
from lib.show import visible

shown = partial(click.option, show_default=True)
AT_ONCE = 4  # on a cluster, where nobody says
BASE = ("model", "judge", "batch", "judging", "min_effect", "seed")


def _folder_of(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> tuple[Path, int]:
    """A whole number is a count of runs, anything else a folder; `./20` is a folder of that name."""
    counts = [int(text) for text in given if text.isdigit()]
    folders = [Path(text) for text in given if not text.isdigit()]
    if len(counts) > 1 or len(folders) > 1:
        raise click.BadParameter("give it once with a number and once with a folder", ctx, param)
    if folders and folders[0].is_file():
        raise click.BadParameter(f"{folders[0]} is a file; expected a number of runs or a folder", ctx, param)
    return folder_of(ctx, param, folders[0] if folders else None), counts[0] if counts else 20


RUNS_AND_COUNT = click.option(
    "--runs", multiple=True, metavar="N|DIR", callback=_folder_of,
    help="A number: how many sealed runs the folder shall hold in the end, so that calling it again resumes "
    "(default: 20). A folder: where they are (default: runs). Give it twice for both; a folder called 20 is ./20.",
)  # fmt: skip
STEER = click.option(
    "--steer", "steer_folder", type=click.Path(file_okay=False, path_type=Path), default=None,
    help="Folder of the steering files (default: steer, beside the folder of runs).",
)  # fmt: skip
PARAMETERS = click.option(
    "-p", "parameters", nargs=2, multiple=True, metavar="NAME VALUE",
    help=f"What all runs have in common: {', '.join(BASE)}.",
)  # fmt: skip


def base_of(parameters: tuple[tuple[str, str], ...], runs: Path) -> Any:
    """The common parameters. Raises BadParameters on another name or a wrong type."""
    from lib.forms import fill
    from lib.lab.experiment import Experiment
    from lib.loop.validate import Base

    base = fill(Base, values(parameters))
    Experiment(**base.baseline, folder=runs).check()
    return base


@click.command()
@RUNS_AND_COUNT
@STEER
@shown("--proposer", type=click.Choice(["search", "claude", "plan", "none"]), default="search",
       help="Who proposes; none: only what `notch propose` queues.")  # fmt: skip
@click.option("--plan", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="With --proposer plan: a YAML or JSONL file of proposals.")  # fmt: skip
@click.option("--proposer-model", default=None, help="With --proposer claude: the model that proposes.")
@PARAMETERS
@shown("--seed", default=0, help="Of the proposer search.")
@click.option("--dollars", default=0.0, help="Most that judge and proposer may cost, over the folder; 0 is no limit.")
@click.option("--minutes", default=0.0, help="Most that this call may take; 0 is no limit.")
@shown("--crashes", default=3, help="Crashed runs in a row after which it ends; 0 is no limit.")
@shown("--refusals", default=20, help="Refused proposals in a row after which it ends; 0 is no limit.")
@shown("--patience", default=5,
       help="Attempts without a keep after which a proposal must leave the champion's class; 0 is never.")  # fmt: skip
@shown("--repeats", default=2, help="Further looks at an indecisive run, where they can differ.")
@click.option("--screen/--no-screen", default=True, help="Reject early on the dev gate (it never keeps).")
@click.option("--confirm/--no-confirm", default=True, help="Look at the sealed gate for each new champion.")
@WORKERS
@SCHEDULER
@click.option("--at-once", type=click.IntRange(1, 64), default=None,
              help="Proposals made from one state of the ledger, screened at a time and decided at a time (default: as "
              "many as --workers, 4 with --scheduler). What comes out depends on it, and not on who executes.")  # fmt: skip
@shown("--wait", default=60.0, help="Seconds of the first wait at a usage limit; it doubles.")
@shown("--most-wait", default=7200.0, help="Seconds of waiting in a row after which it ends.")
@click.option(
    "--accept-measure", is_flag=True, help="Go on though measuring code changed since the last call; kept as an event."
)
@click.option("--report/--no-report", default=True, help="Write the report at the end.")
def loop(runs: tuple[Path, int], steer_folder: Path | None, parameters: Any, report: bool, **options: Any) -> int:
    """Run experiments unattended: propose, check, screen, decide, confirm, record, until the folder holds N runs.

    Calling the same again goes on where it was. The folder `steer` beside the runs steers it: next.md (one wish),
    standing.md, bans.txt, budget.yaml, PAUSE, STOP.
    """
    from lib.loop import steering
    from lib.loop.loop import Loop, Settings
    from lib.loop.next_run import Rules
    from lib.loop.steering import Limits

    check_workers(options["workers"], options["scheduler"])
    options["at_once"] = options["at_once"] or (AT_ONCE if options["scheduler"] else options["workers"])
    folder, total = runs
    settings = Settings(
        total=total,
        base=base_of(parameters, folder),
        rules=Rules(**_those_of(Rules, options)),
        limits=Limits(**_those_of(Limits, options)),
        **_those_of(Settings, options),
    )
    ask = _proposer(*(options[name] for name in ("proposer", "plan", "proposer_model", "seed", "dollars")))
    with contextlib.closing(ask) if options["proposer"] == "claude" else contextlib.nullcontext():
        code = _follow(Loop(folder, steer_folder or steering.default_folder(folder), settings, ask))
    _closing(folder, report)
    return code


def _those_of(form: type, options: dict[str, Any]) -> dict[str, Any]:
    """The options that a form has fields for."""
    return {field.name: options[field.name] for field in fields(form) if field.name in options}


def _proposer(name: str, plan: Path | None, model: str | None, seed: int, dollars: float) -> Any:
    """A proposer by name, None for none. Raises BadParameters, NoKey, UnknownModel."""
    from lib.lab.base import BadParameters

    if (plan is not None) != (name == "plan"):
        raise BadParameters("--plan FILE goes with --proposer plan, and the other way round")
    if model is not None and name != "claude":
        raise BadParameters(f"--proposer-model {model} and --proposer {name}: only the proposer claude has a model")
    if seed and name != "search":
        raise BadParameters(
            f"--seed {seed} and --proposer {name}: only the proposer search draws; -p seed is the runs' own"
        )
    if name == "claude":
        from lib.claude.client import check_key
        from lib.loop.proposers.claude import CAP, MODEL, ClaudeProposer

        # Now: without a key it would fail only at its first turn, after the runs that are due before.
        check_key()
        return ClaudeProposer(model or MODEL, dollars or CAP)
    if name == "plan":
        from lib.loop.proposers.plan import Plan

        return Plan(plan)  # type: ignore[arg-type]
    if name == "search":
        from lib.loop.proposers.search import Search

        return Search(seed)
    return None


def _follow(work: Any) -> int:
    """Say what a loop does, a line a thing."""
    from lib.loop import steering
    from lib.report import site
    from lib.report.live import Live
    from lib.runs.seal import sealed_folders

    began, ran, new = time.time(), 0, not work.folder.exists()
    live = Live(work.folder, site.page_path(work.folder, "live"), "loop", work.settings.total)
    work.tell = lambda what: live.show(len(sealed_folders(work.folder)), what)
    with live:
        work.environment = live.environment
        for progress in work.run():
            if new:  # a count that was written in words would be a folder
                click.echo(f"{work.folder.name} is a new folder of runs; how many is a number (--runs 20)")
                new = False
            if progress.record:
                ran += 1
                click.echo(f"{progress.message:9} {line(progress.record, work.folder)}")
            # `ended` says the same in a moment.
            elif progress.what != "idle":
                click.echo(visible(f"{progress.what:9} {progress.message}"))
            live.show(len(sealed_folders(work.folder)), f"{progress.what} {progress.message}", bool(progress.record))
        live.end(f"{ran} runs")
    click.echo(f"{ran} runs in {time.time() - began:.0f} s")
    here, total = len(sealed_folders(work.folder)), work.settings.total
    # More runs asked for would end there too.
    stopped = (work.steer_folder / steering.STOP).exists()
    if not ran and 0 < total <= here and not work.settings.queue_only and not stopped:
        click.echo(f"nothing to do: --runs {total} is how many the folder holds in the end; --runs {here + 20} adds 20")
    return work.end


def _closing(folder: Path, report: bool) -> None:
    """Say what was learnt and what it cost; with `report` also write the report and say where it lies."""
    from lib.loop import lessons
    from lib.loop.events import Events
    from lib.loop.next_run import dollars
    from lib.report import site, tables
    from lib.runs.ledger import Ledger

    ledger = Ledger.read(folder)
    for sentence in lessons.sentences(ledger, tables.latest(ledger)):
        click.echo(f"  {sentence}")
    click.echo(f"cost so far: ${dollars(ledger, Events(folder).rows):.2f}")
    if report and ledger.records:
        site.write(folder, None)
        say_report(folder)


def view_of(folder: Path, steer_folder: Path, parameters: Any) -> Any:
    """The state of a folder as a proposer sees it. Raises BadParameters, Tampered."""
    from lib.lab.experiment import Experiment
    from lib.loop import next_run
    from lib.loop.events import Events
    from lib.loop.steering import Limits

    base = base_of(parameters, folder)
    fingerprint = Experiment(**base.baseline, folder=folder).fingerprint
    return next_run.view(Events(folder), steer_folder, base, Limits(), fingerprint, next_run.Rules())


@click.command()
@SEALED_RUNS
@STEER
@PARAMETERS
@AS_JSON
def log(runs: Path, steer_folder: Path | None, parameters: Any, as_json: bool) -> int:
    """Print what a proposer may know: what waits, champion, last runs, lessons, worst dev cases, steering, the menu."""
    from lib.loop import next_run, steering
    from lib.loop.view import as_text, shown

    where = steer_folder or steering.default_folder(runs)
    view = view_of(runs, where, parameters)
    waiting = shown(next_run.waiting(view, next_run.Rules(), steering.queued(where)))
    if as_json:
        text = json.dumps({**view.plain, "waiting": waiting}, indent=1, ensure_ascii=False) + "\n"
    else:
        text = as_text(view, waiting)
    click.echo(visible(text), nl=False)
    return Exit.OK


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--by", default="agent", show_default=True, help="Who proposes; stands in the record.")
@SEALED_RUNS
@STEER
@PARAMETERS
def propose(file: Path, by: str, runs: Path, steer_folder: Path | None, parameters: Any) -> int:
    """Check a proposal (a JSON file) and queue it for the loop. A refused one is recorded with its reason."""
    from lib.agent.prompt import one_line
    from lib.loop import steering
    from lib.loop.loop import refused
    from lib.loop.proposal import Proposal, Refused

    where = steer_folder or steering.default_folder(runs)
    for folder in (runs, where):
        writable(folder, "choose others with --runs and --steer")
    view, text = view_of(runs, where, parameters), file.read_text(encoding="utf-8", errors="replace")
    try:
        proposal = Proposal.read(text)
        view.validate(proposal)
    except Refused as error:
        event = refused(view.events, text, error, by=by, asked="", fingerprint=view.fingerprint)
        click.echo(f"notch: refused, {one_line(str(error))} (event {event['n']})", err=True)
        return Exit.FAILED
    path = steering.enqueue(where, proposal.as_dict(), by)
    click.echo(f"queued as {path.name}; `notch next` runs it, or the loop when its turn comes")
    return Exit.OK


@click.command(name="next")
@SEALED_RUNS
@STEER
@PARAMETERS
@click.option("--accept-measure", is_flag=True, help="Go on though measuring code changed since the last call.")
def next_command(runs: Path, steer_folder: Path | None, parameters: Any, accept_measure: bool) -> int:
    """Run what is due: the open proposal, what is queued, looks at the sealed gate. Asks no proposer."""
    from lib.loop import steering
    from lib.loop.loop import Loop, Settings

    settings = Settings(base=base_of(parameters, runs), accept_measure=accept_measure, queue_only=True)
    return _follow(Loop(runs, steer_folder or steering.default_folder(runs), settings))
