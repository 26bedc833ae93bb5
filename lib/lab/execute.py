"""papermill: a notebook and its parameters in, a sealed run out. The one owner of `papermill`.

Knows how to refuse parameters before anything runs, execute, give its own verdict and hand the files to the seal.
papermill's statuses are not trusted: after a killed kernel it writes "completed" into every cell. Does not know what
an experiment is about, nor what is decided.
"""

from __future__ import annotations

import ast
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lib.files import NOTEBOOKS, ROOT, canonical, runs_folder, sha256
from lib.lab.experiment import BadParameters, Experiment
from lib.lab.ledger import seal
from lib.lab.record import MIME

SECRET_NAME = re.compile(r"(?i)(api_?key|token|secret|password|passwd|credential)")
TEMPLATES = {"10_experiment": "experiment", "12_confirm": "confirm"}


class RunFailed(Exception):
    """A run that crashed. It is sealed all the same; `run` is its id."""

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


def defaults(notebook: dict[str, Any]) -> dict[str, Any]:
    """Names and default values of the parameters cell."""
    found: dict[str, Any] = {}
    for node in ast.parse("".join(tagged(notebook, "parameters")[0]["source"])).body:
        target = (
            node.target
            if isinstance(node, ast.AnnAssign)
            else node.targets[0]
            if isinstance(node, ast.Assign)
            else None
        )
        if isinstance(target, ast.Name) and node.value is not None:  # type: ignore[union-attr]
            found[target.id] = ast.literal_eval(node.value)  # type: ignore[union-attr]
    return found


def accept(name: str, parameters: dict[str, Any]) -> Experiment:
    """The experiment that a template makes of its parameters, checked as far as that goes without running it.

    Raises BadParameters, BadPipeline, NoModel, Leak, BadRuler or Tampered; nothing is written.
    """
    known = defaults(json.loads(template(name).read_text(encoding="utf-8")))
    for key in parameters:
        if SECRET_NAME.search(key):
            raise BadParameters(f"parameter {key!r} looks like a secret; a notebook keeps its parameters, so set the "
                                "environment variable (ANTHROPIC_API_KEY) instead")  # fmt: skip
        if key not in known:
            near = _nearest(key, known)
            raise BadParameters(
                f"no parameter {key!r}{f', did you mean {near!r}?' if near else ''} There are {', '.join(known)}"
            )
    return Experiment(**{**known, **parameters}, kind=TEMPLATES[name]).check()


def _nearest(key: str, known: dict[str, Any]) -> str | None:
    import difflib

    return next(iter(difflib.get_close_matches(key, known, 1)), None)


def run(name: str, parameters: dict[str, Any], slug: str = "", folder: Path | None = None) -> dict[str, Any]:
    """Execute a template and seal the run; returns its record. Raises what `accept` raises, or RunFailed."""
    experiment = accept(name, parameters)
    folder = folder or runs_folder()
    notebook, error = execute(template(name), parameters, folder)
    return adopt(notebook, error, experiment, slug or _slug(experiment), folder)


def _slug(experiment: Experiment) -> str:
    steps = "-".join(s["step"] for s in experiment.pipeline)
    return f"{experiment.lever}-{steps}" if experiment.kind == "experiment" else experiment.kind


def execute(
    path: Path, parameters: dict[str, Any], folder: Path, timeout: float | None = None
) -> tuple[dict[str, Any], str]:
    """Run a notebook in a fresh kernel. Returns it as it came out, and what stopped it ("" if nothing)."""
    # jsonschema pulls a grammar that is built at import, 1.3 s; without it papermill starts in a third of the time.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    import logging
    import warnings

    import papermill

    logging.getLogger("papermill").setLevel(logging.ERROR)
    error = ""
    old = os.environ.get("NOTCH_RUNS")
    os.environ["NOTCH_RUNS"] = str(folder.resolve())
    # Sockets live under /tmp: macOS temp paths are longer than a socket name may be.
    with tempfile.TemporaryDirectory(prefix="notch-", dir="/tmp") as temp:
        out = Path(temp) / "out.ipynb"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                papermill.execute_notebook(
                    str(path), str(out), parameters, kernel_name="python3", progress_bar=False, log_output=False,
                    request_save_on_cell_execute=False, shutdown_kernel="immediate", execution_timeout=timeout,
                    kernel_manager_class=_kernel_over_ipc(temp),
                )  # fmt: skip
        except KeyboardInterrupt:
            raise
        except OSError:
            raise
        except Exception as failed:  # a crash of any kind is a result: it is sealed with its reason
            error = _said(failed)
        finally:
            os.environ.pop("NOTCH_RUNS") if old is None else os.environ.update(NOTCH_RUNS=old)
        notebook = json.loads((out if out.exists() else path).read_text(encoding="utf-8"))
    return notebook, error or fault(notebook)


