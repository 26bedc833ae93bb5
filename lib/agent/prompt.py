"""Every call to a model, each beside the parser of its reply.

Knows the words that a model sees and how to read what it answers. Does not know models, cases or scores.
Written for an instruction model of about 3B parameters; the tiny planner was trained on these same calls, with each
paragraph below as one token of its vocabulary. So to change a paragraph is to retrain it (`notch doctor` says so).

A reply is read strictly: whole JSON, nothing before or after it but one code fence. What does not fit raises
BadReply with the reason; nothing is repaired silently.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

R, T = TypeVar("R"), TypeVar("T")
Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": text}

# --- paragraphs of the system message ------------------------------------------------------------

ROLE = (
    "You are a discovery planner. Someone types a task in one line. Before anybody plans it, you find out what the "
    "plan depends on."
)
ASK = (
    "Restate the task as a short title and write the clarifying questions that the person should answer first. "
    "Write exactly as many questions as the message asks for."
)
COACH = (
    "Ask what an expert in that field would ask first. Each question asks one thing, names the concrete thing that "
    "it is about and sounds like a person speaking. Ask nothing that the task already says and nothing twice. "
    "One of the questions must be the one whose answer would change the plan the most."
)
CONTRAST = (
    'For the task "set up an aquarium" a good question is "How many litres does your tank hold?". '
    'Bad questions are "What do you need?" (vague), "Which fish and which plants do you want?" (two questions) '
    'and "Do you want an aquarium?" (already said).'
)
ANTIMODAL = (
    "Leave out the questions that fit every task, such as a bare budget or a bare date. Ask those that only this "
    "task needs."
)
FRAMES = {
    "doer": "Look at the task as the person who has to do the work.",
    "payer": "Look at the task as the person who pays for it.",
    "guest": "Look at the task as the person whom the result is for.",
    "sceptic": "Look at the task as the person who expects it to go wrong.",
}
AS_JSON = 'Reply with JSON only: {"title": "...", "questions": ["...", "..."]}'
AS_LINES = "Reply with the title on the first line, then one numbered question on each line."
AS_SLOTS = (
    'Reply with JSON only, one question for each slot: {"title": "...", "goal": "...", "scope": "...", "who": "...", '
    '"budget": "...", "time": "...", "state": "...", "limits": "..."}'
)
AS_UNKNOWNS = (
    "Reply with JSON only, first the unknowns, then a question for each: "
    '{"title": "...", "unknowns": ["...", "..."], "questions": ["...", "..."]}'
)
AS_REASONS = (
    "Reply with JSON only, the reason before each question: "
    '{"title": "...", "questions": [{"why": "...", "question": "..."}]}'
)
AS_GIVENS = (
    "Reply with JSON only, first what the task already says, then questions about the rest: "
    '{"title": "...", "given": ["..."], "questions": ["...", "..."]}'
)
NEXT = (
    "Write the one clarifying question that is still missing most, different from those asked so far. "
    'Reply with JSON only: {"question": "..."}'
)
TITLE = 'Restate the task as a short title. Reply with JSON only: {"title": "..."}'
BRAINSTORM = (
    "List everything that the plan could depend on, a few words each, the most important first. "
    'Reply with JSON only: {"unknowns": ["...", "..."]}'
)
SELECT = (
    "From the numbered questions choose as many as the message asks for: those whose answers would change the plan "
    'the most, without repeats. Reply with JSON only: {"keep": [1, 2]}'
)
FROM_UNKNOWNS = "Write one question for each of the listed unknowns, in their order."
PLAN = 'Sketch the plan in six short steps. Reply with JSON only: {"steps": ["...", "..."]}'
ASSUME = (
    "List what this plan silently assumes about the person, a few words each. "
    'Reply with JSON only: {"assumptions": ["...", "..."]}'
)
CRITIQUE = (
    "Find the one question that should go first from this draft and name its fault: vague, two things, given, "
    'duplicate, or none. Reply with JSON only: {"worst": 1, "fault": "..."}'
)
REVISE = "Improve the draft: keep what is good, replace what is vague, double, repeated or already said."
COMPARE = (
    "Which set of questions would help more to make a good plan? "
    'Reply with JSON only: {"better": "A"} or {"better": "B"} or {"better": "tie"}'
)
SCENARIOS = (
    "Describe four clearly different situations that could stand behind this task. "
    'Reply with JSON only: {"scenarios": ["...", "..."]}'
)
ANSWER = (
    'Answer the question as the person in the situation would, in a few words. Reply with JSON only: {"answer": "..."}'
)
ANSWERS = (
    "Give three different answers that people with this task could give, a few words each. "
    'Reply with JSON only: {"answers": ["...", "...", "..."]}'
)
CHECK = (
    "Check the question with yes or no: does it ask one thing, does the task already say it, is it concrete, does it "
    "repeat one of the others? "
    'Reply with JSON only: {"one_thing": true, "given": false, "specific": true, "duplicate": false}'
)
REPAIR = 'Rewrite the question so that the named fault is gone. Reply with JSON only: {"question": "..."}'
ADAPT = "Adapt the questions of the similar task to this task: same depth, own content."

SCHEMAS = {
    "json": AS_JSON,
    "lines": AS_LINES,
    "slots": AS_SLOTS,
    "unknowns": AS_UNKNOWNS,
    "reasons": AS_REASONS,
    "givens": AS_GIVENS,
}
SLOTS = ("goal", "scope", "who", "budget", "time", "state", "limits")
ADVICE = {"coach": COACH, "contrast": CONTRAST, "antimodal": ANTIMODAL, **FRAMES}
FAULTS = ("vague", "two things", "given", "duplicate", "none")


def paragraphs() -> list[str]:
    """Every fixed paragraph that a system message can hold, in the order of this file."""
    calls = [NEXT, TITLE, BRAINSTORM, SELECT, FROM_UNKNOWNS, PLAN, ASSUME, CRITIQUE, REVISE, COMPARE, SCENARIOS]
    calls += [ANSWER, ANSWERS, CHECK, REPAIR, ADAPT]
    return [ROLE, ASK, COACH, CONTRAST, ANTIMODAL, *FRAMES.values(), *SCHEMAS.values(), *calls]


# --- building messages ---------------------------------------------------------------------------


def system(*parts: str) -> Message:
    """The system message: the role, then one paragraph a line."""
    return {"role": "system", "content": "\n".join([ROLE, *parts])}


def user(task: str, n: int | None = None, **blocks: str | Sequence[str]) -> Message:
    """The user message: the task, how many questions, then named blocks; a list becomes numbered lines.

    >>> user("buy a boat", 7, draft=["Why?"])["content"]
    'Task: buy a boat\\nQuestions: 7\\nDraft:\\n1. Why?'
    """
    lines = [f"Task: {one_line(task)}"]
    if n is not None:
        lines.append(f"Questions: {n}")
    for name, block in blocks.items():
        label = name.replace("_", " ").capitalize()
        if isinstance(block, str):
            lines.append(f"{label}: {one_line(block)}")
        else:
            lines += [f"{label}:", *(f"{i}. {one_line(text)}" for i, text in enumerate(block, 1))]
    return {"role": "user", "content": "\n".join(lines)}


def one_line(text: str) -> str:
    """Text without line breaks or control tokens, so that a task cannot pose as another part of the conversation."""
    return " ".join(text.split()).replace("<|", "< |")


@dataclass(frozen=True)
class Draft:
    """A title and questions as a model wrote them, before any gate."""

    title: str
    questions: tuple[str, ...]
    extra: tuple[str, ...] = ()  # unknowns, reasons or givens that the schema asked for


def ask(
    task: str,
    n: int = 7,
    schema: str = "json",
    advice: Sequence[str] = (),
    demos: Sequence[tuple[str, Draft]] = (),
) -> list[Message]:
    """The main call. `advice` holds names from ADVICE or paragraphs of your own; `demos` are worked examples.

    Reply: `parse_set(text, schema)`.
    """
    told = [ADVICE.get(a, a) for a in advice]
    turns: list[Message] = [system(ASK, *told, SCHEMAS[schema])]
    for other, draft in demos:
        turns += [
            user(other, len(draft.questions)),
            {"role": "assistant", "content": write_set(draft, schema)},
        ]
    return [*turns, user(task, n)]


def from_unknowns(task: str, unknowns: Sequence[str]) -> list[Message]:
    """One question for each named unknown. Reply: `parse_set(text)`."""
    return [system(ASK, FROM_UNKNOWNS, AS_JSON), user(task, len(unknowns), unknowns=unknowns)]


def revise(task: str, draft: Sequence[str], n: int = 7) -> list[Message]:
    """A second pass over a draft. Reply: `parse_set(text)`."""
    return [system(ASK, REVISE, AS_JSON), user(task, n, draft=draft)]


def beat(task: str, draft: Sequence[str], n: int = 7) -> list[Message]:
    """Another set than the obvious one, which is shown. Reply: `parse_set(text)`."""
    return [system(ASK, ANTIMODAL, REVISE, AS_JSON), user(task, n, draft=draft)]


def adapt(task: str, other: str, questions: Sequence[str], n: int = 7) -> list[Message]:
    """Questions of a similar task, made over for this one. Reply: `parse_set(text)`."""
    return [system(ASK, ADAPT, AS_JSON), user(task, n, similar_task=other, its_questions=questions)]


def next_question(task: str, asked: Sequence[str]) -> list[Message]:
    """One more question. Reply: `parse_text(text, "question")`."""
    return [system(NEXT), user(task, asked_so_far=list(asked))]


def restate(task: str) -> list[Message]:
    """The title alone. Reply: `parse_text(text, "title")`."""
    return [system(TITLE), user(task)]


def brainstorm(task: str) -> list[Message]:
    """Names of unknowns. Reply: `parse_list(text, "unknowns")`."""
    return [system(BRAINSTORM), user(task)]


def select(task: str, pool: Sequence[str], n: int = 7) -> list[Message]:
    """Choose from a pool. Reply: `parse_keep(text, len(pool), n)`."""
    return [system(SELECT), user(task, n, pool=pool)]


def plan(task: str) -> list[Message]:
    """Steps of a plan. Reply: `parse_list(text, "steps")`."""
    return [system(PLAN), user(task)]


def assume(task: str, steps: Sequence[str]) -> list[Message]:
    """What a plan takes for granted. Reply: `parse_list(text, "assumptions")`."""
    return [system(ASSUME), user(task, plan=steps)]


def critique(task: str, draft: Sequence[str]) -> list[Message]:
    """The worst question of a draft. Reply: `parse_critique(text, len(draft))`."""
    return [system(CRITIQUE), user(task, draft=draft)]


def compare(task: str, a: Sequence[str], b: Sequence[str]) -> list[Message]:
    """Two sets, one choice. Reply: `parse_better(text)`."""
    return [system(COMPARE), user(task, set_a=a, set_b=b)]


def scenarios(task: str) -> list[Message]:
    """Situations behind a task. Reply: `parse_list(text, "scenarios")`."""
    return [system(SCENARIOS), user(task)]


def answer(task: str, situation: str, question: str) -> list[Message]:
    """The answer of a person in a situation. Reply: `parse_text(text, "answer")`."""
    return [system(ANSWER), user(task, situation=situation, question=question)]


def answers(task: str, question: str) -> list[Message]:
    """Three possible answers. Reply: `parse_list(text, "answers")`."""
    return [system(ANSWERS), user(task, question=question)]


def check(task: str, question: str, others: Sequence[str]) -> list[Message]:
    """Four binary checks of a question. Reply: `parse_checks(text)`."""
    return [system(CHECK), user(task, question=question, others=others)]


def repair(task: str, question: str, fault: str) -> list[Message]:
    """A question without its fault. Reply: `parse_text(text, "question")`."""
    return [system(REPAIR), user(task, question=question, fault=fault)]


# --- reading replies -----------------------------------------------------------------------------


class BadReply(ValueError):
    """A model's reply that does not have the form that the call asked for; the message says in what way."""


