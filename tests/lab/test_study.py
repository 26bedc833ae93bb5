"""Plans read and refused, run once, resumed after being killed at any moment."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import yaml

from lib.agent.guard import Leak
from lib.agent.pipeline import STEPS
from lib.agent.steps import build  # noqa: F401  registers them
from lib.files import NOTEBOOKS, ROOT, Exit
from lib.lab import study
from lib.lab.experiment import LEVERS, BadParameters, Experiment
from lib.lab.study import look, read
from lib.measure.ruler import Ruler
from lib.runs.ledger import Ledger, NoRun
from lib.runs.seal import SEAL, sealed_folders
from lib.runs.verify import verify
from tests.children import wait_for_kernel

TWO = """
name: two
about: Two runs of the toy.
common: {model: toy, judge: offline}
runs:
  - name: first
    lever: baseline
    hypothesis: One plain call.
  - name: eight
    lever: over-generate and prune
    predicted: 0.01
    hypothesis: Eight questions, one dropped.
    pipeline: [{step: ask, n: 8}, {step: prune, by: last}]
"""
ONE = "runs: [{name: a, model: toy, hypothesis: x}]\n"


def plan_file(folder, text, name="two.yaml"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


# --- reading


def test_a_plan_has_its_entries_in_order_with_what_they_have_in_common(tmp_path):
    plan = read(plan_file(tmp_path, TWO))
    assert (plan.name, plan.about, [e.name for e in plan.entries]) == (
        "two",
        "Two runs of the toy.",
        ["first", "eight"],
    )
    assert plan.entries[0].parameters["model"] == "toy"


def test_an_entry_overrides_what_is_common(tmp_path):
    text = "common: {model: toy, seed: 1}\nruns: [{name: a, seed: 2}, {name: b}]\n"
    entries = read(plan_file(tmp_path, text)).entries
    assert [e.parameters.get("seed") for e in entries] == [2, 1]


def test_a_row_that_shows_gold_is_refused_as_a_leak_with_its_name(tmp_path):
    gold = Ruler.load().gate("full")[0].gold.questions[0]
    row = {"name": "peek", "model": "toy", "hypothesis": "h", "pipeline": [{"step": "ask", "advice": [gold]}]}
    with pytest.raises(Leak, match=r"^plan 'two', run 'peek': ") as stopped:
        study.check(read(plan_file(tmp_path, yaml.safe_dump({"name": "two", "runs": [row]}))))
    assert stopped.value.exit == Exit.USAGE and "\n" not in str(stopped.value)


def test_a_plan_is_found_by_its_name():
    assert read("quick").name == "quick"


@pytest.mark.parametrize(
    "text, said",
    [
        ("runs: [{name: a}, {name: a}]", "two runs are called 'a'"),
        ("runs: [{name: a}, {model: toy}]", "run 2: name is None: expected text"),
        ("runs: [{name: 5}]", "run 5: name is 5: expected text"),
        ("runs: [{name: ''}]", "run '': name is empty"),
        ("runs: [a]", "plan runs[0] is 'a': expected a mapping"),
        ("runs: []", "plan runs is []: expected one or more"),
        ("", "expected a mapping with a list 'runs'"),
        ("- a", "expected a mapping with a list 'runs'"),
        ("runs: {a: 1}", "plan runs is {'a': 1}: expected a list"),
        ("runs: [{", "not YAML"),
        ("runs: !!python/object:os.system [x]", "not YAML"),
        ("rnus: []\n" + ONE, "plan has no 'rnus', did you mean 'runs'?"),
        ("1: 2\nzz: 3\n" + ONE, "plan has no '1'"),
        ("common: [1]\n" + ONE, "plan common is [1]: expected a mapping"),
        ("common: toy\n" + ONE, "common"),
        ("name: [1]\n" + ONE, "plan name is [1]: expected text"),
    ],
)
def test_a_plan_that_cannot_be_used_is_refused_in_one_line_with_its_file(tmp_path, text, said):
    path = plan_file(tmp_path, text)
    with pytest.raises(BadParameters, match=re.escape(said)) as stopped:
        read(path)
    assert str(path) in str(stopped.value) and "\n" not in str(stopped.value)


def test_bytes_that_are_no_text_are_not_yaml(tmp_path):
    path = tmp_path / "odd.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadParameters, match="not YAML"):
        read(path)


def test_a_plan_that_does_not_exist_names_the_ones_there_are(tmp_path):
    for name in ("nosuch", tmp_path / "missing.yaml"):
        with pytest.raises(BadParameters, match="no plan .* quick"):
            read(name)


def test_a_folder_is_not_a_plan(tmp_path):
    with pytest.raises(BadParameters, match="plan"):
        read(tmp_path)


@pytest.mark.parametrize(
    "entry, said",
    [
        ("{name: odd, model: toy, hypothesis: x, lever: magic}", "lever is 'magic'"),
        ("{name: odd, model: toy, hypothesis: x, sede: 1}", "did you mean 'seed'"),
        ("{name: odd, model: toy, hypothesis: x, api_key: abc}", "looks like a secret"),
        ("{name: odd, model: nosuch, hypothesis: x}", "nosuch"),
        ("{name: odd, model: toy, hypothesis: ' '}", "hypothesis is empty"),
        ("{name: odd, model: toy, hypothesis: x, gate: confirm}", "notch confirm"),
        ("{name: odd, model: toy, hypothesis: x, 1: 2}", "1"),
    ],
)
def test_a_bad_entry_is_named_before_anything_runs(tmp_path, entry, said):
    text = f"runs:\n- {{name: good, model: toy, hypothesis: x, lever: baseline}}\n- {entry}\n"
    with pytest.raises(Exception, match=re.escape(said)) as stopped:
        list(study.run(read(plan_file(tmp_path, text)), tmp_path / "runs"))
    assert not isinstance(stopped.value, TypeError)
    assert "run 'odd'" in str(stopped.value) and not (tmp_path / "runs").exists()


# --- the sealed gate, without a kernel


def test_a_look_repeats_the_run_with_a_fresh_seed_on_the_sealed_gate(lab):
    lab.seal(slug="first", seed=3, decoding={"temp": 0.7})
    again = look(lab.read().get("first"))
    assert (again["gate"], again["of"], again["seed"], again["decoding"]) == (
        "confirm",
        "0001-first",
        1003,
        {"temp": 0.7},
    )


def test_there_is_nothing_to_confirm_before_a_run_is_kept(lab):
    lab.seal({}, status="crashed")
    assert list(study.confirm(lab.read())) == []


def test_a_run_that_was_not_kept_cannot_be_confirmed(lab):
    ours = Experiment().fingerprint
    lab.seal(slug="first", fingerprint=ours)
    lab.seal(slug="same", fingerprint=ours)
    with pytest.raises(BadParameters, match="0002-same was not kept"):
        list(study.confirm(lab.read(), "same"))


def test_a_run_that_was_looked_at_is_not_looked_at_again(lab):
    ours = Experiment().fingerprint
    first = lab.seal(slug="first", fingerprint=ours)
    seen = lab.seal(slug="look", fingerprint=ours, kind="confirm", gate="confirm", of=first)
    assert [record.id for record in study.confirm(lab.read())] == [seen]


def test_an_unknown_run_to_confirm_is_refused_even_when_nothing_was_kept(lab):
    with pytest.raises(NoRun, match="nosuch"):
        list(study.confirm(lab.read(), "nosuch"))


def test_a_rejudge_of_earlier_rows_is_read_and_refused_where_it_cannot_be(tmp_path):
    row = "  - {name: blind, hypothesis: h, rejudge: {runs: [{run: first}], without: coverage}}\n"
    plan = read(plan_file(tmp_path, TWO + row))
    assert plan.entries[-1].template == "13_rejudge" and plan.entries[-1].parameters["runs"] == [{"run": "first"}]
    assert list(study.check(plan)) == ["first", "eight"]
    for old, new, said in (
        ("{run: first}", "{run: last}", "{run: last}: no earlier run of this plan"),
        ("coverage", "colour", "without is 'colour'"),
        ("without", "withuot", "did you mean 'without'"),
    ):
        with pytest.raises(BadParameters, match=f"plan 'two', run 'blind': .*{said}") as stopped:
            study.check(read(plan_file(tmp_path, TWO + row.replace(old, new))))
        assert "\n" not in str(stopped.value)


# --- with kernels


def start(path, folder):
    env = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "lib.cli", "study", str(path), "--runs", str(folder), "--no-report"]
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(path, folder):
    with start(path, folder) as child:
        out, err = child.communicate(timeout=120)
    assert child.returncode == 0, out + err
    return out


SIX = (
    TWO
    + """  - {name: nine, lever: over-generate and prune, hypothesis: h, pipeline: [{step: ask, n: 9}, {step: prune}]}
  - {name: broken, lever: decoding, hypothesis: h, decoding: {max_tokens: 1}}
  - {name: twin, lever: baseline, hypothesis: One plain call.}
  - {name: blind, hypothesis: h, rejudge: {runs: [{run: first}, {run: nine}], without: coverage}}
