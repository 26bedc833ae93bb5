"""The page of a study or a loop while it runs: how far it is, how long it takes, the chart, the last runs."""

import os
import re
import subprocess
import sys
import time

import pytest

from lib.files import PROGRESS, ROOT, canonical, sha256
from lib.report.live import AGAIN, Live, chart
from lib.runs.ledger import Ledger
from lib.runs.record import record_of
from tests.report.test_tables import made


def chained(folder, records):
    """A ledger of these records; their folders are not needed to read it."""
    before, lines = "0" * 64, []
    for n, record in enumerate(records, 1):
        line = canonical({"n": n, "prev": before, "id": record["id"], "seal": "0" * 64, "record": record})
        before = sha256(line)
        lines.append(line + "\n")
    (folder / "ledger.jsonl").write_text("".join(lines))


@pytest.fixture
def live(tmp_path):
    chained(
        tmp_path, [made(1, "kept", 0.1, hypothesis="<i>first</i>"), made(2, "discarded", 0.05), made(3, "kept", 0.3)]
    )
    page = Live(tmp_path, tmp_path / "pages" / "live.html", "quick", 10)
    page.began -= 600
    return page


def said(live):
    return re.search(r'<p role="status">(.*?)</p>', live.path.read_text())[1]


def test_it_says_what_is_done_what_runs_and_how_long_it_will_take(live):
    live.show(4, "sft-penalty", ran=True)
    assert said(live) == "4 of 10 done, about 60 minutes left at the pace so far; now: sft-penalty"
    live.show(5, "best", ran=True)
    assert "about 25 minutes left" in said(live)


def test_rows_that_were_sealed_before_promise_no_pace(live):
    live.show(4, "x")
    assert said(live) == "4 of 10 done; now: x"


def test_it_loads_itself_again_until_the_end(live):
    live.show(1)
    page = live.path.read_text()
    assert f"<script>{AGAIN}</script>" in page and "script-src 'sha256-" in page and 'http-equiv="refresh' not in page
    live.end("3 runs")
    assert AGAIN not in live.path.read_text() and said(live) == "Ended: 3 runs"


def test_work_that_breaks_off_has_ended_and_says_by_what(live):
    with pytest.raises(KeyboardInterrupt), live:
        live.show(1)
        raise KeyboardInterrupt
    assert AGAIN not in live.path.read_text() and said(live) == "Ended: broken off (KeyboardInterrupt)"


def test_work_that_ended_is_not_said_to_have_broken_off(live):
    with live:
        live.end("3 runs")
    assert said(live) == "Ended: 3 runs"


KERNEL = """
import sys, time
from lib.lab.base import Telling
tell = Telling(30, 1, sys.argv[1])
for replies in range(0, 31, 6):
    tell("1 ask", replies)
    time.sleep(1)
"""


def until(shown, live):
    """The page, once it shows what is asked for."""
    for _ in range(200):
        page = live.path.read_text()
        if shown(page):
            return page
        time.sleep(0.1)
    raise AssertionError(page[page.index("<main>") :])


def test_the_cases_of_each_run_under_way_are_shown_until_its_kernel_ends(live):
    with live:
        live.show(4, "sft-penalty")
        assert PROGRESS not in os.environ  # another study of this process has a page of its own
        kernels = [
            subprocess.Popen([sys.executable, "-c", KERNEL, what], cwd=ROOT, env=os.environ | live.environment)
            for what in ("baseline-ask: One call.", "adapter-ask: <b>Trained.")
        ]
        page = until(
            lambda page: len(set(re.findall(r'value="([1-9]\d*)" max="30"', page))) and page.count("<li>") == 2, live
        )
        assert re.search(
            r"<li>1 ask <progress [^>]*></progress> \d+ of 30 cases, \d+ s left · baseline-ask: One call.</li>", page
        )
        assert (
            "adapter-ask: &lt;b&gt;Trained.</li>" in page and "4 of 10 done; now: sft-penalty" in page and AGAIN in page
        )
        for kernel in kernels:
            assert kernel.wait() == 0
        assert said(live) in until(lambda page: "<li>" not in page, live)
    assert not os.path.exists(live._folder)


def test_the_newest_run_comes_first_and_text_stays_text(live):
    live.show(1)
    page = live.path.read_text()
    assert page.index("<td>0003-run</td>") < page.index("<td>0001-run</td>")
    assert "<i>first</i>" not in page and "&lt;i&gt;first&lt;/i&gt;" in page


def test_the_chart_has_a_dot_a_run_and_says_itself_in_words(live):
    drawn = chart(Ledger.read(live.runs))
    assert drawn.count("<circle") == 3 and drawn.count('r="5"') == 2
    assert "Quality of 3 runs in order on the full gate; the best kept has 0.300" in drawn


@pytest.mark.parametrize("records", [[], [made(1, "crashed", None)]])
def test_nothing_to_draw_is_no_fault(tmp_path, records):
    assert chart(Ledger(tmp_path, [record_of(r) for r in records])) == ""
