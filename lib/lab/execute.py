"""papermill: a notebook and its parameters in, a sealed run out. The one owner of `papermill`.

Knows how to refuse parameters before anything runs, execute, give its own verdict and hand the files to the seal.
papermill's statuses are not trusted: after a killed kernel it writes "completed" into every cell. Does not know what
an experiment is about, nor what is decided.
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from queue import Empty
from typing import Any

from lib.files import (
    NOTEBOOKS,
    Exit,
    OneLine,
    canonical,
    environment,
    locked,
    runs_at,
    runs_folder,
    sha256,
    without_paths,
    write_atomic,
)
from lib.forms import unknown
from lib.lab.base import BadParameters, Runnable
from lib.lab.calibration import Calibration
from lib.lab.experiment import LOOK, Experiment
from lib.lab.models import Models
from lib.lab.rejudge import Rejudge
from lib.lab.show import folder_name
from lib.lab.training import Training
from lib.runs.ledger import Ledger
from lib.runs.record import MIME, BadRecord, CaseRow, Decision, Json, Record, qualities, record_of
from lib.runs.seal import seal, sync
from lib.runs.secrets import held, is_secret
from lib.runs.verify import recomputed

PATIENCE = 120  # s for a finished cell's last output; papermill's 4 s crashed a training while the machine stood still
DECIDED = ("experiment", "confirm")  # kinds that the keep rule applies to
TEMPLATES = {
    "10_experiment": "experiment", "11_train": "train", "12_confirm": "confirm", "13_rejudge": "rejudge",
    "14_calibrate": "calibrate", "15_models": "models",
}  # fmt: skip
# Record (None where the notebook has none) and rows of cases -> what is wrong, "" if nothing.
Check = Callable[[Record | None, list[CaseRow]], str]
MAKERS: dict[str, type[Runnable]] = {
    "experiment": Experiment, "confirm": Experiment, "calibrate": Calibration, "rejudge": Rejudge,
    "train": Training, "models": Models,
}  # fmt: skip


class RunFailed(OneLine):
    """A run that crashed. It is sealed all the same; `run` is its id."""

    exit = Exit.RUN_FAILED

    def __init__(self, message: str, run: str = "") -> None:
        super().__init__(message)
        self.run = run


def template(name: str) -> Path:
    """The notebook of a template. Raises BadParameters."""
    path = NOTEBOOKS / f"{name}.ipynb"
    if name not in TEMPLATES or not path.exists():
        raise BadParameters(f"template {name!r}: expected one of {', '.join(TEMPLATES)}")
    return path


def tagged(notebook: dict[str, Any], tag: str) -> list[dict[str, Any]]:
    """The cells with a tag. By tag, never by position: a crash inserts cells at the top."""
    return [c for c in notebook["cells"] if tag in c["metadata"].get("tags", ())]


def defaults_of(name: str) -> dict[str, Any]:
    """Names and default values of a template's parameters, each `name: type = value`. Raises BadParameters."""
    [cell] = tagged(json.loads(template(name).read_text(encoding="utf-8")), "parameters")
    lines: Any = ast.parse("".join(cell["source"])).body
    return {line.target.id: ast.literal_eval(line.value) for line in lines}


def accept(name: str, parameters: dict[str, Any]) -> Runnable:
    """The experiment (calibration, re-judge) that a template makes of its parameters, checked as far as that goes without running it.

    Raises BadParameters, BadPipeline, NoModel, Leak, BadRuler or Tampered; nothing is written.
    """
    values = {**known(name, parameters), **parameters}
    return MAKERS[TEMPLATES[name]](**values, kind=TEMPLATES[name]).check()