def write_set(draft: Draft, schema: str = "json") -> str:
    """The reply that a perfect model would give, in a schema. The inverse of `parse_set` for json and lines."""
    if schema == "lines":
        return "\n".join([draft.title, *(f"{i}. {q}" for i, q in enumerate(draft.questions, 1))])
    body: dict[str, object] = {"title": draft.title}
    if schema == "slots":
        body |= dict(zip(SLOTS, draft.questions, strict=True))
    elif schema == "reasons":
        body["questions"] = [{"why": w, "question": q} for w, q in zip(draft.extra, draft.questions, strict=True)]
    else:
        if schema in ("unknowns", "givens"):
            body["unknowns" if schema == "unknowns" else "given"] = list(draft.extra)
        body["questions"] = list(draft.questions)
    return json.dumps(body, ensure_ascii=False)


def parse_set(text: str, schema: str = "json") -> Draft:
    """Title and questions from a reply to `ask`. Raises BadReply.

    >>> parse_set('{"title": "Buy a boat", "questions": ["Which waters will you sail?"]}').title
    'Buy a boat'
    """
    if schema == "lines":
        return _parse_lines(text)
    body = parse_json(text)
    title = _text(body, "title")
    if schema == "slots":
        return Draft(title, tuple(_text(body, slot) for slot in SLOTS))
    if schema == "reasons":
        rows = body.get("questions")
        if not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
            raise BadReply('"questions" is not a list of {"why", "question"}')
        return Draft(title, tuple(_text(r, "question") for r in rows), tuple(_text(r, "why") for r in rows))
    extra = {"unknowns": "unknowns", "givens": "given"}.get(schema)
    return Draft(title, _texts(body, "questions"), _texts(body, extra) if extra else ())


