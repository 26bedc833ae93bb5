"""The one door: which backend a name belongs to, what it can do, and what is refused before anything is loaded."""

from dataclasses import replace

import pytest

from lib.agent.pipeline import BadPipeline
from lib.claude.client import NoKey
from lib.lab.experiment import BadParameters, Experiment
from lib.models import apple, cloud, mlx
from lib.models.load import capabilities, check, check_decoding, load
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
    check_decoding("claude-haiku-4-5", {"max_tokens": 500, "grammar": '{"type": "object"}'})


def test_a_grammar_is_checked_before_anything_runs():
    with pytest.raises(NoModel, match="which model 'toy' does not offer"):
        check_decoding("toy", {"grammar": "{}"})
    with pytest.raises(BadParameters, match="Invalid type"):
        Experiment(hypothesis="h", model="smollm2", decoding={"grammar": '{"type": "objec"}'}).check()


def test_an_experiment_refuses_a_step_that_its_model_cannot_run(monkeypatch):
    from lib.agent import pipeline

    needy = replace(pipeline.STEPS["ask"], needs=lambda **_: ("logprobs",))
    monkeypatch.setitem(pipeline.STEPS, "ask", needy)
    with pytest.raises(BadPipeline, match="step 1 .ask. needs logprobs, which model 'toy' does not offer"):
        Experiment(hypothesis="h", model="toy").check()
    Experiment(hypothesis="h", model="smollm2").check()


def test_a_gold_question_in_a_grammar_is_a_leak():
    import json

    from lib.agent.guard import Leak
    from lib.measure.ruler import Ruler

    gold = Ruler.load().gate("full")[3].gold.questions[0]
    schema = json.dumps({"type": "object", "properties": {"q": {"enum": ["yes", gold]}}})
    with pytest.raises(Leak, match="decoding grammar"):
        Experiment(hypothesis="h", model="smollm2", decoding={"grammar": schema}).check()
