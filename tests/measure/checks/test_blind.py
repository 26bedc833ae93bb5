"""Leaving a dimension out: of the prompts, of the offline judge; and what a blind judgment is compared with."""

import pytest

from lib.files import RULER
from lib.measure.answer import NoAnswer
from lib.measure.calibrate import row_of
from lib.measure.checks import blind
from lib.measure.checks.damage import plain, texts
from lib.measure.judge import DIMENSIONS, Judgment, Unscored
from lib.measure.judge_calls import PROTOCOLS, names, system
from lib.measure.offline_judge import Amounts, Constants, constants, verdict_of
from lib.measure.ruler import Ruler
from lib.runs.offline import OfflineJudge

TELLTALE = {
    "atomicity": "single", "specificity": "concrete", "coverage": "the unknown that would change",
    "naturalness": "natural", "non_redundancy": "different from the others",
}  # fmt: skip


@pytest.fixture(scope="module")
def ruler():
    return Ruler.load(RULER)


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_a_ruler_without_a_dimension_asks_for_four_and_weighs_four(ruler, dimension):
    less = blind.without(ruler, dimension)
    assert names(less) == tuple(d for d in DIMENSIONS if d != dimension)
    assert less.cases == ruler.cases and less.seal == ruler.seal
    told = less.prompts["pairwise"].partition("Leave one thing out of account")
    assert TELLTALE[dimension] in ruler.prompts["pairwise"] and TELLTALE[dimension] not in told[0]
    assert dimension.replace("_", "-") in told[2]
    for call in PROTOCOLS["balanced"]:
        assert f"\n{dimension}: " not in system(call, less)


def test_the_other_dimensions_stay_word_for_word(ruler):
    less = blind.without(ruler, "coverage")
    assert [d for d in ruler.rubric if d.name != "coverage"] == list(less.rubric)
    assert "is each question concrete, single, natural and different from the others" in less.prompts["pairwise"]
    assert "{critical}" not in less.prompts["rubric"] and "{rubric}" in less.prompts["rubric"]


def test_an_unknown_dimension_is_refused(ruler):
    for make in (lambda: blind.without(ruler, "style"), lambda: blind.BlindOfflineJudge("style", OfflineJudge())):
        with pytest.raises(ValueError, match="no dimension 'style'"):
            make()


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_the_blind_offline_judge_gives_the_other_scores_as_they_are(ruler, dimension):
    full = OfflineJudge()
    judge = blind.BlindOfflineJudge(dimension, full)
    for case in ruler.gate("full")[:5]:
        mine, its = judge.judge(case, plain(case)), full.judge(case, plain(case))
        assert mine.scores == {d: s for d, s in its.scores.items() if d != dimension}
        assert mine.notes == {d: s for d, s in its.notes.items() if d != dimension}
    assert judge.identity["without"] == dimension and judge.identity != full.identity
    assert ruler.fingerprint(judge.identity) != ruler.fingerprint(full.identity)


def toy(prices, lead):
    """Constants where nothing but these prices and leads differs from nothing."""
    return Constants({}, {d: prices.get(d, {}) for d in DIMENSIONS}, {}, lead, 0.0, (0.05, -0.05))


def test_a_verdict_that_hung_on_a_fault_of_that_dimension_alone_changes_without_it():
    made = toy({"coverage": {"missing": 1.0}, "atomicity": {"joined": 1.0}}, {"missing": 1.0, "joined": 1.0})
    gold = Amounts({"missing": 0.0, "joined": 0.0}, 0.0, 0.0, {})
    gap = Amounts({"missing": 0.5, "joined": 0.0}, 0.0, 0.0, {})
    assert verdict_of(gap, gold, made) == verdict_of(gap, gold, made, "atomicity") == "loss"
    assert verdict_of(gap, gold, made, "coverage") == "tie"


def test_a_fault_that_another_dimension_prices_too_stays_in_the_verdict():
    made = toy({"coverage": {"missing": 1.0}, "specificity": {"missing": 1.0}}, {"missing": 1.0})
    gold, gap = (Amounts({"missing": m}, 0.0, 0.0, {}) for m in (0.0, 0.5))
    assert verdict_of(gap, gold, made, "coverage") == verdict_of(gap, gold, made, "specificity") == "loss"


