"""The leak guard: no text of the ruler where a model could see it; and how much two texts share in words.

Knows word overlap, letters and vectors. Does not know gold answers: the guard is handed the texts to stay away from,
keeps them to compare, and never shows one to a prompt. Does not cover paraphrases that share few words with the text
they repeat: no cosine tells those from another question on the same thing.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Iterator

from lib.files import Exit, OneLine
from lib.measure.answer import normalised
from lib.models.embed import embedder

EVERYDAY = frozenset(
    "a an the to for of in on at my our your me us with and or i we want need help plan make get set up please would "
    "like how from by into this that is are do it some new out before after about can you".split()
)
SAME_TASK = 0.6  # Jaccard of content words from which two task lines are the same task
# Jaccard of all words from which two questions of five or more words are the same.
SAME_QUESTION = 0.9
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
# Text that gives orders to whoever reads it next, or poses as a tag of theirs: a judge, another proposer, a person.
ORDERS = re.compile(
    r"(?i)\b(ignore|disregard|forget|override)\b.{0,40}\b(instruction|prompt|rule|above|previous)|system prompt|"
    r"</?[a-z]+-[0-9a-f]{4,}>|<\|"
)
# A prompt of the planner has no business with the judge: it would reach it through the questions.
JUDGED = re.compile(
    r"(?i)\b(judge|grader|rubric|gold answer|reference answer|set [ab]\b|score of|scores? (all|5|five)|evaluators?\b|"
    r"assessors?\b|examiners?\b|full marks)"
)
# Words that a model may read and a filter does not: letters of two alphabets in one, letters that stand alone, words
# without an end (base64, no spaces), characters by their numbers.
SPELT = re.compile(
    r"(?i)[a-z][\u0370-\u052f]|[\u0370-\u052f][a-z]|(?:\b[^\W\d_]\b[\W_]{1,3}){6,}|[\w+/=]{25,}|(?:(?:&#|\\|%)\w+;?){3,}"
)
DIGITS = str.maketrans("013457", "oleast")  # that stand for letters


class Leak(OneLine):
    """A text of the ruler stands where a model could see it; the message names both, `where` only the place."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.where = where

    exit = Exit.USAGE


def content(text: str) -> frozenset[str]:
    """The words of a text that carry its topic.

    >>> sorted(content("Plan a trip to Paris"))
    ['paris', 'trip']
    """
    return words(text) - EVERYDAY


def words(text: str) -> frozenset[str]:
    """All words of a text."""
    return frozenset(normalised(text).split())


def _spaced(texts: Iterable[str]) -> list[tuple[str, str]]:
    """Texts with their words between spaces, so that none is found in the middle of a word; and as they are."""
    return [(f" {normalised(text)} ", text) for text in texts]


def overlap(a: frozenset[str], b: frozenset[str]) -> float:
    """Jaccard similarity of two word sets, 0 to 1."""
    return len(a & b) / len(a | b) if a | b else 0.0


