"""A notebook executed in a fresh kernel of this Python. The one owner of `papermill`.

papermill's statuses are not trusted: after a killed kernel it writes "completed" into every cell, so `fault` gives an
own verdict. Does not know what a notebook is about, nor what becomes of it. Several may be executed at a time, each
from a thread of its own: kernels are processes, and each gets its environment by argument.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.files import Exit, OneLine
from lib.runs.record import MIME, Json

# s for a finished cell's last output; papermill's 4 s crashed a training while the machine stood still
PATIENCE = 120


@dataclass(frozen=True)
class Fault:
    """What stopped a notebook. The kernel sends the name of an error's class apart from its message, so what becomes of
    a run is decided by the one and people read the other."""

    name: str  # of the error's class; "" where nothing was raised
    message: str

    def __str__(self) -> str:
        if not self.name:
            return self.message
        return f"{self.name}: {self.message}"[:400]


class NoKernel(OneLine):
    """No kernel could be started here; nothing was executed."""

    exit = Exit.MISSING


def execute(
    path: Path,
    parameters: Json,
    environment: Mapping[str, str],
    timeout: float | None = None,
    cwd: Path | None = None,
    running: set[int] | None = None,
) -> tuple[Json, Fault | None]:
    """Run a notebook, in `cwd` or here. Returns it as it came out, and what stopped it, None if nothing did.

    `environment` is for the kernel alone, beside that of this process. The kernel's process id is put into `running`.
    Raises NoKernel, and OSError where the machine is at fault (a full disk, say).
    """
    # jsonschema pulls a grammar that is built at import, 1.3 s; without it papermill starts in a third of the time.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    import logging

    import papermill

    logging.getLogger("papermill").setLevel(logging.ERROR)
    error: Fault | None = None
    begun: list[Any] = []
    # Sockets live under /tmp: macOS temp paths are longer than a socket name may be.
    with tempfile.TemporaryDirectory(prefix="notch-", dir="/tmp") as temp:
        out = Path(temp) / "out.ipynb"
        try:
            papermill.execute_notebook(
                str(path), str(out), parameters, kernel_name="python3", progress_bar=False, log_output=False,
                request_save_on_cell_execute=False, shutdown_kernel="immediate", execution_timeout=timeout,
                kernel_manager_class=_manager(temp, environment, running), iopub_timeout=PATIENCE, cwd=cwd,
                on_cell_start=lambda **cell: begun.append(cell),
            )  # fmt: skip
        # A crash of any kind is a result: it is sealed with its reason.
        except Exception as failed:
            # The machine's fault is none. Without a number it is nbclient's timeout of a cell, which is the notebook's.
            if isinstance(failed, OSError) and failed.errno is not None:
                raise
            error = _in_short(failed)
        notebook = json.loads((out if out.exists() else path).read_text(encoding="utf-8"))
    # Nothing of the run was executed yet: sealed as crashed, a broken kernel would count against it for good.
    if error and not begun:
        raise NoKernel(f"no kernel of {sys.executable} could be started, so nothing was run ({error}); "
                       "`python -m ipykernel_launcher --version` must work there (`make setup`)")  # fmt: skip
    return notebook, error


def _manager(folder: str, environment: Mapping[str, str], running: set[int] | None) -> type:
    """A kernel manager on sockets in a folder of its own: no port to race for, and nothing sent over TCP.

    The kernel is this Python's, whatever a kernelspec of that name on this machine says.
    """
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager
    from jupyter_client.provisioning import LocalProvisioner

    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = KernelSpec(argv=command, env=dict(environment), display_name="Python 3", language="python")

    class Manager(AsyncKernelManager):
        """Starts that kernel and adds its process id to `running`, so that others can end it."""

        kernel_spec = property(lambda self: spec)

        async def _async_post_start_kernel(self, **kwargs: Any) -> None:
            await super()._async_post_start_kernel(**kwargs)
            started = self.provisioner
            if running is not None and isinstance(started, LocalProvisioner) and started.pid is not None:
                running.add(started.pid)

    return type("KernelOverIPC", (Manager,), {"transport": "ipc", "ip": os.path.join(folder, "k")})


def _in_short(failed: Exception) -> Fault:
    """Name and message, on one line, of what ended a notebook: its own error or one of its kernel."""
    # papermill's own error is about the notebook's: that is the one to know.
    if hasattr(failed, "ename") and hasattr(failed, "evalue"):
        return Fault(failed.ename, " ".join(str(failed.evalue).split()))
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", str(failed)).splitlines() if line.strip(" -")]
    # Of what is drawn around a traceback the last line is the one that says something.
    return Fault(type(failed).__name__, lines[-1] if lines else "")


def fault(notebook: Json, results: int = 1) -> Fault | None:
    """What is wrong with an executed notebook, None if nothing: an error, a cell that never ran, another number of results."""
    count, begun = 0, False
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        for output in cell["outputs"]:
            if output["output_type"] == "error":
                return Fault(output["ename"], output["evalue"])
            count += MIME in output.get("data", {})
        begun = begun or cell["execution_count"] is not None
        # An empty cell is sent to no kernel, so it has no number in a sound notebook either.
        if "".join(cell["source"]).strip() and cell["execution_count"] is None:
            if begun:
                return Fault("", "a cell never ran: the kernel died or was stopped")
            return Fault("", "no cell ever ran: it was never executed, or its kernel died at once")
    if count == results:
        return None
    return Fault("", f"{count} result records instead of {results or 'none'}")
