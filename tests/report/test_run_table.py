"""The page of all runs, the page of two, and the same as text and CSV."""

import csv
import io
import json
import re
from dataclasses import replace

import pytest

from lib.measure.stats import paired
from lib.report import run_table
from lib.runs.ledger import Ledger, NoRun
from lib.runs.record import record_of
from tests.report.test_tables import made


@pytest.fixture
def ledger(tmp_path):
    """Two runs of the full gate with cases, one of another era, one of the sealed gate, one crash."""
    records = [
        made(1, "kept", 0.3, "first", hypothesis="A <b>bold</b> | claim"),
        made(2, "discarded", 0.4, "second"),
        made(3, "discarded", 0.4, "other", fingerprint="0" * 64),
        made(4, "kept", 0.5, "look", kind="confirm", gate="confirm"),
        made(5, "crashed", None, "broken", error="x"),
    ]
    for n, record in enumerate(records):
        folder = tmp_path / record["id"]
        folder.mkdir()
        rows = [{"case": c, "quality": 0.1 * n + 0.1 * k, "no_answer": "x"} for k, c in enumerate("abc")]
        (folder / "cases.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return Ledger(tmp_path, [record_of(r) for r in records])


def test_every_run_has_a_row_that_links_to_it_and_text_stays_text(ledger):
    page = run_table.runs(ledger)
    assert page.count("<tr>") == 1 + 5 and '<a href="0002-second.html">0002-second</a>' in page
    assert "<b>bold</b>" not in page and "A &lt;b&gt;bold&lt;/b&gt;" in page
    assert re.findall(r'<select data-column="(\w+)">', page) == list(run_table.FILTERS)
    assert "<option>crashed</option>" in page


def test_the_table_as_csv_has_a_line_a_run_and_numbers_its_eras(ledger):
    head, *lines = run_table.csv(ledger).splitlines()
    assert head.startswith('"era","id","kind","status"') and len(lines) == 5
    assert [line.split(",")[0] for line in lines] == ["1", "1", "2", "1", "1"]


@pytest.mark.parametrize("text", ['=HYPERLINK("http://x","y")', "+1", "-1,5", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_text_of_the_csv_is_a_formula_and_numbers_stay_numbers(ledger, text):
    lower = replace(ledger.records[1].decision, delta=-0.25)
    ledger.records[1] = ledger.records[1].revised(hypothesis=text, model=text, decision=lower, predicted=-0.1)
    first, second, *_ = csv.DictReader(io.StringIO(run_table.csv(ledger), newline=""))
    assert second["hypothesis"] == second["model"] == f"'{text}"
    assert first["hypothesis"] == "A <b>bold</b> | claim" and first["pipeline"] == "ask"
    assert (second["delta"], second["predicted"]) == ("-0.25", "-0.1")


def test_a_carriage_return_within_a_text_begins_no_row_of_the_csv(ledger):
    ledger.records[1] = ledger.records[1].revised(hypothesis="x\r=1+1,2\n=3")
    rows = [*csv.reader(io.StringIO(run_table.csv(ledger), newline=""))]
    assert len(rows) == 1 + 5 and rows[2][-1] == "x\r=1+1,2\n=3"
    assert '"x\r=1+1,2\n=3"' in run_table.csv(ledger)


def test_the_page_of_two_holds_scored_experiments_and_nothing_of_the_sealed_gate(ledger):
    page = run_table.compare(ledger)
    held = json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])
    assert set(held) == {"0001-first", "0002-second", "0003-other"}
    assert held["0001-first"]["group"] == held["0002-second"]["group"] != held["0003-other"]["group"]
    assert set(held["0001-first"]["quality"]) == set("abc")


def test_no_name_ends_the_element_that_holds_the_qualities(ledger):
    ledger.records[0] = ledger.records[0].revised(gate="</script><script>alert(1)</script>")
    page = run_table.compare(ledger)
    assert page.count("</script>") == 1 and json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])


def test_two_runs_case_by_case_the_worst_first_with_the_paired_difference(ledger):
    said, table = run_table.pairs(ledger, "first", "second")
    assert list(table.columns) == ["case", "0001-first", "0002-second", "difference"]
    assert table.difference.tolist() == pytest.approx([0.1] * 3)
    test = paired(table["0002-second"].tolist(), table["0001-first"].tolist())
    assert (
        said.startswith(f"0002-second against 0001-first: {test.delta:+.3f} (95 %")
        and "3 cases better, 0 worse" in said
    )


@pytest.mark.parametrize(
    ("second", "says"),
    [("other", "ruler and judge"), ("look", "sealed gate"), ("broken", "no scores")],
)
def test_runs_that_were_not_measured_alike_are_refused_by_name(ledger, second, says):
    with pytest.raises(ValueError, match=says):
        run_table.pairs(ledger, "first", second)


def test_an_unknown_run_is_named(ledger):
    with pytest.raises(NoRun, match="no run 'nope'"):
        run_table.pairs(ledger, "first", "nope")