PATTERNS = {"question": r'^[A-Z][^?"\\]{8,110}\?$', "short": r'^[^"\\?]{3,80}$'}  # a question ends in its only mark


def set_grammar(n: int = 7, schema: str = "json", questions: bool = False) -> str:
    """The JSON schema, as text, of a reply to `ask`: exactly n questions, keys in the order of the prompt.

    With `questions` each of them is one sentence ending in a question mark. Raises ValueError for lines.

    >>> set_grammar(2)[:60]
    '{"type": "object", "properties": {"title": {"type": "string"'
    """
    if schema == "lines":
        raise ValueError("the lines schema is no JSON, so no grammar fits it; take another schema or grammar off")
    question: dict[str, object] = (
        {"type": "string", "pattern": PATTERNS["question"]} if questions else {"type": "string"}
    )
    parts: dict[str, object] = {"title": {"type": "string", "pattern": PATTERNS["short"]}}
    if schema == "slots":
        parts |= dict.fromkeys(SLOTS, question)
    elif schema == "reasons":
        parts["questions"] = _array(
            n, _object({"why": {"type": "string", "pattern": PATTERNS["short"]}, "question": question})
        )
    else:
        if schema in ("unknowns", "givens"):
            short = {"type": "string", "pattern": PATTERNS["short"]}
            parts |= {"unknowns": _array(n, short)} if schema == "unknowns" else {"given": _array(4, short, least=0)}
        parts["questions"] = _array(n, question)
    return json.dumps(_object(parts))


