"""notch: the command line. The door to the house; everything it does lives in the rooms.

Exit codes: 0 ok, 1 a check failed, 2 usage, 3 missing prerequisite, 4 a run failed, 5 tampering found.
"""

from __future__ import annotations

import os
import sys

import click

from lib.cli import loop, runs, study, train
from lib.cli.options import FAILED, MISSING, OK, RUN_FAILED, TAMPERED, USAGE
from lib.files import Tampered


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="notch")
def notch() -> None:
    """A research workbench: can a small on-device model do one narrow job as well as a frontier model?"""


for command in (
    runs.doctor, runs.freeze, runs.run, runs.seal_command, runs.calibrate, runs.rejudge, runs.report, runs.verify,
    study.study, study.confirm, train.train, loop.loop, loop.log, loop.propose, loop.next_command,
):  # fmt: skip
    notch.add_command(command)


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
    from lib.claude.client import NoAccess
    from lib.claude.prices import CloudError, UnknownModel
    from lib.lab.base import BadParameters
    from lib.lab.execute import RunFailed
    from lib.measure.checks.against import BadVerdicts
    from lib.measure.ruler import BadRuler
    from lib.models.model import NoModel
    from lib.train.data import BadData

    table = (
        (Tampered, TAMPERED),
        (RunFailed, RUN_FAILED),
        ((NoModel, NoAccess), MISSING),
        ((BadParameters, BadPipeline, BadData, Leak, UnknownModel), USAGE),
        ((BadRuler, BadVerdicts), FAILED),
        ((CloudError, OSError), RUN_FAILED),
        (KeyError, USAGE),  # a run that is not in the ledger
    )
    return next((code for kinds, code in table if isinstance(error, kinds)), None)  # type: ignore[arg-type]
