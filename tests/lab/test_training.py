"""A training as a run: refused parameters, what is sealed, resume after a kill, plans that train, requests that run."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from lib.agent.guard import Leak
from lib.agent.prompt import Draft
from lib.cli import notch
from lib.files import ROOT
from lib.lab import execute, study
from lib.lab.experiment import BadParameters, Experiment
from lib.lab.training import Training, rubric
from lib.loop import training_requests as requests
from lib.measure.ruler import Ruler
from lib.models.model import NoModel
from lib.runs.ledger import Ledger, NoRun
from lib.runs.verify import verify
from lib.train.data import BadData, Pair
from tests.llama import small

BASE = small()
SMALL = {
    "hypothesis": "it learns", "model": BASE, "data": {"pairs": 6},
    "settings": {"epochs": 2, "rank": 2, "batch": 2, "learning_rate": 0.01},
}  # fmt: skip
FILE = {"source": "file", "path": "pairs.jsonl"}


@pytest.fixture(autouse=True)
def work(tmp_path, monkeypatch):
    monkeypatch.setenv("NOTCH_TRAIN", str(tmp_path / "work"))
    return tmp_path / "work"


REFUSED = {
    "no hypothesis": ({"hypothesis": " "}, BadParameters, "hypothesis is empty"),
    "misspelt": ({"mehtod": "sft"}, BadParameters, "did you mean 'method'"),
    "method": ({"method": "dpo"}, BadParameters, "method is 'dpo'"),
    "toy": ({"model": "toy"}, BadParameters, "no weights to train"),
    "no model": ({"model": "smollm9"}, NoModel, "smollm9"),
    "no adapter": ({"adapter": "nowhere"}, NoModel, "adapter 'nowhere'"),
    "judge": ({"judge": "claude"}, BadParameters, "judge is 'claude'"),
    "setting": ({"settings": {"rnak": 8}}, BadParameters, "settings has no 'rnak', did you mean 'rank'?"),
    "value": ({"settings": {"rank": -1}}, BadParameters, "rank is -1"),
    "objective": ({"objective": {"beta": 1}}, BadParameters, "beta and method 'sft': beta acts with method orpo alone"),
    "beta": ({"method": "orpo", "data": {"kind": "styles"}, "objective": {"beta": "x"}}, BadParameters, "beta is 'x'"),
    "drafts": ({"method": "grpo", "objective": {"drafts": 1}}, BadParameters, "drafts is 1"),
    "checkpoint": ({"checkpoints": [3]}, BadParameters, "checkpoints [3]"),
    "merge of one": ({"method": "merge", "merge": ["a"]}, NoModel, "adapter 'a'"),
    "merge of none": ({"method": "merge", "data": {}, "settings": {}}, BadParameters, "two or more adapters"),
    "merge with data": (
        {"method": "merge", "settings": {}},
        BadParameters,
        "data and method 'merge': data does nothing",
    ),
    "merge with settings": ({"method": "merge", "data": {}}, BadParameters, "settings and method 'merge'"),
    "no pairs": ({"data": {"pairs": 0}}, BadData, "data pairs is 0: expected 2 or more"),
    "one pair": ({"data": {"pairs": 1}}, BadData, "data pairs is 1"),
    "data key": ({"data": {"size": 5}}, BadData, "data has no 'size'; there are source, kind"),
    "kind": ({"data": {"kind": "dirty"}}, BadData, "data kind is 'dirty': expected one of clean"),
    "preference": ({"data": {"kind": "styles"}}, BadData, "with method sft"),
    "no preference": ({"method": "orpo"}, BadData, "with method orpo"),
    "without effect": ({"data": {"path": "pairs.jsonl"}}, BadData, "path acts with source file alone"),
    "bought": (
        {"data": {"dollars": 1.0}},
        BadData,
        "source 'teacher': dollars acts with source claude alone; take one",
    ),
    "of a file": (
        {"data": FILE | {"pairs": 9}},
        BadData,
        "source 'file': pairs acts with source teacher or claude alone",
    ),
    "without a path": ({"data": {"source": "file"}}, BadData, "data path is missing"),
    "source": (
        {"data": {"source": ["file"]}},
        BadData,
        "data source is ['file']: expected one of teacher, claude, file",
    ),
    "own drafts": ({"data": {"draft_temp": 0.5}}, BadData, "draft_temp and kind 'clean': only on-policy pairs"),
    "second style": ({"data": {"source": "claude", "kind": "styles"}}, BadData, "the second style is the teacher's"),
    "no file": ({"data": FILE}, BadData, "cannot be read"),
    "a secret": ({"api_key": "x"}, BadParameters, "looks like a secret"),
    "text": ({"predicted": "much"}, BadParameters, "predicted is 'much'"),
}


@pytest.mark.parametrize("odd, kind, said", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_trained_is_refused_in_one_line_and_nothing_is_written(odd, kind, said, tmp_path):
    with pytest.raises(kind) as stopped:
        execute.run("11_train", SMALL | odd, folder=tmp_path / "runs")
    assert said in str(stopped.value) and "\n" not in str(stopped.value)
    assert not (tmp_path / "runs").exists() and not (tmp_path / "work").exists()


def pairs_file(tmp_path, *tasks):
    path = tmp_path / "pairs.jsonl"
    asked = [f"Which {w} of it matters to you?" for w in "place day cost person tool risk size".split()]
    path.write_text("".join(json.dumps({"task": t, "title": "T", "questions": asked}) + "\n" for t in tasks))
    return {"source": "file", "path": str(path)}


def test_a_planted_task_of_the_ruler_is_refused_by_name_before_anything_is_trained(tmp_path):
    task = Ruler.load().gate("full")[3].task
    told = pairs_file(tmp_path, "carve a spoon", "lay a hedge", task, "mend a net", "bind a book")
    with pytest.raises(Leak, match="of the ruler") as stopped:
        execute.run("11_train", SMALL | {"data": told}, folder=tmp_path / "runs")
    assert task in str(stopped.value) and not (tmp_path / "runs").exists() and not (tmp_path / "work").exists()


def test_the_key_names_parameters_and_the_bytes_of_a_file_but_not_the_request(tmp_path):
    told = SMALL | {"data": pairs_file(tmp_path, "a b", "c d", "e f", "g h")}
    key = Training(**told).key
    assert Training(**told, request="0001-x").key == key != Training(**told, seed=1).key
    pairs_file(tmp_path, "a b", "c d", "e f", "i j")
    assert Training(**told).key != key


def test_the_reward_is_the_rubric_with_the_chosen_set_as_gold():
    asked = (
        "Who will fly the kite, you or a child?",
        "What is the largest sail you can carry and store?",
        "Which winds blow where you want to fly it?",
        "What have you built out of wood or fabric before?",
        "When does it have to be ready for its first flight?",
        "Which tools and sewing machine do you have at home?",
        "Should it do tricks or just stay up in the sky?",
    )
    gold = Draft("Build a kite", asked)
    vague = Draft("Build a kite", (*asked[:4], "What about the cost?", "What about the day?", "What about the place?"))
    pair = Pair("build a kite", "kites", gold)
    assert 1 >= rubric(pair, gold) > rubric(pair, vague) > 0
    assert rubric(pair, gold) > 0.8
    assert rubric(pair, Draft("Build a kite", gold.questions[:6])) == 0.0


# --- sealed


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder of runs with one training on the micro base, and the environment that made it."""
    runs = tmp_path_factory.mktemp("trained") / "runs"
    old = os.environ.get("NOTCH_TRAIN")
    os.environ["NOTCH_TRAIN"] = str(runs.parent / "work")
    try:
        record = execute.run("11_train", SMALL | {"checkpoints": [1, 2]}, "sft", runs)
    finally:
        os.environ.pop("NOTCH_TRAIN") if old is None else os.environ.update(NOTCH_TRAIN=old)
    return runs, record


