"""Decomposed verification: four yes-or-no checks for each question, then mend or drop what fails.

Knows how many repairs it may make. A check that cannot be read passes its question and is noted; that
a question stands there twice word for word is seen without a model.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from lib.agent import prompt
from lib.agent.likeness import others, repeats
from lib.agent.pipeline import Call, Run, State, Work, step
from lib.agent.steps.asking import Count, Limit
from lib.agent.steps.critiquing import swap
from lib.agent.steps.pruning import drop
from lib.measure.ruler import Protocol

REPAIRS = 3
# The fault that each check finds when it comes out wrong, the worst first.
FAULT = {"given": "given", "duplicate": "duplicate", "one_thing": "two things", "specific": "vague"}
GOOD = {"given": False, "duplicate": False, "one_thing": True, "specific": True}


@step(
    "verification", calls=lambda then, most, repairs, **_: most + (repairs if then == "repair" else 0), takes=("draft",)
)
def verify(then: Literal["repair", "drop"] = "repair", to: Count = 7, most: Count = 7, repairs: Limit = REPAIRS) -> Run:
    """Check each question (one thing? given? concrete? repeat?), then rewrite at most `repairs` that fail, or drop to `to`."""
    if then == "drop" and repairs != REPAIRS:
        raise ValueError(f"repairs is {repairs} and then is drop: nothing is repaired then; take one of the two out")
    if then == "repair" and to != Protocol.questions:
        raise ValueError(f"to is {to} and then is repair: nothing is dropped then; take one of the two out")

    def run(state: State) -> Work:
        """A repair is told the worst fault alone; where it cannot be read the question stays as it was."""
        draft = state.written
        questions = draft.questions[:most]
        replies = yield [
            Call(prompt.check(state.task, question, others(draft.questions, i))) for i, question in enumerate(questions)
        ]
        checks, unread = prompt.parse_each(replies, lambda r: prompt.parse_checks(r.text))
        state = state.left_out(unread, len(questions), "checks")
        faults = [_faults(*pair) for pair in zip(checks, repeats(questions), strict=True)]
        if then == "drop":
            count = dict(zip(questions, map(len, faults), strict=True))
            kept, dropped = drop(draft, to, lambda now, i: count.get(now[i], 0))
            if not dropped:
                return state
            return replace(state.note("dropped: " + " | ".join(dropped)), draft=kept)
        # Repairs are few, so they go to the questions with most faults.
        worst_first = sorted(range(len(questions)), key=lambda i: -len(faults[i]))
        todo = [i for i in worst_first if faults[i]][:repairs]
        replies = yield [Call(prompt.repair(state.task, questions[i], faults[i][0])) for i in todo]
        mended, unread = prompt.parse_each(replies, lambda r: prompt.parse_text(r.text, "question"))
        state = state.left_out(unread, len(todo), "repairs")
        for i, question in zip(todo, mended, strict=True):
            if question:
                state = swap(state, i, question, faults[i][0])
        return state

    return run


def _faults(check: dict[str, bool] | None, again: bool) -> list[str]:
    """What is wrong with a question, the worst first; a check that could not be read finds nothing."""
    faults = [FAULT[name] for name in FAULT if check and check[name] != GOOD[name]]
    if again:  # word for word the same is certain, whatever the model says
        faults = ["duplicate", *(fault for fault in faults if fault != "duplicate")]
    return faults
