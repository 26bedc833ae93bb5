"""Every call to a model, each beside the parser of its reply.

Knows the words that a model sees and how to read what it answers. Does not know models, cases or scores.
Short and plain on purpose: instruction models of 135M to 3B parameters follow these words, and the stock prompt (ROLE,
ASK, AS_JSON) is also what a frontier model answers. Long instructions make the smallest repeat one question.

A reply is read strictly: whole JSON, nothing before or after it but one code fence. What does not fit raises
BadReply with the reason; nothing is repaired silently.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, TypeAdapter, ValidationError

from lib.forms import fault as fault_of

R = TypeVar("R")
T = TypeVar("T")
Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": text}

# --- paragraphs of the system message ------------------------------------------------------------

ROLE = "You help people plan. Before you plan a task, you ask the person what you need to know."
ASK = (
    "Write a short title for the task and seven different questions to ask the person, or as many as the message says."
)
COACH = "Ask the person about what they have, what they want and what could stop them. Ask one thing in each question."
# Published study, exp011: 0.323 on dev beside 0.320 without it; at temperature 1.2 its example came back as an answer
# (exp024).
CONTRAST = (
    'For "repaint a bicycle" a good question is "What is your frame made of?". "How do I paint a frame?" is bad: ask the '
    "person, not a search engine."
)
ANTIMODAL = "Ask only what this task needs, not what fits every task."
FRAMES = {
    "doer": "Think like the person who does the work.",
    "payer": "Think like the person who pays for it.",
    "guest": "Think like the person it is for.",
    "sceptic": "Think like a person who expects it to go wrong.",
}
AS_JSON = 'Reply with JSON only: {"title": "...", "questions": ["...", "..."]}'
AS_LINES = "Write the title on the first line, then one numbered question on each line. Write nothing else."
AS_SLOTS = (
    'Reply with JSON only, one question for each name: {"title": "...", "goal": "...", "scope": "...", "who": "...", '
    '"budget": "...", "time": "...", "state": "...", "limits": "..."}'
)
AS_UNKNOWNS = (
    "Reply with JSON only. First list what you do not know yet, then ask one question about each: "
    '{"title": "...", "unknowns": ["...", "..."], "questions": ["...", "..."]}'
)
AS_REASONS = (
    "Reply with JSON only. Say why before each question: "
    '{"title": "...", "questions": [{"why": "...", "question": "..."}]}'
)
AS_GIVENS = (
    "Reply with JSON only. First list what the task already says, then ask about the rest: "
    '{"title": "...", "given": ["..."], "questions": ["...", "..."]}'
)
NEXT = "Ask the person one more question about the task. It must be new."
TITLE = "Write a short title for the task."
BRAINSTORM = "List what you need to know before you can plan this task, a few words each, the most important first."
SELECT = (
    "Choose the best questions from the numbered list, as many as the message says. Choose no two that ask the same."
)
FROM_UNKNOWNS = "Ask one question about each of the listed unknowns, in the same order."
PLAN = "Write a plan for the task in six short steps."
ASSUME = "List what this plan assumes about the person, a few words each."
CRITIQUE = (
    "Find the worst question in the draft. Give its number and what is wrong with it: vague, two things, given "
    "(the task already says it), duplicate, or none."
)
REVISE = (
    "Make the draft better. Keep the good questions. Replace those that are vague, ask two things, repeat another or ask "
    "what the task already says."
)
COMPARE = "Which set of questions helps more to plan the task: A or B?"
SCENARIOS = "Describe four different people who could have this task, one short sentence each."
ANSWER = "Answer the question as the person in the situation, in a few words."
ANSWERS = "Give three different answers that people could give to the question, a few words each."
CHECK = (
    "Check the question. Is it about one thing only? Does the task already say the answer? Is it specific? Does "
    "it ask the same as one of the others?"
)
REPAIR = "Write the question again without its fault."
ADAPT = "The similar task has good questions. Write questions like them that fit this task."

# Forms of the replies of the other calls; the wording of a call may change, its form is what the parser reads.
AS_QUESTION = 'Reply with JSON only: {"question": "..."}'
AS_TITLE = 'Reply with JSON only: {"title": "..."}'
AS_LIST_UNKNOWNS = 'Reply with JSON only: {"unknowns": ["...", "..."]}'
AS_KEEP = 'Reply with their numbers as JSON only: {"keep": [1, 2]}'
AS_STEPS = 'Reply with JSON only: {"steps": ["...", "..."]}'
AS_ASSUMPTIONS = 'Reply with JSON only: {"assumptions": ["...", "..."]}'
AS_WORST = 'Reply with JSON only: {"worst": 1, "fault": "..."}'
AS_BETTER = 'Reply with JSON only: {"better": "A"} or {"better": "B"} or {"better": "tie"}'
AS_SCENARIOS = 'Reply with JSON only: {"scenarios": ["...", "..."]}'
AS_ANSWER = 'Reply with JSON only: {"answer": "..."}'
AS_ANSWERS = 'Reply with JSON only: {"answers": ["...", "...", "..."]}'
AS_CHECKS = (
    'Reply with true or false, as JSON only: {"one_thing": true, "given": false, "specific": true, "duplicate": false}'
)

# Published study, on dev beside 0.308 of the plain form: slots 0.243 (exp015), unknowns 0.248 (exp018), reasons 0.303
# (exp022), givens 0.288 (exp025).
SCHEMAS = {
    "json": AS_JSON, "lines": AS_LINES, "slots": AS_SLOTS, "unknowns": AS_UNKNOWNS, "reasons": AS_REASONS,
    "givens": AS_GIVENS,
}  # fmt: skip
EXTRA = {"unknowns": "unknowns", "givens": "given"}  # schemas with a list before the questions, and its name
SLOTS = ("goal", "scope", "who", "budget", "time", "state", "limits")
ADVICE = {"coach": COACH, "contrast": CONTRAST, "antimodal": ANTIMODAL, **FRAMES}
FAULTS = ("vague", "two things", "given", "duplicate", "none")


# Every call by its name, with the paragraph that a pipeline may put into other words.
CALLS = {
    "ask": ASK, "next": NEXT, "title": TITLE, "brainstorm": BRAINSTORM, "select": SELECT, "from_unknowns": FROM_UNKNOWNS,
    "plan": PLAN, "assume": ASSUME, "critique": CRITIQUE, "revise": REVISE, "compare": COMPARE, "scenarios": SCENARIOS,
    "answer": ANSWER, "answers": ANSWERS, "check": CHECK, "repair": REPAIR, "adapt": ADAPT,
}  # fmt: skip


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
    # The form last, so that it stands nearest to the reply.
    turns = [system(ASK, *(ADVICE.get(a, a) for a in advice), SCHEMAS[schema])]
    for other, draft in demos:
        # An example asks for as many questions as it has: it must not contradict its own prompt.
        turns += [user(other, len(draft.questions)), {"role": "assistant", "content": write_set(draft, schema)}]
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
    return [system(NEXT, AS_QUESTION), user(task, asked_so_far=list(asked))]


def restate(task: str) -> list[Message]:
    """The title alone. Reply: `parse_text(text, "title")`."""
    return [system(TITLE, AS_TITLE), user(task)]


def brainstorm(task: str) -> list[Message]:
    """Names of unknowns. Reply: `parse_list(text, "unknowns")`."""
    return [system(BRAINSTORM, AS_LIST_UNKNOWNS), user(task)]


def select(task: str, pool: Sequence[str], n: int = 7) -> list[Message]:
    """Choose from a pool. Reply: `parse_keep(text, len(pool), n)`."""
    return [system(SELECT, AS_KEEP), user(task, n, pool=pool)]


def plan(task: str) -> list[Message]:
    """Steps of a plan. Reply: `parse_list(text, "steps")`."""
    return [system(PLAN, AS_STEPS), user(task)]


def assume(task: str, steps: Sequence[str]) -> list[Message]:
    """What a plan takes for granted. Reply: `parse_list(text, "assumptions")`."""
    return [system(ASSUME, AS_ASSUMPTIONS), user(task, plan=steps)]


def critique(task: str, draft: Sequence[str]) -> list[Message]:
    """The worst question of a draft. Reply: `parse_critique(text, len(draft))`."""
    return [system(CRITIQUE, AS_WORST), user(task, draft=draft)]


def compare(task: str, a: Sequence[str], b: Sequence[str]) -> list[Message]:
    """Two sets, one choice. Reply: `parse_better(text)`."""
    return [system(COMPARE, AS_BETTER), user(task, set_a=a, set_b=b)]


def scenarios(task: str) -> list[Message]:
    """Situations behind a task. Reply: `parse_list(text, "scenarios")`."""
    return [system(SCENARIOS, AS_SCENARIOS), user(task)]


def answer(task: str, situation: str, question: str) -> list[Message]:
    """The answer of a person in a situation. Reply: `parse_text(text, "answer")`."""
    return [system(ANSWER, AS_ANSWER), user(task, situation=situation, question=question)]


def answers(task: str, question: str) -> list[Message]:
    """Three possible answers. Reply: `parse_list(text, "answers")`."""
    return [system(ANSWERS, AS_ANSWERS), user(task, question=question)]


def check(task: str, question: str, others: Sequence[str]) -> list[Message]:
    """Four binary checks of a question. Reply: `parse_checks(text)`."""
    return [system(CHECK, AS_CHECKS), user(task, question=question, others=others)]


def repair(task: str, question: str, fault: str) -> list[Message]:
    """A question without its fault. Reply: `parse_text(text, "question")`."""
    return [system(REPAIR, AS_QUESTION), user(task, question=question, fault=fault)]


# --- reading replies -----------------------------------------------------------------------------


def _stripped(text: str) -> str:
    """A text that can be written as UTF-8: half an escaped emoji would break the run when it is sealed."""
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise ValueError("has half a character (a lone surrogate)")
    return text.strip()


Stripped = Annotated[str, AfterValidator(_stripped)]
TEXT = TypeAdapter(Stripped)
TEXTS: TypeAdapter[Any] = TypeAdapter(Annotated[list[Stripped], AfterValidator(tuple)])
ROWS = TypeAdapter(list[dict[Any, Any]])
NUMBER, NUMBERS, YES_OR_NO = TypeAdapter(int), TypeAdapter(list[int]), TypeAdapter(bool)


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
        if schema in EXTRA:
            body[EXTRA[schema]] = list(draft.extra)
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
    title = _field(body, "title", TEXT)
    if schema == "slots":
        return Draft(title, tuple(_field(body, slot, TEXT) for slot in SLOTS))
    if schema == "reasons":
        rows = _field(body, "questions", ROWS)
        questions = tuple(_field(row, "question", TEXT) for row in rows)
        return Draft(title, questions, tuple(_field(row, "why", TEXT) for row in rows))
    extra = _field(body, EXTRA[schema], TEXTS) if schema in EXTRA else ()
    return Draft(title, _field(body, "questions", TEXTS), extra)


def parse_first(text: str, n: int, schema: str = "json") -> Draft:
    """Title and the first n questions of a reply that may go on, or be cut off, after them. Raises BadReply.

    >>> parse_first('{"title": "Buy a boat", "questions": ["Which waters?", "How long?", "How lo', 2).questions
    ('Which waters?', 'How long?')
    """
    if schema == "lines":
        draft = _parse_lines("\n".join([line for line in text.split("\n") if line.strip()][: n + 1]))
        return Draft(draft.title, draft.questions[:n])
    title, questions = re.search(r'"title"\s*:\s*(?=")', text), re.search(r'"questions"\s*:\s*\[', text)
    if not title or not questions:
        raise BadReply('no "title" and "questions" in the reply')
    first: list[str] = []
    at = questions.end()
    while len(first) < n:
        question, at = _string(text, at)
        first.append(question)
    return Draft(_string(text, title.end())[0], tuple(first))


def _string(text: str, at: int) -> tuple[str, int]:
    """The JSON text that begins after spaces and a comma at `at`, and where it ends. Raises BadReply."""
    # `raw_decode` takes no spaces before a value, and the comma belongs to the list.
    begin = len(text) - len(text[at:].lstrip(" \t\r\n,"))
    try:
        value, end = json.JSONDecoder().raw_decode(text, begin)
        return _read(TEXT, value, "questions"), end
    except (ValueError, RecursionError):
        raise BadReply(f"the list ends after too few texts, before {clip(text[begin:])}") from None


# A question ends in its only mark and holds no full stop: one sentence. No quote or backslash, which JSON would escape.
PATTERNS = {"question": r'^[A-Z][^?.!:"\\]{8,110}\?$', "short": r'^[^"\\?]{3,80}$'}


def set_grammar(n: int = 7, schema: str = "json", questions: bool = False) -> str:
    """The JSON schema, as text, of a reply to `ask`: exactly n questions, keys in the order of the prompt.

    With `questions` each of them is one sentence ending in a question mark. Raises ValueError for lines.

    >>> set_grammar(2)[:60]
    '{"type": "object", "properties": {"title": {"type": "string"'
    """
    if schema == "lines":
        raise ValueError("the lines schema is no JSON, so no grammar fits it; take another schema or grammar off")
    short = {"type": "string", "pattern": PATTERNS["short"]}
    question = {"type": "string", "pattern": PATTERNS["question"]} if questions else {"type": "string"}
    parts: dict[str, object] = {"title": short}
    if schema == "slots":
        parts |= dict.fromkeys(SLOTS, question)
    elif schema == "reasons":
        parts["questions"] = _array(n, n, _object({"why": short, "question": question}))
    else:
        if schema == "unknowns":
            parts["unknowns"] = _array(n, n, short)
        elif schema == "givens":
            parts["given"] = _array(0, 4, short)
        parts["questions"] = _array(n, n, question)
    return json.dumps(_object(parts))


def _object(parts: dict[str, object]) -> dict[str, object]:
    return {"type": "object", "properties": parts, "required": list(parts), "additionalProperties": False}


def _array(least: int, most: int, of: object) -> dict[str, object]:
    return {"type": "array", "items": of, "minItems": least, "maxItems": most}


def _parse_lines(text: str) -> Draft:
    """A title on the first line and a question on each numbered one after it ("1." or "1)"). Raises BadReply."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    if not lines:
        raise BadReply("empty reply")
    questions = []
    for line in lines[1:]:
        match = re.fullmatch(r"\d{1,2}[.)]\s*(.+)", line)
        if not match:
            raise BadReply(f"line without a number: {clip(line)}")
        questions.append(_read(TEXT, match[1], "question"))
    return Draft(_read(TEXT, lines[0], "title"), tuple(questions))


