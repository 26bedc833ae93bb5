"""Parameters refused before anything runs, notebooks executed and judged, what is sealed and what never is."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lib.agent.guard import Leak
from lib.agent.pipeline import BadPipeline
from lib.files import NOTEBOOKS, ROOT
from lib.lab import execute, kernel
from lib.lab.execute import Executed, RunFailed, accept, adopt, tagged
from lib.lab.experiment import BadParameters, Experiment
from lib.lab.kernel import Fault, fault
from lib.measure.judge import DIMENSIONS, Judgment
from lib.measure.ruler import Ruler
from lib.measure.score import score
from lib.models.model import NoModel
from lib.runs.ledger import Ledger
from lib.runs.record import MIME
from lib.runs.seal import SEAL, sealed_folders
from lib.runs.verify import verify
from tests.lab.conftest import without_kernel

SECRET = "sk-ant-planted-0123456789"
TOY = {"model": "toy", "hypothesis": "the toy stays where it is"}


# --- refused before anything runs


def ask(**args):
    return {"pipeline": [{"step": "ask", **args}]}


REFUSED = [
    ({"modle": "toy"}, BadParameters, "did you mean 'model'"),
    ({"zzz": 1}, BadParameters, "no parameter 'zzz'"),
    ({"kind": "confirm"}, BadParameters, "no parameter 'kind'"),
    ({"api_key": "x"}, BadParameters, "looks like a secret"),
    ({"ANTHROPIC_API_KEY": "x"}, BadParameters, "looks like a secret"),
    ({"hf_token": "x"}, BadParameters, "looks like a secret"),
    ({"seed": "one"}, BadParameters, "seed is 'one': expected a whole number"),
    ({"seed": True}, BadParameters, "seed is True"),
    ({"seed": 1.5}, BadParameters, "seed is 1.5"),
    ({"predicted": "0.1"}, BadParameters, "predicted is '0.1'"),
    ({"predicted": float("nan")}, BadParameters, "predicted"),
    ({"predicted": float("inf")}, BadParameters, "predicted"),
    ({"min_effect": float("nan")}, BadParameters, "min_effect"),
    ({"min_effect": 0}, BadParameters, "min_effect is 0"),
    ({"pipeline": "ask"}, BadParameters, "pipeline is 'ask'"),
    ({"pipeline": []}, BadPipeline, "a pipeline is a list"),
    ({"pipeline": ["ask"]}, BadPipeline, "step 1"),
    ({"pipeline": [{"step": "aks"}]}, BadPipeline, "no step 'aks'"),
    (ask(questions=7), BadPipeline, "no parameter 'questions'"),
    (ask(n="seven"), BadPipeline, "n is 'seven'"),
    (ask(n=0), BadPipeline, "n is 0"),
    ({"decoding": {"temperature": 1}}, BadParameters, "decoding has no 'temperature'"),
    ({"decoding": {"temp": float("nan")}}, BadParameters, "temp"),
    ({"model": "smollm9"}, NoModel, "smollm9"),
    ({"model": ""}, NoModel, "model"),
    ({"adapter": "somewhere"}, NoModel, "toy"),
    ({"gate": "fulll"}, BadParameters, "gate is 'fulll'"),
    ({"gate": "confirm"}, BadParameters, "notch confirm"),
    ({"judge": "cloud"}, BadParameters, "judge is 'cloud'"),
    ({"lever": "magic"}, BadParameters, "lever is 'magic'"),
    ({"hypothesis": ""}, BadParameters, "hypothesis is empty"),
    ({"hypothesis": " \n"}, BadParameters, "hypothesis is empty"),
    ({"hypothesis": "bytes that are no text \udcff"}, BadParameters, "hypothesis"),
]


@pytest.mark.parametrize("odd, kind, said", REFUSED, ids=[f"{i}-{next(iter(r[0]))}" for i, r in enumerate(REFUSED)])
def test_bad_parameters_are_refused_in_one_line_and_nothing_is_written(odd, kind, said, tmp_path):
    folder = tmp_path / "runs"
    with pytest.raises(kind, match=re.escape(said)) as stopped:
        execute.run("10_experiment", TOY | odd, folder=folder)
    assert "\n" not in str(stopped.value) and not folder.exists()


def test_a_parameter_that_looks_like_a_secret_is_refused_without_its_value():
    with pytest.raises(BadParameters) as stopped:
        accept("10_experiment", TOY | {"api_key": SECRET})
    assert SECRET not in str(stopped.value)


def test_a_gold_question_typed_into_advice_is_a_leak(tmp_path):
    gold = Ruler.load().gate("confirm")[0].gold
    for text in (gold.critical, gold.critical.upper(), f"Ask about money. {gold.critical} And more."):
        with pytest.raises(Leak) as stopped:
            execute.run("10_experiment", TOY | ask(advice=[text]), folder=tmp_path / "runs")
        assert "\n" not in str(stopped.value)
    assert not (tmp_path / "runs").exists()


def test_a_task_of_the_ruler_typed_into_advice_is_a_leak():
    with pytest.raises(Leak, match="step ask"):
        accept("10_experiment", TOY | ask(advice=[Ruler.load().gate("full")[0].task]))


def test_own_words_as_advice_are_accepted():
    assert accept("10_experiment", TOY | ask(advice=["Be brief and concrete."])).model == "toy"


def test_an_unknown_template_is_refused():
    for name in ("11_train_nothing", "../README", "20_report"):
        with pytest.raises(BadParameters, match="template"):
            accept(name, TOY)


def test_the_defaults_of_the_template_are_an_experiment_that_differs_only_in_what_was_told():
    made = accept("10_experiment", TOY)
    assert (made.model, made.gate, made.judge, made.kind) == ("toy", "full", "offline", "experiment")
    assert made.key == accept("10_experiment", dict(reversed(TOY.items()))).key
    assert made.key != accept("10_experiment", TOY | {"seed": 1}).key


# --- the verdict on an executed notebook


def code(source="1", count=1, outputs=()):
    return {"cell_type": "code", "source": source, "execution_count": count, "outputs": list(outputs), "metadata": {}}


RESULT = {"output_type": "execute_result", "data": {MIME: {"record": {}, "cases": []}}, "metadata": {}}
ERROR = {"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": []}


@pytest.mark.parametrize(
    "cells, said",
    [
        ([code(outputs=[RESULT])], ""),
        ([code(outputs=[RESULT]), code("", None)], ""),
        ([code()], "0 result records"),
        ([code(outputs=[RESULT]), code(outputs=[RESULT])], "2 result records"),
        ([code(outputs=[RESULT]), code("1", None)], "never ran"),
        ([code(outputs=[ERROR]), code(outputs=[RESULT])], "ValueError: no"),
        ([code(outputs=[RESULT, ERROR])], "ValueError: no"),
    ],
)
def test_the_verdict_comes_from_errors_counts_and_one_result(cells, said):
    found = fault({"cells": [{"cell_type": "markdown", "source": "text", "metadata": {}}, *cells]})
    assert (said in str(found)) if said else found is None


def own_notebook(path, *sources):
    """A small notebook on disk: a parameters cell, then these cells."""
    cells = [{"cell_type": "code", "source": s, "execution_count": None, "outputs": [], "metadata": {}, "id": f"c{i}"}
             for i, s in enumerate(("seed: int = 0", *sources))]  # fmt: skip
    cells[0]["metadata"] = {"tags": ["parameters"]}
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    text = json.dumps({"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5})
    path.write_text(text, encoding="utf-8")
    return path


def adopted(notebook, error, folder):
    return adopt(Executed(Experiment(**TOY, folder=folder), notebook, error), "odd")


def executed(path, **how):
    """A notebook as its kernel left it, and the verdict on it."""
    notebook, error = kernel.execute(path, {}, {}, **how)
    return notebook, error or fault(notebook)


SHOW = f'from IPython.display import display\ndisplay({{"{MIME}": {{"record": {{}}, "cases": []}}}}, raw=True)'


def test_an_executed_notebook_with_a_value_of_a_secret_is_not_sealed(tmp_path, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", SECRET)
    said = {"output_type": "stream", "name": "stdout", "text": f"key: {SECRET}"}
    with pytest.raises(BadParameters, match="ANTHROPIC_API_KEY") as stopped:
        adopted({"cells": [code(outputs=[said])]}, Fault("", "it crashed"), tmp_path / "runs")
    [kept] = (tmp_path / "runs").iterdir()
    assert (
        SECRET not in str(stopped.value) and str(kept) in str(stopped.value) and sealed_folders(tmp_path / "runs") == []
    )
    assert kept.stat().st_mode & 0o777 == 0o600 and SECRET in kept.read_text()  # what ran was paid for: it is not lost


def test_a_parameter_that_holds_a_secret_is_refused_before_it_runs(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    with pytest.raises(BadParameters, match="'hypothesis' holds the value of HF_TOKEN") as stopped:
        accept("10_experiment", TOY | {"hypothesis": f"With {SECRET} it is better."})
    assert SECRET not in str(stopped.value)


def test_a_secret_with_letters_that_json_escapes_is_not_sealed(tmp_path, monkeypatch):
    secret = 'pass"word\\with\tescapes'
    monkeypatch.setenv("DATABASE_PASSWORD", secret)
    said = {"output_type": "stream", "name": "stdout", "text": secret}
    with pytest.raises(BadParameters, match="DATABASE_PASSWORD"):
        adopted({"cells": [code(outputs=[said])]}, Fault("", "it crashed"), tmp_path / "runs")


def test_a_secret_in_the_reason_of_a_crash_is_not_sealed(tmp_path, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", SECRET)
    with pytest.raises(BadParameters, match="ANTHROPIC_API_KEY"):
        adopted({"cells": [code()]}, Fault("", f"the kernel said {SECRET}"), tmp_path / "runs")


@pytest.mark.parametrize(
    "stopped, status",
    [
        (Fault("Tampered", "the ruler changed"), "invalid"),
        (Fault("WrongModel", "answered by another"), "invalid"),
        (Fault("ValueError", "Tampered: so a text says"), "crashed"),
        (Fault("", "Tampered: so a text says"), "crashed"),
    ],
)
def test_what_becomes_of_a_run_is_decided_by_the_class_of_its_error_and_not_by_words(tmp_path, stopped, status):
    with pytest.raises(RunFailed):
        adopted({"cells": [code()]}, stopped, tmp_path)
    [record] = Ledger.read(tmp_path).records
    assert record.status == status and record.error == str(stopped)


def test_a_crash_is_sealed_with_its_reason_and_counts(tmp_path):
    with pytest.raises(RunFailed, match="0001-odd crashed and is sealed") as stopped:
        adopted({"cells": [code(outputs=[ERROR])]}, Fault("ValueError", "no"), tmp_path)
    record = Ledger.read(tmp_path).get(stopped.value.run)
    assert (record.status, record.error, record.scores) == ("crashed", "ValueError: no", None)
    assert verify(tmp_path) == []


@pytest.mark.parametrize("text", ["", "[]", "1", "{}", '{"cells": 1}', '{"cells": [1]}', '{"cells": [{}]}', "not json"])
def test_a_file_that_is_no_executed_notebook_is_not_adopted(tmp_path, text):
    path = tmp_path / "odd.ipynb"
    path.write_text(text)
    with pytest.raises(BadParameters, match=r"odd\.ipynb") as stopped:
        execute.seal_notebook(path, folder=tmp_path / "runs")
    assert "\n" not in str(stopped.value) and not (tmp_path / "runs").exists()


def test_a_template_that_never_ran_is_not_adopted(tmp_path):
    with pytest.raises(BadParameters, match="no cell ever ran: it was never executed"):
        execute.seal_notebook(NOTEBOOKS / "10_experiment.ipynb", folder=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("data", [None, 1, {}, {"record": {}}, {"record": {"hypothesis": "x"}, "cases": 1}])
def test_a_result_without_a_whole_record_is_not_adopted(tmp_path, data):
    output = {"output_type": "display_data", "data": {MIME: data}, "metadata": {}}
    path = tmp_path / "odd.ipynb"
    path.write_text(json.dumps({"cells": [code(outputs=[output])], "metadata": {}}))
    with pytest.raises(BadParameters, match=r"odd\.ipynb"):
        execute.seal_notebook(path, folder=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


# --- with kernels


@pytest.fixture(scope="module")
def twice(tmp_path_factory):
    """The same toy run, sealed twice by `notch run` with a key planted in its environment."""
    folder = tmp_path_factory.mktemp("toy") / "runs"
    for _ in range(2):
        notch("run", "--runs", folder, "-p", "model", "toy", "-p", "hypothesis", "nothing moves", key=SECRET)
    return folder


def notch(*args, key=""):
    env = os.environ | {"ANTHROPIC_API_KEY": key, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-m", "lib.cli", *map(str, args)], cwd=ROOT, env=env, capture_output=True,
                          text=True, timeout=120)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_a_toy_run_end_to_end_is_sealed_with_one_result(twice):
    run = twice / "0001-baseline-ask"
    assert sorted(p.name for p in run.iterdir()) == [SEAL, "cases.jsonl", "experiment.ipynb", "record.json"]
    notebook = json.loads((run / "experiment.ipynb").read_text())
    assert fault(notebook) is None
    record = json.loads((run / "record.json").read_text())
    assert (record["id"], record["status"], record["model"]) == (run.name, "kept", "toy")
    assert len(Ledger.read(twice).cases(run.name)) == len(Ruler.load().gate("full"))
    assert not list(twice.glob(".tmp-*")) and verify(twice) == []


def test_the_second_run_is_compared_with_the_first(twice):
    decision = Ledger.read(twice).get("2").decision
    assert (decision.against, decision.delta) == ("0001-baseline-ask", 0.0)


def test_two_identical_greedy_runs_have_the_same_cases_to_the_byte(twice):
    first, second = ((run / "cases.jsonl").read_bytes() for run in sealed_folders(twice))
    assert first == second and first


def paths_of_this_machine():
    return [str(ROOT), str(Path.home()), sys.prefix, sys.base_prefix, "/tmp/"]


def test_no_path_of_this_machine_and_no_secret_is_in_a_sealed_file(twice):
    for file in (p for p in twice.rglob("*") if p.is_file()):
        text = file.read_text()
        assert SECRET not in text, file
        for path in (*paths_of_this_machine(), str(twice)):
            assert path not in text, (file, path)


def test_a_sealed_notebook_is_not_sealed_again(twice, tmp_path):
    with pytest.raises(BadParameters):
        execute.seal_notebook(twice / "0001-baseline-ask" / "experiment.ipynb", folder=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "source, said",
    [
        ("raise ValueError('a cell that raises')", "ValueError: a cell that raises"),
        ("import sys; sys.exit(0)", "SystemExit"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "DeadKernelError"),
    ],
    ids=["raises", "exits", "kills-its-kernel"],
)
def test_a_run_that_stops_half_way_is_found_sealed_as_crashed_and_reported(tmp_path, source, said):
    path = own_notebook(tmp_path / "odd.ipynb", source, SHOW)
    notebook, error = executed(path)
    assert said in str(error) and fault(notebook)
    with pytest.raises(RunFailed, match=re.escape(said)):
        adopted(notebook, error, tmp_path / "runs")
    [record] = Ledger.read(tmp_path / "runs").records
    assert record.status == "crashed" and said in record.error and verify(tmp_path / "runs") == []


def test_a_crash_inside_a_library_seals_no_path_of_this_machine(tmp_path):
    path = own_notebook(tmp_path / "odd.ipynb", "import json; json.loads('{')")
    notebook, error = executed(path)
    with pytest.raises(RunFailed, match="JSONDecodeError"):
        adopted(notebook, error, tmp_path / "runs")
    for file in (p for p in (tmp_path / "runs").rglob("*") if p.is_file()):
        for place in paths_of_this_machine():
            assert place not in file.read_text(), (file, place)


def test_a_cell_that_runs_too_long_is_stopped_and_found(tmp_path):
    path = own_notebook(tmp_path / "odd.ipynb", "import time; time.sleep(60)", SHOW)
    notebook, error = executed(path, timeout=1)
    assert "CellTimeoutError" in str(error) and fault(notebook)


@pytest.mark.slow
def test_output_that_comes_late_crashes_no_run(tmp_path):
    late = """import sys, time
