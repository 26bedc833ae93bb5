"""Calibration and re-judge as runs: refused before they start, read back from the ledger, verified, sealed."""

import json
from dataclasses import replace

import pytest

from lib.agent import pipeline
from lib.agent.prompt import Draft
from lib.claude.prices import BudgetSpent
from lib.files import canonical
from lib.lab import calibration, execute
from lib.lab.calibration import Calibration, Judges
from lib.lab.experiment import BadParameters, Experiment
from lib.lab.rejudge import Rejudge
from lib.measure.answer import NoAnswer
from lib.measure.calibrate import BOTTOM, row_of
from lib.measure.checks.noise import null_world
from lib.measure.judge import DIMENSIONS
from lib.measure.ruler import Ruler
from lib.report import measured, tables
from lib.report.era import eras
from lib.runs import seal as seals
from lib.runs.ledger import Ledger
from lib.runs.record import CaseRow, RunCost
from lib.runs.verify import recomputed, verify
from tests.lab.conftest import without_kernel

SMALL = {"model": "toy", "repeats": 2, "damaged": 3, "gate": "dev"}  # of two sets, one odd set would decide


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """An empty folder of runs that everything here reads and writes."""
    monkeypatch.setenv("NOTCH_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def typed(rows):
    return [CaseRow.read(row) for row in rows]


def seal(folder, run, slug):
    """Seal what a calibration, a re-judge or an experiment found, as a notebook does, without a kernel."""
    data = run.result._repr_mimebundle_()[execute.MIME]
    record = json.loads(json.dumps(data["record"]))
    cases = "".join(canonical(json.loads(json.dumps(r))) + "\n" for r in data["cases"]).encode()

    def finish(name):
        return {"record.json": json.dumps(record | {"id": name, "slug": slug}).encode(), "experiment.ipynb": b"{}"}

    return seals.seal(folder, slug, {"cases.jsonl": cases}, finish)


@pytest.fixture
def baseline(runs):
    """The id of a sealed run of the toy on the dev gate."""
    return seal(runs, Experiment(hypothesis="x", model="toy", gate="dev").run(), "baseline")


# --- refused before anything runs


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"repeats": 1}, "repeats is 1"),
        ({"repeats": True}, "repeats is True"),
        ({"damaged": -1}, "damaged is -1"),
        ({"decoding": {"seed": 3}}, "decoding has a seed"),
        ({"gate": "confirm"}, "sealed"),
        ({"judge": "nosuch"}, "nosuch"),
        ({"model": 3}, "model is 3"),
        ({"of": "0001-nosuch"}, "no run '0001-nosuch'"),
    ],
)
def test_a_calibration_that_cannot_run_is_refused(runs, changes, said):
    with pytest.raises(BadParameters, match=said):
        Calibration(**(SMALL | changes)).check()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"runs": []}, "runs is empty"),
        ({"runs": "0001"}, "expected a list"),
        ({"runs": ["9"]}, "no run '9'"),
        ({"without": "style"}, "without is 'style'"),
        ({"judge": "nosuch"}, "nosuch"),
        ({"hypothesis": " "}, "hypothesis is empty"),
        ({"judge": "claude", "judging": {"protocol": "seed"}}, "needs protocol 'balanced'"),
    ],
)
def test_a_rejudge_that_cannot_run_is_refused(runs, baseline, changes, said):
    with pytest.raises(BadParameters, match=said):
        Rejudge(**({"runs": [baseline]} | changes)).check()


def test_runs_of_the_sealed_gate_are_not_judged_again(lab, monkeypatch):
    monkeypatch.setenv("NOTCH_RUNS", str(lab.folder))
    run = lab.seal(kind="confirm", gate="confirm")
    with pytest.raises(BadParameters, match="open gate"):
        Rejudge(runs=[run]).check()
    with pytest.raises(BadParameters, match="open gate"):
        Calibration(**(SMALL | {"of": run})).check()


