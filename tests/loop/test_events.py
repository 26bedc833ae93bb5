"""The loop's log: a chain that shows every change, and survives a kill in the middle of a line."""

import json

import pytest

from lib.files import Tampered, sha256
from lib.loop.events import NAME, Events, verify


@pytest.fixture
def three(tmp_path):
    events = Events(tmp_path)
    for word in ("one", "two", "three"):
        events.append("word", said=word)
    return tmp_path


def test_events_come_back_in_order_with_numbers_and_a_chain(three):
    rows = Events(three).rows
    assert [(r["n"], r["kind"], r["said"]) for r in rows] == [
        (1, "word", "one"),
        (2, "word", "two"),
        (3, "word", "three"),
    ]
    lines = (three / NAME).read_bytes().split(b"\n")
    assert [r["prev"] for r in rows[1:]] == [sha256(line) for line in lines[:2]]
    assert verify(three) == []


def test_no_events_are_no_error(tmp_path):
    assert Events(tmp_path).rows == [] and verify(tmp_path) == [] and not (tmp_path / NAME).exists()


@pytest.mark.parametrize("line", [0, 1, 2])
def test_a_changed_line_is_tampering_and_named(three, line):
    path = three / NAME
    rows = path.read_text().splitlines()
    rows[line] = rows[line].replace("word", "ward") if line < 2 else rows[line][:-1]
    path.write_text("\n".join(rows) + "\n")
    [said] = verify(three)
    assert f"{NAME}:{min(line + 2, 3)}" in said


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_torn_last_line_is_ignored_and_cut_away_by_the_next_append(three, cut):
    path = three / NAME
    path.write_bytes(path.read_bytes()[:-cut])
    events = Events(three)
    assert [r["said"] for r in events] == ["one", "two"] and verify(three) == []
    events.append("word", said="again")
    assert [r["said"] for r in Events(three)] == ["one", "two", "again"] and verify(three) == []


def test_a_log_that_changed_behind_the_back_of_a_reader_is_noticed(three):
    events = Events(three)
    path = three / NAME
    path.write_bytes(path.read_bytes().replace(b"one", b"eno"))
    with pytest.raises(Tampered):
        events.append("word", said="more")


def test_lines_that_a_sealed_run_vouches_for_cannot_be_taken_away(three):
    run = three / "0001-run"
    run.mkdir()
    (run / "proposal.json").write_text(json.dumps({"events": Events(three).head}))
    assert verify(three) == []
    path = three / NAME
    path.write_text("\n".join(path.read_text().splitlines()[:2]) + "\n")
    [said] = verify(three)
    assert "0001-run" in said


def test_half_a_character_can_be_kept(tmp_path):
    Events(tmp_path).append("word", said="half \ud800")
    assert verify(tmp_path) == [] and len(Events(tmp_path).rows) == 1
