"""An answer that can be judged, or the reason why there is none.

Knows the spec gate: exactly seven questions, a title that says something, nothing twice. Does not know how the text
was made, nor whether it is any good. NoAnswer is the model's failure and scores 0.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

LONGEST = 300  # characters of one question or title; nobody asks a question this long
# By blocks and single signs: Unicode's own property Emoji also holds the digits.
EMOJI = re.compile(
    "[\U0001f000-\U0001faff\u231a\u231b\u23e9-\u23f3\u25fd\u25fe\u2b1b\u2b1c\u3297\u3299\u2600-\u27bf\u2b50\u2b55\ufe0f\U000e0020-\U000e007f]"
)
GENERIC = (*"title task plan untitled discovery questions planner".split(), "clarifying questions", "your task")


@dataclass(frozen=True)
class Answer:
    """A restated title and clarifying questions."""

    title: str
    questions: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "questions", tuple(self.questions))

    @property
    def text(self) -> str:
        """Title and questions, a line each: what a judge reads and what the store hashes."""
        return "\n".join([self.title, *self.questions])


@dataclass(frozen=True)
class NoAnswer:
    """No answer, and why. Scores 0 on its case."""

    reason: str


def normalised(text: str) -> str:
    """Lower case words and digits of a text, one space apart.

    >>> normalised("Who's  coming?")
    'who s coming'
    >>> normalised("Wh" + chr(0x200B) + "o pays?")
    'who pays'
    """
    text = unicodedata.normalize("NFKC", text)
    # Signs that nobody sees, and accents on a letter that has none, part no word.
    if not text.isascii():
        text = "".join(c for c in text if unicodedata.category(c) not in ("Cf", "Mn", "Me"))
    return " ".join(re.findall(r"[^\W_]+", text.casefold()))


def spec_gate(title: str, questions: Sequence[str], n: int = 7, generic: Sequence[str] = GENERIC) -> Answer | NoAnswer:
    """The answer, if it keeps the form that the product needs; otherwise NoAnswer with the first thing wrong.

    >>> spec_gate("Buy a boat", ["Why?"] * 7)
    NoAnswer(reason='questions 1 and 2 are the same')
    """
    reason = _fault(title, questions, n, generic)
    if reason:
        return NoAnswer(reason)
    return Answer(title.strip(), tuple(map(str.strip, questions)))


def _fault(title: str, questions: Sequence[str], n: int, generic: Sequence[str]) -> str:
    """Why a title and questions are no answer, "" where they are one."""
    if not normalised(title):
        return "title is empty"
    if normalised(title) in map(normalised, generic):
        return f"title {title.strip()!r} is a generic label"
    if len(questions) != n:
        return f"{len(questions)} questions instead of {n}"
    for i, text in enumerate([title, *questions]):
        name = f"question {i}" if i else "title"
        if len(text) > LONGEST:
            return f"{name} has {len(text)} characters, at most {LONGEST} are allowed"
        # Control, half of a character, private, unassigned: nothing that a product could show.
        if not {"Cc", "Cs", "Co", "Cn"}.isdisjoint(map(unicodedata.category, text.strip())):
            return f"{name} has control or invalid characters"
        if EMOJI.search(text):
            return f"{name} has an emoji"
    for i, question in enumerate(questions, 1):
        if not normalised(question):
            return f"question {i} is empty"
        # Of Chinese and Japanese, Arabic and Greek writing too.
        if not question.strip().endswith(("?", "？", "؟", "\u037e")):
            return f"question {i} is not a question"
    # Capitals and punctuation aside: else a comma would make two questions of one.
    first: dict[str, int] = {}
    for i, question in enumerate(questions, 1):
        if first.setdefault(normalised(question), i) != i:
            return f"questions {first[normalised(question)]} and {i} are the same"
    return ""
