"""An experiment with the second question: usefulness beside quality, and keys that stay what they were."""

import pytest

from lib.files import ROOT
from lib.lab.experiment import LATER, BadParameters, Experiment, useful_sentence
from lib.lab.ledger import Ledger, recomputed
from lib.lab.record import run_key


@pytest.fixture(scope="module")
def asked():
    return Experiment(hypothesis="x", model="toy", gate="dev", useful=True).run()


def test_a_run_that_asks_how_useful_its_sets_are_keeps_the_same_quality(asked):
    plain = Experiment(hypothesis="x", model="toy", gate="dev").run()
    assert asked.record.scores == plain.record.scores
    assert "useful" not in plain.cases[0] and plain.record.found == {}


def test_usefulness_stands_in_every_row_and_its_mean_in_the_record(asked):
    told = [r["useful"]["score"] for r in asked.cases]
    found = asked.record.found["useful"]
    assert found["cases"] == len(told) == 10 and found["mean"] == pytest.approx(sum(told) / 10)
    assert all(1 <= t <= 5 for t in told) and all(r["useful"]["reason"] for r in asked.cases)


def test_the_mean_is_computed_again_when_a_run_is_verified(asked):
    record, rows = asked.result.record.as_dict(), [dict(r) for r in asked.cases]
    assert recomputed(record, rows) == []
    rows[0] = rows[0] | {"useful": {"score": 5.0, "reason": "said so"}}
    assert recomputed(record, rows) == ["usefulness"]
    assert recomputed(record | {"found": {}}, asked.cases) == ["usefulness"]


def test_it_is_said_beside_quality(asked):
    assert "no part of it" in asked._repr_markdown_() and "Useful" in asked._repr_markdown_()
    assert useful_sentence({}) == ""


def test_a_parameter_at_its_later_default_leaves_old_keys_as_they_were():
    plain, asks = Experiment(hypothesis="x", model="toy"), Experiment(hypothesis="x", model="toy", useful=True)
    old = {k: v for k, v in plain.parameters.items() if k not in LATER and k != "kind"}
    assert plain.key == run_key("experiment", old, plain.fingerprint) != asks.key


def test_the_sealed_runs_of_the_project_have_the_key_that_this_code_gives_them():
    made = [r for r in Ledger.read(ROOT / "runs").records if r["kind"] == "experiment"]
    names = [k for k in Experiment().parameters if k not in ("kind", *LATER)]
    assert made
    for r in made:
        told = {k: r[k] for k in names} | {k: r[k] for k, v in LATER.items() if r.get(k, v) != v}
        assert r["key"] == run_key("experiment", told, r["fingerprint"]), r["id"]


def test_useful_is_true_or_false():
    with pytest.raises(BadParameters, match="useful is 1: expected true or false"):
        Experiment(useful=1)
