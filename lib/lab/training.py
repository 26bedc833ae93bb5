"""A training: data, method and base in; a sealed run with its hypothesis, data, curve and adapter out.

Knows the parameters cell of `11_train` and what a notebook shows. Does not know losses or files (`lib.train`), nor
whether the adapter is any good: that is what the experiments say that use it, so its record has no quality and stands
beside the climb. The ruler is here for two things: its fingerprint, and the guard that keeps its texts out.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from lib.agent.guard import LeakGuard
from lib.agent.prompt import Draft
from lib.files import PROGRESS, ROOT, OneLine, canonical, leave_out, sha256, tell, writable
from lib.forms import Number, form
from lib.lab.base import BadParameters, Clock, Finding, Runnable
from lib.measure.answer import Answer, spec_gate
from lib.measure.ruler import Case, Gold
from lib.models import load
from lib.runs.offline import OfflineJudge
from lib.runs.provenance import code_state
from lib.runs.record import Decision, Json, Record, TrainingRecord
from lib.show import Markdown, bar, grid, number
from lib.train import recipe as recipes
from lib.train.data import Pair
from lib.train.lora import Settings, going_on
from lib.train.recipe import Recipe


def work_folder() -> Path:
    """Where trainings keep what a kill must not lose: `NOTCH_TRAIN` if set, else `.train` of the project."""
    return Path(os.environ.get("NOTCH_TRAIN") or ROOT / ".train")


@form(BadParameters)
class Training(Runnable):
    """What the parameters cell says. Nothing runs until `run()`."""

    predicted: Number = 0.0
    method: Literal[recipes.METHODS] = "sft"  # type: ignore[valid-type]
    data: Json = field(default_factory=dict)
    model: str = "smollm2"
    adapter: str = ""
    merge: list[str] = field(default_factory=list)
    settings: Json = field(default_factory=dict)
    objective: Json = field(default_factory=dict)
    checkpoints: list[int] = field(default_factory=list)
    judge: Literal["offline"] = "offline"  # whose rubric rewards drafts
    seed: int = 0
    request: str = ""
    kind: str = "train"
    lever: ClassVar[str] = "training"

    @cached_property
    def guard(self) -> LeakGuard:
        """The texts that no training may see: tasks and gold questions of every gate."""
        return LeakGuard(*self.ruler.held_out)

    @property
    def slug(self) -> str:
        return f"train-{self.method}-{self.data.get('kind', '')}"

    @property
    def keyed(self) -> Json:
        """The parameters without the request that asked for it, and the bytes of a file of pairs."""
        parameters = leave_out(self.parameters, "request")
        path = Path(str(self.data.get("path") or ""))
        if path.is_file():
            parameters["file"] = sha256(path.read_bytes())
        return parameters

    @property
    def adapters(self) -> tuple[str, ...]:
        return (self.adapter, *self.merge)

    @property
    def measured_by(self) -> str:
        """The texts that are kept out; and the judge only where its rubric is the reward: else a new one trains nothing again."""
        if self.method == "grpo":
            return self.fingerprint
        return sha256(canonical([[c.task, c.golden] for c in self.ruler.cases]))

    def recipe(self, progress: Callable[[Json], None] = lambda _: None) -> Recipe:
        """The same for the training room. Raises BadParameters."""
        try:
            settings = Settings.of(self.settings)
            if self.adapter and self.method != "merge":
                # The shape of an adapter is what it is: its rank and layers stand where the settings say nothing.
                settings = Settings.of(going_on(self.adapter, self.settings, self.folder))
        except ValueError as error:
            raise BadParameters(str(error)) from error
        return Recipe(
            self.method, self.model, work_folder(), self.guard, code_state()["sha256"], self.data, self.adapter,
            tuple(self.merge), settings, self.objective, tuple(self.checkpoints), self.seed, rubric,
            work_folder() / "teacher.jsonl", self.folder, progress,
        )  # fmt: skip

    def check(self) -> Training:
        """Refuse what cannot be trained: odd parameters, data with the ruler in it, an adapter of another base.

        Makes the pairs; with source claude it pays for those that are not stored yet.
        """
        checked = self._checked(lambda: self.planned)
        writable(work_folder(), "choose another with NOTCH_TRAIN")
        return checked

    def check_parameters(self) -> Training:
        """The same without the data: names, types, model, method, source. Nothing is built or bought."""
        return self._checked(lambda: self.recipe().check_parameters())

    def _checked(self, recipe: Callable[[], Recipe]) -> Training:
        """The checks that need no data, and what `recipe` refuses. Raises BadParameters, BadData, Leak, NoModel."""
        super().check()
        if not load.capabilities(self.model).adapters:
            raise BadParameters(f"model {self.model!r:.60} has no weights to train; use smollm2 or another MLX model")
        # "" is the bare base, which must be there in any case.
        for adapter in ("", self.adapter, *self.merge):
            load.check(self.model, adapter, self.folder)
        try:
            recipe()
        except (TypeError, ValueError) as error:
            if isinstance(error, OneLine):
                raise
            raise BadParameters(str(error)) from error
        return self

    @cached_property
    def planned(self) -> Recipe:
        """The recipe with its pairs made and guarded, as far as that goes without the model."""
        return self.recipe().check()

    @property
    def data_hash(self) -> str:
        """The hash of the pairs as planned; own drafts come in when the model is loaded. A merge has none."""
        return self.planned.planned.card.hash if self.method != "merge" else ""

    def run(self) -> Trained:
        """Train, from what an earlier, killed call saved. Raises what `lib.train.recipe.train` raises."""
        self.check()
        clock = Clock()
        recipe = replace(self.planned, progress=progress(f"{self.slug}: {self.hypothesis}"))
        outcome = recipes.train(recipe)
        hashes = recipes.store(recipe, outcome)
        findings = {
            "parameters": self.parameters, "method": self.method, "curve": outcome.curve, "epoch": outcome.epoch,
            "data": outcome.card.as_dict() if outcome.card else {}, "provenance": outcome.provenance, "files": hashes,
            "adapter_bytes": sum(len(v) for k, v in outcome.files.items() if k.startswith("adapter/adapters")),
            "tokens": outcome.tokens,
        }  # fmt: skip
        cost = {"calls": 0, "generation_tokens": 0, "seconds": round(outcome.seconds, 3), "dollars": 0.0}
        record = self.record(found=findings, identity={"model": dict(recipe.base)}, cost=cost, **clock.times)
        return Trained(self, record, [], outcome)

    def record(self, **findings: Any) -> Record:
        """The record of this training with what came out."""
        return super().record(of=self.request, **findings)

    def files(self, record: TrainingRecord) -> dict[str, bytes]:  # type: ignore[override]
        """What the seal keeps beside the notebook: the adapter and its data, checked against the record. Raises OSError."""
        out, contents = self.planned.folder / "out", {}
        for name, digest in record.found.files.items():
            # A work folder is open until the seal; the record holds the hashes of what was trained.
            contents[name] = (out / name).read_bytes()
            if sha256(contents[name]) != digest:
                raise OSError(f"{out / name}: not the file that was trained; train again")
        return contents

    def clear(self) -> None:
        """Forget what lay in the work folder for a killed training to go on from: all of it is sealed."""
        shutil.rmtree(self.planned.folder, ignore_errors=True)

    # --- what the notebook shows

    @property
    def card(self) -> Markdown:
        """The hypothesis as it was declared before the training."""
        return Markdown(
            f"{super().card.text}\n\nPredicted effect of the adapter on quality: **{self.predicted:+.3f}**."
        )

    @property
    def pairs(self) -> Any:
        """The card of the data as planned."""
        if self.method == "merge":
            return Markdown("A merge learns from no data.")
        return self.planned.planned.card

    def _repr_markdown_(self) -> str:
        s = vars(self.planned.settings)
        start = f", going on from adapter **{self.adapter}**" if self.adapter else ""
        what = f"merge of {', '.join(self.merge)}" if self.method == "merge" else f"method **{self.method}**"
        table = "" if self.method == "merge" else f"\n\n{grid(s, [map(str, s.values())])}"
        terms = f" Objective: {json.dumps(self.objective)}." if self.objective else ""
        return f"Base **{self.model}**{start}, {what}, seed {self.seed}.{terms}{table}"


def rubric(pair: Pair, draft: Draft) -> float:
    """The offline judge's mean score of a draft, 0 to 1, the chosen set playing gold; 0 where the spec gate fails."""
    answer = spec_gate(draft.title, draft.questions)
    if not isinstance(answer, Answer):
        return 0.0
    gold = pair.chosen
    # Nobody said which question of a chosen set decides most; its first stands for that.
    case = Case("training", pair.task, Gold(gold.title, gold.questions, gold.questions[0]))
    scores = OfflineJudge().judge(case, answer).scores
    return (sum(scores.values()) / len(scores) - 1) / 4


