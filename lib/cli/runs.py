"""notch doctor, freeze, run, seal, calibrate, rejudge, report, verify: one command, one thing done."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click

from lib.cli.options import AS_JSON, JUDGE, PARAMETERS, RUNS, SEALED_RUNS, line, progress, say_report, values
from lib.files import PROGRESS, ROOT, RULER, Exit, Tampered, locked
from lib.show import visible


@click.command()
@click.option("--try", "model", metavar="MODEL", help="Try a model instead: load, batch, the dev gate, twenty steps of "
              "training, and how long and how dear a study would be. Seals nothing.")  # fmt: skip
@RUNS
@AS_JSON
def doctor(model: str | None, runs: Path, as_json: bool) -> int:
    """Say what this machine has, what is missing and what to do about it."""
    from lib.desk import doctor

    if model is not None:
        return _try(model, as_json)
    machine = doctor.doctor(runs)
    if as_json:
        click.echo(json.dumps(machine, indent=1))
    else:
        for row in machine["checks"]:
            click.echo(f"{'ok ' if row['ok'] else '-- '} {row['what']}: {row['found']}")
    if machine["ok"]:
        return Exit.OK
    return Exit.MISSING


def _try(model: str, as_json: bool) -> int:
    """Print the figures of a trial, each as soon as it is there; together they are what to paste into a report."""
    from lib.desk.trial import trial

    figures = []
    with progress() as folder:
        os.environ[PROGRESS] = str(folder)
        try:
            for figure in trial(model):
                figures.append(figure)
                if sys.stderr.isatty():
                    click.echo("\r\x1b[K", err=True, nl=False)  # the bar of what went before
                if not as_json:
                    # As a list of Markdown: lines alone would be one paragraph in a report.
                    click.echo(f"- {'' if figure.ok else 'FAILED '}{figure.what}: {visible(figure.value)}")
        finally:
            del os.environ[PROGRESS]
    if as_json:
        click.echo(json.dumps([asdict(figure) for figure in figures], indent=1))
    if all(figure.ok for figure in figures):
        return Exit.OK
    return Exit.FAILED


@click.command()
@click.option("--ruler", type=click.Path(path_type=Path, file_okay=False), default=RULER, show_default="ruler")
def freeze(ruler: Path) -> int:
    """Seal a ruler, once. A frozen ruler is never changed: copy it to a new folder and freeze that."""
    from lib.measure.keep import reach
    from lib.measure.ruler import Ruler
    from lib.measure.ruler import freeze as seal_ruler

    try:
        seal = seal_ruler(ruler)
    except FileExistsError:
        click.echo(
            f"notch: {ruler / 'FROZEN'} exists; a frozen ruler stays as it is, copy it to a new folder first", err=True
        )
        return Exit.FAILED
    click.echo(f"{ruler} is frozen as {seal[:12]}: {reach(case.gate for case in Ruler.load(ruler).cases)}")
    return Exit.OK


class RunCommand(click.Command):
    """Help that ends in what `-p` takes, read from the code only when somebody asks."""

    def format_epilog(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        from lib.lab import execute
        from lib.lab.experiment import LEVERS, STEPS

        names = {"parameters": execute.defaults_of(execute.EXPERIMENT), "lever": LEVERS, "pipeline": sorted(STEPS)}
        with formatter.section("What -p takes (10_experiment.ipynb says it of each, `notch log` of each step)"):
            formatter.write_dl([(name, ", ".join(values)) for name, values in names.items()])


@click.command(cls=RunCommand)
@PARAMETERS
@click.option("--name", default="", help="Slug of the run (default: from lever and steps).")
@RUNS
@AS_JSON
def run(parameters: tuple[tuple[str, str], ...], name: str, runs: Path, as_json: bool) -> None:
    """Run one experiment and seal it.

    \b
    notch run -p lever prompting -p predicted 0.02 \\
      -p hypothesis "Told to be concrete, it asks for amounts and dates." \\
      -p pipeline '[{step: ask, advice: ["Ask for amounts and dates."]}]'
    """
    from lib.lab import execute

    if changed := ", ".join(execute.settled(execute.EXPERIMENT, {})):
        click.echo(f"10_experiment.ipynb has other values for {changed}: they are for a run by hand; give -p", err=True)
    with progress() as folder:
        carry = partial(execute.carry_out, environment={PROGRESS: str(folder)})
        record = execute.run(execute.EXPERIMENT, values(parameters), name, runs, carry=carry)
    click.echo(json.dumps(record.as_dict(), indent=1, ensure_ascii=False) if as_json else line(record, runs))


@click.command(name="seal")
@click.argument("notebook", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", default="", help="Slug of the run (default: the file's name).")
@RUNS
def seal_command(notebook: Path, name: str, runs: Path) -> None:
    """Adopt a notebook that papermill itself executed."""
    from lib.lab import execute

    click.echo(line(execute.seal_notebook(notebook, name, runs), runs))


@click.command()
@JUDGE
@click.option("--against", multiple=True, metavar="FILE",
              help="Compare with a file of stored verdicts instead; may be given several times. 'verdicts' takes sixty "
                   "of those that Claude gave by hand on this ruler. Seals nothing.")  # fmt: skip
@PARAMETERS
@click.option("--name", default="", help="Slug of the run (default: calibrate).")
@RUNS
def calibrate(judge: str, against: tuple[str, ...], parameters: Any, name: str, runs: Path) -> None:
    """Measure the judge and its noise on texts whose faults are known, and seal what came out."""
    if against:
        _against(judge, against, values(parameters), runs)
    else:
        _seal("14_calibrate", values(parameters) | {"judge": judge}, name, runs)


@click.command()
@click.argument("run", nargs=-1, required=True)
@click.option("--without", required=True, metavar="DIMENSION", help="The dimension that the judge is not to see.")
@JUDGE
@PARAMETERS
@click.option("--name", default="", help="Slug of the run (default: rejudge-without-DIMENSION).")
@SEALED_RUNS
def rejudge(run: tuple[str, ...], without: str, judge: str, parameters: Any, name: str, runs: Path) -> None:
    """Judge the stored answers of runs again without one dimension, beside a placebo with all five."""
    question = {"runs": list(run), "without": without.replace("-", "_"), "judge": judge}
    _seal("13_rejudge", values(parameters) | question, name, runs)


def _seal(template: str, parameters: dict[str, Any], name: str, runs: Path) -> None:
    """Run a template that measures the measure; what it takes is said before it is spent."""
    from lib.lab import execute

    click.echo(execute.accept(template, parameters, runs).plan, err=True)
    click.echo(line(execute.run(template, parameters, name, runs)))


def _against(judge: str, files: tuple[str, ...], parameters: dict[str, Any], runs: Path) -> None:
    """Compare a judge with stored verdicts. What is bought of texts of others is thrown away with their names; of the
    ruler's own it stays in the store, so that a second call pays for nothing twice."""
    import tempfile

    from lib.lab.base import BadParameters, judge_named
    from lib.measure.checks import against
    from lib.measure.checks.agreement import agreement

    if parameters.keys() - {"judging", "batch"}:
        raise BadParameters("with --against only judging and batch can be set")
    stored = click.Path(exists=True, dir_okay=False, path_type=Path)
    judged: list[against.Stored] = []
    unjudged = 0
    for file in files:
        if file == "verdicts":
            judged += against.by_hand()
        else:
            rows, missing = against.read(stored.convert(file, None, None))
            judged += rows
            unjudged += missing
    with tempfile.TemporaryDirectory(prefix="notch-") as temp:
        folder = runs if set(files) == {"verdicts"} else Path(temp)
        the_judge = judge_named(judge, None, bool(parameters.get("batch")), parameters.get("judging"), folder)
        if hasattr(the_judge, "check"):
            the_judge.check()
        pairs, unscored = against.compare(the_judge, judged)
    click.echo(against.text(agreement(pairs), unjudged, unscored))
    if paid := getattr(the_judge, "cost", None):
        click.echo(f"{paid.calls} calls for ${paid.dollars:.2f}, {paid.stored} replies from the store")
    if judge == "offline":
        click.echo("The offline judge was fitted to verdicts on 27 tasks of this ruler: on those this is flattery, and "
                   "`python -m scripts.fit_offline_judge` says how far it agrees on tasks that shaped nothing.")  # fmt: skip


