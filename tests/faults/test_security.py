"""What others wrote stays text: in folder, notebook, log, terminal and page; no file is executed, no secret is kept."""

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from lib.cli.options import line
from lib.files import ROOT, canonical
from lib.loop.events import Events
from lib.measure.judge import DIMENSIONS
from lib.models import load
from lib.models.model import NoModel
from lib.report import live, run_page, run_table
from lib.runs.ledger import Ledger
from lib.runs.record import CaseRow, record_of
from lib.runs.verify import verify
from lib.show import CONTROLS
from tests.cli.conftest import notch, one_line
from tests.llama import small
from tests.report.test_tables import made

__all__ = ["notch"]
EVIL = (
    "\x1b]0;owned\x07\x1b[2J../../../x {{7*7}} {hypothesis} $(touch owned) `touch owned` ; touch owned\r\n# Champion\n\n"
    "- 0099-fake <script>alert(1)</script><img src=x onerror=alert(1)> [l](javascript:alert(1)) |a|b \x9b31m\u202edrow"
)


def as_json(**parameters):
    return json.dumps(parameters)


@pytest.mark.parametrize(
    "args",
    [
        ("-p", "model", EVIL, "-p", "hypothesis", "x"),
        ("-p", "model", "claude-" + EVIL, "-p", "hypothesis", "x"),
        ("-p", "model", "stored:" + EVIL, "-p", "hypothesis", "x"),
        ("-p", "adapter", EVIL, "-p", "hypothesis", "x"),
        ("-p", EVIL, "x"),
        ("-y", as_json(lever=EVIL, hypothesis="x")),
        ("-y", as_json(judge=EVIL, hypothesis="x")),
        ("-y", as_json(gate=EVIL, hypothesis="x")),
        ("-y", as_json(pipeline=[{"step": EVIL}])),
        ("-y", as_json(pipeline=[{"step": "ask", EVIL: 1}])),
        ("-y", as_json(pipeline=[{"step": "ask", "schema": EVIL}])),
        ("-y", as_json(pipeline=[{"step": "donor", "adapter": EVIL}])),
        ("-y", as_json(decoding={EVIL: 1})),
        ("-y", EVIL),
    ],
    ids=str,
)
def test_a_name_that_is_refused_is_shown_in_one_line_and_obeyed_by_no_terminal(notch, tmp_path, args):
    done = notch("run", "--runs", tmp_path / "runs", *args)
    assert done.code in (2, 3) and one_line(done.err), done.err
    assert not CONTROLS.search(done.out + done.err) and not (tmp_path / "runs").exists()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A folder with one run whose every free text is hostile, and what the commands about it printed."""
    home = tmp_path_factory.mktemp("hostile")
    runs, plan, said = home / "runs", home / "plan.yaml", []
    row = {
        "name": EVIL,
        "hypothesis": EVIL,
        "model": "toy",
        "gate": "dev",
        "pipeline": [{"step": "ask", "advice": [EVIL]}],
    }
    plan.write_text(json.dumps({"name": EVIL, "about": EVIL, "runs": [row]}))
    for args in (("study", plan, "--no-report"), ("study", plan, "--no-report"), ("log",), ("log", "--json"), ("verify",),
                 ("report", "--html", home / "site")):  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "lib.cli", *map(str, args), "--runs", runs],
            cwd=home,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        said.append(done.stdout + done.stderr)
    return home, runs, said


@pytest.mark.slow
def test_hostile_text_of_a_sealed_run_is_obeyed_by_no_shell_folder_template_or_terminal(hostile):
    home, runs, said = hostile
    assert not [text for text in said if CONTROLS.search(text.replace("\r", ""))]
    assert {p.name for p in home.iterdir()} == {
        "runs",
        "plan.yaml",
        "site",
        "20_report.ipynb",
        "21_runs.ipynb",
        "figures",
    }
    assert len([p for p in runs.iterdir() if p.is_dir()]) == 1 and verify(runs) == []
    record = json.loads(next(runs.glob("0001-*/record.json")).read_text())
    assert record["hypothesis"] == EVIL and record["pipeline"][0]["advice"] == [EVIL], "kept as it was written"
    assert not any("\n# Champion\n\n- 0099" in text for text in said), "no section of a report is forged"
    assert json.loads(said[3]) and "49" not in record["slug"]


@pytest.mark.slow
def test_hostile_text_of_a_sealed_run_is_text_on_every_page(hostile):
    pages = [*hostile[0].rglob("*.html")]
    assert len(pages) > 5
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert "<script>alert" not in text and "<img src=x" not in text and 'href="javascript' not in text, page
        assert "Content-Security-Policy" in text or page.name == "live.html", page
    assert any("&lt;script&gt;alert" in page.read_text(encoding="utf-8") for page in pages), "it is shown"


def test_hostile_replies_notes_reasons_and_names_are_text_on_the_pages_of_a_run(tmp_path):
    """What a model answered, what a judge noted, why nothing came, and what model, adapter and step are called."""
    plain = {
        "case": EVIL, "task": EVIL, "quality": 0.2, "answer": {"title": EVIL, "questions": [EVIL] * 7},
        "calls": [{"step": EVIL, "messages": [{"role": EVIL, "content": EVIL}], "text": EVIL}],
        "judgment": {"scores": dict.fromkeys(DIMENSIONS, 3.0), "verdict": "loss", "notes": dict.fromkeys(DIMENSIONS, EVIL)},
    }  # fmt: skip
    unanswered = {"case": "b", "task": EVIL, "quality": 0.0, "no_answer": EVIL}
    unscored = {"case": "c", "task": EVIL, "unscored": EVIL, "answer": plain["answer"]}
    rows = [CaseRow.read(row) for row in (plain, unanswered, unscored)]
    texts = {"hypothesis": EVIL, "model": EVIL, "adapter": EVIL, "error": EVIL, "of": EVIL,
             "decision": {"status": "kept", "reason": EVIL}, "pipeline": [{"step": "ask", "advice": [EVIL]}],
             "decoding": {"stop": EVIL}}  # fmt: skip
    records = [record_of(made(n, "kept", 0.3, f"run-{n}", **texts)) for n in (1, 2)]
    for record in records:
        (tmp_path / record.id).mkdir()
        (tmp_path / record.id / "cases.jsonl").write_text("".join(canonical(row.as_dict()) + "\n" for row in rows))
    ledger = Ledger(tmp_path, records)
    pages = [
        run_page.head(records[0], "", records[1].id),
        run_page.cases(records[0], rows, {}),
        run_table.runs(ledger),
        run_table.compare(ledger),
        live.table(ledger),
    ]
    for page in pages:
        assert "<script>alert" not in page and "<img src=x" not in page and 'href="javascript' not in page
    assert sum("&lt;script&gt;alert" in page for page in pages) >= 4, "it is shown"
    assert not any(CONTROLS.search(line(record).replace("\r", "")) for record in records), "a line about a run"


def test_hostile_text_in_an_event_stays_one_line_of_the_log(tmp_path):
    Events(tmp_path).append("word", said=EVIL)
    assert Events(tmp_path).rows[0]["said"] == EVIL and (tmp_path / "events.jsonl").read_bytes().count(b"\n") == 1
    assert b"\x1b" not in (tmp_path / "events.jsonl").read_bytes()


# --- model folders


def model(tmp_path, change):
    """A llama of random weights, changed."""
    folder = tmp_path / "model"
    shutil.copytree(small(), folder)
    change(folder)
    return str(folder)


def configured(name, **values):
    def change(folder):
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


CODE = "import pathlib; pathlib.Path(__file__).with_name('executed').touch()\nclass Model: pass\nModelArgs = T = C = Model\n"
REMOTE = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.Model", "AutoTokenizer": ["evil.T", None]}


def with_code(name, **values):
    def change(folder):
        (folder / "evil.py").write_text(CODE)
        configured(name, **values)(folder)

    return change


@pytest.mark.parametrize(
    "change",
    [
        with_code("config.json", model_file="evil.py"),
        with_code("config.json", model_type="evil"),
        with_code("config.json", model_type="../evil"),
        with_code("tokenizer_config.json", auto_map=REMOTE, tokenizer_class="T"),
        with_code("tokenizer_config.json", auto_map=REMOTE, tokenizer_class="T", trust_remote_code=True),
        with_code("tokenizer_config.json", tool_parser_type="evil"),
        configured(
            "tokenizer_config.json", chat_template="{{ cycler.__init__.__globals__.os.popen('touch executed') }}"
        ),
    ],
)
def test_code_in_a_model_folder_is_refused_in_one_line_and_never_executed(tmp_path, change, monkeypatch):
    monkeypatch.setenv("NOTCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NoModel) as refused:
        load.load(model(tmp_path, change))
    assert "\n" not in str(refused.value) and not [*Path(tmp_path).rglob("executed")]


@pytest.mark.slow
def test_nobody_is_asked_whether_code_in_a_model_folder_may_run(tmp_path):
    """transformers asks on the terminal where it is left open, and a yes would run it."""
    folder = model(tmp_path, with_code("tokenizer_config.json", auto_map=REMOTE, tokenizer_class="T"))
    code = f"from lib.models import load; load.load({folder!r})"
    environment = os.environ | {"NOTCH_CACHE": str(tmp_path / "cache"), "HF_HOME": str(tmp_path / "hub")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, input="y\ny\n", capture_output=True, text=True
    )
    assert "NoModel" in done.stderr and "[y/N]" not in done.stdout + done.stderr
    assert not [*tmp_path.rglob("executed")]


def header(change):
    """The weights with another header, its length as it then is."""

    def harm(data):
        [length] = struct.unpack("<Q", data[:8])
        plain = json.loads(data[8 : 8 + length])
        change(plain["model.norm.weight"])
        text = json.dumps(plain).encode()
        return struct.pack("<Q", len(text)) + text + data[8 + length :]

    return harm


@pytest.mark.parametrize(
    "harm",
    [
        lambda data: struct.pack("<Q", 2**62) + data[8:],
        lambda data: struct.pack("<Q", len(data) + 100) + data[8:],
        lambda data: struct.pack("<Q", 5) + data[8:],
        lambda data: data[: len(data) // 2],
        lambda data: data[:4],
        lambda data: b"",
        header(lambda tensor: tensor.update(data_offsets=[0, 10**12])),
        header(lambda tensor: tensor.update(data_offsets=[-8, 20])),
        header(lambda tensor: tensor.update(shape=[10**9, 10**6])),
        header(lambda tensor: tensor.update(dtype="EVIL")),
    ],
)
def test_weights_with_lying_lengths_are_refused_in_one_line(tmp_path, harm):
    def change(folder):
        path = folder / "model.safetensors"
        path.write_bytes(harm(path.read_bytes()))

    with pytest.raises(NoModel) as refused:
        load.load(model(tmp_path, change))
    assert "\n" not in str(refused.value)


# --- secrets

SECRET = "hunter2-Zq8vN4xW7t"


@pytest.mark.slow
@pytest.mark.parametrize("judge", ["offline", "claude"])
def test_planted_secrets_are_in_no_file_no_log_and_no_error(tmp_path, judge):
    """In variables, in .netrc and in the address of a proxy that nobody answers at."""
    home = tmp_path / "home"
    home.mkdir()
    (home / ".netrc").write_text(f"machine 127.0.0.1 login me password {SECRET}\n")
    (home / ".netrc").chmod(0o600)
    proxy = f"http://me:{SECRET}@127.0.0.1:9"
    secrets = {"ANTHROPIC_API_KEY": f"sk-ant-{SECRET}", "HF_TOKEN": SECRET, "AWS_SECRET_ACCESS_KEY": SECRET}
    network = {"HTTP_PROXY": proxy, "HTTPS_PROXY": proxy, "ALL_PROXY": proxy, "PIP_INDEX_URL": f"{proxy}/simple/"}
    environment = os.environ | secrets | network | {"HOME": str(home), "PYTHONPATH": str(ROOT), "no_proxy": ""}
    output = ""
    commands = [
        [
            "-m",
            "lib.cli",
            "run",
            "-p",
            "model",
            "toy",
            "-p",
            "gate",
            "dev",
            "-p",
            "hypothesis",
            "x",
            "-p",
            "judge",
            judge,
        ],
        ["-m", "lib.cli", "run", "-p", "model", "toy", "-p", "hypothesis", SECRET],
        ["-m", "lib.cli", "doctor"],
        ["-m", "lib.cli", "report"],
    ]
    for command in commands if judge == "offline" else commands[:1]:  # the judge is of the first alone
        runs = [] if command[2] == "doctor" else ["--runs", str(tmp_path / "runs")]
        done = subprocess.run(
            [sys.executable, *command, *runs], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert "Traceback" not in done.stderr, done.stderr
        output += done.stdout + done.stderr
    fetch = "from lib import weights; weights.fetch('minilm')"
    cache = environment | {"NOTCH_CACHE": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", fetch], cwd=tmp_path, env=cache, capture_output=True, text=True)
    assert "NoWeights" in done.stderr
    assert SECRET not in output + done.stdout + done.stderr
    files = [p for p in tmp_path.rglob("*") if p.is_file() and home not in p.parents]
    assert files and not [p for p in files if SECRET.encode() in p.read_bytes()]