def test_of_the_fitted_leads_only_crowding_and_prefaces_are_faults_of_one_dimension_alone():
    """So a blind offline verdict can differ for these two dimensions alone: the others share what decides it."""
    made = constants()
    own = {
        d: {
            f for f in made.prices[d] if made.lead.get(f) and not any(f in made.prices[e] for e in DIMENSIONS if e != d)
        }
        for d in DIMENSIONS
    }
    assert own == dict.fromkeys(DIMENSIONS, set()) | {"non_redundancy": {"crowd"}, "naturalness": {"preface"}}


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_a_blind_judge_still_ties_gold_with_itself_and_lets_no_attack_win(ruler, dimension):
    every = [t for t in texts(ruler.gate("dev")[:3]) if t.part in ("gold", "attack")]
    found = blind.BlindOfflineJudge(dimension, OfflineJudge()).judge_all([(t.case, t.answer) for t in every])
    assert {j.verdict for t, j in zip(every, found, strict=True) if t.part == "gold"} == {"tie"}
    assert "win" not in {j.verdict for j in found}


def judged(quality, verdict="loss", dims=DIMENSIONS):
    won = {"win": 1.0, "tie": 0.5, "loss": 0.0}[verdict]
    return Judgment(dict.fromkeys(dims, 1 + 8 * (quality - won / 2)), verdict)


def rows(stored, placebo, seen):
    found = []
    for i, outcomes in enumerate(zip(stored, placebo, seen, strict=True)):
        for part, outcome in zip(("stored", "placebo", "blind"), outcomes, strict=True):
            found.append(row_of(part, f"case-{i}", outcome, run="0001-a"))
    return found


def test_the_difference_is_blind_minus_placebo_split_into_rubric_and_verdict():
    before = [judged(0.2)] * 6
    after = [judged(0.3)] * 5 + [judged(0.55, "tie")]
    found = blind.readings(rows(before, before, after))["runs"]["0001-a"]
    assert found["delta"] == pytest.approx((5 * 0.1 + 0.35) / 6)
    assert found["from_verdicts"] == pytest.approx(0.25 / 6)
    assert found["from_rubric"] + found["from_verdicts"] == pytest.approx(found["delta"])
    assert found["losses"] == [6, 5] and found["moved"] == 0 and found["low"] <= found["delta"] <= found["high"]


def test_what_one_score_fewer_does_is_arithmetic_and_told_apart_from_judgment():
    four = [d for d in DIMENSIONS if d != "coverage"]
    before = [Judgment(dict.fromkeys(four, 3) | {"coverage": 1}, "loss")] * 6
    same = blind.readings(rows(before, before, [Judgment(dict.fromkeys(four, 3), "loss")] * 6))["runs"]["0001-a"]
    assert (
        same["from_dropping"] == pytest.approx(0.05) == same["delta"]
    )  # 2.6 to 3 of 5, half of it on a scale of 0 to 1
    assert same["from_scores"] == same["from_verdicts"] == same["judged"]["delta"] == 0 and same["judged"]["p"] == 1
    other = [Judgment(dict.fromkeys(four, 4), "tie")] * 6
    found = blind.readings(rows(before, before, other))["runs"]["0001-a"]
    assert found["from_dropping"] == pytest.approx(0.05) and found["from_scores"] == pytest.approx(0.125)
    assert found["from_verdicts"] == pytest.approx(0.25) and found["judged"]["delta"] == pytest.approx(0.375)
    assert found["judged"]["p"] < 0.05 and found["verdicts_changed"] == 6 and found["losses"] == [6, 0]
    assert found["from_dropping"] + found["from_scores"] == pytest.approx(found["from_rubric"])


def test_no_answer_stays_0_and_a_loss_and_unscored_is_left_out_of_both():
    before = [judged(0.2), NoAnswer("silent"), judged(0.3), judged(0.4)]
    after = [judged(0.2), NoAnswer("silent"), Unscored("no reply"), judged(0.4)]
    found = blind.readings(rows(before, before, after))["runs"]["0001-a"]
    assert (found["cases"], found["unscored"], found["no_answer"]) == (3, 1, 1)
    assert found["losses"] == [3, 3] and found["placebo"] == pytest.approx(0.2) and found["delta"] == 0


def test_a_run_of_another_judge_has_no_stored_quality_to_reproduce():
    some = [r for r in rows([judged(0.2)] * 3, [judged(0.3)] * 3, [judged(0.4)] * 3) if r["part"] != "stored"]
    found = blind.readings(some)["runs"]["0001-a"]
    assert found["stored"] is None and found["moved"] == 0 and found["delta"] == pytest.approx(0.1)


def test_nothing_scored_is_said_and_not_compared():
    nothing = [Unscored("no reply")] * 2
    assert blind.readings(rows(nothing, nothing, nothing))["runs"]["0001-a"] == {"cases": 0, "unscored": 2}