@pytest.mark.slow
def test_a_training_is_sealed_with_hypothesis_data_curve_and_adapter(trained):
    runs, record = trained
    run = runs / record.id
    names = {p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file()}
    kept = record.found.epoch
    beside = f"adapter/epoch-{3 - kept:02d}"
    assert {"data.jsonl.xz", "SEALED", "experiment.ipynb", "record.json"} <= names
    for folder in ("adapter", beside):
        assert {f"{folder}/{n}" for n in ("adapters.safetensors", "adapter_config.json", "provenance.json")} <= names
    assert (record.kind, record.status, record.scores) == ("train", "reference", None)
    assert [r["epoch"] for r in record.found.curve] == [0, 1, 2] and record.found.data["train"] == 6
    assert "compared with the ruler" in record.found.data["guard"]
    assert verify(runs) == [] and not any((runs.parent / "work").iterdir())
    page = json.loads((run / "experiment.ipynb").read_text(encoding="utf-8"))
    [cell] = [c for c in page["cells"] if "training.run()" in "".join(c["source"])]
    assert cell["outputs"] == []  # no table of steps with the timings of this machine


@pytest.mark.slow
def test_no_path_of_this_machine_is_sealed(trained):
    runs, record = trained
    for path in (runs / record.id).rglob("*"):
        if path.suffix in (".json", ".ipynb"):
            assert BASE not in path.read_text() and str(ROOT) not in path.read_text()


