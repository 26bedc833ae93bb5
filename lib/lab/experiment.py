"""One experiment: a ruler, a pipeline on a model, a judge; what comes out is a record with its cases.

Knows how to check an experiment before it costs anything, run it and show what it found. Does not know how a notebook
is executed or sealed: run by hand it writes nothing.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Annotated, Any, Literal

from pydantic import Field

from lib.agent import dry_run
from lib.agent.bank import Example, bank
from lib.agent.guard import JUDGED, ORDERS, SPELT, LeakGuard
from lib.agent.pipeline import STEPS, BadPipeline, State, Step, require
from lib.agent.pipeline import run as run_pipeline
from lib.agent.steps import build
from lib.files import RULER, Tampered, attributes
from lib.forms import Number, form
from lib.lab.base import BadParameters, Clock, Finding, Runnable, Telling
from lib.measure import keep
from lib.measure.answer import Answer, NoAnswer, spec_gate
from lib.measure.checks.damage import as_gold
from lib.measure.judge import DIMENSIONS, DIMS, Unscored
from lib.measure.leak import copies, leaked, leaks
from lib.measure.ruler import GATES, Case, Ruler
from lib.measure.score import Outcome, Scores, score, usefulness
from lib.measure.useful import useful_all
from lib.models import load, stored
from lib.models.model import Cost, Decoding, Model
from lib.runs import pending
from lib.runs.provenance import code_state
from lib.runs.record import CaseRow, Decision, Findings, Json, Record, RunCost, Usefulness, qualities, setup_of
from lib.show import Markdown, cell, fenced, grid, interval, number, words

LEVERS = (
    "baseline", "prompting", "schema", "decoding", "retrieval", "multi-call", "self-critique",
    "over-generate and prune", "info-gain", "answer simulation", "verification", "adapter", "anchor", "a/a",
)  # fmt: skip

LOOK = "NOTCH_LOOK"  # set where `notch confirm` executes a look at the sealed gate, which it then seals and counts
UNJUDGED = "NOTCH_UNJUDGED"  # set where a study executes a run that is judged later, together with others
LATER: Json = {"useful": False}  # parameters added after runs were sealed, with their defaults
LOOKS = ("model", "gate", "seed", "judging", "fingerprint")  # what a look at the sealed gate may have of its own
GROUP = 8  # cases answered at a time where the judge works beside the model


@lru_cache(maxsize=4)
def _guard_of(tasks: tuple[str, ...], golds: tuple[str, ...]) -> LeakGuard:
    return LeakGuard(tasks, golds)


@lru_cache(maxsize=4)
def _check_bank(guard: LeakGuard, examples: tuple[Example, ...]) -> None:
    """Raise Leak; what was clean once is not read again, since a loop checks hundreds of proposals."""
    for example in examples:
        guard.check(example.texts, f"bank example {example.id}")


@form(BadParameters)
class Experiment(Runnable):
    """What the parameters cell says. Nothing runs until `run()`."""

    predicted: Annotated[Number, Field(ge=-1, le=1)] = 0.0  # quality is 0 to 1, so an effect is -1 to 1
    min_effect: Annotated[Number, Field(gt=0)] = 0.02
    lever: Literal[LEVERS] = "baseline"  # type: ignore[valid-type]
    pipeline: list[Any] = field(default_factory=lambda: [{"step": "ask"}])
    model: str = "smollm2"
    adapter: str = ""
    decoding: Json = field(default_factory=dict)
    judge: str = "offline"
    batch: bool = False  # claude: half the price, up to a day
    judging: Json = field(default_factory=dict)  # claude: see lib/lab/base.py
    gate: Literal[GATES] = "full"  # type: ignore[valid-type]
    seed: int = 0
    of: str = ""  # the run that this one repeats (a/a) or looks at again (confirm)
    useful: bool = False  # claude: ask also, without gold in sight, whether each set enables a good plan
    kind: str = "experiment"

    def __post_init__(self) -> None:
        """Raises BadParameters where the gate does not fit the kind: the sealed one is for looks alone."""
        if self.gate == "confirm" and self.kind != "confirm":
            raise BadParameters("gate 'confirm' is sealed: `notch confirm RUN` looks at it, and every look is counted")
        # A kept run on the tasks that it was kept on would win.
        if self.kind == "confirm" and self.gate != "confirm":
            raise BadParameters(f"gate is {self.gate!r}: a look is at gate 'confirm' and no other")

    @cached_property
    def steps(self) -> list[Step]:
        """The pipeline's steps with their arguments. Raises BadPipeline."""
        return build(self.pipeline)

    @property
    def adapters(self) -> tuple[str, ...]:
        """The run's own and those that a step names."""
        return (self.adapter, *self.borrowed)

    @property
    def borrowed(self) -> list[str]:
        """Adapters that only a step names."""
        return sorted({s.args["adapter"] for s in self.steps if s.args.get("adapter")})

    @property
    def slug(self) -> str:
        """Lever and steps, so that a folder says what ran in it."""
        if self.kind == "experiment":
            return f"{self.lever}-{'-'.join(s.name for s in self.steps)}"
        return self.kind

    @property
    def keyed(self) -> Json:
        # A parameter that came later is left out at its default: runs sealed before it keep their keys.
        return {k: v for k, v in self.parameters.items() if k not in LATER or v != LATER[k]}

    def check(self) -> Experiment:
        """Refuse what cannot run or must not: bad steps, model, decoding, judge; a tampered ruler; a leak."""
        super().check()
        if self.useful and self.judge == "offline":
            raise BadParameters("useful is asked of judge 'claude' alone: offline it measured nothing")
        # From cheap to dear: names and ranges first, weights and bank last.
        self.steps  # noqa: B018  builds, or says what is wrong
        self._decoding()
        load.check(self.model, self.adapter, self.folder)
        require(self.steps, self.model, load.capabilities(self.model))
        for step in self.steps:
            load.check(self.model, step.args.get("adapter", ""), self.folder)
        if wrong := dry_run.fault(self.steps, self.ruler.protocol.questions):
            raise BadPipeline(f"no model could pass the spec gate with this pipeline: {wrong}")
        self._as_stored()
        if self.lever == "a/a" and self.judge == "claude" and not self.judging.get("replicate"):
            raise BadParameters("a/a with judge 'claude' needs judging {replicate: 1} or more: without it the stored "
                                "judgments of the repeated run come back, and the noise looks like 0")  # fmt: skip
        if hasattr(self.the_judge, "check"):
            self.the_judge.check()
        if self.gate == "confirm":
            self._looks_at()
        self.guard()
        return self

    def _as_stored(self) -> None:
        """Stored answers stand for the prompt and pipeline that they were written for, as an anchor and nothing else."""
        if not stored.named(self.model):
            return
        about = stored.read(self.model).about
        if self.lever != "anchor":
            raise BadParameters(f"model {self.model!r} has lever {self.lever!r}: stored answers are an anchor, never part "
                                "of the climb; give lever anchor")  # fmt: skip
        if self.pipeline != about["pipeline"]:
            raise BadParameters(
                f"model {self.model!r} answers the pipeline {json.dumps(about['pipeline'])[:200]} and no other"
            )
        # A stand-in's task is in it and is taken out again, so one hash stands for the prompts of all tasks.
        [call] = dry_run.calls(self.steps)
        if stored.prompt_hash(call, dry_run.TASK[1]) != about["prompt_sha256"]:
            raise BadParameters(f"model {self.model!r} was asked with another prompt than today's; only the model may "
                                "differ, so its answers must be written anew")  # fmt: skip

    def _looks_at(self) -> None:
        """The sealed gate is for a kept run, as it is."""
        kept = self.ledger.newest(lambda r: r.named(self.of))
        if kept is None or kept.kind != "experiment" or kept.status != "kept":
            raise BadParameters(f"gate 'confirm' is sealed and of is {self.of!r:.60}: expected a kept run of this folder; "
                                "`notch confirm RUN` looks at it and counts the look")  # fmt: skip
        if len(self.ledger.looks(self.fingerprint)) >= keep.LOOKS:
            raise BadParameters(f"gate 'confirm' was looked at {keep.LOOKS} times in this era, and no more looks are due: "
                                "they share one error; a new era, with another ruler or judge, has its own")  # fmt: skip
        # Gate and seed are a look's own; of a model's own folder a seal keeps only the name.
        another = [name for name in setup_of(self).differs(kept.setup) if name not in LOOKS]
        if another:
            raise BadParameters(
                f"gate 'confirm': {another[0]} is not that of {kept.id}; a look repeats the kept run as it is"
            )

    def leak_guard(self, unseen: Sequence[str] = GATES) -> LeakGuard:
        """Against all gold, and the tasks of the gates that are `unseen`."""
        _, golds = self.ruler.held_out
        return _guard_of(tuple(c.task for c in self.ruler.cases if c.gate in unseen), golds)

    def guard(self) -> None:
        """Raise Leak where a text that the model can see repeats the ruler."""
        guard = self.leak_guard()
        for step in self.steps:
            guard.check(step.texts, f"step {step.name}", meaning=True)
            for text in step.texts:
                if ORDERS.search(text) or JUDGED.search(text):
                    raise BadPipeline(f"step {step.name}: {text[:80]!r} gives orders to a later reader or speaks of the "
                                      "judge; a wording is for the planner")  # fmt: skip
                if SPELT.search(text):
                    raise BadPipeline(f"step {step.name}: {text[:80]!r} is spelt so that no filter reads it (two "
                                      "alphabets in a word, single letters, no spaces, codes); write plain words")  # fmt: skip
        # A question that is cut in two stands in neither half.
        guard.check([" ".join(text for step in self.steps for text in step.texts)], "steps read as one", typed=True)
        if any(s.family == "retrieval" or s.args.get("by") in ("neighbours", "corpus") for s in self.steps):
            _check_bank(guard, tuple(bank()))

    def _decoding(self) -> Decoding:
        """The decoding with its seed. Raises BadParameters, also where a setting could change nothing."""
        try:
            load.check_decoding(self.model, self.decoding)
            decoding = replace(Decoding.of(self.decoding), seed=self.decoding.get("seed", self.seed))
        except ValueError as error:
            raise BadParameters(str(error)) from error
        # A step that draws with a temperature of its own takes the rest of the decoding along.
        warm = {name for name, lever in STEPS.items() if {"temp", "temps"} & lever.arguments.keys()}
        if decoding.temp == 0 and warm.isdisjoint(s.name for s in self.steps):
            for key in ("top_p", "min_p", "top_k"):
                if getattr(decoding, key) != getattr(Decoding(), key):
                    raise BadParameters(f"decoding has {key} and temp 0: a greedy draw takes the likeliest token whatever "
                                        f"{key} says; give a temp or leave {key} out")  # fmt: skip
        if decoding.repetition_penalty == 1 and "repetition_context" in self.decoding:
            raise BadParameters("decoding has repetition_context and no repetition_penalty: there is nothing to look back "
                                "for; give a penalty above 1 or leave repetition_context out")  # fmt: skip
        return decoding

    def run(self) -> Run:
        """Answer and judge every case of the gate. A bad reply is a NoAnswer of its case, never a crash."""
        self.check()
        # By hand a look would be seen without being sealed, and so without being counted.
        if self.gate == "confirm" and not os.environ.get(LOOK):
            raise BadParameters(
                "gate 'confirm' is sealed: `notch confirm RUN` looks at it, seals what it sees and counts it"
            )
        # Answers whose judge failed in an earlier call: they are neither made nor paid for again.
        waiting = pending.read(self.runs_folder, self.key)
        return self._finished(*waiting) if waiting else self._begun()

    def _begun(self) -> Run:
        """All cases answered and judged."""
        clock = Clock()
        cases = self.ruler.gate(self.gate)
        tell = Telling(len(cases), sum(step.calls for step in self.steps), f"{self.slug}: {self.hypothesis}")
        tell.say(f"loading {self.model}")
        model = load.load(self.model, self.adapter, self.folder)
        loaded = clock.seconds
        # One judge serves every `run()` of this object, so what this one cost is a difference.
        before = self._paid()
        stages: dict[str, Cost] = {}
        later = bool(os.environ.get(UNJUDGED))
        judge = _Later() if later else self.the_judge
        states, answers, judging = self._answer_all(model, cases, judge, stages, tell)
        answered = clock.seconds
        tell.say(f"judging {len(cases)} answers")
        outcomes = _judge(judge, cases, answers, judging)
        rows = [case_row(c, s, a, o) for c, s, a, o in zip(cases, states, answers, outcomes, strict=True)]
        if not later:
            rows = self._with_usefulness(rows)
        cost = _rounded(vars(model.cost)) | _rounded(_speeds(model.cost))
        # Judging counts beyond the answering, which it may overlap.
        spans = {"load_seconds": loaded, "answer_seconds": answered - loaded, "judge_seconds": clock.seconds - answered}
        cost |= _rounded(spans) | self._bill(before)
        identity = {"model": model.identity, "judge": self.the_judge.identity}
        if self.borrowed:
            identity["adapters"] = {a: model.with_adapter(a).identity["adapter"] for a in self.borrowed}
        record = self.record(
            # By what the calls did: a step may draw with a temperature of its own where the decoding is greedy.
            sampled=any("temp" in call for s in states for call in s.calls), identity=identity,
            cost=cost | {"stages": {name: _stage(each) for name, each in stages.items()}}, **clock.times,
        )  # fmt: skip
        return self._scored(record, rows)

    def _finished(self, record: Record, rows: list[CaseRow]) -> Run:
        """What waited, with the missing judgments. Its answers are as they were, made by the code that the record names."""
        clock, before = Clock(), self._paid()
        # Only these: what was judged was paid for, and a second opinion on it would be another measurement.
        missing = [row for row in rows if row.unscored is not None]
        pairs = [(self.ruler.by_id[row.case], row.answer) for row in missing if row.answer is not None]
        outcomes = self.the_judge.judge_all(pairs)
        judged = {row.case: row.judged(o) for row, o in zip(missing, outcomes, strict=True)}
        rows = self._with_usefulness([judged.get(row.case, row) for row in rows])
        cost = record.cost.as_dict()
        for name, more in {**self._bill(before), "judge_seconds": clock.seconds}.items():
            cost[name] = round(cost.get(name, 0) + more, 4)
        seconds = round(record.seconds + clock.seconds, 3)
        return self._scored(record.revised(cost=RunCost.read(cost), seconds=seconds), rows)

    def _scored(self, record: Record, rows: list[CaseRow]) -> Run:
        """The run with scores and findings over its rows. Raises Tampered where the ruler changed meanwhile."""
        # From disk again: what one ruler has judged must not be sealed under the name of another.
        if Ruler.load(RULER).seal != self.ruler.seal:
            raise Tampered(f"{RULER}: the ruler changed while the run was on")
        scores = score([row.outcome for row in rows])
        plain = list(map(CaseRow.as_dict, rows))
        findings = Findings(useful=Usefulness.read(usefulness(plain))) if self.useful else Findings()
        return Run(self, record.revised(scores=scores, found=findings, leaks=leaks(plain)), rows, scores)

    def _paid(self) -> Any:
        """What the judge was paid so far, None where it costs nothing."""
        return getattr(self.the_judge, "cost", None)

    def _bill(self, before: Any) -> dict[str, float]:
        """What it was paid since."""
        if before is None:
            return {}
        return _rounded({f"judge_{name}": value for name, value in vars(self._paid() - before).items()})

    def _with_usefulness(self, rows: list[CaseRow]) -> list[CaseRow]:
        """The rows with what the judge says of each set when it sees no gold, where that is asked."""
        if not self.useful:
            return rows
        pairs = [(self.ruler.by_id[row.case], row.answer) for row in rows if row.answer is not None]
        by_case: dict[str, Json] = {}
        for (case, _), rating in zip(pairs, useful_all(self.the_judge, pairs), strict=True):
            if isinstance(rating, Unscored):
                by_case[case.id] = {"unscored": rating.reason}
            else:
                by_case[case.id] = {"score": rating.score, "reason": rating.reason}
        return [row.revised(useful=by_case.get(row.case)) for row in rows]

    def _answer_all(
        self,
        model: Model,
        cases: Sequence[Case],
        judge: Any,
        stages: dict[str, Cost] | None = None,
        tell: Telling | None = None,
    ) -> tuple[list[State], list[Answer | NoAnswer], list[Any] | None]:
        """States and answers of all cases; with a judge that works beside the model, its judgments as they begin."""
        # Only a judge that works beside the model takes answers as they come.
        submit = getattr(judge, "submit", None)
        size = GROUP if submit and not self.batch else len(cases)
        tell = tell or Telling(len(cases), sum(step.calls for step in self.steps))
        states: list[State] = []
        answers: list[Answer | NoAnswer] = []
        judging: list[Any] = []
        # In groups only beside a judge that waits for a network: one batch of all cases is fastest for the model alone.
        for at in range(0, len(cases), size):
            group = cases[at : at + size]
            before = at / len(cases) * tell.calls
            tell(f"1 {self.steps[0].name}", before)
            group_states = run_pipeline(
                self.steps, [(c.id, c.task) for c in group], model, self._decoding(), stages,
                lambda stage, replies, before=before: tell(stage, before + replies),  # type: ignore[misc]
            )  # fmt: skip
            group_answers = [answer_of(s, self.ruler.protocol) for s in group_states]
            states, answers = states + group_states, answers + group_answers
            if submit:
                judging += [submit(c, a) for c, a in zip(group, group_answers, strict=True) if isinstance(a, Answer)]
            if any(f.done() and f.exception() for f in judging):
                # Raises: no more answers are made for a judge that cannot judge.
                judge.collect(judging)
        return states, answers, judging if submit else None

    # --- what the notebook shows

    def _repr_markdown_(self) -> str:
        calls = sum(s.calls for s in self.steps)
        rows = [(str(i), s.name, s.about, words(s.args), f"{s.calls:g}") for i, s in enumerate(self.steps, 1)]
        table = grid(("", "step", "what it does", "arguments", "calls a case"), rows)
        return (
            f"Model **{self.model}**{' + adapter ' + self.adapter if self.adapter else ''}, gate **{self.gate}** "
            f"({len(self.ruler.gate(self.gate))} cases), judge **{self.judge}**, decoding {words(self.decoding) or 'greedy'}, "
            f"seed {self.seed}.\n\n{table}\n\n"
            f"{calls:g} model call{'s' * (calls != 1)} a case. Ruler and judge: `{self.fingerprint[:12]}`; code `{code_state()['sha256'][:12]}`. "
            f"{self.ledger.sees(self.fingerprint, bool(self._decoding().temp))}"
        )

    @property
    def card(self) -> Markdown:
        """The hypothesis as it was declared before the run."""
        return Markdown(
            f"{super().card.text}\n\nLever: **{self.lever}**. Predicted effect on quality: **{self.predicted:+.3f}**. "
            f"A run that is not kept counts as indecisive while its interval admits a gain of {self.min_effect:.3f}."
        )

    @property
    def command(self) -> Markdown:
        """The line for a terminal that seals this very run."""
        usual, words = Experiment().parameters, [".venv/bin/notch", "run"]
        for name, value in self.parameters.items():
            if name == "hypothesis" or value != usual[name]:
                words += ["-p", name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)]
        return Markdown(
            f"The same run, sealed, from a terminal in the folder of the project:\n\n{fenced(shlex.join(words), 'sh')}"
        )


