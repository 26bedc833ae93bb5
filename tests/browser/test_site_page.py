"""The pages of runs in a real browser, from files: search, menus, sorting, two runs side by side; no outside request."""

import json

import pytest

from lib.report import run_table, site
from lib.report.run_table import SCRIPT
from lib.runs.ledger import Ledger
from lib.runs.record import record_of
from tests.report.test_tables import made


@pytest.fixture
def opened(browser, tmp_path):
    """Opens a page of five runs; errors of the page and requests that leave it are kept."""
    records = [
        made(n, status, quality, slug, lever=lever)
        for n, (status, quality, slug, lever) in enumerate(
            [
                ("kept", 0.30, "first", "prompting"),
                ("discarded", 0.10, "second", "decoding"),
                ("discarded", 0.20, "third", "decoding"),
                ("indecisive", 0.25, "fourth", "schema"),
                ("crashed", None, "fifth", "schema"),
            ],
            1,
        )
    ]
    for record in records:
        folder = tmp_path / record["id"]
        folder.mkdir()
        base = record["scores"].get("quality", 0.0)
        rows = [{"case": c, "quality": base + 0.01 * k, "no_answer": "x"} for k, c in enumerate("abc")]
        (folder / "cases.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    ledger = Ledger(tmp_path, [record_of(r) for r in records])
    script = SCRIPT.read_text()
    for title, make in (("runs", run_table.runs), ("compare", run_table.compare)):
        (tmp_path / f"{title}.html").write_text(site.shell(title, make(ledger), [], script))
    page, faults = browser.new_page(viewport={"width": 1000, "height": 800}), []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("request", lambda r: faults.append(r.url) if not r.url.startswith("file://") else None)

    def at(name):
        page.goto(f"file://{tmp_path}/{name}")
        return page

    yield at
    assert faults == []
    page.close()


def shown(page):
    return page.locator("#runs tbody tr:visible td:nth-child(2)").all_inner_texts()


def test_a_search_a_menu_and_a_click_on_a_head_show_the_runs_that_fit_in_order(opened):
    page = opened("runs.html")
    assert len(shown(page)) == 5
    page.fill("#search", "decoding")
    assert shown(page) == ["0002-second", "0003-third"] and page.inner_text("#count") == "2 of 5 runs"
    page.fill("#search", "")
    page.select_option("select[data-column=status]", "discarded")
    assert shown(page) == ["0002-second", "0003-third"]
    page.select_option("select[data-column=status]", "")
    page.focus("th[data-column=quality] button")
    page.keyboard.press("Enter")
    assert shown(page) == ["0002-second", "0003-third", "0004-fourth", "0001-first", "0005-fifth"]
    page.keyboard.press("Enter")
    assert shown(page) == ["0001-first", "0004-fourth", "0003-third", "0002-second", "0005-fifth"]


def test_two_runs_are_set_side_by_side_and_the_address_names_them(opened):
    page = opened("compare.html?first=0001-first&second=0003-third")
    assert page.inner_text("#sum") == "Mean difference -0.100 over 3 cases: 0 better, 3 worse."
    page.select_option("#second", "0002-second")
    assert page.inner_text("#sum").startswith("Mean difference -0.200")
    first = page.locator("#pairs tbody tr").first
    assert first.locator("a").first.get_attribute("href").startswith("0001-first.html#")
    assert "0005-fifth" not in page.locator("#first").inner_text()


def test_on_paper_no_column_is_lost_and_on_a_phone_what_scrolls_is_reached_by_keyboard(opened):
    wider = """() => [...document.querySelectorAll('body, main *')].filter(e => e.scrollWidth > e.clientWidth + 1
        && e.clientWidth && getComputedStyle(e).overflowX !== 'hidden')"""
    for name in ("runs.html", "compare.html?first=0001-first&second=0003-third"):
        page = opened(name)
        page.emulate_media(media="print")
        page.set_viewport_size({"width": 1030, "height": 700})  # A4 across, less its margins
        assert page.evaluate(f"({wider})().map(e => e.outerHTML.slice(0, 80))") == []
        page.emulate_media(media="screen")
        page.set_viewport_size({"width": 375, "height": 700})
        assert page.evaluate("document.documentElement.scrollWidth") == 375
        scrolls = f"({wider})().filter(e => ['auto', 'scroll'].includes(getComputedStyle(e).overflowX))"
        assert page.evaluate(f"{scrolls}.filter(e => e.tabIndex < 0).map(e => e.outerHTML.slice(0, 80))") == []
