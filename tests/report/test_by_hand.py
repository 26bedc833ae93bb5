"""A blind reading of the sealed gate stands beside the offline judge, and a gain that it does not uphold is called so."""

import json

import pytest

from lib.report import by_hand
from lib.runs import by_hand as readings
from tests.report.test_tables import ERA, ledger_of, made

CASES = [f"c{i}" for i in range(12)]


def line(source, case, offline, score, run="", verdict="loss", questions=("Why?",) * 7):
    row = {"source": source, "case": case, "run": run, "title": "t", "questions": questions, "offline": offline}
    scores = dict.fromkeys(("atomicity", "coverage"), score) if questions else {}
    return {**row, "offline_verdict": "loss", "verdict": verdict, "scores": scores, "item": "i", "calls": []}


def read(tmp_path, *lines, fingerprint=ERA):
    head = {"about": {"model": "Claude", "fingerprint": fingerprint}}
    (tmp_path / readings.VERDICTS).write_text("".join(json.dumps(row) + "\n" for row in (head, *lines)))
    return ledger_of(tmp_path, made(1), made(2, slug="other"))


def source(name, run, offline, score, **more):
    return [line(name, case, offline + 0.001 * i, score + (i % 2), run, **more) for i, case in enumerate(CASES)]


@pytest.mark.parametrize(("score", "word"), [(4, ": upheld."), (2, ": **not upheld**.")])
def test_a_gain_is_called_upheld_only_where_the_reading_sees_it_too(tmp_path, score, word):
    ledger = read(tmp_path, *source("stock", "0001-a", 0.1, 2), *source("champion", "0002-b", 0.3, score))
    text = by_hand.beside(ledger).text
    assert "From stock to champion: +0.200 offline" in text and word in text
    assert "wins no case against gold" in text and "Claude read the answers to 12 sealed tasks blind" in text


def test_controls_stand_in_the_table_and_are_no_step_of_the_climb(tmp_path):
    ledger = read(tmp_path, *source("stock", "0001-a", 0.1, 2), *source("any-task set", "", 0.2, 2, verdict="win"))
    frame = by_hand.table(ledger)
    assert list(frame.what) == ["stock", "any-task set"] and list(frame["W/T/L by hand"]) == ["0/0/12", "12/0/0"]
    assert "From" not in by_hand.beside(ledger).text


def test_what_gave_no_valid_answer_counts_nothing(tmp_path):
    ledger = read(tmp_path, *source("stock", "0001-a", 0.0, 2, questions=()))
    assert list(by_hand.table(ledger)["quality by hand"]) == [0] and list(by_hand.table(ledger).valid) == ["0 of 12"]


@pytest.mark.parametrize("fingerprint", [ERA, "0" * 64])
def test_readings_of_another_era_are_not_shown(tmp_path, fingerprint):
    ledger = read(tmp_path, *source("stock", "0001-a", 0.1, 2), fingerprint=fingerprint)
    assert ("have not been read" in by_hand.beside(ledger).text) == (fingerprint != ERA)


def test_without_a_file_the_page_says_that_nothing_was_read(tmp_path):
    assert "have not been read by hand" in by_hand.beside(ledger_of(tmp_path, made(1))).text


def test_how_far_the_champion_came_by_hand_stands_between_the_weakest_and_the_strongest_other_source(tmp_path):
    climbed = [*source("stock", "0001-a", 0.1, 1), *source("champion", "0003-look", 0.3, 2)]
    beside = [*source("any-task set", "", 0.2, 1), *source("frontier", "", 0.4, 4), *source("briefed", "", 0.3, 3)]
    read(tmp_path, *climbed, *beside)
    look = made(3, slug="look", kind="confirm", gate="confirm", of="0002-champion")
    runs = [made(1), made(2, slug="champion"), look]
    ledger = ledger_of(tmp_path, *runs)
    # Scores of half 1 and half 2 are 0.0625 of 1 in all, and each point more is 0.125.
    said = by_hand.distance(ledger)
    assert "the champion gets 0.188, frontier 0.438, any-task set 0.062: 33 % of the way." in said
    assert "Beside the any-task set, by hand: stock +0.000 (p = 1); champion +0.125" in by_hand.beside(ledger).text
    later = ledger_of(tmp_path, *runs, made(4, slug="later", quality=0.5))
    assert by_hand.distance(later) == ""  # its answers were not read
    assert "frozen prompts alone (1 run since then, 1 kept):" in by_hand.beside(later).text
    unkept = ledger_of(tmp_path, *runs, *(made(n, "discarded", slug="later") for n in (4, 5)))
    assert "alone (2 runs since then, none kept):" in by_hand.beside(unkept).text
    assert "since then" not in by_hand.beside(ledger_of(tmp_path, *runs)).text
    read(tmp_path, *climbed)
    assert by_hand.distance(ledger) == ""  # nothing to stand between


def test_a_reading_without_a_dimension_says_whether_the_verdict_eases(tmp_path):
    read(tmp_path, *source("champion", "0002-b", 0.3, 2), *source("other", "0001-a", 0.3, 2))
    assert by_hand.blind(ledger_of(tmp_path, made(1))).text == ""
    blind = [*source("champion", "0002-b", 0.3, 2, verdict="tie"), *source("other", "0001-a", 0.3, 2)]
    head = {"about": {"model": "Claude", "fingerprint": ERA, "without": "coverage"}}
    (tmp_path / readings.BLIND).write_text("".join(json.dumps(row) + "\n" for row in (head, *blind)))
    text = by_hand.blind(ledger_of(tmp_path, made(1))).text
    assert "| champion | 0/0/12 | 0/12/0 | +0.500 |" in text and "| other | 0/0/12 | 0/0/12 | +0.000 |" in text
    assert "the verdict eases for champion: there coverage is a part of the reason." in text