@dataclass(frozen=True, repr=False)
class Run(Finding):
    """What an experiment found, before anything is decided or sealed."""

    scores: Scores

    @property
    def qualities(self) -> dict[str, float]:
        """Quality by case id, without the unscored."""
        return qualities(self.cases)

    @cached_property
    def decision(self) -> Decision:
        """The keep rule, applied against the ledger as it is now."""
        return self.runnable.ledger.decide(self.record, self.qualities)

    @property
    def beside(self) -> Markdown:
        """This run beside the champion it is compared with, and gold judged against itself: parity."""
        rows = [("this run", self.scores)]
        ledger = self.runnable.ledger
        rival = self.decision.against
        if rival:
            rows.append((f"{rival} (compared with)", ledger.get(rival).scored))
        first = next((r for r in ledger.climb(self.record.fingerprint, self.record.gate) if r.scores), None)
        if first and first.id != rival:
            rows.append((f"{first.id} (first run)", first.scored))
        cases = self.runnable.ruler.gate(self.runnable.gate)
        if self.runnable.judge == "offline":  # a paid judge would charge for this line
            golds = [(c, as_gold(c)) for c in cases if c.gold]
            rows.append(("gold against itself", score(self.runnable.the_judge.judge_all(golds))))
        return Markdown(_beside(rows))

    def worst(self, k: int = 5) -> Markdown:
        """The k cases with the lowest quality, their texts beside gold. Of the sealed gate none: one that is read is worn out."""
        if self.runnable.gate == "confirm":
            return Markdown("The texts of the sealed gate are not shown.")
        rows = sorted(self.cases, key=lambda r: (r.quality is not None, r.quality or 0.0, r.case))[:k]
        return Markdown("\n\n".join(side_by_side(r, self.runnable.ruler.by_id[r.case]) for r in rows))

    def __repr__(self) -> str:
        # Short: the long form would put every case into the notebook a second time.
        return f"Run of {len(self.cases)} cases, quality {self.scores.quality:.4f}"

    def _repr_markdown_(self) -> str:
        parts = [self.scores._repr_markdown_(), useful_sentence(self.record.found.useful), self._cost()]
        return "\n\n".join(t for t in parts if t)

    def _cost(self) -> str:
        """Calls, new tokens, seconds and dollars in a sentence, then speeds and a table of stages where known."""
        c, n = self.record.cost, len(self.cases)
        judge = "" if c.judge_dollars is None else f" and ${c.judge_dollars:.2f} to judge"
        return (
            f"{c.calls / n:.1f} calls and {c.generation_tokens / n:.0f} new tokens a case; "
            f"{c.answer_seconds:.1f} s to answer, {c.judge_seconds:.1f} s to judge, ${c.dollars:.2f}{judge}."
            f"{_speed(c)}"
        )