def known(name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """A template's parameters with their defaults, after a look at the names of those told. Raises BadParameters."""
    known = defaults_of(name)
    for key in parameters:
        if not isinstance(key, str):
            raise BadParameters(f"parameter {key!r} is not a name")
        if is_secret(key):
            raise BadParameters(f"parameter {key!r} looks like a secret; a notebook keeps its parameters, so set the "
                                "environment variable (ANTHROPIC_API_KEY) instead")  # fmt: skip
        if key not in known:
            raise BadParameters(unknown("no parameter", key, known))
        if name_held := held([json.dumps(parameters[key], ensure_ascii=False, default=str)]):
            raise BadParameters(f"parameter {key!r} holds the value of {name_held}; a notebook keeps its parameters, so a "
                                "secret must not be one")  # fmt: skip
    return known


def run(
    name: str,
    parameters: dict[str, Any],
    slug: str = "",
    folder: Path | None = None,
    beside: dict[str, bytes] | None = None,
    check: Check | None = None,
) -> Record:
    """Execute a template and seal the run; returns its record. Raises what `accept` raises, or RunFailed.

    `beside` are more files for the seal. `check(record, cases)` says what is wrong with what came out, before anything
    is sealed: such a run is sealed as it failed, without its scores.
    """
    folder = folder or runs_folder()
    with runs_at(folder):  # an adapter by its run's id lies there
        experiment = accept(name, parameters)
    if folder.exists():
        # A run that was sealed just before a crash is a rival too, so the ledger is brought up to date first.
        with locked(folder / ".lock"):
            sync(folder)
    notebook, error = execute(template(name), parameters, folder)
    record: Record | None = None
    cases: list[CaseRow] = []
    try:
        if not error:
            record, cases = _result(notebook)
    except BadRecord as wrong:
        error = f"BadRecord: {wrong}"
    if check:
        error = check(record, cases) or error
    return adopt(notebook, error, experiment, slug or experiment.slug, folder, beside)


def execute(
    path: Path, parameters: dict[str, Any], folder: Path, timeout: float | None = None, cwd: Path | None = None
) -> tuple[dict[str, Any], str]:
    """Run a notebook in a fresh kernel, in `cwd` or here. Returns it as it came out, and what stopped it ("" if nothing)."""
    # jsonschema pulls a grammar that is built at import, 1.3 s; without it papermill starts in a third of the time.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    import logging
    import warnings

    import papermill

    logging.getLogger("papermill").setLevel(logging.ERROR)
    error = ""
    # A confirmation may look at the sealed gate: what it sees is sealed, and so counted.
    look = {LOOK: "1"} if path == NOTEBOOKS / "12_confirm.ipynb" else {}
    # Sockets live under /tmp: macOS temp paths are longer than a socket name may be.
    with runs_at(folder), environment(**look), tempfile.TemporaryDirectory(prefix="notch-", dir="/tmp") as temp:
        out = Path(temp) / "out.ipynb"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                papermill.execute_notebook(
                    str(path), str(out), parameters, kernel_name="python3", progress_bar=False, log_output=False,
                    request_save_on_cell_execute=False, shutdown_kernel="immediate", execution_timeout=timeout,
                    kernel_manager_class=_kernel_over_ipc(temp), iopub_timeout=PATIENCE, cwd=cwd,
                )  # fmt: skip
        except Exception as failed:  # a crash of any kind is a result: it is sealed with its reason
            if isinstance(failed, OSError) and failed.errno is not None:
                raise  # the machine's fault (disk full, say), not the run's
            error = _said(failed)
        notebook = json.loads((out if out.exists() else path).read_text(encoding="utf-8"))
    return notebook, error or fault(notebook)


def _kernel_over_ipc(folder: str) -> type:
    """A kernel manager on sockets in a folder of its own: no port to race for, and nothing sent over TCP."""
    from jupyter_client.asynchronous import AsyncKernelClient
    from jupyter_client.manager import AsyncKernelManager

    class Client(AsyncKernelClient):
        async def wait_for_ready(self, timeout: float | None = None) -> None:
            """As its parent, without the last 0.2 s: messages of the handshake belong to no cell and are ignored."""
            ends = time.monotonic() + (timeout or 60)
            while time.monotonic() < ends and await self.is_alive():
                self.kernel_info()
                with contextlib.suppress(Empty):
                    reply = await self.shell_channel.get_msg(timeout=1)
                    if reply["msg_type"] == "kernel_info_reply":
                        await self.iopub_channel.get_msg(timeout=0.2)  # Empty here: not connected yet, ask again
                        self._handle_kernel_info_reply(reply)
                        return
            raise RuntimeError("the kernel did not answer")

    traits = {"transport": "ipc", "ip": f"{folder}/k", "client_factory": Client}
    return type("KernelOverIPC", (AsyncKernelManager,), traits)


def _said(failed: Exception) -> str:
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", str(failed)).splitlines() if line.strip(" -")]
    return f"{type(failed).__name__}: {lines[-1] if lines else ''}"[:400]


def fault(notebook: dict[str, Any]) -> str:
    """What is wrong with an executed notebook, "" if nothing: errors, cells that never ran, not exactly one result."""
    results = 0
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        for output in cell["outputs"]:
            if output["output_type"] == "error":
                return f"{output['ename']}: {output['evalue']}"[:400]
            results += MIME in output.get("data", {})
        if "".join(cell["source"]).strip() and cell["execution_count"] is None:
            return "a cell never ran: the kernel died or was stopped"
    return "" if results == 1 else f"{results} result records instead of one"


def adopt(
    notebook: dict[str, Any],
    error: str,
    experiment: Runnable,
    slug: str,
    folder: Path,
    beside: dict[str, bytes] | None = None,
) -> Record:
    """Seal an executed notebook: record and cases are taken out of it. A crash is sealed with its reason, then raised.

    The decision is made again with the lock held: another run may have been sealed since the notebook looked.
    """
    model = experiment.model
    if error:
        status = _status(error)
        decision = Decision(status, status)
        record = experiment.record(status=status, error=without_paths(error, model), decision=decision)
        rows: list[CaseRow] = []
    else:
        record, rows = _result(notebook)
    cases = "".join(f"{canonical(row.as_dict())}\n" for row in rows).encode()
    slug = folder_name(slug) or "run"
    others = [content.decode() for content in (beside or {}).values()]
    _refuse_secrets(notebook, slug, folder, record.as_dict(), cases.decode(), *others)
    final: list[Record] = []

    def finish(run: str) -> dict[str, bytes]:
        named = record.revised(id=run, slug=slug)
        if not error and record.kind in DECIDED:
            named = _decide_again(notebook, named, rows, folder)
        final.append(named)
        text = json.dumps(named.as_dict(), indent=1, sort_keys=True, ensure_ascii=False)
        sealed_notebook = tidy(notebook, cases, model).encode()
        return {"record.json": (without_paths(text, model) + "\n").encode(), "experiment.ipynb": sealed_notebook}

    own = {} if error else experiment.files(record)
    sealed = seal(folder, slug, {"cases.jsonl": cases, **own, **(beside or {})}, finish)
    if error:
        raise RunFailed(f"run {sealed} crashed and is sealed as it is: {without_paths(error, model)}", sealed)
    experiment.clear()
    return final[0]


def _decide_again(notebook: Json, record: Record, rows: list[CaseRow], folder: Path) -> Record:
    """The record as the ledger of this moment decides it; the notebook's own decision is changed where it is another."""
    decision = Ledger.read(folder).decide(record, qualities(rows))
    if decision.status == record.status and decision.as_dict() == record.decision.as_dict():
        return record
    for cell in tagged(notebook, "decision"):
        text = decision._repr_markdown_()
        data = {"text/markdown": text, "text/plain": text}
        cell["outputs"] = [{"output_type": "display_data", "data": data, "metadata": {}}]
    return record.revised(status=decision.status, decision=decision)


def _refuse_secrets(notebook: Json, slug: str, folder: Path, *parts: Any) -> None:
    """Raise BadParameters, with the notebook kept out of the seal, where the value of a secret would be sealed."""
    texts = [part if isinstance(part, str) else json.dumps(part, ensure_ascii=False) for part in (notebook, *parts)]
    name = held(texts)
    if not name:
        return
    kept = folder / f".refused-{slug}.ipynb"
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(kept, json.dumps(notebook, indent=1, ensure_ascii=False))
    kept.chmod(0o600)
    raise BadParameters(
        f"what ran holds the value of {name}, so nothing was sealed. The notebook is kept: take it out of {kept} and "
        "call `notch seal` on that file"
    )


def _status(error: str) -> str:
    """Another model judged than was asked, or the measure was touched: nothing of such a run counts."""
    return "invalid" if "WrongModel: " in error or "Tampered: " in error else "crashed"


def seal_notebook(path: Path, slug: str = "", folder: Path | None = None) -> Record:
    """Adopt a notebook that papermill itself executed. Raises BadParameters when it holds no whole, sound result."""
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for number, cell in enumerate(notebook["cells"], 1):
            if "metadata" not in cell:
                raise BadParameters(
                    f"{path}: cell {number} has no metadata, which Jupyter and papermill write: save it there"
                )
        wrong = fault(notebook)
        if wrong:
            raise BadParameters(f"{path}: {wrong}; execute it with papermill first, or use `notch run`")
        record, rows = _result(notebook)
        missing = sorted(Record.model_fields.keys() - record.model_fields_set)
        if missing:
            raise BadParameters(f"{path}: its record has no {missing[0]!r}")
        maker, values = MAKERS[record.kind], {**record.as_dict(), **record.found.parameters}
        experiment = maker(**{f.name: values[f.name] for f in fields(maker) if f.name in values}).check()
        unsound = recomputed(record, rows)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, BadParameters):
            raise
        raise BadParameters(f"{path}: not an executed notebook ({type(error).__name__}: {error})") from error
    if unsound:
        raise BadParameters(f"{path}: {unsound[0]} does not follow from its judgments; not sealed")
    if experiment.fingerprint != record.fingerprint:
        raise BadParameters(f"{path}: made with another ruler or judge ({record.fingerprint[:12]}), not sealed here")
    return adopt(notebook, "", experiment, slug or path.stem, folder or runs_folder())


