"""What a proposal must pass before it costs anything: step registry, texts, bans, patience, duplicates, leaks, budget.

Knows the rules and names the one that is broken. Does not run anything, and never repeats a text of the ruler in a
reason: reasons go back to whoever proposed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from lib.agent.guard import JUDGED, ORDERS, Leak
from lib.agent.pipeline import STEPS, BadPipeline, Row, texts
from lib.forms import Number, form
from lib.lab import execute
from lib.lab.base import BadParameters
from lib.lab.experiment import Experiment
from lib.loop.events import Event
from lib.loop.proposal import (
    Parameters,
    Proposal,
    Refused,
    adapter_id,
    setup,
    setup_asked,
    setup_of,
    with_adapters,
)
from lib.loop.steering import Limits, Steering
from lib.measure.ruler import Protocol
from lib.models.model import Decoding, NoModel
from lib.runs.ledger import Ledger, NoRun

PATHS = re.compile(
    r"(^|[\s'\"=(])(/\w|~/|\.\.[/\\]|[a-zA-Z]:\\|file:|https?:)|\b(ruler|runs|lib)/|gold\.jsonl|cases\.jsonl"
)
CODE = re.compile(
    r"__\w+__|\b(import|exec|eval|lambda|subprocess|os\.system|open)\s*[(:]|\bimport \w+|;\s*\w+\(|\$\(|`"
)


# By what kind of error a proposal breaks which rule.
RULES = {BadPipeline: "bad-pipeline", NoModel: "no-adapter", BadParameters: "bad-parameters"}


@form(BadParameters, "loop")
class Base:
    """What all runs of a loop have in common; a proposal changes the levers alone."""

    model: str = "smollm2"
    judge: str = "offline"
    batch: bool = False
    judging: dict[str, Any] = field(default_factory=dict)
    min_effect: Annotated[Number, Field(gt=0)] = 0.02
    seed: int = 0

    def parameters(self, proposal: Proposal) -> Parameters:
        """Parameters of the experiment that a proposal stands for, on the full gate."""
        return {
            **self.__dict__,
            "hypothesis": proposal.hypothesis, "predicted": float(proposal.predicted), "lever": proposal.lever,
            "pipeline": proposal.pipeline, "decoding": proposal.decoding, "adapter": proposal.adapter,
            "gate": "full",
        }  # fmt: skip

    @property
    def baseline(self) -> Parameters:
        """The run that a climb starts from."""
        return {**self.__dict__, "lever": "baseline", "hypothesis": "One plain call is where the climb starts."}


def validate(
    proposal: Proposal, base: Base, ledger: Ledger, steering: Steering, limits: Limits, banned_lever: str = "",
    untested: Sequence[Event] = (),
) -> Parameters:  # fmt: skip
    """Parameters of the experiment, when every rule is passed. Raises Refused.

    `banned_lever` is a class that this proposal must not stay in (patience), "" for none; `untested` are proposals that
    were accepted and have not run yet.
    """
    # Cheapest first, and texts before all: nothing that a stranger wrote is resolved before it was read.
    _texts(proposal)
    adapter, pipeline = with_adapters(proposal.adapter, proposal.pipeline, partial(_full_name, ledger=ledger))
    parameters = base.parameters(proposal) | {"adapter": adapter, "pipeline": pipeline}
    experiment = _experiment(parameters, ledger.folder, [proposal.hypothesis, proposal.kill])
    _banned(proposal, experiment, steering)
    if banned_lever in {proposal.lever, *families(proposal.pipeline)}:
        raise Refused("patience", f"nothing was kept for long, so this proposal must leave the family {banned_lever!r}")
    _lever(proposal, ledger)
    _duplicate(experiment, ledger, untested)
    _budget(experiment, limits)
    return parameters


def _texts(proposal: Proposal) -> None:
    """Raises Refused where a text gives orders, names a file or an address, is code, or speaks to the judge."""
    for text in proposal.texts:
        if ORDERS.search(text):
            raise Refused("injection", f"{text[:80]!r} gives orders to whoever reads it")
    for text in texts([proposal.pipeline, proposal.adapter, proposal.decoding]):
        if PATHS.search(text):
            raise Refused("path", f"{text[:80]!r} points at a file or an address; a proposal names steps and runs only")
        if CODE.search(text):
            reason = "looks like code; a step is a name in lib/agent/steps, a text is prose"
            raise Refused("code", f"{text[:80]!r} {reason}")
        if JUDGED.search(text):
            raise Refused("injection", f"{text[:80]!r} speaks to the judge; a prompt is for the planner")


def _full_name(adapter: str, ledger: Ledger) -> str:
    """An adapter under its full id, so that no alias passes for another setup."""
    sealed = adapter_id(adapter, ledger)
    if not sealed or "/adapter" in adapter:
        reason = "is no sealed training of this ledger; name one by id, number or slug, or ID/epoch-NN"
        raise Refused("no-adapter", f"{adapter[:60]!r} {reason}")
    return sealed


def _experiment(parameters: Parameters, folder: Path, stories: list[str]) -> Experiment:
    """The experiment of these parameters; `stories` are guarded too. Raises Refused by the rule that is broken."""
    try:
        experiment = execute.accept("10_experiment", parameters, folder)
    except Leak as error:
        raise _leak(error) from None
    except tuple(RULES) as error:
        rule = next(name for kind, name in RULES.items() if isinstance(error, kind))
        raise Refused(rule, str(error)[:300]) from None
    assert isinstance(experiment, Experiment)
    try:
        # Other proposers read these. Tasks of the dev gate are shown to them anyway.
        experiment.leak_guard(("full", "confirm")).check(stories, "hypothesis or kill", typed=True)
    except Leak as error:
        raise _leak(error) from None
    return experiment


def _leak(error: Leak) -> Refused:
    """Its message quotes the ruler, and this reason goes back to the proposer."""
    return Refused("leak", f"{error.where}: a text repeats a task or a gold question of the ruler; write your own")


def families(pipeline: list[Row]) -> set[str]:
    """Families of the steps of a pipeline. A plain asking step has none: nearly every pipeline holds one."""
    # Else a ban of prompting would leave no pipeline at all.
    names = set()
    for row in pipeline:
        plain = row["step"] == "ask" and row.keys() <= {"step", "n", "tokens"}
        if not plain and row["step"] in STEPS:
            names.add(STEPS[row["step"]].family)
    return names


def _banned(proposal: Proposal, experiment: Experiment, steering: Steering) -> None:
    """Raises Refused where its class, a family, a step, decoding or an adapter is banned."""
    names = {proposal.lever, *families(proposal.pipeline), *(s.name for s in experiment.steps)}
    # Both change a run without a step that could be banned by its name.
    if proposal.decoding:
        names.add("decoding")
    if proposal.adapter:
        names.add("adapter")
    banned = sorted(names & steering.bans)
    if banned:
        raise Refused("banned", f"{banned[0]!r} is banned by bans.txt; propose without it")


def classes(pipeline: list[Row], decoding: dict[str, Any], adapter: str) -> set[str]:
    """Every lever class that a setup can be said to belong to; generous, since only a false name does harm.

    >>> sorted(classes([{"step": "ask", "n": 9}, {"step": "prune"}], {"temp": 0.7}, ""))
    ['decoding', 'over-generate and prune', 'prompting']
    """
    greedy = Decoding().__dict__
    names = {STEPS[row["step"]].family for row in pipeline if row["step"] in STEPS}
    if any(v != greedy.get(k) for k, v in decoding.items()):
        names.add("decoding")
    if adapter:
        names.add("adapter")
    for row in pipeline:
        if row.keys() & {*greedy, "temps"}:
            names.add("decoding")
        if row.keys() & {"schema", "grammar"}:
            names.add("schema")
        if isinstance(row.get("n"), int) and row["n"] > Protocol.questions:
            names.add("over-generate and prune")
    return names


def _lever(proposal: Proposal, ledger: Ledger) -> None:
    """The class that is named is one of the setup, or of its parent: taking a step out belongs to that step's class."""
    allowed = classes(proposal.pipeline, proposal.decoding, proposal.adapter)
    if proposal.parent:
        try:
            parent = ledger.get(proposal.parent)
        except NoRun:
            raise Refused("no-parent", f"there is no run {proposal.parent[:60]!r} to build on") from None
        allowed |= classes(parent.pipeline, parent.decoding, parent.adapter)
    if proposal.lever not in allowed:
        steps = " > ".join(row["step"] for row in proposal.pipeline)
        reason = f"{proposal.lever!r} has nothing to do with {steps[:200]}, which is {', '.join(sorted(allowed))}"
        raise Refused("lever", f"{reason}; name the class of what you change")


