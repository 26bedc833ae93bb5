"""What a proposal must pass before it costs anything: step registry, texts, bans, patience, duplicates, leaks, budget.

Knows the rules and names the one that is broken. Does not run anything, and never repeats a text of the ruler in a
reason: reasons go back to whoever proposed.
"""

from __future__ import annotations

import re
from dataclasses import field
from typing import Annotated, Any

from pydantic import Field

from lib.agent.guard import JUDGED, ORDERS, Leak
from lib.agent.pipeline import STEPS, BadPipeline, texts
from lib.forms import Number, form
from lib.lab import execute
from lib.lab.base import BadParameters
from lib.lab.experiment import Experiment
from lib.loop.proposal import Proposal, Refused, adapter_id, setup, setup_of, with_adapters
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


@form(BadParameters, "loop")
class Base:
    """What all runs of a loop have in common; a proposal changes the levers alone."""

    model: str = "smollm2"
    judge: str = "offline"
    batch: bool = False
    judging: dict[str, Any] = field(default_factory=dict)
    min_effect: Annotated[Number, Field(gt=0)] = 0.02
    seed: int = 0

    def parameters(self, proposal: Proposal) -> dict[str, Any]:
        """Parameters of the experiment that a proposal stands for, on the full gate."""
        return {
            **self.__dict__,
            "hypothesis": proposal.hypothesis, "predicted": float(proposal.predicted), "lever": proposal.lever,
            "pipeline": proposal.pipeline, "decoding": proposal.decoding, "adapter": proposal.adapter,
            "gate": "full",
        }  # fmt: skip

    @property
    def baseline(self) -> dict[str, Any]:
        """The run that a climb starts from."""
        return {**self.__dict__, "lever": "baseline", "hypothesis": "One plain call is where the climb starts."}


def admit(
    proposal: Proposal, base: Base, ledger: Ledger, steering: Steering, limits: Limits, leave: str = ""
) -> dict[str, Any]:
    """Parameters of the experiment, when every rule is passed. Raises Refused.

    `leave` is a lever class that this proposal must not stay in (patience), "" for none.
    """
    _texts(proposal)
    parameters = base.parameters(proposal) | _adapters(proposal, ledger)
    experiment = _experiment(parameters, ledger)
    _banned(proposal, experiment, steering)
    _leave(proposal, leave)
    _lever(proposal, ledger)
    _duplicate(experiment, ledger)
    _budget(experiment, limits)
    return parameters


def _texts(proposal: Proposal) -> None:
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


def _adapters(proposal: Proposal, ledger: Ledger) -> dict[str, Any]:
    """Adapter and pipeline with every adapter under its full id, so that no alias passes for another setup."""

    def full(name: str) -> str:
        sealed = adapter_id(name, ledger)
        if not sealed or "/adapter" in name:
            reason = "is no sealed training of this ledger; name one by id, number or slug, or ID/epoch-NN"
            raise Refused("no-adapter", f"{name[:60]!r} {reason}")
        return sealed

    return with_adapters(proposal.as_dict(), full)


def _experiment(parameters: dict[str, Any], ledger: Ledger) -> Experiment:
    try:
        experiment = execute.accept("10_experiment", parameters, ledger.folder)
    except BadPipeline as error:
        raise Refused("bad-pipeline", str(error)[:300]) from None
    except Leak as error:
        # The message quotes the ruler, and this reason goes back to the proposer.
        where = str(error).split(": ")[0]
        reason = f"{where}: a text repeats a task or a gold question of the ruler; write your own"
        raise Refused("leak", reason) from None
    except NoModel as error:
        raise Refused("no-adapter", str(error)[:300]) from None
    except BadParameters as error:
        raise Refused("bad-parameters", str(error)[:300]) from None
    assert isinstance(experiment, Experiment)
    return experiment


