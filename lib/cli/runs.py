"""notch: the command line. The door to the house; everything it does lives in the rooms.

Exit codes: 0 ok, 1 a check failed, 2 usage, 3 missing prerequisite, 4 a run failed, 5 tampering found.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import click

from lib.files import ROOT, RULER, runs_at, runs_folder

OK, FAILED, USAGE, MISSING, RUN_FAILED, TAMPERED = range(6)


def main(argv: list[str] | None = None) -> None:
    """Entry point: every expected error is one line on stderr and an exit code."""
    os.environ.setdefault("MPLBACKEND", "Agg")
    try:
        code = notch.main(argv, prog_name="notch", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else OK)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(USAGE)
    except (click.Abort, KeyboardInterrupt):
        click.echo(
            "notch: stopped; what is sealed stays, call it again to go on (a training from its last epoch)", err=True
        )
        sys.exit(130)
    except Exception as error:
        code = exit_code(error)
        if code is None:
            raise
        click.echo(f"notch: {error}", err=True)
        sys.exit(code)


def exit_code(error: Exception) -> int | None:
    """The exit code of an expected error; None for one that is a defect of notch."""
    from lib.agent.guard import Leak
    from lib.agent.pipeline import BadPipeline
    from lib.lab.execute import RunFailed
    from lib.lab.experiment import BadParameters
    from lib.measure.against import BadVerdicts
    from lib.measure.claude import NoKey
    from lib.measure.ruler import BadRuler, Tampered
    from lib.measure.spend import CloudError, UnknownModel
    from lib.models.model import NoModel
    from lib.train.data import BadData

    table = (
        (Tampered, TAMPERED),
        (RunFailed, RUN_FAILED),
        ((NoModel, NoKey), MISSING),
        ((BadParameters, BadPipeline, BadData, Leak, UnknownModel), USAGE),
        (CloudError, RUN_FAILED),
    )
    for kinds, code in table:
        if isinstance(error, kinds):  # type: ignore[arg-type]
            return code
    if isinstance(error, (BadRuler, BadVerdicts)):
        return FAILED
    return RUN_FAILED if isinstance(error, OSError) else USAGE if isinstance(error, KeyError) else None


def runs_option(command: Any) -> Any:
    """--runs DIR, kept in the environment so that kernels see it."""

    def store(_: Any, __: Any, value: Path | None) -> Path:
        if value:
            os.environ["NOTCH_RUNS"] = str(Path(value).resolve())
        return runs_folder()

    return click.option(
        "--runs", type=click.Path(file_okay=False, path_type=Path), callback=store, expose_value=True,
        help="Folder of sealed runs (default: runs).",
    )(command)  # fmt: skip


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="notch")
def notch() -> None:
    """A research workbench: can a small on-device model do one narrow job as well as a frontier model?"""


@notch.command()
@runs_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(runs: Path, as_json: bool) -> int:
    """Say what this machine has, what is missing and what to do about it."""
    from lib.report import tables

    found = tables.doctor(runs)
    if as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        for row in found["checks"]:
            click.echo(f"{'ok ' if row['ok'] else '-- '} {row['what']}: {row['found']}")
    return OK if found["ok"] else MISSING


@notch.command()
@click.option("--ruler", type=click.Path(path_type=Path, file_okay=False), default=RULER, show_default="ruler")
def freeze(ruler: Path) -> int:
    """Seal a ruler, once. A frozen ruler is never changed: copy it to a new folder and freeze that."""
    from lib.measure.ruler import freeze as seal_ruler

    try:
        seal = seal_ruler(ruler)
    except FileExistsError:
        click.echo(
            f"notch: {ruler / 'FROZEN'} exists; a frozen ruler stays as it is, copy it to a new folder first", err=True
        )
        return FAILED
    click.echo(f"{ruler} is frozen as {seal[:12]}")
    return OK


@notch.command(context_settings={"ignore_unknown_options": False})
@click.option(
    "-p", "parameters", nargs=2, multiple=True, metavar="NAME VALUE", help="A parameter, as papermill spells it."
)
@click.option("-y", "--yaml", "as_yaml", multiple=True, metavar="YAML", help="Parameters as a YAML mapping.")
@click.option("--name", default="", help="Slug of the run (default: from lever and steps).")
@runs_option
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
def run(parameters: tuple[tuple[str, str], ...], as_yaml: tuple[str, ...], name: str, runs: Path, as_json: bool) -> int:
    """Run one experiment and seal it."""
    from lib.lab import execute
    from lib.lab.experiment import BadParameters

    told: dict[str, Any] = {}
    for text in as_yaml:
        value = _value("-y", text)
        if not isinstance(value, dict):
            raise BadParameters(f"-y {text!r}: expected a mapping such as '{{model: smollm2}}'")
        told |= value
    for key, text in parameters:
        told[key] = _value(key, text) if key not in ("hypothesis", "of", "adapter", "model") else text
    record = execute.run("10_experiment", told, name, runs)
    click.echo(json.dumps(record, indent=1, ensure_ascii=False) if as_json else line(record))
    return OK


def _value(name: str, text: str) -> Any:
    """A parameter's value as papermill reads it: YAML, and numbers such as 1e-3 too. Raises BadParameters."""
    import yaml

    from lib.lab.experiment import BadParameters

    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadParameters(f"{name} {text!r:.60}: not YAML ({' '.join(str(error).split())[:100]})") from error
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d+)?[eE][-+]?\d+", value):
        return float(value)
    return value


