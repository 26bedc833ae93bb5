"""A pipeline tried on a stand-in that answers every call well: can it end in a set at all?

Knows every call of `prompt`, with a well-formed reply to each. Does not know whether an answer is good, nor calls that
a new step brings along: of such a pipeline it says nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from lib.agent import prompt
from lib.agent.pipeline import Step, run
from lib.agent.prompt import Draft, Message
from lib.models.model import Capabilities, Completion, Cost, Decoding, ToyModel

TASK = ("rehearsal", "buy a sailing boat")
THINGS = (
    "hull length", "mooring place", "winter storage", "sailing licence", "engine power", "crew members", "harbour fee",
    "insurance cover", "water depth", "trailer weight", "sail area", "hull colour",
)  # fmt: skip
BEFORE = re.compile(r"put .+ before it$")  # how a step says that it found nothing to work on


class Fluent(ToyModel):
    """A toy that can do everything: other adapters are itself, a reply's log-probability is minus its length."""

    def __init__(self, reply=None) -> None:
        super().__init__(reply or fluent)
        self.capabilities = Capabilities(logprobs=True, grammar=True, adapters=True)
        self.adapters: list[str] = []

    def score(self, prompts: Sequence[Sequence[Message]], replies: Sequence[str]) -> list[Completion]:
        self.cost += Cost(calls=len(replies))
        return [Completion(r, 1, 1, "stop", -float(len(r))) for r in replies]

    def with_adapter(self, adapter: str) -> Fluent:
        self.adapters.append(adapter)
        return self


def fluent(messages: Sequence[Message]) -> str:
    """A well-formed reply to every call of `prompt`, by its last paragraph and what it shows. Raises KeyError on others."""
    paragraph, shown = messages[0]["content"].split("\n")[-1], messages[-1]["content"].split("\n")
    n = int(next((line[11:] for line in shown if line.startswith("Questions: ")), "7"))
    rows = [line.split(". ", 1)[1] for line in shown if re.match(r"\d+\. ", line)]
    questions = [
        f"Which {t} do you have in mind?" for t in (rows if prompt.FROM_UNKNOWNS in messages[0]["content"] else THINGS)
    ]
    schema = next((s for s, p in prompt.SCHEMAS.items() if p == paragraph), None)
    if schema:
        extra = {"unknowns": THINGS[:n], "reasons": ("it matters",) * n, "givens": ()}.get(schema, ())
        return prompt.write_set(Draft("Buy a sailing boat", tuple(questions[:n]), extra), schema)
    asked = len(rows)
    return json.dumps(
        {
            prompt.NEXT: {"question": f"Which {THINGS[asked % len(THINGS)]} do you have in mind?"},
            prompt.TITLE: {"title": "Buy a sailing boat"},
            prompt.BRAINSTORM: {"unknowns": THINGS},
            prompt.SELECT: {"keep": list(range(2, n + 2))},
            prompt.PLAN: {"steps": ["measure the berth", "visit boats", "take a test sail"]},
            prompt.ASSUME: {"assumptions": [f"{t}: some value" for t in THINGS]},
            prompt.CRITIQUE: {"worst": 2, "fault": "vague"},
            prompt.COMPARE: {"better": "A"},
            prompt.SCENARIOS: {"scenarios": ["a family of five", "a racer", "a pensioner", "a beginner"]},
            prompt.ANSWER: {"answer": f"whatever suits {shown[-1]}"},
            prompt.ANSWERS: {"answers": ["four metres", "as long as my neighbour's", "no idea at all"]},
            prompt.CHECK: {"one_thing": True, "given": False, "specific": False, "duplicate": False},
            prompt.REPAIR: {"question": f"What exactly about {sum(map(ord, shown[-1]))} would you like?"},
        }[paragraph]
    )


def fault(steps: Sequence[Step], questions: int = 7) -> str:
    """Why a pipeline could never end in a set of so many questions, however good the model is; "" if it can.

    A step that finds nothing to work on, or a count that no step brings to the one asked for. A step of which the
    stand-in does not know the calls is given the benefit of the doubt.

    >>> from lib.agent.steps import build
    >>> fault(build([{"step": "ask", "n": 8}, {"step": "prune"}]))
    ''
    >>> fault(build([{"step": "ask", "n": 8}]))
    'it ends with 8 questions instead of 7'
    >>> fault(build([{"step": "best"}]))
    'best: no pool for best to work on; put sample, frames or donor before it'
    """
    try:
        [state] = run(steps, [TASK], Fluent(), Decoding(max_tokens=100_000))
    except KeyError:
        return ""
    if state.failed:
        return state.failed.reason if BEFORE.search(state.failed.reason) else ""
    if state.draft is None:
        return "no step of it writes a set; put ask into it"
    asked = len(state.draft.questions)
    return "" if asked == questions else f"it ends with {asked} questions instead of {questions}"
