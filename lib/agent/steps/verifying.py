"""Decomposed verification: four yes-or-no checks for each question, then mend or drop what fails.

Knows how many repairs it may make. A check that cannot be read passes its question and is noted; that
a question stands there twice word for word is seen without a model.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from lib.agent import prompt
from lib.agent.likeness import repeats
from lib.agent.pipeline import Call, State, Work, step
from lib.agent.steps.asking import Count, Limit
from lib.agent.steps.critiquing import swap
from lib.agent.steps.pruning import drop

# The fault that each check finds when it comes out wrong, the worst first.
FAULT = {"given": "given", "duplicate": "duplicate", "one_thing": "two things", "specific": "vague"}
GOOD = {"given": False, "duplicate": False, "one_thing": True, "specific": True}


@step("verification", calls=lambda then, most, repairs, **_: most + (repairs if then == "repair" else 0), role="after")
def verify(then: Literal["repair", "drop"] = "repair", to: Count = 7, most: Count = 7, repairs: Limit = 3):
    """Check each question (one thing? given? concrete? repeat?), then rewrite at most `repairs` that fail, or drop to `to`."""

    def run(state: State) -> Work:
        draft = state.need("verify")
        qs = draft.questions[:most]
        others = [[q for k, q in enumerate(draft.questions) if k != i] for i in range(len(qs))]
        replies = yield [Call(prompt.check(state.task, q, o)) for q, o in zip(qs, others, strict=True)]
        checks, faults = prompt.parse_each(replies, lambda r: prompt.parse_checks(r.text))
        if faults:
            state = state.note(f"{len(faults)} of {len(qs)} checks left out: {faults[0]}")
        wrong = [[FAULT[n] for n in FAULT if c[n] != GOOD[n]] if c else [] for c in checks]
        for i, again in enumerate(repeats(qs)):
            if again:  # word for word the same is certain, whatever the model says
                wrong[i] = ["duplicate", *(f for f in wrong[i] if f != "duplicate")]
        if then == "drop":
            failed = {q: len(w) for q, w in zip(qs, wrong, strict=True)}
            left, dropped = drop(draft, to, lambda now, i: float(failed.get(now[i], 0)))
            return replace(state.note("dropped: " + " | ".join(dropped)), draft=left) if dropped else state
        todo = sorted((i for i in range(len(qs)) if wrong[i]), key=lambda i: (-len(wrong[i]), i))[:repairs]
        replies = yield [Call(prompt.repair(state.task, qs[i], wrong[i][0])) for i in todo]
        mended, faults = prompt.parse_each(replies, lambda r: prompt.parse_text(r.text, "question"))
        if faults:
            state = state.note(f"{len(faults)} of {len(todo)} repairs left out: {faults[0]}")
        for i, question in zip(todo, mended, strict=True):
            state = swap(state, i, question, wrong[i][0]) if question else state
        return state

    return run
