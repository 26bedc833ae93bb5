"""Whole sets: drawing several, choosing one, putting one together; donors and transplants."""

import itertools

import pytest

from lib.agent import prompt
from lib.agent.dry_run import fault
from lib.agent.pipeline import BadPipeline, State, require, run
from lib.agent.prompt import Draft
from lib.agent.steps import build
from lib.models.model import Capabilities, Completion, Decoding

TASK = ("boat", "buy a sailing boat")
THINGS = ("hull length", "mooring place", "winter storage", "sailing licence", "engine power", "crew members", "fees")
GOOD = Draft("Buy a sailing boat", tuple(f"Which {t} do you have in mind?" for t in THINGS))
SHORT = Draft("Buy a sailing boat", GOOD.questions[:3])
SAME = Draft("Buy", ("Which boat do you want?", *(f"Which boat{'.' * i} do you want{' ' * i}?" for i in range(1, 7))))
OTHER = Draft(
    "Buy another boat",
    (
        "How much does rust change the price?",
        "Who else takes the helm on longer trips?",
        "Where does it stand in winter storms?",
        "When must the first summer cruise begin?",
        "Why did the last owner sell?",
        "Does your lake allow motors?",
        "What would your neighbours say?",
    ),
)


def with_pool(step, *pool, replies=()):
    """One step on a state with this pool, its calls answered by these texts or completions."""
    [one] = build([step])
    work = one.run(State("boat", TASK[1], draft=pool[0] if pool else None, pool=tuple(pool)))
    asked, said = [], iter(replies)
    try:
        calls = next(work)
        while True:
            asked.append(calls)
            sent = [r if isinstance(r := next(said), Completion) else Completion(r, 1, 1, "stop") for _ in calls]
            calls = work.send(sent)
    except StopIteration as stop:
        return stop.value, asked


def test_sample_adds_a_set_at_each_temperature_to_the_own_draft(able):
    seen, model = [], able()
    plain = model.generate
    model.generate = lambda prompts, decodings: (seen.extend(decodings), plain(prompts, decodings))[1]
    [state] = run(
        build([{"step": "ask"}, {"step": "sample", "temps": [0.3, 1]}]), [TASK], model, Decoding(max_tokens=999)
    )
    assert [d.temp for d in seen] == [0, 0.3, 1] and len({d.seed for d in seen}) == 3
    assert len(state.pool) == 3 and state.draft == state.pool[0]


def test_sample_goes_on_without_what_it_cannot_read(able):
    said = itertools.cycle(["no", prompt.write_set(GOOD)])
    [state] = run(build([{"step": "sample", "temps": [1, 1, 1, 1]}]), [TASK], able(lambda m: next(said)), Decoding())
    assert len(state.pool) == 2 and state.notes[0].startswith("2 of 4 sets left out: ")
    [state] = run(build([{"step": "sample"}]), [TASK], able(lambda m: "no"), Decoding())
    assert state.failed.reason.startswith("sample: no set could be read")


@pytest.mark.parametrize("by", ["composite", "dispersion"])
def test_best_never_chooses_a_set_that_would_fail_the_spec_gate(by):
    state, _ = with_pool({"step": "best", "by": by}, SHORT, GOOD)
    assert state.draft == GOOD


def test_best_by_composite_and_dispersion_prefer_what_differs():
    flat = Draft(GOOD.title, tuple(f"Which hull length number {i} do you have in mind?" for i in range(7)))
    assert with_pool({"step": "best"}, flat, OTHER)[0].draft == OTHER
    state, _ = with_pool({"step": "best", "by": "dispersion"}, flat, OTHER)
    assert state.draft == OTHER and state.notes[0].startswith("set 2 by dispersion: ")


def test_best_by_likelihood_scores_each_set_as_a_reply_to_the_same_call():
    told = [Completion("", 1, 1, "stop", p) for p in (-2.0, -0.5, -1.0)]
    state, [calls] = with_pool({"step": "best", "by": "logprob"}, GOOD, OTHER, GOOD, replies=told)
    assert state.draft == OTHER and [c.reply for c in calls] == [prompt.write_set(d) for d in (GOOD, OTHER, GOOD)]
    assert len({str(c.messages) for c in calls}) == 1


