"""The corpus of the tiny planner: it repeats, it speaks every call's own language, and it stays away from the ruler."""

import pytest

from lib.agent import prompt
from lib.agent.prompt import Draft
from lib.measure.ruler import Ruler
from lib.train.corpus import MIXTURE, Example, Writer
from lib.train.pretrain import Guard

RULER = ("shoot a silent comedy on a raft", "Teach my parrot to whistle!")


def block(messages, label):
    """How many numbered lines a named block of the last user message has."""
    lines = messages[-1]["content"].split("\n")
    rest = lines[lines.index(f"{label}:") + 1 :]
    return next((i for i, line in enumerate(rest) if not line[:1].isdigit()), len(rest))


def asked(messages):
    """The number of questions that the last user message asks for."""
    lines = dict(line.split(": ", 1) for line in messages[-1]["content"].split("\n") if ": " in line)
    return int(lines["Questions"])


def a_set(schema="json"):
    return lambda messages, reply: len(prompt.parse_set(reply, schema).questions) == asked(messages)


def a_list(key, n=0):
    return lambda messages, reply: len(prompt.parse_list(reply, key)) >= max(n, 1)


def a_text(key):
    return lambda messages, reply: prompt.parse_text(reply, key) != ""


# The parser that each call names in prompt.py, and what a good reply must hold beside its form.
READ = {
    **dict.fromkeys(("ask", "demos", "spelled", "from_unknowns", "revise", "adapt"), a_set()),
    **{schema: a_set(schema) for schema in ("lines", "slots", "unknowns", "reasons", "givens")},
    "restate": a_text("title"),
    "next": a_text("question"),
    "repair": a_text("question"),
    "answer": a_text("answer"),
    "brainstorm": a_list("unknowns", 7),
    "plan": a_list("steps", 6),
    "assume": a_list("assumptions", 7),
    "scenarios": a_list("scenarios", 4),
    "answers": a_list("answers", 3),
    "select": lambda m, r: len(prompt.parse_keep(r, block(m, "Pool"), asked(m))) == 7,
    "critique": lambda m, r: (prompt.parse_critique(r, block(m, "Draft")) or (0, "vague"))[1] in prompt.FAULTS,
    "compare": lambda m, r: prompt.parse_better(r) in ("A", "B", "tie"),
    "check": lambda m, r: len(prompt.parse_checks(r)) == 4,
}


@pytest.fixture(scope="module")
def corpus():
    return list(Writer(3).examples(1500))


def user(*lines):
    turns = ({"role": "user", "content": "\n".join(lines)}, {"role": "assistant", "content": "{}"})
    return Example("ask", ({"role": "system", "content": prompt.ROLE}, *turns))


def test_the_same_seed_writes_the_same_corpus():
    a, b, other = (list(Writer(seed).examples(60)) for seed in (1, 1, 2))
    assert a == b and a != other
    assert len({e.text for e in a}) == 60


@pytest.mark.parametrize("kind", MIXTURE)
def test_every_kind_is_written_and_read_by_the_parser_of_its_call(kind):
    writer = Writer(sum(map(ord, kind)))
    for _ in range(40):
        messages, reply = MIXTURE[kind][1](writer)
        assert READ[kind](messages, reply), reply
        assert [m["role"] for m in messages][:1] == ["system"] and messages[-1]["role"] == "user"


def test_the_corpus_has_every_kind_about_as_often_as_the_mixture_says(corpus):
    total = sum(weight for weight, _ in MIXTURE.values())
    for kind, (weight, _) in MIXTURE.items():
        seen = sum(e.kind == kind for e in corpus)
        expected = len(corpus) * weight / total
        assert 0 < seen and abs(seen - expected) < 4 * expected**0.5 + 1, kind


def test_every_system_paragraph_is_one_that_prompt_knows(corpus):
    known = set(prompt.paragraphs())
    for e in corpus:
        system = e.messages[0]["content"].split("\n")
        assert e.messages[0]["role"] == "system" and system[0] == prompt.ROLE
        if e.kind != "spelled":
            assert set(system) <= known, e.kind


def test_every_schema_and_advice_of_the_calls_is_in_the_corpus(corpus):
    told = {line for e in corpus for line in e.messages[0]["content"].split("\n")}
    assert set(prompt.paragraphs()) <= told


def test_an_example_ends_with_the_reply_and_alternates_before_it(corpus):
    for e in corpus:
        roles = [m["role"] for m in e.messages]
        assert roles == ["system", *["user", "assistant"] * ((len(roles) - 1) // 2)], e.kind
        assert all(m["content"].strip() for m in e.messages)


def test_demonstrations_parse_and_are_of_the_size_that_is_asked_for(corpus):
    shown = [e for e in corpus if e.kind == "demos"]
    for e in shown:
        sizes = {len(prompt.parse_set(m["content"]).questions) for m in e.messages if m["role"] == "assistant"}
        assert sizes == {asked(e.messages[:-1])}
    assert {len(e.messages) for e in shown} == {5, 7, 9}


def test_a_writer_can_be_kept_to_some_families():
    writer = Writer(1, only={"buy-bicycle"})
    assert {writer.situation().family.family for _ in range(30)} == {"buy-bicycle"}


def test_question_sets_are_of_mixed_quality(corpus):
    def clean(e):
        questions = prompt.parse_set(e.messages[-1]["content"]).questions
        return len(set(questions)) == len(questions) and not any(" and " in q for q in questions)

    sets = [e for e in corpus if e.kind == "ask"]
    share = sum(map(clean, sets)) / len(sets)
    assert 0.3 < share < 0.9


@pytest.mark.parametrize(
    "lines",
    [
        ("Task: shoot a silent comedy on a raft",),
        ("Task: SHOOT a silent comedy, on a raft!", "Questions: 7"),
        ("Task: help me shoot a silent comedy on the raft",),
        ("Task: shoot a silent comedy",),
        ("Task: buy a boat", "Questions: 7", "Similar task: teach the parrot to whistle"),
    ],
)
def test_the_guard_refuses_a_line_that_repeats_a_task_of_the_ruler(lines):
    guard = Guard(list(RULER))
    assert not guard.allows(user(*lines)) and guard.refused == 1


def test_the_guard_looks_into_demonstrations_too():
    shown = Draft("Whistle", ("Why?",))
    messages = prompt.ask("buy a boat", 1, demos=(("teach my parrot to whistle", shown),))
    example = Example("demos", (*messages, {"role": "assistant", "content": prompt.write_set(shown)}))
    assert not Guard(list(RULER)).allows(example)


def test_the_guard_lets_an_innocent_line_pass():
    guard = Guard(list(RULER))
    for line in ("Task: shoot a wedding film", "Task: teach my daughter to swim", "Task: build a raft", "Task: a"):
        assert guard.allows(user(line, "Questions: 7"))
    assert guard.refused == 0


def test_no_example_has_a_task_of_the_shipped_ruler_on_a_line_of_its_own(corpus):
    tasks = {c.task.casefold() for c in Ruler.load().cases}
    for e in corpus:
        assert not tasks & {line.split(": ", 1)[-1].casefold() for line in e.text.split("\n")}
