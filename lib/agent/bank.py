"""Worked examples, how to find the nearest, and the leak guard.

Knows clean question sets of the knowledge base and word overlap. Does not know gold answers: the guard is handed the
texts to stay away from, keeps them to compare, and never shows one to a prompt. Does not cover paraphrases that share
few words with the text they repeat.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from lib.agent.prompt import Draft
from lib.files import OneLine
from lib.measure.answer import normalised
from lib.models.knowledge import families, question_set, situation

EVERYDAY = frozenset(
    "a an the to for of in on at my our your me us with and or i we want need help plan make get set up please would "
    "like how from by into this that is are do it some new out before after about can you".split()
)
SAME_TASK = 0.6  # Jaccard of content words from which two task lines are the same task
SAME_QUESTION = 0.9  # Jaccard of all words from which two questions of five or more words are the same


class Leak(OneLine):
    """A text of the ruler stands where a model could see it; the message names both."""


@dataclass(frozen=True)
class Example:
    """A task with a good question set."""

    task: str
    draft: Draft
    source: str  # the family that it comes from


def content(text: str) -> frozenset[str]:
    """The words of a text that carry its topic.

    >>> sorted(content("Plan a trip to Paris"))
    ['paris', 'trip']
    """
    return frozenset(w for w in normalised(text).split() if w not in EVERYDAY)


def overlap(a: frozenset[str], b: frozenset[str]) -> float:
    """Jaccard similarity of two word sets, 0 to 1."""
    return len(a & b) / len(a | b) if a | b else 0.0


@lru_cache(maxsize=4)
def bank(each: int = 4, seed: int = 20) -> tuple[Example, ...]:
    """Clean question sets of the training families, `each` of them per family. Same arguments, same bank."""
    rng = random.Random(seed)
    made = []
    for family in families():
        for _ in range(each):
            s = situation(family, rng, invent=0.0)
            questions = tuple(item.text for item in question_set(s, 7, "clean", rng))
            made.append(Example(s.task, Draft(s.title, questions), family.family))
    return tuple(made)


def nearest(task: str, examples: Sequence[Example], k: int) -> list[Example]:
    """The k examples whose tasks share most words with a task, leaving out those that are the same task.

    Rare words count more than frequent ones. Ties go to the earlier example, so the choice repeats exactly.
    """
    mine = content(task)
    often = Counter(w for e in examples for w in content(e.task))
    others = [e for e in examples if overlap(content(e.task), mine) < SAME_TASK]

    def closeness(e: Example) -> float:
        return sum(1 / often[w] for w in content(e.task) & mine)

    ranked = sorted(range(len(others)), key=lambda i: (-closeness(others[i]), i))
    return [others[i] for i in ranked[:k]]


class _Index:
    """Texts by their words, so that a look-up touches only those that share one."""

    def __init__(self, texts: Iterable[tuple[str, frozenset[str]]]) -> None:
        self.texts = list(texts)
        self.by_word: dict[str, list[int]] = {}
        for i, (_, words) in enumerate(self.texts):
            for word in words:
                self.by_word.setdefault(word, []).append(i)

    def near(self, words: frozenset[str], jaccard: float, least: int) -> str | None:
        """The first text whose words overlap by at least `jaccard`; short texts (under `least` words) never match."""
        if len(words) < least:
            return None
        # Two texts that overlap this much must share one of their rarest words (prefix filtering).
        rare = sorted(words, key=lambda w: len(self.by_word.get(w, ())))[: int((1 - jaccard) * len(words) + 1e-9) + 1]
        for i in sorted({i for w in rare for i in self.by_word.get(w, ())}):
            text, its = self.texts[i]
            if len(its) >= least and overlap(words, its) >= jaccard:
                return text
        return None


class LeakGuard:
    """Refuses texts that repeat a task or a gold question of the ruler: word for word, normalised, or nearly."""

    def __init__(self, tasks: Iterable[str], questions: Iterable[str] = ()) -> None:
        tasks, questions = list(tasks), list(questions)
        self._exact = {normalised(t): t for t in [*tasks, *questions]}
        # A short stock question may stand inside a longer one by chance; a task of four words hardly does.
        long = [t for t in tasks if len(t.split()) >= 4] + [q for q in questions if len(q.split()) >= 8]
        self._whole = [(f" {normalised(t)} ", t) for t in long]
        self._tasks = _Index((t, content(t)) for t in tasks)
        self._questions = _Index((q, frozenset(normalised(q).split())) for q in questions)

    def find(self, text: str) -> str | None:
        """The text of the ruler that `text` repeats, or None."""
        flat = normalised(text)
        if flat in self._exact:
            return self._exact[flat]
        words = frozenset(flat.split())
        return self._tasks.near(words - EVERYDAY, SAME_TASK, 2) or self._questions.near(words, SAME_QUESTION, 5)

    def check(self, texts: Iterable[str], where: str) -> None:
        """Raise Leak naming the first text that repeats the ruler. Free text is also checked sentence by sentence."""
        for text in texts:
            flat = f" {normalised(text)} "
            inside = next((whole for start, whole in self._whole if start in flat), None)
            for part in (text, *_sentences(text)):
                found = inside or self.find(part)
                if found is not None:
                    raise Leak(f"{where}: {part.strip()!r} repeats {found!r} of the ruler; take it out")


def _sentences(text: str) -> list[str]:
    import re

    parts = [p.strip(" \"'") for p in re.split(r"(?<=[.?!])\s+|[\n:;()`\"“”‘’–—]|\s['-]|['-]\s", text)]
    return [p for p in parts if p and p != text]
