"""Apple's backend against a stand-in for its SDK, made of the names that the SDK's source has. No Mac was near."""

import asyncio
import sys

import pytest

from lib.agent import prompt
from lib.agent.pipeline import run
from lib.agent.steps import build
from lib.models.apple import AppleModel, identity
from lib.models.load import load
from lib.models.model import Decoding, NoModel

SDK = """
import enum, json

class GuardrailViolationError(Exception): pass
class RefusalError(Exception): pass
class ExceededContextWindowSizeError(Exception): pass
class RateLimitedError(Exception): pass
class ConcurrentRequestsError(Exception): pass
class AssetsUnavailableError(Exception): pass
class Why(enum.Enum):
    APPLE_INTELLIGENCE_NOT_ENABLED = 1
    DEVICE_NOT_ELIGIBLE = 2
    MODEL_NOT_READY = 3

STATE = {"available": (True, None), "sessions": [], "raise": {}}

class SamplingMode:
    def __init__(self, **told): self.told = told
    @classmethod
    def greedy(cls): return cls(kind="greedy")
    @classmethod
    def random(cls, *, top=None, probability_threshold=None, seed=None):
        return cls(kind="random", top=top, probability_threshold=probability_threshold, seed=seed)

class GenerationOptions:
    def __init__(self, temperature=None, sampling=None, maximum_response_tokens=None):
        self.temperature, self.sampling, self.most = temperature, sampling, maximum_response_tokens

class SystemLanguageModel:
    context_size = 4096
    def __init__(self, use_case=None, guardrails=None): pass
    def is_available(self): return STATE["available"]
    async def token_count(self, text): return len(text.split())

class LanguageModelSession:
    def __init__(self, instructions=None, model=None):
        self.instructions, self.asked = instructions, []
        STATE["sessions"].append(self)
    async def respond(self, prompt, generating=None, schema=None, json_schema=None, options=None):
        self.asked.append((prompt, options))
        for word, errors in STATE["raise"].items():
            if word in prompt and errors:
                raise errors.pop(0)
        made = json.dumps({"title": "T", "questions": [f"Which {n}?" for n in range(7)]})
        return " ".join(made.split(" ")[: options.most])
"""


@pytest.fixture
def sdk(tmp_path, monkeypatch):
    (tmp_path / "apple_fm_sdk.py").write_text(SDK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "apple_fm_sdk", raising=False)
    import apple_fm_sdk

    yield apple_fm_sdk
    sys.modules.pop("apple_fm_sdk", None)


TASKS = [("a", "bake bread"), ("b", "sail a boat"), ("c", "sell a van")]


def test_every_task_gets_a_session_of_its_own_and_counted_tokens(sdk):
    model = load("apple")
    states = run(build([{"step": "ask"}]), TASKS, model, Decoding(max_tokens=200))
    assert [len(s.draft.questions) for s in states] == [7] * 3
    sessions = sdk.STATE["sessions"]
    assert [len(s.asked) for s in sessions] == [1] * 3 and sessions[0].instructions.startswith(prompt.ROLE)
    assert [s.asked[0][0].split("\n")[0] for s in sessions] == [f"Task: {t}" for _, t in TASKS]
    assert model.cost.calls == 3 and model.cost.prompt_tokens > 100 and model.cost.generation_tokens > 40
    assert model.identity == {"name": "apple", "system": identity(), "window": 4096}


@pytest.mark.parametrize(
    ("decoding", "temperature", "told"),
    [(Decoding(max_tokens=9), None, {"kind": "greedy"}),
     (Decoding(temp=0.7, top_p=0.9, seed=4), 0.7, {"kind": "random", "top": None, "probability_threshold": 0.9, "seed": 4}),
     (Decoding(temp=1.0, top_k=5, seed=8), 1.0, {"kind": "random", "top": 5, "probability_threshold": None, "seed": 8})],
    ids=["greedy", "top_p", "top_k"],
)  # fmt: skip
def test_decoding_becomes_options_one_to_one(sdk, decoding, temperature, told):
    [done] = AppleModel().generate([prompt.ask("sail")], [decoding])
    options = sdk.STATE["sessions"][0].asked[0][1]
    assert (options.temperature, options.sampling.told, options.most) == (temperature, told, decoding.max_tokens)
    assert done.finish_reason == ("length" if decoding.max_tokens == 9 else "stop")


