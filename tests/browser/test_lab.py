"""The pages that are used by hand, in JupyterLab as a person sees them: they run, menus move, answers appear."""

import os
import re
import subprocess
import sys
import time

import pytest

from lib.files import ROOT
from lib.log import Log
from lib.runs.verify import RATED, RATINGS


@pytest.mark.slow
def test_the_first_page_runs_and_shows_one_answer_what_is_frozen_and_the_verdict(opened):
    page = opened("00_start.ipynb")
    page.run_all()
    page.says("register an ice cream van as a business: quality")
    page.says(re.compile("against gold, by the offline judge|Such a case scores 0"))  # whatever the model said
    page.says("three disjoint gates")
    page.page.locator(".jp-OutputArea-output img").wait_for()  # the climb; JupyterLab drops a picture's alt text
    assert page.errors == [] and page.wrong == [] and page.foreign == []


def test_the_explore_page_answers_a_picked_and_a_typed_task_after_a_menu_was_moved(opened):
    page = opened("01_explore.ipynb")
    page.run_all()
    page.says("Answered by smollm2")

    toy = page.page.locator("option", has_text=re.compile("^toy$"))
    page.page.locator(".widget-dropdown select").filter(has=toy).select_option("toy")
    handle = page.page.locator(".noUi-handle").first
    handle.focus()
    handle.press("ArrowRight")
    handle.press("ArrowRight")
    page.page.locator(".widget-readout", has_text="0.2").wait_for()
    page.says("Changed: press Answer.")
    page.page.get_by_role("button", name="Answer", exact=True).click()
    page.says("Answered by toy")
    page.says("against gold")

    page.page.locator(".widget-dropdown select").first.select_option("type a task of your own")
    page.page.get_by_placeholder("plan a trip to Paris").fill("teach my parrot to whistle")
    page.page.get_by_placeholder("plan a trip to Paris").press("Tab")
    page.page.get_by_role("button", name="Answer", exact=True).click()
    page.says("when you teach my parrot to whistle?")
    page.page.get_by_role("tab", name="Judgment").click()
    page.says("no gold answer")
    page.page.get_by_role("tab", name="Calls").click()
    page.says("Task: teach my parrot to whistle")
    assert page.errors == [] and page.wrong == [] and page.foreign == []


def test_a_typed_task_is_answered_side_by_side_blind_until_one_is_chosen(opened, lab):
    page = opened("01_explore.ipynb")
    page.run_all()
    page.says("3 sources will answer")
    page.page.get_by_role("textbox", name="your task").first.fill("teach my parrot to whistle")
    page.page.get_by_role("textbox", name="your task").first.press("Tab")
    page.page.get_by_role("button", name="Answer side by side").click()
    page.says("Who wrote it is said afterwards")
    columns = page.page.locator(".widget-html h4")
    assert columns.all_inner_texts() == ["A", "B", "C"]
    free = page.page.get_by_role("button", name=re.compile("^Choose [ABC]$")).locator("visible=true")
    enabled = [b for b in free.all() if b.is_enabled()]
    letter = enabled[0].inner_text()[-1]
    assert len(enabled) + page.page.get_by_text("✗ No answer:").count() == 3  # each is whole, or says its fault
    enabled[0].click()
    page.says(f"You chose {letter}, ")
    [row] = [r for r in Log(lab.folder / "rated" / RATINGS, RATED).rows if r["kind"] == "choice"]
    assert (row["task"], row["chosen"]) == ("teach my parrot to whistle", letter)
    assert columns.all_inner_texts() == [f"{at}: {row['letters'][at]}" for at in "ABC"]
    page.says(f"{row['letters'][letter]} 1 of 1 time")
    assert page.errors == [] and page.wrong == [] and page.foreign == []


def test_the_menus_can_be_reached_and_read_without_seeing_them(opened):
    page = opened("01_explore.ipynb")
    page.run_all()
    page.says("Answered by smollm2")
    unnamed = page.page.evaluate(
        """() => [...document.querySelectorAll('.jp-OutputArea-output select, .jp-OutputArea-output input')]
            .filter(e => !(e.labels && e.labels.length && e.labels[0].textContent.trim()) && !e.ariaLabel
                         && !e.title && !e.placeholder)
            .map(e => e.outerHTML)"""
    )
    assert unnamed == []


@pytest.mark.slow
def test_the_supervision_page_shows_a_loop_and_steers_it_by_files(opened, lab):
    env = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "lib.cli", "loop", "--runs", "3", "--runs", str(lab.folder / "runs"), "-p", "model", "toy",
               "--no-report"]  # fmt: skip
    subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True)
    page = opened("02_supervise.ipynb")
    page.run_all()
    page.says("runs are sealed")
    steer = lab.folder / "steer"
    page.page.get_by_placeholder("every proposal sees it", exact=True).fill("Try fewer questions.")
    page.page.get_by_role("button", name="write", exact=True).nth(1).click()
    page.page.get_by_role("button", name="pause", exact=True).click()
    wanted = [steer / "standing.md", steer / "PAUSE"]
    ends = time.monotonic() + 60
    while not all(f.exists() for f in wanted) and time.monotonic() < ends:
        page.page.wait_for_timeout(100)
    assert wanted[0].read_text(encoding="utf-8").strip() == "Try fewer questions." and wanted[1].exists()
    assert page.errors == [] and page.wrong == [] and page.foreign == []
