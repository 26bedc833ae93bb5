"""What the loop's guard looks at, without a loop."""

import shutil

import pytest

from lib.files import ROOT
from lib.loop.guard import FILES, ROOMS, differing, measuring


@pytest.fixture
def checkout(tmp_path):
    for room in ROOMS:
        if (ROOT / "lib" / room).exists():
            shutil.copytree(ROOT / "lib" / room, tmp_path / "lib" / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        if (ROOT / "lib" / name).exists():
            (tmp_path / "lib" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / "lib" / name, tmp_path / "lib" / name)
    (tmp_path / "notebooks").mkdir()
    for template in (ROOT / "notebooks").glob("1*.ipynb"):
        shutil.copy(template, tmp_path / "notebooks")
    return tmp_path


def test_the_code_of_a_copy_is_the_same(checkout):
    assert measuring(checkout) == measuring() and "lib/measure/score.py" in measuring()


@pytest.mark.parametrize(
    "name", [".DS_Store", "._score.py", "checks/Thumbs.db", ".ipynb_checkpoints/score-checkpoint.py"]
)
def test_what_a_desktop_leaves_beside_the_measure_is_no_change(checkout, name):
    path = checkout / "lib" / "measure" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"\0")
    assert differing(measuring(), measuring(checkout)) == []


@pytest.mark.parametrize(
    "name",
    [
        "lib/measure/score.py",
        "lib/measure/more.py",
        "lib/claude/.hidden",
        "lib/models/embed.py",
        "lib/lab/kernel.py",
        "lib/loop/guard.py",
        "lib/loop/validate.py",
        "lib/agent/guard.py",
        "lib/weights.py",
        "notebooks/10_experiment.ipynb",
        "notebooks/12_confirm.ipynb",
    ],
)
def test_what_answers_measures_or_seals_may_not_change(checkout, name):
    with open(checkout / name, "a") as file:
        file.write("# changed\n")
    assert differing(measuring(), measuring(checkout)) == [name]


def test_a_lever_and_the_notebooks_of_a_person_are_free(checkout):
    for name in ("lib/agent/steps/mine.py", "lib/report/mine.py", "notebooks/01_explore.ipynb"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text("changed")
    assert differing(measuring(), measuring(checkout)) == []