@pytest.mark.slow
def test_a_changed_adapter_is_found_by_verify(trained, tmp_path):
    import shutil

    runs, record = trained
    shutil.copytree(runs, tmp_path / "runs")
    path = tmp_path / "runs" / record.id / "adapter" / "adapters.safetensors"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    assert "adapters.safetensors: changed" in " ".join(verify(tmp_path / "runs"))


@pytest.mark.slow
def test_the_adapter_is_an_input_of_an_experiment_and_of_the_next_training(trained, monkeypatch):
    runs, record = trained
    parameters = {"hypothesis": "x", "model": BASE, "adapter": record.id, "gate": "dev"}
    one = execute.accept("10_experiment", parameters, runs)
    assert one.adapter == record.id
    steps = [{"step": "ask"}, {"step": "donor", "adapter": record.id}, {"step": "best"}]
    lent = Experiment("x", model=BASE, gate="dev", pipeline=steps, folder=runs)
    told = lent.run().record.identity
    worn = replace(lent, pipeline=[{"step": "ask"}], adapter=record.id).run().record.identity.model["adapter"]
    assert told.adapters == {record.id: worn} and len(worn) > 8 and "adapter" not in told.model
    monkeypatch.setenv("NOTCH_RUNS", str(runs))  # as a kernel has it
    more = Training(**{**SMALL, "model": BASE, "adapter": "sft", "settings": {"epochs": 1, "batch": 2}}).run()
    [parent] = more.outcome.provenance["parents"]
    assert parent["weights"] == record.found.files["adapter/adapters.safetensors"]
    # It goes on where the parent stopped: its start is the parent's end, but for the rounding to float16.
    first, last = more.outcome.curve[0], record.found.curve[record.found.epoch]
    assert first["valid_loss"] == pytest.approx(last["valid_loss"], abs=2e-3)


@pytest.mark.slow
def test_a_training_that_goes_on_takes_the_adapters_shape_and_refuses_another(trained, monkeypatch):
    runs, _ = trained
    monkeypatch.setenv("NOTCH_RUNS", str(runs))
    told = SMALL | {"model": BASE, "adapter": "sft", "settings": {"epochs": 1, "batch": 2}}
    for name, value in {"rank": 32, "alpha": 7.0, "layers": 1, "dropout": 0.5}.items():
        with pytest.raises(BadParameters, match=f"{name} is {value}, but adapter sft has") as stopped:
            execute.accept("11_train", told | {"settings": told["settings"] | {name: value}})
        assert "\n" not in str(stopped.value)
    more = Training(**told)
    shown = more._repr_markdown_()
    done = more.run().outcome.provenance["parameters"]
    assert {k: done[k] for k in ("rank", "alpha", "layers", "dropout")} == {
        "rank": 2, "alpha": 16.0, "layers": 2, "dropout": 0.0}  # fmt: skip
    assert shown.splitlines()[-1].startswith("| 2 | 16.0 | 2 | 0.0 |")


@pytest.mark.slow
def test_an_adapter_is_refused_on_another_base_before_anything_runs(trained):
    runs, record = trained
    for template, told in (("10_experiment", {"hypothesis": "x"}), ("11_train", SMALL)):
        with pytest.raises(NoModel, match=f"was trained on {Path(BASE).name}") as stopped:
            execute.accept(template, told | {"model": small(1), "adapter": record.id}, runs)
        assert "\n" not in str(stopped.value)


