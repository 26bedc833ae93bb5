"""What a loop does next, as a function of sealed runs and events: no kernel, no model."""

import json

import pytest

from lib.claude import store
from lib.claude.store import Store
from lib.lab.experiment import Experiment
from lib.loop import next_run
from lib.loop.events import PROPOSAL, Events, origin
from lib.loop.next_run import Rules, next_action
from lib.loop.steering import Limits, Steering
from lib.loop.validate import Base
from lib.loop.view import View
from lib.runs.ledger import Ledger
from tests.loop.test_lessons import mixed, up
from tests.loop.test_proposal import GOOD

BASE = Base(model="toy")
ERA = Experiment(**BASE.baseline).fingerprint


class World:
    """A folder of runs with events, and runs sealed as a loop would seal them."""

    def __init__(self, lab):
        self.lab, self.rules = lab, Rules()

    @property
    def view(self):
        return View(self.lab.read(), Events(self.lab.folder), Steering(), BASE, Limits(), ERA)

    def due(self, **rules):
        action = next_action(self.view, Rules(**rules))
        return action and action.purpose

    def seal(self, qualities=None, purpose="decide", event=None, **changes):
        run = self.lab.seal(qualities, fingerprint=ERA, **changes)
        (self.lab.folder / run / PROPOSAL).write_text(json.dumps({"event": event, "purpose": purpose, "steered": None}))
        origin.cache_clear()
        return run

    def accept(self, **change):
        proposal = GOOD | change
        parameters = self.view.base.parameters(_proposal(proposal))
        event = Events(self.lab.folder).append(
            "accepted", proposal=proposal, parameters=parameters, runs=len(self.lab.read().records), fingerprint=ERA
        )
        return event["n"]


def _proposal(plain):
    from lib.loop.proposal import Proposal

    return Proposal.read(plain)


@pytest.fixture
def world(lab):
    return World(lab)


@pytest.fixture
def begun(world):
    world.seal(slug="baseline", lever="baseline", purpose="baseline")
    return world


def test_an_empty_folder_needs_a_baseline(world):
    assert world.due() == "baseline"


def test_with_a_champion_and_nothing_open_a_proposal_is_due(begun):
    assert begun.due() is None


def test_a_proposal_is_screened_against_the_champions_own_run_on_the_dev_gate(begun):
    n = begun.accept()
    assert begun.due() == "reference"
    begun.seal(gate="dev", slug="reference", lever="baseline", purpose="reference")
    assert begun.due() == "screen"
    begun.seal(gate="dev", slug="screen", status="indecisive", event=n, purpose="screen")
    assert begun.due() == "decide"
    begun.seal(status="discarded", event=n)
    assert begun.due() is None


def test_without_screening_the_full_gate_is_next(begun):
    begun.accept()
    assert begun.due(screen=False) == "decide"


@pytest.mark.parametrize("status", ["discarded", "crashed", "invalid"])
def test_what_the_screen_rejects_is_not_run_on_the_full_gate(begun, status):
    n = begun.accept()
    begun.seal(gate="dev", slug="reference", lever="baseline", purpose="reference")
    begun.seal(gate="dev", status=status, event=n, purpose="screen")
    assert begun.due() is None


@pytest.mark.parametrize("status", ["kept", "indecisive", "reference"])
def test_the_screen_never_keeps(begun, status):
    n = begun.accept()
    begun.seal(gate="dev", slug="reference", lever="baseline", purpose="reference")
    begun.seal(up(begun.lab.full, 0.3), gate="dev", status=status, event=n, purpose="screen")
    assert begun.due() == "decide" and begun.view.champion.slug == "baseline"


def test_a_new_champion_is_looked_at_after_the_first_one(begun):
    better = begun.seal(up(begun.lab.full, 0.3), slug="better", event=begun.accept())
    action = next_action(begun.view, Rules())
    assert (action.purpose, action.parameters["of"], action.template) == ("confirm", "0001-baseline", "12_confirm")
    begun.seal(kind="confirm", gate="confirm", of="0001-baseline", slug="look", purpose="confirm")
    assert next_action(begun.view, Rules()).parameters["of"] == better
    begun.seal(kind="confirm", gate="confirm", of=better, slug="look2", purpose="confirm")
    assert begun.due() is None and begun.due(confirm=False) is None