def _rounded(costs: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in costs.items()}


def _speeds(cost: Cost) -> dict[str, float]:
    """Tokens a second, where somebody timed them."""
    speeds = {"prompt_tps": cost.prompt_tps, "generation_tps": cost.generation_tps}
    return {name: value for name, value in speeds.items() if value is not None}


def _stage(cost: Cost) -> dict[str, float]:
    parts = attributes(cost, ("calls", "prompt_tokens", "generation_tokens", "seconds"))
    if cost.generation_tps is not None:
        parts["generation_tps"] = cost.generation_tps
    return _rounded(parts)


def _speed(cost: RunCost) -> str:
    """Tokens a second and what each stage took, where the record has them."""
    speeds = {"prompt": cost.prompt_tps, "new": cost.generation_tps}
    tps = [f"{value:,.0f} {word} tokens a second" for word, value in speeds.items() if value is not None]
    rows = [
        (name, str(s.calls), str(s.prompt_tokens), str(s.generation_tokens), f"{s.seconds:.2f}")
        for name, s in cost.stages.items() if s.calls
    ]  # fmt: skip
    table = "\n\n" + grid(("stage", "calls", "prompt tokens", "new tokens", "seconds"), rows) if rows else ""
    return (f" {'; '.join(tps)}." if tps else "") + table


