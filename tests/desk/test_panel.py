"""The menus without a browser: what they say is what is tried, and what cannot run is said in one line."""

import inspect

import pytest

pytest.importorskip("ipywidgets")

from lib.desk.panel import Panel, show  # noqa: E402


@pytest.fixture
def panel():
    return Panel(model="toy")


def shown(panel, tab):
    return "".join(o["data"]["text/markdown"] for o in panel.out[tab].outputs)


def test_it_answers_the_first_task_at_once(panel):
    assert "Answered by toy" in panel.message.value
    assert "against gold" in shown(panel, "Answer") and "Quality" in shown(panel, "Judgment")


def test_a_changed_menu_asks_for_answer_and_keeps_what_is_shown(panel):
    before = shown(panel, "Answer")
    panel.temp.value = 0.5
    assert "press Answer" in panel.message.value and shown(panel, "Answer") == before
    assert panel.choice.decoding == {"temp": 0.5}


def test_a_typed_task_needs_no_gold(panel):
    assert panel.task.layout.display == "none" and panel.model.layout.display is None
    panel.case.value = ""
    assert panel.task.layout.display == ""
    panel.task.value = "teach my parrot to whistle"
    panel.go.click()
    assert "no gold answer" in shown(panel, "Judgment") and "parrot" in shown(panel, "Answer")


def test_steps_are_added_changed_and_removed(panel):
    panel.add.click()
    panel.rows[0].menus["n"][1].value = 9
    assert panel.pipeline == [{"step": "ask", "n": 9}, {"step": "prune"}]
    panel.rows[1].step.value = "demos"
    assert panel.pipeline[1] == {"step": "demos"} and set(panel.rows[1].menus) >= {"k", "by"}
    panel._remove(panel.rows[1])
    assert panel.pipeline == [{"step": "ask", "n": 9}] and len(panel.stages.children) == 1


def test_every_step_has_a_menu_an_argument_that_says_its_default(panel):
    for step in panel.rows[0].step.options:
        panel.rows[0].step.value = step
        assert panel.pipeline == [{"step": step}]
    panel.rows[0].step.value = "prune"
    assert "redundancy" in panel.rows[0].menus["by"][1].options


def test_texts_are_read_apart(panel):
    panel.rows[0].menus["advice"][1].value = "coach; Ask about money first."
    assert panel.pipeline == [{"step": "ask", "advice": ["coach", "Ask about money first."]}]
    panel.go.click()
    assert "Ask about money first." in shown(panel, "Calls")


def test_what_cannot_run_is_one_line_and_the_old_answer_is_gone(panel):
    panel.rows[0].menus["n"][1].value = 99
    panel.go.click()
    assert "step 1 (ask): n is 99" in panel.message.value and shown(panel, "Answer") == ""
    panel._remove(panel.rows[0])
    panel.go.click()
    assert "a pipeline is a list of steps" in panel.message.value


def test_no_menu_holds_a_task_of_the_sealed_gate(panel):
    from lib.files import RULER
    from lib.measure.ruler import Ruler

    sealed = {c.task for c in Ruler.load(RULER).gate("confirm")}
    assert not sealed & {value for _, value in panel.case.options}


def test_the_first_answer_is_of_the_real_model():
    assert inspect.signature(show).parameters["model"].default == "smollm2"
