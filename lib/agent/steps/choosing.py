"""Over-generate and prune, by whole sets: draw several, then choose one or put one together.

Knows the pool on the state. Only sets that would pass the spec gate are chosen, as long as there are any. Does not
know gold: the composite ruler and the model's own comparison are guesses at quality.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from lib.agent import prompt
from lib.agent.likeness import clusters, composite, dispersion, in_form, round_robin, similarity
from lib.agent.pipeline import Call, Misplaced, State, Work, step
from lib.agent.prompt import BadReply, Draft
from lib.agent.steps.asking import Count, Grammar, Heat, read_set
from lib.models.embed import embedder


@step(
    "over-generate and prune",
    calls=lambda temps, **_: len(temps),
    needs=lambda grammar, **_: ["temperature"] if grammar == "off" else ["temperature", "grammar"],
    role="after",
    pool="fills",
)
def sample(temps: list[Heat] = [0.4, 0.6, 0.8], n: Count = 7, advice: list[str] = [], grammar: Grammar = "off"):  # noqa: B006
    """Draw a set at each temperature into the pool, beside the draft that is there; choose with a step after it."""
    if not 1 <= len(temps) <= 16:
        raise ValueError(f"temps is {temps}, expected 1 to 16 temperatures")
    form = {} if grammar == "off" else {"grammar": prompt.set_grammar(n, "json", grammar == "questions")}

    def run(state: State) -> Work:
        demos = [(e.task, e.shown("json")) for e in state.demos]
        messages = prompt.ask(state.task, n, "json", advice, demos)
        replies = yield [Call(messages, {"temp": float(t), **form}) for t in temps]
        drafts, faults = prompt.parse_each(replies, read_set)
        if faults:
            state = state.note(f"{len(faults)} of {len(temps)} sets left out: {faults[0]}")
        pool = (*sets(state), *(d for d in drafts if d is not None))
        if not pool:
            raise BadReply(f"no set could be read; the first: {faults[0]}")
        return replace(state, draft=state.draft or pool[0], pool=pool)

    return run


def sets(state: State) -> tuple[Draft, ...]:
    """What there is to choose from: the pool, or where there is none the draft."""
    return state.pool or ((state.draft,) if state.draft else ())


def _pool(state: State, name: str, most: int = 16) -> list[Draft]:
    if not state.pool:
        raise Misplaced(f"{name}: no pool to work on; put sample, frames or donor before it")
    return in_form(state.pool)[:most]


@step(
    "over-generate and prune",
    calls=lambda by, most: most if by == "logprob" else 0,
    needs=lambda by, most: ["logprobs"] if by == "logprob" else [],
    pool="chooses",
)
def best(
    by: Literal["composite", "dispersion", "agreement", "logprob"] = "composite",
    most: Annotated[int, Field(ge=1, le=16)] = 4,
):
    """Choose one set of the pool: by a code ruler, by how far its questions stand apart, by agreement, by likelihood."""

    def run(state: State) -> Work:
        drafts = _pool(state, "best", most)
        if by == "logprob":
            # All are scored as replies to the plain call, so that only the text differs.
            asked = prompt.ask(state.task, len(drafts[0].questions))
            replies = yield [Call(asked, reply=prompt.write_set(d)) for d in drafts]
            scores = [-1e9 if r.logprob is None else r.logprob for r in replies]
        elif by == "dispersion":
            scores = [dispersion(d, embedder()) for d in drafts]
        elif by == "agreement":
            scores = [sum(_agree(d, other) for other in drafts) for d in drafts]
        else:
            scores = [composite(d, state.task) for d in drafts]
        won = max(range(len(drafts)), key=lambda i: (scores[i], -i))
        told = ", ".join(f"{s:.3f}" for s in scores)
        return replace(state, draft=drafts[won]).note(f"set {won + 1} by {by}: {told}")

    return run


def _agree(a: Draft, b: Draft) -> float:
    """How much of one set stands in another, 0 to 1."""
    near = [max((similarity(q, p) for p in b.questions), default=0.0) for q in a.questions]
    return sum(near) / len(near) if near else 0.0


@step("over-generate and prune", calls=lambda most: 2 * (most - 1), pool="chooses")
def tournament(most: Annotated[int, Field(ge=2, le=16)] = 4):
    """Let the model compare the sets of the pool in pairs, each pair in both orders; where the two disagree the earlier stays."""

    def run(state: State) -> Work:
        left = _pool(state, "tournament", most)
        matches = unread = 0
        while len(left) > 1:
            pairs = list(zip(left[::2], left[1::2], strict=False))
            orders = [p for a, b in pairs for p in ((a, b), (b, a))]
            replies = yield [Call(prompt.compare(state.task, x.questions, y.questions)) for x, y in orders]
            said, faults = prompt.parse_each(replies, lambda r: prompt.parse_better(r.text))
            matches, unread = matches + len(pairs), unread + len(faults)
            winners = [b if said[2 * i : 2 * i + 2] == ["B", "A"] else a for i, (a, b) in enumerate(pairs)]
            left = [*winners, *left[2 * len(pairs) :]]
        return replace(state, draft=left[0]).note(f"won {matches} matches; {unread} of {2 * matches} replies unread")

    return run


@step("over-generate and prune", pool="chooses")
def consensus(to: Count = 7):
    """Keep the questions that most sets of the pool ask in some wording, in the order of the first set that asks them."""

    def run(state: State) -> Work:
        drafts = _pool(state, "consensus")
        rows = [(k, q) for k, d in enumerate(drafts) for q in d.questions]
        groups = clusters([q for _, q in rows])
        # By how many sets ask it, not how often: one set that repeats itself has one vote.
        votes = [len({rows[i][0] for i in g}) for g in groups]
        kept = sorted(sorted(range(len(groups)), key=lambda g: (-votes[g], g))[:to])
        questions = tuple(rows[groups[g][0]][1] for g in kept)
        told = ", ".join(str(votes[g]) for g in kept)
        return replace(state, draft=Draft(drafts[0].title, questions)).note(f"votes of {len(drafts)} sets: {told}")
        yield  # makes this a generator, as every step is

    return run


@step("over-generate and prune", pool="chooses")
def merge(to: Count = 7):
    """Put one set together from the pool: first questions first, in turn, without repeats."""

    def run(state: State) -> Work:
        drafts = _pool(state, "merge")
        return replace(state, draft=Draft(drafts[0].title, round_robin(drafts, to)))
        yield  # makes this a generator, as every step is

    return run


def transplanted(draft: Draft, donors: Sequence[Draft], most: int) -> tuple[Draft, list[tuple[str, str]]]:
    """A draft with up to `most` questions that repeat others most replaced by what only the donors ask; (out, in) too."""
    questions, swaps = list(draft.questions), []
    for offer in (q for d in donors for q in d.questions):
        if len(swaps) == most or not questions:
            break
        worth = [
            (max((similarity(q, p) for k, p in enumerate(questions) if k != i), default=0.0), i)
            for i, q in enumerate(questions)
            if q not in [new for _, new in swaps]
        ]
        nearest = max(similarity(offer, q) for q in questions)
        if worth and nearest < 0.3:  # asks about something else altogether
            _, at = max(worth)
            swaps.append((questions[at], offer))
            questions[at] = offer
    return Draft(draft.title, tuple(questions)), swaps
