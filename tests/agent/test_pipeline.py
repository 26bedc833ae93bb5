"""Pipelines as plain data: what is refused before it costs anything, and how a run treats its cases."""

import json
from dataclasses import replace

import pytest

from lib.agent import prompt
from lib.agent.pipeline import MOST_STEPS, STEPS, BadPipeline, Call, State, Step, require, row_seed, run
from lib.agent.steps import build
from lib.measure.answer import NoAnswer
from lib.models.model import Capabilities, Completion, Cost, Decoding, ToyModel, quoting

TASKS = [("boat", "buy a boat"), ("kite", "fly a kite"), ("roof", "mend the roof"), ("bees", "keep bees")]
WRONG = {
    "no list": ({"step": "ask"}, "list of steps"),
    "text": ("ask", "list of steps"),
    "nothing": (None, "list of steps"),
    "empty": ([], "list of steps"),
    "a bare name": (["ask"], "step 1"),
    "no name": ([{"n": 7}], "step 1"),
    "a name that is no text": ([{"step": 7}], "step 1"),
    "unknown step": ([{"step": "ask"}, {"step": "guess"}], "step 2: no step 'guess'"),
    "step with a line break": ([{"step": "ask\nprune"}], "no step"),
    "misspelt argument": ([{"step": "ask", "shema": "json"}], "no parameter 'shema', did you mean 'schema'"),
    "misspelt wording": ([{"step": "ask", "wordng": "Ask so."}], "no parameter 'wordng', did you mean 'wording'"),
    "argument of another step": ([{"step": "ask", "by": "last"}], "no parameter 'by'"),
    "argument that is no text": ([{"step": "ask", 3: 4}], "no parameter '3'"),
    "text for int": ([{"step": "ask", "n": "7"}], "a whole number"),
    "float for int": ([{"step": "ask", "n": 7.0}], "a whole number"),
    "bool for int": ([{"step": "ask", "n": True}], "a whole number"),
    "null for int": ([{"step": "prune", "to": None}], "a whole number"),
    "text for a list": ([{"step": "ask", "advice": "coach"}], "advice"),
    "numbers in a list of texts": ([{"step": "ask", "advice": ["coach", 1]}], "advice"),
    "a choice that is none": ([{"step": "ask", "schema": "yaml"}], "expected one of json, lines"),
    "a list for a choice": ([{"step": "prune", "by": ["last"]}], "expected one of redundancy"),
    "n of nought": ([{"step": "ask", "n": 0}], "expected 1 to 20"),
    "n of a million": ([{"step": "ask", "n": 1_000_000}], "expected 1 to 20"),
    "prune to nought": ([{"step": "ask"}, {"step": "prune", "to": 0}], "expected 1 to 20"),
    "nine demos": ([{"step": "demos", "k": 9}], "expected 1 to 8"),
    "eight slots": ([{"step": "ask", "schema": "slots", "n": 8}], "seven slots"),
    "repairs where nothing is repaired": (
        [{"step": "verify", "then": "drop", "repairs": 5}],
        "repairs is 5 and then is drop",
    ),
    "a count where nothing is dropped": ([{"step": "verify", "to": 5}], "to is 5 and then is repair"),
    "one example of many families": ([{"step": "demos", "k": 1, "by": "diverse"}], "by is diverse and k is 1"),
    "the one example of many families": ([{"step": "adapt", "by": "diverse"}], "by is diverse and k is 1"),
    "40 steps": ([{"step": "ask"}] * 40, "at most 20"),
}


class Counting(ToyModel):
    """A toy that remembers its batches: the rows (messages, decoding) of each."""

    def __init__(self, reply=None):
        super().__init__(reply)
        self.batches = []

    def generate(self, prompts, decodings):
        if prompts:
            self.batches.append(list(zip(prompts, decodings, strict=True)))
        return super().generate(prompts, decodings)


def ask_twice_then_once(state):
    """A step of two stages, two calls and then one, written as every lever is."""
    first = yield [Call([{"role": "user", "content": f"{state.task} {i}"}]) for i in (1, 2)]
    [last] = yield [Call([{"role": "user", "content": f"{state.task} 3"}], {"temp": 0.7, "max_tokens": 2})]
    return state.note(" / ".join(r.text for r in [*first, last]))


TWO_STAGES = Step("two", "toy", {}, ask_twice_then_once, 3, "", ())


def seeds(model, case_of):
    """Seeds by case, in the order of its calls."""
    found = {}
    for messages, decoding in (row for batch in model.batches for row in batch):
        found.setdefault(case_of(messages), []).append(decoding.seed)
    return found


