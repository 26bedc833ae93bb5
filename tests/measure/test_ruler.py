"""A ruler loads only as it was frozen, and says which file is not; and what the shipped ruler promises."""

import json
import re
from collections import Counter

import pytest

from lib.measure.answer import Answer, normalised, spec_gate
from lib.measure.judge import DIMENSIONS
from lib.measure.ruler import AREAS, FILES, GATES, BadRuler, Ruler, Tampered, freeze


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
        ("cases.jsonl", lambda rows: rows[1].update(gate="fulll"), "'toy-attic' has gate 'fulll'"),
        ("cases.jsonl", lambda rows: rows[1].pop("task"), "cases.jsonl:2: 'task' is not a str"),
        ("gold.jsonl", lambda rows: rows.pop(2), "gold.jsonl: no gold answer for case 'toy-goat'"),
        ("gold.jsonl", lambda rows: rows.append({**rows[0], "id": "toy-x"}), "gold.jsonl: gold for 'toy-x'"),
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
