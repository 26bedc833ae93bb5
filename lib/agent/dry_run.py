"""A pipeline tried on a stand-in that answers every call well: can it end in a set at all?

Knows every call of `prompt`, with a well-formed reply to each. Does not know whether an answer is good, nor calls that
a new step brings along: of such a pipeline it says nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from lib.agent import prompt
from lib.agent.pipeline import STEPS, Part, State, Step, calls_in, run
from lib.agent.prompt import Draft, Message
from lib.models.model import Capabilities, Completion, Cost, Decoding, ToyModel

TASK = ("rehearsal", "buy a sailing boat")
THINGS = (
    "hull length", "mooring place", "winter storage", "sailing licence", "engine power", "crew members", "harbour fee",
    "insurance cover", "water depth", "trailer weight", "sail area", "hull colour",
)  # fmt: skip
BEFORE: dict[Part, str] = {"draft": "ask", "pool": "sample, frames or donor"}  # what writes the part that a step lacks
UNUSED: dict[Part, str] = {
    "demos": "no step after it shows examples",
    "draft": "a later step writes the set anew without reading it",
    "pool": "no step after it chooses from the pool",
}


class StandIn(ToyModel):
    """A toy that can do everything: other adapters are itself, a reply's log-probability is minus its length."""

    def __init__(self, reply: Callable[[Sequence[Message]], str] | None = None) -> None:
        super().__init__(reply or fluent)
        self.capabilities = Capabilities(logprobs=True, grammar=True, adapters=True)
        self.adapters: list[str] = []

    def score(self, prompts: Sequence[Sequence[Message]], replies: Sequence[str]) -> list[Completion]:
        self.cost += Cost(calls=len(replies))
        return [Completion(r, 1, 1, "stop", -float(len(r))) for r in replies]

    def with_adapter(self, adapter: str) -> StandIn:
        self.adapters.append(adapter)
        return self


def fluent(messages: Sequence[Message]) -> str:
    """A well-formed reply to every call of `prompt`, by its name and what it shows. Raises KeyError on others."""
    paragraph, shown = messages[0]["content"].split("\n")[-1], messages[-1]["content"].split("\n")
    n = int(next((line[11:] for line in shown if line.startswith("Questions: ")), "7"))
    # What the message lists by number: the draft, the unknowns, or the questions asked so far.
    rows = [line.split(". ", 1)[1] for line in shown if re.match(r"\d+\. ", line)]
    questions = [
        f"Which {t} do you have in mind?" for t in (rows if prompt.FROM_UNKNOWNS in messages[0]["content"] else THINGS)
    ]
    schema = next((s for s, p in prompt.SCHEMAS.items() if p == paragraph), None)
    if schema:
        extra = {"unknowns": THINGS[:n], "reasons": ("it matters",) * n, "givens": ()}.get(schema, ())
        return prompt.write_set(Draft("Buy a sailing boat", tuple(questions[:n]), extra), schema)
    number = len(rows)
    return json.dumps(
        {
            "next": {"question": f"Which {THINGS[number % len(THINGS)]} do you have in mind?"},
            "title": {"title": "Buy a sailing boat"},
            "brainstorm": {"unknowns": THINGS},
            "select": {"keep": list(range(2, n + 2))},
            "plan": {"steps": ["measure the berth", "visit boats", "take a test sail"]},
            "assume": {"assumptions": [f"{t}: some value" for t in THINGS]},
            "critique": {"worst": 2, "fault": "vague"},
            "compare": {"better": "A"},
            "scenarios": {"scenarios": ["a family of five", "a racer", "a pensioner", "a beginner"]},
            "answer": {"answer": f"whatever suits {shown[-1]}"},
            "answers": {"answers": ["four metres", "as long as my neighbour's", "no idea at all"]},
            "check": {"one_thing": True, "given": False, "specific": False, "duplicate": False},
            "repair": {"question": f"What exactly about {sum(map(ord, shown[-1]))} would you like?"},
        }[next(iter(calls_in(messages)), "")]
    )


