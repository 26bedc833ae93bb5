"""The page of a study under way in a real browser, from a file: it follows by itself, and asks nothing of a network."""

import os

import pytest

from lib.lab.base import tell
from lib.report.live import Live
from tests.report.test_live import chained
from tests.report.test_tables import made


@pytest.fixture
def live(tmp_path):
    chained(
        tmp_path,
        [made(1, "kept", 0.1), made(2, "discarded", 0.05), made(3, "kept", 0.3, hypothesis="One of many words. " * 7)],
    )
    return Live(tmp_path, tmp_path / "pages" / "live.html", "quick", 10)


@pytest.fixture
def page(browser):
    page, faults = browser.new_page(viewport={"width": 375, "height": 700}), []
    page.set_default_timeout(20_000)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("request", lambda r: faults.append(r.url) if not r.url.startswith("file://") else None)
    yield page
    assert faults == []
    page.close()


def test_it_follows_the_cases_by_itself_until_the_end_and_fits_a_phone(live, page, monkeypatch):
    with live:
        monkeypatch.setenv(*live.environment.popitem())  # this process is the kernel, too
        tell(
            "1 ask ████░░░░░░░░ 10 of 30 cases, 8 s left",
            "baseline-ask: A hypothesis that is long enough to need two lines.",
        )
        live.show(4, "sft-penalty")
        page.goto(f"file://{live.path}")
        assert page.locator("li").inner_text().startswith("1 ask  10 of 30 cases, 8 s left · baseline-ask")
        assert page.locator("progress").evaluate("bar => bar.position") == pytest.approx(1 / 3)
        assert page.evaluate("document.documentElement.scrollWidth") == 375
        assert page.locator("svg").evaluate("it => it.parentNode.scrollWidth <= it.parentNode.clientWidth")
        assert page.locator("#last tbody tr").first.bounding_box()["height"] < 150  # no column of single words
        tell("1 ask ████████░░░░ 20 of 30 cases, 4 s left", "baseline-ask: A hypothesis.")
        page.locator("li", has_text="20 of 30 cases").wait_for()
        live.end("3 runs")
        page.get_by_role("status", name="").filter(has_text="Ended: 3 runs").wait_for()
        assert page.locator("li").count() == 0 and str(os.getpid()) not in page.content()
        page.evaluate("window.still = true")
        page.wait_for_timeout(6000)
        assert page.evaluate("window.still")
