"""Gold in answers: what is counted, what is flagged, and what makes a run invalid."""

import pytest

from lib.measure.answer import Answer
from lib.measure.leak import copies, leaked, leaks
from lib.measure.ruler import Ruler

CASE = Ruler.load().gate("dev")[0]
GOLD = CASE.gold.questions
OWN = tuple(f"What do you think of part {i} of the move?" for i in range(7))


def rows(*counts):
    return [{"case": f"c{i}", "copies": n} for i, n in enumerate(counts)]


@pytest.mark.parametrize("n", range(8))
def test_copies_are_counted_whatever_their_case_order_and_punctuation(n):
    mixed = tuple(q.upper().replace("?", " ?!?") for q in reversed(GOLD[:n])) + OWN[n:]
    assert copies(CASE, Answer("x", mixed)) == n
    assert bool(leaked(CASE, Answer("x", mixed))) == (n >= 3)


def test_one_stock_question_in_common_is_chance_in_every_case_of_a_gate():
    assert leaks(rows(*[1] * 20, *[0] * 10)) == []
    assert leaks(rows(3, 2, 2, *[0] * 27)) == []


def test_one_answer_that_pastes_gold_or_two_that_paste_half_of_it_condemn_a_run():
    assert leaks(rows(7, *[0] * 29)) == ["c0"] and leaks(rows(4, *[1] * 9)) == ["c0"]
    assert leaks(rows(3, 0, 3, *[0] * 27)) == ["c0", "c2"]


def test_gold_that_leaks_in_drops_is_found_over_the_whole_run():
    assert len(leaks(rows(*[2] * 30))) == 30
    assert leaks(rows(2, 2, *[0] * 28)) == []


def test_rows_from_before_copies_were_counted_hold_no_leak():
    assert leaks([{"case": "a"}, {"case": "b"}]) == [] and leaks([]) == []
