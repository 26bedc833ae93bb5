"""A template and its parameters in, a sealed run out.

Knows how to refuse parameters before anything runs, to have a notebook executed, and to hand what came out to the seal,
or, where the judge failed on some case, to what waits. Does not know what an experiment is about, nor what is decided.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from lib.claude.client import WrongModel
from lib.files import (
    NOTEBOOKS,
    Exit,
    OneLine,
    Tampered,
    canonical,
    leave_out,
    locked,
    runs_folder,
    sha256,
    without_paths,
    writable,
    write_atomic,
)
from lib.forms import unknown
from lib.lab import kernel
from lib.lab.base import BadParameters, Runnable
from lib.lab.calibration import Calibration
from lib.lab.experiment import LOOK, Experiment
from lib.lab.kernel import Fault
from lib.lab.models import Models
from lib.lab.rejudge import Rejudge
from lib.lab.training import Training
from lib.runs import pending, rescore
from lib.runs.ledger import Ledger
from lib.runs.record import MIME, BadRecord, CaseRow, Decision, Json, Record, qualities, record_of
from lib.runs.seal import seal, sync
from lib.runs.secrets import held, is_secret
from lib.runs.verify import recomputed
from lib.show import folder_name

EXPERIMENT, CONFIRM = "10_experiment", "12_confirm"
# Another model judged than was asked, or the measure was touched: nothing of such a run counts.
INVALID = (WrongModel.__name__, Tampered.__name__)
DECIDED = ("experiment", "confirm")  # kinds that the keep rule applies to
TEMPLATES = {
    "10_experiment": "experiment", "11_train": "train", "12_confirm": "confirm", "13_rejudge": "rejudge",
    "14_calibrate": "calibrate", "15_models": "models",
}  # fmt: skip
# Record (None where the notebook has none) and rows of cases -> what is wrong, None if nothing is.
Check = Callable[[Record | None, list[CaseRow]], Exception | None]
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


class Unfinished(OneLine):
    """A run whose judge failed on some case. Nothing is sealed; the same call judges what is missing."""

    exit = Exit.RUN_FAILED

    def __init__(self, cases: Sequence[CaseRow], where: Path) -> None:
        reasons = pending.reasons(cases)
        missing = sum(count for _, count in reasons)
        self.reason = reasons[0][0]
        self.nothing = all(row.judgment is None for row in cases)  # not one case was judged
        super().__init__(
            f"{missing} of {len(cases)} cases are unscored ({self.reason}), so nothing is sealed; what is there waits in "
            f"{where}, and the same call judges what is missing"
        )


class Sealed(Exception):
    """Another call has sealed the same run meanwhile."""

    def __init__(self, record: Record) -> None:
        super().__init__(record.id)
        self.record = record


def template(name: str) -> Path:
    """The notebook of a template. Raises BadParameters."""
    path = NOTEBOOKS / f"{name}.ipynb"
    if name not in TEMPLATES or not path.exists():
        raise BadParameters(f"template {name!r}: expected one of {', '.join(TEMPLATES)}")
    return path


def tagged(notebook: Json, tag: str) -> list[Json]:
    """The cells with a tag. By tag, never by position: a crash inserts cells at the top."""
    return [c for c in notebook["cells"] if tag in c["metadata"].get("tags", ())]


def defaults_of(name: str) -> Json:
    """Names and default values of a template's parameters, each `name: type = value`. Raises BadParameters."""
    [cell] = tagged(json.loads(template(name).read_text(encoding="utf-8")), "parameters")
    lines: Any = ast.parse("".join(cell["source"])).body
    return {line.target.id: ast.literal_eval(line.value) for line in lines}


def accept(name: str, parameters: Json, folder: Path | None = None) -> Runnable:
    """What a template makes of its parameters, checked as far as that goes without running it.

    Raises BadParameters, BadPipeline, NoModel, Leak, BadRuler or Tampered; nothing is written.
    """
    # The same object that the notebook will make: what it would refuse is refused before a kernel costs anything.
    values = {**known(name, parameters), **settled(name, parameters)}
    if name == EXPERIMENT:  # the template's own hypothesis is for a first look by hand
        values["hypothesis"] = parameters.get("hypothesis", "")
    return MAKERS[TEMPLATES[name]](**values, kind=TEMPLATES[name], folder=folder).check()


