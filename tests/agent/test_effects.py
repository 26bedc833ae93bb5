"""No argument without effect: each one of every lever changes what a model is asked or what comes out, or is refused."""

import json
from collections import defaultdict
from itertools import count

import pytest

from lib.agent.dry_run import StandIn
from lib.agent.pipeline import STEPS, run
from lib.agent.steps import build
from lib.models.model import Decoding

TASKS = (  # near the first the bank has several sets of one family
    ("race", "repaint my mother's old racing bike"), ("boat", "buy a sailing boat"),
)  # fmt: skip
# Another value for each argument, and what must stand beside it where it acts with another alone.
OTHER = {
    "n": 6, "to": 5, "k": 1, "most": 3, "tokens": 500, "temp": 0.3, "temps": [0.5], "names": ["doer"], "advice": ["coach"],
    "adapter": "runs/x/adapter", "rounds": 2, "swaps": 2, "ways": 2, "repairs": 1, "situations": 3, "again": 1, "take": 6,
    "grammar": "count", "schema": "lines", "then": "drop", "by": None,
}  # fmt: skip
BESIDE = {("verify", "to"): {"then": "drop"}, ("demos", "by"): {"k": 8}, ("checklist", "by"): {"k": 8}}
BEFORE = {"pool": [{"step": "ask"}, {"step": "sample"}], "draft": [{"step": "ask", "n": 12}]}
ARGUMENTS = [(name, key) for name in sorted(STEPS) for key in STEPS[name].arguments]


class Listening(StandIn):
    """A stand-in that keeps what it was asked and how; its sets differ a little from call to call."""

    def __init__(self, reply=None):
        super().__init__(reply)
        self.asked = []

    def generate(self, prompts, decodings):
        self.asked += [(json.dumps(messages), decoding) for messages, decoding in zip(prompts, decodings, strict=True)]
        return super().generate(prompts, decodings)


def outcome(name, args, reply=None):
    """All that a step does to a case: what it asks, with which adapter, and what it leaves on the state."""
    takes = STEPS[name].takes
    before = BEFORE.get("pool" if "pool" in takes else next(iter(takes), ""), [])
    after = [{"step": "ask"}] if name == "demos" else []
    model = Listening(reply)
    states = run(build([*before, {"step": name, **args}, *after]), TASKS, model, Decoding(max_tokens=9999))
    return model.asked, model.adapters, states


def varied(name, key):
    """Values of an argument that are not its default."""
    argument = STEPS[name].arguments[key]
    return [v for v in argument.options or [OTHER[key]] if v != argument.default]


def going_on(messages):
    """A set of ten questions, whatever was asked for."""
    return json.dumps({"title": "Buy a boat", "questions": [f"Which thing {i} is it?" for i in range(10)]})


def saying_it_twice():
    """Of every task one question, the same again, then others."""
    numbers = defaultdict(count)

    def reply(messages):
        if "short title" in messages[0]["content"]:
            return '{"title": "Buy a boat"}'
        number = next(numbers[messages[-1]["content"].split("\n")[0]])
        return json.dumps({"question": f"Which thing {max(1, number)} is it?"})

    return reply


def differing_sets():
    """Each set about other things than the one before."""
    number = count()

    def reply(messages):
        letters = "abcdefghijklmnopqrstuvw"
        at = 7 * (next(number) % 3)
        return json.dumps({"title": "Buy a boat", "questions": [f"{letter * 9}?" for letter in letters[at : at + 7]]})

    return reply


REPLIES = {
    ("ask", "take"): lambda: going_on,
    ("one_by_one", "again"): saying_it_twice,
    ("transplant", "most"): differing_sets,
}


@pytest.mark.parametrize("name, key", ARGUMENTS, ids=lambda v: v)
def test_every_argument_of_every_lever_has_an_effect(name, key):
    beside = BESIDE.get((name, key), {})
    reply = REPLIES.get((name, key), lambda: None)
    plain = outcome(name, beside, reply())
    values = varied(name, key)
    if (name, key) == ("adapt", "by"):
        values.remove("diverse")  # refused: there is one example only
    assert values
    for value in values:
        assert outcome(name, beside | {key: value}, reply()) != plain, value