class _Index:
    """Texts by their words, so that a look-up touches only those that share one."""

    def __init__(self, texts: Iterable[str], words: Callable[[str], frozenset[str]]) -> None:
        """`words` gives the set of words by which a text is found."""
        self.texts = [(text, words(text)) for text in texts]
        self.by_word: dict[str, list[int]] = {}
        for i, (_, own) in enumerate(self.texts):
            for word in own:
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
        """`tasks` and `questions` are the ruler's; what each way of looking needs of them is worked out here, once."""
        tasks, questions = list(tasks), list(questions)
        both = [*tasks, *questions]
        self._content = _Index(both, content).texts
        self._exact = dict(zip(map(normalised, both), both, strict=True))
        # A short stock question may stand inside a longer one by chance; a task of four words hardly does.
        self._whole = _spaced([t for t in tasks if len(t.split()) >= 4] + [q for q in questions if len(q.split()) >= 8])
        # Behind other words every gold question counts: a lead-in changes nothing. At the start a short one may go on
        # honestly: "How much do you still owe on the loan?"
        self._behind = _spaced([q for q in questions if len(normalised(q).split()) >= 5])
        # In a prompt that a person typed, three words of a task in a row are enough, and a gold question at the start;
        # among thousands of sets they are chance.
        self._typed = self._whole + self._behind + _spaced([t for t in tasks if len(t.split()) == 3])
        self._tasks = _Index(tasks, content)
        self._questions = _Index(questions, words)
        self._letters = _Index(both, letters)

    def find(self, text: str) -> str | None:
        """The text of the ruler that `text` repeats in its words or letters, or None."""
        flat = normalised(text)
        if flat in self._exact:
            return self._exact[flat]
        own = frozenset(flat.split())
        return (
            self._tasks.near(own - EVERYDAY, SAME_TASK, 2)
            or self._questions.near(own, SAME_QUESTION, 5)
            or self._letters.near(letters(flat), SAME_LETTERS, 12)
        )

    def find_meaning(self, text: str) -> str | None:
        """The text of the ruler that comes nearest to `text` in meaning, where it is near enough and shares words."""
        own = content(text)
        # Only what shares words can be refused, so only that is turned into vectors.
        near = [other for other, its in self._content if overlap(own, its) >= SHARED]
        if not near or len(text.split()) < 4:
            return None
        here, *there = embedder().vectors([text, *near])
        cosine, repeated = max((float(v @ here), t) for v, t in zip(there, near, strict=True))
        return repeated if cosine >= SAME_MEANING else None

    def leaks(self, texts: Iterable[str], meaning: bool = False, typed: bool = False) -> Iterator[tuple[str, str]]:
        """(part, text of the ruler that it repeats). Free text is also read sentence by sentence.

        `typed` texts are few and of unknown origin, so chance is no excuse. `meaning` looks at vectors as well where
        words are shared: for prompts, which are typed too, not for a whole corpus.
        """
        by_hand = typed or meaning
        for text in texts:
            for spelled in _spellings(text) if by_hand else (text,):
                inside = self._inside(f" {normalised(spelled)} ", by_hand)
                # A spelling that no sentence has is looked at by its words alone.
                near = meaning and spelled is text
                parts = (spelled, *_sentences(spelled))
                found = ((p, inside or self.find(p) or (self.find_meaning(p) if near else None)) for p in parts)
                leak = next(((part.strip(), repeated) for part, repeated in found if repeated is not None), None)
                if leak:
                    yield leak
                    break

    def _inside(self, flat: str, typed: bool) -> str | None:
        """A text of the ruler that stands whole among other words."""
        for start, whole in self._typed if typed else self._whole:
            if start in flat:
                return whole
        for start, whole in () if typed else self._behind:
            if flat.find(start) > 0:
                return whole
        return None

    def check(self, texts: Iterable[str], where: str, meaning: bool = False, typed: bool = False) -> None:
        """Raise Leak naming the texts (the first five) that repeat the ruler."""
        repeated: dict[tuple[str, str], None] = {}  # each once, in the order of the texts
        for leak in self.leaks(texts, meaning, typed):
            repeated[leak] = None
            if len(repeated) == NAMED:
                break
        if repeated:
            named = "; ".join(f"{part!r} repeats {text!r} of the ruler" for part, text in repeated)
            raise Leak(where, f"{named}; take {'it' if len(repeated) == 1 else 'them'} out")


def letters(text: str, n: int = 4) -> frozenset[str]:
    """Every run of n letters of a text, over the ends of words too."""
    flat = normalised(text)
    return frozenset(flat[i : i + n] for i in range(len(flat) - n + 1))


def _spellings(text: str) -> Iterator[str]:
    """A text as it stands, and what it says where somebody wrote it so that no filter reads it."""
    yield text
    yield text.translate(DIGITS)
    yield text[::-1]
    yield codecs.encode(text, "rot13")


def _sentences(text: str) -> list[str]:
    parts = [p.strip(" \"'") for p in re.split(r"(?<=[.?!])\s+|[\n:;()`\"“”‘’–—]|\s['-]|['-]\s", text)]
    return [p for p in parts if p and p != text]