def fault(steps: Sequence[Step], questions: int = 7) -> str:
    """Why a pipeline could never end in a set of so many questions, however good the model is; "" if it can.

    A step that finds nothing to work on or works for nothing, a wording of a call that its step does not make, no call
    at all, or a count that no step brings to the one asked for. A step of which the stand-in does not know the calls
    is given the benefit of the doubt.

    >>> from lib.agent.steps import build
    >>> fault(build([{"step": "ask", "n": 8}, {"step": "prune"}]))
    ''
    >>> fault(build([{"step": "ask", "n": 8}]))
    'it ends with 8 questions instead of 7'
    >>> fault(build([{"step": "best"}]))
    'best: no pool to work on; put sample, frames or donor before it'
    >>> fault(build([{"step": "demos"}, {"step": "brainstorm"}]))
    'demos: it has no effect; no step after it shows examples'
    """
    return _unconnected(steps) or _unfinished(steps, questions)


def _unconnected(steps: Sequence[Step]) -> str:
    """The first step that lacks what it takes, or the last one that gives what nobody takes."""
    if any(step.name not in STEPS for step in steps):
        # A step of a test or of a person's own: nobody says what it hands on.
        return ""
    levers = [STEPS[step.name] for step in steps]
    there: set[Part] = set()
    gives: list[set[Part]] = []
    for step, lever in zip(steps, levers, strict=True):
        for part in lever.takes:
            if part not in there:
                return f"{step.name}: no {part} to work on; put {BEFORE[part]} before it"
        # What a step reads is declared, so this needs no model and no reply.
        own = set(lever.gives)
        if "draft" not in there and "pool" in own:
            # The first set of a pool is the draft where there is none.
            own.add("draft")
        gives.append(own)
        there |= own
    if "draft" not in there:
        return "no step of it writes a set; put ask into it"
    # Backwards: what a step gives is wanted when a later one takes it before another writes it anew.
    wanted: set[Part] = {"draft"}
    for step, lever, own in zip(reversed(steps), reversed(levers), reversed(gives), strict=True):
        unused = own - wanted
        if unused == own:
            return f"{step.name}: it has no effect; {UNUSED[sorted(unused)[0]]}"
        wanted -= own - {"pool"}  # a pool grows, nothing is written over
        wanted |= {*lever.takes, *lever.uses}
    return ""


def _unfinished(steps: Sequence[Step], questions: int) -> str:
    """What a run on the stand-in shows: no call, no set, another number of questions, a wording without its call."""
    model = StandIn()
    try:
        # Without wordings: the stand-in knows a call by its own paragraph. That they have an effect is looked at after.
        [state] = run([replace(step, wording={}) for step in steps], [TASK], model, Decoding(max_tokens=100_000))
    # A call of a new step that the stand-in has no reply to.
    except KeyError:
        return ""
    except ValueError as error:
        return str(error)
    if not model.cost.calls:
        return "no step of it calls the model"
    unused = _unused_wording(steps, state)
    if unused or state.failed:
        return unused
    count = len(state.written.questions)
    return "" if count == questions else f"it ends with {count} questions instead of {questions}"


def calls(steps: Sequence[Step]) -> list[Sequence[Message]]:
    """The conversations that a pipeline has with a toy about the one task, in its own wording."""
    model = ToyModel()
    run(steps, [TASK], model, Decoding(max_tokens=100_000))
    return model.seen


def _unused_wording(steps: Sequence[Step], state: State) -> str:
    """The first step with a wording that no call of it uses, "" where there is none."""
    for step in steps:
        names: set[str] = set()
        for call in state.calls:
            if call["step"] == step.name:
                names.update(calls_in(call["messages"]))
        for name in step.wording:
            if not names:
                return f"{step.name}: the wording has no effect: it makes no call"
            if name and name not in names:
                return f"{step.name}: the wording of {name!r} has no effect: it makes {', '.join(sorted(names))}"
    return ""
