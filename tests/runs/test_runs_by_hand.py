"""What was read by hand belongs to sealed looks: another answer, quality or form is named."""

import json

import pytest

from lib.runs import by_hand


def row(**changes):
    plain = {"source": "champion", "case": "kite", "run": "", "title": "Build", "questions": ["Why?"] * 7,
             "offline": 0.25, "offline_verdict": "loss", "verdict": "tie", "scores": {"coverage": 3}}  # fmt: skip
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
    assert by_hand.read(look)[0].quality == 0.5 and by_hand.about(look) == {"fingerprint": "f"}


@pytest.mark.parametrize(
    "changes", [{"title": "Buy"}, {"offline": 0.3}, {"case": "goat"}, {"run": "0002-none"}, {"run": "../0001-look"}]
)
def test_another_answer_quality_case_or_run_is_named(look, changes):
    [wrong] = by_hand.verify(written(look, row(**{"run": "0001-look", **changes})))
    assert "champion" in wrong and "not what" in wrong


@pytest.mark.parametrize("changes", [{"verdict": "perhaps"}, {"offline": None}, {"questions": 7}])
def test_a_line_of_another_form_is_named(look, changes):
    [wrong] = by_hand.verify(written(look, row(**changes)))
    assert f"{by_hand.VERDICTS}:2" in wrong and next(iter(changes)) in wrong


def test_a_folder_without_the_file_is_well(tmp_path):
    assert by_hand.verify(tmp_path) == [] and by_hand.read(tmp_path) == []
