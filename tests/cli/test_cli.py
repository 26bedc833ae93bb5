"""The command line: exit codes, one line an error, JSON that parses, nothing half written on a full disk."""

import json
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys

import pytest

from lib import cli
from lib.claude.client import NoKey
from lib.claude.prices import BudgetSpent, UnknownModel
from lib.cli.options import line, values
from lib.files import NOTEBOOKS, ROOT, RULER, Exit, Tampered, leave_out
from lib.lab import kernel
from lib.lab.base import BadParameters
from lib.lab.execute import accept
from lib.measure.ruler import BadRuler
from lib.report import run_table
from lib.runs.ledger import Ledger
from lib.runs.record import record_of
from lib.runs.seal import sealed_folders
from lib.runs.verify import verify
from lib.weights import NoWeights
from tests.cli.conftest import one_line
from tests.lab.cluster import copy
from tests.llama import small, write_broken
from tests.report.test_tables import made

TOY = ("-p", "model", "toy", "-p", "hypothesis", "x")
COMMANDS = sorted(cli.notch.commands)


def child(*args, variables=None, **options):
    env = os.environ | {"OPENBLAS_NUM_THREADS": "1"} | (variables or {})
    command = [sys.executable, "-m", "lib.cli", *map(str, args)]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, **options)


def sealed(folder):
    """One sealed run, by hand."""
    from lib.lab.experiment import Experiment
    from lib.runs.seal import seal

    record = Experiment(hypothesis="x", model="toy").record(status="crashed", decision={"reason": "crashed"})
    files = {"experiment.ipynb": b"{}\n", "cases.jsonl": b""}
    told = json.dumps(record.as_dict())
    return seal(folder, "odd", files, lambda run: {"record.json": told.replace('"id": ""', f'"id": "{run}"').encode()})


# --- help and usage


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_that_says_what_it_does(notch, command):
    said = notch(command, "--help")
    assert said.code == 0 and said.out.startswith(f"Usage: notch {command}") and len(said.out.splitlines()) > 4


def test_the_help_of_run_names_what_a_run_is_made_of_and_its_example_would_be_accepted(notch):
    said = notch("run", "--help").out
    assert all(f" {name}," in said for name in ("min_effect", "decoding", "schema", "prompting", "critique", "prune"))
    [example] = re.findall(r"  notch run (.*?)\n\n", said, re.DOTALL)
    words = shlex.split(example.replace("\\\n", " "))
    pairs = [(words[i + 1], words[i + 2]) for i, w in enumerate(words) if w == "-p"]
    assert accept("10_experiment", values([*pairs, ("model", "toy")])).steps[0].args["advice"]


def test_the_help_lists_every_command(notch):
    said = notch("--help")
    assert said.code == 0 and all(f"  {name} " in said.out for name in COMMANDS)


def test_the_version_is_the_one_of_the_package(notch):
    from lib import __version__

    said = notch("--version")
    assert said.code == 0 and __version__ in said.out


@pytest.mark.parametrize("args", [("nosuch",), ("verify", "--nosuch"), ("study",), ("seal", "missing.ipynb")])
def test_wrong_usage_is_exit_code_2(notch, args):
    said = notch(*args)
    assert said.code == 2 and "Error" in said.err and "Traceback" not in said.err


@pytest.mark.parametrize(
    "args, said",
    [
        (("run", *TOY, "-p", "modle", "toy"), "did you mean 'model'"),
        (("run", *TOY, "-p", "seed", "{"), "seed"),
        (("run", *TOY, "-p", "1", "2"), "1"),
        (("run", *TOY, "-p", "lever", "2026-01-01"), "lever"),
        (("run", *TOY, "-p", "pipeline", "[{step: aks}]"), "no step 'aks'"),
        (("run", *TOY, "-p", "gate", "confirm"), "notch confirm"),
        (("study", "nosuch"), "no plan 'nosuch'"),
        (("confirm", "nosuch"), "nosuch"),
        (("run", "-p", "model", "toy"), "hypothesis is empty: say what you expect"),
    ],
)
def test_bad_input_is_one_line_exit_code_2_and_nothing_written(notch, tmp_path, args, said):
    found = notch(*args)
    assert found.code == 2 and one_line(found.err) and said in found.err
    assert not (tmp_path / "runs").exists()