def by_task(messages):
    return next(case for case, task in TASKS if task in messages[-1]["content"])


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_pipeline_is_refused_in_one_line(kind):
    pipeline, why = WRONG[kind]
    with pytest.raises(BadPipeline) as caught:
        build(pipeline)
    assert why in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 350


def test_a_pipeline_of_the_most_steps_still_builds():
    assert len(build([{"step": "ask"}] * MOST_STEPS)) == MOST_STEPS


def test_a_step_knows_its_arguments_its_calls_and_its_free_texts():
    [ask, prune] = build([{"step": "ask", "n": 9, "advice": ["coach", "Mind the tide."]}, {"step": "prune"}])
    assert (ask.name, ask.args["n"], ask.calls, prune.calls) == ("ask", 9, 1, 0)
    assert set(ask.texts) >= {"Mind the tide."}
    assert all(s.about.endswith(".") and s.family for s in (ask, prune))


@pytest.mark.parametrize("name", sorted(STEPS))
def test_every_step_builds_with_its_defaults_and_says_what_it_does(name):
    [step] = build([{"step": name}])
    assert step.name == name and step.about and step.calls >= 0


def test_the_calls_of_all_cases_go_as_one_batch_a_stage():
    model = Counting()
    run([*build([{"step": "ask", "n": 8}, {"step": "prune"}]), TWO_STAGES], TASKS, model, Decoding())
    assert [len(b) for b in model.batches] == [4, 8, 4]
    assert len(model.seen) == 16 and model.cost.calls == 16


def test_rows_stand_in_the_order_of_the_cases():
    model = Counting()
    run(build([{"step": "ask"}]), TASKS, model, Decoding())
    assert [by_task(m) for m, _ in model.batches[0]] == [case for case, _ in TASKS]


def test_each_case_gets_the_replies_to_its_own_calls():
    states = run([TWO_STAGES], TASKS, ToyModel(lambda m: m[-1]["content"].upper()), Decoding())
    for (case, task), state in zip(TASKS, states, strict=True):
        first, second = (f"{task} {i}".upper() for i in (1, 2))
        assert (state.case, state.task) == (case, task)
        assert state.notes == (f"{first} / {second} / {' '.join(f'{task} 3'.upper().split()[:2])}",)


def test_a_call_changes_the_decoding_for_itself_alone():
    model = Counting()
    run([TWO_STAGES], TASKS, model, Decoding(temp=0.3, max_tokens=50))
    told = [{(d.temp, d.max_tokens) for _, d in batch} for batch in model.batches]
    assert told == [{(0.3, 50)}, {(0.7, 2)}]


def test_a_bad_reply_fails_its_own_case_only():
    model = Counting(lambda m: "I cannot do that." if "kite" in m[-1]["content"] else quoting(m))
    states = run(build([{"step": "ask", "n": 8}, {"step": "prune"}, {"step": "ask"}]), TASKS, model, Decoding())
    assert [s.case for s in states] == ["boat", "kite", "roof", "bees"]
    assert isinstance(states[1].failed, NoAnswer) and states[1].failed.reason.startswith("ask: the reply is no JSON")
    assert states[1].draft is None and [c["text"] for c in states[1].calls] == ["I cannot do that."]
    assert all(s.failed is None and len(s.draft.questions) == 7 for i, s in enumerate(states) if i != 1)
    assert [len(b) for b in model.batches] == [4, 3]  # a failed case asks for nothing more


def test_a_reply_that_hits_the_token_limit_says_so():
    [state] = run(build([{"step": "ask", "tokens": 5}]), TASKS[:1], ToyModel(), Decoding())
    assert "cut off after 5 tokens" in state.failed.reason


WORDING = "Ask this person what nobody would think of."


def test_a_call_is_sent_in_the_wording_that_its_step_names():
    model = ToyModel()
    run(build([{"step": "ask", "wording": WORDING}]), TASKS[:1], model, Decoding())
    [plain] = calls([{"step": "ask"}])
    assert model.seen[0][0]["content"] == plain[0]["content"].replace(prompt.ASK, WORDING) != plain[0]["content"]
    assert model.seen[0][0]["content"].endswith(prompt.AS_JSON)


def calls(pipeline):
    from lib.agent.dry_run import calls as made

    return made(build(pipeline))


