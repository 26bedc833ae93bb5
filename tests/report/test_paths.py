"""What follows is said by the numbers: three made-up ledgers get three other recommendations, and a bare one gets none."""

import json

import pytest

from lib.report import examples, paths
from tests.report.test_report_answer import CASES, frontier, sealed, stock
from tests.report.test_tables import ERA, ledger_of, made, scores


def kept(number, quality, slug="better", **changes):
    decision = {"reason": "r", "delta": 0.2, "p": 0.001, "against": "0001-stock"}
    return made(number, "kept", quality, slug, seed=number, decision=decision, **changes)


def scaled(tmp_path, *records):
    """A ledger with a calibration as its last run: a set that fits any task gets 0.05."""
    ledger = sealed(tmp_path, *records)
    found = {"controls": [scores(0.05, name="any-task set")], "floor": 0.0}
    calibration = made(99, "reference", None, "calibrate", kind="calibrate", found=found)
    (tmp_path / calibration["id"]).mkdir()
    rows = [{"part": "control", "kind": "any-task set", "case": c, "quality": 0.05} for c in CASES]
    (tmp_path / calibration["id"] / "cases.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return ledger_of(tmp_path, *ledger.records, calibration)


def test_a_champion_beside_the_frontier_is_shipped_and_documented(tmp_path):
    text = paths.recommendation(scaled(tmp_path, stock(), frontier(0.3), kept(3, 0.3))).text
    assert text.startswith("**Ship and document.**") and "has not stalled" in text
    assert "0003-better needs a look on the sealed tasks" in text


def test_a_champion_that_a_look_did_not_confirm_is_not_sent_to_another(tmp_path):
    decision = {"reason": "r", "delta": 0.05, "p": 0.0055, "against": "0004-look"}
    look = made(
        5, "indecisive", 0.3, "look-better", kind="confirm", gate="confirm", of="0003-better", decision=decision
    )
    first = made(4, "kept", 0.1, "look", kind="confirm", gate="confirm", of="0001-stock")
    text = paths.recommendation(scaled(tmp_path, stock(), frontier(0.9), kept(3, 0.3), first, look)).text
    assert (
        "was looked at and not confirmed (0005-look-better: +0.050, p = 0.0055, where a look needs p < 0.005)" in text
    )
    assert "what stands there is 0001-stock." in text and "needs a look" not in text


def test_a_climb_that_stalled_far_below_waits_for_a_bigger_base(tmp_path):
    vain = [made(n, "discarded", 0.2, f"vain-{n}", seed=n) for n in range(5, 5 + paths.PATIENCE)]
    text = paths.recommendation(scaled(tmp_path, stock(), frontier(0.9), kept(3, 0.3), *vain)).text
    assert text.startswith("**Wait for a bigger base.**")
    assert "The climb has stalled: 10 runs since 0003-better" in text


def test_a_champion_more_than_half_way_reframes_the_bar(tmp_path):
    text = paths.recommendation(scaled(tmp_path, stock(), frontier(0.5), kept(3, 0.4))).text
    assert text.startswith("**Reframe the bar, then ship and document.**")


def test_a_champion_below_what_fits_any_task_is_not_shipped(tmp_path):
    text = paths.recommendation(scaled(tmp_path, stock(0.01), frontier(0.9), kept(3, 0.02))).text
    assert text.startswith("**Ship nothing.**")


def test_where_every_change_failed_it_says_so(tmp_path):
    ledger = sealed(tmp_path, stock(), frontier(0.9), made(3, "discarded", 0.05, "worse", seed=3))
    assert "Of 1 change none was kept" in paths.recommendation(ledger).text
    assert "It never left the ground: 0001-stock at 0.100" in paths.climb(ledger).text


def test_without_the_low_end_of_the_scale_it_asks_to_measure_first(tmp_path):
    text = paths.recommendation(sealed(tmp_path, stock(), frontier(0.9), kept(3, 0.3))).text
    assert text.startswith("**Measure first.**")


def test_the_climb_names_its_steps_and_the_luckiest_run(tmp_path):
    ledger = sealed(tmp_path, stock(), kept(3, 0.3), made(4, "indecisive", 0.35, "lucky", seed=4))
    text = paths.climb(ledger).text
    assert "From 0.100 (0001-stock) to 0.300 in 1 step: 0003-better +0.200 (p = 0.001)." in text
    assert "The highest single score, 0.350 (0004-lucky), is indecisive" in text


@pytest.mark.parametrize("records", [[], [made(1, "crashed", None)], [made(1, "indecisive", 0.2)]])
def test_a_ledger_without_a_champion_recommends_nothing(tmp_path, records):
    ledger = sealed(tmp_path, *records)
    assert paths.recommendation(ledger).text.startswith("**None yet.**")
    assert "No run was kept yet" in paths.paths(ledger).text and "No run was kept" in examples.one(ledger, ERA).text
    everything = paths.reproduction(ledger).text + paths.climb(ledger).text
    assert everything and "nan" not in everything


def test_reproduction_counts_commits_minutes_and_uncommitted_runs(tmp_path):
    first = made(1, code={"commit": "a" * 40, "dirty": True}, seconds=90, machine={"python": "3.11"})
    second = made(2, code={"commit": "b" * 40}, seconds=30, machine={"python": "3.11"})
    text = paths.reproduction(ledger_of(tmp_path, first, second)).text
    assert f"2 commits, from `{'a' * 12}` to `{'b' * 12}`; 1 run of uncommitted code" in text
    assert "| 2 sealed runs, 2 minutes of running" in text and "| machine and versions | python 3.11 |" in text