@pytest.mark.slow
def test_a_training_killed_with_signal_9_goes_on_from_its_last_epoch(tmp_path, work):
    told = SMALL | {"model": BASE, "settings": SMALL["settings"] | {"epochs": 12, "patience": 0}}
    code = f"from lib.lab.training import Training; Training(**{told!r}).run()"
    environment = {**os.environ, "NOTCH_TRAIN": str(work), "PYTHONPATH": str(ROOT), "NOTCH_RUNS": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.DEVNULL)
    try:
        ends = time.monotonic() + 120
        while not list(work.glob("*/epoch-03.safetensors")) and time.monotonic() < ends:
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    seen = []
    from lib.train import recipe

    one = Training(**told).planned
    recipe.train(recipe.replace(one, progress=lambda t: seen.append(t["epoch"])))
    assert seen[0] >= 3 and seen[-1] == 12


# --- plans


PLAN = """
name: adapters
common: {{model: {base}, judge: offline, gate: dev}}
runs:
  - name: one
    hypothesis: It learns.
    train: &small {{data: {{pairs: 6}}, settings: {{epochs: 2, rank: 2, batch: 2, patience: 0, keep: last}}, checkpoints: [1]}}
  - name: two
    hypothesis: Another seed.
    train: {{<<: *small, seed: 1}}
  - name: both
    hypothesis: A merge of two.
    train: {{method: merge, merge: [{{run: one}}, {{run: two}}]}}
  - name: greedy
    lever: adapter
    hypothesis: The adapter helps.
    adapter: {{run: one, epoch: 1}}
  - name: merged
    lever: adapter
    hypothesis: The merge helps.
    adapter: {{run: both}}
  - name: the-model-alone
    models: [{base}, {{model: {base}, adapter: {{run: one}}}}]
"""


def plan_of(tmp_path, text=PLAN):
    path = tmp_path / "plan.yaml"
    path.write_text(text.format(base=BASE))
    return study.read(path)


def test_a_plan_says_which_adapter_it_does_not_have(tmp_path):
    for text, said in (
        ("adapter: {run: nothing}", "no earlier run of this plan that trains is called so"),
        ("adapter: {run: one, epoch: 7}", "that run keeps the epochs [1]"),
        ("train: 5", "train is 5: expected a mapping"),
        ("train: {method: dpo}", "method is 'dpo'"),
        ("train: {gate: dev}", "no parameter 'gate'"),
    ):
        rows = f"""
common: {{model: {BASE}, gate: dev}}
runs:
  - {{name: one, hypothesis: x, train: {{data: {{pairs: 6}}, settings: {{epochs: 2}}, checkpoints: [1]}}}}
  - {{name: use, hypothesis: x, {text}}}
"""
        path = tmp_path / "plan.yaml"
        path.write_text(rows)
        with pytest.raises(BadParameters) as stopped:
            study.check(study.read(path))
        assert said in str(stopped.value) and "'use'" in str(stopped.value)


@pytest.mark.slow
def test_a_plan_trains_merges_and_measures_and_is_resumed_by_its_keys(tmp_path):
    plan, runs = plan_of(tmp_path), tmp_path / "runs"
    told = [(p.entry.name, p.state, p.message) for p in study.run(plan, runs)]
    rows = ("one", "two", "both", "greedy", "merged", *["the-model-alone"] * 3)  # two candidates and their comparison
    assert told == [(n, "ran", "") for n in rows]
    ledger = Ledger.read(runs)
    assert [r.adapter for r in ledger.records[3:]] == ["0001-one/epoch-01", "0003-both", "", "0001-one", ""]
    pair = ledger.records[-1].found.candidates
    assert [c.adapter for c in pair.values()] == ["", "0001-one"]
    assert [p["adapter"] for p in ledger.records[2].found.provenance["parents"]] == ["0001-one", "0002-two"]
    assert [p.state for p in study.run(plan, runs)] == ["there"] * 6 and len(Ledger.read(runs).records) == 8
    assert verify(runs) == []


# --- requests from the command line


def call(*args):
    return CliRunner().invoke(notch, ["train", *args], catch_exceptions=True)