def _duplicate(e: Experiment, ledger: Ledger, untested: Sequence[Event]) -> None:
    """Raises Refused where a sealed run or an accepted proposal that waits has the same setup."""
    # A refusal before does not count: the rules above have just passed, and what cannot change they refuse again.
    # The sealed gate is no attempt: a look repeats a kept run on purpose.
    own = setup(e.model, e.pipeline, e.decoding, e.adapter, e.fingerprint)
    for record in reversed(ledger.records):
        if record.kind == "experiment" and record.gate != "confirm" and setup_of(record, ledger) == own:
            raise Refused("duplicate", f"{record.id} did the same ({record.status})")
    for event in untested:
        if setup_asked(event) == own:
            raise Refused("duplicate", f"event {event['n']} asks for the same and waits for its run")


def _budget(experiment: Experiment, limits: Limits) -> None:
    """Raises Refused above the limits of calls a case and of new tokens a call; a limit of 0 is none."""
    calls = sum(s.calls for s in experiment.steps)
    if limits.calls and calls > limits.calls:
        raise Refused("budget", f"{calls:g} model calls a case; at most {limits.calls:g} are allowed")
    longest = Decoding.of(experiment.decoding).max_tokens
    for row in experiment.pipeline:
        longest = max(longest, row.get("tokens", 0))
    if limits.tokens and longest > limits.tokens:
        raise Refused("budget", f"{longest} new tokens in one call; at most {limits.tokens} are allowed")