def _result(notebook: Json) -> tuple[Record, list[CaseRow]]:
    """The one result of a notebook. Raises BadRecord, also on one that was sealed already."""
    outputs = (output.get("data", {}) for cell in notebook["cells"] for output in cell.get("outputs", ()))
    result = next(data[MIME] for data in outputs if MIME in data)
    if not isinstance(result["cases"], list):
        raise BadRecord("sealed already: its cases lie beside it in cases.jsonl")
    return record_of(result["record"]), [CaseRow.read(row) for row in result["cases"]]


def tidy(notebook: dict[str, Any], cases: bytes, model: str = "") -> str:
    """The notebook as it is sealed: no timings, no random ids, no paths of this machine; cases by their hash."""
    for number, cell in enumerate(notebook["cells"]):
        cell["id"] = f"cell-{number:02d}"
        cell["metadata"] = {"tags": cell["metadata"]["tags"]} if cell["metadata"].get("tags") else {}
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if MIME in data:
                record = {k: v for k, v in data[MIME]["record"].items() if k not in ("cost", "started", "seconds")}
                data[MIME] |= {"record": record, "cases": f"cases.jsonl sha256 {sha256(cases)}"}
            if output["output_type"] == "stream":
                output.pop("metadata", None)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook["metadata"] = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return without_paths(json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False), model) + "\n"


def render(path: Path, out: Path, folder: Path, cwd: Path | None = None) -> None:
    """Execute an index notebook against a folder of runs and write it, with outputs, to `out`. Raises RunFailed."""
    notebook, error = execute(path, {}, folder, cwd=cwd)
    if error and not error.endswith("result records instead of one"):
        raise RunFailed(f"{path.name}: {without_paths(error)}")
    write_atomic(out, tidy(notebook, b""))