def test_a_greedy_offline_run_is_not_repeated(begun):
    begun.seal(mixed(begun.lab.full, 0.1), status="indecisive", event=begun.accept())
    assert begun.due(screen=False) is None


def test_an_indecisive_run_that_samples_is_repeated_up_to_the_cap(begun):
    n = begun.accept(decoding={"temp": 0.7})
    first = begun.seal(mixed(begun.lab.full, 0.1), status="indecisive", event=n, decoding={"temp": 0.7})
    action = next_action(begun.view, Rules(screen=False))
    assert (action.purpose, action.parameters["of"], action.parameters["seed"]) == ("repeat", first, 100)
    for _ in range(2):
        assert begun.due(screen=False) == "repeat"
        begun.seal(mixed(begun.lab.full, 0.1), status="indecisive", event=n, decoding={"temp": 0.7}, of=first, purpose="repeat")  # fmt: skip
    assert begun.due(screen=False) is None


def test_a_repeat_with_claude_asks_the_judge_afresh():
    told = next_run._repeat({"judge": "claude", "judging": {"dollars": 1}, "seed": 0}, "0007-x", 2)
    assert told["judging"] == {"dollars": 1, "replicate": 2} and told["of"] == "0007-x"


def test_a_repeat_is_decided_on_the_mean_of_all_looks_with_a_stricter_p(begun):
    low = {k: v + 0.06 * (i % 2) for i, (k, v) in enumerate(begun.lab.full.items())}
    high = {k: v + 0.06 * (1 - i % 2) for i, (k, v) in enumerate(begun.lab.full.items())}
    first = begun.seal(low, status="indecisive", slug="first", event=1, decoding={"temp": 0.7})
    again = begun.seal(high, slug="again", of=first, decoding={"temp": 0.7}, purpose="repeat", event=1)
    record = begun.lab.read().get(again)
    assert record.status == "kept" and record.decision.delta == pytest.approx(0.03)
    assert "below 0.025" in record.decision.reason


def test_a_run_without_judgments_is_tried_again_three_times_at_most(begun):
    n = begun.accept()
    gone = {k: None for k in begun.lab.full}
    for _ in range(3):
        assert begun.due(screen=False) == "decide"
        begun.seal(gone, status="incomplete", event=n)
    assert begun.due(screen=False) is None


def test_a_crash_by_a_usage_limit_is_tried_again_and_a_defect_is_not(begun):
    n = begun.accept()
    begun.seal({}, status="crashed", event=n, error="NotAnswered: RateLimitError 429: slow down")
    assert begun.due(screen=False) == "decide"
    begun.seal({}, status="crashed", event=n, error="ValueError: 5")
    assert begun.due(screen=False) is None


def test_a_proposal_for_another_ruler_is_not_open_any_more(begun):
    Events(begun.lab.folder).append("accepted", fingerprint="e" * 64, runs=0, parameters={}, proposal={})
    assert begun.due() is None


def test_patience_counts_attempts_since_the_last_keep_and_asks_once_to_leave(begun):
    better = begun.seal(up(begun.lab.full, 0.3), slug="better", lever="schema")
    assert next_run.banned_lever(begun.lab.read(), ERA, Rules(patience=2)) == ""
    for number in range(1, 5):
        begun.seal(mixed(up(begun.lab.full, 0.3), 0.1), status=None, slug=f"r{number}", hypothesis=str(number))
        ledger = begun.lab.read()
        assert ledger.champion(ERA).id == better and next_run.runs_since_keep(ledger, ERA) == number
        assert next_run.banned_lever(ledger, ERA, Rules(patience=2)) == ("schema" if number % 2 == 0 else "")
        # Three made at a time can step over every fourth: it is asked of the next ones.
        assert next_run.banned_lever(ledger, ERA, Rules(patience=4, at_once=3)) == ("schema" if number == 4 else "")


def test_the_cost_is_that_of_runs_and_proposer(lab):
    two = Ledger(
        lab.folder, [lab.record_of({}, cost={"judge_dollars": 0.5, "dollars": 0.25}), lab.record_of({}, cost={})]
    )
    assert next_run.dollars(two, [{"dollars": 0.125}, {}]) == 0.875


