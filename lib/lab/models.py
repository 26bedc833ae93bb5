"""Change only the model: which runs that needs, and sealed runs that differ in nothing else, side by side.

Knows candidates, the harnesses that a new base is tried in, how to refuse runs between which something else than the
model differs, and to compare the rest. Answers nothing and judges no candidate: each is a sealed run of its own, with
lever `anchor`, so that it never enters the climb; `lab.study` runs what is missing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeGuard

from lib.files import attributes, canonical, leave_out, without_paths
from lib.forms import Text, form
from lib.lab.base import SEALED_ADAPTER, BadParameters, Clock, Finding, Runnable, sealed_run
from lib.lab.experiment import Experiment
from lib.log import Row
from lib.measure.calibrate import row_of
from lib.measure.checks import compare
from lib.measure.checks.damage import as_gold
from lib.measure.judge import DIMENSIONS
from lib.measure.keep import ALPHA
from lib.models import load
from lib.runs.ledger import Ledger
from lib.runs.record import (
    Candidate,
    ComparisonFindings,
    Decision,
    Difference,
    Json,
    Record,
    Setup,
    Side,
    Usefulness,
    setup_of,
)
from lib.show import bullets, candidate_name, chance, plural, words

CLOUD = "claude-"  # models whose service takes no temperature
FREE = ("model", "adapter")  # of a setup: what may differ between the runs of a comparison
# What the caller may set, for all candidates alike; anything else would be a second variable.
SHARED = ("pipeline", "decoding", "judge", "batch", "judging", "seed", "useful")
WHY = "In the same harness, decoded the same way, {model} shows what the model alone changes."
DEFAULTS: Json = {"pipeline": [{"step": "ask"}], "decoding": {}, "seed": 0}
Wanted = dict[str, list[tuple[str, Json]]]  # slug and parameters of each run of a comparison, by the harness they share


def split(candidate: str) -> tuple[str, str]:
    """Model and adapter of a spelling such as `smollm2+runs/0030-sft/adapter`.

    >>> split("smollm2+runs/0030-sft/adapter")
    ('smollm2', 'runs/0030-sft/adapter')
    """
    model, _, adapter = candidate.partition("+")
    return model.strip(), adapter.strip()


def in_one_harness(models: Sequence[str], parameters: Json) -> Wanted:
    """The runs of each model in the same harness. Raises BadParameters."""
    candidates = [m.strip() for m in models if m.strip()]
    if len(candidates) < 2 or len(set(candidates)) < len(candidates):
        raise BadParameters(
            f"models {', '.join(candidates)!r}: expected two or more, each once, the first to compare with"
        )
    harness = _harness(parameters)
    label = "-".join(s["step"] for s in Experiment(**harness).pipeline if isinstance(s, dict) and "step" in s)
    return {label: [_anchor(m, harness, "anchor") for m in candidates]}


def on_both_bases(ledger: Ledger, new: str, old: str, parameters: Json) -> Wanted:
    """The runs of the stock pipeline, the champion's and every anchor's, on the old base and on the new one.

    An adapter of the old base does not fit another: the champion's pipeline runs bare on both. Raises BadParameters.
    """
    if new == old:
        raise BadParameters(f"base {new!r} is the old base; name another model, or another old one with --old")
    if "+" in new + old:
        raise BadParameters("a base is a bare model: adapters are trained anew on each, and compared with --models")
    harness = _harness(parameters)
    tried = harnesses(ledger, Experiment(**harness).fingerprint, harness)
    return {k: [_anchor(m, harness | changes, k) for m in (old, new)] for k, changes in tried.items()}


def harnesses(ledger: Ledger, fingerprint: str, plain: Json) -> dict[str, Json]:
    """What a new base is tried with, by label: pipeline, decoding and seed, each combination once."""
    wanted: list[tuple[str, Json]] = [("stock", {**DEFAULTS, **plain})]
    champion = ledger.champion(fingerprint)
    if champion:
        wanted.append(("champion", champion.attempt))
    for r in ledger.records:
        if r.kind == "experiment" and r.lever == "anchor" and r.fingerprint == fingerprint and r.scores:
            wanted.append((f"{_steps(r)}", r.attempt | {"run": r.id[:4]}))
    by_setup: dict[str, tuple[str, Json]] = {}
    for label, attempt in wanted:
        same = {k: attempt.get(k, default) for k, default in DEFAULTS.items()}
        taken = {name for name, _ in by_setup.values()}
        if label in taken:
            label = f"{label} ({attempt['run']})"
        # Stock, champion and an anchor may be one and the same: it runs once, by the first of its names.
        by_setup.setdefault(canonical(same), (label, same))
    return dict(by_setup.values())


def _steps(record: Record) -> str:
    """A pipeline as the names of its steps, with its decoding where that is not greedy."""
    drawn = words(record.decoding)
    steps = " ".join(str(s["step"]) for s in record.pipeline)
    return f"{steps}, {drawn}" if drawn else steps


def _harness(parameters: Json) -> Json:
    """What is the same for every candidate. Raises BadParameters on what may not be set."""
    fixed = sorted(set(parameters) - {*SHARED, "hypothesis"})
    if fixed:
        raise BadParameters(
            f"{fixed[0]!r} cannot be set in a comparison of models; it takes hypothesis, {', '.join(SHARED)}"
        )
    return leave_out(parameters, "hypothesis")


def _anchor(candidate: str, harness: Json, label: str) -> tuple[str, Json]:
    """Slug and parameters of the run of one candidate."""
    model, adapter = split(candidate)
    own = {"hypothesis": WHY.format(model=candidate), "lever": "anchor", "model": model, "adapter": adapter}
    return f"{label}-{Path(model).name}{'-adapter' if adapter else ''}", harness | own


def sealed(ledger: Ledger, experiment: Experiment) -> Record | None:
    """The newest whole run that did what an experiment would do, whatever was expected of it."""
    plain = json.dumps(setup_of(experiment).as_dict())
    # As a seal spells it: of a path on this machine only the name is left.
    wanted = Setup.read(json.loads(without_paths(plain, experiment.model)))
    for r in reversed(ledger.records):
        sound = r.kind == "experiment" and r.whole and r.status not in ("invalid", "crashed")
        # A run with more readings than are wanted will do, one with fewer will not.
        asked = r.useful or not experiment.useful
        if sound and asked and r.setup == wanted and _same_weights(r, experiment):
            return r
    return None


def _same_weights(record: Record, experiment: Experiment) -> bool:
    """Whether what lies where a path leads is still what the run had; a sealed adapter and pinned weights never change."""
    if load.placed(experiment.model) and record.identity.model.get("weights") != load.identity(experiment.model):
        return False
    if SEALED_ADAPTER.fullmatch(experiment.adapter):
        return True
    return record.identity.model.get("adapter") == load.adapter_identity(experiment.adapter, experiment.runs_folder)


@form(BadParameters)
class Models(Runnable):
    """What the parameters cell says. Nothing runs until `run()`."""

    hypothesis: Text = "If prompt, schema or judge held the score down, no other model could lift it."
    groups: dict[str, list[str]] = field(default_factory=dict)
    kind: str = "models"
    lever: ClassVar[str] = "anchor"

    @cached_property
    def members(self) -> dict[str, list[Record]]:
        """The records of every group, each run once, in the order given."""
        groups = {}
        for name, runs in self.groups.items():
            records = [sealed_run(self.ledger, r) for r in runs]
            # By id: one run may be named twice, by its number and by its slug.
            groups[str(name)] = list({r.id: r for r in records}.values())
        return groups

    @property
    def records(self) -> list[Record]:
        """The runs of all groups, each once."""
        return list({r.id: r for group in self.members.values() for r in group}.values())

    @property
    def fingerprint(self) -> str:
        """That of the runs: what they were judged by, whatever the judge is today."""
        return self.records[0].fingerprint if self.records else super().fingerprint

    @property
    def keyed(self) -> Json:
        # What is compared, not what was expected of it: the same question is asked once.
        return {"groups": {name: [r.id for r in group] for name, group in self.members.items()}}

    def check(self) -> Models:
        """Refuse runs that are not whole, that another ruler judged, or that differ in more than the model."""
        super().check()
        if not self.groups:
            raise BadParameters("groups is empty: name the runs that are compared, such as {ask: [1, 3]}")
        for name, records in self.members.items():
            _check(name, records)
        if len({r.fingerprint for r in self.records}) > 1:
            raise BadParameters("the groups were made with different rulers or judges; compare each era for itself")
        return self

    def run(self) -> Compared:
        """Read the sealed judgments and compare. No model and no paid judge is asked."""
        self.check()
        clock = Clock()
        rows = [row for name, group in self.members.items() for r in group for row in self._rows(name, r.id)]
        rows += self._ceiling()
        candidates = {r.id: _candidate(r) for r in self.records}
        findings = {**compare.readings(rows), "candidates": candidates, "parameters": self.parameters}
        cost = {"calls": 0, "generation_tokens": 0}
        identity = {"judge": self.records[0].identity.judge}
        record = self.record(found=findings, cost=cost, identity=identity, **clock.times)
        return Compared(self, record, rows)

    def _rows(self, group: str, run: str) -> list[Row]:
        return [row_of("sealed", r.case, r.outcome, group=group, run=run) for r in self.ledger.cases(run)]

    def _ceiling(self) -> list[Row]:
        """Every gold answer judged as a candidate, where the judge costs nothing and is the one of the runs."""
        # Of another era today's judge would set a ceiling that those runs were never measured against.
        if super().fingerprint != self.fingerprint:
            return []
        pairs = [(c, as_gold(c)) for c in self.ruler.gate("full") if c.gold]
        judged = zip(pairs, self.the_judge.judge_all(pairs), strict=True)
        return [row_of("gold", c.id, o, group=compare.CEILING, run=compare.CEILING) for (c, _), o in judged]

    def record(self, **findings: Any) -> Record:
        """The record of this comparison with what came out; what was the same in all runs is said as theirs."""
        first = self.records[0]
        same = leave_out(attributes(first, Setup.model_fields), *FREE, "fingerprint")
        return super().record(of=", ".join(r.id for r in self.records), **same, **findings)

    # --- what the notebook shows

    @property
    def plan(self) -> str:
        """What it takes, to be read before it runs."""
        return f"{len(self.records)} sealed runs in {len(self.groups)} groups; nothing is answered or paid for again."

    def _repr_markdown_(self) -> str:
        lines = []
        for name, records in self.members.items():
            r = records[0]
            who = ", ".join(f"{x.candidate} ({x.id})" for x in records)
            decoding = canonical(r.decoding) if r.decoding else "greedy"
            lines.append(
                f"- **{name}**: {who}. The same in all: pipeline `{canonical(r.pipeline)}`, decoding `{decoding}`, judge "
                f"{r.judge}, gate {r.gate}, seed {r.seed}, ruler and judge `{r.fingerprint[:12]}`."
            )
        lines += [f"- {text}" for text in caveats(self.records)]
        return f"{self.plan}\n\n" + "\n".join(lines)


def _check(name: str, records: list[Record]) -> None:
    """Raise BadParameters where a group holds what cannot be compared."""
    if len(records) < 2:
        raise BadParameters(f"group {name!r} has {len(records)} runs; a comparison needs two or more")
    for r in records:
        if r.kind != "experiment" or r.status == "invalid" or not r.whole:
            raise BadParameters(f"{r.id}: expected a whole experiment ({r.kind}, {r.status}); run it again first")
        if r.gate != "full":
            raise BadParameters(f"{r.id} ran on gate {r.gate!r}; models are compared on the full gate")
    first, *others = records
    for r in others:
        for field_name in r.setup.differs(first.setup):
            if field_name not in FREE:
                ours, theirs = getattr(r.setup, field_name), getattr(first.setup, field_name)
                raise BadParameters(
                    f"{r.id} and {first.id} differ in {field_name} ({ours!r:.60} against {theirs!r:.60}); "
                    "only the model may differ"
                )
    names = [r.candidate for r in records]
    twice = next((n for n in names if names.count(n) > 1), None)
    if twice:
        raise BadParameters(f"group {name!r} has {twice} twice; each candidate stands once")


def _candidate(record: Record) -> Candidate:
    """What a run was and took, out of its record; usefulness only where Claude judged it."""
    useful = record.found.useful if record.judge == "claude" else Usefulness()
    return Candidate(
        candidate=record.candidate, model=record.model, adapter=record.adapter, lever=record.lever,
        calls=record.cost.calls, generation_tokens=record.cost.generation_tokens, dollars=record.cost.dollars,
        useful=useful,
    )  # fmt: skip


def caveats(records: list[Record]) -> list[str]:
    """What, against the intention, was not the same in all runs."""
    sentences = []
    if len({r.code.sha256 for r in records}) > 1:
        sentences.append("The runs were made by different states of the code; where prompts changed in between, so did more "
                    "than the model.")  # fmt: skip
    free = [r.candidate for r in records if r.model.startswith(CLOUD)]
    if free:
        sentences.append(
            f"{', '.join(free)} cannot decode greedily: asked for the same, it samples as its service does."
        )
    if len({canonical(r.machine) for r in records}) > 1:
        sentences.append(
            "The runs were made on different machines or library versions; last digits can differ with them."
        )
    return sentences


@dataclass(frozen=True, repr=False)
class Compared(Finding):
    """What a comparison found, before it is sealed."""

    @property
    def decision(self) -> Decision:
        """Nothing is kept; the sentence says how far quality moved when only the model did."""
        return Decision("reference", in_short(ComparisonFindings.read(self.found)))

    def _repr_markdown_(self) -> str:
        return bullets(moved(ComparisonFindings.read(self.found))).text


def _beyond_chance(test: Difference | None) -> TypeGuard[Difference]:
    return test is not None and test.p is not None and test.p < ALPHA


def in_short(found: ComparisonFindings) -> str:
    """From how many models the first one differs in each pipeline, and how much more these have, in a sentence."""
    names = {run: candidate_name(about.candidate) for run, about in found.candidates.items()}
    sentences = []
    for group in found.groups:
        first, *others = group.runs
        changed = [f"{names[r.run]} {r.difference.delta:+.3f}" for r in others if _beyond_chance(r.difference)]
        count = f"{len(changed)} of {plural(len(others), 'other model')}"
        which = f" ({', '.join(changed)})" if changed else ""
        base = f"the quality of {names[first.run]} differs beyond chance from that of"
        sentences.append(f"in the pipeline “{group.group}” {base} {count}{which}")
    return "; ".join(sentences)


def moved(found: ComparisonFindings) -> list[str]:
    """What changed with the model and what did not, in sentences made from the numbers."""
    sentences = []
    names = {run: candidate_name(about.candidate) for run, about in found.candidates.items()}
    for group in found.groups:
        first, *others = group.runs
        base = names[first.run]
        sentences += [_sentence(group.group, base, names[r.run], first, r) for r in others]
        sentences.append(_coverage(group.group, base, {names[r.run]: r.dims["coverage"] for r in others}))
    if any(test.delta is not None for group in found.groups for r in group.runs for test in r.dims.values()):
        sentences.append(
            "Dimensions are compared on cases that both answered; of twenty tests one moves by luck alone."
        )
    return sentences


def _sentence(group: str, base: str, other: str, first: Side, second: Side) -> str:
    """What one run of a group shows beside the first."""
    difference = second.difference
    if difference is None or difference.delta is None or first.scores is None or second.scores is None:
        return f"**{group}**, {other}: no case has a quality in both runs."
    changed, compared = [], 0
    for dimension in DIMENSIONS:
        test = second.dims[dimension]
        compared += test.delta is not None
        if _beyond_chance(test):
            before, after = first.scores.dims[dimension], second.scores.dims[dimension]
            changed.append(f"{dimension.replace('_', '-')} {before:.2f} → {after:.2f} ({chance(test.p)})")
    dimensions = ""
    if compared:
        dimensions = f" Moved beyond chance: {', '.join(changed) or 'no dimension'}."
    return (
        f"**{group}**, {other} against {base}: quality {first.scores.quality:.3f} → {second.scores.quality:.3f} "
        f"({difference.delta:+.3f}, {chance(difference.p)}).{dimensions}"
    )


def _coverage(group: str, base: str, others: dict[str, Difference]) -> str:
    """Whether coverage moved with the model alone; if it never does, harness or judge may hold it."""
    tests = {name: test for name, test in others.items() if test.delta is not None}
    changes = [f"{name} {test.delta:+.2f}" for name, test in tests.items() if _beyond_chance(test)]
    if changes:
        return f"**{group}**: coverage moved when only the model changed ({', '.join(changes)} against {base}): the harness does not lock it."
    if not tests:
        return f"**{group}**: no dimension can be compared: no case was judged in both runs."
    name, test = max(tests.items(), key=lambda item: abs(item[1].delta or 0.0))
    return (
        f"**{group}**: coverage did not move beyond chance with any of these models (largest difference {test.delta:+.2f}, {name}, "
        f"{chance(test.p)}), so it stays open whether the model or the prompt limits coverage."
    )