def test_best_by_likelihood_needs_log_probabilities():
    steps = build([{"step": "sample"}, {"step": "best", "by": "logprob"}])
    with pytest.raises(BadPipeline, match=r"step 2 \(best\) needs logprobs, which model 'cloud' does not offer"):
        require(steps, "cloud", Capabilities())
    require(build([{"step": "sample"}, {"step": "best"}]), "cloud", Capabilities())


A, B, TIE = '{"better": "A"}', '{"better": "B"}', '{"better": "tie"}'


@pytest.mark.parametrize(
    "replies, winner",
    [((B, A), OTHER), ((A, B), GOOD), ((A, A), GOOD), ((B, B), GOOD), ((TIE, A), GOOD), (("no", A), GOOD)],
)
def test_a_challenger_wins_only_in_both_orders(replies, winner):
    state, [calls] = with_pool({"step": "tournament"}, GOOD, OTHER, replies=replies)
    assert state.draft == winner
    first, second = (c.messages[-1]["content"] for c in calls)
    assert first.index(GOOD.questions[0]) < first.index(OTHER.questions[0])
    assert second.index(GOOD.questions[0]) > second.index(OTHER.questions[0])


def test_a_tournament_of_five_has_four_matches_in_three_rounds():
    state, rounds = with_pool({"step": "tournament", "most": 5}, *[GOOD, OTHER] * 3, replies=[A, B] * 4)
    assert [len(r) for r in rounds] == [4, 2, 2] and state.draft == GOOD
    assert state.notes == ("won 4 matches; 0 of 8 replies unread",)


def test_consensus_keeps_what_most_sets_ask_and_one_set_has_one_vote():
    one = Draft("Boat", ("Where will you moor?", "Who steers in storms?", "Which colour is it?"))
    two = Draft("Boat", ("Who steers in a storm?", "Why this year?", "Why this year, then?"))
    state, _ = with_pool({"step": "consensus", "to": 2}, one, two)
    assert state.draft.questions == ("Where will you moor?", "Who steers in storms?")
    assert state.notes == ("votes of 2 sets: 1, 2",)


def test_merge_takes_first_questions_first_and_no_repeat():
    state, _ = with_pool({"step": "merge", "to": 3}, GOOD, GOOD, OTHER)
    assert state.draft.questions == (GOOD.questions[0], OTHER.questions[0], GOOD.questions[1])


@pytest.mark.parametrize("step", ["best", "tournament", "consensus", "merge", "transplant"])
def test_without_a_pool_a_step_says_what_to_do(step):
    assert fault(build([{"step": "ask"}, {"step": step}])).startswith(f"{step}: no pool to work on; put ")


def test_a_donor_answers_with_its_own_adapter_and_a_bad_one_is_left_out():
    bad = Completion("no", 1, 1, "stop")
    state, [[call]] = with_pool({"step": "donor", "adapter": "runs/x/adapter"}, GOOD, replies=[bad])
    assert call.adapter == "runs/x/adapter" and state.pool == (GOOD,) and state.notes[0].startswith("donor left out")
    state, [[call]] = with_pool({"step": "donor"}, GOOD, replies=[prompt.write_set(OTHER)])
    assert call.adapter == "" and state.pool == (GOOD, OTHER) and state.draft == GOOD
    with pytest.raises(BadPipeline, match="needs adapters"):
        require(build([{"step": "donor"}]), "apple", Capabilities())


def test_a_transplant_replaces_a_repeat_by_what_only_the_donor_asks():
    mine = Draft("Boat", ("Where will you moor?", "Where will you moor it?", "Who steers?"))
    donor = Draft("Boat", ("Who steers it?", "How deep is the lake?", "Which licence counts there?"))
    state, _ = with_pool({"step": "transplant", "most": 1}, mine, donor)
    assert state.draft.questions == ("Where will you moor?", "How deep is the lake?", "Who steers?")
    assert state.notes == ("transplanted: Where will you moor it? > How deep is the lake?",)


def test_a_transplant_never_takes_out_what_it_put_in_and_keeps_the_count():
    state, _ = with_pool({"step": "transplant", "most": 20}, GOOD, OTHER)
    assert len(state.draft.questions) == 7 and set(state.draft.questions) <= {*GOOD.questions, *OTHER.questions}
    assert with_pool({"step": "transplant"}, GOOD, GOOD)[0].draft == GOOD