def test_what_the_store_says_was_paid_counts_where_it_is_more_than_the_records_say(lab):
    run = Ledger(lab.folder, [lab.record_of({}, cost={"judge_dollars": 0.5, "dollars": 0.25})])
    paid = Store(lab.folder / store.NAME)
    for number, (sum_, counted) in enumerate([(0.375, 0.75), (0.375, 1.0), (0.25, 1.25)]):
        paid.append({"type": store.REPLY, "key": str(number), "dollars": sum_})
        assert next_run.dollars(run, []) == counted
    paid.append({"type": store.ENDED, "batch": "b"})
    assert next_run.dollars(run, []) == 1.25


def test_what_a_candidate_cost_counts_also_when_its_run_crashed(lab):
    crashed = Ledger(lab.folder, [lab.record_of({}, status="crashed", cost={})])
    store.book(lab.folder / store.NAME, "claude-haiku-4-5", 0.5)
    assert next_run.dollars(crashed, []) == 0.5
    told = Ledger(lab.folder, [lab.record_of({}, cost={"dollars": 0.5})])
    assert next_run.dollars(told, []) == 0.5, "never twice"


@pytest.mark.parametrize("left, cap", [(None, None), (1.0, 1.0), (9.0, 5.0), (0.0012349, 0.001234), (1e-9, 1e-6)])
def test_the_judge_of_a_run_gets_what_is_left_of_the_budget(left, cap):
    told = next_run.capped({"judge": "claude", "judging": {}}, left)["judging"]
    assert told == ({} if cap is None else {"dollars": cap})
    assert next_run.capped({"judge": "offline", "judging": {}}, 1.0)["judging"] == {}


# --- several proposals made from one state of the ledger

EIGHT, NINE = ({"pipeline": [{"step": "ask", "n": n}, {"step": "prune", "by": "last"}]} for n in (8, 9))


def test_proposals_made_at_a_time_are_screened_together_and_decided_in_their_order(begun):
    first, second = begun.accept(**EIGHT), begun.accept(**NINE)
    plan = lambda: [(a.purpose, a.event and a.event["n"]) for a in next_run.due(begun.view, Rules(at_once=2))]  # noqa: E731
    assert plan() == [("reference", None), ("screen", first), ("screen", second)]
    begun.seal(purpose="reference", gate="dev", slug="reference", lever="baseline")
    assert plan() == [("screen", first), ("screen", second)]
    begun.seal(event=first, purpose="screen", gate="dev", slug="screen-a", status="indecisive")
    assert plan() == [("screen", second), ("decide", first)]
    begun.seal(event=second, purpose="screen", gate="dev", slug="screen-b", status="discarded")
    assert plan() == [("decide", first)]
    begun.seal(event=first, slug="a", status="discarded")
    assert plan() == []


def test_there_is_room_for_as_many_as_are_made_at_a_time_until_one_is_refused_or_a_run_is_sealed(begun):
    room = lambda: next_run.room(begun.view, Rules(at_once=2))  # noqa: E731
    assert not room()
    begun.accept(**EIGHT)
    assert room() and not next_run.room(begun.view, Rules())
    Events(begun.lab.folder).append("refused", rule="lever", reason="r", fingerprint=ERA)
    assert not room()
    begun.accept(**NINE)
    assert not room()
    begun.seal(purpose="reference", gate="dev", slug="reference", lever="baseline")
    begun.accept(pipeline=[{"step": "ask", "n": 10}, {"step": "prune", "by": "last"}])
    assert room() and len(begun.view.open) == 1
    begun.seal(slug="by-hand")
    assert not room()


def test_what_waits_for_its_run_is_shown_to_who_proposes_and_not_proposed_again(begun):
    from lib.loop.proposal import Refused
    from lib.loop.proposers.search import Search

    n = begun.accept(**EIGHT)
    assert begun.view.plain["open"][0]["pipeline"] == EIGHT["pipeline"]
    with pytest.raises(Refused, match=f"duplicate: event {n} asks for the same and waits for its run"):
        begun.view.validate(_proposal(GOOD | EIGHT))
    begun.seal(event=n, slug="a", **EIGHT, lever="over-generate and prune")
    offers = []
    for _ in range(3):
        offers.append(Search(1)(begun.view).value)
        begun.accept(**offers[-1])
    assert len({offer["lever"] for offer in offers}) == 3
