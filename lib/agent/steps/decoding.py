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


# Published study, exp016: 0.245 on dev beside 0.308.
@step("decoding", calls=lambda n, again: 1 + n + again, needs=lambda again, **_: ["temperature"] if again else [])
def one_by_one(n: Count = 7, again: Limit = 0) -> Run:
    """Restate the task, then ask for one question at a time; a repeat is asked for again with heat, at most `again` times."""

    def run(state: State) -> Work:
        """`again` is for the whole set, not for each question; once it is used up a repeat stays. Raises BadReply."""
        # The title rides along with the first question: one batch less for every case.
        title, before, retries = "", [Call(prompt.restate(state.task))], again
        questions: list[str] = []
        change: dict[str, float] = {}
        while len(questions) < n:
            *first, reply = yield [*before, Call(prompt.next_question(state.task, questions), change)]
            if first:
                title, before = prompt.parse_text(first[0].text, "title"), []
                if not title:
                    raise BadReply("the title is empty")
            question = prompt.parse_text(reply.text, "question")
            if retries and normalised(question) in map(normalised, questions):
                # Greedy would say the same again.
                retries, change = retries - 1, {"temp": HEAT}
                state = state.note(f"asked again instead of: {question}")
            else:
                questions, change = [*questions, question], {}
        return replace(state, draft=Draft(title, tuple(questions)))

    return run
