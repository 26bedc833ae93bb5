"""Change only the model: what may be compared, what is found in words, and that a seal holds it."""

import json

import pytest

from lib.files import canonical
from lib.lab.experiment import BadParameters, Experiment
from lib.lab.models import Models, caveats, moved, sealed, split
from lib.measure.answer import NoAnswer
from lib.measure.calibrate import row_of
from lib.measure.checks.compare import readings
from lib.measure.judge import DIMENSIONS, Judgment
from lib.runs.record import CaseRow, Code, ComparisonFindings
from lib.runs.verify import READINGS, recomputed

BETTER = {f"case-{i:02d}": 0.45 for i in range(12)}


@pytest.fixture
def two(lab, monkeypatch):
    """Two sealed runs that differ in the model alone, and one that asks differently."""
    monkeypatch.setenv("NOTCH_RUNS", str(lab.folder))
    lab.seal(slug="small", model="toy")
    lab.seal(BETTER, slug="large", model="large", lever="anchor")
    lab.seal(slug="other", model="third", pipeline=[{"step": "ask", "n": 8}])
    return lab


def groups(*runs):
    return Models(groups={"ask": list(runs)})


def test_runs_that_differ_in_the_model_alone_are_compared(two):
    found = groups("1", "2").check().run()
    runs = found.found["groups"][0]["runs"]
    assert [found.found["candidates"][r["run"]]["candidate"] for r in runs] == ["toy", "large"]
    assert runs[1]["difference"]["delta"] == pytest.approx(0.15)
    assert found.decision.status == "reference" and "1 of 1 other model (large +0.150)" in found.decision.reason


@pytest.mark.parametrize(
    "runs, said",
    [
        (("1", "3"), "differ in pipeline"),
        (("1",), "has 1 runs"),
        (("1", "1"), "has 1 runs"),
        (("1", "9"), "no run '9'"),
    ],
)
def test_what_cannot_be_compared_is_refused_by_name(two, runs, said):
    with pytest.raises(BadParameters, match=said):
        groups(*runs).check()


@pytest.mark.parametrize(
    "change, said",
    [
        ({"seed": 1}, "differ in seed"),
        ({"decoding": {"temp": 0.7}}, "differ in decoding"),
        ({"judging": {"replicate": 1}}, "differ in judging"),
        ({"fingerprint": "e" * 64}, "differ in fingerprint"),
        ({"gate": "dev"}, "ran on gate 'dev'"),
        ({"model": "toy"}, "has toy twice"),
        ({"status": "invalid"}, "expected a whole experiment"),
        ({"kind": "confirm", "status": "kept"}, "expected a whole experiment"),
    ],
)
def test_a_run_that_differs_in_more_than_the_model_is_refused(two, change, said):
    two.seal(slug="odd", **{"model": "odd"} | change)
    with pytest.raises(BadParameters, match=said):
        groups("1", "odd").check()


def test_a_run_with_unscored_cases_is_refused(two):
    two.seal(BETTER | {"case-00": None}, slug="cut", model="cut")
    with pytest.raises(BadParameters, match="0004-cut: expected a whole experiment"):
        groups("1", "cut").check()


def test_no_groups_and_a_group_that_is_no_list_are_refused():
    with pytest.raises(BadParameters, match="groups is empty"):
        Models().check()
    with pytest.raises(BadParameters, match="groups ask is .1.: expected a list"):
        Models(groups={"ask": "1"})


def test_the_key_names_what_is_compared_and_not_what_was_expected(two):
    assert groups("1", "2").key == Models(hypothesis="other words", groups={"ask": ["small", "large"]}).key
    assert groups("1", "2").key != groups("2", "1").key


def test_a_sealed_comparison_is_verified_from_its_judgments(two):
    found = groups("1", "2").run()
    record, rows = found.result.record, found.cases
    assert recomputed(record, [CaseRow.read(r) for r in rows]) == []
    rows[0]["judgment"]["scores"]["coverage"] += 1
    assert recomputed(record, [CaseRow.read(r) for r in rows])
    canonical(record.as_dict())  # plain data, no numpy left in it


def test_the_first_candidate_stays_the_first_through_the_seal(two):
    found = ComparisonFindings.read(json.loads(canonical(groups("2", "1").run().found)))
    assert [r.run for r in found.groups[0].runs] == ["0002-large", "0001-small"]
    assert moved(found)[0].startswith("**ask**, toy against large: quality 0.450 → 0.300 (-0.150")


def test_a_comparison_begins_no_era_and_is_no_run_of_the_climb(two):
    record = groups("1", "2").run().result.record
    assert record.scores is None and record.kind in READINGS


def test_the_sentences_say_what_moved_and_what_did_not(two):
    told = moved(groups("1", "2").run().record.found)
    assert "large against toy: quality 0.300 → 0.450 (+0.150" in told[0]
    assert "coverage" in told[0] and "coverage moved when only the model changed" in told[1]
    same = groups("1", "same")
    two.seal(slug="same", model="same")
    still = moved(same.run().record.found)
    assert "no dimension" in still[0] and "did not move beyond chance" in still[1]


def test_where_no_case_was_judged_in_both_no_dimension_is_said_to_stand_still():
    lost = Judgment(dict.fromkeys(DIMENSIONS, 3), "loss")
    sides = {"a": NoAnswer("cut off"), "b": lost}
    rows = [row_of("sealed", f"c{i}", side, group="ask", run=run) for run, side in sides.items() for i in range(9)]
    about = {"adapter": "", "lever": "", "calls": 9, "generation_tokens": 9, "dollars": 0.0, "useful": {}}
    candidates = {run: about | {"candidate": f"m + runs/0003-{run}/adapter", "model": "m"} for run in sides}
    first, second = moved(ComparisonFindings.read(readings(rows) | {"candidates": candidates}))[:2]
    assert "m + 0003-b against m + 0003-a: quality 0.000 → 0.250 (+0.250, p = 0.00391)." in first
    assert "Moved beyond chance" not in first and "no dimension can be compared" in second


def test_a_sealed_run_is_found_by_what_it_does_whatever_was_expected(lab):
    wanted = Experiment(hypothesis="new words", lever="anchor", model="toy")
    lab.seal(slug="there", model="toy", fingerprint=wanted.fingerprint, hypothesis="old words", predicted=0.3)
    assert sealed(lab.read(), wanted).slug == "there"
    other = Experiment(hypothesis="x", model="toy", seed=1)
    assert sealed(lab.read(), other) is None
    asked = Experiment(hypothesis="x", model="toy", useful=True)
    assert sealed(lab.read(), asked) is None


def test_what_was_not_the_same_is_said(lab):
    same = lab.record_of({}, code={"sha256": "a"}, machine={"python": "3"}, model="smollm2")
    assert caveats([same, same]) == []
    cloud = same.revised(model="claude-haiku-4-5", code=Code(sha256="b"), machine={"python": "4"})
    told = " ".join(caveats([same, cloud]))
    assert "claude-haiku-4-5 cannot decode greedily" in told and "states of the code" in told and "machines" in told


def test_a_candidate_is_a_model_or_a_model_with_an_adapter(lab):
    assert split("smollm2") == ("smollm2", "")
    assert split("ORG/NAME+runs/0030-sft/adapter") == ("ORG/NAME", "runs/0030-sft/adapter")
    assert lab.record_of({}, model="smollm2", adapter="runs/a").candidate == "smollm2 + runs/a"
