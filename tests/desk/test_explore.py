"""One task by hand: what is offered, what is shown, and that nothing of the sealed gate and no file comes out."""

import json
from functools import partial

import pytest

from lib.agent.guard import Leak
from lib.agent.pipeline import BadPipeline
from lib.desk import explore
from lib.desk.explore import Choice
from lib.files import RULER
from lib.lab.experiment import BadParameters
from lib.measure.answer import NoAnswer
from lib.measure.ruler import Ruler
from lib.models.model import ToyModel

toy = partial(Choice, model="toy")  # answers at once
TWO = [{"step": "ask", "n": 8}, {"step": "prune", "by": "last"}]


@pytest.fixture
def full_case():
    return Ruler.load(RULER).gate("full")[0]


@pytest.fixture
def model(monkeypatch):
    """Let a toy with replies of its own answer."""

    def say(text):
        monkeypatch.setattr(explore, "_loaded", lambda *_: ToyModel(lambda _: text))

    return say


def test_no_case_of_the_sealed_gate_is_offered_or_found():
    sealed = Ruler.load(RULER).gate("confirm")
    offered = {c.id for c in explore.cases()}
    assert len(offered) == 40 and not offered & {c.id for c in sealed}
    assert all(explore.find(c.task) is None for c in sealed)


def test_a_task_of_the_sealed_gate_typed_by_hand_shows_no_gold():
    case = Ruler.load(RULER).gate("confirm")[0]
    tried = toy(case.task).attempt()
    assert tried.outcome is None and case.gold.questions[0] not in tried._repr_markdown_()


def test_a_shown_case_is_judged_beside_its_gold(full_case):
    tried = toy(full_case.task.upper()).attempt()
    assert tried.case.id == full_case.id and 0 <= tried.quality <= 1
    assert full_case.gold.questions[2].split("?")[0] in tried.beside.text
    assert "what lowered it" in tried.judgment.text and "Useful" not in tried.judgment.text


def test_a_typed_task_has_the_form_checked_and_no_quality():
    tried = toy("teach my parrot to whistle", TWO).attempt()
    assert tried.quality is None
    assert "Spec gate passed" in tried.judgment.text
    assert "1 model call, " in tried.judgment.text
    assert tried.beside.text.count("\n") >= 7


def test_every_call_and_every_decision_of_a_step_is_shown():
    tried = toy("teach my parrot to whistle", TWO).attempt()
    assert "pruned by last" in tried.calls.text and "#### ask" in tried.calls.text
    assert "Task: teach my parrot to whistle" in tried.calls.text and "Call 1" in tried.calls.text


def test_a_reply_that_is_no_set_is_no_answer_and_no_crash(model, full_case):
    model("I would rather not.")
    for task in ("teach my parrot to whistle", full_case.task):
        tried = toy(task).attempt()
        assert isinstance(tried.answer, NoAnswer) and "No answer" in tried.beside.text
        assert "No answer" in tried.judgment.text and "I would rather not." in tried.calls.text


def test_of_the_stock_model_it_is_said_that_it_seldom_has_an_answer(model, full_case):
    model("I would rather not.")
    for task in ("teach my parrot to whistle", full_case.task):
        shown = Choice(task).attempt().beside.text
        assert shown.endswith(f"\n\n{explore.STOCK}") and "the reply is no JSON: 'I would rather not.'" in shown
        assert "Expecting" not in shown and "char" not in shown  # the words of a parser
        assert explore.STOCK not in toy(task).attempt().beside.text


def test_a_reply_cannot_break_out_of_its_block(model):
    model("```\n# not a heading\n```` and on")
    text = toy("teach my parrot to whistle").attempt().calls.text
    assert "`````text\n```\n# not a heading" in text


@pytest.mark.parametrize(
    "choice, error",
    [
        (toy("  "), BadParameters),
        (toy("a task", [{"step": "nope"}]), BadPipeline),
        (toy("a task", [{"step": "ask", "n": 99}]), BadPipeline),
        (toy("a task", decoding={"temp": 9}), BadParameters),
    ],
)
def test_what_cannot_be_tried_is_refused(choice, error):
    with pytest.raises(error):
        choice.attempt()


def test_a_gold_question_as_advice_is_refused(full_case):
    with pytest.raises(Leak):
        toy("a task", [{"step": "ask", "advice": [full_case.gold.questions[0]]}]).attempt()


def test_trying_writes_no_file(tmp_path, monkeypatch):
    monkeypatch.setenv("NOTCH_RUNS", str(tmp_path / "runs"))
    toy("teach my parrot to whistle", TWO).attempt()._repr_markdown_()
    assert list(tmp_path.iterdir()) == []


def test_every_step_is_offered_and_its_defaults_make_it():
    from lib.agent.pipeline import STEPS, build

    offered = explore.steps()
    assert {"ask", "prune", "demos"} <= set(offered)
    for name in offered:
        assert explore.row(name, STEPS[name].defaults) == {"step": name}
        assert STEPS[name].about and build([{"step": name}])


def test_an_argument_typed_as_yaml_is_read_back_as_it_was_spelled():
    assert explore.read("frames", explore.spelled({"a": [1, "x"]})) == {"a": [1, "x"]}
    with pytest.raises(ValueError, match="frames .*not YAML"):
        explore.read("frames", "[1")


def test_a_sealed_adapter_is_offered_on_its_base(tmp_path):
    from tests.report.test_tables import ledger_of, made

    (tmp_path / "0001-sft" / "adapter").mkdir(parents=True)
    found = explore.models(ledger_of(tmp_path, made(1, slug="sft", model="smollm2"), made(2, slug="none")))
    assert found["smollm2 + 0001-sft"] == ("smollm2", str(tmp_path / "0001-sft" / "adapter"))
    assert list(found) == ["smollm2", "toy", "smollm2 + 0001-sft"]


def test_the_real_model_answers_where_none_is_named():
    """The toy's questions are nonsense: nobody's first look may be at them."""
    assert Choice("a task").model == next(iter(explore.models())) == "smollm2"


def test_the_champion_answers_and_the_stock_model_where_none_can(tmp_path):
    from tests.report.test_tables import ledger_of, made

    assert explore.champion("a task", ledger_of(tmp_path)) == Choice("a task")
    kept = made(1, "kept", 0.3, pipeline=TWO, adapter="0003-sft", decoding={"repetition_penalty": 1.1}, seed=5)
    ledger = ledger_of(tmp_path, kept)
    assert explore.champion("a task", ledger) == Choice("a task")  # its adapter is not here
    adapter = tmp_path / "0003-sft" / "adapter"
    adapter.mkdir(parents=True)
    (adapter / "adapters.safetensors").write_bytes(b"")
    (adapter / "adapter_config.json").write_text('{"num_layers": 2, "lora_parameters": {"rank": 8, "scale": 2.0}}')
    assert explore.champion("a task", ledger) == Choice(
        "a task", TWO, "toy", str(adapter), {"repetition_penalty": 1.1}, 5
    )
    paid = made(2, "kept", 0.4, model="claude-haiku-4-5")
    assert explore.champion("a task", ledger_of(tmp_path, kept, paid)) == Choice("a task")  # nobody agreed to pay


def test_the_first_shown_text_survives_markdown():
    json.dumps(toy("a | b <c> `d`").attempt()._repr_markdown_())
    assert "a \\| b &lt;c>" in toy("a | b <c> `d`").attempt().beside.text
