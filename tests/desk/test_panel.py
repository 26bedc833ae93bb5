"""The menus without a browser: what they say is what is tried, and what cannot run is said in one line."""

import pytest

pytest.importorskip("ipywidgets")

from lib.desk.explore import Choice  # noqa: E402
from lib.desk.panel import Panel  # noqa: E402
from tests.lab.conftest import seal_run  # noqa: E402


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


def test_it_begins_with_the_champion_and_all_that_it_was_asked_with(tmp_path, monkeypatch):
    monkeypatch.setenv("NOTCH_RUNS", str(tmp_path))
    two = [{"step": "ask", "n": 8, "wording": {"ask": "Ask me: what matters?"}}, {"step": "prune", "by": "last"}]
    seal_run(tmp_path, lever="baseline", pipeline=two, model="toy", decoding={"max_tokens": 900}, seed=3)
    panel = Panel("teach my parrot to whistle")
    assert panel.choice == Choice("teach my parrot to whistle", two, "toy", "", {"max_tokens": 900}, 3)
    assert "Answered by toy" in panel.message.value and "Ask me: what matters?" in shown(panel, "Calls")


def test_another_model_begins_with_the_plain_call_unless_something_was_changed(tmp_path, monkeypatch):
    monkeypatch.setenv("NOTCH_RUNS", str(tmp_path))
    two = [{"step": "ask", "n": 8}, {"step": "prune", "by": "last"}]
    seal_run(tmp_path, lever="baseline", pipeline=two, model="toy", decoding={"max_tokens": 900})
    panel, changed = Panel("teach my parrot to whistle"), Panel("teach my parrot to whistle")
    changed._remove(changed.rows[1])
    for each in (panel, changed):
        each.model.value = "smollm2"
    assert panel.pipeline == [{"step": "ask"}] and panel.choice.decoding == {}
    assert changed.pipeline == two[:1] and changed.choice.decoding == {"max_tokens": 900}


def test_a_step_takes_other_words_for_its_call(panel):
    panel.rows[0].menus["wording"][1].value = " Ask {seven} things: what, who? "
    assert panel.pipeline == [{"step": "ask", "wording": "Ask {seven} things: what, who?"}]
    panel.go.click()
    assert "Ask {seven} things: what, who?" in shown(panel, "Calls")
    panel.rows[0].menus["wording"][1].value = "{ask: Ask them, ask: Ask her}"
    panel.go.click()
    assert "stands in line 1 and again" in panel.message.value


def test_decoding_is_typed_as_values_by_name(panel):
    panel.decoding.value = "{repetition_penalty: 1.2}"
    panel.temp.value = 0.5
    assert panel.choice.decoding == {"repetition_penalty": 1.2, "temp": 0.5}
    panel.decoding.value = "1.2"
    panel.go.click()
    assert "decoding is 1.2, expected values by name" in panel.message.value and shown(panel, "Answer") == ""
