"""Steering by files: what is read, what is odd, each change an event, a wish spent once."""

import pytest

from lib.lab.experiment import BadParameters
from lib.loop import steering
from lib.loop.events import Events


def put(folder, **files):
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_an_empty_folder_steers_nothing(tmp_path):
    told = steering.read(tmp_path / "steer")
    assert (told.wish, told.standing, told.stop, told.pause, told.bans, told.limits, told.faults) == (
        "", "", False, False, frozenset(), {}, (),
    )  # fmt: skip


def test_every_file_is_read(tmp_path):
    put(tmp_path, next__md="try retrieval\n", standing__md="cheap things", bans__txt="decoding\n# no\nprune # why\n",
        budget__yaml="dollars: 2\nminutes: 5\n", STOP="", PAUSE="")  # fmt: skip
    told = steering.read(tmp_path)
    assert (told.wish, told.standing, told.stop, told.pause) == ("try retrieval", "cheap things", True, True)
    assert told.bans == {"decoding", "prune"} and told.limits == {"dollars": 2, "minutes": 5} and told.faults == ()


@pytest.mark.parametrize(
    "files, said",
    [
        ({"bans__txt": "retreival"}, "'retreival' is no lever"),
        ({"budget__yaml": "dolars: 2"}, "no parameter 'dolars', did you mean 'dollars'?"),
        ({"budget__yaml": "dollars: -1"}, "dollars is -1"),
        ({"budget__yaml": "dollars: .nan"}, "dollars is nan"),
        ({"budget__yaml": "dollars: yes"}, "dollars is True"),
        ({"budget__yaml": "- 1"}, "expected a mapping"),
        ({"budget__yaml": "{"}, "not YAML"),
    ],
)
def test_what_cannot_be_understood_is_said_and_counts_for_nothing(tmp_path, files, said):
    put(tmp_path, **files)
    told = steering.read(tmp_path)
    assert said in told.faults[0] and told.limits == {}


def test_a_limit_that_stands_twice_is_said_with_both_lines_and_neither_counts(tmp_path):
    steering.write(tmp_path, "budget.yaml", "dollars: 5\nminutes: 9\ndollars: 50\n")
    told = steering.read(tmp_path)
    assert told.limits == {} and told.faults == (
        f"{tmp_path / 'budget.yaml'}: 'dollars' stands in line 1 and again in line 3; keep one",
    )


def test_a_file_that_is_no_text_is_a_fault_not_an_error(tmp_path):
    (tmp_path / "next.md").write_bytes(b"\xff\xfe\x00")
    assert "next.md" in steering.read(tmp_path).faults[0]


def test_each_change_is_one_event(tmp_path):
    events, folder = Events(tmp_path / "runs"), tmp_path / "steer"
    for text in ("a", "a", "b", None):
        steering.write(folder, steering.STANDING, text)
        steering.note_changes(events, steering.read(folder))
    said = [(e["file"], e["change"], e["text"]) for e in events.of("steering")]
    assert said == [("standing.md", "written", "a"), ("standing.md", "changed", "b"), ("standing.md", "removed", "")]
    steering.note_changes(Events(tmp_path / "runs"), steering.read(folder))
    assert len(Events(tmp_path / "runs").of("steering")) == 3


def test_a_wish_is_the_newest_text_of_next_and_gone_with_the_file(tmp_path):
    events, folder = Events(tmp_path / "runs"), tmp_path / "steer"
    assert steering.wish_event(events) is None
    steering.write(folder, steering.NEXT, "try slots")
    steering.note_changes(events, steering.read(folder))
    assert steering.wish_event(events)["text"] == "try slots"
    steering.archive(folder, "0003-slots")
    steering.note_changes(events, steering.read(folder))
    assert steering.wish_event(events) is None
    assert (folder / "archive" / "0003-slots.md").read_text() == "try slots"


def test_only_steering_files_can_be_written(tmp_path):
    with pytest.raises(BadParameters, match=r"next\.md"):
        steering.write(tmp_path, "../ledger.jsonl", "x")


def test_the_queue_keeps_its_order(tmp_path):
    for name in "cab":
        steering.enqueue(tmp_path, {"hypothesis": name}, "agent")
    found = steering.queued(tmp_path)
    assert [p.name[:5] for p in found] == ["0001-", "0002-", "0003-"]
    assert '"c"' in found[0].read_text() and steering.queued(tmp_path / "none") == []
