"""The spec gate: what keeps the form passes unchanged, and what does not is told the first thing wrong."""

import pytest

from lib.measure.answer import GENERIC, LONGEST, Answer, NoAnswer, spec_gate
from lib.measure.ruler import Ruler

TITLE = "Mend a dinghy"
QUESTIONS = (
    "How long is your dinghy?",
    "What is the hull made of?",
    "Where does the water come in?",
    "When do you want to sail again?",
    "Which tools do you have?",
    "Who could help you turn it over?",
    "What may the repair cost?",
)


def last(question):
    """The questions with the last one replaced."""
    return (*QUESTIONS[:6], question)


def reason(title=TITLE, questions=QUESTIONS):
    outcome = spec_gate(title, questions)
    assert isinstance(outcome, NoAnswer)
    return outcome.reason


def test_a_good_answer_passes_word_for_word_but_for_the_spaces_around():
    assert spec_gate(TITLE, QUESTIONS) == Answer(TITLE, QUESTIONS)
    assert spec_gate(f" {TITLE}\n", [f"\t{q} " for q in QUESTIONS]) == Answer(TITLE, QUESTIONS)


def test_the_text_of_an_answer_has_a_line_for_the_title_and_each_question():
    assert Answer(TITLE, list(QUESTIONS)).text.split("\n") == [TITLE, *QUESTIONS]


@pytest.mark.parametrize("count", [0, 1, 6, 8, 70])
def test_another_number_of_questions_than_seven_is_no_answer(count):
    questions = [f"What about part {i}?" for i in range(count)]
    assert reason(questions=questions) == f"{count} questions instead of 7"
    assert isinstance(spec_gate(TITLE, questions, n=count), Answer)


@pytest.mark.parametrize("title", ["", "  ", "\n", "?!", "—", "\u200b"])
def test_an_empty_title_is_no_answer(title):
    assert reason(title) == "title is empty"


@pytest.mark.parametrize("title", [*GENERIC, "TASK:", "“Title”", "Clarifying  questions", "ｔｉｔｌｅ"])
def test_a_generic_title_is_no_answer(title):
    assert reason(title).endswith("is a generic label")


def test_a_title_that_only_contains_a_generic_word_passes():
    for title in ("Plan a regatta", "Title deeds of the boathouse", "Discovery Bay cruise"):
        assert isinstance(spec_gate(title, QUESTIONS), Answer)


def test_the_generic_titles_of_the_shipped_protocol_are_no_answers():
    generic = Ruler.load().protocol.generic_titles
    assert set(GENERIC) <= set(generic)
    for title in generic:
        assert isinstance(spec_gate(title.upper(), QUESTIONS, 7, generic), NoAnswer)


@pytest.mark.parametrize("question", ["", " ", "?", "???", "\n"])
def test_an_empty_question_is_no_answer(question):
    assert reason(questions=last(question)) == "question 7 is empty"


@pytest.mark.parametrize("question", ["Tell me the cost.", "cost", "Why? Because.", "1. Cost: ask"])
def test_what_does_not_end_as_a_question_is_no_answer(question):
    assert reason(questions=last(question)) == "question 7 is not a question"


@pytest.mark.parametrize("again", [QUESTIONS[1], "what is  the hull made of ?", "WHAT IS THE HULL, MADE OF?"])
def test_the_same_question_twice_is_no_answer_whatever_its_case_and_commas(again):
    assert reason(questions=last(again)) == "questions 2 and 7 are the same"


@pytest.mark.parametrize("emoji", ["😀", "⛵", "❤", "✅", "🇫🇷", "1️⃣", "👩‍🔧", "☕"])
def test_an_emoji_is_no_answer(emoji):
    assert reason(f"{TITLE} {emoji}") == "title has an emoji"
    assert reason(questions=last(f"What may it cost {emoji}?")) == "question 7 has an emoji"


@pytest.mark.parametrize("sign", ["é", "€", "½", "–", "’", "…", "°", "&"])
def test_a_sign_of_ordinary_writing_is_no_emoji(sign):
    assert isinstance(spec_gate(f"{TITLE} {sign}", last(f"What may it {sign} cost?")), Answer)


@pytest.mark.parametrize("character", ["\x00", "\x07", "\x1b[31m", "\n", "\t", "\x7f", "\x85", "\ufffe", "\ue000"])
def test_a_control_character_inside_is_no_answer(character):
    assert reason(f"Mend{character}it") == "title has control or invalid characters"
    assert reason(questions=last(f"What{character}else?")) == "question 7 has control or invalid characters"


@pytest.mark.parametrize("half", ["\ud83d", "\ude00", "\ud800x"])
def test_a_lone_surrogate_is_no_answer_and_its_reason_can_be_written_down(half):
    for told in (reason(TITLE + half), reason(questions=last(f"What {half} else?")), reason(half)):
        assert told.encode("utf-8")


def test_ten_thousand_characters_are_no_answer_and_are_not_repeated_in_the_reason():
    for told in (reason("x" * 10_000), reason(questions=last("x" * 9_999 + "?"))):
        assert "10000 characters" in told and len(told) < 100


def test_the_longest_question_passes_and_one_character_more_does_not():
    assert isinstance(spec_gate(TITLE, last("x" * (LONGEST - 1) + "?")), Answer)
    assert f"{LONGEST + 1} characters" in reason(questions=last("x" * LONGEST + "?"))


@pytest.mark.parametrize(
    "questions",
    [
        ("¿Cuánto mide el bote?", "¿Dónde está?", "¿Quién ayuda?", "¿Cuándo?", "¿Cuánto?", "¿Por qué?", "¿Cómo?"),
        (
            "船の長さは？",
            "どこですか？",
            "誰が手伝いますか？",
            "いつですか？",
            "いくらですか？",
            "なぜですか？",
            "どう？",
        ),
        ("Где лодка?", "Какой длины?", "Кто поможет?", "Когда?", "Сколько?", "Почему?", "Чем?"),
    ],
)
def test_questions_in_another_language_pass(questions):
    assert spec_gate("船を直す", questions) == Answer("船を直す", questions)
