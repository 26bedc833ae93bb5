"""What commands share: options, parameters as papermill spells them, the lines about a run, the report."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lib.files import runs_folder
from lib.show import visible

if TYPE_CHECKING:
    from lib.runs.record import Record

MINUTE = 60.0  # s between two lines where there is no terminal
# YAML would make an octal 10 of the run 0012.
TEXTS = ("hypothesis", "of", "adapter", "model", "method", "request")  # parameters whose value is not read as YAML


def folder_of(_: Any, __: Any, value: Path | None) -> Path:
    """The folder of runs."""
    return value.resolve() if value else runs_folder()


def _runs(must_exist: bool) -> Any:
    folder = click.Path(exists=must_exist, file_okay=False, path_type=Path)
    return click.option("--runs", type=folder, callback=folder_of, help="Folder of sealed runs (default: runs).")


def must_exist(runs: Path) -> None:
    """Refuse a folder that is not there, for the half of a command that only reads. Raises click.BadParameter."""
    if not runs.is_dir():
        raise click.BadParameter(f"Directory '{runs}' does not exist.", param_hint="'--runs'")


RUNS = _runs(must_exist=False)
# For what only reads: a folder that is not there is a slip, not an empty one.
SEALED_RUNS = _runs(must_exist=True)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
JUDGE = click.option("--judge", type=click.Choice(["offline", "claude"]), default="offline", show_default=True)
PARAMETERS = click.option(
    "-p", "parameters", nargs=2, multiple=True, metavar="NAME VALUE", help="A parameter, as papermill spells it."
)


WORKERS = click.option(
    "--workers", type=click.IntRange(1, 64), default=1, show_default=True,
    help="Notebooks executed at a time; they are sealed in their order all the same.",
)  # fmt: skip
SCHEDULER = click.option(
    "--scheduler", default="", metavar="ADDRESS", help="Execute them on the workers of a Dask cluster instead (tcp://...).",
)  # fmt: skip


def check_workers(workers: int, scheduler: str) -> None:
    """Raise BadParameters where both are asked for."""
    from lib.lab.base import BadParameters

    if scheduler and workers > 1:
        raise BadParameters("--workers is for this machine and --scheduler for a cluster; give one of them")


def values(parameters: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Parameters by name. Raises BadParameters."""
    return {name: text if name in TEXTS else value(name, text) for name, text in parameters}


def value(name: str, text: str) -> Any:
    """A parameter's value as papermill reads it: YAML, and numbers such as 1e-3 too. Raises BadParameters."""
    from lib.forms import read_yaml
    from lib.lab.base import BadParameters

    read = read_yaml(text, f"{name} {text!r:.60}", BadParameters)
    # YAML 1.1 knows no float without a dot: to it 1e-3 is a text.
    if isinstance(read, str) and re.fullmatch(r"[-+]?\d+(\.\d+)?[eE][-+]?\d+", read):
        return float(read)
    return read


def line(record: Record, runs: Path | None = None) -> str:
    """One line about a run; with its folder also why, where not one case has an answer."""
    scores, decision, status = record.scores, record.decision, record.status
    # No quality of what is not fully judged.
    if scores is None or status in ("invalid", "incomplete"):
        return f"{record.id}: {status}, {decision.reason}"
    if status == "kept" and not decision.against:  # kept as what later ones must beat, not as a win
        status = f"first {'look' if record.kind == 'confirm' else 'run'}: nothing to beat yet"
    unanswered = f"{scores.no_answer} without an answer"
    if runs and scores.no_answer == scores.n:
        from lib.runs.seal import read_cases

        [(reason, count)] = Counter(row.no_answer for row in read_cases(runs / record.id)).most_common(1)
        unanswered += f", {count} of them: {visible(' '.join(str(reason).split())[:120])}"
    text = (
        f"{record.id}: {status}, quality {scores.quality:.4f} "
        f"(W/T/L {scores.wins}/{scores.ties}/{scores.losses}, {unanswered})"
    )
    if decision.delta is None:
        return text
    return f"{text}, {decision.delta:+.4f} against {decision.against} (p = {decision.p:.3g})"


def say_report(runs: Path) -> None:
    """Where the report is, and the three lines that it begins with."""
    from lib.report import site, tables
    from lib.runs.ledger import Ledger

    notebook, page = site.notebook_path(runs, "20_report"), site.page_path(runs, "20_report")
    click.echo(f"report: {_short(notebook)} (rendered: {_short(page)})")
    ledger = Ledger.read(runs)
    for text in [*tables.broken(ledger), *tables.headlines(ledger)]:
        click.echo(f"  {text}")


def _short(path: Path) -> str:
    """A path as one would type it here: relative where it lies below the working folder."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


@contextlib.contextmanager
def progress(every: float = MINUTE) -> Iterator[Path]:
    """The folder where a kernel says how far it is: what it says is a bar on a terminal, a line a minute elsewhere."""
    done, terminal = threading.Event(), sys.stderr.isatty()
    with tempfile.TemporaryDirectory(prefix="notch-") as temp:

        def follow() -> None:
            """Echo what the kernel's one file says whenever it has changed, until `done` is set."""
            said = ""
            while not done.wait(0.5 if terminal else every):
                [file] = [*Path(temp).glob("[0-9]*")] or [Path(os.devnull)]
                state = file.read_text(encoding="utf-8").partition("\n")[2].rstrip()
                if state != said and terminal:
                    click.echo(f"\r\x1b[K{state[: shutil.get_terminal_size().columns - 1]}", err=True, nl=False)
                elif state != said:
                    click.echo(state, err=True)
                said = state

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield Path(temp)
        finally:
            done.set()
            thread.join()
            if terminal:
                click.echo("\r\x1b[K", err=True, nl=False)
