"""One task tried by hand: every call, the answer beside gold, and what lowered each score.

Knows what can be chosen (cases that may be shown, models, steps with their arguments) and how to try one choice.
Writes nothing, asks no paid judge, and never offers a case of the sealed gate. Does not know widgets.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

from lib.agent.pipeline import STEPS, State
from lib.agent.pipeline import run as run_pipeline
from lib.files import RULER
from lib.forms import read_yaml
from lib.lab.experiment import BadParameters, Experiment, answer_of, case_row, side_by_side
from lib.measure.answer import Answer, NoAnswer, normalised
from lib.measure.judge import Judgment, Unscored
from lib.measure.ruler import Case, Ruler
from lib.measure.score import case_quality
from lib.models import load, provenance
from lib.models.model import Decoding, NoModel
from lib.report.era import latest
from lib.runs.ledger import Ledger
from lib.runs.offline import OfflineJudge
from lib.runs.record import Record
from lib.show import Markdown, cell, fenced, grid, plural

SHOWN = ("dev", "full")  # gates whose texts a person may read; the sealed gate is not among them
BUILT_IN = ("smollm2", "toy")
BY_HAND = "Tried by hand; nothing is recorded."
STOCK = "SmolLM2 as it is seldom writes a valid answer; a wording, a grammar or an adapter helps it."


def cases() -> list[Case]:
    """The cases that may be shown: the dev gate first, then the full gate."""
    shown = [c for c in Ruler.load(RULER).cases if c.gate in SHOWN]
    return sorted(shown, key=lambda c: SHOWN.index(c.gate))


def models(ledger: Ledger | None = None) -> dict[str, tuple[str, str]]:
    """What can answer here, by label: SmolLM2, the toy, and every sealed adapter on its base."""
    ledger = ledger or Ledger.read()
    names = {name: (name, "") for name in BUILT_IN}
    for record in ledger.records:
        where = ledger.folder / record.id / "adapter"
        if where.is_dir():
            names[f"{record.model} + {record.id}"] = (record.model, str(where))
    return names


def steps() -> list[str]:
    """Every registered step, family by family, those of prompting first."""
    from lib.agent.steps import build  # noqa: F401  importing it registers the levers

    return sorted(STEPS, key=lambda n: (STEPS[n].family != "prompting", STEPS[n].family, n))


def row(step: str, values: dict[str, Any]) -> dict[str, Any]:
    """A row of a pipeline: only those arguments that differ from their defaults."""
    defaults = STEPS[step].defaults
    return {"step": step, **{k: v for k, v in values.items() if v != defaults[k]}}


def spelled(value: Any) -> str:
    """An argument of no plain kind as text that `read` reads back."""
    return json.dumps(value, ensure_ascii=False)


def read(argument: str, text: str) -> Any:
    """The value of an argument typed as YAML. Raises ValueError with what came."""
    return read_yaml(text, f"{argument} {text!r:.60}")


def find(task: str) -> Case | None:
    """The shown case whose task this is, if it is one."""
    return next((c for c in cases() if normalised(c.task) == normalised(task)), None)


# As many as a blind choice sets side by side: loading takes longer than one answer.
_loaded = lru_cache(maxsize=3)(load.load)


@dataclass(frozen=True)
class Choice:
    """What is tried: a task, a pipeline, a model."""

    task: str
    pipeline: list[dict[str, Any]] = field(default_factory=lambda: [{"step": "ask"}])
    model: str = "smollm2"
    adapter: str = ""
    decoding: dict[str, Any] = field(default_factory=dict)
    seed: int = 0

    @classmethod
    def of_run(cls, record: Record, runs: Path) -> Choice:
        """What answered in a sealed run, with a task yet to be asked. Raises NoModel where its adapter is not here."""
        adapter = record.adapter
        if adapter:
            # As a path: a try looks for a run by its name in the folder of its own process, which may be another.
            adapter = str(provenance.find(adapter, runs))
        return cls("", list(record.pipeline), record.model, adapter, dict(record.decoding), record.seed)

    def of(self, task: str) -> Tried:
        """The same for another task."""
        return replace(self, task=task).attempt()

    def attempt(self) -> Tried:
        """Answer the one task. Raises what the check of an experiment raises (BadPipeline, NoModel, Leak, ...)."""
        if not self.task.strip():
            raise BadParameters("the task is empty; type one line, such as: plan a trip to Paris")
        # The experiment that would try this on a whole gate does the refusing.
        setup = {k: getattr(self, k) for k in ("pipeline", "model", "adapter", "decoding", "seed")}
        experiment = Experiment(hypothesis=BY_HAND, **setup).check()
        case = find(self.task) or Case("typed", " ".join(self.task.split()))
        model = _loaded(self.model, self.adapter)
        # A loaded model serves many tries and its cost adds up, so that of this one is a difference.
        before = model.cost
        decoding = replace(Decoding.of(self.decoding), seed=self.seed)
        [state] = run_pipeline(experiment.steps, [(case.id, case.task)], model, decoding)
        tokens = model.cost.generation_tokens - before.generation_tokens
        return Tried(self, case, state, answer_of(state, experiment.ruler.protocol), tokens)


def champion(task: str = "", ledger: Ledger | None = None) -> Choice:
    """The champion of the sealed runs; the stock model where there is none, its adapter is not here or it costs money."""
    ledger = ledger or Ledger.read()
    record = ledger.champion(latest(ledger))
    if record and load.backend(record.model) is not load.CLOUD:
        with suppress(NoModel):
            return replace(Choice.of_run(record, ledger.folder), task=task)
    return Choice(task)


@dataclass(frozen=True, repr=False)
class Tried:
    """What came of one choice."""

    choice: Choice
    case: Case
    state: State
    answer: Answer | NoAnswer
    tokens: int  # newly generated

    @cached_property
    def outcome(self) -> Judgment | Unscored | NoAnswer | None:
        """What the offline judge says against gold; None where the task has no gold."""
        if isinstance(self.answer, NoAnswer):
            return self.answer
        return OfflineJudge().judge(self.case, self.answer) if self.case.gold else None

    @cached_property
    def quality(self) -> float | None:
        """Quality of the one case, 0 to 1; None where the task has no gold."""
        return None if self.outcome is None else case_quality(self.outcome)

    @property
    def calls(self) -> Markdown:
        """Every stage in order: what it decided, what it asked the model, what came back."""
        parts = [f"*{cell(n)}*" for n in self.state.notes]
        for step, calls in groupby(enumerate(self.state.calls, 1), key=lambda numbered: numbered[1]["step"]):
            parts += [f"#### {step}", *(_call(number, call) for number, call in calls)]
        return Markdown("\n\n".join(parts) or "No step called the model.")

    @property
    def beside(self) -> Markdown:
        """The answer beside gold, or alone where the task has none; of the stock model, that it seldom has one."""
        text = self._beside()
        if isinstance(self.answer, NoAnswer) and (self.choice.model, self.choice.adapter) == ("smollm2", ""):
            text += f"\n\n{STOCK}"
        return Markdown(text)

    def _beside(self) -> str:
        if self.case.gold is not None:
            shown = case_row(self.case, self.state, self.answer, self.outcome)  # type: ignore[arg-type]
            if shown.judgment:  # `judgment` has the notes, each beside its score
                shown = shown.revised(judgment=replace(shown.judgment, notes={}))
            return side_by_side(shown, self.case)
        if isinstance(self.answer, NoAnswer):
            return f"**{cell(self.case.task)}**. No answer: {cell(self.answer.reason)}"
        lines = "\n".join(f"{i}. {cell(q)}" for i, q in enumerate(self.answer.questions, 1))
        return f"**{cell(self.answer.title)}**\n\n{lines}"

    @property
    def judgment(self) -> Markdown:
        """Quality and what lowered each score; for a task without gold the spec gate alone."""
        cost = f"{plural(len(self.state.calls), 'model call')}, {plural(self.tokens, 'new token')}. {BY_HAND}"
        return Markdown(f"{self._against_gold()}\n\n{cost}")

    def _against_gold(self) -> str:
        if isinstance(self.answer, NoAnswer):
            return f"**No answer**: {cell(self.answer.reason)}. Such a case scores 0."
        if not isinstance(self.outcome, Judgment):
            return "**Spec gate passed.** This task has no gold answer, so there is no quality."
        j = self.outcome
        rows = [(d.replace("_", "-"), f"{j.scores[d]:.2f}", cell(j.notes.get(d, ""))) for d in j.scores]
        head = f"**Quality {self.quality:.3f}**: {j.verdict} against gold, by the offline judge, a stand-in."
        return f"{head}\n\n{grid(('dimension', 'score of 5', 'what lowered it'), rows)}"

    def __repr__(self) -> str:
        return f"Tried {self.case.task!r}: {type(self.answer).__name__}"

    @property
    def parts(self) -> dict[str, str]:
        """All of it by heading, in the order in which it is read."""
        return {"Answer": self.beside.text, "Judgment": self.judgment.text, "Calls": self.calls.text}

    def _repr_markdown_(self) -> str:
        return "\n\n".join(f"### {name}\n\n{text}" for name, text in self.parts.items())


def _call(number: int, call: dict[str, Any]) -> str:
    asked = "\n\n".join(f"{m['role']}:\n{m['content']}" for m in call["messages"])
    prompt, written = call["tokens"]
    return (
        f"Call {number}, {prompt} tokens read, {written} written, ended by {call['finish_reason']}:\n\n{fenced(asked)}\n\n"
        f"reply:\n\n{fenced(call['text'])}"
    )