def test_a_wording_by_name_changes_that_call_and_no_other():
    model = ToyModel()
    run(build([{"step": "ask"}, {"step": "revise", "wording": {"revise": WORDING}}]), TASKS[:1], model, Decoding())
    assert WORDING not in model.seen[0][0]["content"] and WORDING in model.seen[1][0]["content"]


@pytest.mark.parametrize(
    "wording, said",
    [
        (7, "expected text"),
        ({"ask": 7}, "expected text"),
        ({"sing": "a b c"}, "wording for 'sing', expected one of ask"),
        ("Why?", "expected 3 words or more"),
        ("so " * 600, "1500 letters at most"),
    ],
)
def test_a_wording_that_is_none_is_refused(wording, said):
    with pytest.raises(BadPipeline, match="step 1") as caught:
        build([{"step": "ask", "wording": wording}])
    assert said in str(caught.value)


def test_a_wording_is_read_by_the_leak_guard_as_every_free_text():
    assert build([{"step": "ask", "wording": {"ask": WORDING}}])[0].texts == (WORDING,)
    assert build([{"step": "ask", "wording": WORDING}])[0].args["wording"] == WORDING  # part of the setup


def test_a_second_bad_reply_keeps_the_trace_of_the_first_step():
    replies = iter([quoting([{"content": "Task: buy a boat\nQuestions: 8"}]), "no"])
    [state] = run(build([{"step": "ask"}, {"step": "ask"}]), TASKS[:1], ToyModel(lambda m: next(replies)), Decoding())
    assert state.failed and [c["text"][:1] for c in state.calls] == ["{", "n"]


def test_the_seed_of_a_row_does_not_depend_on_the_other_rows():
    pipeline = [*build([{"step": "ask"}]), TWO_STAGES]
    whole, few = Counting(), Counting()
    run(pipeline, TASKS, whole, Decoding(temp=0.8, seed=3))
    run(pipeline, [TASKS[2], TASKS[0]], few, Decoding(temp=0.8, seed=3))
    all_seeds, some = seeds(whole, by_task), seeds(few, by_task)
    assert some == {case: all_seeds[case] for case in ("boat", "roof")}
    assert all_seeds["boat"] == [row_seed(3, "boat", i) for i in range(4)]


def test_a_failing_neighbour_changes_no_seed():
    pipeline = [*build([{"step": "ask"}]), TWO_STAGES]
    calm, broken = Counting(), Counting(lambda m: "no" if "kite" in m[-1]["content"] else quoting(m))
    run(pipeline, TASKS, calm, Decoding(temp=0.8))
    run(pipeline, TASKS, broken, Decoding(temp=0.8))
    a, b = seeds(calm, by_task), seeds(broken, by_task)
    assert {k: v for k, v in a.items() if k != "kite"} == {k: v for k, v in b.items() if k != "kite"}


def test_calls_cases_and_seeds_all_give_other_row_seeds():
    made = {row_seed(s, c, n) for s in range(3) for c in ("a", "b", "a/1") for n in range(12)}
    assert len(made) == 108 and all(0 <= s < 2**32 for s in made)


def test_the_trace_holds_every_call_in_order():
    model = Counting()
    states = run([*build([{"step": "ask"}]), TWO_STAGES], TASKS, model, Decoding())
    for state in states:
        mine = [m for batch in model.batches for m, _ in batch if by_task(m) == state.case]
        assert [c["messages"] for c in state.calls] == mine
        assert [c["step"] for c in state.calls] == ["ask", "two", "two", "two"]
        assert [c["finish_reason"] for c in state.calls] == ["stop", "stop", "stop", "length"]
        assert all(len(c["tokens"]) == 2 and c["text"] for c in state.calls)
    json.dumps([s.calls for s in states])  # plain data: it goes into cases.jsonl
    assert sum(len(s.calls) for s in states) == model.cost.calls


def test_no_cases_need_no_model():
    model = Counting()
    assert run(build([{"step": "ask"}]), [], model, Decoding()) == [] and model.batches == []


def test_a_state_is_never_changed_in_place():
    state = State("boat", "buy a boat")
    state.note("x"), state.fail("y")
    assert state == State("boat", "buy a boat")


class Able(Counting):
    """A toy that scores a reply by its length and wears adapters by name."""

    def __init__(self, **can):
        super().__init__()
        self.capabilities = replace(Capabilities(logprobs=True, adapters=True, grammar=True), **can)
        self.scored, self.worn = [], []

    def score(self, prompts, replies):
        self.scored.append(len(replies))
        return [Completion(r, 1, 0, "scored", -float(len(r))) for r in replies]

    def with_adapter(self, adapter):
        self.worn.append(adapter)
        return self