def line(record: dict[str, Any]) -> str:
    """One line about a run."""
    s, d = record["scores"], record["decision"]
    if not s or record["status"] == "invalid":
        return f"{record['id']}: {record['status']}, {d.get('reason', '')}"
    delta = f", {d['delta']:+.4f} against {d['against']} (p = {d['p']:.3g})" if d.get("delta") is not None else ""
    first = record["kind"] == "confirm" and not d.get("against")  # kept as what later looks must beat, not as a win
    return (f"{record['id']}: {'first look' if first else record['status']}, quality {s['quality']:.4f} "
            f"(W/T/L {s['wins']}/{s['ties']}/{s['losses']}, {s['no_answer']} without an answer){delta}")  # fmt: skip


@notch.command(name="seal")
@click.argument("notebook", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", default="", help="Slug of the run (default: the file's name).")
@runs_option
def seal_command(notebook: Path, name: str, runs: Path) -> int:
    """Adopt a notebook that papermill itself executed."""
    from lib.lab import execute

    click.echo(line(execute.seal_notebook(notebook, name, runs)))
    return OK


@notch.command()
@click.argument("plan")
@runs_option
@click.option("--report/--no-report", default=True, help="Write the report at the end.")
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Notebooks executed at a time; they are sealed in the order of the plan all the same.",
)
def study(plan: str, runs: Path, report: bool, workers: int) -> int:
    """Run a plan (a file, or a name in notebooks/plans). A second call runs only what is missing."""
    from tqdm import tqdm

    from lib.lab import study as studies

    the_plan = studies.read(plan)
    began, ran, crashed = time.time(), 0, 0
    seen: set[str] = set()  # a look at the sealed gate can report twice
    bar = tqdm(total=len(the_plan.entries), desc=the_plan.name, unit="run", disable=None, leave=False)
    for progress in studies.run(the_plan, runs, workers):
        ran += progress.state == "ran"
        crashed += progress.state == "crashed"
        said = {"there": "is sealed already", "crashed": progress.message, "nothing to do": progress.message}
        told = line(progress.record) if progress.state == "ran" and progress.record else said.get(progress.state, "")
        bar.write(told if progress.state == "ran" else f"{progress.entry.name}: {told}")
        bar.update(1 if progress.entry.name not in seen else 0)
        seen.add(progress.entry.name)
    bar.close()
    failed = f", {crashed} crashed" if crashed else ""
    nothing = "nothing to run: every run of this plan is sealed"
    click.echo(f"{ran} runs in {time.time() - began:.0f} s{failed}" if ran or crashed else nothing)
    if report and (ran or not _report_paths(runs)[0].exists()):
        write_report(runs, None)
    if runs.resolve() != (ROOT / "runs").resolve():
        from lib.lab.ledger import Ledger
        from lib.report import tables

        click.echo(
            tables.reproduction(Ledger.read(runs), Ledger.read(ROOT / "runs")) or "no run of runs/ to compare with"
        )
    if report:
        click.echo(f"report: {_show(_report_paths(runs)[0])} (rendered: {_show(_report_paths(runs)[1])})")
        for text in headlines(runs):
            click.echo(f"  {text}")
    return RUN_FAILED if crashed else OK


JUDGE = click.option("--judge", type=click.Choice(["offline", "claude"]), default="offline", show_default=True)
PARAMETERS = click.option("-p", "parameters", nargs=2, multiple=True, metavar="NAME VALUE",
                          help="A parameter of the notebook, as papermill spells it.")  # fmt: skip


@notch.command()
@JUDGE
@click.option("--against", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Compare with a file of stored verdicts instead; may be given several times. Seals nothing.")  # fmt: skip
@PARAMETERS
@click.option("--name", default="", help="Slug of the run (default: calibrate).")
@runs_option
def calibrate(judge: str, against: tuple[Path, ...], parameters: Any, name: str, runs: Path) -> int:
    """Measure the judge and its noise on texts whose faults are known, and seal what came out."""
    if against:
        return _against(judge, against, parameters)
    return _seal("14_calibrate", {k: _value(k, v) for k, v in parameters} | {"judge": judge}, name, runs)


@notch.command()
@click.argument("run", nargs=-1, required=True)
@click.option("--without", required=True, metavar="DIMENSION", help="The dimension that the judge is not to see.")
@JUDGE
@PARAMETERS
@click.option("--name", default="", help="Slug of the run (default: rejudge-without-DIMENSION).")
@runs_option
def rejudge(run: tuple[str, ...], without: str, judge: str, parameters: Any, name: str, runs: Path) -> int:
    """Judge the stored answers of runs again without one dimension, beside a placebo with all five."""
    told = {k: _value(k, v) for k, v in parameters}
    dimension = without.replace("-", "_")
    return _seal("13_rejudge", told | {"runs": list(run), "without": dimension, "judge": judge}, name, runs)


def _seal(template: str, parameters: dict[str, Any], name: str, runs: Path) -> int:
    """Run a template that measures the measure; what it takes is said before it is spent."""
    from lib.lab import execute

    click.echo(execute.accept(template, parameters).plan, err=True)  # type: ignore[union-attr]
    click.echo(line(execute.run(template, parameters, name, runs)))
    return OK


def _against(judge: str, files: tuple[Path, ...], parameters: Any) -> int:
    """Compare a judge with stored verdicts. A judge that stores replies does so in a folder that is thrown away."""
    import tempfile

    from lib.lab.experiment import BadParameters, judge_named
    from lib.measure import against

    told = {k: _value(k, v) for k, v in parameters}
    if told.keys() - {"judging", "batch"}:
        raise BadParameters("with --against only judging and batch can be set")
    rows, left = [], 0
    for file in files:
        found, missing = against.read(file)
        rows, left = rows + found, left + missing
    with tempfile.TemporaryDirectory(prefix="notch-") as folder, runs_at(Path(folder)):
        the_judge = judge_named(judge, None, bool(told.get("batch")), told.get("judging"))
        if hasattr(the_judge, "check"):
            the_judge.check()
        pairs, unscored = against.compare(the_judge, rows)
    click.echo(against.told(against.agreement(pairs), left, unscored))
    if judge == "offline":
        click.echo("The offline judge was fitted to 78 verdicts of the published study: on those this is flattery, and "
                   "`python -m lib.measure.fit_offline` leaves each run out of the fit.")  # fmt: skip
    return OK


@notch.command()
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
@runs_option
def confirm(run: str, models: str, base: str, old: str, parameters: Any, name: str, runs: Path) -> int:
    """Look at the sealed gate for a kept run (default: the champion); every look is counted.

    With --models or --base: compare models instead, on the full gate. Sealed runs are used again, missing ones run as
    anchors, and nothing of it is ever part of the climb. -p sets what is the same for all: pipeline, decoding, judge,
    judging, batch, seed, useful, hypothesis.
    """
    from lib.lab import bases
    from lib.lab import study as studies
    from lib.lab.experiment import BadParameters
    from lib.lab.ledger import Ledger

    if bool(run) + bool(models) + bool(base) > 1:
        raise BadParameters("RUN, --models and --base are three different questions; ask one at a time")
    told = {k: text if k == "hypothesis" else _value(k, text) for k, text in parameters}
    if models or base:
        made = bases.compare(runs, models.split(","), told, name) if models else bases.base(runs, base, old, told, name)
        for state, record in made:
            click.echo(line(record) + (" (sealed already)" if state == "there" else ""))
        return OK
    if told or name:
        raise BadParameters(
            "-p and --name go with --models or --base; a look at the sealed gate repeats a kept run as it is"
        )
    for progress in studies.confirm(Ledger.read(runs), studies.Entry("confirm", confirm=True), run):
        click.echo(line(progress.record) if progress.record else progress.message)
    click.echo(f"{len(Ledger.read(runs).looks())} looks at the sealed gate so far")
    return OK


@notch.command()
@runs_option
@click.option(
    "--html", type=click.Path(file_okay=False, path_type=Path), help="Also write every run as pages into DIR."
)
def report(runs: Path, html: Path | None) -> int:
    """Write the index notebooks, the figures and the pages."""
    write_report(runs, html)
    click.echo(f"report: {_show(_report_paths(runs)[0])}, {_show(_report_paths(runs)[1])}")
    for text in headlines(runs):
        click.echo(f"  {text}")
    return OK


@notch.command()
@runs_option
@click.option("--repair", is_flag=True, help="Add sealed runs that an interruption kept out of the ledger.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def verify(runs: Path, repair: bool, as_json: bool) -> int:
    """Check every byte of ruler and runs against the seals, and compute every score again."""
    from lib.files import locked
    from lib.lab import events, ledger
    from lib.measure import store
    from lib.measure.ruler import Ruler, Tampered

    wrong = []
    try:
        Ruler.load(RULER)
    except Tampered as error:
        wrong += str(error).split("; ")
    said = []
    if repair and runs.exists():
        with locked(runs / ".lock"):
            said = ledger.sync(runs)
    wrong += ledger.verify(runs)
    wrong += store.verify(runs / store.NAME)
    wrong += events.verify(runs)
    count = len(ledger.sealed_folders(runs)) if runs.exists() else 0
    if as_json:
        click.echo(json.dumps({"ok": not wrong, "runs": count, "wrong": wrong, "repaired": said}, indent=1))
    else:
        for text in [*said, *wrong]:
            click.echo(_clean(text), err=text in wrong)
        if not wrong:
            click.echo(
                f"clean: the ruler and {count} sealed runs are as they were written, and every score follows from its judgments"
            )
    return TAMPERED if wrong else OK


def write_report(runs: Path, html: Path | None) -> None:
    """Execute the index notebooks against a folder of runs and render them."""
    from lib.report import site

    site.write(runs, html)


def headlines(runs: Path) -> list[str]:
    """The three lines that a study ends with."""
    from lib.lab.ledger import Ledger
    from lib.report import tables

    return tables.headlines(Ledger.read(runs))


def _report_paths(runs: Path) -> tuple[Path, Path]:
    from lib.report import site

    return site.notebook_path(runs, "20_report"), site.page_path(runs, "20_report")


def _show(path: Path) -> str:
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _clean(text: str) -> str:
    return text.replace(f"{ROOT}/", "")


from lib import cli_loop  # noqa: E402
from lib.cli_train import register as register_train  # noqa: E402  after what it is handed

cli_loop.register(sys.modules[__name__])
register_train(notch, runs_option, _value, line)

if __name__ == "__main__":
    main()
