"""A path is only where weights lie: what lies there is part of a run's key, and of what a comparison takes as the same."""

import shutil

import pytest

from lib.files import ROOT
from lib.lab.execute import Executed, adopt
from lib.lab.experiment import Experiment
from lib.lab.models import sealed
from lib.lab.training import Training
from lib.models import load
from lib.runs.ledger import Ledger
from lib.runs.provenance import run_key
from lib.runs.record import Identity
from tests.llama import small


@pytest.fixture
def base(tmp_path):
    """A model's folder whose weights can be replaced."""
    shutil.copytree(small(0), tmp_path / "fused")
    return tmp_path / "fused"


def experiment(model, **changes):
    return Experiment(**({"hypothesis": "h", "model": str(model), "gate": "dev"} | changes))


def test_other_weights_in_the_same_folder_are_another_run(base):
    before = experiment(base).key
    assert experiment(base).key == before
    shutil.rmtree(base)
    shutil.copytree(small(1), base)
    assert experiment(base).key != before


def test_other_weights_in_the_same_folder_are_no_sealed_candidate(base, lab):
    wanted = experiment(base, gate="full")
    weights = Identity(model={"name": "fused", "weights": "0" * 16})
    lab.seal(slug="stale", model="…/fused", fingerprint=wanted.fingerprint, identity=weights.as_dict())
    assert sealed(lab.read(), wanted) is None
    same = Identity(model={"name": "fused", "weights": load.identity(str(base))})
    lab.seal(slug="fresh", model="…/fused", fingerprint=wanted.fingerprint, identity=same.as_dict())
    assert sealed(lab.read(), wanted).slug == "fresh"


def test_pinned_models_and_sealed_adapters_keep_the_keys_that_they_had():
    records = [r for r in Ledger.read(ROOT / "runs").records if r.kind == "experiment"]
    records = [r for r in records if not r.model.startswith("…/")]  # a folder that lay on the machine of that run
    assert records
    for r in records:
        same = {name: getattr(r, name) for name in Experiment().parameters}
        now = Experiment(**same)
        assert now.key == run_key("experiment", now.keyed, now.fingerprint), r.id


def test_a_new_judge_trains_nothing_again_unless_its_rubric_is_the_reward():
    sft, grpo = Training(hypothesis="h"), Training(hypothesis="h", method="grpo")
    assert sft.measured_by == Training(hypothesis="h").measured_by != sft.fingerprint
    assert grpo.measured_by == grpo.fingerprint


def test_of_two_calls_that_ran_the_same_row_one_is_sealed(tmp_path):
    runnable = Experiment(hypothesis="h", model="toy", gate="dev", folder=tmp_path)
    done = [Executed(runnable, {"cells": []}, None, r.record, list(r.cases)) for r in (runnable.run().result,) * 2]
    first, second = (adopt(each, "row", once=True) for each in done)
    assert first.id == second.id == "0001-row" and len(Ledger.read(tmp_path).records) == 1
    assert adopt(done[0], "by-hand").id == "0002-by-hand"  # whoever asks for a repeat gets one
