"""Rating without a browser: a toy ruler, sealed toy runs, keys in and lines out; then the widgets as plain objects."""

import json

import pytest

from lib.desk.rate import MARKS, SIDES, Panel, Session
from lib.files import NOTEBOOKS, canonical
from lib.log import Log
from lib.measure.checks.agreement import ENOUGH
from lib.measure.judge import DIMENSIONS, Judgment
from lib.measure.ruler import Ruler
from lib.measure.score import case_quality, score
from lib.runs.record import CaseRow
from lib.runs.seal import seal
from lib.runs.verify import RATED, RATINGS, verify
from tests.conftest import TASKS
from tests.lab.conftest import record_of

IDENTITY = {"judge": {"kind": "toy"}}
LOST = Judgment(dict.fromkeys(DIMENSIONS, 2.0), "loss")


class Toys:
    """A toy ruler and a folder of runs on it."""

    def __init__(self, ruler, runs):
        self.ruler, self.runs, self.now = ruler, runs, 0.0

    def seal(self, slug, gate="full", words="fit", answered=None, **changes):
        """A run that answers every case of a gate in words of its own; the toy judge gives it a loss each."""
        ruler = Ruler.load(self.ruler)
        cases = []
        for case in ruler.gate(gate):
            valid = answered is None or case.id in answered
            answer = {
                "title": f"{slug} {case.id}",
                "questions": [f"What <{words} {i}> of {case.task}?" for i in range(7)],
            }
            cases.append({
                "case": case.id, "task": case.task, "calls": [], "notes": [], "answer": answer if valid else None,
                "no_answer": None if valid else "cut off", "unscored": None,
                "judgment": dict(LOST.__dict__) if valid else None, "quality": case_quality(LOST) if valid else 0.0,
            })  # fmt: skip
        outcomes = [CaseRow.read(row).outcome for row in cases]
        plain = {"gate": gate, "identity": IDENTITY, "fingerprint": ruler.fingerprint(IDENTITY["judge"]),
                 "status": "discarded", "decision": {"reason": "toy"}, "scores": score(outcomes).as_dict()}  # fmt: skip
        record = record_of(None, **(plain | changes))
        text = "".join(canonical(r) + "\n" for r in cases).encode()

        def finish(run):
            return {"record.json": json.dumps(record.as_dict() | {"id": run, "slug": slug}).encode()}

        return seal(self.runs, slug, {"experiment.ipynb": b"{}", "cases.jsonl": text}, finish)

    def session(self, **changes):
        return Session(**{"runs": self.runs, "ruler": self.ruler, "clock": lambda: self.now, **changes})

    @property
    def rows(self):
        return Log(self.runs / RATINGS, RATED).rows


@pytest.fixture
def toys(frozen_ruler, tmp_path):
    return Toys(frozen_ruler, tmp_path / "runs")


@pytest.fixture
def busy(toys):
    """Two full runs, one of the dev gate."""
    toys.seal("first")
    toys.seal("second", words="far")
    toys.seal("screen", "dev")
    return toys


def type_in(session, keys):
    return [session.press(key) for key in keys]


def whole(choice="t", digits="3" * MARKS):
    return choice + digits


# --- what may be rated


def test_valid_answers_of_this_rulers_experiments_are_offered_and_nothing_else(toys):
    toys.seal("good", answered={"toy-kite", "toy-goat"})
    toys.seal("screen", "dev")
    toys.seal("sealed gate", "confirm", kind="confirm")
    toys.seal("misplaced", "confirm")
    toys.seal("leak", words="leak", status="invalid")
    toys.seal("other ruler", words="other", fingerprint="f" * 64)
    toys.seal("twin", words="fit", kind="rejudge")
    found = {(i.run, i.case.id) for i in toys.session().items}
    assert found == {("0001-good", "toy-kite"), ("0001-good", "toy-goat"), ("0002-screen", "toy-chess")}


def test_the_same_answer_in_two_runs_is_one_item(toys):
    toys.seal("same")
    toys.seal("same")
    assert len(toys.session().items) == 3


