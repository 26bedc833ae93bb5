"""The proposer `search`: walks the lever space without a key. The embedded default.

Knows the registry, sensible values by argument, and what paired results say about classes and steps. Seeded: the same
ledger, events and seed give the same proposal. Does not read prose; of steering texts it takes the names of levers,
families and steps that stand in them.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from lib.agent import dry_run
from lib.agent.pipeline import STEPS, Argument, BadPipeline, Row, require
from lib.agent.prompt import ADVICE
from lib.agent.steps import build
from lib.files import canonical, leave_out
from lib.loop import lessons
from lib.loop.proposal import PROPOSABLE, Proposal, Refused, adapter_id, setup, setup_asked, setup_of
from lib.loop.view import Offer, View, adapters
from lib.models import load
from lib.models.model import Decoding
from lib.show import words

# Values worth trying by the name of an argument; what is not here is varied by its type.
VALUES: dict[str, list[Any]] = {
    "n": [8, 9, 10, 12], "to": [7], "take": [7], "k": [1, 2, 3, 4], "tokens": [0], "temp": [0.3, 0.6, 0.9], "rounds": [1, 2],
}  # fmt: skip
DECODINGS = (
    {"temp": 0.3}, {"temp": 0.7}, {"temp": 0.7, "top_p": 0.9}, {"temp": 0.7, "min_p": 0.1}, {"temp": 1.0, "min_p": 0.1},
)  # fmt: skip
PLAIN: list[Row] = [{"step": "ask"}]
PRIOR, WEIGHT = 0.01, 2.0  # what an untried class is expected to bring, and as how many runs that counts
CURIOUS = 0.02  # how much, on the scale of quality, a class that was tried less is preferred
TRIES = 400
GREEDY = Decoding().__dict__


@dataclass(frozen=True)
class Candidate:
    """One attempt that could be made."""

    lever: str
    pipeline: list[Row]
    decoding: dict[str, Any]
    change: str  # what it changes against the champion, in words
    adapter: str = ""


@dataclass(frozen=True)
class Experience:
    """What the runs of a class, a step or a setting have brought."""

    mean: float = 0.0  # paired difference in quality
    count: int = 0

    @property
    def expected(self) -> float:
        """The mean, drawn towards the prior as if `WEIGHT` runs had brought that."""
        return (self.mean * self.count + PRIOR * WEIGHT) / (self.count + WEIGHT)

    @property
    def shrunk(self) -> float:
        """The mean, drawn towards no effect."""
        return self.mean * self.count / (self.count + WEIGHT)


UNTRIED = Experience()


class Search:
    """A proposer."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def __call__(self, view: View) -> Offer:
        """The first of the TRIES best candidates that passes every rule; an offer of None where none does."""
        # Part of the seed: after a refusal the next draw is another one, and a restart draws the same.
        done = len(view.ledger.records), len(view.events.of("accepted", "refused"))
        candidates = fresh(view)
        if not view.banned_lever:
            dead = lessons.tired(view.ledger, view.fingerprint)
            candidates = [c for c in candidates if c.lever not in dead]
        # Ranked before it is validated: that costs a check each, and the first that passes is the proposal.
        for candidate in ranked(candidates, view, random.Random(f"{self.seed}/{done}"))[:TRIES]:
            proposal = written(candidate, view)
            try:
                view.validate(proposal)
            except Refused:
                continue
            return Offer(proposal.as_dict(), "search")
        return Offer(None, "search")


def written(candidate: Candidate, view: View) -> Proposal:
    """A candidate as a proposal, with the effect that experience lets one expect."""
    own = experience(view).get(candidate.lever, UNTRIED)
    predicted = round(own.expected, 3)
    parent = view.champion.id if view.champion else ""
    why = "this class is untried"
    if own.count:
        why = f"{own.count} runs of this class came to {own.mean:+.3f} on average"
    return Proposal(
        hypothesis=f"Against {parent or 'nothing'}: {candidate.change}. Expected {predicted:+.3f}, because {why}.",
        lever=candidate.lever,
        pipeline=candidate.pipeline,
        decoding=candidate.decoding,
        adapter=candidate.adapter,
        predicted=predicted,
        kill=f"the interval rules out a gain of {view.base.min_effect:+.3f}",
        parent=parent,
    )