def settled(name: str, parameters: Json) -> Json:
    """The parameters, with the form's own value of each that the experiment's cell has another default for.

    Whoever saved a changed cell tried something by hand: what a command runs must not depend on that.
    """
    if name != EXPERIMENT:
        return parameters
    own = leave_out(Experiment().parameters, "hypothesis")
    cell = defaults_of(name)
    return leave_out(own, *(key for key in own if own[key] == cell.get(key))) | parameters


def known(name: str, parameters: Json) -> Json:
    """A template's parameters with their defaults, after a look at the names of those given. Raises BadParameters."""
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


@dataclass(frozen=True)
class Executed:
    """A notebook as a kernel left it."""

    runnable: Runnable
    notebook: Json
    error: Fault | None = None  # what stopped it
    record: Record | None = None  # None where it stopped
    cases: list[CaseRow] = field(default_factory=list)
    files: dict[str, bytes] | None = None  # for the seal, of a run on another machine; None: they are here


Carry = Callable[[str, Json, Runnable], Executed]  # executes an accepted template


def run(
    name: str,
    parameters: Json,
    slug: str = "",
    folder: Path | None = None,
    beside: dict[str, bytes] | None = None,
    check: Check | None = None,
    carry: Carry | None = None,
) -> Record:
    """Execute a template and seal the run; returns its record. Raises what `accept` raises, NoKernel, RunFailed, Unfinished.

    `beside` are more files for the seal. `check(record, cases)` says what is wrong with what came out, before anything
    is sealed: such a run is sealed as it failed, without its scores. `carry` executes it, `carry_out` where none is given.
    """
    folder = folder or runs_folder()
    runnable = accept(name, parameters, folder)
    prepare(folder)
    done = (carry or carry_out)(name, parameters, runnable)
    if check:
        wrong = check(done.record, done.cases)
        if wrong:
            done = replace(done, error=Fault(type(wrong).__name__, str(wrong)))
    return adopt(done, slug or runnable.slug, beside)


def prepare(folder: Path) -> None:
    """Make the folder ready for a run, before the run costs anything. Raises NoFolder where it cannot be written.

    A run that was sealed just before a crash is a rival too, so the ledger is brought up to date.
    """
    writable(folder)
    with locked(folder / ".lock"):
        sync(folder)


def carry_out(
    name: str, parameters: Json, runnable: Runnable, environment: Mapping[str, str] | None = None,
    running: set[int] | None = None,
) -> Executed:  # fmt: skip
    """Execute a template whose parameters were accepted. Raises NoKernel, OSError; a crash is a result."""
    variables = {"NOTCH_RUNS": str(runnable.runs_folder.resolve()), **(environment or {})}
    if name == CONFIRM:
        # What a look at the sealed gate sees is sealed, and so counted.
        variables[LOOK] = "1"
    given = settled(name, parameters)
    return concluded(runnable, *kernel.execute(template(name), given, variables, running=running))


def concluded(
    runnable: Runnable, notebook: Json, error: Fault | None, files: dict[str, bytes] | None = None
) -> Executed:
    """A notebook as it came out of a kernel, with the result that it holds."""
    # Both are asked: papermill reports success of a notebook whose kernel was killed.
    error = error or kernel.fault(notebook)
    if error:
        return Executed(runnable, notebook, error)
    try:
        return Executed(runnable, notebook, None, *_result(notebook), files)
    except BadRecord as wrong:
        return Executed(runnable, notebook, Fault(type(wrong).__name__, str(wrong)))