def test_a_run_with_cases_that_the_ruler_does_not_have_is_refused(lab, monkeypatch):
    monkeypatch.setenv("NOTCH_RUNS", str(lab.folder))
    run = lab.seal()
    path = lab.folder / run / "cases.jsonl"
    told = path.read_text().replace('"answer":null', '"answer":{"questions":["Why?"],"title":"x"}')
    lab.overwrite(path, told.encode())
    with pytest.raises(BadParameters, match="case-00"):
        Rejudge(runs=[run]).check()


def test_the_cap_is_for_the_whole_calibration():
    judges = Judges(Experiment(judge="claude", judging={"dollars": 0.5}))
    assert judges.judging(0)["dollars"] == 0.5
    judges.book(RunCost(judge_dollars=0.4))
    assert judges.judging(3) == {"dollars": pytest.approx(0.1), "replicate": 3}
    judges.book(RunCost(judge_dollars=0.1))
    with pytest.raises(BudgetSpent, match=r"\$0.50"):
        judges.judging(4)


def test_the_plan_says_what_it_costs_before_it_is_spent(runs):
    told = Calibration(judge="claude", model="toy", judging={"dollars": 2.0}).plan
    assert "judgments at most, 3 calls each: about $" in told and "never more than $2.00" in told
    assert "not measured yet" in told
    assert "$" not in Calibration(model="toy").plan


# --- what comes out


def test_a_calibration_measures_judge_and_noise_and_verifies(runs, baseline):
    run = Calibration(**(SMALL | {"of": baseline})).run()
    found = run.found
    assert found["own_falls_most"] == dict.fromkeys(DIMENSIONS, True)
    assert (found["same"]["cases"], found["fresh"]["cases"]) == (10, 10)
    assert found["floor"] == 0 and run.decision.floor == 0 and found["detectable"] == 0
    assert found["halo"]["judgments"] == 30  # ten stored, ten a repeat
    seal(runs, run, "calibrate")
    assert verify(runs) == []
    assert Ledger.read().floor(run.record.fingerprint) == 0


def test_a_reading_that_does_not_follow_from_the_rows_is_found(runs):
    data = Calibration(**SMALL).run().result
    record, rows = data.record, typed(data.cases)
    assert recomputed(record, rows) == []
    forged = record.revised(found=record.found.revised(floor=0.5))
    assert recomputed(forged, rows) == ["floor"]
    rows[0] = rows[0].revised(quality=0.1)
    assert recomputed(record, rows)[0] == f"quality of {rows[0].case}"


CONTROLS = {"gold", "damaged gold", "gold of another task", "toy template", "any-task set"}


def test_a_calibration_seals_the_controls_of_its_gate_and_verifies_them(runs):
    run = Calibration(**SMALL).run()
    found = {c["name"]: c for c in run.found["controls"]}
    assert set(found) == CONTROLS | {"stored:claude", "stored:claude-briefed"}
    assert found["gold"]["ties"] == 10 and all(found[n]["quality"] < found["gold"]["quality"] for n in BOTTOM)
    assert all(0 < found[n]["quality"] < found["stored:claude"]["quality"] for n in BOTTOM)
    toy = Experiment(hypothesis="x", model="toy", gate="dev").run()
    assert found["toy template"]["quality"] == pytest.approx(toy.record.scores.quality)
    seal(runs, run, "calibrate")
    assert verify(runs) == []
    forged = [{**run.found["controls"][0], "quality": 0.9}, *run.found["controls"][1:]]
    record = run.result.record.revised(found=run.record.found.revised(controls=forged))
    assert recomputed(record, typed(run.cases)) == ["controls"]


def test_a_ruler_without_stored_answers_has_no_frontier_among_its_controls(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "RULER", tmp_path)
    assert {c["name"] for c in Calibration(**SMALL).run().found["controls"]} == CONTROLS


