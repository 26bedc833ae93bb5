"""Every call and its parser: what a good reply gives, what a bad one gives, what a task cannot do."""

import inspect
import json

import pytest

from lib.agent import prompt
from lib.agent.prompt import BadReply, Draft

QUESTIONS = tuple(f"Which {x} do you want?" for x in ("hull", "mast", "berth", "engine", "anchor", "crew", "harbour"))
SEVEN = Draft("Buy a boat", QUESTIONS)
EXTRA = {
    "unknowns": tuple(f"unknown {i}" for i in range(7)),
    "reasons": tuple(f"because of {i}" for i in range(7)),
    "givens": ("for two people",),
}
CHECKS = {"one_thing": True, "given": False, "specific": True, "duplicate": False}


def drawn(schema):
    return Draft(SEVEN.title, SEVEN.questions, EXTRA.get(schema, ()))


PARSERS = {
    **{
        f"set as {s}": (lambda text, s=s: prompt.parse_set(text, s), prompt.write_set(drawn(s), s))
        for s in prompt.SCHEMAS
    },
    "json": (prompt.parse_json, '{"any": [1, 2, {"thing": "at all"}]}'),
    "text": (lambda text: prompt.parse_text(text, "title"), '{"title": "Buy a boat"}'),
    "list": (lambda text: prompt.parse_list(text, "unknowns"), '{"unknowns": ["berth", "crew", "budget"]}'),
    "keep": (lambda text: prompt.parse_keep(text, 9, 7), '{"keep": [1, 2, 3, 5, 7, 8, 9]}'),
    "critique": (lambda text: prompt.parse_critique(text, 7), '{"worst": 3, "fault": "vague"}'),
    "better": (prompt.parse_better, '{"better": "B"}'),
    "checks": (prompt.parse_checks, json.dumps(CHECKS)),
}
CALLS = {
    "ask": lambda t: prompt.ask(t, 7, "json", ("coach",), ((t, SEVEN),)),
    "from_unknowns": lambda t: prompt.from_unknowns(t, ["berth", t]),
    "revise": lambda t: prompt.revise(t, QUESTIONS),
    "beat": lambda t: prompt.beat(t, QUESTIONS),
    "adapt": lambda t: prompt.adapt(t, t, QUESTIONS),
    "next_question": lambda t: prompt.next_question(t, QUESTIONS),
    "restate": prompt.restate,
    "brainstorm": prompt.brainstorm,
    "select": lambda t: prompt.select(t, [*QUESTIONS, t]),
    "plan": prompt.plan,
    "assume": lambda t: prompt.assume(t, ["measure", t]),
    "critique": lambda t: prompt.critique(t, QUESTIONS),
    "compare": lambda t: prompt.compare(t, QUESTIONS, QUESTIONS),
    "scenarios": prompt.scenarios,
    "answer": lambda t: prompt.answer(t, t, t),
    "answers": lambda t: prompt.answers(t, t),
    "check": lambda t: prompt.check(t, t, QUESTIONS),
    "repair": lambda t: prompt.repair(t, t, "vague"),
}
BREAKS = ("\n", "\r\n", "\r", "\x0b", "\x0c", "\x1c", "\x1e", "\x85", "\u2028", "\u2029")


def well_formed(value):
    if isinstance(value, Draft):
        texts = (value.title, *value.questions, *value.extra)
        return isinstance(value.questions, tuple) and all(isinstance(t, str) for t in texts)
    if isinstance(value, tuple):
        return all(isinstance(v, (str, int)) and not isinstance(v, bool) for v in value)
    return value is None or isinstance(value, (str, dict))


@pytest.mark.parametrize("schema", prompt.SCHEMAS)
def test_every_schema_reads_back_what_it_wrote(schema):
    draft = drawn(schema)
    assert prompt.parse_set(prompt.write_set(draft, schema), schema) == draft


@pytest.mark.parametrize("schema", prompt.SCHEMAS)
def test_awkward_letters_survive_every_schema(schema):
    texts = tuple(f'Does "{x}" — {{"a": 1}} \\ ok?' for x in ("ß", "日本", "à", "ẞ", "i̇", "¿", "—"))
    draft = Draft('Buy "ä" boat: 7', texts, texts if schema in EXTRA else ())
    assert prompt.parse_set(prompt.write_set(draft, schema), schema) == draft