def experience(view: View) -> dict[str, Experience]:
    """Mean paired difference and count, by lever class, step and setting."""
    outcomes = lessons.outcomes(view.ledger, view.fingerprint)
    if outcomes.empty:
        return {}
    parts = [[o.lever, *_parts(o.pipeline, o.decoding)] for o in outcomes.itertuples()]
    by_part = outcomes.assign(part=parts).explode("part").groupby("part").delta.agg(["mean", "count"])
    return {row.Index: Experience(row.mean, row.count) for row in by_part.itertuples()}


def ranked(candidates: list[Candidate], view: View, rng: random.Random) -> list[Candidate]:
    """Wished-for classes first, then untried ones, then by what came of a class and its parts, the rarely tried ahead."""
    known = experience(view)
    runs = sum(known.get(lever, UNTRIED).count for lever in PROPOSABLE)
    order = {lever: rng.random() for lever in sorted({c.lever for c in candidates})}
    asked = {e["parameters"]["lever"] for e in view.untested}  # of proposals made at a time, each another class
    text = f"{view.steering.wish} {view.steering.standing}".lower()
    names = set(re.findall(r"[a-z][a-z_-]+", text))

    def key(c: Candidate) -> tuple[bool, bool, float, float]:
        """The smallest comes first: wished for, untried, by the bound of its class, by what its parts brought."""
        own = known.get(c.lever, UNTRIED)
        wished = c.lever in text or any(row["step"] in names for row in c.pipeline)
        place = order[c.lever]
        if own.count:
            # An upper confidence bound: what the class brought, and a bonus that shrinks as it is tried.
            # Times 1000, so that the lot, which is below 1, only parts classes that have brought the same.
            place -= 1000 * (own.expected + CURIOUS * math.sqrt(math.log(runs + 2) / (own.count + 1)))
        parts = [known.get(part, UNTRIED).shrunk for part in _parts(c.pipeline, c.decoding)]
        return not wished, own.count > 0 or c.lever in asked, place, -sum(parts) / len(parts)

    # Sorted before it is drawn: the order in which candidates were found must not decide.
    shuffled = sorted(candidates, key=lambda c: (c.lever, str(c.pipeline), str(c.decoding), c.adapter))
    rng.shuffle(shuffled)
    return sorted(shuffled, key=key)


def fresh(view: View) -> list[Candidate]:
    """Every candidate that builds, can end in a set, has not been run and differs from the others."""
    ledger = view.ledger
    done = {setup_of(r, ledger) for r in ledger.records if r.kind == "experiment"} | set(
        map(setup_asked, view.untested)
    )
    by_setup: dict[str, Candidate] = {}
    can = load.capabilities(view.base.model)
    for c in neighbours(view):
        # Neighbours are single changes; many need a companion to end in seven questions.
        whole = mended(c.pipeline)
        if c.lever not in PROPOSABLE or _fault(canonical(whole)):
            continue
        added = [row["step"] for row in whole if row not in c.pipeline]
        if added:
            c = replace(c, pipeline=whole, change=f"{c.change}, and {', '.join(added)}")
        try:
            require(build(whole), view.base.model, can)
        except BadPipeline:
            continue
        name = setup(view.base.model, c.pipeline, c.decoding, c.adapter, view.fingerprint)
        if name not in done:
            by_setup.setdefault(name, c)
    return list(by_setup.values())


# --- the space -----------------------------------------------------------------------------------


def neighbours(view: View) -> Iterator[Candidate]:
    """What lies one change from the champion: a step put in or exchanged, a setting changed, another decoding."""
    pipeline, decoding, own = PLAIN, {}, ""
    if view.champion:
        pipeline, decoding = view.champion.pipeline, view.champion.decoding
        # Weights are a lever too: a candidate that lost them on the way would not be one change away.
        own = adapter_id(view.champion.adapter, view.ledger)
    bases = [pipeline]
    if pipeline != PLAIN:
        bases.append(PLAIN)
    for base in bases:
        for name in sorted(STEPS):
            for args in variants(name):
                row = {"step": name, **args}
                for placed in places(row, base):
                    yield Candidate(lever_of(row), placed, decoding, f"{_spelled(row)} {_company(placed, row)}", own)
        for other in DECODINGS:
            change = f"draws with {words(other)} instead of {words(decoding) or 'greedily'}"
            yield Candidate("decoding", base, other, change, own)
    for i, row in enumerate(pipeline):
        for args in variants(row["step"]):
            varied = {**row, **args}
            lever = lever_of({"step": row["step"], **args})
            yield Candidate(
                lever, [*pipeline[:i], varied, *pipeline[i + 1 :]], decoding, f"{_spelled(varied)} in its place", own
            )
    for adapter in adapters(view.ledger):
        if adapter == own:
            continue
        yield Candidate("adapter", pipeline, decoding, f"the same on the adapter of {adapter}", adapter)