def families(pipeline: list[dict[str, Any]]) -> set[str]:
    """Families of the steps of a pipeline. A plain asking step has none: nearly every pipeline holds one."""
    plain = [row for row in pipeline if row["step"] == "ask" and not row.keys() - {"step", "n", "tokens"}]
    return {STEPS[row["step"]].family for row in pipeline if row not in plain and row["step"] in STEPS}


def _banned(proposal: Proposal, experiment: Experiment, steering: Steering) -> None:
    names = {proposal.lever, *families(proposal.pipeline), *(s.name for s in experiment.steps)}
    names |= {"decoding"} if proposal.decoding else set()
    names |= {"adapter"} if proposal.adapter else set()
    hit = sorted(names & steering.bans)
    if hit:
        raise Refused("banned", f"{hit[0]!r} is banned by bans.txt; propose without it")


def _leave(proposal: Proposal, leave: str) -> None:
    if leave and leave in {proposal.lever, *families(proposal.pipeline)}:
        raise Refused("patience", f"nothing was kept for long, so this proposal must leave the family {leave!r}")


def classes(pipeline: list[dict[str, Any]], decoding: dict[str, Any], adapter: str) -> set[str]:
    """Every lever class that a setup can be said to belong to; generous, since only a false name does harm.

    >>> sorted(classes([{"step": "ask", "n": 9}, {"step": "prune"}], {"temp": 0.7}, ""))
    ['decoding', 'over-generate and prune', 'prompting']
    """
    greedy = Decoding().__dict__
    set_at = {k for row in pipeline for k in row if k in (*greedy, "temps")}
    schema = decoding.get("grammar") or any({"schema", "grammar"} & row.keys() for row in pipeline)
    counts = [row["n"] for row in pipeline if isinstance(row.get("n"), int)]
    beside = {
        "decoding": set_at or any(v != greedy.get(k) for k, v in decoding.items()),
        "adapter": adapter,
        "schema": schema,
        "over-generate and prune": max(counts, default=0) > Protocol.questions,
    }
    families = {STEPS[row["step"]].family for row in pipeline if row["step"] in STEPS}
    return families | {name for name, named in beside.items() if named}


def _lever(proposal: Proposal, ledger: Ledger) -> None:
    """The class that is named is one of the setup, or of its parent: taking a step out belongs to that step's class."""
    allowed = classes(proposal.pipeline, proposal.decoding, proposal.adapter)
    if proposal.parent:
        try:
            parent = ledger.get(proposal.parent)
        except NoRun:
            raise Refused("no-parent", f"there is no run {proposal.parent[:60]!r} to build on") from None
        allowed |= classes(parent["pipeline"], parent["decoding"], parent["adapter"])
    if proposal.lever not in allowed:
        steps = " > ".join(row["step"] for row in proposal.pipeline)
        reason = f"{proposal.lever!r} has nothing to do with {steps[:200]}, which is {', '.join(sorted(allowed))}"
        raise Refused("lever", f"{reason}; name the class of what you change")


def _duplicate(e: Experiment, ledger: Ledger) -> None:
    # A refusal before does not count: the rules above have just passed, and what cannot change they refuse again.
    mine = setup(e.model, e.pipeline, e.decoding, e.adapter, e.fingerprint)
    for record in reversed(ledger.records):
        if record["kind"] == "experiment" and record["gate"] != "confirm" and setup_of(record, ledger) == mine:
            raise Refused("duplicate", f"{record['id']} did the same ({record['status']})")


def _budget(experiment: Experiment, limits: Limits) -> None:
    calls = sum(s.calls for s in experiment.steps)
    if limits.calls and calls > limits.calls:
        raise Refused("budget", f"{calls:g} model calls a case; at most {limits.calls:g} are allowed")
    most = Decoding.of(experiment.decoding).max_tokens
    asked = [v for row in experiment.pipeline for k, v in row.items() if k in ("tokens", "max_tokens")]
    longest = max([most, *(v for v in asked if isinstance(v, int))])
    if limits.tokens and longest > limits.tokens:
        raise Refused("budget", f"{longest} new tokens in one call; at most {limits.tokens} are allowed")