def _object(parts: dict[str, object]) -> dict[str, object]:
    return {"type": "object", "properties": parts, "required": list(parts), "additionalProperties": False}


def _array(n: int, of: object, least: int | None = None) -> dict[str, object]:
    return {"type": "array", "items": of, "minItems": n if least is None else least, "maxItems": n}


def _parse_lines(text: str) -> Draft:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    if not lines:
        raise BadReply("empty reply")
    questions = []
    for line in lines[1:]:
        match = re.fullmatch(r"\d{1,2}[.)]\s*(.+)", line)
        if not match:
            raise BadReply(f"line without a number: {clip(line)}")
        questions.append(_sound(match[1], "question"))
    return Draft(_sound(lines[0], "title"), tuple(questions))


def parse_json(text: str) -> dict:
    """The one JSON object that a reply consists of; a single code fence around it is allowed. Raises BadReply."""
    body = text.strip()
    fence = re.fullmatch(r"```(?:json)?\s*\n(.*)\n```", body, re.DOTALL)
    try:
        value = json.loads(fence[1] if fence else body)
    except (ValueError, RecursionError) as error:
        if not body:
            raise BadReply("empty reply") from None
        start, end = clip(body), body[-1]
        why = "cut off" if body[0] in "{[" and end not in "}]`" else "not JSON"
        raise BadReply(f"{why}: {start} ({str(error)[:60]})") from None
    if not isinstance(value, dict):
        raise BadReply(f"JSON, but not an object: {clip(body)}")
    return value


