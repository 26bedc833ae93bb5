"""The leak guard on a toy ruler and on the shipped one, and what it keeps out of the bank, prompts and training sets."""

from dataclasses import replace

import pytest

from lib.agent import prompt
from lib.agent.bank import bank
from lib.agent.guard import NAMED, Leak, LeakGuard
from lib.measure.ruler import Ruler

TASKS = ("paint the hull of a small wooden boat", "teach my parrot to whistle")
QUESTIONS = ("Which kind of paint is on the hull at present?", "How old is your parrot?")
EXACT = TASKS + QUESTIONS


@pytest.fixture
def guard():
    return LeakGuard(TASKS, QUESTIONS)


@pytest.fixture(scope="module")
def shipped_guard():
    cases = Ruler.load().cases
    return LeakGuard([c.task for c in cases], [q for c in cases for q in c.gold.questions])


def refused(guard, text):
    with pytest.raises(Leak) as caught:
        guard.check(["innocent", text], "step ask")
    return str(caught.value)


@pytest.mark.parametrize("text", EXACT)
@pytest.mark.parametrize(
    "disguise",
    [
        str,
        str.upper,
        str.title,
        lambda t: t.rstrip("?") + " !!!",
        lambda t: "  " + t.replace(" ", "\t ") + "\n",
        lambda t: "“" + t.replace(" ", ", ") + "”",
        lambda t: t.replace("a", "\uff41"),  # full-width letters
    ],
    ids=["exact", "upper case", "title case", "other end", "other spaces", "commas", "full-width"],
)
def test_a_planted_leak_is_found_and_named(guard, text, disguise):
    said = refused(guard, disguise(text))
    assert said.startswith("step ask: ") and repr(text) in said and "\n" not in said


@pytest.mark.parametrize(
    "text, leaked",
    [
        ("paint the hull of an old wooden boat", TASKS[0]),
        ("I want to paint the small wooden hull of our boat", TASKS[0]),
        ("please help us to teach a parrot to whistle", TASKS[1]),
        ("Which kind of paint is on the hull at present, please?", QUESTIONS[0]),
        ("At present, which kind of paint is on the hull?", QUESTIONS[0]),
    ],
)
def test_what_is_nearly_the_same_is_found_and_named(guard, text, leaked):
    assert guard.find(text) == leaked
    assert repr(leaked) in refused(guard, text)


@pytest.mark.parametrize("text", EXACT)
@pytest.mark.parametrize(
    "around",
    [
        'For a task like "{}" think of the weather first.',
        "Think of the weather first. {}\nThen ask about money.",
        "Here are examples\n{}\nand another line that has nothing to do with it",
        "Is it urgent? “{}” was asked before! Go on.",
    ],
)
def test_a_leak_inside_a_longer_prompt_is_found_and_named(guard, text, around):
    assert repr(text) in refused(guard, around.format(text))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "?",
        "Ask what an expert in that field would ask first.",
        "paint the kitchen walls",
        "buy a small boat",
        "Which colour should the hull of the boat have in the end?",
        "How old is your tortoise?",
        "How old is the roof, and is your parrot insured?",
    ],
)
def test_an_innocent_text_passes(guard, text):
    assert guard.find(text) is None
    guard.check([text], "step ask")


GOLD = [q for c in Ruler.load().cases if c.gold for q in c.gold.questions]


@pytest.mark.parametrize("around", ["Before anything else, can you tell me {}", "Well then: {} And why?", "so {} eh"])
def test_no_gold_question_passes_behind_a_lead_in(shipped_guard, around):
    texts = [around.format(q[0].lower() + q[1:]) for q in GOLD]
    assert len(texts) == 490 and [t for t in texts if not list(shipped_guard.leaks([t]))] == []


def test_a_gold_question_that_somebody_wrote_on_is_found(shipped_guard):
    texts = [q.rstrip("?") + ", if you know that by now?" for q in GOLD]
    assert [t for t in texts if not list(shipped_guard.leaks([t], typed=True))] == []


def test_the_words_of_the_calls_do_not_repeat_the_shipped_ruler(shipped_guard):
    shown = [*prompt.CALLS.values(), *prompt.ADVICE.values(), *prompt.SCHEMAS.values(), prompt.ROLE]
    shipped_guard.check(shown, "prompt", meaning=True)


def test_no_bank_example_repeats_the_shipped_ruler(shipped_guard):
    for e in bank():
        shipped_guard.check(e.texts, f"bank example {e.id}")


def test_the_shipped_guard_would_refuse_its_own_tasks(shipped_guard):
    case = Ruler.load().gate("dev")[0]
    assert repr(case.task) in refused(shipped_guard, f"Plan this: \n{case.task.upper()}!")
    assert repr(case.gold.questions[3]) in refused(shipped_guard, case.gold.questions[3].lower())


@pytest.mark.parametrize(
    "around", ["For the task {} ask about money.", "for `{}` ask well", "Ask (say) {} then go.", "A good one is: {}"]
)
def test_a_ruler_task_in_the_middle_of_a_sentence_is_found(around):
    task = Ruler.load().gate("full")[0].task
    with pytest.raises(Leak):
        LeakGuard([task]).check([around.format(task)], "prompt")


@pytest.mark.parametrize(
    "text, leaked",
    [
        ("paint the hulls of a small wooden boat", TASKS[0]),  # another ending
        ("teech my parrot to whistle", TASKS[1]),  # a slip of the pen
        ("Wich kind of paints is on the hull at present?", QUESTIONS[0]),
    ],
)
def test_letters_find_other_endings_and_slips_of_the_pen(guard, text, leaked):
    assert guard.find(text) == leaked