def test_a_request_is_listed_approved_and_rejected_from_the_command_line(tmp_path):
    steer = tmp_path / "requests"
    one = requests.open_request(steer, {k: v for k, v in SMALL.items() if k != "hypothesis"}, "it repeats itself", 0.03)
    bought = {"model": BASE, "data": {"source": "claude"}}
    requests.open_request(steer, bought, "it knows too little", 0.03)
    where = ["--steer", str(steer), "--runs", str(tmp_path / "runs")]
    assert "it knows too little Its pairs are bought when it is trained, for $2.00" in call("--requests", *where).output
    assert f"{one.id}: open, expected +0.030, it repeats itself" in call("--requests", *where).output
    refused = call("--request", one.id, *where)
    assert isinstance(refused.exception, BadParameters) and "only an approved one" in str(refused.exception)
    assert (
        "is approved; now: notch train --request"
        in call("--request", one.id, "--approve", "--who", "Ada", *where).output
    )
    assert requests.get(steer, one.id).history[-1]["who"] == "Ada"
    assert "is rejected" in call("--request", one.id, "--reject", "too dear", *where).output
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_an_approved_request_is_trained_once_and_delivered(tmp_path):
    steer, runs = tmp_path / "requests", tmp_path / "runs"
    told = {k: v for k, v in SMALL.items() if k != "hypothesis"} | {"model": BASE}
    one = requests.open_request(steer, told, "it repeats itself", 0.03)
    requests.approve(steer, one.id, "Ada")
    where = ["--steer", str(steer), "--runs", str(runs)]
    done = call("--request", one.id, *where)
    assert done.exit_code == 0 and "valid loss" in done.output, done.exception
    now = requests.get(steer, one.id)
    assert (now.state, now.run) == ("delivered", Ledger.read(runs).records[0].id)
    assert Ledger.read(runs).records[0].of == one.id
    assert isinstance(call("--request", one.id, *where).exception, BadParameters)


def test_other_data_than_was_approved_is_not_trained(tmp_path):
    steer = tmp_path / "requests"
    data = pairs_file(tmp_path, "a b", "c d", "e f", "g h")
    one = requests.open_request(steer, {"model": BASE, "data": data}, "why", 0.0)
    requests.approve(steer, one.id, "Ada")
    pairs_file(tmp_path, "a b", "c d", "e f", "i j")
    refused = call("--request", one.id, "--steer", str(steer), "--runs", str(tmp_path / "runs"))
    assert "was approved; open a new request" in str(refused.exception)
    assert requests.get(steer, one.id).state == "approved" and not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_training_goes_on_from_a_run_and_says_so(trained, tmp_path):
    import shutil

    runs, record = trained
    shutil.copytree(runs, tmp_path / "runs")
    where = ["--runs", str(tmp_path / "runs"), "-p", "hypothesis", "more of it"]
    small = ["-p", "data", "{pairs: 6, seed: 1}", "-p", "settings", "{epochs: 1, batch: 2, learning_rate: 0.01}"]
    done = call("--from-run", "sft", "-p", "model", BASE, *small, *where)
    assert done.exit_code == 0, done.exception
    more = Ledger.read(tmp_path / "runs").records[1]
    assert more.adapter == record.id == more.found.provenance["parents"][0]["adapter"]
    refused = call("--from-run", "9", *where)
    assert isinstance(refused.exception, NoRun)


@pytest.mark.parametrize(
    "args, said",
    [(("--requests", "--approve"), "--requests and --approve"), (("--request", "1", "--from-run", "2"), "--request and --from-run"),
     (("--request", "1", "-p", "seed", "1"), "--request and -p"), (("--approve",), "go with --request"),
     (("--request", "1", "--approve", "--reject", "no"), "--approve and --reject"), (("--who", "Ada"), "--who with one"),
     (("--from-run", "1", "-p", "adapter", "x"), "--from-run and -p adapter")],
)  # fmt: skip
def test_options_of_which_one_would_have_no_effect_are_refused(tmp_path, args, said):
    refused = call(*args, "--runs", str(tmp_path / "runs")).exception
    assert isinstance(refused, BadParameters) and said in str(refused) and "\n" not in str(refused)
