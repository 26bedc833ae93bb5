"""A row for another machine: what may leave this one, what travels with it, and which machine is refused."""

import json

import pytest

from lib.files import canonical, sha256
from lib.lab import orders
from lib.lab.experiment import Experiment
from lib.lab.orders import Order
from lib.lab.rejudge import Rejudge
from lib.lab.training import Training
from lib.models import provenance
from lib.runs.ledger import Ledger

SHAPE = {"num_layers": 2, "lora_parameters": {"rank": 2, "scale": 1.0}}


@pytest.fixture
def trained(lab):
    """A folder of runs in which one has an adapter, and an epoch of it."""
    run = lab.seal(slug="sft")
    for place in ("adapter", "adapter/epoch-02"):
        folder = lab.folder / run / place
        folder.mkdir()
        (folder / provenance.WEIGHTS).write_bytes(f"weights of {place}".encode())
        (folder / provenance.CONFIG).write_text(json.dumps(SHAPE), encoding="utf-8")
    return lab


def order_of(lab, runnable, files=None, version=None):
    places = {name: sha256(path.read_bytes()) for name, path in (files or {}).items()}
    ledger = lab.path.read_bytes()
    return Order("study", version or orders.version(), "10_experiment", {}, runnable.key, ledger, places)


# --- what may leave


@pytest.mark.parametrize(
    ("template", "runnable"),
    [
        ("10_experiment", Experiment(model="toy", hypothesis="h", judge="claude")),
        ("10_experiment", Experiment(model="claude-haiku-4-5", hypothesis="h")),
        ("11_train", Training(hypothesis="h", data={"path": "pairs.jsonl"})),
        ("11_train", Training(hypothesis="h", data={"source": "claude"})),
        ("13_rejudge", Rejudge(hypothesis="h", runs=["0001-a"])),
    ],
)
def test_what_is_paid_for_or_reads_files_of_this_machine_stays(template, runnable):
    assert not orders.travels(template, runnable)


def test_an_adapter_travels_by_the_name_of_its_run_and_not_by_a_path(trained):
    for name, may in (("", True), ("sft", True), ("0001-sft/epoch-02", True)):
        assert orders.travels("10_experiment", Experiment(adapter=name, folder=trained.folder)) is may
    path = str(trained.folder / "0001-sft" / "adapter")
    assert not orders.travels("10_experiment", Experiment(adapter=path, folder=trained.folder))


# --- what travels


@pytest.mark.parametrize("name", ["sft", "0001-sft", "0001-sft/epoch-02"])
def test_an_adapter_is_on_the_other_machine_what_it_is_here(trained, tmp_path, monkeypatch, name):
    files = orders.sealed_files(Experiment(adapter=name, folder=trained.folder), "10_experiment")
    assert len(files) == 2
    monkeypatch.setenv("NOTCH_CACHE", str(tmp_path / "cache"))
    order = order_of(trained, Experiment(model="toy", hypothesis="h"), files)
    assert all(orders.lacks(digest) for digest in order.files.values())
    orders.keep({order.files[place]: path.read_bytes() for place, path in files.items()})
    assert not any(orders.lacks(digest) for digest in order.files.values())
    there = tmp_path / "there"
    there.mkdir()
    orders.lay_out(order, there)
    here = provenance.find(name, trained.folder)
    assert provenance.content_hash(provenance.find(name, there), provenance.ADAPTER) == provenance.content_hash(
        here, provenance.ADAPTER
    )


def test_a_file_of_the_cache_that_is_no_longer_what_it_was_is_asked_for_again(tmp_path, monkeypatch):
    monkeypatch.setenv("NOTCH_CACHE", str(tmp_path))
    digest = sha256(b"weights")
    orders.keep({digest: b"weights"})
    assert not orders.lacks(digest)
    orders.kept(digest).write_bytes(b"weightz")
    assert orders.lacks(digest)


def test_the_cases_that_the_keep_rule_reads_travel_and_it_decides_there_as_here(lab, tmp_path, monkeypatch):
    monkeypatch.setenv("NOTCH_CACHE", str(tmp_path / "cache"))
    runnable = Experiment(model="toy", hypothesis="h", folder=lab.folder, of="second", lever="decoding")
    better = {case: 0.45 for case in lab.full}
    lab.seal(slug="first", fingerprint=runnable.fingerprint)
    lab.seal(better, slug="second", fingerprint=runnable.fingerprint)
    lab.seal(slug="third", fingerprint=runnable.fingerprint)
    files = orders.sealed_files(runnable, "10_experiment")
    assert sorted(files) == ["0002-second/cases.jsonl"]
    order = order_of(lab, runnable, files)
    orders.keep({order.files[place]: path.read_bytes() for place, path in files.items()})
    there = tmp_path / "there"
    there.mkdir()
    orders.lay_out(order, there)
    record, qualities = lab.record_of(better, fingerprint=runnable.fingerprint, of="second"), better
    decisions = [Ledger.read(folder).decide(record, qualities).as_dict() for folder in (lab.folder, there)]
    assert canonical(decisions[0]) == canonical(decisions[1])
    assert decisions[0]["against"] == "0002-second"


# --- which machine may


def test_the_same_version_is_no_difference_and_another_one_is_named():
    here = orders.version()
    assert orders.difference(here) == ""
    assert "another lib/agent/prompt.py;" in orders.difference(here | {"lib/agent/prompt.py": "0" * 64})
    assert "another lib/lab/later.py;" in orders.difference(here | {"lib/lab/later.py": "0" * 64})
    assert "another ruler/FROZEN;" in orders.difference(here | {"ruler/FROZEN": "0" * 64})


def test_the_version_covers_code_the_bank_and_the_templates():
    assert {
        "lib/lab/orders.py",
        "lib/agent/bank/travel.jsonl",
        "notebooks/10_experiment.ipynb",
    } <= orders.version().keys()