@click.command()
@SEALED_RUNS
@click.option(
    "--html", type=click.Path(file_okay=False, path_type=Path), help="Also write every run as pages into DIR."
)
def report(runs: Path, html: Path | None) -> None:
    """Write the index notebooks, the figures and the pages."""
    from lib.report import site

    site.write(runs, html)
    say_report(runs)
    if html:
        click.echo(f"pages: open {html / 'index.html'}")


@click.command()
@SEALED_RUNS
@click.option("--repair", is_flag=True, help="Add sealed runs that an interruption kept out of the ledger.")
@click.option(
    "--anew", is_flag=True, help="Compute scores again too that followed at an earlier call, by the same code."
)
@AS_JSON
def verify(runs: Path, repair: bool, anew: bool, as_json: bool) -> int:
    """Check every byte of ruler and runs against the seals, and compute every score again."""
    from lib.claude import store
    from lib.loop import events
    from lib.measure.ruler import Ruler
    from lib.runs.seal import sealed_folders, sync
    from lib.runs.verify import verify as verify_runs
    from lib.weights import cache

    faults: list[str] = []
    repaired: list[str] = []
    try:
        Ruler.load(RULER)
    except Tampered as error:
        faults += str(error).split("; ")  # one error names every file
    if repair and runs.exists():
        with locked(runs / ".lock"):
            repaired = sync(runs)
    kept = None if anew else cache() / "scores"
    faults += [*verify_runs(runs, kept), *store.verify(runs / store.NAME), *events.verify(runs)]
    count = len(sealed_folders(runs)) if runs.exists() else 0
    if as_json:
        click.echo(json.dumps({"ok": not faults, "runs": count, "wrong": faults, "repaired": repaired}, indent=1))
        if faults:
            return Exit.TAMPERED
        return Exit.OK
    for text in repaired:
        click.echo(text.replace(f"{ROOT}/", ""))
    for text in faults:
        click.echo(text.replace(f"{ROOT}/", ""), err=True)
    if faults:
        return Exit.TAMPERED
    click.echo(
        f"clean: the ruler and {count} sealed runs are as they were written, and every score follows from its judgments"
    )
    return Exit.OK