def _beside(rows: list[tuple[str, Scores]]) -> str:
    """A table with a row for each: quality, its interval, verdicts, cases without an answer, means by dimension."""
    lines = []
    for name, s in rows:
        dims = [number(s.dims.get(d), "dim") for d in DIMENSIONS]
        wtl = f"{s.wins}/{s.ties}/{s.losses}"
        lines.append((name, f"{s.quality:.3f}", interval(s.low, s.high, ""), wtl, str(s.no_answer), *dims))
    return grid(("", "quality", "95 % interval", "W/T/L", "no answer", *DIMS.values()), lines)


def answer_of(state: State, protocol: Any) -> Answer | NoAnswer:
    """What a pipeline left of a case: an answer that passed the spec gate, or why there is none."""
    if state.failed is not None:
        return state.failed
    if state.draft is None:
        return NoAnswer("the pipeline wrote no questions")
    return spec_gate(state.draft.title, state.draft.questions, protocol.questions, protocol.generic_titles)


class _Later:
    """Stands for a judge that is asked later."""

    def judge_all(self, pairs: Sequence[tuple[Case, Answer]]) -> list[Unscored]:
        return [Unscored("it waits to be judged together with other runs") for _ in pairs]


def _judge(
    judge: Any, cases: Sequence[Case], answers: Sequence[Answer | NoAnswer], begun: list[Any] | None = None
) -> list[Outcome]:
    """An outcome for each case, in order; `begun` is what the judge's `submit` gave for the answers among them."""
    # A case without an answer costs no judgment, and keeps its place.
    pairs = [(c, a) for c, a in zip(cases, answers, strict=True) if isinstance(a, Answer)]
    judged = iter(judge.judge_all(pairs) if begun is None else judge.collect(begun))
    return [next(judged) if isinstance(a, Answer) else a for a in answers]