def test_a_number_in_scientific_notation_is_a_number(notch, tmp_path):
    # papermill's own -p reads 1e-3 as a number; YAML 1.1 does not.
    found = notch("run", *TOY, "-p", "predicted", "1e-3", "-p", "lever", "magic")
    assert found.code == 2 and "lever is 'magic'" in found.err


def test_bytes_in_an_argument_that_are_no_text_are_refused_in_one_line(tmp_path):
    done = child(
        "run",
        "--runs",
        tmp_path / "runs",
        "-p",
        "model",
        "toy",
        "-p",
        "hypothesis",
        b"\xff".decode("utf-8", "surrogateescape"),
    )
    assert done.returncode == 2 and one_line(done.stderr)


def test_a_key_given_as_a_parameter_is_refused_without_repeating_it(notch):
    said = notch("run", *TOY, "-p", "api_key", "sk-ant-planted-0123456789")
    assert said.code == 2 and "ANTHROPIC_API_KEY" in said.err and "planted" not in said.err + said.out


def test_a_file_in_place_of_the_folder_of_runs_is_wrong_usage(notch, tmp_path):
    (tmp_path / "file").write_text("")
    assert notch("verify", "--runs", tmp_path / "file").code == 2


READERS = ["verify", "report", "log", "compare a b", "rejudge a --without coverage", "confirm", "train --requests", "next",
           "propose pyproject.toml"]  # fmt: skip


@pytest.mark.parametrize("command", READERS)
def test_a_folder_of_runs_that_is_not_there_is_wrong_usage_for_what_only_reads(notch, tmp_path, command):
    said = notch(*command.split(), "--runs", tmp_path / "rnus")
    assert said.code == 2 and "rnus" in said.err and "does not exist" in said.err
    assert not (tmp_path / "rnus").exists()


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_a_name_that_the_terminal_cannot_show_ends_no_command(unfrozen_ruler, encoding):
    odd = unfrozen_ruler.rename(unfrozen_ruler.with_name("λίνεαλ"))
    done = child("freeze", "--ruler", odd, variables={"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"})
    assert done.returncode == 0 and "is frozen as" in done.stdout and "????" in done.stdout and done.stderr == ""


