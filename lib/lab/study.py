"""A plan of experiments, run in order as far as it is missing; comparisons of models; looks at the sealed gate.

Knows plan files and which of their runs are sealed already. Rerunning the same call is how a study is resumed: there
is no other state than the runs. Does not know what a run does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from lib.files import NOTEBOOKS
from lib.forms import Filled, fill, form, read_yaml
from lib.lab import batches, execute, models
from lib.lab.base import BadParameters, Runnable
from lib.lab.execute import Executed, RunFailed, Unfinished
from lib.lab.rejudge import Rejudge
from lib.lab.workers import Cluster, Local, Row
from lib.lab.workers import pool as workers_of
from lib.runs import pending
from lib.runs.ledger import Ledger
from lib.runs.record import Json, Record

PLANS = NOTEBOOKS / "plans"
REGRESSION = "On a larger base the same harness scores higher; on one of the same size the difference is chance."
TEMPLATES = {"train": "11_train", "rejudge": "13_rejudge"}  # rows that are no experiment, by their key

Made = tuple[str, Record]  # "there" or "ran", and the record


def _candidate(value: Any) -> Any:
    """A candidate as the plan has it. Raises ValueError where it is neither a name nor a model with an adapter."""
    if not isinstance(value, str) and not _adapted(value):
        raise ValueError(f"is {value!r:.60}: expected a model, one with an adapter as "
                         "{model: smollm2, adapter: {run: NAME}}")  # fmt: skip
    return value


@form(BadParameters)
class Entry:
    """One line of a plan."""

    name: Filled
    parameters: dict[Any, Any] = field(default_factory=dict)
    # Change only the model: candidates, the first to compare with. One with an adapter that an earlier row trains is
    # {model: smollm2, adapter: {run: NAME}}.
    models: list[Annotated[Any, AfterValidator(_candidate)]] = field(default_factory=list)
    template: str = "10_experiment"


@dataclass(frozen=True)
class Plan:
    """A list of experiments with what they have in common."""

    name: str
    about: str
    entries: tuple[Entry, ...]

    def after(self, entry: Entry) -> str:
        """Name of the entry that comes next, "" after the last."""
        following = self.entries[self.entries.index(entry) + 1 :]
        if following:
            return following[0].name
        return ""


@form(BadParameters, "plan")
class Written:
    """A plan as its file has it."""

    runs: Annotated[list[dict[Any, Any]], Field(min_length=1)]
    name: str = ""
    about: str = ""
    common: dict[Any, Any] | None = None


def read(path: Path | str) -> Plan:
    """A plan from a YAML file or by the name of one in notebooks/plans. Raises BadParameters naming what is wrong."""
    file = Path(path)
    if not file.exists():
        file = PLANS / f"{path}.yaml"
    if not file.is_file():
        raise BadParameters(
            f"no plan {str(path)!r}: neither a file nor one of {', '.join(p.stem for p in PLANS.glob('*.yaml'))}"
        )
    try:
        raw = read_yaml(file.read_text(encoding="utf-8"), str(file), BadParameters)
    except UnicodeDecodeError as error:
        raise BadParameters(f"{file}: not YAML ({error})") from error
    if not isinstance(raw, dict):
        raise BadParameters(f"{file}: expected a mapping with a list 'runs'")
    try:
        plan = fill(Written, raw)
        entries = [_entry(number, row, plan.common or {}) for number, row in enumerate(plan.runs, 1)]
    except BadParameters as error:
        raise BadParameters(f"{file}: {error}") from None
    names = [entry.name for entry in entries]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise BadParameters(f"{file}: two runs are called {twice!r}; give each its own name")
    return Plan(plan.name or file.stem, plan.about, tuple(entries))


def _entry(number: int, row: dict[Any, Any], common: dict[Any, Any]) -> Entry:
    """A row with what the plan has in common. One such as `train: {method: sft}` is for another template, and takes of
    what is common what that knows."""
    own = {k: v for k, v in row.items() if k in ("name", "models")}
    rest = {k: v for k, v in row.items() if k not in own}
    key = next((k for k in TEMPLATES if k in rest), "")
    template, known = "10_experiment", models.SHARED if "models" in own else common
    try:
        if key:
            template = TEMPLATES[key]
            inner, known = rest.pop(key), execute.defaults_of(template)
            if not isinstance(inner, dict):
                raise BadParameters(f"{key} is {inner!r:.60}: expected a mapping of parameters of {template}")
            rest = {**inner, **rest}
        shared = {k: v for k, v in common.items() if k in known}
        return fill(Entry, {"name": None, **own, "parameters": {**shared, **rest}, "template": template})
    except BadParameters as error:
        raise BadParameters(f"run {row.get('name', number)!r}: {error}") from None


def _refers(value: Any) -> bool:
    """Whether a value names an earlier row, or the adapter of one: {run: NAME} or {run: NAME, epoch: 2}."""
    return isinstance(value, dict) and "run" in value and set(value) <= {"run", "epoch"}


def _adapted(value: Any) -> bool:
    """Whether a candidate is a model with the adapter of an earlier row."""
    known = isinstance(value, dict) and set(value) == {"model", "adapter"}
    return known and isinstance(value["model"], str) and _refers(value["adapter"])


def resolve(value: Any, adapter: Callable[[str, int | None], str]) -> Any:
    """Plain data in which every reference to an adapter is replaced by what `adapter(run, epoch)` says."""
    if _refers(value):
        return adapter(value["run"], value.get("epoch"))
    if isinstance(value, dict):
        return {k: resolve(v, adapter) for k, v in value.items()}
    if isinstance(value, list):
        return [resolve(v, adapter) for v in value]
    return value


def check(plan: Plan, folder: Path | None = None) -> dict[str, Runnable]:
    """Every run of a plan, refused by name before the first one runs. Adapters that are yet to be trained are left out."""
    runnables: dict[str, Runnable] = {}
    trains: dict[str, Entry] = {}

    def planned(run: str, epoch: int | None) -> str:
        """ "" for an adapter that an earlier row will train. Raises BadParameters where none keeps it."""
        if run not in trains:
            raise BadParameters(f"adapter {{run: {run}}}: no earlier run of this plan that trains is called so")
        kept = trains[run].parameters.get("checkpoints", [])
        if epoch is not None and epoch not in kept:
            raise BadParameters(f"adapter {{run: {run}, epoch: {epoch}}}: that run keeps the epochs {kept}")
        return ""

    for entry in plan.entries:
        try:
            if entry.models:
                resolve(entry.models, planned)
                continue
            # What it judges is not there yet: its place is checked.
            if entry.template == "13_rejudge":
                resolve(entry.parameters, lambda run, _: _earlier(run, runnables))
                execute.known(entry.template, entry.parameters)
                Rejudge(**{**entry.parameters, "runs": []})
                continue
            parameters = resolve(entry.parameters, planned)
            # Something is yet to be trained: its place is checked, not its weights.
            if parameters != entry.parameters:
                # A merge of adapters that are not there is checked as the plainest training of that base.
                if parameters.get("method") == "merge":
                    parameters |= {"method": "sft", "merge": []}
                if "weights" in parameters.get("objective", {}):
                    del parameters["objective"]
            runnables[entry.name] = execute.accept(entry.template, parameters, folder)
        except Exception as error:
            # Changed and not made anew: of whatever kind it is, it keeps its exit code.
            error.args = (f"plan {plan.name!r}, run {entry.name!r}: {error}",)
            raise
        if entry.template == "11_train":
            trains[entry.name] = entry
    return runnables


@dataclass(frozen=True)
class Progress:
    """What happened to one entry of a plan."""

    entry: Entry
    state: str  # there, ran, crashed, unfinished
    record: Record | None = None
    message: str = ""


def run(
    plan: Plan, folder: Path, workers: int = 1, scheduler: str = "", batch: float | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Progress]:  # fmt: skip
    """Run what is missing of a plan, yielding after each entry. A crashed run is reported and the plan goes on.

    With several workers, here or on the Dask cluster of `scheduler`, the notebooks of coming entries are executed ahead;
    they are sealed, and decided on, here and in the order of the plan all the same. Raises Unfinished where the judge gave
    not one judgment: the next rows would fare no better. Raises NoWorker.

    `batch`: what Claude judges goes out in one message batch for so many dollars at most, as soon as the first such row
    comes; rows that need what others are yet to make follow in another. Then also raises what `batches.judge` raises.
    `environment` is for the kernels of this machine.
    """
    # All of it before any of it: a typing error in the last row shows now and not after hours.
    check(plan, folder)
    execute.prepare(folder)
    with workers_of(workers, scheduler, environment) as pool:
        yield from _Course(plan, folder, pool, batch).entries()


class _Course:
    """A plan on its way: the ids of the rows that are sealed, and what is executed ahead of its place."""

    def __init__(self, plan: Plan, folder: Path, pool: Local | Cluster, batch: float | None) -> None:
        """`batch` is what all batches together may cost, in dollars; None where each run is judged by itself."""
        self.plan, self.folder, self.pool = plan, folder, pool
        self.batch, self.dollars = batch is not None, batch or 0.0
        self.ids: dict[str, str] = {}
        self.ahead: dict[str, Future[Executed] | Row | None] = {}  # None: for this process, at its turn
        self._keys: set[str] = set()  # of what is executed ahead
        self._asked: set[str] = set()  # and of what Claude was asked about in a batch

    def entries(self) -> Iterator[Progress]:
        """What happens to each entry, in the order of the plan. Raises Unfinished where the judge gave nothing."""
        for place, entry in enumerate(self.plan.entries):
            ledger = Ledger.read(self.folder)
            self._look_ahead(self.plan.entries[place : place + self.pool.ahead], ledger)
            try:
                if entry.models:
                    yield from _compare(self.folder, entry, self.ids, self.pool.carry_out)
                else:
                    progress = self._one(entry, ledger)
                    assert progress.record is not None
                    self.ids[entry.name] = progress.record.id
                    yield progress
            except RunFailed as error:
                yield Progress(entry, "crashed", None, str(error))
            except Unfinished as error:
                # In a batch the others have theirs already.
                if error.nothing and not self.batch:
                    raise
                yield Progress(entry, "unfinished", None, str(error))

    def _one(self, entry: Entry, ledger: Ledger) -> Progress:
        """One run of a plan: sealed already, executed ahead, or executed now. Raises RunFailed, Unfinished."""
        parameters = _resolved(entry.parameters, self.ids)
        runnable = execute.accept(entry.template, parameters, self.folder)
        have = ledger.by_key(runnable.key)
        if not have and self._waits(runnable):
            self._judge_ahead(self.plan.entries[self.plan.entries.index(entry) :], ledger)
            waiting = pending.read(self.folder, runnable.key)
            if entry.name not in self.ahead and waiting and batches.lacks(runnable):
                raise Unfinished(waiting[1], pending.place(self.folder, runnable.key))
        begun = self.ahead.pop(entry.name, None)
        if have:
            return Progress(entry, "there", have)
        done = begun.result() if begun else self.pool.carry_out(entry.template, parameters, runnable)
        # Once: another call on this folder may have sealed the same row meanwhile, and its run stands.
        return Progress(entry, "ran", execute.adopt(done, entry.name, once=True))

    def _waits(self, runnable: Runnable) -> bool:
        """Whether it cannot be executed to its end before a batch is judged."""
        return self.batch and batches.batched(runnable) and batches.lacks(runnable)

    def _judge_ahead(self, entries: Sequence[Entry], ledger: Ledger) -> None:
        """Answer those of the coming entries that Claude judges, and have all of them judged at once."""
        coming = {row[2].key: row for row in self._coming(entries, ledger) if self._waits(row[2])}
        coming = {key: row for key, row in coming.items() if key not in self._asked}
        unanswered = {key: row for key, row in coming.items() if not pending.read(self.folder, key)}
        begun = {
            key: self.pool.start(entry.template, parameters, runnable, batches.LATER)
            for key, (entry, parameters, runnable) in unanswered.items()
        }
        for key, (entry, parameters, runnable) in unanswered.items():
            row = begun[key]
            done = row.result() if row else self.pool.carry_out(entry.template, parameters, runnable, batches.LATER)
            if done.record:
                pending.keep(self.folder, done.record, done.cases)
            else:  # it crashed, which is sealed at its turn
                crashed: Future[Executed] = Future()
                crashed.set_result(done)
                self.ahead[entry.name] = crashed
                del coming[key]
        # Once a call: what the batch left unjudged would be sent and paid for again with every row that follows.
        self._asked |= coming.keys()
        self.dollars -= batches.judge([runnable for _, _, runnable in coming.values()], self.dollars)

    def _look_ahead(self, entries: Sequence[Entry], ledger: Ledger) -> None:
        """Begin to execute those of the coming entries that can be."""
        for entry, parameters, runnable in self._coming(entries, ledger):
            if runnable.key not in self._keys and not self._waits(runnable):
                self._keys.add(runnable.key)
                self.ahead[entry.name] = self.pool.start(entry.template, parameters, runnable)

    def _coming(self, entries: Sequence[Entry], ledger: Ledger) -> Iterator[tuple[Entry, Json, Runnable]]:
        """Those of the coming entries that are not sealed and need nothing that is yet to be made."""
        for entry in entries:
            if entry.models or entry.name in self.ahead or entry.name in self.ids:
                continue
            try:
                parameters = _resolved(entry.parameters, self.ids)
            except RunFailed:  # what it needs is not there yet
                continue
            runnable = execute.accept(entry.template, parameters, self.folder)
            if ledger.by_key(runnable.key) is None:
                yield entry, parameters, runnable


def _earlier(run: str, runnables: dict[str, Runnable]) -> str:
    """ "" for the id of an earlier row, which it gets when it is sealed. Raises BadParameters where there is none."""
    if run not in runnables:
        raise BadParameters(f"runs {{run: {run}}}: no earlier run of this plan is called so")
    return ""


def _compare(folder: Path, entry: Entry, ids: dict[str, str], carry: execute.Carry) -> Iterator[Progress]:
    """Change only the model: what is missing of the candidates, then the comparison."""
    chosen = _resolved(entry.models, ids)
    candidates = [m if isinstance(m, str) else f"{m['model']}+{m['adapter']}" for m in chosen]
    for state, record in compare_models(folder, candidates, entry.parameters, entry.name, carry):
        # A candidate that is there already is no news.
        if state == "ran" or record.kind == "models":
            yield Progress(entry, state, record)


def compare_models(
    folder: Path, candidates: Sequence[str], parameters: Json, name: str = "", carry: execute.Carry = execute.carry_out
) -> Iterator[Made]:
    """Each model in the same harness, then the comparison. Yields after every run. Raises what `execute.run` raises."""
    wanted = models.in_one_harness(candidates, parameters)
    yield from _side_by_side(folder, wanted, parameters.get("hypothesis"), name or "models", carry)


def compare_bases(folder: Path, new: str, old: str, parameters: Json, name: str = "") -> Iterator[Made]:
    """A new base beside an old one in every harness that matters. Yields and raises as `compare_models` does."""
    wanted = models.on_both_bases(Ledger.read(folder), new, old, parameters)
    hypothesis = parameters.get("hypothesis") or REGRESSION
    yield from _side_by_side(folder, wanted, hypothesis, name or f"base-{Path(new).name}", execute.carry_out)


def _side_by_side(
    folder: Path, wanted: models.Wanted, hypothesis: str | None, name: str, carry: execute.Carry
) -> Iterator[Made]:
    """Run what is not sealed yet of a comparison, then the comparison itself, each named as it ends."""
    # Everything is refused before anything runs: weights that the last candidate lacks cost nothing.
    accepted = {}
    for label, anchors in wanted.items():
        accepted[label] = [execute.accept("10_experiment", parameters, folder) for _, parameters in anchors]
    chosen: dict[str, list[str]] = {}
    for label, anchors in wanted.items():
        for (slug, parameters), experiment in zip(anchors, accepted[label], strict=True):
            have = models.sealed(Ledger.read(folder), experiment)  # type: ignore[arg-type]
            record = have or execute.run("10_experiment", parameters, slug, folder, carry=carry)
            chosen.setdefault(label, []).append(record.id)
            yield ("there" if have else "ran"), record
    parameters = {"groups": chosen}
    if hypothesis:
        parameters["hypothesis"] = hypothesis
    comparison = execute.accept("15_models", parameters, folder)
    have = Ledger.read(folder).by_key(comparison.key)
    yield ("there" if have else "ran"), have or execute.run("15_models", parameters, name, folder, carry=carry)


def _resolved(value: Any, ids: dict[str, str]) -> Any:
    """Plain data with the ids of earlier rows, and behind one the epoch of its adapter that was kept. Raises RunFailed."""

    def adapter(run: str, epoch: int | None) -> str:
        if run not in ids:
            raise RunFailed(f"needs {run!r}, which did not end well")
        return ids[run] + (f"/epoch-{epoch:02d}" if epoch is not None else "")

    return resolve(value, adapter)


def confirm(ledger: Ledger, run: str = "") -> Iterator[Record]:
    """Look at the sealed gate for a kept run (default: the champion) and for the first champion before it.

    Each look is a sealed run of its own, so each look is counted. A run that was looked at is not looked at again.
    Yields the looks; none where nothing was kept.
    """
    chosen, kept = _to_confirm(ledger, run)
    if chosen is None:
        return
    if chosen.status != "kept" or chosen.kind != "experiment":
        raise BadParameters(f"{chosen.id} was not kept; only a kept run can be confirmed")
    accepted = execute.accept(execute.CONFIRM, look(chosen), ledger.folder)
    if accepted.fingerprint != chosen.fingerprint:
        raise BadParameters(f"{chosen.id} was kept on another ruler or judge; run it again on this one first")
    # The first champion's look comes first: without it a later one has nothing to beat.
    wanted = [kept[0], chosen] if chosen is not kept[0] else [chosen]
    for target in wanted:
        now = Ledger.read(ledger.folder)
        looked = next((r for r in now.looks(target.fingerprint) if now.of(r) == target.id), None)
        yield looked or execute.run(execute.CONFIRM, look(target), f"confirm-{target.slug}", ledger.folder)


def _to_confirm(ledger: Ledger, run: str) -> tuple[Record | None, list[Record]]:
    """The run that is named, else the champion of the newest full run's ruler and judge; and all kept runs there."""
    if run:
        newest = ledger.get(run)
    else:
        full = [r for r in ledger.records if r.kind == "experiment" and r.gate == "full"]
        if not full:
            return None, []
        newest = full[-1]
    kept = [r for r in ledger.climb(newest.fingerprint) if r.status == "kept"]
    if run:
        return newest, kept
    return (kept[-1] if kept else None), kept


def look(record: Record) -> Json:
    """Parameters of a look at the sealed gate: the kept run again, with a fresh seed if it samples."""
    same = ("hypothesis", "predicted", "min_effect", "lever", "pipeline", "model", "adapter", "decoding", "judge",
            "batch", "judging", "useful")  # fmt: skip
    parameters = {name: getattr(record, name) for name in same}
    return parameters | {"seed": record.seed + 1000, "gate": "confirm", "of": record.id}
