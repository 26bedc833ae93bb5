"""notch study, confirm, compare: plans of runs, looks at the sealed gate, comparisons of models and of two runs."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lib.cli.options import (
    PARAMETERS,
    RUNS,
    SCHEDULER,
    SEALED_RUNS,
    WORKERS,
    check_workers,
    line,
    must_exist,
    say_report,
    values,
)
from lib.files import ROOT, Exit
from lib.show import visible

if TYPE_CHECKING:
    from lib.runs.record import Record


DOLLARS = 5.0  # of a batch, where nobody says


@click.command()
@click.argument("plan")
@RUNS
@click.option("--report/--no-report", default=True, help="Write the report at the end.")
@WORKERS
@SCHEDULER
@click.option("--batch", is_flag=True, help="Have Claude judge the runs of the plan in one message batch: half the price, "
              "up to a day. Cut off while it waits, the same call picks it up.")  # fmt: skip
@click.option("--dollars", type=click.FloatRange(min=0, min_open=True), default=None,
              help="With --batch: the most that it may cost, checked before it is sent (default: 5).")  # fmt: skip
def study(plan: str, runs: Path, report: bool, workers: int, scheduler: str, batch: bool, dollars: float | None) -> int:
    """Run a plan (a file, or a name in notebooks/plans). A second call runs only what is missing."""
    from tqdm import tqdm

    from lib.lab import study as studies
    from lib.lab.base import BadParameters
    from lib.report import site, tables
    from lib.report.live import Live
    from lib.runs.ledger import Ledger

    check_workers(workers, scheduler)
    if dollars and not batch:
        raise BadParameters("--dollars is the cap of --batch; without it each run has its own (judging: {dollars: 2})")
    the_plan = studies.read(plan)
    began, ran, crashed, unfinished = time.time(), 0, 0, 0
    live = Live(runs, site.page_path(runs, "live"), the_plan.name, len(the_plan.entries))
    entries: set[str] = set()  # a comparison of models reports once a candidate
    # disable=None is tqdm's word for: no bar where nobody sits at a terminal.
    with live, tqdm(total=len(the_plan.entries), desc=the_plan.name, unit="run", disable=None, leave=False) as bar:
        live.show(0, the_plan.entries[0].name)
        spend = (dollars or DOLLARS) if batch else None
        for progress in studies.run(the_plan, runs, workers, scheduler, spend, live.environment):
            ran += progress.state == "ran"
            crashed += progress.state == "crashed"
            unfinished += progress.state == "unfinished"
            if progress.state == "ran" and progress.record:
                bar.write(line(progress.record, runs))
            else:
                # A line break in it would pose as another line.
                name = " ".join(progress.entry.name.split())
                bar.write(visible(f"{name}: {progress.message or 'is sealed already'}"))
            if progress.entry.name not in entries:
                bar.update()
            entries.add(progress.entry.name)
            live.show(len(entries), the_plan.after(progress.entry), progress.state == "ran")
        live.end(f"{ran} runs, {crashed} crashed, {len(entries)} of {len(the_plan.entries)} rows of the plan done")
    if not ran and not crashed and not unfinished:
        click.echo("nothing to run: every run of this plan is sealed")
    else:
        counts = {"crashed": crashed, "wait for their judge": unfinished}
        failed = "".join(f", {count} {what}" for what, count in counts.items() if count)
        click.echo(f"{ran} runs in {time.time() - began:.0f} s{failed}")
    if report and (ran or not site.notebook_path(runs, "20_report").exists()):
        site.write(runs, None)
    # The project's own runs are what others are compared with.
    if runs.resolve() != (ROOT / "runs").resolve():
        here, there = Ledger.read(runs), Ledger.read(ROOT / "runs")
        if said := tables.reproduction(here, there):
            click.echo(said)
    if report:
        say_report(runs)
    if crashed or unfinished:
        return Exit.RUN_FAILED
    return Exit.OK


@click.command()
@click.argument("run", required=False, default="")
@click.option("--models", default="", metavar="A,B,...", help="Change only the model: candidates in the same harness on "
              "the full gate, the first to compare with; `smollm2+FOLDER` is a model with an adapter.")  # fmt: skip
@click.option("--base", default="", metavar="MODEL", help="Try a new base: the stock pipeline, the champion's and every "
              "anchor's on it, beside --old.")  # fmt: skip
@click.option(
    "--old", default="smollm2", show_default=True, metavar="MODEL", help="The base that --base stands beside."
)
@PARAMETERS
@click.option("--name", default="", help="Slug of the comparison (default: models, or base-MODEL).")
@RUNS
def confirm(run: str, models: str, base: str, old: str, parameters: Any, name: str, runs: Path) -> None:
    """Look at the sealed gate for a kept run (default: the champion); every look is counted.

    With --models or --base: compare models instead, on the full gate. Sealed runs are used again, missing ones run as
    anchors, and nothing of it is ever part of the climb. -p sets what is the same for all: pipeline, decoding, judge,
    judging, batch, seed, useful, hypothesis.
    """
    from lib.lab import study as studies
    from lib.lab.base import BadParameters
    from lib.runs.ledger import Ledger

    if bool(run) + bool(models) + bool(base) > 1:
        raise BadParameters("RUN, --models and --base are three different questions; ask one at a time")
    common = values(parameters)
    if models:
        _say_sides(studies.compare_models(runs, models.split(","), common, name))
        return
    if base:
        _say_sides(studies.compare_bases(runs, base, old, common, name))
        return
    if common or name:
        raise BadParameters(
            "-p and --name go with --models or --base; a look at the sealed gate repeats a kept run as it is"
        )
    if not run:  # a run that is named is looked for, and missed, below
        must_exist(runs)
    record = None
    for record in studies.confirm(Ledger.read(runs), run):
        click.echo(line(record))
    if not record:
        click.echo("no kept run to confirm")
    click.echo(f"{len(Ledger.read(runs).looks())} looks at the sealed gate so far")


def _say_sides(comparison: Iterable[tuple[str, Record]]) -> None:
    for state, record in comparison:
        click.echo(line(record) + (" (sealed already)" if state == "there" else ""))


@click.command()
@click.argument("first")
@click.argument("second")
@SEALED_RUNS
def compare(first: str, second: str, runs: Path) -> None:
    """Two sealed runs of one gate case by case: where the second is worse, where it is better, and how sure that is."""
    from lib.lab.base import BadParameters
    from lib.report import run_table
    from lib.runs.ledger import Ledger

    try:
        sentence, table = run_table.pairs(Ledger.read(runs), first, second)
    except ValueError as error:
        raise BadParameters(str(error)) from error
    click.echo(table.to_string(index=False, float_format="{:.3f}".format))
    click.echo(sentence)
