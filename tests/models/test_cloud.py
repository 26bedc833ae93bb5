"""Claude as a candidate against a loopback server: what is sent, what is paid, and what comes of a refusal."""

import json

import pytest

from lib.agent import prompt
from lib.agent.pipeline import run
from lib.agent.steps import build
from lib.claude import store
from lib.models.cloud import CAP, CloudModel
from lib.models.grammar import BadGrammar
from lib.models.load import load
from lib.models.model import Decoding, NoModel
from tests.claude.loopback import Loopback

KEY = "sk-ant-planted-4f1d9c"
NAME = "claude-haiku-4-5"
SET = json.dumps({"title": "Bake bread", "questions": [f"Which part {n}?" for n in range(7)]})
SCHEMA = {"type": "object", "properties": {"title": {"type": "string"}, "questions": {"type": "array", "items": {"type": "string"}, "minItems": 7, "maxItems": 7}}, "required": ["title", "questions"]}  # fmt: skip


@pytest.fixture
def serve(monkeypatch):
    """`serve(rule)` starts a loopback server that answers SET unless the rule says otherwise."""
    running = []

    def start(rule=None, **more):
        server = Loopback(lambda n, body, headers: {"text": SET} | ((rule(n, body) if rule else None) or {}), **more)
        running.append(server.__enter__())
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
        monkeypatch.delenv(CAP, raising=False)
        return server

    yield start
    for server in running:
        server.__exit__()


def ask(model, n=1, decoding=None):
    return model.generate([prompt.ask(f"bake bread {i}") for i in range(n)], [decoding or Decoding()] * n)


def test_every_task_is_one_request_without_sampling_parameters(serve):
    server, model = serve(), load(NAME)
    done = ask(model, 12, Decoding(seed=3, max_tokens=250))
    assert [c.text for c in done] == [SET] * 12 and {c.finish_reason for c in done} == {"stop"}
    assert len(server.messages) == 12 and server.peak <= 10
    for body in server.messages:
        assert set(body) == {"model", "max_tokens", "system", "messages"} and body["max_tokens"] == 250
        assert body["system"][0]["text"].startswith(prompt.ROLE) and [m["role"] for m in body["messages"]] == ["user"]
    assert {body["messages"][0]["content"].split("\n")[0] for body in server.messages} == {
        f"Task: bake bread {i}" for i in range(12)
    }
    assert model.cost.calls == 12 and model.cost.prompt_tokens == sum(c.prompt_tokens for c in done) > 0
    assert model.cost.dollars > 0 and model.cost.seconds > 0
    assert all(c.id.startswith("msg_") for c in done) and model.identity["served"] == [NAME]


def test_what_it_cost_is_on_disk_before_its_run_has_a_record_and_only_in_a_run(serve, tmp_path, monkeypatch):
    serve(lambda n, body: {"status": 402} if n > 1 else None)
    monkeypatch.setenv("NOTCH_RUNS", str(tmp_path))
    model = load(NAME)
    ask(model)
    with pytest.raises(NoModel):
        ask(model)  # a crash: the record of this run will hold no cost
    assert (
        store.paid(tmp_path / store.NAME, candidates=True) == pytest.approx(model.cost.dollars)
        and model.cost.dollars > 0
    )
    assert store.paid(tmp_path / store.NAME) == 0 and store.verify(tmp_path / store.NAME) == []
    before = (tmp_path / store.NAME).read_bytes()
    monkeypatch.delenv("NOTCH_RUNS")
    serve()
    ask(load(NAME))
    assert (tmp_path / store.NAME).read_bytes() == before


def test_demonstrations_go_out_as_turns(serve):
    server, model = serve(), CloudModel(NAME)
    demo = ("sail", prompt.Draft("Sail", ("Which boat?",)))
    model.generate([prompt.ask("bake bread", demos=[demo])], [Decoding()])
    assert [m["role"] for m in server.messages[0]["messages"]] == ["user", "assistant", "user"]


def test_a_grammar_goes_out_as_a_schema_that_the_api_takes(serve):
    server, model = serve(), CloudModel(NAME)
    ask(model, 1, Decoding(grammar=json.dumps(SCHEMA)))
    form = server.messages[0]["output_config"]["format"]
    assert form["type"] == "json_schema" and form["schema"]["additionalProperties"] is False
    assert "minItems" not in form["schema"]["properties"]["questions"]
    with pytest.raises(BadGrammar, match="no schema that the API takes"):
        ask(model, 1, Decoding(grammar='{"minimum": 3}'))
    assert len(server.messages) == 1


def test_a_newer_model_is_told_how_to_think(serve):
    server = serve()
    ask(CloudModel("claude-sonnet-5-5"))
    assert server.messages[0]["thinking"] == {"type": "between_tools"}


@pytest.mark.parametrize("value", [{"temp": 0.5}, {"top_p": 0.9}, {"min_p": 0.1}, {"top_k": 3}])
def test_sampling_is_refused_by_name_before_anything_is_sent(serve, value):
    server, model = serve(), CloudModel(NAME)
    with pytest.raises(NoModel, match=f"takes no {next(iter(value))}"):
        ask(model, 1, Decoding(**value))
    assert server.messages == []


def test_refusals_cuts_and_broken_calls_become_no_answer_and_the_others_go_on(serve):
    def rule(n, body):
        task = body["messages"][-1]["content"]
        if "refuse" in task:
            return {"stop_reason": "refusal", "text": "I would rather not."}
        if "cut" in task:
            return {"stop_reason": "max_tokens", "text": SET[:20]}
        return {"status": 400, "message": "on demand"} if "break" in task else {}

    serve(rule)
    tasks = [(t, f"{t} bread") for t in ("bake", "refuse", "cut", "break")]
    states = run(build([{"step": "ask"}]), tasks, CloudModel(NAME), Decoding())
    assert states[0].failed is None and len(states[0].draft.questions) == 7
    reasons = [s.failed.reason for s in states[1:]]
    assert reasons[0] == "ask: refusal of the model: I would rather not." and "cut off" in reasons[1]
    assert reasons[2].startswith("ask: error of the model: BadRequestError 400")
    assert states[0].calls[0]["id"].startswith("msg_")


def test_the_cap_stops_the_run_in_one_line(serve, monkeypatch):
    server = serve()
    monkeypatch.setenv(CAP, "0.003")
    model = CloudModel(NAME)
    with pytest.raises(NoModel) as caught:
        for _ in range(50):
            ask(model, 2)
    said = str(caught.value)
    assert said.startswith(f"model '{NAME}': ") and CAP in said and "\n" not in said
    assert model.cost.dollars <= 0.003 and model.cost.calls == len(server.messages)


def test_a_refused_key_is_one_line_that_does_not_hold_it(serve):
    serve(lambda n, body: {"status": 401, "message": f"no such key {KEY}"})
    with pytest.raises(NoModel, match="the API refused the key") as caught:
        ask(CloudModel(NAME), 3)
    assert KEY not in str(caught.value)