def parse_json(text: str) -> dict:
    """The one JSON object that a reply consists of; a single code fence around it is allowed. Raises BadReply."""
    body = text.strip()
    fence = re.fullmatch(r"```(?:json)?\s*\n(.*)\n```", body, re.DOTALL)
    try:
        value = json.loads(fence[1] if fence else body)
    except (ValueError, RecursionError):
        if not body:
            raise BadReply("empty reply") from None
        # Where a parser stopped says nothing of a model's prose; what it wrote does.
        why = "cut off" if body[0] in "{[" and body[-1] not in "}]`" else "the reply is no JSON"
        raise BadReply(f"{why}: {clip(body)}") from None
    if not isinstance(value, dict):
        raise BadReply(f"JSON, but not an object: {clip(body)}")
    return value


def parse_text(text: str, key: str) -> str:
    """One text from a reply such as {"question": "..."}. Raises BadReply."""
    return _field(parse_json(text), key, TEXT)


def parse_list(text: str, key: str) -> tuple[str, ...]:
    """A list of texts from a reply such as {"unknowns": ["...", "..."]}. Raises BadReply."""
    return _field(parse_json(text), key, TEXTS)


def parse_keep(text: str, size: int, n: int) -> tuple[int, ...]:
    """Indices (from 0) of n different choices among `size`. Raises BadReply."""
    # Never filled up or cut to n here: whether a model can choose seven is part of what is measured.
    keep = _field(parse_json(text), "keep", NUMBERS)
    if not len(set(keep)) == len(keep) == n or not set(keep) <= {*range(1, size + 1)}:
        raise BadReply(f'"keep" should hold {n} different numbers from 1 to {size}, got {clip(str(keep))}')
    return tuple(i - 1 for i in keep)