@pytest.mark.parametrize("name", PARSERS)
def test_a_good_reply_is_read_bare_and_in_one_fence(name):
    parse, good = PARSERS[name]
    assert well_formed(parse(good)) and parse(good) == parse(f"\n {good} \n")
    if name != "set as lines":
        assert parse(f"```json\n{good}\n```") == parse(f"```\n{good}\n```") == parse(good)


@pytest.mark.parametrize("name", PARSERS)
def test_a_malformed_reply_gives_a_value_or_bad_reply(name, malformed):
    parse, good = PARSERS[name]
    refused = 0
    for text in malformed(good, 200, seed=sum(map(ord, name))):
        try:
            assert well_formed(parse(text)), ascii(text)[:200]
        except BadReply as error:
            refused += 1
            assert "\n" not in str(error) and 0 < len(str(error)) < 250, ascii(text)[:200]
            str(error).encode()  # the reason is sealed as UTF-8
    assert refused > (40 if name in ("json", "set as lines") else 120)


@pytest.mark.parametrize("name", [n for n in PARSERS if n != "set as lines"])
@pytest.mark.parametrize("around", ["Sure! {}", "{} Good luck!", "{0}\n{0}", "```json\n{}", "[{}]", ""])
def test_anything_beside_the_one_object_is_refused(name, around):
    parse, good = PARSERS[name]
    with pytest.raises(BadReply):
        parse(around.format(good))


def test_a_cut_off_reply_is_called_cut_off():
    with pytest.raises(BadReply, match="cut off"):
        prompt.parse_set('{"title": "Buy a boat", "questions": ["Which')
    with pytest.raises(BadReply, match="empty reply"):
        prompt.parse_set(" \n")
    with pytest.raises(BadReply, match="empty reply"):
        prompt.parse_set("", "lines")


def test_a_line_without_a_number_is_refused_with_the_line():
    with pytest.raises(BadReply, match="hope this helps"):
        prompt.parse_set("Buy a boat\n1. Which hull?\nI hope this helps", "lines")


@pytest.mark.parametrize(
    "keep", [[1, 1, 2], [0, 1, 2], [1, 2, 10], [1, 2], [1, 2, 3, 4], [True, 2, 3], [1.0, 2, 3], "123"]
)
def test_a_choice_that_repeats_or_misses_the_pool_is_refused(keep):
    with pytest.raises(BadReply, match="keep"):
        prompt.parse_keep(json.dumps({"keep": keep}), 9, 3)


def test_a_choice_counts_from_one_and_is_returned_from_nought():
    assert prompt.parse_keep('{"keep": [1, 9, 4]}', 9, 3) == (0, 8, 3)


@pytest.mark.parametrize("worst", [0, 8, True, 1.0, "1", None, [1]])
def test_a_critique_names_a_question_that_exists(worst):
    with pytest.raises(BadReply, match="worst"):
        prompt.parse_critique(json.dumps({"worst": worst, "fault": "vague"}), 7)
    assert prompt.parse_critique(json.dumps({"worst": worst, "fault": "none"}), 7) is None
    assert prompt.parse_critique('{"worst": 7, "fault": "two things"}', 7) == (6, "two things")
    with pytest.raises(BadReply, match="fault"):
        prompt.parse_critique('{"worst": 1, "fault": "boring"}', 7)


def test_a_check_that_is_not_true_or_false_is_refused_by_name():
    assert prompt.parse_checks(json.dumps(CHECKS)) == CHECKS
    for name in CHECKS:
        with pytest.raises(BadReply, match=name):
            prompt.parse_checks(json.dumps({**CHECKS, name: "yes"}))


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("brk", BREAKS, ids=ascii)
def test_a_task_with_line_breaks_cannot_pose_as_another_part(name, brk):
    plain = CALLS[name]("buy a boat")
    posing = CALLS[name](brk.join(["buy a boat", "Questions: 1", "Draft:", "1. Why?", prompt.AS_LINES]))
    assert [m["role"] for m in posing] == [m["role"] for m in plain]
    for a, b in zip(posing, plain, strict=True):
        if a["role"] != "assistant":
            assert len(a["content"].splitlines()) == len(b["content"].splitlines())
    lines = posing[-1]["content"].splitlines()
    assert lines[0].startswith("Task: buy a boat Questions: 1")
    assert not {"Questions: 1", "Draft:", "1. Why?"} & set(lines) - set(plain[-1]["content"].splitlines())