def test_the_order_follows_the_seed_and_a_later_run_moves_nothing(busy):
    def order(**changes):
        return [(i.id, i.gold) for i in busy.session(**changes).items]

    before = order()
    assert before == order() and sorted(before) != sorted(order(seed=1)) and {g for _, g in before} <= set(SIDES)
    assert len({tuple(order(seed=s)) for s in range(9)}) == 9
    busy.seal("third", words="new")
    assert [o for o in order() if o in before] == before


def test_no_case_comes_twice_in_a_row_and_all_cases_come_before_any_again(busy):
    for seed in range(5):
        session = busy.session(seed=seed, who=f"rater {seed}")
        for _ in range(len(session.items)):
            assert all(type_in(session, whole()))
        shown = [r.case for r in session.rated]
        assert session.item is None and len(shown) == 7 and len(set(shown[:4])) == 4
        assert all(a != b for a, b in zip(shown, shown[1:], strict=False))


def test_there_may_be_nothing_to_rate(toys):
    session = toys.session()
    assert session.item is None and not session.press("a") and "Nothing to rate" in session.agreement.text
    assert not toys.runs.exists()


def test_a_rater_without_a_name_is_refused(toys):
    with pytest.raises(ValueError, match="who is empty"):
        toys.session(who=" ")


# --- keys


@pytest.mark.parametrize("choice", "abt")
def test_a_rating_is_the_candidates_whichever_side_it_was_on(busy, choice):
    for _ in range(4):
        session = busy.session()
        item, busy.now = session.item, busy.now + 30.04
        type_in(session, whole(choice, "15" * len(DIMENSIONS)))
        row = busy.rows[-1]
        assert (row["item"], row["case"], row["run"], row["gold"]) == (item.id, item.case.id, item.run, item.gold)
        assert row["verdict"] == ("tie" if choice == "t" else "loss" if choice.upper() == item.gold else "win")
        a, b = ("gold_scores", "scores") if item.gold == "A" else ("scores", "gold_scores")
        assert row[a] == dict.fromkeys(DIMENSIONS, 1) and row[b] == dict.fromkeys(DIMENSIONS, 5)
        assert row["seconds"] == 30.0 and row["who"] == "me" and row["fingerprint"] == item.fingerprint
        busy.now = 0.0
    assert verify(busy.runs) == []


def test_a_key_that_means_nothing_now_does_nothing(busy):
    session = busy.session()
    assert type_in(session, "3xu") == [False] * 3
    assert type_in(session, "Ab6") == [True, False, False]
    assert session.asked == ("atomicity", "A") and not (busy.runs / RATINGS).exists()


def test_nothing_is_written_before_the_last_score(busy):
    session = busy.session()
    type_in(session, whole()[:-1])
    assert session.asked == ("non_redundancy", "B") and busy.rows == []


def test_back_takes_one_key_and_then_the_last_rating(busy):
    session = busy.session()
    first = session.item
    type_in(session, whole())
    type_in(session, "a1u")
    assert session.asked == ("atomicity", "A") and session.choice == "a"
    type_in(session, "u")
    assert session.asked is None and session.item != first and len(busy.rows) == 1
    type_in(session, "u")
    assert session.item == first and session.rated == [] and [r["kind"] for r in busy.rows] == ["rating", "undo"]
    type_in(session, whole("a"))
    assert len(session.rated) == 1 and verify(busy.runs) == []


def test_a_session_goes_on_where_the_last_one_ended(busy):
    session = busy.session()
    type_in(session, whole() * 2)
    again = busy.session()
    assert again.item == session.item and again.item.id not in {r.item for r in again.rated}
    assert len(busy.session(who="you").rated) == 0


# --- beside the judge


def test_the_agreement_waits_for_enough_ratings(toys):
    for n in range(7):
        toys.seal(f"run-{n}", words=f"word {n}")
    session = toys.session()
    type_in(session, whole("t") * (ENOUGH - 1))
    assert "19 ratings beside the offline judge; 1 more" in session.agreement.text
    type_in(session, whole("t"))
    assert "**The offline judge agrees with you** in 0 of 20 verdicts (0 %" in session.agreement.text


