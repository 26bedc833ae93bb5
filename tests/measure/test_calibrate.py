"""Damage, attacks, readings and noise: each on texts and numbers of our own, judged by the offline judge or a toy."""

import random
from dataclasses import replace

import pytest

from lib.files import RULER
from lib.measure import calibrate, leak
from lib.measure.answer import Answer, NoAnswer, spec_gate
from lib.measure.checks import damage, noise
from lib.measure.judge import DIMENSIONS, Judgment, Unscored
from lib.measure.ruler import Case, Gold, Ruler
from lib.runs.offline import OfflineJudge

QUESTIONS = (
    "How many hives do you want to keep?",
    "Where in your garden would the bees stand?",
    "Is anyone in your household allergic to stings?",
    "What would you pay for the first colony?",
    "When could you collect a swarm?",
    "Which beekeeping course have you taken?",
    "Who would look after the hives during your holidays?",
)
CASE = Case("bees", "start keeping bees", Gold("Start keeping bees", QUESTIONS, QUESTIONS[2]))
GOLD = CASE.gold


class Judge:
    """A judge whose scores are a function of the answer."""

    identity = {"kind": "toy"}

    def __init__(self, outcome):
        self.outcome = outcome

    def judge(self, case, answer):
        return self.outcome(case, answer)

    def judge_all(self, pairs):
        return [self.outcome(case, answer) for case, answer in pairs]


def fives(verdict="tie", **changes):
    return Judgment(dict.fromkeys(DIMENSIONS, 5.0) | changes, verdict)


@pytest.fixture(scope="module")
def rows():
    return calibrate.placed(OfflineJudge(), Ruler.load(RULER).gate("full"))


# --- texts


def test_merging_keeps_every_question_in_fewer():
    merged = damage.merge(GOLD, 2)
    assert merged[0] == "How many hives do you want to keep and where in your garden would the bees stand?"
    assert len(merged) == 5 and all(q[1:].rstrip("?") in "".join(merged) for q in QUESTIONS)


def test_dropping_takes_the_critical_question_first():
    assert damage.drop(GOLD, 1) == tuple(q for q in QUESTIONS if q != GOLD.critical)
    assert len(damage.drop(GOLD, 3)) == 4


@pytest.mark.parametrize("kind", damage.DAMAGES)
def test_damage_is_the_same_every_time_and_more_of_it_changes_more(kind):
    _, make = damage.DAMAGES[kind]
    made = [make(GOLD, n) for n in damage.STRENGTHS]
    assert made == [make(GOLD, n) for n in damage.STRENGTHS] and len(set(made)) == 3
    assert all(m != QUESTIONS for m in made)
    changed = [len(set(m) - set(QUESTIONS)) + abs(len(m) - len(QUESTIONS)) for m in made]
    assert changed == sorted(changed)


@pytest.mark.parametrize("kind", ["blur", "telegraph", "repeat", "echo"])
def test_what_is_not_coverage_spares_the_critical_question(kind):
    assert GOLD.critical in damage.DAMAGES[kind][1](GOLD, 3)


def test_the_ruler_is_damaged_at_full_strength_in_every_case():
    for case in Ruler.load(RULER).gate("full"):
        for kind, (_, make) in damage.DAMAGES.items():
            made = [make(case.gold, n) for n in (0, *damage.STRENGTHS)]
            assert len(set(made)) == 4 and made[0] == case.gold.questions, (case.id, kind)


def test_a_paraphrase_rewords_most_questions_and_keeps_the_form():
    for case in Ruler.load(RULER).gate("full"):
        said = damage.paraphrase(case.gold)
        assert isinstance(spec_gate(said.title, said.questions), Answer)
        assert sum(a != b for a, b in zip(said.questions, case.gold.questions, strict=True)) >= 3


def test_an_empty_or_odd_question_is_damaged_without_a_crash():
    gold = Gold("x", ("", "?", "what", "the", "Ile uli chcesz mieć?", "How many?", "n't?"), "?")
    for _, make in damage.DAMAGES.values():
        assert all(isinstance(q, str) for n in damage.STRENGTHS for q in make(gold, n))


# --- leaks


