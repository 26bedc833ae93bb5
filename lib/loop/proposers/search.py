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
from lib.agent.pipeline import STEPS, Argument, BadPipeline, require
from lib.agent.prompt import ADVICE
from lib.agent.steps import build
from lib.files import canonical
from lib.loop import lessons
from lib.loop.proposal import PROPOSABLE, Proposal, Refused, setup, setup_of
from lib.loop.view import Asked, View, adapters
from lib.models import load
from lib.models.model import Decoding

# Values worth trying by the name of an argument; what is not here is varied by its type.
VALUES: dict[str, list[Any]] = {
    "n": [8, 9, 10, 12], "to": [7], "take": [7], "k": [1, 2, 3, 4], "tokens": [0], "max_tokens": [0], "temp": [0.3, 0.6, 0.9],
    "top_p": [0.9, 0.95], "min_p": [0.05, 0.1], "samples": [3, 5], "drafts": [3, 5], "rounds": [1, 2], "seed": [0],
}  # fmt: skip
DECODINGS = (
    {"temp": 0.3}, {"temp": 0.7}, {"temp": 0.7, "top_p": 0.9}, {"temp": 0.7, "min_p": 0.1}, {"temp": 1.0, "min_p": 0.1},
)  # fmt: skip
PRUNE = {"step": "prune"}
PRIOR, WEIGHT = 0.01, 2.0  # what an untried class is expected to bring, and as how many runs that counts
CURIOUS = 0.02  # how much, on the scale of quality, a class that was tried less is preferred
TRIES = 400


@dataclass(frozen=True)
class Candidate:
    """One attempt that could be made."""

    lever: str
    pipeline: list[dict[str, Any]]
    decoding: dict[str, Any]
    change: str  # what it changes against the champion, in words
    adapter: str = ""

    @property
    def parts(self) -> list[str]:
        """What experience is kept about: the class, its steps, its settings."""
        return [self.lever, *_parts(self.pipeline, self.decoding)]


class Search:
    """A proposer."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def __call__(self, view: View) -> Asked:
        done = len(view.ledger.records), len(view.events.of("accepted", "refused"))
        rng = random.Random(f"{self.seed}/{done}")
        ends = lessons.dead_ends(view.ledger, view.fingerprint)
        ends = {*ends.what[ends.run == ""]}
        open_ = [c for c in fresh(view) if f"the class {c.lever!r}" not in ends or view.leave]
        for candidate in ranked(open_, view, rng)[:TRIES]:
            proposal = written(candidate, view)
            try:
                view.admit(proposal)
            except Refused:
                continue
            return Asked(proposal.as_dict(), "search")
        return Asked(None, "search")


def written(candidate: Candidate, view: View) -> Proposal:
    """A candidate as a proposal, with the effect that experience lets one expect."""
    mean, count = experience(view).get(candidate.lever, (0.0, 0))
    predicted = round(expected(mean, count), 3)
    champion = view.champion["id"] if view.champion else "nothing"
    so_far = f"{count} runs of this class came to {mean:+.3f} on average" if count else "this class is untried"
    return Proposal(
        hypothesis=f"Against {champion}: {candidate.change}. Expected {predicted:+.3f}, because {so_far}.",
        lever=candidate.lever,
        pipeline=candidate.pipeline,
        decoding=candidate.decoding,
        adapter=candidate.adapter,
        predicted=predicted,
        kill=f"the interval rules out a gain of {view.base.min_effect:+.3f}",
        parent=view.champion["id"] if view.champion else "",
    )


def expected(mean: float, count: int) -> float:
    """The effect to expect of a class that had `mean` in `count` runs."""
    return (mean * count + PRIOR * WEIGHT) / (count + WEIGHT)


def experience(view: View) -> dict[str, tuple[float, int]]:
    """Mean paired difference and count, by lever class, step and setting."""
    deltas: dict[str, list[float]] = {}
    for row in lessons.outcomes(view.ledger, view.fingerprint).itertuples():
        for part in [row.lever, *_parts(row.pipeline, row.decoding)]:
            deltas.setdefault(part, []).append(row.delta)
    return {k: (sum(v) / len(v), len(v)) for k, v in deltas.items()}


def ranked(candidates: list[Candidate], view: View, rng: random.Random) -> list[Candidate]:
    """Wished-for classes first, then untried ones, then by what came of a class and its parts, the rarely tried ahead."""
    seen = experience(view)
    tried = sum(seen.get(lever, (0.0, 0))[1] for lever in PROPOSABLE)
    order = {lever: rng.random() for lever in sorted({c.lever for c in candidates})}
    text = f"{view.steering.wish} {view.steering.standing}".lower()
    wished = set(re.findall(r"[a-z][a-z_-]+", text))

    def key(c: Candidate) -> tuple[float, float, float, float]:
        mean, count = seen.get(c.lever, (0.0, 0))
        asked = c.lever in text or any(str(row["step"]) in wished for row in c.pipeline)
        worth = expected(mean, count) + CURIOUS * math.sqrt(math.log(tried + 2) / (count + 1))
        parts = [(m * n) / (n + WEIGHT) for m, n in (seen.get(p, (0.0, 0)) for p in c.parts[1:])]
        own = sum(parts) / len(parts) if parts else 0.0
        return (0 if asked else 1, 0 if not count else 1, order[c.lever] - (worth * 1000 if count else 0), -own)

    shuffled = sorted(candidates, key=lambda c: (c.lever, str(c.pipeline), str(c.decoding)))
    rng.shuffle(shuffled)
    return sorted(shuffled, key=key)


def fresh(view: View) -> list[Candidate]:
    """Every candidate that builds, has not been run and differs from the others."""
    done = {setup_of(r) for r in view.ledger.records if r["kind"] == "experiment"}
    found: dict[str, Candidate] = {}
    can = load.capabilities(view.base.model)
    for c in candidates(view):
        if c.lever not in PROPOSABLE:
            continue
        try:
            steps = build(c.pipeline)
            whole = mended(c.pipeline)
            if whole != c.pipeline:
                added = ", ".join(str(r["step"]) for r in whole if r not in c.pipeline)
                c, steps = replace(c, pipeline=whole, change=f"{c.change}, and {added}"), build(whole)
            require(steps, view.base.model, can)
        except BadPipeline:
            continue
        name = setup(view.base.model, c.pipeline, c.decoding, c.adapter, view.fingerprint)
        if name not in done:
            found.setdefault(name, c)
    return list(found.values())


# --- the space -----------------------------------------------------------------------------------


def candidates(view: View) -> Iterator[Candidate]:
    """The neighbours of the champion: a step put in, a step exchanged, a setting changed, another decoding."""
    plain = [{"step": "ask"}]
    champion = view.champion or {"pipeline": plain, "decoding": {}}
    pipeline, decoding = champion["pipeline"], champion["decoding"]
    for base in [pipeline] if pipeline == plain else [pipeline, plain]:
        for name in sorted(STEPS):
            for args in variants(name):
                row = {"step": name, **args}
                for placed in places(row, base):
                    yield Candidate(lever_of(row), placed, decoding, f"{_say(row)} {_where(placed, row)}")
        for other in DECODINGS:
            change = f"draws with {_args(other)} instead of {_args(decoding) or 'greedily'}"
            yield Candidate("decoding", base, other, change)
    for i, row in enumerate(pipeline):
        for args in variants(row["step"]):
            varied = {**row, **args}
            whole = counted([*pipeline[:i], varied, *pipeline[i + 1 :]])
            yield Candidate(lever_of({"step": row["step"], **args}), whole, decoding, f"{_say(varied)} in its place")
    for adapter in adapters(view.ledger):
        yield Candidate("adapter", pipeline, decoding, f"the same on the adapter of {adapter}", adapter)


def lever_of(row: dict[str, Any]) -> str:
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
    hint, default = argument.hint, argument.default
    if argument.options:
        return list(argument.options)
    if key == "advice":
        names = sorted(ADVICE)
        return [[a] for a in names] + [["coach", b] for b in names if b != "coach"]
    if key in VALUES:
        return VALUES[key]
    if hint is bool:
        return [not default]
    if hint is int and isinstance(default, int):
        return [v for v in (default - 1, default + 1, default + 2) if v > 0]
    if hint is float and isinstance(default, (int, float)):
        return [default * 0.5, default * 1.5]
    return []


def places(row: dict[str, Any], base: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Where a step can stand in a pipeline, by its role. The same step is exchanged, not doubled."""
    lever = STEPS[row["step"]]
    rest = [r for r in base if r["step"] != row["step"]]
    if lever.role == "before":
        yield [row, *rest]
    elif lever.role == "source":
        before = [r for r in rest if STEPS[r["step"]].role == "before"]
        after = [r for r in rest if STEPS[r["step"]].role == "after"]
        yield counted([*before, row, *after])
    elif "to" in lever.arguments:
        for n in (8, 9, 10):  # with seven questions there is nothing to drop
            yield [*({**r, "n": n} if r["step"] == "ask" else r for r in rest), row]
    else:
        yield [*rest, row]