def score_and_borrow(state):
    """Write, then score two replies, then ask the base and an adapter."""
    asked = [{"role": "user", "content": state.task}]
    replies = yield [Call(asked, reply="no"), Call(asked, reply="never"), Call(asked), Call(asked, adapter="")]
    [other] = yield [Call(asked, adapter="runs/x/adapter")]
    return state.note(f"{[r.logprob for r in replies]} {other.finish_reason}")


BORROW = Step("borrow", "toy", {}, score_and_borrow, 5, "", ())


def test_replies_to_score_and_other_adapters_go_where_they_belong_as_one_batch_each():
    model = Able()
    states = run([BORROW], TASKS, model, Decoding())
    assert [s.notes for s in states] == [("[-2.0, -5.0, None, None] stop",)] * 4
    assert model.scored == [8] and [len(b) for b in model.batches] == [4, 4, 4]
    assert model.worn == ["", "runs/x/adapter"]
    assert [c.get("adapter") for c in states[0].calls] == [None, None, None, "", "runs/x/adapter"]
    assert [c.get("logprob") for c in states[0].calls] == [-2.0, -5.0, None, None, None]


@pytest.mark.parametrize(
    ("can", "decoding"),
    [({"logprobs": False}, {}), ({"adapters": False}, {}), ({"grammar": False}, {"grammar": "{}"})],
    ids=lambda v: "-".join(v) if isinstance(v, dict) else None,
)
def test_a_call_that_the_model_cannot_answer_is_refused_by_name(can, decoding):
    model = Able(**can)
    with pytest.raises(BadPipeline, match=f"step borrow needs {next(iter(can))}, which model 'toy' does not offer"):
        run([BORROW], TASKS, model, Decoding(**decoding))
    assert model.batches == [] and model.scored == []


def test_a_need_is_refused_before_anything_runs():
    needy = replace(BORROW, needs=frozenset({"logprobs", "temperature"}))
    require([needy], "toy", Capabilities(logprobs=True))
    with pytest.raises(BadPipeline, match="step 2 .borrow. needs logprobs, which model 'toy' does not offer"):
        require([BORROW, needy], "toy", Capabilities())


def test_a_reply_with_half_of_a_surrogate_pair_can_be_written_as_utf8():
    [state] = run(build([{"step": "ask"}]), TASKS[:1], ToyModel(lambda _: "no \ud83d\ude00 \ud800"), Decoding())
    assert state.calls[0]["text"] == "no \U0001f600 \ufffd"


def test_calls_of_different_steps_share_a_batch():
    def patient(state):
        for i in range(len(state.task) % 3 + 1):  # 1, 2, 2 and 2 rounds
            yield [Call([{"role": "user", "content": f"{state.task} {i}"}])]
        return state

    model = Counting()
    steps = [Step("patient", "toy", {}, patient, 2, "", ()), TWO_STAGES]
    rounds = [len(task) % 3 + 1 for _, task in TASKS]
    run(steps, TASKS, model, Decoding())
    assert len(model.batches) == max(rounds) + 2 and sum(map(len, model.batches)) == sum(rounds) + 3 * 4
    assert len(set(rounds)) > 1


def test_each_step_is_charged_for_its_own_calls():
    stages = {}
    steps = [*build([{"step": "ask", "n": 8}, {"step": "prune"}]), TWO_STAGES]
    model = Counting()
    states = run(steps, TASKS, model, Decoding(), stages)
    assert list(stages) == ["1 ask", "2 prune", "3 two"]
    assert [c.calls for c in stages.values()] == [4, 0, 12] and stages["2 prune"] == Cost()
    assert sum(stages.values(), Cost()).generation_tokens == model.cost.generation_tokens
    run(steps, TASKS, model, Decoding(), stages)
    assert [c.calls for c in stages.values()] == [8, 0, 24] and all(s.failed is None for s in states)


@pytest.mark.parametrize("reason", ["refusal", "error"])
def test_a_reply_that_is_none_ends_its_case_with_the_reason(reason):
    class Refusing(ToyModel):
        def generate(self, prompts, decodings):
            done = super().generate(prompts, decodings)
            return [replace(c, text="not this one", finish_reason=reason) if i == 1 else c for i, c in enumerate(done)]

    states = run(build([{"step": "ask"}]), TASKS, Refusing(), Decoding())
    assert [s.failed is None for s in states] == [True, False, True, True]
    assert states[1].failed == NoAnswer(f"ask: {reason} of the model: not this one") and len(states[1].calls) == 1