def adopt(done: Executed, slug: str, beside: dict[str, bytes] | None = None, once: bool = False) -> Record:
    """Seal an executed notebook. A crash is sealed with its reason, then raised; what lacks judgments waits, and raises.

    The decision is made again with the lock held: another run may have been sealed since the notebook looked. `once`:
    where the same run was sealed meanwhile, that one is returned.
    """
    runnable, notebook, rows, error = done.runnable, done.notebook, done.cases, done.error
    folder, model = runnable.runs_folder, runnable.model
    record = done.record
    if error or record is None:
        # No error and no record either is a notebook that stopped without saying why.
        status = "invalid" if error and error.name in INVALID else "crashed"
        reason = without_paths(str(error or ""), model)
        record = runnable.record(status=status, error=reason, decision=Decision(status, status))
        rows = []
    elif lacks_judgments(record, rows):
        pending.keep(folder, record, rows)
        raise Unfinished(rows, pending.place(folder, record.key))
    cases = "".join(f"{canonical(row.as_dict())}\n" for row in rows).encode()
    slug = folder_name(slug) or "run"
    others = [content.decode() for content in (beside or {}).values()]
    _refuse_secrets(notebook, slug, folder, record.as_dict(), cases.decode(), *others)
    final: list[Record] = []

    def finish(run: str) -> dict[str, bytes]:
        ledger = Ledger.read(folder)
        if once and (same := ledger.by_key(record.key)):
            # Out of the seal, which takes its number and its temporary folder back.
            raise Sealed(same)
        named = record.revised(id=run, slug=slug)
        # With the lock held no other run can come between: the decision that is sealed is the one that holds.
        if not error and record.kind in DECIDED:
            named = _decide_again(notebook, named, rows, ledger)
        final.append(named)
        text = json.dumps(named.as_dict(), indent=1, sort_keys=True, ensure_ascii=False)
        sealed_notebook = tidy(notebook, cases, model).encode()
        return {"record.json": (without_paths(text, model) + "\n").encode(), "experiment.ipynb": sealed_notebook}

    own = done.files
    if own is None:
        own = {} if error else runnable.files(record)
    try:
        run = seal(folder, slug, {"cases.jsonl": cases, **own, **(beside or {})}, finish)
    except Sealed as other:
        return other.record
    if error:
        raise RunFailed(f"run {run} crashed and is sealed as it is: {without_paths(str(error), model)}", run)
    # Only now that it is sealed: a kill before this line leaves what waits, and no answer is ever lost.
    pending.clear(folder, record.key)
    runnable.clear()
    return final[0]


def lacks_judgments(record: Record, rows: list[CaseRow]) -> bool:
    """Whether a run has to wait for its judge.

    A run that is decided on waits for every case. Readings are computed without the few that a judge never gives (it may
    refuse an attack for good), and say how many; they wait where there is not one judgment.
    """
    missing = any(row.unscored is not None for row in rows)
    return missing and (record.kind in DECIDED or all(row.judgment is None for row in rows))


def _decide_again(notebook: Json, record: Record, rows: list[CaseRow], ledger: Ledger) -> Record:
    """The record as the ledger of this moment decides it; the notebook's own decision is changed where it is another."""
    decision = ledger.decide(record, qualities(rows))
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
    # It holds a secret, and it was paid for: whoever ran it can mend it, and nobody else can read it.
    kept.chmod(0o600)
    raise BadParameters(
        f"what ran holds the value of {name}, so nothing was sealed. The notebook is kept: take it out of {kept} and "
        "call `notch seal` on that file"
    )