def test_a_judgment_counts_only_beside_its_own_fingerprint(busy):
    session = busy.session()
    type_in(session, whole("t") * 7)
    [fingerprint] = {r.fingerprint for r in session.records}
    assert len(session.pairs(fingerprint)) == 7 and session.pairs("e" * 64) == []
    assert {(p.stored.verdict, p.ours.verdict) for p in session.pairs(fingerprint)} == {("tie", "loss")}


# --- verify


def rewrite(toys, **changes):
    """A log whose one line says something else, its chain intact."""
    row = {k: v for k, v in toys.rows[0].items() if k not in ("n", "prev")} | changes
    (toys.runs / RATINGS).unlink()
    Log(toys.runs / RATINGS, RATED).extend([row])


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"item": "e" * 64}, "is another one"),
        ({"run": "0009-none"}, "'0009-none' is no sealed run here"),
        ({"run": "../elsewhere"}, "is no sealed run here"),
        ({"run": "0004-sealed"}, "no experiment of the gates full and dev"),
        ({"fingerprint": "e" * 64}, "its fingerprint is not that of"),
        ({"verdict": "better"}, "expected one of win, tie, loss"),
        ({"kind": "guess"}, "kind is 'guess'"),
    ],
)
def test_verify_names_a_rating_that_fits_no_sealed_run(busy, changes, said):
    busy.seal("sealed", "confirm", kind="confirm")
    type_in(busy.session(), whole())
    assert verify(busy.runs) == []
    rewrite(busy, **changes)
    [wrong] = verify(busy.runs)
    assert wrong.startswith(f"{busy.runs / RATINGS}:1: not a rating (") and said in wrong


def test_verify_names_a_line_that_was_changed(busy):
    type_in(busy.session(), whole() * 2)
    path = busy.runs / RATINGS
    path.write_bytes(path.read_bytes().replace(b'"tie"', b'"win"', 1))
    [wrong] = verify(busy.runs)
    assert wrong == f"{path}:2: does not follow the line before it"


# --- widgets


def test_the_panel_takes_keys_and_buttons_once_started_and_hides_run_and_judgment(busy):
    panel = Panel(busy.session())
    panel.keys.value = "a"
    assert panel.session.choice == "" and panel.sets.layout.display == "none"
    panel.begin.click()
    item = panel.session.item
    assert item.case.task in panel.task.value and "Set A" in panel.sets.value and "&lt;f" in panel.sets.value
    panel.keys.value = "at4"
    assert panel.session.choice == "t" and panel.session.marks == [4]
    assert "Atomicity of set B" in panel.due.value and panel.verdict.layout.display == "none"
    panel.undo.click()
    panel.scores["2"].click()
    assert panel.session.marks == [2]
    panel.keys.value = "at4" + "5" * (MARKS - 1)
    assert len(busy.rows) == 1 and "1 rated, 6 left" in panel.state.value and panel.session.item != item
    shown = panel.task.value + panel.sets.value + panel.due.value + panel.state.value
    assert panel.session.item.run not in shown and "loss" not in shown and "gold" not in shown
    panel.done.click()
    assert "19 more" in panel.out.outputs[0]["data"]["text/plain"]


def test_text_that_was_deleted_or_replaced_rates_nothing_twice(busy):
    panel = Panel(busy.session())
    panel.begin.click()
    for text in ("a1", "a", "a12", "", "3"):
        panel.keys.value = text
    assert panel.session.marks == [1, 1, 2, 3]


def test_the_panel_says_when_nothing_is_left(toys):
    assert "No sealed experiment" in Panel(toys.session()).state.value
    toys.seal("only", "dev")
    panel = Panel(toys.session())
    panel.begin.click()
    panel.keys.value = whole()
    assert "Nothing is left to rate" in panel.state.value and panel.sets.layout.display == "none"


def test_the_page_makes_a_session_and_never_names_the_sealed_gate(busy):
    page = (NOTEBOOKS / "03_rate.ipynb").read_text(encoding="utf-8")
    assert "from lib import Session" in page and "session.agreement" in page
    assert all(
        task not in json.dumps([str(i) for i in busy.session().items]) for _, g, _, task in TASKS if g == "confirm"
    )