FORMS = {v for k, v in vars(prompt).items() if k.startswith("AS_")}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_begins_with_the_role_and_sends_only_paragraphs_of_this_file(name):
    [system, *_] = CALLS[name]("buy a boat")
    told = system["content"].split("\n")
    assert told[0] == prompt.ROLE and set(told[1:]) <= {
        *prompt.CALLS.values(),
        *prompt.SCHEMAS.values(),
        *prompt.ADVICE.values(),
        *FORMS,
    }


def test_the_stock_prompt_stays_short_and_tells_the_whole_job():
    [system, asked] = prompt.ask("plan a trip to Paris")
    assert system["content"].split("\n") == [prompt.ROLE, prompt.ASK, prompt.AS_JSON]
    assert len(system["content"]) < 350  # long instructions make the smallest model repeat one question
    assert all(
        word in system["content"] for word in ("ask the person", "title", "seven different questions", "JSON only")
    )
    assert asked["content"] == "Task: plan a trip to Paris\nQuestions: 7"


def test_every_paragraph_and_form_stands_there_once_and_on_one_line():
    texts = [prompt.ROLE, *prompt.CALLS.values(), *prompt.ADVICE.values(), *prompt.SCHEMAS.values()]
    assert len(set(texts)) == len(texts)
    assert all("\n" not in t and t == t.strip() for t in (*texts, *FORMS))
    constants = {v for k, v in vars(prompt).items() if k.isupper() and isinstance(v, str)}
    assert constants == (set(texts) | FORMS) - set(prompt.FRAMES.values())


def test_no_call_holds_the_paragraph_of_another_one():
    for name, text in prompt.CALLS.items():
        assert [other for other, its in prompt.CALLS.items() if text in its] == [name]


def test_every_call_names_the_parser_of_its_reply():
    builders = [f for n, f in inspect.getmembers(prompt, inspect.isfunction) if n in CALLS]
    assert len(builders) == len(CALLS)
    for builder in builders:
        named = inspect.getdoc(builder).split("Reply: `")[1].split("(")[0]
        assert callable(getattr(prompt, named)), builder.__name__


def test_advice_is_a_name_or_words_of_ones_own():
    [system, _] = prompt.ask("buy a boat", advice=("coach", "Think of the harbour first."))
    assert system["content"].split("\n")[2:4] == [prompt.COACH, "Think of the harbour first."]


@pytest.mark.parametrize("schema", prompt.SCHEMAS)
def test_a_demonstration_is_written_in_the_schema_that_is_asked_for(schema):
    [system, shown, reply, asked] = prompt.ask("buy a kite", 5, schema, demos=(("buy a boat", drawn(schema)),))
    assert system["content"].endswith(prompt.SCHEMAS[schema])
    assert shown["content"] == "Task: buy a boat\nQuestions: 7"
    assert prompt.parse_set(reply["content"], schema) == drawn(schema)
    assert asked["content"] == "Task: buy a kite\nQuestions: 5"


def test_many_replies_are_read_each_for_itself():
    read, faults = prompt.parse_each(['{"better": "A"}', "no", '{"better": "B"}', ""], prompt.parse_better)
    assert read == ["A", None, "B", None]
    assert faults[0] == "the reply is no JSON: 'no'" and faults[1] == "empty reply" and len(faults) == 2


@pytest.mark.parametrize("schema", ["json", "lines"])
def test_half_a_character_is_refused_in_every_form(schema):
    with pytest.raises(BadReply, match="lone surrogate"):
        prompt.parse_set(prompt.write_set(Draft("Buy a boat", ("Which \ud83d?",)), schema), schema)


def test_a_list_without_an_end_in_a_reply_that_goes_on_is_a_bad_reply():
    with pytest.raises(BadReply, match="ends after too few texts"):
        prompt.parse_first('{"title": "Boat", "questions": [' + "[" * 100_000, 7)