def seal_notebook(path: Path, slug: str = "", folder: Path | None = None) -> Record:
    """Adopt a notebook that papermill itself executed. Raises BadParameters when it holds no whole, sound result."""
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for number, cell in enumerate(notebook["cells"], 1):
            if "metadata" not in cell:
                raise BadParameters(
                    f"{path}: cell {number} has no metadata, which Jupyter and papermill write: save it there"
                )
        wrong = kernel.fault(notebook)
        if wrong:
            raise BadParameters(f"{path}: {wrong}; execute it with papermill first, or use `notch run`")
        record, rows = _result(notebook)
        # papermill injects a misspelt name too and only warns: the run went by the default, which nobody meant.
        injected = "\n".join("".join(cell["source"]) for cell in tagged(notebook, "injected-parameters"))
        names = {
            n.id for n in ast.walk(ast.parse(injected)) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
        }
        known(next(name for name, kind in TEMPLATES.items() if kind == record.kind), dict.fromkeys(names))
        # notch writes every field. A missing one would be read as its default, and stand for something measured.
        missing = sorted(Record.model_fields.keys() - record.model_fields_set)
        if missing:
            raise BadParameters(f"{path}: its record has no {missing[0]!r}")
        maker, values = MAKERS[record.kind], {**record.as_dict(), **record.found.parameters}
        parameters = {f.name: values[f.name] for f in fields(maker) if f.name in values}
        experiment = maker(**parameters, folder=folder or runs_folder()).check()
        unsound = recomputed(record, rows)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SyntaxError) as error:
        if isinstance(error, BadParameters):
            raise
        raise BadParameters(
            f"{path}: not an executed notebook ({type(error).__name__}: {error}); execute a template with papermill first, "
            "or use `notch run`"
        ) from error
    if unsound:
        raise BadParameters(f"{path}: {unsound[0]} does not follow from its judgments; not sealed")
    if experiment.fingerprint != record.fingerprint:
        raise BadParameters(f"{path}: made with another ruler or judge ({record.fingerprint[:12]}), not sealed here")
    for other in experiment.ledger.records:
        # By when it began as well: the same experiment may be run again, the same notebook is sealed once.
        if (other.key, other.started) == (experiment.key, record.started):
            raise BadParameters(f"{path}: sealed already as {other.id}")
    # Judgments and scores that fit each other may both have been typed in.
    forged = rescore.check(record, rows, experiment.runs_folder) if record.kind in DECIDED else []
    if forged:
        raise BadParameters(f"{path}: {forged[0]}; not sealed")
    prepare(experiment.runs_folder)
    return adopt(Executed(experiment, notebook, None, record, rows), slug or path.stem)


def _result(notebook: Json) -> tuple[Record, list[CaseRow]]:
    """The one result of a notebook. Raises BadRecord, also on one that was sealed already."""
    outputs = (output.get("data", {}) for cell in notebook["cells"] for output in cell.get("outputs", ()))
    result = next(data[MIME] for data in outputs if MIME in data)
    if not isinstance(result["cases"], list):
        raise BadRecord("sealed already: its cases lie beside it in cases.jsonl")
    return record_of(result["record"]), [CaseRow.read(row) for row in result["cases"]]


def tidy(notebook: Json, cases: bytes, model: str = "") -> str:
    """The notebook as it is sealed: no timings, no random ids, no paths of this machine; cases by their hash."""
    # Two runs that did the same are the same bytes, so that a diff of two notebooks shows what they found.
    for number, cell in enumerate(notebook["cells"]):
        cell["id"] = f"cell-{number:02d}"
        cell["metadata"] = {"tags": cell["metadata"]["tags"]} if cell["metadata"].get("tags") else {}
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if MIME in data:
                record = leave_out(data[MIME]["record"], "cost", "started", "seconds")
                data[MIME] |= {"record": record, "cases": f"cases.jsonl sha256 {sha256(cases)}"}
            if output["output_type"] == "stream":
                output.pop("metadata", None)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook["metadata"] = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return without_paths(json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False), model) + "\n"


def render(path: Path, out: Path, folder: Path, cwd: Path | None = None) -> None:
    """Execute an index notebook against a folder of runs and write it, with outputs, to `out`. Raises RunFailed."""
    notebook, error = kernel.execute(path, {}, {"NOTCH_RUNS": str(folder.resolve())}, cwd=cwd)
    error = error or kernel.fault(notebook, results=0)
    if error:
        raise RunFailed(f"{path.name}: {without_paths(str(error))}")
    write_atomic(out, tidy(notebook, b""))