@dataclass(frozen=True, repr=False)
class Trained(Finding):
    """What a training made, before it is sealed."""

    outcome: recipes.Outcome

    @property
    def data(self) -> Any:
        """The card of the pairs that were trained on."""
        return self.outcome.card or Markdown("A merge learns from no data.")

    @property
    def provenance(self) -> Markdown:
        """Where the adapter comes from, as it stands in its folder."""
        p = self.outcome.provenance
        parents = ", ".join(f"{x['adapter']} ({x['weights'][:12]})" for x in p["parents"]) or "none"
        rows = {
            "base": f"{p['base']['name']} ({p['base']['weights']})", "data": p["data"].get("hash", "")[:12],
            "parents": parents, "code": p["code"][:12], "seed": p["seed"], "epoch": p.get("epoch", ""),
            "weights on disk": f"{self.found['adapter_bytes'] / 1000:.0f} kB in float16",
        }  # fmt: skip
        return Markdown(grid(("", ""), ((k, str(v)) for k, v in rows.items())))

    @property
    def decision(self) -> Decision:
        """Nothing is kept here."""
        return Decision("reference", "an adapter is judged by the experiments that use it, not by its loss")

    def _repr_markdown_(self) -> str:
        curve = self.outcome.curve
        if not curve:
            return "Two adapters became one; nothing was trained."
        names = list(dict.fromkeys(k for row in curve for k in row))
        heads = [n.replace("_", " ") for n in names]
        table = grid(heads, ([number(row.get(k), "loss") for k in names] for row in curve))
        whole = curve[-1]["epoch"] == self.runnable.planned.settings.epochs
        early = "" if whole else ", training stopped early"
        return f"{table}\n\nEpoch {self.outcome.epoch} is the adapter of this run{early}."


def progress(what: str = "") -> Callable[[Json], None]:
    """Where a training tells how far it is: to whoever waits for this kernel, else a line where a person looks on.

    Not where papermill runs without a reader: the line would be sealed with the timings of this machine.
    """
    if os.environ.get(PROGRESS):
        return lambda state: tell(line(state), what)
    if os.environ.get("NOTCH_RUNS") or not (sys.stderr.isatty() or "ipykernel" in sys.modules):
        return lambda _: None
    return lambda state: print(f"\r{line(state)}", end="", file=sys.stderr, flush=True)


def line(state: Mapping[str, Any]) -> str:
    """One line about a training under way.

    >>> line({"done": 3, "total": 12, "epoch": 1, "loss": 2.5, "seconds_left": 130.0})
    'training ███░░░░░░░░░ 3 of 12 steps, 2 min 10 s left, loss 2.500, epoch 1  '
    """
    steps = bar("training", state["done"], state["total"], "steps", state["seconds_left"])
    # Two spaces at the end cover what a longer line left when it is written over.
    return f"{steps}, loss {state['loss']:.3f}, epoch {state['epoch']}  "
