"""The proposer `search`: walks the lever space without a key. The embedded default.

Knows the registry, sensible values by argument, and what paired results say about classes and steps. Seeded: the same
ledger, events and seed give the same proposal. Does not read prose; of steering texts it takes the names of levers,
families and steps that stand in them.
"""

from __future__ import annotations

import inspect
import json
import math
import random
import re
import typing
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from lib.agent import rehearsal
from lib.agent.pipeline import STEPS, BadPipeline, require
from lib.agent.prompt import ADVICE
from lib.agent.steps import build
from lib.files import canonical
from lib.lab import lessons
from lib.lab.context import Asked, View, adapters
from lib.lab.proposal import PROPOSABLE, Proposal, Refused, setup, setup_of
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
FILLS = ("sample", "donor")  # steps that add sets to the pool and leave the draft as it is
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
    predicted = round((mean * count + PRIOR * WEIGHT) / (count + WEIGHT), 3)
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


def experience(view: View) -> dict[str, tuple[float, int]]:
    """Mean paired difference and count, by lever class, step and setting."""
    found: dict[str, list[float]] = {}
    records = {r["id"]: r for r in view.ledger.records}
    for outcome in lessons.outcomes(view.ledger, view.fingerprint).itertuples():
        r = records[outcome.id]
        for part in [r["lever"], *_parts(r["pipeline"], r["decoding"])]:
            found.setdefault(part, []).append(outcome.delta)
    return {k: (sum(v) / len(v), len(v)) for k, v in found.items()}


def ranked(candidates: list[Candidate], view: View, rng: random.Random) -> list[Candidate]:
    """Wished-for classes first, then untried ones, then by what came of a class and its parts, the rarely tried ahead."""
    seen = experience(view)
    tried = sum(seen.get(lever, (0.0, 0))[1] for lever in PROPOSABLE)
    wished = set(re.findall(r"[a-z][a-z_-]+", f"{view.steering.wish} {view.steering.standing}".lower()))
    order = {lever: rng.random() for lever in sorted({c.lever for c in candidates})}
    text = f"{view.steering.wish} {view.steering.standing}".lower()

    def key(c: Candidate) -> tuple[float, float, float, float]:
        mean, count = seen.get(c.lever, (0.0, 0))
        asked = c.lever in text or any(str(row["step"]) in wished for row in c.pipeline)
        worth = (mean * count + PRIOR * WEIGHT) / (count + WEIGHT) + CURIOUS * math.sqrt(
            math.log(tried + 2) / (count + 1)
        )
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
    c = view.champion
    pipeline = c["pipeline"] if c else [{"step": "ask"}]
    decoding = c["decoding"] if c else {}
    bases = [pipeline] + ([[{"step": "ask"}]] if pipeline != [{"step": "ask"}] else [])
    for base in bases:
        for name, made in sorted(STEPS.items()):
            for args in variants(name):
                row = {"step": name, **args}
                for placed in places(row, base):
                    yield Candidate(lever_of(row, made.family), placed, decoding, f"{_say(row)} {_where(placed, row)}")
        for changed in DECODINGS:
            yield Candidate(
                "decoding", base, changed, f"draws with {_args(changed)} instead of {_args(decoding) or 'greedily'}"
            )
    for i, row in enumerate(pipeline):
        for args in variants(str(row["step"])):
            changed_row = {**row, **args}
            changed_line = [*pipeline[:i], changed_row, *pipeline[i + 1 :]]
            family = lever_of({"step": row["step"], **args}, STEPS[str(row["step"])].family)
            yield Candidate(family, counted(changed_line), decoding, f"{_say(changed_row)} in its place")
    for adapter in adapters(view.ledger):
        yield Candidate("adapter", pipeline, decoding, f"the same on the adapter of {adapter}", adapter)


def lever_of(row: dict[str, Any], family: str) -> str:
    """The class of a change: a schema is a class of its own, and asking for more than are kept is over-generating."""
    if row["step"] == "ask" and "schema" in row:
        return "schema"
    return "over-generate and prune" if row["step"] == "ask" and row.get("n", 7) > 7 else family