sys.stdout.flush_timeout = sys.stderr.flush_timeout = 0.1  # else the cell itself waits
get_ipython().kernel.iopub_thread.schedule(lambda: time.sleep(6))"""
    notebook, error = executed(own_notebook(tmp_path / "late.ipynb", late, SHOW))
    assert error is None


def test_a_run_after_one_that_crashed_is_not_held_up_by_it(tmp_path):
    with pytest.raises(RunFailed):
        adopted({"cells": [code(outputs=[ERROR])]}, Fault("ValueError", "no"), tmp_path / "runs")
    record = execute.run("10_experiment", TOY, folder=tmp_path / "runs", carry=without_kernel)
    assert (record.id, record.status) == ("0002-baseline-ask", "kept")


@pytest.mark.parametrize("cut", [20, None], ids=["torn-line", "no-ledger"])
def test_a_run_after_an_interrupted_seal_is_compared_with_the_run_that_was_sealed(tmp_path, twice, cut):
    import shutil

    folder = tmp_path / "runs"
    shutil.copytree(twice / "0001-baseline-ask", folder / "0001-baseline-ask")
    first = (twice / "ledger.jsonl").read_bytes().splitlines(keepends=True)[0]
    (folder / "ledger.jsonl").write_bytes(first[: -(cut or len(first))])
    record = execute.run("10_experiment", TOY, folder=folder, carry=without_kernel)
    assert record.decision.against == "0001-baseline-ask" and verify(folder) == []


@pytest.mark.slow
def test_of_two_first_runs_at_once_only_one_is_the_baseline(tmp_path):
    command = [sys.executable, "-m", "lib.cli", "run", "--runs", str(tmp_path / "runs"), "-p", "model", "toy"]
    env = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    both = [
        subprocess.Popen([*command, "-p", "hypothesis", h], cwd=ROOT, env=env, stdout=subprocess.PIPE) for h in "ab"
    ]
    assert [(child.communicate(timeout=120), child.returncode)[1] for child in both] == [0, 0]
    assert [r.status for r in Ledger.read(tmp_path / "runs").records].count("kept") == 1


@pytest.fixture(scope="module")
def by_papermill(tmp_path_factory):
    """The template, executed by papermill's own command into a folder of runs that holds nothing."""
    folder = tmp_path_factory.mktemp("papermill")
    env = os.environ | {"NOTCH_RUNS": str(folder / "runs"), "OPENBLAS_NUM_THREADS": "1"}
    out = folder / "out.ipynb"
    told = ("-p", "model", "toy", "-p", "hypothesis", "papermill runs it")
    command = [sys.executable, "-m", "papermill", str(NOTEBOOKS / "10_experiment.ipynb"), str(out), *told]
    subprocess.run([*command, "-k", "python3"], cwd=ROOT, env=env, check=True, capture_output=True, timeout=120)
    return out