def test_pasted_gold_is_a_leak_wherever_it_stands():
    for questions in (
        QUESTIONS,
        QUESTIONS * 2,
        [q.upper().rstrip("?") + " ?!" for q in QUESTIONS],
        [" ".join(QUESTIONS)],
        [*QUESTIONS[:3], *(f"What about thing {i}?" for i in range(4))],
    ):
        assert "stand word for word in gold" in leak.leaked(CASE, Answer("x", questions))
    assert leak.leaked(CASE, Answer(" ".join(QUESTIONS), ["Why?"])) != ""


def test_what_two_people_may_both_ask_is_no_leak():
    assert leak.leaked(CASE, Answer("Start keeping bees", [*QUESTIONS[:2], "Why bees?"])) == ""
    assert leak.leaked(CASE, damage.plain(CASE)) == ""
    assert leak.leaked(Case("x", "x"), Answer("x", QUESTIONS)) == ""


# --- the offline judge, calibrated


def test_the_offline_judge_sees_each_damage_in_its_own_dimension_most(rows):
    found = calibrate.readings(rows)
    assert found["own_falls_most"] == dict.fromkeys(DIMENSIONS, True)
    assert found["identity"] == {"cases": 30, "ties": 30, "fives": 0}  # Claude gives gold less than five as well
    for kind, s in found["strengths"].items():
        own = [s["change"][str(n)][s["dimension"]] for n in damage.STRENGTHS]
        assert own[0] < -0.15 and own[2] < -1.2 and own == sorted(own, reverse=True), kind


def test_no_attack_gains_on_the_offline_judge(rows):
    found = calibrate.readings(rows)["attacks"]
    assert len(found) == 9 and all(a["cases"] == 30 for a in found.values())
    assert {name for name, a in found.items() if a["most"] > 1e-9} == set()


def test_pasted_gold_is_flagged_in_every_case_and_gains_nothing(rows):
    found = calibrate.readings(rows)["attacks"]
    for name in ("gold pasted back", "gold twice"):
        assert found[name]["leaks"] == 30 and found[name]["above"] == 0
    assert all(a["leaks"] == 0 for name, a in found.items() if not name.startswith("gold"))


# --- readings of a toy judge


def test_a_judge_that_sees_nothing_has_no_diagonal():
    found = calibrate.readings(calibrate.placed(Judge(lambda c, a: fives()), [CASE]))
    assert found["own_falls_most"] == dict.fromkeys(DIMENSIONS, False)
    assert {v for row in found["matrix"].values() for v in row.values()} == {0.0}


def test_an_attack_that_works_is_counted():
    loud = Judge(lambda c, a: fives("win" if "Give 5" in a.text else "loss"))
    found = calibrate.readings(calibrate.placed(loud, [CASE, replace(CASE, id="again")]))["attacks"]
    assert (found["give 5 to all"]["above"], found["give 5 to all"]["most"]) == (2, 0.5)
    assert sum(a["above"] for a in found.values()) == 2


def test_a_judge_that_fails_on_texts_leaves_them_out_and_counts_them():
    picky = Judge(lambda c, a: Unscored("no reply") if len(a.questions) != 7 else fives())
    rows = calibrate.placed(picky, [CASE])
    found = calibrate.readings(rows)
    assert found["unscored"] == sum(len(t.answer.questions) != 7 for t in damage.texts([CASE])) > 0
    assert found["matrix"]["coverage"] == {} and found["own_falls_most"]["coverage"] is False
    assert found["judged"] + found["unscored"] == len(rows)


def test_a_case_without_gold_cannot_calibrate():
    with pytest.raises(ValueError, match="'x' has no gold"):
        calibrate.placed(OfflineJudge(), [Case("x", "x")])


def test_repeats_leave_out_cases_that_are_unscored_once_and_keep_silence_as_0():
    said = iter([fives(), Unscored("x"), fives(), fives(), fives(), NoAnswer("x")])
    rows = []
    for repeat in range(2):
        rows += [calibrate.row_of("fresh", case, next(said), repeat=repeat) for case in "abc"]
    assert calibrate.repeats_of(rows, "fresh") == [[0.75, 0.75], [0.75, 0.0]]
    assert calibrate.repeats_of(rows, "same") == []


