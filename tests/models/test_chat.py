"""Chat templates of all habits on one random Llama: what it reads, what its record says, and which are refused."""

import json
import shutil
from pathlib import Path

import pytest

from lib.models.chat import CUT
from lib.models.load import check
from lib.models.mlx import MLXModel
from lib.models.model import Decoding, NoModel

TURNS = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<end>{% endfor %}"
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
# As Gemma's and Mistral's: roles take turns, and a system role is none of them.
ALTERNATE = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
)
DROPPED = "{% for m in messages if m['role'] != 'system' %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
PARTS = "{% for m in messages %}<{{ m['role'] }}>{% for p in m['content'] %}{{ p['text'] }}{% endfor %}{% endfor %}"
SYSTEM = {"role": "system", "content": "Ask seven questions."}
USER = {"role": "user", "content": "Plan a trip."}
PROMPT = [SYSTEM, USER]


@pytest.fixture
def spoken_to(llama, tmp_path):
    """A function that gives the random Llama another chat template."""

    def make(template, name="model"):
        folder = tmp_path / name
        shutil.copytree(llama, folder)
        (folder / "chat_template.jinja").write_text(template)
        return str(folder)

    return make


def read(model, prompt=PROMPT):
    """The very text that the model reads."""
    return model.tokenizer.decode(model.encode(prompt))


def said(model):
    """What the record says beside the name and the weights."""
    return {k: v for k, v in model.identity.items() if k not in ("name", "weights")}


def refusal(folder):
    """The one line with which a model is refused, before its weights are loaded and when they are."""
    lines = set()
    for refused in (check, MLXModel):
        with pytest.raises(NoModel) as caught:
            refused(folder)
        lines.add(str(caught.value))
    [line] = lines
    assert "\n" not in line and len(line) < 400 and repr(folder) in line
    return line


def test_a_template_that_takes_a_conversation_as_it_is_adds_nothing_to_the_record(spoken_to):
    model = MLXModel(spoken_to(TURNS))
    assert read(model) == "<system>Ask seven questions.<end><user>Plan a trip.<end>" and said(model) == {}


@pytest.mark.parametrize("template", [NO_SYSTEM + TURNS, ALTERNATE, DROPPED], ids=["raises", "alternate", "dropped"])
def test_without_a_system_role_its_text_goes_into_the_first_user_turn_and_the_record_says_so(spoken_to, template):
    model = MLXModel(spoken_to(template))
    assert "<user>Ask seven questions.\n\nPlan a trip." in read(model)
    assert said(model) == {"system": "in the first user turn"}
    earlier = [SYSTEM, {"role": "user", "content": "Bake."}, {"role": "assistant", "content": "Which?"}, USER]
    text = read(model, earlier)
    assert text.index("Ask seven") < text.index("Bake.") < text.index("Which?") < text.index("Plan a trip.")
    assert text.count("Ask seven") == 1


def test_a_template_that_wants_parts_gets_parts(spoken_to):
    model = MLXModel(spoken_to(PARTS))
    assert read(model) == "<system>Ask seven questions.<user>Plan a trip." and said(model) == {"content": "in parts"}
    silent = MLXModel(spoken_to(PARTS.replace("in messages", "in messages if m['role'] != 'system'"), "no-system"))
    assert read(silent) == "<user>Ask seven questions.\n\nPlan a trip."
    assert said(silent) == {"system": "in the first user turn", "content": "in parts"}


@pytest.mark.parametrize(
    "template, reason",
    [
        (TURNS.replace("in messages", "in messages if m['role'] != 'user'"), "leaves out the user text"),
        ("{{ raise_exception('not\ntoday') }}", "cannot be used (not today)"),
        ("{{ messages[0].content | no_such_filter }}", "cannot be used"),
        (TURNS + "{{ range(90000) | random }}", "says another thing each time"),
        (TURNS + "{% set form = '%H:%M' %}{{ strftime_now(form) }}", "asks the clock"),
    ],
    ids=["user-dropped", "raises", "broken", "random", "clock"],
)
def test_a_template_that_loses_what_is_said_or_changes_by_itself_is_refused_before_anything_runs(
    spoken_to, template, reason
):
    assert reason in refusal(spoken_to(template))


def test_a_template_that_was_changed_after_a_check_is_looked_at_anew(spoken_to):
    folder = Path(spoken_to(TURNS))
    check(str(folder))
    (folder / "chat_template.jinja").write_text("nothing that is said")
    with pytest.raises(NoModel, match="leaves out the system text"):
        check(str(folder))