def test_a_rejudge_of_the_deterministic_judge_reproduces_what_was_logged(runs, baseline):
    run = Rejudge(runs=[baseline, "1"], without="coverage").run()
    [(name, v)] = run.found["runs"].items()
    assert name == baseline and v["cases"] == 10 and v["moved"] == 0
    assert v["stored"] == v["placebo"] and v["from_rubric"] + v["from_verdicts"] == pytest.approx(v["delta"])
    assert run.record.of == baseline and run.record.scores is None and run.decision.status == "reference"
    seal(runs, run, "rejudge")
    assert verify(runs) == []


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_any_dimension_can_be_left_out(runs, baseline, dimension):
    run = Rejudge(runs=[baseline], without=dimension).run()
    blind = [r["judgment"]["scores"] for r in run.cases if r["part"] == "blind"]
    assert len(blind) == 10 and all(set(s) == set(DIMENSIONS) - {dimension} for s in blind)


def test_tables_show_what_was_found(runs, baseline):
    found = Calibration(**SMALL).run().found
    for table in (measured.strengths, measured.checks, measured.attacks, measured.noise, measured.halo):
        assert "|" in tables.show(table(found)).text
    assert measured.response(found).text.count("**") == 10 and "deterministic" in measured.null_world(found).text
    assert "stored judgments" in measured.adherence(found).text
    again = Rejudge(runs=[baseline]).run().found
    assert list(measured.blind(again).columns)[:4] == [
        "candidate", "logged", "quality, 5-dim", "quality, coverage-blind",
    ]  # fmt: skip
    assert "→" in tables.show(measured.blind(again)).text and len(measured.candidates(again)) == 1


def test_a_calibration_has_a_floor_for_greedy_runs_and_one_for_sampled_ones(runs):
    run = Calibration(**SMALL).run()
    parts = {r["part"] for r in run.cases}
    assert {"same", "greedy", "fresh"} <= parts and set(run.found["floors"]) == {"greedy", "sampled"}
    assert run.found["greedy"]["repeats"] == 2 and run.found["greedy_world"]["false_keep"] == 0
    assert "between two greedy runs" in measured.floors(run.found).text
    greedy = Calibration(**(SMALL | {"decoding": {}})).run().found
    assert greedy["fresh"] is None and greedy["greedy"]["repeats"] == 2 and greedy["floors"]["sampled"] is None


@pytest.fixture
def pasting():
    """A step that answers with gold, taken out of the registry afterwards."""
    gold = {c.id: c.gold for c in Ruler.load().cases}

    @pipeline.step("retrieval", takes=("draft",))
    def paste(cases: int = 30):
        def work(state):
            if False:
                yield
            last = [c.id for c in Ruler.load().gate("dev")][:cases]
            asked = gold[state.case].questions if state.case in last else state.draft.questions
            return replace(state, draft=Draft(state.draft.title, list(asked)))

        return work

    yield
    del pipeline.STEPS["paste"]


def test_a_run_whose_answers_paste_gold_is_invalid_and_its_rows_say_so(runs, baseline, pasting):
    steps = [{"step": "ask"}, {"step": "paste", "cases": 3}]
    run = Experiment(hypothesis="x", model="toy", gate="dev", pipeline=steps).run()
    flagged = [r.case for r in run.cases if r.leak]
    assert len(flagged) == 3 and run.record.leaks == flagged
    assert run.decision.status == "invalid" and all(c in run.decision.reason for c in flagged)
    seal(runs, run, "pasted")
    assert verify(runs) == []
    honest = Experiment(hypothesis="x", model="toy", gate="dev").run()
    assert honest.record.leaks == [] and honest.record.sampled is False and not any(r.copies for r in honest.cases)
    assert Experiment(hypothesis="x", model="toy", gate="dev", decoding={"temp": 0.7}).run().record.sampled is True