@pytest.mark.parametrize(
    "value", [{"grammar": "{}"}, {"temp": 1.0, "min_p": 0.1}, {"temp": 1.0, "top_p": 0.9, "top_k": 2}]
)
def test_what_the_sdk_does_not_offer_is_refused_by_name(sdk, value):
    with pytest.raises(NoModel, match=f"takes no .*{list(value)[-1]}"):
        AppleModel().generate([prompt.ask("sail")], [Decoding(**value)])
    assert sdk.STATE["sessions"] == []


@pytest.mark.parametrize("name", ["GuardrailViolationError", "RefusalError"])
def test_a_refusal_ends_its_case_alone(sdk, name):
    sdk.STATE["raise"] = {"sail": [getattr(sdk, name)("not this\none")]}
    states = run(build([{"step": "ask"}]), TASKS, AppleModel(), Decoding())
    assert [s.failed is None for s in states] == [True, False, True]
    assert states[1].failed.reason == f"ask: refusal of the model: {name}: not this one"


def test_a_prompt_beyond_the_window_is_an_error_of_its_case(sdk):
    sdk.STATE["raise"] = {"sail": [sdk.ExceededContextWindowSizeError("5000")]}
    [done] = AppleModel().generate([prompt.ask("sail")], [Decoding()])
    assert done.finish_reason == "error" and "window of 4096 tokens" in done.text


@pytest.mark.parametrize("name", ["RateLimitedError", "ConcurrentRequestsError"])
def test_a_call_that_was_turned_away_is_made_again_and_not_for_ever(sdk, name):
    error = getattr(sdk, name)
    sdk.STATE["raise"] = {"sail": [error("busy")] * 2, "bake": [error("busy")] * 9}
    done = AppleModel(pauses=(0, 0)).generate([prompt.ask("sail"), prompt.ask("bake")], [Decoding()] * 2)
    assert [c.finish_reason for c in done] == ["stop", "error"] and done[1].text == f"{name}: busy"
    assert len(sdk.STATE["sessions"]) == 6


def test_missing_files_are_no_model(sdk):
    sdk.STATE["raise"] = {"sail": [sdk.AssetsUnavailableError("gone")]}
    with pytest.raises(NoModel, match="its files are not there"):
        AppleModel().generate([prompt.ask("sail")], [Decoding()])


@pytest.mark.parametrize(
    ("name", "said"),
    [("APPLE_INTELLIGENCE_NOT_ENABLED", "System Settings"), ("DEVICE_NOT_ELIGIBLE", "cannot run"), ("MODEL_NOT_READY", "later")],
)  # fmt: skip
def test_a_mac_that_is_not_ready_says_what_to_do(sdk, name, said):
    sdk.STATE["available"] = (False, sdk.Why[name])
    with pytest.raises(NoModel, match=said):
        load("apple")


def test_earlier_turns_travel_within_the_prompt(sdk):
    demo = ("sail", prompt.Draft("Sail", ("Which boat?",)))
    AppleModel().generate([prompt.ask("bake bread", demos=[demo])], [Decoding()])
    [(asked, _)] = sdk.STATE["sessions"][0].asked
    assert asked.index("Task: sail") < asked.index('Reply: {"title": "Sail"') < asked.index("Task: bake bread")


def test_it_works_where_a_loop_is_running_already(sdk):
    async def notebook():
        return AppleModel().generate([prompt.ask("sail")], [Decoding()])

    [done] = asyncio.run(notebook())
    assert done.finish_reason == "stop"