def mended(pipeline: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A pipeline with what it lacks to end in seven questions: sets to choose from, a choice among sets, a step that drops."""
    pools = [STEPS[row["step"]].pool for row in pipeline]
    after = len(pools) - pools[::-1].index("fills") if "fills" in pools else None
    if after is not None and "chooses" not in pools[after:]:
        pipeline = [*pipeline[:after], {"step": "best"}, *pipeline[after:]]
    ways = [pipeline, [*pipeline, PRUNE]]
    if "chooses" in pools:
        at = pools.index("chooses")
        first = [] if {"ask"} & {row["step"] for row in pipeline[:at]} else [{"step": "ask"}]
        sampled = [*pipeline[:at], *first, {"step": "sample"}, *pipeline[at:]]
        ways += [sampled, [*sampled, PRUNE]]
    return next((way for way in ways if not _fault(canonical(way))), pipeline)


@lru_cache(maxsize=4096)
def _fault(pipeline: str) -> str:
    """What a dry run says; the same few hundred pipelines come back for every proposal."""
    return dry_run.fault(build(json.loads(pipeline)))


def counted(pipeline: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A pipeline that asks for more than seven and drops none gets a step that drops."""
    many = any(row["step"] == "ask" and row.get("n", 7) != 7 for row in pipeline)
    drops = any("to" in STEPS[row["step"]].arguments for row in pipeline)
    return [*pipeline, PRUNE] if many and not drops else pipeline


# --- words ---------------------------------------------------------------------------------------


def _parts(pipeline: list[dict[str, Any]], decoding: dict[str, Any]) -> list[str]:
    told = [str(row["step"]) for row in pipeline]
    told += [f"{row['step']}.{k}={v}" for row in pipeline for k, v in row.items() if k != "step"]
    greedy = Decoding().__dict__
    return told + [f"{k}={v}" for k, v in decoding.items() if v != greedy.get(k)]


def _say(row: dict[str, Any]) -> str:
    rest = _args({k: v for k, v in row.items() if k != "step"})
    return f"{row['step']}({rest})" if rest else str(row["step"])


def _args(args: dict[str, Any]) -> str:
    return ", ".join(f"{k} {v}" for k, v in args.items())


def _where(pipeline: list[dict[str, Any]], row: dict[str, Any]) -> str:
    others = [str(r["step"]) for r in pipeline if r is not row]
    return f"with {', '.join(others)}" if others else "alone"
