"""A ruler loads only as it was frozen, and says which file is not; and what the shipped ruler promises."""

import json
import re
from collections import Counter

import pytest

from lib.agent.bank import AREAS
from lib.measure.answer import Answer, normalised, spec_gate
from lib.measure.judge import DIMENSIONS
from lib.measure.offline_judge import unknowns_of
from lib.measure.ruler import FILES, GATES, BadRuler, Ruler, Tampered, freeze


def edit(path, change):
    """Rewrite a file of JSON lines after `change(rows)`."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    change(rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_frozen_ruler_loads_in_file_order(frozen_ruler):
    ruler = Ruler.load(frozen_ruler)
    assert [c.id for c in ruler.cases] == ["toy-kite", "toy-attic", "toy-goat", "toy-chess", "toy-canoe"]
    assert [[c.id for c in ruler.gate(g)] for g in GATES] == [
        ["toy-kite", "toy-attic", "toy-goat"],
        ["toy-chess"],
        ["toy-canoe"],
    ]
    assert ruler.cases[0].gold.critical == ruler.cases[0].gold.questions[2]
    assert ruler.prompts == {"rubric": "Score the answer.\n", "pairwise": "Which answer is better?\n"}


@pytest.mark.parametrize("name", FILES)
def test_one_changed_byte_is_refused_by_the_name_of_its_file(frozen_ruler, name):
    raw = bytearray((frozen_ruler / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (frozen_ruler / name).write_bytes(raw)
    with pytest.raises(Tampered, match=re.escape(f"{frozen_ruler / name}: changed")):
        Ruler.load(frozen_ruler)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused_by_name(frozen_ruler, name):
    (frozen_ruler / name).unlink()
    with pytest.raises(Tampered, match=re.escape(f"{frozen_ruler / name}: missing")):
        Ruler.load(frozen_ruler)
    with pytest.raises(BadRuler, match=re.escape(f"{frozen_ruler / name}: missing")):
        freeze(frozen_ruler)


def test_an_added_file_is_refused_by_name(frozen_ruler):
    (frozen_ruler / "more.jsonl").write_text("{}\n")
    with pytest.raises(Tampered, match=re.escape(f"{frozen_ruler / 'more.jsonl'}: not part of the seal")):
        Ruler.load(frozen_ruler)


def test_an_edited_gold_answer_is_refused_and_all_faults_are_named(frozen_ruler):
    edit(frozen_ruler / "gold.jsonl", lambda rows: rows[0].update(title="Fly a kite"))
    (frozen_ruler / "rubric.json").unlink()
    with pytest.raises(Tampered) as error:
        Ruler.load(frozen_ruler)
    assert str(frozen_ruler / "gold.jsonl") in str(error.value)
    assert str(frozen_ruler / "rubric.json") in str(error.value)


def test_a_ruler_without_a_seal_is_refused_and_the_way_out_is_said(unfrozen_ruler):
    with pytest.raises(BadRuler, match=re.escape(str(unfrozen_ruler / "FROZEN")) + ".*notch freeze"):
        Ruler.load(unfrozen_ruler)


def test_freezing_twice_is_refused_and_keeps_the_first_seal(frozen_ruler):
    before = (frozen_ruler / "FROZEN").read_bytes()
    edit(frozen_ruler / "gold.jsonl", lambda rows: rows[0].update(title="Fly a kite"))
    with pytest.raises(FileExistsError, match="FROZEN"):
        freeze(frozen_ruler)
    assert (frozen_ruler / "FROZEN").read_bytes() == before
    assert sorted(p.name for p in frozen_ruler.iterdir()) == sorted([*FILES, "FROZEN"])


def test_an_empty_ruler_is_refused_by_the_name_of_its_file(unfrozen_ruler):
    for name in ("cases.jsonl", "gold.jsonl"):
        (unfrozen_ruler / name).write_text("")
    with pytest.raises(BadRuler, match=re.escape(f"{unfrozen_ruler / 'cases.jsonl'}: empty")):
        freeze(unfrozen_ruler)


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        (
            "cases.jsonl",
            lambda rows: rows[1].update(gate="fulll"),
            "cases.jsonl:2: gate is 'fulll': expected one of full, dev, confirm, did you mean 'full'?",
        ),
        ("cases.jsonl", lambda rows: rows[1].pop("task"), "cases.jsonl:2: task is missing; expected gate, area, task"),
        ("gold.jsonl", lambda rows: rows.pop(2), "gold.jsonl: no gold answer for case 'toy-goat'"),
        ("gold.jsonl", lambda rows: rows.append({**rows[0], "id": "toy-x"}), "gold.jsonl: 'toy-x' is no case"),
    ],
)
def test_a_ruler_that_does_not_fit_together_is_refused_by_file(unfrozen_ruler, file, change, says):
    edit(unfrozen_ruler / file, change)
    with pytest.raises(BadRuler, match=re.escape(says)) as error:
        freeze(unfrozen_ruler)
    assert str(unfrozen_ruler / file) in str(error.value)
    assert not (unfrozen_ruler / "FROZEN").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda rows: rows[3]["questions"].pop(0), "'toy-chess': 6 different questions, expected 7"),
        (lambda rows: rows[3].update(critical="Which opening?"), "'toy-chess': critical"),
    ],
)
def test_gold_that_breaks_its_own_protocol_is_not_frozen(unfrozen_ruler, change, says):
    edit(unfrozen_ruler / "gold.jsonl", change)
    with pytest.raises(BadRuler, match=re.escape(says)):
        freeze(unfrozen_ruler)
    assert not (unfrozen_ruler / "FROZEN").exists()


def test_a_line_that_is_no_json_is_refused_by_its_number(unfrozen_ruler):
    with open(unfrozen_ruler / "gold.jsonl", "a") as out:
        out.write("{]\n")
    with pytest.raises(BadRuler, match=re.escape(f"{unfrozen_ruler / 'gold.jsonl'}:6: not a JSON")):
        freeze(unfrozen_ruler)


def test_an_unknown_parameter_of_the_protocol_is_refused(unfrozen_ruler):
    protocol = json.loads((unfrozen_ruler / "protocol.json").read_text())
    (unfrozen_ruler / "protocol.json").write_text(json.dumps({**protocol, "questons": 8}))
    with pytest.raises(BadRuler, match="protocol.json.*questons"):
        freeze(unfrozen_ruler)


def test_another_blend_is_refused(unfrozen_ruler):
    protocol = json.loads((unfrozen_ruler / "protocol.json").read_text())
    (unfrozen_ruler / "protocol.json").write_text(json.dumps({**protocol, "blend": [0.8, 0.2]}))
    with pytest.raises(BadRuler, match=r"blend is \[0.8, 0.2\]; expected \[0.5, 0.5\]"):
        freeze(unfrozen_ruler)


def test_an_unknown_gate_is_refused_with_the_names_of_the_gates(frozen_ruler):
    with pytest.raises(BadRuler, match="'ful': expected one of full, dev, confirm"):
        Ruler.load(frozen_ruler).gate("ful")


def test_an_empty_gate_is_refused_by_name(unfrozen_ruler):
    edit(unfrozen_ruler / "cases.jsonl", lambda rows: rows[3].update(gate="full"))
    freeze(unfrozen_ruler)
    with pytest.raises(BadRuler, match=re.escape(f"{unfrozen_ruler}: no case in gate 'dev'")):
        Ruler.load(unfrozen_ruler).gate("dev")


def test_the_fingerprint_changes_with_the_judge_and_with_one_byte_of_the_ruler(frozen_ruler):
    ruler = Ruler.load(frozen_ruler)
    marks = {ruler.fingerprint({"kind": "offline", "version": v}) for v in (1, 2)}
    (frozen_ruler / "FROZEN").unlink()
    edit(frozen_ruler / "gold.jsonl", lambda rows: rows[0].update(title="Fly a kite"))
    assert freeze(frozen_ruler) == Ruler.load(frozen_ruler).seal != ruler.seal
    marks.add(Ruler.load(frozen_ruler).fingerprint({"kind": "offline", "version": 1}))
    assert len(marks) == 3
    assert ruler.fingerprint({"b": 1, "a": 2}) == ruler.fingerprint({"a": 2, "b": 1})


# --- unknowns ------------------------------------------------------------------------------------


def know(folder, *unknowns, case="toy-kite"):
    (folder / "unknowns.jsonl").write_text(json.dumps({"id": case, "unknowns": list(unknowns)}) + "\n")
    freeze(folder)
    return Ruler.load(folder).cases


WIND = {"name": "wind", "weight": 4, "asked": ["Is it windy?", "How strong is the wind?"]}


def test_unknowns_are_of_their_case_and_golds_own_question_is_one_more_way_to_ask(unfrozen_ruler):
    kite, attic, *_ = know(unfrozen_ruler, {**WIND, "gold": 2}, WIND, {**WIND, "gold": 0})
    gold = kite.gold
    assert [u.asked for u in kite.unknowns] == [
        (*WIND["asked"], gold.questions[2]), tuple(WIND["asked"]), (*WIND["asked"], gold.questions[0])
    ]  # fmt: skip
    assert [u.critical for u in kite.unknowns] == [True, False, False]  # gold's critical question is its third
    assert {(u.name, u.weight) for u in kite.unknowns} == {("wind", 4.0)}
    assert attic.unknowns == ()


@pytest.mark.parametrize(
    "odd, said",
    [
        ({"gold": 7}, "question 7: expected a place among its 7 questions"),
        ({"gold": -1}, r"unknowns\[0\] gold is -1: expected"),
        ({"weight": "much"}, r":1: unknowns\[0\] weight is 'much': expected a number"),
        ({"asked": None}, r"unknowns\[0\] asked is None: expected a list"),
    ],
)
def test_an_unknown_that_cannot_be_read_is_refused_with_what_was_expected(unfrozen_ruler, odd, said):
    with pytest.raises(BadRuler, match=f"unknowns.jsonl.*{said}"):
        know(unfrozen_ruler, WIND | odd)


def test_a_case_without_unknowns_is_judged_by_golds_questions(frozen_ruler):
    for case in Ruler.load(frozen_ruler).cases:
        assert case.unknowns == ()
        assert [u.asked for u in unknowns_of(case)] == [(q,) for q in case.gold.questions]
        assert [u.asked[0] for u in unknowns_of(case) if u.critical] == [case.gold.critical]


def test_unknowns_of_no_case_are_refused_by_name(unfrozen_ruler):
    with pytest.raises(BadRuler, match=re.escape("unknowns.jsonl: 'toy-x' is no case")):
        know(unfrozen_ruler, WIND, case="toy-x")
    assert not (unfrozen_ruler / "FROZEN").exists()


def test_unknowns_are_part_of_the_seal(unfrozen_ruler):
    know(unfrozen_ruler, WIND)
    edit(unfrozen_ruler / "unknowns.jsonl", lambda rows: rows[0]["unknowns"][0].update(weight=5))
    with pytest.raises(Tampered, match=re.escape(f"{unfrozen_ruler / 'unknowns.jsonl'}: changed")):
        Ruler.load(unfrozen_ruler)


# --- the shipped ruler ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped():
    return Ruler.load()


def test_the_shipped_gates_have_thirty_ten_and_thirty_cases(shipped):
    assert [len(shipped.gate(g)) for g in GATES] == [30, 10, 30]


@pytest.mark.parametrize(("gate", "each"), [("full", 3), ("dev", 1), ("confirm", 3)])
def test_a_shipped_gate_has_as_many_cases_of_every_area(shipped, gate, each):
    assert Counter(c.area for c in shipped.gate(gate)) == dict.fromkeys(AREAS, each)


def test_no_shipped_task_stands_in_two_gates(shipped):
    assert len({c.id for c in shipped.cases}) == len(shipped.cases)
    assert len({normalised(c.task) for c in shipped.cases}) == len(shipped.cases)


def test_a_shipped_gold_answer_has_seven_short_different_questions(shipped):
    for case in shipped.cases:
        questions = case.gold.questions
        assert len(questions) == 7, case.id
        assert all(5 <= len(q.split()) <= 12 and q.endswith("?") for q in questions), case.id
        assert len({normalised(q) for q in questions}) == 7, case.id


def test_a_shipped_gold_answer_names_its_critical_question_and_why(shipped):
    for case in shipped.cases:
        assert case.gold.critical in case.gold.questions, case.id
        assert case.gold.why and case.gold.author, case.id


def test_a_shipped_gold_answer_passes_its_own_spec_gate(shipped):
    rules = shipped.protocol
    for case in shipped.cases:
        answer = spec_gate(case.gold.title, case.gold.questions, rules.questions, rules.generic_titles)
        assert answer == Answer(case.gold.title, case.gold.questions), case.id


def test_the_shipped_rubric_has_the_five_dimensions_with_five_anchors(shipped):
    assert tuple(d.name for d in shipped.rubric) == DIMENSIONS
    assert all(len(set(d.anchors)) == 5 for d in shipped.rubric)


def test_every_shipped_gold_question_is_one_of_the_unknowns_and_the_critical_one_is_marked(shipped):
    for case in shipped.cases:
        for question in case.gold.questions:
            assert sum(question in u.asked for u in case.unknowns) == 1, (case.id, question)
        assert [case.gold.critical in u.asked for u in case.unknowns if u.critical] == [True], case.id
        assert all(sum(q in u.asked for q in case.gold.questions) <= 1 for u in case.unknowns), case.id


def test_a_shipped_case_has_more_unknowns_than_gold_can_ask_for_each_once(shipped):
    for case in shipped.cases:
        assert 14 <= len(case.unknowns) <= 15, case.id
        assert len({u.name for u in case.unknowns}) == len(case.unknowns), case.id


def test_shipped_unknowns_weigh_1_to_5_and_are_asked_in_three_phrasings_beside_golds(shipped):
    for case in shipped.cases:
        for unknown in case.unknowns:
            assert unknown.weight in (1, 2, 3, 4, 5), (case.id, unknown.name)
            own = set(unknown.asked) - set(case.gold.questions)
            assert len(own) == 3 and all(q.endswith("?") for q in own), (case.id, unknown.name)
        assert len({u.weight for u in case.unknowns}) > 1, case.id