"""
)


@pytest.mark.slow
def test_several_workers_seal_what_one_seals_in_the_order_of_the_plan(tmp_path):
    plan = read(plan_file(tmp_path, SIX))
    told = {}
    for workers in (1, 3):
        folder = tmp_path / f"runs{workers}"
        told[workers] = [(p.entry.name, p.state) for p in study.run(plan, folder, workers)]
        assert verify(folder) == []
        ledger = Ledger.read(folder)
        told[workers] += [(r.id, r.key, r.status, r.scores, r.decision, ledger.cases(r.id)) for r in ledger.records]
        assert [p.state for p in study.run(plan, folder, workers)] == ["there"] * 6
    assert told[1] == told[3] and [state for _, state in told[1][:6]] == ["ran"] * 4 + ["there", "ran"]


@pytest.mark.slow
def test_a_study_that_is_stopped_leaves_no_worker_behind(tmp_path):
    running = study.run(read(plan_file(tmp_path, SIX)), tmp_path / "runs", 3)
    next(running)
    running.close()
    from psutil import Process

    assert [c for c in Process().children(recursive=True) if "ipykernel" in " ".join(c.cmdline())] == []
    assert len(Ledger.read(tmp_path / "runs").records) == 1 and verify(tmp_path / "runs") == []


@pytest.mark.slow
def test_a_second_call_of_a_study_runs_nothing(tmp_path):
    blind = "  - {name: blind, hypothesis: h, rejudge: {runs: [{run: first}], without: coverage}}\n"
    path, folder = plan_file(tmp_path, TWO + blind), tmp_path / "runs"
    assert "3 runs" in finish(path, folder)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert "nothing to run" in finish(path, folder)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    assert [r.slug for r in Ledger.read(folder).records] == ["first", "eight", "blind"]
    assert verify(folder) == []


@pytest.mark.slow
def test_a_study_that_was_killed_ends_with_the_right_runs_when_it_is_called_again(tmp_path):
    path, folder = plan_file(tmp_path, TWO), tmp_path / "runs"
    for moment in (1.5, 0, 0.5):  # seconds after the first kernel is there: near its end, starting, running
        with start(path, folder) as child:
            wait_for_kernel(child)
            time.sleep(moment)
            child.send_signal(signal.SIGKILL)
            child.communicate()
        assert child.returncode == -signal.SIGKILL, "it had ended before it was killed"
        for run in sealed_folders(folder) if folder.exists() else ():
            assert json.loads((run / "record.json").read_text())["id"] == run.name
    finish(path, folder)
    assert sorted(p.name for p in folder.iterdir() if p.is_dir()) == ["0001-first", "0002-eight"]
    assert all((run / SEAL).exists() for run in folder.iterdir() if run.is_dir())
    records = Ledger.read(folder).records
    assert [r.slug for r in records] == ["first", "eight"] and all(r.scores for r in records)
    assert records[1].decision.against == "0001-first" and verify(folder) == []


# --- the plans that come with the project

SHIPPED = sorted(p.stem for p in (NOTEBOOKS / "plans").glob("*.yaml"))
ASIDE = ("baseline", "a/a", "anchor")  # lever classes that predict nothing and are never kept


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_plan_says_what_it_is_and_of_every_run_why_and_of_every_lever_what_it_expects(name):
    plan = read(name)
    assert plan.name == name and plan.about
    for e in plan.entries:
        told, plain = e.parameters, e.template == "10_experiment" and not e.models
        assert len(told["hypothesis"].split()) > 8, e.name
        assert not plain or told["lever"] in LEVERS and told["gate"] in ("full", "dev"), e.name
        if plain and told["lever"] not in ASIDE or e.template == "11_train":
            assert "predicted" in told, e.name


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_plan_can_run_as_far_as_that_is_known_before_anything_is_trained(name):
    """Loads the real model where a plan has it; a run can only be compared with one of the same model."""
    plan = read(name)
    made = study.check(plan)
    late = {e.name for e in plan.entries if e.models or e.template == "13_rejudge"}
    assert list(made) == [e.name for e in plan.entries if e.name not in late]
    tried = [e for e in made.values() if isinstance(e, Experiment) and e.lever != "anchor"]
    assert len({e.model for e in tried}) <= 1 and len({e.key for e in made.values()}) == len(made)


def test_every_family_of_steps_is_a_lever_class_that_a_run_can_name():
    assert {made.family for made in STEPS.values()} <= set(LEVERS) - set(ASIDE)
