"""Multi-call: think first, ask then. Each step writes a draft, mostly with more questions than are kept.

Knows which calls feed which. Does not choose well by itself: `select` and `prune` do that.
"""

from __future__ import annotations

from dataclasses import replace

from lib.agent import prompt
from lib.agent.likeness import distinct, fresh, in_turn, repeats
from lib.agent.pipeline import Call, Run, State, Work, step
from lib.agent.prompt import BadReply, Draft
from lib.agent.steps.asking import Count, Few, Heat, read_set

# What nearly every plan depends on, for lists that come out too short.
GENERAL = ("main purpose", "spending limit", "target date", "people it is for", "size", "location", "current state")


def _from(state: State, unknowns: list[str], n: int, least: int = 7) -> Work:
    """Questions for the first n different unknowns; fewer than n and `least` are filled up with general ones, and noted."""
    if not any(unknowns):
        raise BadReply("nothing to ask about was listed")
    names = distinct(list(filter(None, unknowns)), n)
    # Fewer than seven questions fail the gate for certain; a general one loses points at most.
    missing = max(0, min(n, least) - len(names))
    more = [name for name in GENERAL if fresh(name, names)][:missing]
    if more:
        state = state.note(f"only {len(names)} different unknowns listed; filled up with: " + " | ".join(more))
    names += more
    [reply] = yield [Call(prompt.from_unknowns(state.task, names))]
    return replace(state.note("unknowns: " + " | ".join(names)), draft=read_set(reply))


# Published study, exp001, which chose among what it listed: 0.235 on dev beside 0.308.
@step("multi-call", calls=lambda **_: 2)
def brainstorm(n: Count = 7) -> Run:
    """List what the plan depends on, then write a question for each of the first n; more than 7 wants a select after it."""

    def run(state: State) -> Work:
        [reply] = yield [Call(prompt.brainstorm(state.task))]
        return (yield from _from(state, list(prompt.parse_list(reply.text, "unknowns")), n))

    return run


# Published study, exp013, plan and assumptions in one call: 0.245 on dev beside 0.308.
@step("multi-call", calls=lambda **_: 3)
def assume(n: Count = 7) -> Run:
    """Sketch a plan, list what it silently assumes, then turn the first n assumptions into questions."""

    def run(state: State) -> Work:
        [reply] = yield [Call(prompt.plan(state.task))]
        steps = prompt.parse_list(reply.text, "steps")
        [reply] = yield [Call(prompt.assume(state.task, steps))]
        assumptions = prompt.parse_list(reply.text, "assumptions")
        # "budget: 500" assumes a value; the unknown is what stands before it.
        return (yield from _from(state, [text.split(":")[0].strip() for text in assumptions], n))

    return run


# Published study, exp029, which diverged in prose: 0.344 on full beside 0.409, five cases without a set.
@step("multi-call", calls=lambda ways, **_: ways + 1, needs=lambda **_: ["temperature"])
def diverge(ways: Few = 3, temp: Heat = 0.8, n: Count = 12) -> Run:
    """Brainstorm several times with heat, pool the different unknowns in turn, ask for each of n; converge with select."""
    if not temp:
        raise ValueError("temp is 0: expected above 0 to 5")

    def run(state: State) -> Work:
        """A brainstorm that cannot be read is left out and noted. Raises BadReply where none lists anything."""
        replies = yield [Call(prompt.brainstorm(state.task), {"temp": temp})] * ways
        lists, faults = prompt.parse_each(replies, lambda r: prompt.parse_list(r.text, "unknowns"))
        good = list(filter(None, lists))
        if not good:
            raise BadReply(f"no brainstorm was a list; the first said: {faults[0] if faults else 'nothing'}")
        return (yield from _from(state.left_out(faults, ways, "brainstorms"), in_turn(good), n))

    return run


@step("multi-call", calls=lambda **_: 1, takes=("draft",))
def select(to: Count = 7) -> Run:
    """Let the model choose `to` questions of the draft by number; a draft that is short enough stays as it is."""

    def run(state: State) -> Work:
        """The model is not asked where leaving out repeats is enough. Raises BadReply."""
        draft = state.written
        again = repeats(draft.questions)  # a question said again word for word is no choice
        pool = [q for q, repeat in zip(draft.questions, again, strict=True) if not repeat]
        if len(draft.questions) <= to:
            return state
        if len(pool) <= to:
            return replace(state, draft=Draft(draft.title, tuple(pool))).note("nothing to choose: repeats left out")
        [reply] = yield [Call(prompt.select(state.task, pool, to))]
        keep = prompt.parse_keep(reply.text, len(pool), to)
        return replace(state, draft=Draft(draft.title, tuple(pool[i] for i in keep)))

    return run