def parse_critique(text: str, size: int) -> tuple[int, str] | None:
    """(index from 0, fault) of the worst question, or None where the model finds no fault. Raises BadReply."""
    body = parse_json(text)
    fault = _field(body, "fault", TEXT)
    if fault not in FAULTS:
        raise BadReply(f'"fault" is {clip(fault)}, not one of {", ".join(FAULTS)}')
    # Before the number is read: without a fault there is no worst question, whatever number stands there.
    if fault == "none":
        return None
    worst = _field(body, "worst", NUMBER)
    if not 1 <= worst <= size:
        raise BadReply(f'"worst" should be a number from 1 to {size}, got {clip(str(worst))}')
    return worst - 1, fault


def parse_better(text: str) -> str:
    """ "A", "B" or "tie". Raises BadReply."""
    better = parse_text(text, "better")
    if better not in ("A", "B", "tie"):
        raise BadReply(f'"better" is {clip(better)}, not A, B or tie')
    return better


def parse_checks(text: str) -> dict[str, bool]:
    """The four checks by name. Raises BadReply."""
    body = parse_json(text)
    return {name: _field(body, name, YES_OR_NO) for name in ("one_thing", "given", "specific", "duplicate")}


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


def _field(body: dict[str, object], key: str, kind: TypeAdapter[T]) -> T:
    """What a reply holds under a name. Raises BadReply."""
    if key not in body:
        raise BadReply(f'"{key}" is missing')
    return _read(kind, body[key], key)


def _read(kind: TypeAdapter[T], value: object, key: str) -> T:
    """A value of the kind that is expected under a name. Raises BadReply."""
    try:
        return kind.validate_python(value, strict=True)
    except ValidationError as error:
        raise fault_of(error, {}, BadReply, f'"{key}"') from None
