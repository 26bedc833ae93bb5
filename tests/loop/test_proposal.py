"""Proposals are data: what is read, what is refused and by which rule, and when two are the same."""

import json

import pytest

from lib.loop.proposal import MOST_BYTES, MOST_PAIRS, Proposal, Refused, setup

GOOD = {
    "hypothesis": "Nine questions, the vaguest two dropped, are more concrete.", "lever": "over-generate and prune",
    "pipeline": [{"step": "ask", "n": 9}, {"step": "prune", "by": "vagueness"}], "predicted": 0.02,
    "kill": "the interval rules out +0.02", "parent": "", "decoding": {}, "adapter": "",
}  # fmt: skip


def trains(**data):
    """A change of a proposal: it asks for a training on this data."""
    return {"request": {"why": "it repeats itself", "expected": 0.1, "parameters": {"data": data}}}


def test_a_proposal_may_ask_for_a_training_within_bounds():
    told = GOOD | trains(pairs=MOST_PAIRS, source="claude")
    assert Proposal.read(told).as_dict() == told


def test_a_good_proposal_comes_back_as_it_was():
    assert Proposal.read(GOOD).as_dict() == GOOD | {"request": {}}


def test_a_proposal_is_read_from_json_with_json_inside():
    flat = GOOD | {"pipeline": json.dumps(GOOD["pipeline"]), "decoding": "{}"}
    assert Proposal.read(json.dumps(flat)) == Proposal.read(GOOD)


@pytest.mark.parametrize(
    "change, rule",
    [
        ({"predicted": float("nan")}, "not-finite"),
        ({"predicted": float("inf")}, "not-finite"),
        ({"predicted": "0.1"}, "malformed"),
        ({"predicted": True}, "malformed"),
        ({"predicted": 3}, "malformed"),
        ({"pipeline": {"step": "ask"}}, "malformed"),
        ({"pipeline": 'ask(); __import__("os").system("true")'}, "malformed"),
        ({"decoding": {"temp": float("nan")}}, "not-finite"),
        ({"hypothesis": " "}, "malformed"),
        ({"hypothesis": "a\x00b"}, "malformed"),
        ({"hypothesis": "half \ud800"}, "malformed"),
        ({"hypothesis": "x" * 3000}, "too-large"),
        ({"pipeline": [{"step": "ask", "n": i} for i in range(2000)]}, "too-large"),
        ({"lever": "magic"}, "unknown-lever"),
        ({"lever": "a/a"}, "unknown-lever"),
        ({"lever": "baseline"}, "unknown-lever"),
        ({"command": "ls"}, "malformed"),
        ({"request": {"kind": "sft"}}, "malformed"),
        (trains(dollars=1.0), "budget"),
        (trains(source="claude", dollars=500.0), "budget"),
        (trains(pairs=100_000_000), "budget"),
        (trains(pairs=MOST_PAIRS + 1), "budget"),
        (trains(pairs=1e9), "budget"),
        (trains(pairs=True), "budget"),
        ({"request": {"why": "w", "expected": 0.1, "parameters": {"data": "all"}}}, "malformed"),
        ({"kill": 5}, "malformed"),
    ],
)
def test_a_bad_field_is_refused_by_a_named_rule(change, rule):
    with pytest.raises(Refused) as stopped:
        Proposal.read(GOOD | change)
    assert stopped.value.name == rule and str(stopped.value).startswith(f"{rule}: ")


@pytest.mark.parametrize("name", ["hypothesis", "lever", "pipeline", "predicted", "kill"])
def test_a_missing_field_is_named(name):
    with pytest.raises(Refused, match=f"{name} is missing"):
        Proposal.read({k: v for k, v in GOOD.items() if k != name})


@pytest.mark.parametrize(
    "change, said",
    [
        ({"hypothesis": " "}, "hypothesis is empty; say what you expect and why"),
        ({"kill": ""}, "kill is empty; say what would refute it"),
    ],
)
def test_what_is_empty_is_said_to_be(change, said):
    with pytest.raises(Refused, match=f"^malformed: {said}"):
        Proposal.read(GOOD | change)


@pytest.mark.parametrize(
    "text, rule",
    [
        ("", "malformed"),
        ("not json", "malformed"),
        ("[1]", "malformed"),
        ("null", "malformed"),
        ('{"lever": "x", "lever": "y"}', "malformed"),
        (json.dumps(GOOD).replace("0.02", "NaN", 1), "not-finite"),
        ("[" * 100_000, "too-large"),
        ("[" * 50_000, "malformed"),
        (json.dumps(GOOD | {"hypothesis": "x" * 4 * MOST_BYTES}), "too-large"),
    ],
)
def test_text_that_is_no_proposal_is_refused_and_never_a_traceback(text, rule):
    with pytest.raises(Refused) as stopped:
        Proposal.read(text)
    assert stopped.value.name == rule


def of(pipeline, decoding=None, **change):
    told = {"model": "toy", "adapter": "", "fingerprint": "f"} | change
    return setup(told["model"], pipeline, decoding or {}, told["adapter"], told["fingerprint"])


def test_defaults_written_out_are_the_same_setup():
    assert of([{"step": "ask"}]) == of([{"step": "ask", "n": 7, "schema": "json", "advice": []}])
    assert of([{"step": "ask"}], {"temp": 0.0, "seed": 3}) == of([{"step": "ask"}])
    assert of([{"step": "ask"}], {"temp": 1}) == of([{"step": "ask"}], {"temp": 1.0})
    assert of([{"step": "ask"}], {"temp": 0.5, "seed": 1}) == of([{"step": "ask"}], {"temp": 0.5}), "another draw"


def test_what_makes_a_difference_makes_another_setup():
    mine = of([{"step": "ask"}])
    others = [
        of([{"step": "ask", "n": 8}]), of([{"step": "ask"}], {"temp": 0.5}), of([{"step": "ask"}], model="smollm2"),
        of([{"step": "ask"}], adapter="a"), of([{"step": "ask"}], fingerprint="g"),
    ]  # fmt: skip
    assert len({mine, *others}) == 6
