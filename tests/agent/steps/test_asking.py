"""Prompting and schema: frames, beating an own draft, and the grammars that fix the form of a reply."""

import json
import re

import pytest

from lib.agent import prompt
from lib.agent.pipeline import BadPipeline, require, run
from lib.agent.prompt import Draft
from lib.agent.steps import build
from lib.models.model import Capabilities, Decoding, ToyModel

TASK = ("boat", "buy a sailing boat")


def finish(pipeline, model):
    [state] = run(build(pipeline), [TASK], model, Decoding(max_tokens=1000))
    return state


def written(*questions):
    return prompt.write_set(Draft("Buy a boat", questions))


def by_frame(replies):
    """A reply function: the reply of the frame whose paragraph the call holds."""
    return lambda m: next(r for name, r in replies.items() if prompt.FRAMES[name] in m[0]["content"])


def test_frames_are_merged_in_turn_without_repeats(able):
    replies = {
        "doer": written("Who steers in a storm?", "Where will you moor?"),
        "payer": written("Who steers in the storm?", "How much does the berth cost?"),
    }
    state = finish([{"step": "frames", "names": ["doer", "payer"], "to": 3}], able(by_frame(replies)))
    assert state.draft.questions == ("Who steers in a storm?", "Where will you moor?", "How much does the berth cost?")
    assert len(state.pool) == 2 and state.notes == ()


def test_a_frame_that_cannot_be_read_is_left_out_by_name(able):
    replies = {"doer": "Sure!", "payer": written("How much does the berth cost?")}
    state = finish([{"step": "frames", "names": ["doer", "payer"]}], able(by_frame(replies)))
    assert state.draft.questions == ("How much does the berth cost?",)
    assert state.notes == ("frame doer left out: the reply is no JSON: 'Sure!'",)


def test_frames_without_one_good_reply_fail_the_case(able):
    state = finish([{"step": "frames"}], able(lambda m: "no"))
    assert state.draft is None and state.failed.reason.startswith("frames: no frame gave a set")


def test_beat_shows_the_own_draft_and_takes_what_comes_after(able):
    first, second = written("Where will you moor?"), written("Who steers in a storm?")
    model = able(lambda m: second if "Draft:" in m[-1]["content"] else first)
    state = finish([{"step": "ask"}, {"step": "beat", "temp": 0.9}], model)
    assert "1. Where will you moor?" in model.seen[1][-1]["content"] and prompt.ANTIMODAL in model.seen[1][0]["content"]
    assert state.draft.questions == ("Who steers in a storm?",)
    assert [d.questions for d in state.pool] == [("Where will you moor?",)]


@pytest.mark.parametrize("schema", [s for s in prompt.SCHEMAS if s != "lines"])
@pytest.mark.parametrize("strict", [False, True])
def test_a_grammar_asks_for_the_exact_count_and_for_nothing_else(schema, strict):
    grammar = json.loads(prompt.set_grammar(7, schema, strict))
    good = Draft("Buy a boat", ("Which hull do you want?",) * 7, {"givens": ()}.get(schema, ("berth",) * 7))
    reply = json.loads(prompt.write_set(good, schema))
    assert list(reply) == grammar["required"] == list(grammar["properties"]) and not grammar["additionalProperties"]
    if schema == "slots":
        asked = list(grammar["properties"].values())[1:]
        assert len(asked) == 7
    else:
        listed = grammar["properties"]["questions"]
        assert (listed["minItems"], listed["maxItems"]) == (7, 7)
        asked = [listed["items"]["properties"]["question"] if schema == "reasons" else listed["items"]]
    assert all(("pattern" in a) == strict for a in asked)


@pytest.mark.parametrize(
    "text, fits",
    [
        ("Which hull do you want?", True),
        ("Which hull? Which mast?", False),
        ("which hull do you want?", False),
        ("Which hull do you want", False),
        ("Why?", False),
        ('Which "hull" do you want?', False),
        (f"Which {'very ' * 30}long hull do you want?", False),
    ],
)
def test_the_pattern_is_one_question_that_ends_in_its_only_mark(text, fits):
    assert bool(re.search(prompt.PATTERNS["question"], text)) == fits


def test_ask_sends_its_grammar_and_needs_a_model_that_can_use_it(able):
    steps = build([{"step": "ask", "n": 8, "grammar": "questions"}])
    [call] = next(steps[0].run(run(build([{"step": "ask"}]), [TASK], able(), Decoding())[0]))
    assert call.change == {"grammar": prompt.set_grammar(8, "json", True)}
    require(steps, "able", Capabilities(grammar=True))
    with pytest.raises(BadPipeline, match=r"step 1 \(ask\) needs grammar, which model 'apple' does not offer"):
        require(steps, "apple", Capabilities())
    require(build([{"step": "ask"}]), "apple", Capabilities())


def test_lines_take_no_grammar():
    with pytest.raises(BadPipeline, match="no grammar fits it"):
        build([{"step": "ask", "schema": "lines", "grammar": "count"}])


@pytest.mark.parametrize("schema", ["json", "lines"])
def test_worked_examples_are_shown_in_the_schemas_that_they_have_the_parts_for(schema, able):
    model = able()
    state = finish([{"step": "demos", "k": 2}, {"step": "ask", "schema": schema}], model)
    assert state.failed is None
    for said in (m["content"] for m in model.seen[0] if m["role"] == "assistant"):
        shown = prompt.parse_set(said, schema)
        assert len(shown.questions) == 7


TOO_MANY = json.dumps({"title": "Buy a boat", "questions": [f"Which thing {i}?" for i in range(9)]})


@pytest.mark.parametrize("text, schema", [(TOO_MANY, "json"), (TOO_MANY[:-30], "json"),
    ("Buy a boat\n" + "\n\n".join(f"{i + 1}. Which thing {i}?" for i in range(9)), "lines")])  # fmt: skip
def test_a_reply_that_goes_on_is_read_up_to_the_asked_number_where_the_pipeline_says_so(text, schema):
    def asked(**more):
        model = ToyModel(lambda _: text)
        [state] = run(build([{"step": "ask", "schema": schema, **more}]), [TASK], model, Decoding(max_tokens=999))
        return state

    assert asked(take=7).draft.questions == tuple(f"Which thing {i}?" for i in range(7))
    assert asked().failed or len(asked().draft.questions) == 9


def test_a_reply_that_ends_before_the_asked_number_is_none():
    model = ToyModel(lambda _: '{"title": "Buy a boat", "questions": ["Which?", "Wh')
    [state] = run(build([{"step": "ask", "take": 7}]), [TASK], model, Decoding(max_tokens=999))
    assert "ends after too few texts" in state.failed.reason


@pytest.mark.parametrize("args, said", [({"take": 8}, "take is 8"), ({"take": 7, "schema": "slots"}, "json and lines alone"),
    ({"take": 7, "grammar": "count"}, "take one of the two out")])  # fmt: skip
def test_a_take_that_could_have_no_effect_is_refused(args, said):
    with pytest.raises(BadPipeline, match=said):
        build([{"step": "ask", **args}])