def variants(name: str) -> Iterator[dict[str, Any]]:
    """Arguments of a step that are worth a run: its defaults, then one argument at a time."""
    make = STEPS[name].make
    hints = typing.get_type_hints(make)
    yield {}
    for key, parameter in inspect.signature(make).parameters.items():
        for value in values(key, hints[key], parameter.default):
            if value != parameter.default:
                yield {key: value}


def values(key: str, hint: Any, default: Any) -> list[Any]:
    """Values of one argument by its name, else by its type. Free text is never made up."""
    if typing.get_origin(hint) is typing.Literal:
        return list(typing.get_args(hint))
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


def role(name: str) -> str:
    """before: prepares what the asking step sees. after: works on a draft. source: writes the draft itself.

    Read from the step's source, since a step says nowhere else what it works on.
    """
    text = inspect.getsource(STEPS[name].make)
    if re.search(r"\.need\(|state\.pool|state\.draft", text):
        return "after"
    return "before" if re.search(r"\bdemos=", text) and "draft=" not in text else "source"


def places(row: dict[str, Any], base: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Where a step can stand in a pipeline, by its role. The same step is exchanged, not doubled."""
    name, where = row["step"], role(row["step"])
    rest = [r for r in base if r["step"] != name]
    if where == "before":
        yield [row, *rest]
    elif where == "source":
        kept = [r for r in rest if role(str(r["step"])) != "source"]
        before = [r for r in kept if role(str(r["step"])) == "before"]
        after = [r for r in kept if role(str(r["step"])) == "after"]
        yield counted([*before, row, *after])
    elif "to" in inspect.signature(STEPS[name].make).parameters:
        for n in (8, 9, 10):  # with seven questions there is nothing to drop
            yield [*({**r, "n": n} if r["step"] == "ask" else r for r in rest), row]
    else:
        yield [*rest, row]


def mended(pipeline: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A pipeline with what it lacks to end in seven questions: sets to choose from, a choice among sets, a step that drops."""
    names = [str(row["step"]) for row in pipeline]
    filled = max((i for i, name in enumerate(names) if name in FILLS), default=None)
    if filled is not None and not any(chooses(name) for name in names[filled + 1 :]):
        pipeline = [*pipeline[: filled + 1], {"step": "best"}, *pipeline[filled + 1 :]]
    wrong = _fault(canonical(pipeline))
    lacks = re.match(r"(\w+): no pool", wrong)
    if lacks:
        at = next(i for i, row in enumerate(pipeline) if row["step"] == lacks[1])
        first = [] if any(row["step"] == "ask" for row in pipeline[:at]) else [{"step": "ask"}]
        pipeline = [*pipeline[:at], *first, {"step": "sample"}, *pipeline[at:]]
        wrong = _fault(canonical(pipeline))
    many = re.match(r"it ends with (\d+)", wrong)
    return [*pipeline, {"step": "prune"}] if many and int(many[1]) > 7 else pipeline


def chooses(name: str) -> bool:
    """Whether a step takes its set from the pool, read from its source as its role is."""
    return bool(re.search(r"_pool\(|state\.pool\[", inspect.getsource(STEPS[name].make)))


@lru_cache(maxsize=4096)
def _fault(pipeline: str) -> str:
    """What a rehearsal says; the same few hundred pipelines come back for every proposal."""
    return rehearsal.fault(build(json.loads(pipeline)))


def counted(pipeline: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A pipeline that asks for more than seven and drops none gets a step that drops."""
    many = any(row["step"] == "ask" and row.get("n", 7) != 7 for row in pipeline)
    drops = any("to" in inspect.signature(STEPS[str(row["step"])].make).parameters for row in pipeline)
    return [*pipeline, {"step": "prune"}] if many and not drops and "prune" in STEPS else pipeline


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
