"""The page for a person's own verdicts, in JupyterLab: typed keys and buttons rate, the file says what was meant."""

import json
import time

from lib.log import Log
from lib.measure.judge import DIMENSIONS
from lib.runs.verify import RATED, RATINGS


def rows(lab, count):
    """The lines of ratings.jsonl, once there are so many."""
    ends = time.monotonic() + 60
    while len(found := Log(lab.folder / "rated" / RATINGS, RATED).rows) < count and time.monotonic() < ends:
        time.sleep(0.1)
    assert len(found) == count
    return found


def press(page, name):
    page.page.get_by_role("button", name=name, exact=True).click()


def test_a_case_is_rated_by_keys_alone_and_taken_back(opened, lab):
    page = opened("03_rate.ipynb")
    page.run_all()
    page.says("Press Start")
    press(page, "Start")
    page.says("Which set would help you more")
    page.page.locator(".notch-keys input:focus").wait_for()  # Start hands the keyboard over
    cells = page.page.locator(".jp-Notebook .jp-Cell").count()

    page.page.keyboard.type("a1521")
    page.says("Coverage of set A")
    page.page.keyboard.type("u")
    page.says("Specificity of set B")
    page.page.keyboard.type("3x444444")
    [first] = rows(lab, 1)
    page.says("1 rated")
    sides = dict(zip("AB", ([1, 2, 4, 4, 4], [5, 3, 4, 4, 4]), strict=True))
    assert first["verdict"] == ("loss" if first["gold"] == "A" else "win")
    assert [first["gold_scores"][d] for d in DIMENSIONS] == sides.pop(first["gold"])
    assert [[first["scores"][d] for d in DIMENSIONS]] == list(sides.values())

    page.page.keyboard.type("t" + "5" * 10)
    second = rows(lab, 2)[1]
    page.says("2 rated")
    assert second["verdict"] == "tie" and second["case"] != first["case"]
    page.page.keyboard.type("u")
    assert rows(lab, 3)[2]["item"] == second["item"] and rows(lab, 3)[2]["kind"] == "undo"
    page.says("1 rated")
    assert page.page.locator(".jp-Notebook .jp-Cell").count() == cells  # no key reached JupyterLab's own commands
    assert page.errors == [] and page.wrong == [] and page.foreign == []


def test_the_session_goes_on_where_it_was_and_buttons_do_what_keys_do(opened, lab):
    before = Log(lab.folder / "rated" / RATINGS, RATED).rows
    page = opened("03_rate.ipynb")
    page.run_all()
    page.says("1 rated")
    press(page, "Start")
    press(page, "B helps more (b)")
    page.says("Atomicity of set A")
    press(page, "3")
    page.says("Atomicity of set B")
    page.page.get_by_role("button", name="4", exact=True).focus()
    page.page.keyboard.press("Space")
    page.says("Specificity of set A")
    page.page.keyboard.type("2" * 8)  # a button hands the keyboard back
    row = rows(lab, len(before) + 1)[-1]
    assert json.dumps(row) and row["item"] == before[-1]["item"]  # what was taken back comes again
    press(page, "How far do the judges agree?")
    page.says("2 ratings beside the offline judge; 18 more")
    assert page.errors == [] and page.wrong == [] and page.foreign == []
