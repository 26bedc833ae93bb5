"""The proposer without a key: sensible candidates, seeded, led by results, obedient to bans and wishes."""

from collections import Counter
from dataclasses import replace

import pytest

from lib.agent import prompt
from lib.agent.dry_run import TASK, StandIn, fault
from lib.agent.pipeline import STEPS, BadPipeline, Call, Run, State, Work, run, step
from lib.agent.steps import build
from lib.agent.steps.asking import Count
from lib.lab.experiment import Experiment
from lib.loop.events import Events
from lib.loop.proposal import PROPOSABLE, Proposal
from lib.loop.proposers.search import Search, fresh, neighbours, variants, written
from lib.loop.steering import Limits, Steering
from lib.loop.validate import Base, classes
from lib.loop.view import View
from lib.models.model import Decoding

BASE = Base(model="toy")
ERA = Experiment(**BASE.baseline).fingerprint


def view(lab, leave="", **steering):
    bans = frozenset(steering.pop("bans", ()))
    return View(lab.read(), Events(lab.folder), Steering(steering, bans), BASE, Limits(), ERA, leave)


def propose(lab, seed=0, **told):
    offer = Search(seed)(view(lab, **told))
    return None if offer.value is None else Proposal.read(offer.value)


@pytest.fixture
def begun(lab):
    lab.seal(slug="baseline", lever="baseline", fingerprint=ERA)
    return lab


def test_every_step_of_the_registry_is_walked(begun):
    steps = {row["step"] for c in neighbours(view(begun)) for row in c.pipeline}
    assert steps == set(STEPS)


def test_nearly_every_candidate_builds(begun):
    made = list(neighbours(view(begun)))
    good = fresh(view(begun))
    assert len(good) > 30 and all(build(c.pipeline) for c in good)
    assert {c.lever for c in made} >= {"prompting", "schema", "decoding", "retrieval", "over-generate and prune"}


def test_a_step_that_drops_questions_gets_more_than_seven(begun):
    for c in fresh(view(begun)):
        if {"step": "prune"} in c.pipeline:
            without = [row for row in c.pipeline if row != {"step": "prune"}]
            assert "instead of 7" in fault(build(without)), c.pipeline


def test_every_candidate_can_end_in_a_set_and_what_fills_the_pool_is_followed_by_a_choice(begun):
    some = fresh(view(begun))
    assert [c.pipeline for c in some if fault(build(c.pipeline))] == []
    told = [[row["step"] for row in c.pipeline] for c in some]
    filled = [names for names in told if "sample" in names]
    assert filled and all(
        any("pool" in STEPS[name].takes for name in names[names.index("sample") :]) for names in filled
    )
    assert ["ask", "sample", "tournament"] in told and ["brainstorm", "prune"] in told
    assert any(c.change.endswith(", and sample") for c in some)


def test_a_step_that_chooses_cannot_work_without_a_pool():
    chooses = {name for name, lever in STEPS.items() if "pool" in lever.takes}
    assert chooses == {name for name in STEPS if "no pool" in fault(build([{"step": "ask"}, {"step": name}]))}


def test_a_step_that_fills_the_pool_lets_a_choice_follow_and_keeps_the_draft():
    fills = {name for name, lever in STEPS.items() if lever.gives == ("pool",)}
    assert fills == {"sample", "donor"}
    assert [name for name in fills if fault(build([{"step": "ask"}, {"step": name}, {"step": "best"}]))] == []


@pytest.mark.parametrize("name", STEPS)
def test_what_a_step_takes_and_gives_is_what_it_reads_and_writes(name):
    lever, model = STEPS[name], StandIn()
    before = {"demos": [{"step": "demos"}], "draft": [{"step": "ask", "n": 9}], "pool": [{"step": "sample"}]}
    for part in lever.takes:
        without = [row for other, rows in before.items() if other != part for row in rows]
        [state] = run(build(without), [TASK], model, Decoding(max_tokens=9999))
        lacking = replace(state, **{part: None if part == "draft" else ()})
        with pytest.raises((AssertionError, IndexError, ValueError)):
            drain(build([{"step": name}])[0].run(lacking))
    [state] = run(build(sum(before.values(), [])), [TASK], model, Decoding(max_tokens=9999))
    [after] = run(build([*sum(before.values(), []), {"step": name}]), [TASK], model, Decoding(max_tokens=9999))
    for part in ("demos", "pool"):
        if getattr(after, part) != getattr(state, part):
            assert part in lever.gives
    assert after.draft == state.draft or "draft" in lever.gives


def drain(work):
    """Take a step as far as it gets without replies."""
    next(work)


def test_an_argument_is_varied_one_at_a_time():
    found = list(variants("demos"))
    assert {} in found and {"k": 3} in found and {"by": "fixed"} in found and all(len(v) < 2 for v in found)


def test_the_same_ledger_and_seed_give_the_same_proposal_and_another_seed_another(begun):
    assert propose(begun, 3) == propose(begun, 3)
    assert len({str(propose(begun, seed)) for seed in range(8)}) > 3


def test_what_it_proposes_passes_every_rule(begun):
    for seed in range(5):
        assert view(begun).validate(propose(begun, seed))


