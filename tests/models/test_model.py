"""Decoding from plain data, costs that add, and the toy that needs nothing."""

import json
import math

import pytest

from lib.agent.prompt import ask, parse_set
from lib.models.load import check, load
from lib.models.model import Cost, Decoding, NoModel, ToyModel

WRONG = {
    "unknown name": ({"temperature": 0.7}, "'temperature'"),
    "name in another case": ({"Temp": 0.7}, "'Temp'"),
    "name that is no text": ({3: 1}, "3"),
    "text for a number": ({"temp": "0.7"}, "expected a number"),
    "null for a number": ({"temp": None}, "expected a number"),
    "list for a number": ({"top_p": [0.9]}, "expected a number"),
    "bool for a number": ({"temp": True}, "expected a number"),
    "bool for a whole number": ({"seed": False}, "expected a whole number"),
    "fraction for a whole number": ({"max_tokens": 10.0}, "expected a whole number"),
    "temp below 0": ({"temp": -0.1}, ": expected 0 to 5"),
    "temp above 5": ({"temp": 5.1}, ": expected 0 to 5"),
    "temp that is no number": ({"temp": math.nan}, ": expected 0 to 5"),
    "temp without end": ({"temp": math.inf}, ": expected 0 to 5"),
    "top_p of 0": ({"top_p": 0}, ": expected above 0 to 1"),
    "top_p above 1": ({"top_p": 1.01}, ": expected above 0 to 1"),
    "min_p of 1": ({"min_p": 1}, ": expected 0 to below 1"),
    "min_p below 0": ({"min_p": -0.01}, ": expected 0 to below 1"),
    "top_k below 0": ({"top_k": -1}, "top_k is -1: expected 0 or more"),
    "penalty below 1": ({"repetition_penalty": 0.99}, ": expected 1 to 2"),
    "penalty above 2": ({"repetition_penalty": 2.01}, ": expected 1 to 2"),
    "no context": ({"repetition_context": 0}, ": expected 1 to 4096"),
    "too much context": ({"repetition_context": 4097}, ": expected 1 to 4096"),
    "no tokens": ({"max_tokens": 0}, "max_tokens is 0"),
    "too many tokens": ({"max_tokens": 100_001}, "max_tokens is 100001"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_decoding_refuses_what_it_does_not_know_in_one_line(kind):
    values, why = WRONG[kind]
    with pytest.raises(ValueError) as caught:
        Decoding.of(values)
    assert why in str(caught.value) and "\n" not in str(caught.value)


def test_decoding_takes_the_ends_of_every_range():
    assert Decoding.of({}) == Decoding()
    low = {"temp": 0, "top_p": 0.001, "min_p": 0, "top_k": 0, "max_tokens": 1, "seed": 0,
           "repetition_penalty": 1, "repetition_context": 1}  # fmt: skip
    high = {"temp": 5, "top_p": 1, "min_p": 0.999, "top_k": 50, "max_tokens": 100_000, "seed": 2**31,
            "repetition_penalty": 2, "repetition_context": 4096}  # fmt: skip
    assert Decoding.of(low).max_tokens == 1 and Decoding.of(high).top_k == 50


def test_a_seed_changes_nothing_but_the_seed():
    first = Decoding.of({"temp": 0.8, "top_k": 5})
    assert first.with_seed(9) == Decoding(temp=0.8, top_k=5, seed=9) and first.seed == 0


def test_costs_add_and_memory_takes_the_larger():
    a, b = Cost(1, 10, 20, 0.5, 0.25, 2.0), Cost(2, 30, 40, 1.5, 0.5, 1.0)
    assert a + b == b + a == Cost(3, 40, 60, 2.0, 0.75, 2.0)
    assert a + Cost() == a and (a + b) + a == a + (b + a)


def test_the_toy_answers_every_conversation_in_order_and_remembers_it():
    model = ToyModel(lambda m: m[-1]["content"].upper())
    prompts = [[{"role": "user", "content": text}] for text in ("a b", "c", "")]
    done = model.generate(prompts, [Decoding()] * 3)
    assert [c.text for c in done] == ["A B", "C", ""] and model.seen == prompts
    assert [c.prompt_tokens for c in done] == [2, 1, 0]


def test_the_toy_stops_at_the_token_limit_and_says_why():
    model = ToyModel(lambda _: "one two three")
    [cut], [whole] = (model.generate([[]], [Decoding(max_tokens=n)]) for n in (2, 3))
    assert (cut.text, cut.generation_tokens, cut.finish_reason) == ("one two", 2, "length")
    assert (whole.text, whole.generation_tokens, whole.finish_reason) == ("one two three", 3, "stop")


def test_the_cost_of_the_toy_grows_with_every_call():
    model = ToyModel(lambda _: "one two")
    for _ in range(3):
        model.generate([[{"role": "user", "content": "a b c"}]] * 2, [Decoding()] * 2)
    assert model.cost == Cost(calls=6, prompt_tokens=18, generation_tokens=12)


def test_the_toy_wants_a_decoding_for_every_prompt():
    with pytest.raises(ValueError):
        ToyModel().generate([[{"role": "user", "content": "a"}]], [])


@pytest.mark.parametrize("n", [1, 7, 10])
def test_the_toy_writes_as_many_questions_as_asked_for_that_quote_the_task(n):
    [reply] = ToyModel().generate([ask('buy a "blue" boat: now', n)], [Decoding()])
    draft = parse_set(reply.text)
    assert len(set(draft.questions)) == n and 'buy a "blue" boat: now' in draft.title
    assert all('buy a "blue" boat: now' in q and q.endswith("?") for q in draft.questions)
    json.loads(reply.text)


def test_the_door_opens_the_toy_and_refuses_an_adapter_for_it():
    assert isinstance(load("toy"), ToyModel)
    with pytest.raises(NoModel, match="no adapter"):
        load("toy", "some/adapter")


def test_the_door_refuses_an_unknown_name_before_it_loads_anything():
    check("toy"), check("smollm2")
    with pytest.raises(NoModel, match="'smol-xl'"):
        check("smol-xl")