def test_a_leak_that_was_taken_out_of_the_record_is_found(runs, pasting):
    steps = [{"step": "ask"}, {"step": "paste"}]
    data = Experiment(hypothesis="x", model="toy", gate="dev", pipeline=steps).run().result
    assert recomputed(data.record, data.cases) == []
    assert recomputed(data.record.revised(leaks=[]), data.cases) == ["leaks"]


# --- the ledger


def found(floor, world=True):
    repeats = [[0.1, 0.3, 0.5] * 4, [0.2, 0.3, 0.4] * 4]
    made = null_world(repeats, floor, studies=50).as_dict() if world else None
    return {"floor": floor, "null_world": made, "detectable": 0.07}


def test_the_newest_calibration_of_a_fingerprint_gives_the_floor(lab):
    first = lab.seal()
    lab.seal(lab.full, lever="a/a", of=first)
    assert lab.read().floor("f" * 64) == 0.0
    lab.seal({}, kind="calibrate", lever="calibration", status="reference", found=found(0.03))
    lab.seal({}, kind="calibrate", lever="calibration", status="reference", found=found(0.05))
    lab.seal({}, kind="calibrate", lever="calibration", status="crashed", found={})
    lab.seal({}, kind="calibrate", lever="calibration", status="reference", found=found(0.9), fingerprint="e" * 64)
    assert lab.read().floor("f" * 64) == 0.05 and lab.read().floor("d" * 64) is None


def test_a_difference_within_the_measured_floor_is_not_kept_and_the_decision_says_how_often_luck_passes(lab):
    lab.seal()
    better = {k: v + 0.04 for k, v in lab.full.items()}
    before = lab.decide(better)
    assert before.status == "kept" and "not measured" in before._repr_markdown_()
    run = lab.seal({}, kind="calibrate", lever="calibration", status="reference", found=found(0.05), slug="calibrate")
    after = lab.decide(better)
    assert (after.status, after.floor) == ("indecisive", 0.05)
    text = after._repr_markdown_()
    assert "studies of 71 runs" in text and "sealed gate" in text and run in text
    assert after.as_dict()["noise"] in text
    assert "0.070" in lab.read().sees("f" * 64)


def test_what_measures_the_measure_is_no_part_of_the_climb_and_begins_no_era(lab):
    first = lab.seal()
    lab.seal({}, kind="calibrate", lever="calibration", status="reference", found=found(0.03), fingerprint="e" * 64)
    lab.seal({}, kind="rejudge", lever="re-judge", status="reference", found={}, model="", pipeline=[])
    read = lab.read()
    assert [r.id for r in read.climb("f" * 64)] == [first] and read.champion("f" * 64).id == first
    assert eras(read) == ["f" * 64]
    assert len(tables.runs(read)) == 3 and len(tables.parameters(read)) == 3
    assert "0001-run" in tables.headlines(read)[0]
    assert "not measured" in measured.rule(read).text


def test_a_row_without_an_answer_stays_one(lab):
    row = row_of("fresh", "a", NoAnswer("silent"), repeat=0, answer=None)
    assert row["quality"] == 0.0 and row["no_answer"] == "silent" and row["unscored"] is None


# --- with kernels


@pytest.mark.slow
def test_both_notebooks_run_are_sealed_and_hold_no_row_of_judgments(runs):
    base = {"model": "toy", "hypothesis": "x", "gate": "dev"}
    execute.run("10_experiment", base, "base", runs, carry=without_kernel)
    calibrated = execute.run("14_calibrate", SMALL, "", runs)
    again = execute.run("13_rejudge", {"runs": ["base"], "without": "atomicity"}, "", runs)
    assert (calibrated.id, again.id) == ("0002-calibrate", "0003-rejudge-without-atomicity")
    assert calibrated.kind == "calibrate" and calibrated.found.floor == 0
    assert again.found.runs["0001-base"]["cases"] == 10
    assert verify(runs) == []
    for run in (calibrated, again):
        assert (runs / run.id / "experiment.ipynb").stat().st_size < 60_000