@pytest.mark.parametrize(
    "champion",
    [
        {},
        {"decoding": {"temp": 0.7}},
        {"pipeline": [{"step": "demos", "k": 3}, {"step": "ask", "n": 9, "schema": "lines"}, {"step": "prune"}]},
        {"pipeline": [{"step": "brainstorm"}, {"step": "critique"}, {"step": "prune"}]},
    ],
)
def test_no_candidate_names_a_class_that_it_has_nothing_to_do_with(lab, champion):
    lab.seal(slug="baseline", lever="baseline", fingerprint=ERA, **champion)
    some = fresh(view(lab))
    assert len(some) > 30
    for c in some:
        assert c.lever in classes(c.pipeline, c.decoding, c.adapter), c


def test_untried_classes_come_first(begun):
    seen = []
    for n in range(5):
        proposal = propose(begun)
        seen.append(proposal.lever)
        begun.seal(
            {k: v - 0.1 for k, v in begun.full.items()}, slug=f"r{n}", lever=proposal.lever, fingerprint=ERA,
            pipeline=proposal.pipeline, decoding=proposal.decoding, hypothesis=str(n), predicted=proposal.predicted,
        )  # fmt: skip
    assert Counter(seen).most_common(1)[0][1] == 1


def test_it_learns_from_paired_results(begun):
    """A class that gained is preferred to those that lost, once each was tried."""
    for lever in PROPOSABLE:
        by = 0.02 if lever == "retrieval" else -0.1
        for repeat in range(3):
            qualities = {k: v + by + 0.02 * (i % 3 - 1) for i, (k, v) in enumerate(begun.full.items())}
            begun.seal(qualities, slug=f"x-{lever[:9]}{repeat}", lever=lever, fingerprint=ERA, gate="full",
                       hypothesis=f"{lever}{repeat}", pipeline=[{"step": "ask", "tokens": 500 + len(lever) + repeat}])  # fmt: skip
    assert {propose(begun, seed).lever for seed in range(4)} == {"retrieval"}


def test_bans_and_patience_are_obeyed(begun):
    for seed in range(4):
        assert propose(begun, seed, bans=["retrieval", "decoding", "schema"]).lever not in (
            "retrieval",
            "decoding",
            "schema",
        )
        assert propose(begun, seed, leave="retrieval").lever != "retrieval"


def test_a_wish_that_names_a_class_or_step_is_followed(begun):
    wished = {propose(begun, seed, **{"next.md": "please try demos now"}).pipeline[0]["step"] for seed in range(4)}
    assert wished == {"demos"}


def test_when_everything_is_banned_there_is_nothing_left(begun):
    assert propose(begun, bans=sorted(STEPS)) is None


def test_the_prediction_comes_from_what_the_class_brought(begun):
    for n in range(4):
        begun.seal(slug=f"r{n}", lever="retrieval", fingerprint=ERA, hypothesis=str(n),
                   pipeline=[{"step": "ask", "tokens": 50 + n}], qualities={k: v + 0.1 for k, v in begun.full.items()})  # fmt: skip
    proposal = propose(begun, **{"next.md": "retrieval"})
    assert proposal.lever == "retrieval" and 0.01 < proposal.predicted < 0.1


def test_a_class_that_only_lost_is_predicted_to_lose(begun):
    for n in range(2):
        begun.seal(slug=f"r{n}", lever="retrieval", fingerprint=ERA, hypothesis=str(n),
                   pipeline=[{"step": "ask", "tokens": 50 + n}], qualities={k: v - 0.1 for k, v in begun.full.items()})  # fmt: skip
    proposal = propose(begun, **{"next.md": "retrieval"})
    assert proposal.lever == "retrieval" and -0.1 < proposal.predicted < 0
    assert f"Expected {proposal.predicted:+.3f}, because 2 runs" in proposal.hypothesis


@pytest.fixture
def new_lever():
    """A lever as somebody would add it: one function with its declaration."""

    @step("self-critique", calls=lambda **_: 1, takes=("draft",))
    def shorten(words: Count = 12) -> Run:
        """Ask for every question of the draft again in few words."""

        def run(state: State) -> Work:
            [reply] = yield [Call(prompt.revise(state.task, state.written.questions))]
            return replace(state, draft=prompt.parse_set(reply.text)).note(f"shortened to {words} words")

        return run

    yield "shorten"
    del STEPS["shorten"]


def test_a_new_lever_is_one_function_and_everybody_knows_it(begun, new_lever):
    [row] = [row for row in view(begun).plain["steps"] if row["step"] == new_lever]
    assert row["about"].startswith("Ask for every question") and row["arguments"]["words"]["default"] == 12
    assert (row["takes"], row["gives"]) == (["draft"], ["draft"])
    placed = [c for c in fresh(view(begun)) if c.pipeline[-1]["step"] == new_lever]
    assert {c.pipeline[-1].get("words") for c in placed} == {None, 11, 13, 14}
    assert all(c.lever == "self-critique" and c.pipeline[0]["step"] == "ask" for c in placed)
    assert fault(build([{"step": new_lever}])) == "shorten: no draft to work on; put ask before it"
    assert view(begun).validate(written(placed[0], view(begun)))["pipeline"] == placed[0].pipeline
    with pytest.raises(BadPipeline, match="words is 99: expected 1 to 20"):
        build([{"step": "ask"}, {"step": new_lever, "words": 99}])
