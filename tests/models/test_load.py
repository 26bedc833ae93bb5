"""The one door: which backend a name belongs to, what it can do, and what is refused before anything is loaded."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from lib.agent.pipeline import BadPipeline
from lib.claude.client import NoKey
from lib.files import ROOT
from lib.lab.experiment import BadParameters, Experiment
from lib.models import apple, cloud, mlx, provenance
from lib.models.load import adapter_identity, capabilities, check, check_decoding, identity, load
from lib.models.model import Capabilities, NoModel

KEY = "sk-ant-planted-77aa01"


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", cloud.CAP):
        monkeypatch.delenv(name, raising=False)


def test_capabilities_come_from_the_name_alone():
    assert capabilities("smollm2") == capabilities("mlx:org/name") == capabilities("org/name") == mlx.CAN
    assert mlx.CAN.logprobs and mlx.CAN.adapters and mlx.CAN.grammar
    assert capabilities("claude-haiku-4-5") == cloud.CAN and not cloud.CAN.greedy
    assert capabilities("apple") == apple.CAN and not (apple.CAN.logprobs or apple.CAN.adapters)
    assert capabilities("toy") == Capabilities()


@pytest.mark.parametrize("name", ["toy", "apple", "claude-haiku-4-5"])
def test_only_mlx_models_take_an_adapter(name):
    with pytest.raises(NoModel, match=f"model '{name}' takes no adapter"):
        check(name, "runs/0001/adapter")


def test_apples_model_says_what_it_needs_where_it_is_not():
    with pytest.raises(NoModel) as caught:
        load("apple")
    said = str(caught.value)
    assert "Apple silicon" in said and "macOS 26" in said and "apple-fm-sdk" in said and "\n" not in said


def test_claude_needs_a_key_a_price_and_a_cap_that_is_a_number(monkeypatch):
    with pytest.raises(NoKey, match="ANTHROPIC_API_KEY"):
        check("claude-sonnet-4-6")
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    check("claude-sonnet-4-6")
    check("claude-haiku-4-5")
    with pytest.raises(NoModel, match="model 'claude-opus-9' has no price"):
        check("claude-opus-9")
    monkeypatch.setenv(cloud.CAP, "much")
    with pytest.raises(NoModel, match=f"{cloud.CAP} is 'much'"):
        check("claude-haiku-4-5")


@pytest.mark.parametrize(
    "told",
    [
        {"temp": 0.7},
        {"temp": 0},
        {"seed": 1},
        {"top_p": 0.9},
        {"min_p": 0.1},
        {"top_k": 5},
        {"repetition_penalty": 1.1},
        {"repetition_context": 9},
    ],
)
def test_claude_takes_no_sampling_parameter_and_says_so_by_name(told):
    with pytest.raises(NoModel, match=f"decoding has {next(iter(told))}, which .* greedy is not available"):
        check_decoding("claude-haiku-4-5", told)
    check_decoding("smollm2", told)
    check_decoding("claude-haiku-4-5", {"max_tokens": 500})


def test_a_grammar_of_ones_own_is_refused_by_name():
    with pytest.raises(BadParameters, match="decoding has a grammar, which is a step's to set"):
        Experiment(hypothesis="h", model="smollm2", decoding={"grammar": '{"type": "object"}'}).check()


def test_an_experiment_refuses_a_step_that_its_model_cannot_run(monkeypatch):
    from lib.agent import pipeline

    needy = replace(pipeline.STEPS["ask"], needs=lambda **_: ("logprobs",))
    monkeypatch.setitem(pipeline.STEPS, "ask", needy)
    with pytest.raises(BadPipeline, match="step 1 .ask. needs logprobs, which model 'toy' does not offer"):
        Experiment(hypothesis="h", model="toy").check()
    Experiment(hypothesis="h", model="smollm2").check()


def test_what_a_model_is_does_not_depend_on_its_name_or_place_but_on_what_lies_there(llama, other_llama, tmp_path):
    copy = tmp_path / "elsewhere"
    shutil.copytree(llama, copy)
    assert identity(str(copy)) == identity(f"mlx:{copy}") == identity(llama) == load(llama).identity["weights"]
    assert identity(llama) != identity(other_llama)
    shutil.rmtree(copy)
    shutil.copytree(other_llama, copy)
    assert identity(str(copy)) == identity(other_llama)


def test_what_is_no_folder_is_known_by_what_it_is_pinned_to():
    assert identity("smollm2") == identity("mlx:smollm2") == "397a1cd3c789ccd0"  # of 44 sealed runs
    assert identity("stored:claude") == load("stored:claude").identity["answers"]
    assert identity("toy") == "toy" and identity("claude-haiku-4-5") == "claude-haiku-4-5"
    assert identity("apple").startswith("apple, macOS")
    with pytest.raises(NoModel, match="stored:nobody"):
        identity("stored:nobody")


def test_the_pinned_name_of_smollm2_is_what_its_files_hash_to():
    assert provenance.content_hash(mlx.folder_of("smollm2")) == identity("smollm2")


def test_an_adapter_of_the_same_weights_and_another_scale_is_another_adapter(adapters, tmp_path):
    copy = tmp_path / "adapter"
    shutil.copytree(adapters[0], copy)
    assert adapter_identity("") == "" and adapter_identity(str(copy)) == adapter_identity(adapters[0])
    config = json.loads((copy / "adapter_config.json").read_text())
    config["lora_parameters"]["scale"] *= 10
    (copy / "adapter_config.json").write_text(json.dumps(config))
    assert adapter_identity(str(copy)) != adapter_identity(adapters[0]) != adapter_identity(adapters[1])


HUB = """
import json, pathlib, sys
from lib.models.load import check, identity
from lib.models.model import NoModel
snapshot, name = pathlib.Path(sys.argv[1]), "org/tiny"
check(name)
first = identity(name)
config = snapshot / "config.json"
config.write_text(config.read_text() + " ")
try:
    identity("org/absent")
except NoModel as error:
    print(json.dumps([first, identity(name), str(error)]))
"""


def test_a_hub_id_is_what_its_snapshot_holds_and_without_a_network_an_absent_one_is_no_model(llama, tmp_path):
    """In a process of its own: the hub's client reads its settings when it is imported."""
    snapshot = tmp_path / "models--org--tiny" / "snapshots" / ("a" * 40)
    shutil.copytree(llama, snapshot)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("a" * 40)
    offline = os.environ | {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", HUB, snapshot], env=offline, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, then, refusal = json.loads(done.stdout)
    assert first == identity(llama) and then != first
    assert "'org/absent' cannot be had" in refusal and "needs the network" in refusal and "\n" not in refusal