def test_a_model_without_a_chat_template_is_refused_with_what_to_do(spoken_to):
    folder = spoken_to("")
    (Path(folder) / "chat_template.jinja").unlink()
    assert "has no chat template" in refusal(folder) and "instruction-tuned" in refusal(folder)


def test_of_named_templates_the_default_one_is_used_and_without_one_they_are_named(spoken_to):
    folder = Path(spoken_to(TURNS))
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("tools")
    assert read(MLXModel(str(folder))).startswith("<system>Ask")
    (folder / "chat_template.jinja").rename(folder / "additional_chat_templates" / "rag.jinja")
    assert "rag, tool_use and none called default" in refusal(str(folder))


@pytest.mark.parametrize(
    "day",
    [
        "{{ strftime_now('%d %b %Y, %H:%M:%S') }}",
        '{% if not date_string is defined %}{% set date_string = strftime_now("%d %b %Y") %}{% endif %}{{ date_string }}',
        "{% if date_string is defined %}{{ date_string }}{% endif %}",
    ],
    ids=["clock", "llama-3", "given"],
)
def test_the_day_is_the_same_in_every_run_and_stands_in_the_record(spoken_to, day):
    model = MLXModel(spoken_to("Today is " + day + "." + TURNS))
    assert read(model).startswith("Today is 26 Jul 2024") and said(model) == {"date": "2024-07-26"}


def test_thinking_is_switched_off_where_the_template_can_and_the_record_says_so(spoken_to):
    ends = "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
    model = MLXModel(spoken_to(TURNS + ends))
    assert read(model).endswith("<think>\n\n</think>\n\n")
    assert said(model) == {"thinking": "off", "reply": CUT}


@pytest.mark.parametrize(
    "drawn, answer",
    [
        ('<think>\n\n</think>\n\n{"a": 1}', '{"a": 1}'),
        ('<think>\nWell, {"b": 2}?\n</think>{"a": 1}', '{"a": 1}'),
        ('</think>\n{"a": 1}', '{"a": 1}'),
        ('The template opened it. </think> {"a": 1}', '{"a": 1}'),
        ('\ufeff{"a": 1}', '{"a": 1}'),
        ('\n\u200b\u2060 {"a": 1}', '{"a": 1}'),
        ("\ufeff<think>x</think>\u200b1. Which day?", "1. Which day?"),
        (' {"a": "no </think> here"}', ' {"a": "no </think> here"}'),
        ("\n 1. Which day?\n", "\n 1. Which day?\n"),
        ("<think>never ends", "<think>never ends"),
        ("", ""),
    ],
)
def test_leading_thoughts_and_invisible_signs_are_cut_and_nothing_else(spoken_to, drawn, answer):
    assert MLXModel(spoken_to(TURNS)).chat.reply(drawn) == answer


def test_a_reply_that_was_cut_says_by_which_rule_also_where_the_template_knows_no_thinking(spoken_to):
    """All weights are 0, so the first piece of the vocabulary is drawn, again and again."""
    import mlx.core as mx

    folder = Path(spoken_to(TURNS))
    weights = mx.load(str(folder / "model.safetensors"))
    mx.save_safetensors(str(folder / "model.safetensors"), {k: mx.zeros_like(w) for k, w in weights.items()})
    spelt = json.loads((folder / "tokenizer.json").read_text())
    spelt["model"]["vocab"] = {"</think>" if i == 0 else piece: i for piece, i in spelt["model"]["vocab"].items()}
    (folder / "tokenizer.json").write_text(json.dumps(spelt))
    model = MLXModel(str(folder))
    [held] = model.generate([PROMPT], [Decoding(grammar='{"const": "yes"}')])
    assert held.text == '"yes"' and "reply" not in model.identity
    [cut] = model.generate([PROMPT], [Decoding(max_tokens=3)])
    assert cut.text == "</think>" * 2 and cut.generation_tokens == 3 and model.identity["reply"] == CUT


def test_an_earlier_turn_that_the_template_leaves_out_is_an_error_of_the_call(spoken_to):
    model = MLXModel(spoken_to(TURNS.replace("in messages", "in messages if m['role'] != 'assistant'")))
    assert read(model).startswith("<system>")
    with pytest.raises(NoModel, match="leaves out an earlier assistant text"):
        model.encode([SYSTEM, USER, {"role": "assistant", "content": "Which one?"}, USER])