def test_meaning_is_refused_only_where_words_are_shared_too(guard):
    for innocent in ("", "one two", "instruct a cockatoo in whistling tunes", "How old is your tortoise really, then?"):
        assert guard.find_meaning(innocent) is None
    assert LeakGuard([]).find_meaning("paint the hull of a boat") is None


def test_a_rewording_that_shares_few_letters_is_found_by_meaning(guard):
    text = "which paint is on the hull now?"
    assert guard.find(text) is None and guard.find_meaning(text) == QUESTIONS[0]
    guard.check([text], "prompt")  # only where meaning is asked for
    with pytest.raises(Leak):
        guard.check([text], "prompt", meaning=True)


def test_every_leak_is_named_up_to_five(guard):
    with pytest.raises(Leak) as caught:
        guard.check(["fine", TASKS[0], QUESTIONS[1]], "training set")
    said = str(caught.value)
    assert said.startswith("training set: ") and repr(TASKS[0]) in said and repr(QUESTIONS[1]) in said
    assert said.endswith("take them out") and "\n" not in said
    with pytest.raises(Leak) as caught:
        guard.check([f"{TASKS[0]} {i // 2}" for i in range(18)], "training set")
    assert str(caught.value).count(" of the ruler") == NAMED


def test_the_letters_of_different_questions_on_one_thing_stay_apart():
    """The threshold was measured on pairs like these; it must leave them alone."""
    for example in bank()[::40]:
        first, *others = (*example.draft.questions, *example.further)
        guard = LeakGuard([], [first])
        assert len(others) == 11 and [q for q in others if guard.find(q)] == []


def planted(text, where):
    """The bank with a text of the ruler in one example, in one of the places that a model may see."""
    example = bank()[5]
    change = {
        "task": {"task": text},
        "title": {"draft": replace(example.draft, title=text)},
        "question": {"draft": replace(example.draft, questions=(text, *example.draft.questions[1:]))},
        "further": {"further": (*example.further[1:], text)},
        "second": {"second": replace(example.draft, questions=(text, *example.draft.questions[1:]))},
    }[where]
    return [*bank()[:5], replace(example, **change)]


@pytest.mark.parametrize("text", EXACT)
@pytest.mark.parametrize("where", ["task", "title", "question", "further", "second"])
def test_a_leak_planted_anywhere_in_the_bank_is_refused(guard, where, text):
    with pytest.raises(Leak) as caught:
        for example in planted(text, where):
            guard.check(example.texts, f"bank example {example.id}")
    assert f"bank example {bank()[5].id}" in str(caught.value) and repr(text) in str(caught.value)


@pytest.mark.parametrize("text", EXACT)
def test_a_leak_planted_in_a_demonstration_is_refused(guard, text):
    """What a model sees of the examples is what the guard read: every line of them, in every schema."""
    example = planted(text, "question")[-1]
    for schema in ("json", "lines"):
        shown = prompt.ask("fly a kite", 7, schema, (), [(example.task, example.shown(schema))])
        with pytest.raises(Leak):
            guard.check([m["content"].replace('"', "\n") for m in shown], "demonstration")


@pytest.mark.parametrize("text", EXACT)
def test_a_leak_planted_in_a_training_set_is_refused(guard, text):
    rows = [t for e in bank()[:30] for t in e.texts]
    guard.check(rows, "training set")
    rows[170] += f"\n2. {text}"
    with pytest.raises(Leak) as caught:
        guard.check(rows, "training set")
    assert repr(text) in str(caught.value)


def experiment_on(folder, monkeypatch, **args):
    from lib.lab import base, experiment

    monkeypatch.setattr(base, "RULER", folder)
    return experiment.Experiment(hypothesis="x", model="toy", **args)


@pytest.mark.parametrize("step", [{"step": "ask", "advice": ["coach", "{}"]}, {"step": "sample", "advice": ["{}"]}])
@pytest.mark.parametrize(
    "text", ["How big must it be to build a kite?", "insulate the attic", "Cross the lake by canoe!"]
)
def test_a_ruler_text_typed_into_a_prompt_parameter_is_refused(frozen_ruler, monkeypatch, step, text):
    told = {k: [x.format(f"Ask well. {text} Be kind.") for x in v] if k == "advice" else v for k, v in step.items()}
    made = experiment_on(frozen_ruler, monkeypatch, pipeline=[told])
    with pytest.raises(Leak) as caught:
        made.check()
    assert str(caught.value).startswith(f"step {step['step']}: ")
    experiment_on(frozen_ruler, monkeypatch, pipeline=[{**told, "advice": ["Think of the harbour."]}]).check()


@pytest.mark.parametrize(
    "steps",
    [
        [{"step": "demos"}, {"step": "ask"}],
        [{"step": "checklist"}],
        [{"step": "adapt"}],
        [{"step": "ask", "n": 8}, {"step": "prune", "by": "neighbours"}],
        [{"step": "ask", "n": 8}, {"step": "prune", "by": "corpus"}],
    ],
    ids=lambda s: s[-1].get("by", s[0]["step"]),
)
def test_a_leak_planted_in_the_bank_stops_every_experiment_that_reads_it(frozen_ruler, monkeypatch, steps):
    from lib.lab import experiment

    monkeypatch.setattr(experiment, "bank", lambda: planted("insulate the attic", "question"))
    with pytest.raises(Leak, match="bank example .* repeats 'insulate the attic'"):
        experiment_on(frozen_ruler, monkeypatch, pipeline=steps).check()
    experiment_on(frozen_ruler, monkeypatch, pipeline=[{"step": "ask"}]).check()  # shows no example
