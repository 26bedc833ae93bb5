"""The first screen says what the ledger supports, whatever the ledger holds. The ledgers are made up."""

import json

import pytest

from lib.report import answer, tables
from tests.report.test_tables import ERA, ledger_of, made, scores

CASES = [f"c{i}" for i in range(12)]


def sealed(tmp_path, *records):
    """A ledger whose runs have their quality in every case, with a little noise of their own."""
    for record in records:
        if record["scores"]:
            (tmp_path / record["id"]).mkdir()
            base = record["scores"]["quality"]
            rows = [{"case": c, "quality": base + 0.001 * ((i * len(record["slug"])) % 5)} for i, c in enumerate(CASES)]
            (tmp_path / record["id"] / "cases.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return ledger_of(tmp_path, *records)


def frontier(quality, number=2):
    return made(number, "reference", quality, "frontier", lever="anchor", model="stored:claude")


def stock(quality=0.1, **changes):
    return made(1, "kept", quality, "stock", lever="baseline", **changes)


BETTER = made(
    3, "kept", 0.3, "better", seed=1, decision={"reason": "r", "delta": 0.2, "p": 0.001, "against": "0001-stock"}
)


@pytest.mark.parametrize(
    "best, said",
    [
        (
            0.6,
            "No: the champion of the small model gets 0.300 (0003-better, toy), the frontier's own answers 0.600 (stored:claude), 0.50 of it; the difference is -0.300",
        ),
        (
            0.3,
            "It cannot be told apart here: the champion of the small model gets 0.300 (0003-better, toy), the frontier's own answers 0.300",
        ),
        (
            0.2,
            "Yes, on these tasks: the small model gets 0.300 (0003-better, toy), the frontier's own answers 0.200 (stored:claude), 1.50 of it; the difference is +0.100",
        ),
    ],
)
def test_the_answer_follows_from_the_paired_difference_to_the_frontier(tmp_path, best, said):
    text = answer.opening(sealed(tmp_path, stock(), frontier(best), BETTER)).text
    assert said in text and f"{0.3 / best:.2f} of it" in text
    assert "it wins 10, ties 5 and loses 14 of 30 tasks; 1 had no valid answer." in text


def test_what_holds_up_is_counted_by_the_paired_test_and_on_sealed_tasks(tmp_path):
    ledger = sealed(tmp_path, stock(), frontier(0.6), BETTER)
    assert (
        "Of 1 change tried, 1 held up under a paired test on the same thirty tasks; none has been tried on the sealed"
        in answer.opening(ledger).text
    )
    look = made(4, "kept", 0.3, "look", kind="confirm", gate="confirm", of="0003-better",
                decision={"reason": "r", "delta": 0.1, "against": "0000-look"})  # fmt: skip
    ledger = ledger_of(tmp_path, *ledger.records, look)
    assert "and 1 of these on thirty sealed tasks as well" in answer.opening(ledger).text


@pytest.mark.parametrize(
    "records, said",
    [
        ([], "No run is sealed here: `make study` makes some."),
        ([made(1, "crashed", None), made(2, "invalid", 0.9)], "of 2 sealed runs 2 broke off or do not count"),
        ([made(1, "indecisive", 0.2)], "1 run of the full gate came to an end, and none of them was kept"),
    ],
)
def test_without_a_champion_the_question_stays_open_and_the_page_says_why(tmp_path, records, said):
    ledger = sealed(tmp_path, *records)
    text = answer.opening(ledger).text
    assert text.startswith("**Not answered yet.**") and said in text
    assert "nan" not in text + tables.show(answer.four(ledger)).text + answer.form(ledger).text


def test_one_run_is_a_start_and_no_gain(tmp_path):
    ledger = sealed(tmp_path, stock())
    text = answer.opening(ledger).text
    assert (
        "Not compared with a frontier model yet: toy gets 0.100 of 1." in text
        and "Nothing was tried after the first run yet." in text
    )
    assert "no gain to split" in answer.form(ledger).text and list(answer.four(ledger).what) == [
        "stock",
        "best prompting",
    ]


@pytest.mark.parametrize(
    "change",
    [{"pipeline": [{"step": "ask", "advice": ["coach"]}]}, {"decoding": {"temp": 0.7}}, {"adapter": "0003-sft"}],
)
def test_a_first_run_that_is_more_than_a_plain_call_is_not_called_stock(tmp_path, change):
    first = made(1, "kept", 0.2, "advice", **change)
    ledger = sealed(tmp_path, first, frontier(0.6))
    assert next(iter(answer.chosen(ledger).items())) == ("first run", "0001-advice")
    assert "stock" not in {*answer.four(ledger).what}
    assert next(iter(answer.chosen(ledger_of(tmp_path, first, stock())))) == "stock"  # a baseline after it is meant


def test_only_the_newest_era_answers(tmp_path):
    ledger = sealed(tmp_path, stock(), frontier(0.6), made(3, "kept", 0.5, "new", fingerprint="e" * 64))
    assert "gets 0.500 of 1" in answer.opening(ledger).text and ERA != "e" * 64


def test_the_figures_split_quality_into_form_and_content(tmp_path):
    half = scores(0.2, wins=0, ties=0, losses=15, no_answer=15)
    adapted = made(3, "kept", 0.3, "on", lever="adapter", adapter="a", scores=scores(0.3, losses=15, no_answer=0))
    ledger = sealed(tmp_path, stock(scores=half), frontier(0.6), adapted)
    f = answer.four(ledger).set_index("what")
    assert list(f.index) == ["stock", "best prompting", "best training", "frontier"]
    assert f.loc["stock", "valid"] == "15 of 30" and f.loc["stock", "quality when valid"] == pytest.approx(0.4)
    # 15 more valid answers at 0.4 each are +0.200 of quality; that it came to +0.100 is worse content.
    assert (
        "Of the gain of +0.100 since 0001-stock, +0.200 is form (valid answers to 100 % of the tasks instead of 50 %, at"
        in (answer.form(ledger).text)
    )
    assert "-0.100 is content" in answer.form(ledger).text


def test_where_nothing_was_valid_at_first_form_is_worth_what_fits_any_task(tmp_path):
    mute = scores(0.0, wins=0, ties=0, losses=0, no_answer=30)
    whole = made(3, "kept", 0.3, "better", seed=1, scores=scores(0.3, losses=15, no_answer=0))
    ledger = sealed(tmp_path, stock(0.0, scores=mute), whole)
    assert "cannot be split: it had no valid answer to begin with" in answer.form(ledger).text
    control = {"controls": [scores(0.1, name="any-task set")], "floor": 0.0}
    ledger = ledger_of(tmp_path, *ledger.records, made(4, "reference", None, kind="calibrate", found=control))
    text = answer.form(ledger).text
    assert "+0.100 is form" in text and "+0.200 is content" in text and "a set that fits any task" in text
