"""Decoding: one question at a time, each call seeing those before it.

Temperature, top-p, min-p and seed are no steps: they are the run's `decoding`. Does not know what comes after.
"""

from __future__ import annotations

from dataclasses import replace

from lib.agent import prompt
from lib.agent.pipeline import Call, Run, State, Work, step
from lib.agent.prompt import BadReply, Draft
from lib.agent.steps.asking import Count, Limit
from lib.measure.answer import normalised

HEAT = 0.9


@step("decoding", calls=lambda n, again: 1 + n + again, needs=lambda again, **_: ["temperature"] if again else [])
def one_by_one(n: Count = 7, again: Limit = 0) -> Run:
    """Restate the task, then ask for one question at a time; a repeat is asked for again with heat, at most `again` times."""

    def run(state: State) -> Work:
        title, left = "", again
        asked: list[str] = []
        change: dict[str, float] = {}
        while len(asked) < n:
            calls = [Call(prompt.next_question(state.task, asked), change)]
            # The title rides along with the first question: one batch less for every case.
            *first, reply = yield [*([] if title else [Call(prompt.restate(state.task))]), *calls]
            if first:
                title = prompt.parse_text(first[0].text, "title")
                if not title:
                    raise BadReply("the title is empty")
            question = prompt.parse_text(reply.text, "question")
            if left and normalised(question) in map(normalised, asked):
                left, change = left - 1, {"temp": HEAT}  # greedy would say the same again
                state = state.note(f"asked again instead of: {question}")
            else:
                asked, change = [*asked, question], {}
        return replace(state, draft=Draft(title, tuple(asked)))

    return run