def case_row(case: Case, state: State, answer: Answer | NoAnswer, outcome: Outcome) -> CaseRow:
    """A case as cases.jsonl holds it."""
    row = CaseRow(case=case.id, task=case.task, calls=list(state.calls), notes=list(state.notes), answer=None,
                  copies=0, leak="")  # fmt: skip
    if isinstance(answer, Answer):
        row = row.revised(answer=answer, copies=copies(case, answer), leak=leaked(case, answer))
    return row.judged(outcome)


def useful_sentence(useful: Usefulness) -> str:
    """Usefulness of a run in words, "" where it was not asked for."""
    if not useful:
        return ""
    if useful.mean is None:
        return "Usefulness: no case was rated."
    return (
        f"**Useful {useful.mean:.2f} of 5** (95 % {useful.low:.2f} to {useful.high:.2f}), asked without gold in sight: "
        f"does the set enable a good plan? {useful.no_answer} cases without an answer count as 1, {useful.unscored} are "
        "unscored. It stands beside quality and is no part of it."
    )


def side_by_side(row: CaseRow, case: Case) -> str:
    """The answer to a case beside gold, question by question."""
    gold = case.gold
    assert gold is not None
    quality = "unscored" if row.quality is None else f"{row.quality!s:.6}"
    head = f"**{case.task}**: quality {quality}"
    if row.answer is None:
        reply = row.calls[-1]["text"] if row.calls else ""
        missing = f"{head}. No answer: {cell(row.no_answer or '')}\n\n> {cell(reply[:300])}"
        return f"{missing}\n\nGold: {' · '.join(gold.questions)}"
    lines = []
    for place, (question, of_gold) in enumerate(zip(row.answer.questions, gold.questions, strict=False), 1):
        critical = " **(critical)**" if of_gold == gold.critical else ""
        lines.append((str(place), cell(question), cell(of_gold) + critical))
    table = grid(("", cell(row.answer.title), f"gold: {cell(gold.title)}"), lines)
    if row.judgment is None:
        return f"{head}, unscored against gold.\n\n{table}"
    # By dimension of the offline judge, by call of Claude.
    notes = "; ".join(f"{name.replace('_', '-')}: {note}" for name, note in row.judgment.notes.items() if note)
    below = f"\n\n*{cell(notes)}*" if notes else ""
    return f"{head}, {row.judgment.verdict} against gold.\n\n{table}{below}"