def parse_text(text: str, key: str) -> str:
    """One text from a reply such as {"question": "..."}. Raises BadReply."""
    return _text(parse_json(text), key)


def parse_list(text: str, key: str) -> tuple[str, ...]:
    """A list of texts from a reply such as {"unknowns": ["...", "..."]}. Raises BadReply."""
    return _texts(parse_json(text), key)


def parse_keep(text: str, size: int, n: int) -> tuple[int, ...]:
    """Indices (from 0) of n different choices among `size`. Raises BadReply."""
    keep = parse_json(text).get("keep")
    if not isinstance(keep, list) or not all(type(i) is int for i in keep):
        raise BadReply('"keep" is not a list of numbers')
    if len(set(keep)) != len(keep) or len(keep) != n or not all(1 <= i <= size for i in keep):
        raise BadReply(f'"keep" should hold {n} different numbers from 1 to {size}, got {clip(str(keep))}')
    return tuple(i - 1 for i in keep)


def parse_critique(text: str, size: int) -> tuple[int, str] | None:
    """(index from 0, fault) of the worst question, or None where the model finds no fault. Raises BadReply."""
    body = parse_json(text)
    worst, fault = body.get("worst"), _text(body, "fault")
    if fault not in FAULTS:
        raise BadReply(f'"fault" is {clip(fault)}, not one of {", ".join(FAULTS)}')
    if fault == "none":
        return None
    if type(worst) is not int or not 1 <= worst <= size:
        raise BadReply(f'"worst" should be a number from 1 to {size}, got {clip(str(worst))}')
    return worst - 1, fault


def parse_better(text: str) -> str:
    """ "A", "B" or "tie". Raises BadReply."""
    better = _text(parse_json(text), "better")
    if better not in ("A", "B", "tie"):
        raise BadReply(f'"better" is {clip(better)}, not A, B or tie')
    return better


def parse_checks(text: str) -> dict[str, bool]:
    """The four checks by name. Raises BadReply."""
    body = parse_json(text)
    names = ("one_thing", "given", "specific", "duplicate")
    wrong = [n for n in names if not isinstance(body.get(n), bool)]
    if wrong:
        raise BadReply(f'"{wrong[0]}" is not true or false')
    return {n: body[n] for n in names}


def parse_each(replies: Sequence[R], parse: Callable[[R], T]) -> tuple[list[T | None], list[str]]:
    """What many replies say, None where one cannot be read, and the reasons of those: for steps that go on without."""
    read: list[T | None] = []
    faults: list[str] = []
    for reply in replies:
        try:
            read.append(parse(reply))
        except BadReply as error:
            read.append(None)
            faults.append(str(error))
    return read, faults


def clip(text: str, most: int = 60) -> str:
    """The start of a text on one line, for messages."""
    flat = " ".join(text.split())
    return repr(flat if len(flat) <= most else flat[: most - 1] + "…")


def _text(body: dict, key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str):
        raise BadReply(f'"{key}" is {"missing" if value is None else "not text"}')
    return _sound(value, key)


def _texts(body: dict, key: str) -> tuple[str, ...]:
    value = body.get(key)
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise BadReply(f'"{key}" is {"missing" if value is None else "not a list of texts"}')
    return tuple(_sound(v, key) for v in value)


def _sound(text: str, key: str) -> str:
    """A text that can be written as UTF-8: half an escaped emoji would break the run when it is sealed."""
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise BadReply(f'"{key}" has half a character (a lone surrogate)')
    return text.strip()