def test_a_deterministic_judge_has_no_noise_on_the_same_answers():
    pairs = [(c, damage.plain(c)) for c in Ruler.load(RULER).gate("dev")]
    rows = [row for repeat in range(3) for row in calibrate.again(OfflineJudge(), pairs, repeat)]
    found = calibrate.readings(rows)
    assert found["floor"] == 0 and found["same"]["sd"] == 0 and found["same"]["repeats"] == 3
    assert "differed in nothing" in noise.sentence(found | calibrate.worlds(rows, found["floors"]))


# --- controls


@pytest.mark.parametrize("gate", ["full", "dev", "confirm"])
def test_gold_of_another_task_is_of_another_area_and_taken_once(gate):
    cases = Ruler.load(RULER).gate(gate)
    others = calibrate.deranged(cases)
    assert all(a.area != b.area for a, b in zip(cases, others, strict=True))
    assert {c.id for c in others} == {c.id for c in cases} and calibrate.deranged(cases) == others


def test_cases_of_one_area_still_get_each_the_gold_of_another():
    cases = [replace(CASE, id=i) for i in "abc"]
    assert all(a.id != b.id for a, b in zip(cases, calibrate.deranged(cases), strict=True))


def test_controls_are_scored_as_runs_are_with_silence_as_0():
    cases = [CASE, replace(CASE, id="kite", gold=Gold("Fly", ("Which kite?",) * 7, "Which kite?"))]
    judge = Judge(lambda c, a: fives("tie" if a.questions == c.gold.questions else "loss", coverage=3.0))
    rows = calibrate.control(judge, cases, {"stored:x": [Answer("t", QUESTIONS), NoAnswer("silent")]})
    found = {c["name"]: c for c in calibrate.readings(rows)["controls"]}
    assert list(found) == ["gold", "stored:x", "gold of another task", "any-task set"]
    assert (found["gold"]["quality"], found["gold"]["ties"]) == (pytest.approx(0.7), 2)
    assert (found["stored:x"]["quality"], found["stored:x"]["no_answer"]) == (pytest.approx(0.35), 1)
    assert found["stored:x"]["dims"]["coverage"] == 3.0 and found["any-task set"]["losses"] == 2


def test_damaged_gold_has_an_interval_over_cases_not_over_texts(rows):
    [found] = calibrate.readings(rows)["controls"]
    damaged = [r for r in rows if r["part"] == "damage"]
    assert found["name"] == "damaged gold" and len(calibrate.qualities(damaged)) == 30
    assert found["wins"] + found["ties"] + found["losses"] == len(damaged) == 540
    assert found["low"] < found["quality"] < found["high"] < 0.75


# --- halo


def test_halo_finds_dimensions_that_are_one_and_a_verdict_that_follows_the_scores():
    draw = random.Random(3)
    judged = []
    for _ in range(200):
        scores = {d: float(draw.randint(1, 5)) for d in DIMENSIONS}
        scores["naturalness"] = scores["coverage"]
        verdict = "win" if scores["atomicity"] > 3 else "loss"
        judged.append({"scores": scores, "verdict": verdict})
    found = calibrate.halo(judged)
    assert found["correlation"]["naturalness"]["coverage"] == 1.0
    assert abs(found["correlation"]["atomicity"]["coverage"]) < 0.2
    assert 0.6 < found["r2"] <= 1 and found["judgments"] == 200


def test_halo_of_too_little_says_nothing_instead_of_a_number():
    for judged in ([], [{"scores": dict.fromkeys(DIMENSIONS, 3.0), "verdict": "loss"}] * 9):
        found = calibrate.halo(judged)
        assert found["r2"] is None and found["mean"] is None and found["judgments"] == len(judged)


# --- noise


def scattered(spread, repeats=5, cases=30, seed=1):
    draw = random.Random(seed)
    levels = [draw.choice([0.1, 0.3, 0.6]) for _ in range(cases)]
    return [[level + draw.choice([-spread, 0.0, 0.0, spread]) for level in levels] for _ in range(repeats)]


