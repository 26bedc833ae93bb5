"""Worked examples, how to find the nearest, and the leak guard.

Knows clean question sets of the knowledge base, word overlap and vectors. Does not know gold answers: the guard is
handed the texts to stay away from, keeps them to compare, and never shows one to a prompt. Does not cover paraphrases
that share few words with the text they repeat: no cosine tells those from another question on the same thing.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from lib.agent.prompt import SLOTS, Draft
from lib.files import OneLine
from lib.measure.answer import normalised
from lib.models.embed import embedder
from lib.models.knowledge import Situation, families, fill, question_set, situation

EVERYDAY = frozenset(
    "a an the to for of in on at my our your me us with and or i we want need help plan make get set up please would "
    "like how from by into this that is are do it some new out before after about can you".split()
)
SAME_TASK = 0.6  # Jaccard of content words from which two task lines are the same task
SAME_QUESTION = 0.9  # Jaccard of all words from which two questions of five or more words are the same
# Jaccard of runs of four letters, for other endings and slips of the pen. Of 1,860 pairs of different questions on
# one thing none came above 0.46, of 1,860 pairs of one family's tasks on different things 1 in 1,000 above 0.75; but
# "How many hours a week can you ...?" begins many short questions, so their line stands as high. It stood at 0.65 until
# the guard named such a pair, a question of the bank and one of the gold.
SAME_LETTERS = 0.75
# Cosine from which a text repeats another in meaning, if they share words as well (SHARED, Jaccard of content words).
# The cosine alone is no line: on the same pairs MiniLM gave different questions up to 0.87 and 99 in 100 rewordings of
# one question under 0.78; above 0.9 stood 1 in 1,000 tasks on different things and 1 in 9 rewordings of one task.
SAME_MEANING, SHARED = 0.9, 0.3
NAMED = 5  # leaks that a refusal names before it stops looking


class Leak(OneLine):
    """A text of the ruler stands where a model could see it; the message names both."""


@dataclass(frozen=True)
class Example:
    """A task with a good question set, and what the schemas ask for beside it."""

    task: str
    draft: Draft
    source: str  # the family that it comes from
    unknowns: tuple[str, ...] = ()  # what each question asks about, a few words
    reasons: tuple[str, ...] = ()  # why the plan depends on it
    given: tuple[str, ...] = ()  # what the task line already says
    slots: tuple[str, ...] = ()  # a question for each of prompt.SLOTS

    def shown(self, schema: str) -> Draft:
        """The question set as the reply in a schema. Raises ValueError where the example has not what it needs."""
        questions = self.slots if schema == "slots" else self.draft.questions
        extra = {"unknowns": self.unknowns, "reasons": self.reasons, "givens": self.given}.get(schema, ())
        if len(questions) != len(self.draft.questions) or schema in ("unknowns", "reasons") and not extra:
            raise ValueError(f"example {self.task!r} cannot be shown in the schema {schema}")
        return Draft(self.draft.title, questions, extra)

    @property
    def texts(self) -> tuple[str, ...]:
        """Every text of it that a model may see."""
        return (self.task, self.draft.title, *self.draft.questions, *self.unknowns, *self.reasons, *self.slots)


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
            items = question_set(s, 7, "clean", rng)
            made.append(
                Example(
                    s.task,
                    Draft(s.title, tuple(i.text for i in items)),
                    family.family,
                    unknowns=tuple(i.unknown.name for i in items),
                    reasons=tuple(i.unknown.why for i in items),
                    given=s.stated,
                    slots=_slots(s),
                )
            )
    return tuple(made)


def _slots(s: Situation) -> tuple[str, ...]:
    """A question for each slot: the first open unknown of that kind, or the first at all."""
    unknowns = [*s.open_unknowns(), *s.family.unknowns]
    return tuple(fill(next(u for u in unknowns if u.kind == slot).ask[0], s.thing) for slot in SLOTS)


def nearest(task: str, examples: Sequence[Example], k: int, by: str = "words") -> list[Example]:
    """The k examples nearest to a task, leaving out those that are the same task (by words, not by id).

    By words: shared words, rare ones counting more. By "tfidf", "minilm" or "best": cosine of that embedder's vectors.
    Ties go to the earlier example, so the choice repeats exactly.
    """
    mine = content(task)
    if by == "words":
        often = Counter(w for e in examples for w in content(e.task))
        close = [sum(1 / often[w] for w in content(e.task) & mine) for e in examples]
    else:
        tool = embedder(by)
        # Rounded: the last digits of a matrix product differ between machines and must not decide a tie.
        cosines = _vectors(tool.name, tuple(e.task for e in examples)) @ tool.vectors([task])[0]
        close = [round(float(c), 5) for c in cosines]
    others = [i for i, e in enumerate(examples) if overlap(content(e.task), mine) < SAME_TASK]
    return [examples[i] for i in sorted(others, key=lambda i: (-close[i], i))[:k]]


@lru_cache(maxsize=4)
def _vectors(name: str, texts: tuple[str, ...]) -> Any:
    return embedder(name).vectors(texts)


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
        self._content = [(t, content(t)) for t in [*tasks, *questions]]
        self._exact = {normalised(t): t for t, _ in self._content}
        # A short stock question may stand inside a longer one by chance; a task of four words hardly does.
        long = [t for t in tasks if len(t.split()) >= 4] + [q for q in questions if len(q.split()) >= 8]
        self._whole = [(f" {normalised(t)} ", t) for t in long]
        # Behind other words every gold question counts: a lead-in changes nothing, and of 19,000 texts of the knowledge
        # base none holds one there. At the start a short one may go on honestly: "How much do you still owe on the loan?"
        self._behind = [(f" {normalised(q)} ", q) for q in questions if 5 <= len(normalised(q).split())]
        # In a prompt that a person typed, three words of a task in a row are enough, and a gold question at the start;
        # in a corpus they are chance.
        self._typed = self._whole + self._behind + [(f" {normalised(t)} ", t) for t in tasks if len(t.split()) == 3]
        self._tasks = _Index((t, content(t)) for t in tasks)
        self._questions = _Index((q, frozenset(normalised(q).split())) for q in questions)
        self._letters = _Index((t, letters(t)) for t, _ in self._content)

    def find(self, text: str) -> str | None:
        """The text of the ruler that `text` repeats in its words or letters, or None."""
        flat = normalised(text)
        if flat in self._exact:
            return self._exact[flat]
        words = frozenset(flat.split())
        return (
            self._tasks.near(words - EVERYDAY, SAME_TASK, 2)
            or self._questions.near(words, SAME_QUESTION, 5)
            or self._letters.near(letters(flat), SAME_LETTERS, 12)
        )

    def find_meaning(self, text: str) -> str | None:
        """The text of the ruler that comes nearest to `text` in meaning, where it is near enough and shares words."""
        mine = content(text)
        # Only what shares words can be refused, so only that is turned into vectors.
        near = [t for t, words in self._content if overlap(mine, words) >= SHARED] if len(text.split()) >= 4 else []
        if not near:
            return None
        here, *there = embedder().vectors([text, *near])
        cosine, found = max((float(v @ here), t) for v, t in zip(there, near, strict=True))
        return found if cosine >= SAME_MEANING else None

    def leaks(self, texts: Iterable[str], meaning: bool = False, typed: bool = False) -> Iterator[tuple[str, str]]:
        """(part, text of the ruler that it repeats). Free text is also read sentence by sentence.

        `typed` texts were written by somebody and not built from the knowledge base. `meaning` looks at vectors as well
        where words are shared: for prompts, which are typed too, not for a whole corpus.
        """
        for text in texts:
            flat = f" {normalised(text)} "
            inside = self._inside(flat, typed or meaning)
            for part in (text, *_sentences(text)):
                found = inside or self.find(part) or (self.find_meaning(part) if meaning else None)
                if found is not None:
                    yield part.strip(), found
                    break

    def _inside(self, flat: str, typed: bool) -> str | None:
        """A text of the ruler that stands whole among other words."""
        if typed:
            return next((whole for start, whole in self._typed if start in flat), None)
        long = next((whole for start, whole in self._whole if start in flat), None)
        return long or next((whole for start, whole in self._behind if flat.find(start) > 0), None)

    def check(self, texts: Iterable[str], where: str, meaning: bool = False, typed: bool = False) -> None:
        """Raise Leak naming the texts (the first five) that repeat the ruler."""
        found: dict[tuple[str, str], None] = {}  # each once, in the order of the texts
        for leak in self.leaks(texts, meaning, typed):
            found[leak] = None
            if len(found) == NAMED:
                break
        if found:
            named = "; ".join(f"{part!r} repeats {text!r} of the ruler" for part, text in found)
            raise Leak(f"{where}: {named}; take {'it' if len(found) == 1 else 'them'} out")


def letters(text: str) -> frozenset[str]:
    """Every run of four letters of a text, over the ends of words too."""
    flat = normalised(text)
    return frozenset(flat[i : i + 4] for i in range(len(flat) - 3))


def _sentences(text: str) -> list[str]:
    import re

    parts = [p.strip(" \"'") for p in re.split(r"(?<=[.?!])\s+|[\n:;()`\"“”‘’–—]|\s['-]|['-]\s", text)]
    return [p for p in parts if p and p != text]
