"""A toy ruler of five cases, for whatever needs a ruler that it may break."""

import json
from collections import Counter

import pytest

from lib.measure.judge import DIMENSIONS
from lib.measure.ruler import freeze

# --doctest-modules would import every conftest.py a second time, under one name.
collect_ignore_glob = ["conftest.py", "*/conftest.py"]
TASKS = (
    ("toy-kite", "full", "creative", "build a kite"),
    ("toy-attic", "full", "home", "insulate the attic"),
    ("toy-goat", "full", "admin", "register my goat"),
    ("toy-chess", "dev", "learning", "learn chess endings"),
    ("toy-canoe", "confirm", "travel", "cross the lake by canoe"),
)
ASKED = ("How soon", "How often", "How big", "How far", "How old", "How cheap", "How heavy")


def pytest_collection_modifyitems(items):
    """Files with the most slow tests first: begun last, one of them would keep one core busy and the others idle."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def write_ruler(folder, tasks=TASKS):
    """Write a ruler of such tasks without a seal: nothing in it but what a ruler must have. Returns its folder."""
    folder.mkdir()
    cases, gold = [], []
    for name, gate, area, task in tasks:
        cases.append({"id": name, "gate": gate, "area": area, "task": task})
        questions = [f"{asked} must it be to {task}?" for asked in ASKED]
        gold.append({"id": name, "title": task.capitalize(), "questions": questions, "critical": questions[2]})
    rubric = [{"name": d, "description": f"What {d} means.", "anchors": list("12345")} for d in DIMENSIONS]
    protocol = {"questions": 7, "blend": [0.5, 0.5], "generic_titles": ["title", "task"]}
    (folder / "cases.jsonl").write_text(lines(cases))
    (folder / "gold.jsonl").write_text(lines(gold))
    (folder / "rubric.json").write_text(json.dumps({"dimensions": rubric}))
    (folder / "protocol.json").write_text(json.dumps(protocol))
    (folder / "judge_rubric.md").write_text("Score the answer.\n")
    (folder / "judge_pairwise.md").write_text("Which answer is better?\n")
    return folder


@pytest.fixture
def unfrozen_ruler(tmp_path):
    """The folder of a ruler of five cases without a seal: three full, one dev, one confirm."""
    return write_ruler(tmp_path / "ruler")


@pytest.fixture
def frozen_ruler(unfrozen_ruler):
    """The folder of the same ruler, sealed."""
    freeze(unfrozen_ruler)
    return unfrozen_ruler