@pytest.mark.parametrize(
    "error, code",
    [
        (BadParameters("x"), Exit.USAGE),
        (NoKey("x"), Exit.MISSING),
        (UnknownModel("x"), Exit.USAGE),
        (BudgetSpent("x"), Exit.RUN_FAILED),
        (BadRuler("x"), Exit.FAILED),
        (NoWeights("x"), Exit.MISSING),
        (Tampered("x"), Exit.TAMPERED),
        (OSError("x"), Exit.RUN_FAILED),
        (TypeError("x"), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_expected_error_brings_its_exit_code_and_a_defect_has_none(error, code):
    assert cli.exit_code(error) == code


# --- freeze, 1; missing, 3


def test_a_frozen_ruler_is_not_frozen_again(notch):
    before = (RULER / "FROZEN").read_bytes()
    said = notch("freeze")
    assert said.code == 1 and one_line(said.err) and (RULER / "FROZEN").read_bytes() == before


def test_a_ruler_that_cannot_be_used_fails_the_check(notch, tmp_path):
    said = notch("freeze", "--ruler", tmp_path)
    assert said.code == 1 and one_line(said.err) and "missing" in said.err and not (tmp_path / "FROZEN").exists()


def test_a_model_that_is_not_here_is_a_missing_prerequisite(notch, tmp_path):
    said = notch("run", "-p", "hypothesis", "x", "-p", "model", "nosuch")
    assert said.code == 3 and one_line(said.err) and "'nosuch'" in said.err and not (tmp_path / "runs").exists()


HOMELESS = ("unshare", "--user", "--map-user=12345", "--map-group=12345")


@pytest.mark.skipif(
    not shutil.which("unshare") or subprocess.run([*HOMELESS, "true"], capture_output=True).returncode != 0,
    reason="only where a user namespace can be made",
)
@pytest.mark.slow
def test_a_user_without_a_name_and_a_home_runs_an_experiment_and_asks_for_trainings(tmp_path):
    """As in a container that is started with a number for a user: Jupyter's kernel does not start without a home."""
    named = ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME")
    env = leave_out(os.environ, *named) | {"NOTCH_CACHE": str(tmp_path / "cache")}
    for args in (("run", *TOY, "-p", "gate", "dev"), ("train", "--requests"), ("report",)):
        command = [*HOMELESS, sys.executable, "-m", "lib.cli", *args, "--runs", str(tmp_path / "runs")]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0 and done.stderr == "", done.stderr
    assert len(sealed_folders(tmp_path / "runs")) == 1 and not (ROOT / "~").exists()


# --- doctor and verify


def test_doctor_tells_as_json_what_it_tells_as_text(notch):
    as_json, as_text = notch("doctor", "--json"), notch("doctor")
    found = json.loads(as_json.out)
    assert as_json.code == as_text.code == (0 if found["ok"] else 3)
    assert found["ok"] == all(c["ok"] for c in found["checks"] if c["needed"])
    assert len(as_text.out.splitlines()) == len(found["checks"])


def test_doctor_does_not_show_the_key(notch, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-planted-0123456789")
    assert "planted" not in notch("doctor").out + notch("doctor", "--json").out


def test_doctor_names_all_that_needs_the_key(notch, monkeypatch):
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    said = notch("doctor").out
    assert all(
        what in said for what in ("judge claude", "model claude-*", "ruler draft --dollars", "--proposer claude")
    )


def test_a_report_of_a_folder_that_is_not_there_is_a_usage_error(notch, tmp_path):
    said = notch("report", "--runs", tmp_path / "nope")
    assert said.code == 2 and "nope' does not exist" in said.err
    assert list(tmp_path.iterdir()) == []


def test_doctor_names_a_folder_that_cannot_be_written(notch):
    said = notch("doctor", "--runs", "/proc/notch")
    assert said.code == 3 and "runs: /proc/notch cannot be written" in said.out


GIVEN = {  # a command whose folder is the last word; what it needs before it would write there
    "run": ("run", *TOY, "--runs"),
    "study": ("study", "quick", "--no-report", "--runs"),
    "confirm": ("confirm", "--models", "toy,stored:claude", "--runs"),
    "calibrate": ("calibrate", "--runs"),
    "loop": ("loop", "--runs", 1, "-p", "model", "toy", "--no-report", "--runs"),
    "steer": ("loop", "--runs", 1, "-p", "model", "toy", "--no-report", "--steer"),
    "draft": ("ruler", "draft", ROOT / ".gitignore", "--ruler"),
    "report": ("report", "--html"),
}


@pytest.mark.parametrize("args", GIVEN.values(), ids=GIVEN)
def test_a_folder_that_cannot_be_written_is_a_missing_prerequisite_and_nothing_runs(notch, tmp_path, args):
    (tmp_path / "file").write_text("a file stands where the folder would begin")
    sealed(tmp_path / "runs")
    said = notch(*args, tmp_path / "file" / "there")
    assert said.code == 3 and one_line(said.err.splitlines()[-1] + "\n"), said.err
    assert f"{tmp_path / 'file' / 'there'} cannot be written" in said.err and args[-1] in said.err
    assert len(sealed_folders(tmp_path / "runs")) == 1


def test_verify_of_no_runs_is_clean(notch, tmp_path):
    said = notch("verify", "--json")
    assert said.code == 0 and json.loads(said.out) == {"ok": True, "runs": 0, "wrong": [], "repaired": []}
    assert not (tmp_path / "runs").exists()


def test_verify_says_one_line_a_file_of_a_ruler_whose_line_ends_were_converted(tmp_path):
    ruler = shutil.copytree(RULER, tmp_path / "ruler")
    for name in ("rubric.json", "judge_rubric.md"):
        (ruler / name).chmod(0o644)
        (ruler / name).write_bytes((ruler / name).read_bytes().replace(b"\n", b"\r\n"))
    (tmp_path / "runs").mkdir()
    said = child("verify", "--runs", tmp_path / "runs", variables={"NOTCH_RULER": str(ruler)})
    assert said.returncode == 5 and len(said.stderr.splitlines()) == 2
    assert all("CRLF" in line and "core.autocrlf" in line for line in said.stderr.splitlines())


def test_verify_finds_a_tampered_run_and_names_the_file(notch, tmp_path):
    file = tmp_path / "runs" / sealed(tmp_path / "runs") / "experiment.ipynb"
    assert notch("verify").code == 0
    file.chmod(0o644)
    file.write_bytes(b"{ }\n")
    said, as_json = notch("verify"), notch("verify", "--json")
    assert said.code == as_json.code == 5 and str(file) in said.err
    found = json.loads(as_json.out)
    assert found["ok"] is False and any(str(file) in text for text in found["wrong"])


def test_verify_keeps_scores_in_the_cache_and_computes_them_anew_where_that_is_asked(notch, tmp_path, monkeypatch):
    monkeypatch.setenv("NOTCH_CACHE", str(tmp_path / "cache"))
    sealed(tmp_path / "runs")
    assert notch("verify", "--anew").code == 0 and not (tmp_path / "cache").exists()
    assert notch("verify").code == 0 and len(list((tmp_path / "cache" / "scores").iterdir())) == 1


def test_repair_adds_a_run_that_an_interruption_kept_out_of_the_ledger(notch, tmp_path):
    run = sealed(tmp_path / "runs")
    (tmp_path / "runs" / "ledger.jsonl").unlink()
    assert notch("verify").code == 5
    said = notch("verify", "--repair", "--json")
    assert said.code == 0 and json.loads(said.out)["repaired"] == [f"added {run} to the ledger"]
    assert notch("verify").code == 0


@pytest.mark.parametrize("command", [("verify", "--repair"), ("verify", "--repair", "--json"), ("study", "quick")])
def test_a_record_that_cannot_be_read_is_tampering_not_a_traceback(notch, tmp_path, command):
    file = tmp_path / "runs" / sealed(tmp_path / "runs") / "record.json"
    file.chmod(0o644)
    file.write_bytes(b"X")
    if command[0] == "study":
        plan = tmp_path / "plan.yaml"
        plan.write_text("runs: [{name: a, model: toy, hypothesis: x}]")
        command = ("study", plan, "--no-report")
    said = notch(*command)
    assert said.code == 5 and "record.json" in said.err + said.out


@pytest.mark.parametrize("command", [("confirm",), ("study", "{plan}", "--no-report")])
def test_a_ledger_line_that_cannot_be_read_is_tampering_not_a_traceback(notch, tmp_path, command):
    sealed(tmp_path / "runs")
    path = tmp_path / "runs" / "ledger.jsonl"
    path.write_bytes(b"X" + path.read_bytes()[1:])
    plan = tmp_path / "plan.yaml"
    plan.write_text("runs: [{name: a, model: toy, hypothesis: x}]")
    said = notch(*(part.format(plan=plan) for part in command))
    assert said.code == 5 and one_line(said.err) and "ledger.jsonl" in said.err


def test_a_file_that_is_no_notebook_is_not_sealed(notch, tmp_path):
    for text in ("[]", "1", "not json"):
        (tmp_path / "odd.ipynb").write_text(text)
        said = notch("seal", tmp_path / "odd.ipynb")
        assert said.code == 2 and one_line(said.err) and not (tmp_path / "runs").exists()


# --- runs that work, and a disk that is full


def test_where_not_one_case_has_an_answer_the_line_says_why(tmp_path):
    reasons = ["reply is not JSON"] * 2 + ["no\nreply"]
    rows = [{"case": f"c{n}", "quality": 0.0, "no_answer": reason} for n, reason in enumerate(reasons)]
    record = made(1, "discarded", 0.0)
    record["scores"] |= {"wins": 0, "ties": 0, "losses": 0, "no_answer": 3, "unscored": 0}
    (tmp_path / record["id"]).mkdir()
    (tmp_path / record["id"] / "cases.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "3 without an answer, 2 of them: reply is not JSON)" in line(record_of(record), tmp_path)
    assert "3 without an answer)" in line(record_of(record))


@pytest.mark.parametrize(
    "status, kind, against, said",
    [
        ("kept", "experiment", "", "first run: nothing to beat yet, quality 0.3000"),
        ("kept", "confirm", "", "first look: nothing to beat yet, quality 0.3000"),
        ("kept", "experiment", "0001-x", "kept, quality 0.3000"),
        ("discarded", "experiment", "", "discarded, quality 0.3000"),
    ],
)
def test_what_had_nothing_to_beat_is_not_called_kept(tmp_path, status, kind, against, said):
    record = made(2, status, 0.3, kind=kind, decision={"reason": "r", "against": against, "delta": None})
    assert f"{record['id']}: {said}" in line(record_of(record))
    [shown] = run_table.frame(Ledger(tmp_path, [record_of(record)])).status
    assert shown == said.split(",")[0].split(":")[0] and record["status"] == status


def test_a_run_prints_its_record_as_json(tmp_path):
    done = child("run", "--runs", tmp_path / "runs", *TOY, "--json")
    record = json.loads(done.stdout)
    assert done.returncode == 0 and (record["id"], record["status"]) == ("0001-baseline-ask", "kept")
    assert done.stderr == ""


def test_a_notebook_whose_cases_have_no_answer_is_sealed_with_the_reason(notch, tmp_path):
    lines = {"model": "toy", "hypothesis": "The toy answers JSON only.", "gate": "dev",
             "pipeline": [{"step": "ask", "schema": "lines"}]}  # fmt: skip
    executed, error = kernel.execute(NOTEBOOKS / "10_experiment.ipynb", lines, {"NOTCH_RUNS": str(tmp_path / "runs")})
    assert error is None
    (tmp_path / "by-hand.ipynb").write_text(json.dumps(executed))
    said = notch("seal", tmp_path / "by-hand.ipynb")
    assert said.code == 0 and "10 without an answer, 10 of them: " in said.out


@pytest.mark.slow
def test_a_changed_cell_of_the_template_changes_no_run_and_is_named(tmp_path):
    template = copy(tmp_path) / "notebooks" / "10_experiment.ipynb"
    changed = (
        template.read_text()
        .replace("seed: int = 0", "seed: int = 5")
        .replace('gate: str = \\"full', 'gate: str = \\"dev')
    )
    template.write_text(changed)
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "lib.cli", "run", "--runs", "mine", *TOY, "-p", "min_effect", "0.03", "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    record = json.loads(done.stdout)
    assert (record["gate"], record["seed"], record["min_effect"]) == ("full", 0, 0.03)
    assert "10_experiment.ipynb has other values for gate, seed" in done.stderr


@pytest.fixture(scope="module")
def crashed(tmp_path_factory):
    """A run of a model with broken weights: that shows only when it answers. The folder of runs, what it said."""
    where = tmp_path_factory.mktemp("crashed")
    write_broken(where / "model")
    return where / "runs", child("run", "--runs", where / "runs", "-p", "model", where / "model", *TOY[3:])


def test_a_run_that_crashes_is_exit_code_4_and_sealed(crashed):
    folder, done = crashed
    assert done.returncode == 4 and one_line(done.stderr) and "0001-baseline-ask" in done.stderr
    [record] = Ledger.read(folder).records
    assert record.status == "crashed" and verify(folder) == []


def test_a_model_in_a_folder_seals_no_path_of_this_machine(crashed):
    folder, _ = crashed
    assert [p.name for p in folder.rglob("*") if p.is_file() and str(folder.parent) in p.read_text()] == []


def nothing_half(folder):
    """No run was sealed and nothing lies around but the lock."""
    return {p.name for p in folder.iterdir()} <= {".lock", "ledger.jsonl"} and sealed_folders(folder) == []


@pytest.mark.slow
def test_a_full_disk_is_one_line_exit_code_4_and_the_next_call_works(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode == 0:
        try:
            done = child("run", "--runs", folder / "runs", *TOY)
            assert done.returncode == 4 and one_line(done.stderr) and "space" in done.stderr
            assert nothing_half(folder / "runs")
            subprocess.run(["mount", "-o", "remount,size=8m", str(folder)], check=True)
            assert child("run", "--runs", folder / "runs", *TOY).returncode == 0
            assert verify(folder / "runs") == []
        finally:
            subprocess.run(["umount", str(folder)], check=True)
        return

    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    done = child("run", "--runs", folder / "runs", *TOY, preexec_fn=small_files)
    assert done.returncode == 4 and one_line(done.stderr)
    assert not (folder / "runs").exists() or nothing_half(folder / "runs")
    assert child("run", "--runs", folder / "runs", *TOY).returncode == 0
    assert verify(folder / "runs") == []


def test_a_seal_that_meets_a_file_size_limit_leaves_nothing_and_the_next_one_works(tmp_path):
    # The same without a kernel: the limit stops the write of a file in the middle.
    text = """
import resource, sys
from pathlib import Path
from lib.runs.seal import seal
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    seal(Path(sys.argv[1]), "big", {"cases.jsonl": b"x" * 100_000}, lambda run: {"record.json": b"{}"})
except OSError as error:
    sys.exit(44)
"""
    folder = tmp_path / "runs"
    done = subprocess.run([sys.executable, "-c", text, folder], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 44, done.stderr
    assert nothing_half(folder)
    assert sealed(folder) == "0001-odd" and verify(folder) == []


@pytest.mark.parametrize("cut", [100, 1000])
def test_a_ledger_line_that_a_full_disk_cut_off_is_made_whole_by_the_next_seal(tmp_path, cut):
    first = sealed(tmp_path / "runs")
    path = tmp_path / "runs" / "ledger.jsonl"
    path.write_bytes(path.read_bytes()[:cut])
    assert sealed(tmp_path / "runs") == "0002-odd"
    assert [r.id for r in Ledger.read(tmp_path / "runs").records] == [first, "0002-odd"]
    assert verify(tmp_path / "runs") == []


def test_the_entry_point_is_a_function_of_the_package_and_the_package_runs_by_its_name():
    command = [sys.executable, "-c", "from lib.cli import main; main(['--version'])"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == child("--version").stdout


def test_importing_the_command_line_is_cheap():
    text = "import sys, lib.cli; print([m for m in ('papermill', 'mlx', 'pandas', 'matplotlib', 'numpy', 'pydantic') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- measuring the measure


@pytest.mark.parametrize(
    "args, said",
    [
        (("calibrate", "-p", "model", "toy", "-p", "repeat", "3"), "did you mean 'repeats'"),
        (("calibrate", "-p", "model", "toy", "-p", "repeats", "1"), "repeats is 1"),
        (("calibrate", "-p", "api_key", "x"), "looks like a secret"),
        (("calibrate", "-p", "gate", "confirm"), "sealed"),
        (("rejudge", "nosuch", "--without", "coverage"), "no run 'nosuch'"),
        (("rejudge", "nosuch", "--without", "style"), "without is 'style'"),
    ],
)
def test_a_calibration_or_rejudge_that_cannot_run_is_one_line_and_nothing_written(notch, tmp_path, args, said):
    found = notch(*args)
    assert found.code == 2 and one_line(found.err) and said in found.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("args", [("rejudge",), ("rejudge", "1"), ("calibrate", "--judge", "x")])
def test_wrong_usage_of_what_measures_the_measure_is_exit_code_2(notch, args):
    assert notch(*args).code == 2


def test_a_judge_is_compared_with_stored_verdicts_and_nothing_is_written(notch, tmp_path):
    asked = [
        f"{a} is your boat?" for a in ("How old", "How big", "How far", "How cheap", "How heavy", "How fast", "How wet")
    ]
    gold = {"id": "a", "input": "buy a boat", "title": "Boat", "questions": asked}
    (tmp_path / "gold.jsonl").write_text("".join(json.dumps(gold | {"id": i}) + "\n" for i in "abc"))
    scores = dict.fromkeys(("atomicity", "specificity", "coverage", "naturalness", "nonRedundancy"), 3)
    (tmp_path / "verdicts").mkdir()
    for name in ("one", "two"):
        rows = [scores | {"id": i, "title": "Boat", "questions": asked, "pairwise": "goldBetter"} for i in "abc"]
        (tmp_path / "verdicts" / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    before = sorted(p for p in tmp_path.rglob("*"))
    files = [x for name in ("one", "two") for x in ("--against", tmp_path / "verdicts" / f"{name}.jsonl")]
    said = notch("calibrate", *files)
    assert said.code == 0 and "Spearman of case quality" in said.out and "runs, best first" in said.out
    assert "boat" not in said.out.lower() and sorted(p for p in tmp_path.rglob("*")) == before


def test_a_judge_is_compared_with_the_verdicts_by_hand_or_told_that_there_is_no_such_file(notch):
    said = notch("calibrate", "--against", "verdicts")
    assert said.code == 0 and said.out.startswith("60 answers judged by both") and "by hand: 60 cases" in said.out
    said = notch("calibrate", "--against", "verdict")
    assert said.code == 2 and "'verdict' does not exist" in said.err


def test_a_file_that_is_no_file_of_verdicts_fails_the_check(notch, tmp_path):
    (tmp_path / "odd.jsonl").write_text("{")
    said = notch("calibrate", "--against", tmp_path / "odd.jsonl")
    assert said.code == 1 and one_line(said.err) and "odd.jsonl" in said.err


def test_a_study_is_executed_here_or_on_a_cluster_and_not_on_both(notch, tmp_path):
    refusal = notch("study", "quick", "--workers", "2", "--scheduler", "tcp://127.0.0.1:9")
    assert refusal.code == Exit.USAGE and one_line(refusal.err) and "give one of them" in refusal.err
    assert not (tmp_path / "runs").exists()


def test_a_cap_without_a_batch_is_refused_and_says_where_a_runs_own_is(notch, tmp_path):
    refusal = notch("study", "quick", "--dollars", "2")
    assert refusal.code == Exit.USAGE and one_line(refusal.err) and "is the cap of --batch" in refusal.err
    assert not (tmp_path / "runs").exists()


# --- confirm: three questions


@pytest.mark.parametrize(
    "args, said",
    [
        (["3", "--models", "toy,smollm2"], "three different questions"),
        (["--models", "toy,smollm2", "--base", "toy"], "three different questions"),
        (["--models", "toy"], "expected two or more"),
        (["--models", "toy,no-such-model"], "no-such-model"),
        (["--models", "toy,smollm2", "-p", "gate", "dev"], "'gate' cannot be set"),
        (["--models", "toy,toy+x", "-p", "useful", "true"], "useful is asked of judge 'claude' alone"),
        (["--models", "toy,smollm2", "-p", "pipeline", "[{step: nope}]"], "no step 'nope'"),
        (["--base", "smollm2"], "is the old base"),
        (["-p", "seed", "1"], "go with --models or --base"),
    ],
)
def test_a_comparison_that_cannot_be_made_is_refused_before_anything_runs(notch, tmp_path, args, said):
    told = notch("confirm", *args)
    assert told.code in (Exit.USAGE, Exit.MISSING) and one_line(told.err) and said in told.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_models_are_compared_by_one_command_and_the_second_time_from_the_seal(notch, tmp_path):
    two = f"toy,{small()}"
    first = notch("confirm", "--models", two, "--name", "sizes")
    assert first.code == Exit.OK and "0003-sizes: reference" in first.out
    again = notch("confirm", "--models", two)
    assert again.out.count("(sealed already)") == 3
    assert notch("verify").code == Exit.OK
    record = Ledger.read(tmp_path / "runs").get("sizes")
    assert [c.useful.as_dict() for c in record.found.candidates.values()] == [{}, {}]


# --- compare


def test_two_runs_that_cannot_be_compared_are_refused_in_one_line(notch, tmp_path):
    name = sealed(tmp_path)
    said = notch("compare", name, "nope", "--runs", tmp_path)
    assert said.code == 2 and one_line(said.err) and "no run 'nope'" in said.err
    said = notch("compare", name, name, "--runs", tmp_path)
    assert said.code == 2 and one_line(said.err) and "has no scores" in said.err