def _kernel_over_ipc(folder: str) -> type:
    """A kernel manager on sockets in a folder of its own: no port to race for, and nothing sent over TCP."""
    from jupyter_client.manager import AsyncKernelManager

    return type("KernelOverIPC", (AsyncKernelManager,), {"transport": "ipc", "ip": f"{folder}/k"})


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


def adopt(notebook: dict[str, Any], error: str, experiment: Experiment, slug: str, folder: Path) -> dict[str, Any]:
    """Seal an executed notebook: record and cases are taken out of it. A crash is sealed with its reason, then raised."""
    data = _result(notebook) if not error else {}
    record = (
        data.get("record")
        or experiment.record(status="crashed", error=_clean(error), decision={"reason": "crashed"}).as_dict()
    )
    rows = [canonical(row) for row in data.get("cases", ())]
    cases = "".join(f"{row}\n" for row in rows).encode()
    slug = re.sub(r"[^a-z0-9]+", "-", slug.lower()).strip("-")[:40] or "run"
    text = tidy(notebook, cases)
    for name, value in os.environ.items():
        if SECRET_NAME.search(name) and len(value) >= 8 and (value in text or value in cases.decode()):
            raise BadParameters(
                f"the executed notebook holds the value of {name}; nothing was sealed, take it out first"
            )

    def finish(run: str) -> dict[str, bytes]:
        record.update(id=run, slug=slug)
        return {"record.json": (json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()}

    sealed = seal(folder, slug, {"experiment.ipynb": text.encode(), "cases.jsonl": cases}, finish)
    if error:
        raise RunFailed(f"run {sealed} crashed and is sealed as it is: {_clean(error)}", sealed)
    return record


def seal_notebook(path: Path, slug: str = "", folder: Path | None = None) -> dict[str, Any]:
    """Adopt a notebook that papermill itself executed. Raises BadParameters when it holds no whole result."""
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        wrong = fault(notebook)
    except (OSError, ValueError, KeyError) as error:
        raise BadParameters(f"{path}: not an executed notebook ({error})") from error
    if wrong:
        raise BadParameters(f"{path}: {wrong}; execute it with papermill first, or use `notch run`")
    record = _result(notebook)["record"]
    known = {f for f in Experiment.__dataclass_fields__}
    experiment = Experiment(**{k: v for k, v in record.items() if k in known}).check()
    if experiment.fingerprint != record["fingerprint"]:
        raise BadParameters(f"{path}: made with another ruler or judge ({record['fingerprint'][:12]}), not sealed here")
    return adopt(notebook, "", experiment, slug or path.stem, folder or runs_folder())


def _result(notebook: dict[str, Any]) -> dict[str, Any]:
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            if MIME in output.get("data", {}):
                return output["data"][MIME]
    return {}


def tidy(notebook: dict[str, Any], cases: bytes) -> str:
    """The notebook as it is sealed: no timings, no random ids, no paths of this machine; cases by their hash."""
    for number, cell in enumerate(notebook["cells"]):
        cell["id"] = f"cell-{number:02d}"
        cell["metadata"] = {"tags": cell["metadata"]["tags"]} if cell["metadata"].get("tags") else {}
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if MIME in data:
                record = {k: v for k, v in data[MIME]["record"].items() if k not in ("cost", "started", "seconds")}
                data[MIME] = {
                    "schema": data[MIME]["schema"],
                    "record": record,
                    "cases": f"cases.jsonl sha256 {sha256(cases)}",
                }
            output.pop("metadata", None) if output["output_type"] == "stream" else None
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook["metadata"] = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return _clean(json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False)) + "\n"


def _clean(text: str) -> str:
    """Text without the paths of this machine."""
    for path, short in ((str(ROOT), "."), (str(Path.home()), "~"), (sys.prefix, "env")):
        if len(path) > 3:
            text = text.replace(path, short)
    return text


def render(path: Path, out: Path, folder: Path, change: Callable[[dict[str, Any]], None] | None = None) -> None:
    """Execute an index notebook against a folder of runs and write it, with outputs, to `out`. Raises RunFailed."""
    from lib.files import replace

    notebook, error = execute(path, {}, folder)
    wrong = error if not error.endswith("result records instead of one") else ""
    if wrong:
        raise RunFailed(f"{path.name}: {_clean(wrong)}")
    if change:
        change(notebook)
    replace(out, tidy(notebook, b""))