@pytest.mark.slow
def test_a_notebook_that_papermill_executed_is_adopted(by_papermill, tmp_path):
    record = execute.seal_notebook(by_papermill, folder=tmp_path / "runs")
    assert (record.id, record.status, record.hypothesis) == ("0001-out", "kept", "papermill runs it")
    assert verify(tmp_path / "runs") == []
    for file in (p for p in (tmp_path / "runs").rglob("*") if p.is_file()):
        assert not [p for p in paths_of_this_machine() if p in file.read_text()], file


@pytest.mark.slow
def test_a_notebook_is_adopted_once(by_papermill, tmp_path):
    execute.seal_notebook(by_papermill, folder=tmp_path / "runs")
    with pytest.raises(BadParameters, match=r"out\.ipynb: sealed already as 0001-out"):
        execute.seal_notebook(by_papermill, "again", tmp_path / "runs")
    assert len(Ledger.read(tmp_path / "runs").records) == 1


def test_a_notebook_with_a_misspelt_parameter_is_not_adopted(by_papermill, tmp_path):
    """papermill itself warns and goes on: the run is then another than the one that was asked for."""
    notebook = json.loads(by_papermill.read_text())
    [told] = tagged(notebook, "injected-parameters")
    told["source"] = [*told["source"], "\npipelin = [{'step': 'ask', 'n': float('8')}]"]
    path = tmp_path / "odd.ipynb"
    path.write_text(json.dumps(notebook))
    with pytest.raises(BadParameters, match="no parameter 'pipelin', did you mean 'pipeline'"):
        execute.seal_notebook(path, folder=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_notebook_that_papermill_executed_is_decided_by_the_ledger_it_is_sealed_into(by_papermill, twice, tmp_path):
    import shutil

    folder = tmp_path / "runs"
    shutil.copytree(twice, folder)
    record = execute.seal_notebook(by_papermill, folder=folder)
    assert record.decision.against == "0001-baseline-ask" and record.status != "kept"


def test_a_notebook_whose_scores_do_not_follow_from_its_judgments_is_refused(by_papermill, tmp_path):
    notebook = json.loads(by_papermill.read_text())
    [data] = [o["data"][MIME] for c in notebook["cells"] for o in c.get("outputs", ()) if MIME in o.get("data", {})]
    data["record"]["scores"]["quality"] = 0.99
    path = tmp_path / "forged.ipynb"
    path.write_text(json.dumps(notebook))
    with pytest.raises(BadParameters, match="forged"):
        execute.seal_notebook(path, folder=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_notebook_whose_judgments_were_typed_in_is_refused_though_its_scores_follow_from_them(by_papermill, tmp_path):
    notebook = json.loads(by_papermill.read_text())
    [data] = [o["data"][MIME] for c in notebook["cells"] for o in c.get("outputs", ()) if MIME in o.get("data", {})]
    best = Judgment(dict.fromkeys(DIMENSIONS, 5.0), "win")
    for row in data["cases"]:
        row["judgment"] |= best.__dict__
        row["quality"] = 1.0
    data["record"]["scores"] = score([best] * len(data["cases"])).as_dict()
    path = tmp_path / "typed.ipynb"
    path.write_text(json.dumps(notebook))
    with pytest.raises(BadParameters, match="the judge says something else of this answer; not sealed"):
        execute.seal_notebook(path, folder=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_notebook_with_a_cell_that_failed_is_not_adopted(by_papermill, tmp_path):
    notebook = json.loads(by_papermill.read_text())
    notebook["cells"][-1]["outputs"].append(ERROR)
    path = tmp_path / "broken.ipynb"
    path.write_text(json.dumps(notebook))
    with pytest.raises(BadParameters, match="ValueError: no"):
        execute.seal_notebook(path, folder=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_notebook_whose_cells_have_no_metadata_is_refused_in_a_sentence(tmp_path):
    """As some converters leave it: valid JSON, no tag on any cell, so no parameters cell is known."""
    notebook = json.loads((NOTEBOOKS / "10_experiment.ipynb").read_text(encoding="utf-8"))
    for cell in notebook["cells"][2:]:
        del cell["metadata"]
    path = tmp_path / "bare.ipynb"
    path.write_text(json.dumps(notebook))
    with pytest.raises(BadParameters, match=r"bare\.ipynb: cell 3 has no metadata, which Jupyter and papermill write"):
        execute.seal_notebook(path, folder=tmp_path / "runs")
    assert [p.name for p in tmp_path.iterdir()] == ["bare.ipynb"]
