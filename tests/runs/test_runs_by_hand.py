"""What was read by hand belongs to sealed looks and follows from its replies: whatever does not is named."""

import json

import pytest

from lib.files import ROOT, rows
from lib.measure.judge import DIMENSIONS
from lib.runs import by_hand

READ = ROOT / "runs" / by_hand.VERDICTS


def calls(first="B", second="A", score=3):
    """Replies to a candidate that is better in both orders."""
    replies = [("rubric", "gold_first", dict.fromkeys(DIMENSIONS, score)), ("pairwise", "gold_first", {"verdict": first}),
               ("pairwise", "candidate_first", {"verdict": second})]  # fmt: skip
    return [{"kind": kind, "order": order, "reply": {"reason": "r", **reply}} for kind, order, reply in replies]


def row(**changes):
    plain = {"source": "champion", "case": "kite", "run": "", "title": "Build", "questions": ["Why?"] * 7,
             "offline": 0.25, "offline_verdict": "loss", "verdict": "win", "flipped": False, "calls": calls(),
             "scores": dict.fromkeys(DIMENSIONS, 3)}  # fmt: skip
    return {**plain, **changes}


def written(folder, *rows):
    lines = [{"about": {"fingerprint": "f"}}, *rows]
    (folder / by_hand.VERDICTS).write_text("".join(json.dumps(r) + "\n" for r in lines))
    return folder


@pytest.fixture
def look(tmp_path):
    """A folder with one sealed run that answered one case."""
    run = tmp_path / "0001-look"
    run.mkdir()
    case = {"case": "kite", "answer": {"title": "Build", "questions": ["Why?"] * 7}, "quality": 0.25}
    (run / "cases.jsonl").write_text(json.dumps(case) + "\n")
    (run / "SEALED").write_text("")
    return tmp_path


def test_an_answer_that_the_look_holds_is_right(look):
    assert by_hand.verify(written(look, row(run="0001-look"), row())) == []
    assert by_hand.read(look)[0].quality == 0.75 and by_hand.about(look) == {"fingerprint": "f"}


@pytest.mark.parametrize(
    "changes", [{"title": "Buy"}, {"offline": 0.3}, {"case": "goat"}, {"run": "0002-none"}, {"run": "../0001-look"}]
)
def test_another_answer_quality_case_or_run_is_named(look, changes):
    [wrong] = by_hand.verify(written(look, row(**{"run": "0001-look", **changes})))
    assert "champion" in wrong and "not what" in wrong


def test_what_was_not_read_has_lost_and_orders_that_disagree_are_a_tie(tmp_path):
    unread = row(questions=[], calls=[], scores={}, verdict="loss")
    tie = row(calls=calls(second="B"), verdict="tie", flipped=True)
    assert by_hand.verify(written(tmp_path, unread, tie)) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"verdict": "tie"},
        {"flipped": True},
        {"scores": dict.fromkeys(DIMENSIONS, 4)},
        {"calls": calls(first="A")},
        {"calls": calls(score=4)},
        {"calls": calls(score=6), "scores": dict.fromkeys(DIMENSIONS, 6)},
        {"calls": calls()[:2]},
        {"calls": [], "scores": {}, "verdict": "loss"},
        {"questions": []},
        {"calls": [{}]},
    ],
)
def test_scores_and_a_verdict_that_do_not_follow_from_the_replies_are_named_by_line(tmp_path, changes):
    [wrong] = by_hand.verify(written(tmp_path, row(), row(**changes)))
    assert f"{by_hand.VERDICTS}:3: champion, kite: " in wrong and "repl" in wrong


@pytest.mark.parametrize(
    "change",
    [lambda read: read["calls"][1]["reply"].update(verdict="B"), lambda read: read["scores"].update(coverage=5.0)],
    ids=["reply", "score"],
)
def test_one_changed_reply_or_score_of_the_study_is_named(tmp_path, change):
    lines = [json.loads(line) for line in rows(READ.read_text(encoding="utf-8"))]
    place = next(
        n for n, line in enumerate(lines) if line.get("source") == "any-task set" and line["verdict"] == "loss"
    )
    about, read = lines[0], [line | {"run": ""} for line in lines[1:]]
    copy = tmp_path / by_hand.VERDICTS
    copy.write_text("".join(json.dumps(line) + "\n" for line in (about, *read)))
    assert by_hand.verify(tmp_path) == []
    change(read[place - 1])
    copy.write_text("".join(json.dumps(line) + "\n" for line in (about, *read)))
    [wrong] = by_hand.verify(tmp_path)
    assert wrong.startswith(f"{copy}:{place + 1}: any-task set") and "do not follow from the replies" in wrong


@pytest.mark.parametrize("changes", [{"verdict": "perhaps"}, {"offline": None}, {"questions": 7}])
def test_a_line_of_another_form_is_named(look, changes):
    [wrong] = by_hand.verify(written(look, row(**changes)))
    assert f"{by_hand.VERDICTS}:2" in wrong and next(iter(changes)) in wrong


def test_a_folder_without_the_file_is_well(tmp_path):
    assert by_hand.verify(tmp_path) == [] and by_hand.read(tmp_path) == []


def test_a_blind_reading_is_held_to_its_own_dimensions(look):
    blind = calls()
    del blind[0]["reply"]["coverage"]
    scores = dict.fromkeys(by_hand.seen("coverage"), 3)
    lines = [{"about": {"without": "coverage"}}, row(run="0001-look", calls=blind, scores=scores), row(calls=calls())]
    (look / by_hand.BLIND).write_text("".join(json.dumps(r) + "\n" for r in lines))
    [wrong] = by_hand.verify(look)
    assert wrong.startswith(f"{look / by_hand.BLIND}:3: champion, kite: a reply is missing or has another form")
