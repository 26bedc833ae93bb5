"""Adapters: a second draft from another adapter on the same base, merged or transplanted into the first.

Knows only the adapter's folder. Does not load it: the model does, and a model that cannot is refused before the run.
"""

from __future__ import annotations

from dataclasses import replace

from lib.agent import prompt
from lib.agent.pipeline import Call, Run, State, Work, step
from lib.agent.prompt import BadReply
from lib.agent.steps.asking import Count, read_set
from lib.agent.steps.choosing import sets, transplanted


# Published study, exp036, the sets of two adapters merged: 0.328 on full beside 0.409.
@step("adapter", calls=lambda **_: 1, needs=lambda **_: ["adapters"], uses=("demos", "draft", "pool"), gives=("pool",))
def donor(adapter: str = "", n: Count = 7) -> Run:
    """Add a set by another adapter (its folder; "" is the bare base) to the pool; go on with merge, best or transplant."""

    def run(state: State) -> Work:
        """A donated set that cannot be read is left out and noted. Raises BadReply where there is no other."""
        # The donor sees what the own draft saw, so that only the weights differ.
        demos = state.shown_demos()
        [reply] = yield [Call(prompt.ask(state.task, n, "json", (), demos), adapter=adapter)]
        own = sets(state)
        try:
            donated = read_set(reply)
        except BadReply as error:
            if not own:
                raise
            return replace(state, pool=own).note(f"donor left out: {error}")
        return replace(state, draft=state.draft or donated, pool=(*own, donated))

    return run


# Published study, exp035: 0.400 on full beside 0.409.
@step("adapter", takes=("draft", "pool"))
def transplant(most: Count = 2) -> Run:
    """Replace up to `most` questions of the draft that repeat others most by what only the last set of the pool asks."""

    def run(state: State) -> Work:
        # The last set is the donor's: `donor` adds at the end.
        draft, swaps = transplanted(state.written, state.pool[-1], most)
        for out, new in swaps:
            state = state.note(f"transplanted: {out} > {new}")
        return replace(state, draft=draft)
        yield  # makes this a generator, as every step is

    return run
