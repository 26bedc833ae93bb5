"""Worst and best cases beside a frontier's and gold. Ruler and runs are made up."""

import json

import pytest

from lib.measure.ruler import Case, Gold, Protocol, Ruler
from lib.report import examples
from lib.runs.record import Identity
from tests.report.test_tables import ledger_of, made

CASES = [*(f"c{i}" for i in range(8)), "sealed"]
JUDGE = {"kind": "toy"}


@pytest.fixture
def ruler(tmp_path):
    cases = [Case(c, f"task <{c}>", Gold(f"gold {c}", tuple(f"gold {c} {n}?" for n in range(7))),
                  "confirm" if c == "sealed" else "full") for c in CASES]  # fmt: skip
    return Ruler(tuple(cases), (), Protocol(), {}, "seal", tmp_path)


def row(case, quality, name, text="x" * 200):
    answer = {"title": f"{name} {case}", "questions": [f"{name} {case} {n}?" for n in range(7)]}
    silent = {"answer": None, "no_answer": "6 questions instead of 7", "quality": 0.0}
    found = silent if quality == 0 else {"answer": answer, "no_answer": None, "quality": quality}
    return {
        "case": case,
        "calls": [{"step": "ask", "text": "first"}, {"step": "ask", "text": text}] if text else [],
    } | found


@pytest.fixture
def lab(tmp_path, ruler):
    def of(*runs):
        era, records = ruler.fingerprint(JUDGE), []
        for record, qualities in runs:
            record |= {"fingerprint": era, "identity": {"judge": JUDGE}}
            (tmp_path / record["id"]).mkdir()
            rows = [row(c, q, record["slug"]) for c, q in zip(CASES, qualities, strict=False)]
            (tmp_path / record["id"] / "cases.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
            records.append(record)
        return ledger_of(tmp_path, *records), era

    return of


def summaries(text):
    return [
        line.partition("<summary>")[2].partition("</summary>")[0] for line in text.splitlines() if "<summary>" in line
    ]


SCORES = [0.4, 0.1, 0.4, 0.3, 0.1, 0.2, 0.9, 0.1]


def test_three_worst_and_three_best_are_shown_and_ties_go_by_case_id(lab, ruler):
    ledger, era = lab((made(1, "kept", 0.1, "stock", lever="baseline"), SCORES))
    found = [s.partition(":")[0] + s[-5:] for s in summaries(examples.answers(ledger, era, ruler).text)]
    worst, best = (
        ["worst, 0.100 (c1)", "worst, 0.100 (c4)", "worst, 0.100 (c7)"],
        ["best, 0.900 (c6)", "best, 0.400 (c0)"],
    )
    assert found == [*worst, *best, "best, 0.400 (c2)"]


def test_each_answer_stands_beside_the_stronger_frontier_and_gold(lab, ruler):
    ledger, era = lab(
        (made(1, "kept", 0.1, "stock", lever="baseline"), SCORES),
        (made(2, "reference", 0.5, "weak", lever="anchor", model="stored:weak"), [0.5] * 8),
        (made(3, "reference", 0.6, "strong", lever="anchor", model="stored:strong", adapter=""), [0.6] * 8),
        (made(4, "reference", 0.9, "local", lever="anchor", model="other"), [0.9] * 8),
        (made(5, "kept", 0.2, "low", adapter="a"), SCORES), (made(6, "discarded", 0.3, "high", adapter="b"), SCORES),
    )  # fmt: skip
    text = examples.answers(ledger, era, ruler).text
    assert "|  | 0001-stock | 0003-strong | gold |" in text and "|  | 0006-high | 0003-strong | gold |" in text
    assert "| quality | 0.100 | 0.600 |  |" in text and "| 7 | stock c1 6? | strong c1 6? | gold c1 6? |" in text
    assert "0002-weak" not in text and "0004-local" not in text and "0005-low" not in text
    assert "task &lt;c1&gt;" in text and len(summaries(text)) == 12


def test_a_model_without_a_valid_answer_shows_six_failures_with_reason_and_reply(lab, ruler):
    ledger, era = lab((made(1, "kept", 0.0, "stock", lever="baseline"), [0] * 8))
    text = examples.answers(ledger, era, ruler).text
    assert [s[-3:-1] for s in summaries(text)] == ["c0", "c1", "c2", "c3", "c4", "c5"]
    assert "0 valid answers to 8 tasks. So there is no best and no worst" in text
    assert "| quality | 0.000 |  |" in text and "| title | no answer: 6 questions instead of 7 | gold" in text
    assert f"| 1 | It wrote: “{'x' * examples.LINE}…” | gold" in text
    assert "|  | 0001-stock | gold |" in text and "first" not in text.partition("show what it wrote")[2]


def test_a_first_run_with_advice_is_not_headed_as_the_stock_model(lab, ruler):
    ledger, era = lab((made(1, "kept", 0.1, "own", pipeline=[{"step": "ask", "advice": ["coach"]}]), SCORES))
    text = examples.answers(ledger, era, ruler).text
    assert text.startswith("**The first run, 0001-own**") and "stock" not in text


def test_the_sealed_gate_is_never_shown(lab, ruler):
    ledger, era = lab((made(1, "kept", 0.1, "stock", lever="baseline"), [0.5] * 8 + [0.01]))
    assert "sealed" not in examples.answers(ledger, era, ruler).text


def test_gold_of_another_ruler_is_left_out_and_no_run_is_said(lab, ruler, tmp_path):
    ledger, era = lab((made(1, "kept", 0.1, "stock", lever="baseline"), SCORES))
    ledger.records[0] = ledger.records[0].revised(identity=Identity(judge={"kind": "other"}))
    assert "|  | 0001-stock |\n" in examples.answers(ledger, era, ruler).text
    assert "No run on the full gate" in examples.answers(ledger_of(tmp_path), era, ruler).text
