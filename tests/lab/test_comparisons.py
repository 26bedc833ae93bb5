"""Comparisons that run what is missing: candidates in one harness, a new base in several, each sealed once."""

import pytest

from lib.lab import models, study
from lib.lab.experiment import BadParameters, Experiment
from lib.models.model import NoModel
from lib.runs.ledger import Ledger
from lib.runs.verify import verify
from tests.llama import small


@pytest.fixture
def ours(lab):
    """Runs with the fingerprint of this ruler, so that they count as the climb of today."""

    def seal(**changes):
        return lab.seal(**{"fingerprint": Experiment().fingerprint} | changes)

    return lab, seal


@pytest.mark.parametrize("models", [["toy"], ["toy", "toy"], ["toy", " "], []])
def test_fewer_than_two_different_models_are_refused(tmp_path, models):
    with pytest.raises(BadParameters, match="expected two or more, each once"):
        list(study.compare_models(tmp_path, models, {}))


def test_a_parameter_that_would_be_a_second_variable_is_refused(tmp_path):
    with pytest.raises(BadParameters, match="'gate' cannot be set in a comparison"):
        list(study.compare_models(tmp_path, ["toy", "smollm2"], {"gate": "dev"}))


def test_a_missing_model_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(NoModel):
        list(study.compare_models(tmp_path / "runs", ["toy", str(tmp_path / "nowhere")], {}))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "new, old, said", [("toy", "toy", "is the old base"), ("toy+a", "smollm2", "a base is a bare model")]
)
def test_a_base_is_another_bare_model(tmp_path, new, old, said):
    with pytest.raises(BadParameters, match=said):
        list(study.compare_bases(tmp_path, new, old, {}))


def test_a_new_base_is_tried_with_stock_champion_and_anchors_each_once(ours):
    lab, seal = ours
    seal(slug="stock", lever="baseline")
    won = {c: 0.6 for c in lab.full}
    seal(
        qualities=won,
        slug="best",
        pipeline=[{"step": "ask", "n": 8}, {"step": "prune"}],
        adapter="runs/a",
        status="kept",
    )
    seal(slug="warm", lever="anchor", decoding={"temp": 0.7}, status="reference")
    seal(slug="small", lever="anchor", model="smollm2", status="reference")
    tried = models.harnesses(lab.read(), Experiment().fingerprint, {})
    assert list(tried) == ["stock", "champion", "ask, temp 0.7"]
    assert tried["champion"]["pipeline"][0] == {"step": "ask", "n": 8} and "adapter" not in tried["champion"]


def test_without_a_climb_the_plain_harness_is_tried(lab):
    assert models.harnesses(lab.read(), "f" * 64, {"seed": 3}) == {"stock": {**models.DEFAULTS, "seed": 3}}


def test_a_plan_can_compare_models_and_hands_on_what_they_share(tmp_path):
    text = "common: {model: toy, judge: offline, gate: full}\nruns: [{name: c, models: [toy, smollm2], seed: 2}]\n"
    (tmp_path / "p.yaml").write_text(text)
    [entry] = study.read(tmp_path / "p.yaml").entries
    assert entry.models == ["toy", "smollm2"] and entry.parameters == {"judge": "offline", "seed": 2}
    (tmp_path / "p.yaml").write_text("runs: [{name: c, models: toy}]\n")
    with pytest.raises(BadParameters, match="run 'c': models is 'toy': expected a list"):
        study.read(tmp_path / "p.yaml")
    (tmp_path / "p.yaml").write_text("runs: [{name: c, models: [toy, {model: smollm2, adapter: here}]}]\n")
    with pytest.raises(BadParameters, match="one with an adapter as"):
        study.read(tmp_path / "p.yaml")
    (tmp_path / "p.yaml").write_text("runs: [{name: c, models: [toy, {model: smollm2, adapter: {run: later}}]}]\n")
    with pytest.raises(BadParameters, match="run 'c': adapter {run: later}: no earlier run of this plan"):
        study.check(study.read(tmp_path / "p.yaml"))


@pytest.mark.slow
def test_models_are_run_once_compared_once_and_verified(tmp_path):
    runs, models = tmp_path / "runs", ["toy", small()]
    first = list(study.compare_models(runs, models, {}))
    assert [(state, r.lever, r.status) for state, r in first[:2]] == [("ran", "anchor", "reference")] * 2
    assert first[2][1].kind == "models" and first[2][1].status == "reference"
    assert [state for state, _ in study.compare_models(runs, models, {})] == ["there"] * 3
    third = list(study.compare_bases(runs, small(), "toy", {}))
    assert [state for state, _ in third] == ["there", "there", "ran"]  # the same two runs, another question
    assert Ledger.read(runs).champion(first[0][1].fingerprint) is None
    assert verify(runs) == []
