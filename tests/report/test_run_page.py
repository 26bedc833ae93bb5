"""What stands around a run's notebook: its head, its neighbours, its cases; no case of the sealed gate."""

from lib.measure.ruler import Case, Gold
from lib.report import run_page
from lib.runs.record import CaseRow, record_of
from tests.report.test_tables import made

SCORES = dict.fromkeys(("atomicity", "specificity", "coverage", "naturalness", "non_redundancy"), 3.0)
QUESTIONS = tuple(f"Which of the {n} <hives> do you keep?" for n in range(7))
KNOWN = {"a": Case("a", "keep bees", Gold("Keep bees", ("Where is gold's hive?",) * 7, "Where is gold's hive?"))}


def row(case="a", quality=0.25, **changes):
    plain = {
        "case": case, "task": f"keep bees {case} & more", "quality": quality,
        "answer": {"title": "Bees", "questions": list(QUESTIONS)},
        "calls": [{"step": "ask", "messages": [{"role": "user", "content": "Task: <b>bees</b>"}], "text": "{}"}],
        "judgment": {"scores": SCORES, "verdict": "loss", "notes": {"coverage": "unknowns not asked for (<site>)"}},
    }  # fmt: skip
    return CaseRow.read(plain | changes)


def test_the_head_names_status_quality_decision_and_both_neighbours():
    decision = {"reason": "better", "against": "0001-a", "delta": 0.02, "p": 0.01, "low": 0.01, "high": 0.03}
    said = run_page.head(record_of(made(2, "kept", 0.3, decision=decision)), "0001-a", "0003-b")
    assert "<h1>0002-run</h1>" in said and "<b>kept</b> better" in said and "0.300 (95 %" in said
    assert '+0.020 to <a href="0001-a.html">' in said and "p = 0.01" in said
    assert '<a rel="prev" href="0001-a.html">' in said and '<a rel="next" href="0003-b.html">' in said


def test_a_run_without_scores_and_neighbours_says_only_what_it_has():
    said = run_page.head(record_of(made(2, "crashed", None, error="Boom & more")), "", "")
    assert "quality" not in said and "rel=" not in said and "<pre>Boom &amp; more</pre>" in said


def test_cases_come_worst_first_each_with_answer_gold_judgment_and_calls():
    said = run_page.cases(record_of(made(1)), [row("b", 0.5), row("a", 0.25)], KNOWN)
    assert said.index('id="a"') < said.index('id="b"')
    assert "0.250 loss · keep bees a &amp; more" in said and "gold&#x27;s hive" in said
    assert "unknowns not asked for (&lt;site&gt;)" in said and "Task: &lt;b&gt;bees&lt;/b&gt;" in said
    assert said.count("<h3>gold</h3>") == 1  # the other case is not the ruler's


def test_a_case_without_an_answer_shows_why():
    silent = row("a", 0.0, answer=None, judgment=None, no_answer="six <questions>")
    said = run_page.cases(record_of(made(1)), [silent], KNOWN)
    assert "no verdict: six &lt;questions&gt;" in said and "<h3>no answer</h3>" in said and "<h3>gold</h3>" in said


def test_no_case_of_the_sealed_gate_is_shown():
    assert run_page.cases(record_of(made(1, gate="confirm")), [row()], KNOWN) == ""