def lever_of(row: Row) -> str:
    """The class of a change: a schema is a class of its own, and asking for more than are kept is over-generating."""
    if row["step"] == "ask" and "schema" in row:
        return "schema"
    if row["step"] == "ask" and row.get("n", 7) > 7:
        return "over-generate and prune"
    return STEPS[row["step"]].family


def variants(name: str) -> Iterator[dict[str, Any]]:
    """Arguments of a step that are worth a run: its defaults, then one argument at a time."""
    yield {}
    for key, argument in STEPS[name].arguments.items():
        for value in values(key, argument):
            if value != argument.default:
                yield {key: value}


def values(key: str, argument: Argument) -> list[Any]:
    """Values of one argument by its name, else by its type. Free text is never made up."""
    default = argument.default
    if argument.options:
        return list(argument.options)
    if key == "advice":
        beside_coach = sorted(ADVICE.keys() - {"coach"})
        return [["coach"], *([name] for name in beside_coach), *(["coach", name] for name in beside_coach)]
    if key in VALUES:
        return VALUES[key]
    if argument.hint is int:
        return [v for v in (default - 1, default + 1, default + 2) if v > 0]
    if argument.hint is float:
        return [default * 0.5, default * 1.5]
    return []


def places(row: Row, base: list[Row]) -> Iterator[list[Row]]:
    """Where a step can stand in a pipeline, by what it takes and gives. The same step is exchanged, not doubled."""
    lever = STEPS[row["step"]]
    rest = [r for r in base if r["step"] != row["step"]]
    if "demos" in lever.gives:
        yield [row, *rest]
    # It writes the set anew: in place of whatever wrote it.
    elif not lever.takes and "draft" in lever.gives:
        before = [r for r in rest if "demos" in STEPS[r["step"]].gives]
        after = [r for r in rest if STEPS[r["step"]].takes]
        yield [*before, row, *after]
    elif "to" in lever.arguments:
        for n in (8, 9, 10):  # with seven questions there is nothing to drop
            asking_more = [r | {"n": n} if r["step"] == "ask" else r for r in rest]
            yield [*asking_more, row]
    else:
        yield [*rest, row]


def mended(pipeline: list[Row]) -> list[Row]:
    """A pipeline with what it lacks to end in seven questions: sets to choose from, a choice among them, a step that drops."""
    levers = [STEPS[row["step"]] for row in pipeline]
    choices = [i for i, lever in enumerate(levers) if "pool" in lever.takes]
    fills = [i for i, lever in enumerate(levers) if lever.gives == ("pool",)]
    if fills and not any(choice > fills[-1] for choice in choices):
        pipeline = [*pipeline[: fills[-1] + 1], {"step": "best"}, *pipeline[fills[-1] + 1 :]]
    ways = [pipeline]
    if choices:
        ways.append([*pipeline[: choices[0]], {"step": "sample"}, *pipeline[choices[0] :]])
    for way in ways:
        for whole in (way, [*way, {"step": "prune"}]):
            if not _fault(canonical(whole)):
                return whole
    return pipeline


@lru_cache(maxsize=4096)
def _fault(pipeline: str) -> str:
    """Why a pipeline cannot run or end in a set; the same few hundred come back for every proposal."""
    try:
        return dry_run.fault(build(json.loads(pipeline)))
    except BadPipeline as error:
        return str(error)


# --- words ---------------------------------------------------------------------------------------


def _parts(pipeline: list[Row], decoding: dict[str, Any]) -> list[str]:
    """What experience is kept about beside the class: steps, their settings, the decoding's."""
    parts = [row["step"] for row in pipeline]
    for row in pipeline:
        parts += [f"{row['step']}.{k}={v}" for k, v in row.items() if k != "step"]
    return parts + [f"{k}={v}" for k, v in decoding.items() if v != GREEDY.get(k)]


def _spelled(row: Row) -> str:
    rest = words(leave_out(row, "step"))
    return f"{row['step']}({rest})" if rest else row["step"]


def _company(pipeline: list[Row], row: Row) -> str:
    """The other steps, in words."""
    others = [other["step"] for other in pipeline if other is not row]
    return f"with {', '.join(others)}" if others else "alone"
