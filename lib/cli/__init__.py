"""notch: the command line. The door to the house; everything it does lives in the rooms.

Exit codes are those of `lib.files.Exit`; an expected error brings its own. Commands import rooms when they are called, so
that `--help` and a misspelt option are answered at once.
"""

from __future__ import annotations

import os
import sys

import click

from lib.cli import loop, ruler, runs, study, train
from lib.files import RULER, Exit, OneLine, home
from lib.show import visible


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="notch")
def notch() -> None:
    """A research workbench: can a small on-device model do one narrow job as well as a frontier model?"""


for command in (
    runs.doctor, ruler.ruler, runs.freeze, runs.run, runs.seal_command, runs.calibrate, runs.rejudge, runs.report, runs.verify,
    study.study, study.confirm, study.compare, train.train, loop.loop, loop.log, loop.propose, loop.next_command,
):  # fmt: skip
    notch.add_command(command)


def main(argv: list[str] | None = None) -> None:
    """Entry point: every expected error is one line on stderr and an exit code."""
    # No window may open: studies run over ssh and at night.
    os.environ.setdefault("MPLBACKEND", "Agg")
    if os.environ.get("NOTCH_RULER"):
        os.environ["NOTCH_RULER"] = str(RULER)  # a kernel may start in another folder
    if not home():
        from lib.weights import cache

        # Jupyter, its kernels and matplotlib keep files in a home, and do not start without one.
        for name in ("JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR", "MPLCONFIGDIR"):
            os.environ.setdefault(name, str(cache() / "home"))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A name that this terminal cannot show must not end a study.
            stream.reconfigure(errors="replace")
    try:
        # Not standalone: click would end the process with codes of its own.
        code = notch.main(argv, prog_name="notch", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else Exit.OK)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(Exit.USAGE)
    except (click.Abort, KeyboardInterrupt):
        click.echo(
            "notch: stopped; what is sealed stays, call it again to go on (a training from its last epoch)", err=True
        )
        sys.exit(Exit.STOPPED)
    except Exception as error:
        # What nobody expected keeps its traceback: it is a defect of notch, and one line would hide where.
        code = exit_code(error)
        if code is None:
            raise
        click.echo(f"notch: {visible(str(error))}", err=True)
        sys.exit(code)


def exit_code(error: Exception) -> Exit | None:
    """The exit code of an expected error; None for one that is a defect of notch."""
    if isinstance(error, OneLine):
        return error.exit
    if isinstance(error, OSError):
        return Exit.RUN_FAILED
    return None