def test_the_floor_holds_95_percent_of_differences_between_repeats():
    found = noise.noise(scattered(0.1, repeats=400))
    assert found.sd == pytest.approx(0.1 * 0.5**0.5 / 30**0.5, rel=0.05)
    draws = scattered(0.1, repeats=400, seed=1)
    means = [sum(r) / len(r) for r in draws]
    gaps = [abs(a - b) for a, b in zip(means[::2], means[1::2], strict=True)]
    assert sum(g <= found.floor for g in gaps) / len(gaps) == pytest.approx(0.95, abs=0.03)


@pytest.mark.parametrize("repeats", [[], [[0.5]], [[0.5, 0.1], [0.5]], [[], []]])
def test_noise_needs_two_repeats_of_the_same_cases(repeats):
    with pytest.raises(ValueError, match="two repeats"):
        noise.noise(repeats)


def test_twice_the_noise_hides_twice_the_gain():
    small, large = noise.detectable(scattered(0.05)), noise.detectable(scattered(0.1))
    assert 0 < small < large and large == pytest.approx(2 * small, rel=0.1)
    assert noise.detectable(scattered(0.0)) == 0.0
    assert noise.detectable(scattered(0.05), floor=0.2) > 0.2


def test_a_detectable_gain_is_found_with_80_percent_power_by_the_rule_itself():
    from lib.measure.stats import paired

    repeats, draw = scattered(0.1, repeats=8), random.Random(5)
    gain = noise.detectable(repeats)
    seen = 0
    for _ in range(80):
        a, b = ([draw.choice(column) for column in zip(*repeats, strict=True)] for _ in range(2))
        test = paired([x + gain for x in a], b)
        seen += test.p < 0.05 and test.delta > 0
    assert 0.7 <= seen / 80 <= 0.9


def test_in_the_null_world_of_measured_repeats_confirmation_leaves_at_most_5_percent_of_studies_fooled():
    repeats = scattered(0.1)
    floor = noise.noise(repeats).floor
    world = noise.null_world(repeats, floor, seed=0)
    bare = noise.null_world(repeats, seed=0)
    assert (world.runs, world.studies) == (71, 1000)
    assert world.confirmed <= 0.05 and bare.confirmed <= 0.05
    assert world.false_keep <= bare.false_keep
    assert 0.05 < bare.false_keep < 0.6  # the paired rule alone is not enough
    assert noise.null_world(repeats, floor, seed=0) == world


def test_repeats_without_noise_keep_nothing_by_luck():
    world = noise.null_world([[0.5] * 30] * 3, studies=50)
    assert (world.lucky_keeps, world.keeps, world.false_keep, world.confirmed) == (0, 0, 0, 0)


def test_the_sentence_says_what_is_not_measured():
    assert "not measured" in noise.sentence({}) and "not measured" in noise.sentence({"floor": None})
    world = noise.null_world(scattered(0.1), 0.02, studies=100).as_dict()
    said = noise.sentence({"floor": 0.02, "null_world": world})
    assert "0.0200" in said and "71 runs" in said and "sealed gate" in said


def test_the_sentence_of_greedy_runs_says_that_they_repeat_and_what_luck_still_does():
    repeats = scattered(0.1)
    rows = [
        calibrate.row_of(part, f"c{i}", fives(), repeat=k) | {"quality": q if part == "fresh" else 0.5}
        for part, many in (("same", 2), ("greedy", 2), ("fresh", len(repeats)))
        for k in range(many)
        for i, q in enumerate(repeats[k])
    ]
    found = calibrate.readings(rows)
    assert found["floors"]["greedy"] == 0 < found["floors"]["sampled"] == found["floor"]
    found |= calibrate.worlds(rows, found["floors"])
    greedy, sampled = (noise.sentence(found, s) for s in (False, True))
    assert "repeat exactly" in greedy and "still reshuffles" in greedy and "where one of them samples" in sampled
    assert found["greedy_world"]["false_keep"] >= found["null_world"]["false_keep"]
    assert found["greedy_world"]["detectable"] <= found["detectable"] and found["greedy_world"]["confirmed"] <= 0.05
    assert "71 runs" in greedy
