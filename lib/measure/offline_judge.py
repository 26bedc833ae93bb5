"""A judge without network or key: sentence vectors say what asks the same, and faults that can be counted cost points.

Every dimension starts from its best and loses points for amounts of fault; a fault never raises a score. What a fault
costs was fitted (`scripts/fit_offline_judge.py`) to verdicts that Claude gave on 27 tasks of this ruler by reading the
frozen prompts blind; how far it agrees with Claude on 13 tasks that shaped nothing stands in manual.md. It agrees with
Claude, not with people: gold, unknowns and verdicts are all Claude's.

Knows gold, the unknowns of a case where the ruler has them, and the form of English questions. Does not know the world:
a question that is on the topic and makes no sense looks like one that does. Does not know where vectors come from: they
are handed in, so that the measure imports nothing of what it measures.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from lib.files import canonical, sha256
from lib.log import Row
from lib.measure.answer import Answer
from lib.measure.judge import DIMENSIONS, Judgment, Verdict
from lib.measure.ruler import Case, Unknown

if TYPE_CHECKING:
    import numpy as np

VERSION = 4
CONSTANTS = Path(__file__).with_name("offline_judge.json")  # written by scripts/fit_offline_judge.py
Vectors = Callable[[Sequence[str]], "np.ndarray"]  # texts -> one row of length 1 each
Rows = Mapping[str, "np.ndarray"]  # text -> its row
Faults = tuple[dict[str, float], dict[str, str]]  # amounts by fault, and what they were found in

# The gate allows 300, but a judge may be handed a text that never passed it.
LONG = 2000  # characters read of a question
WH = frozenset("what which who whom whose when where why how".split())
VERBS = frozenset(
    "am is are was were do does did have has had will would can could should shall may might must".split()
)
FRONT = frozenset("in on at for from with by to until since about roughly of under".split())
VAGUE = frozenset("it something anything thing things stuff this that these those somewhere somehow".split())
# A planner who says "my" asks somebody else about the person.
SELF = frozenset("i me my we our us".split())
PLAIN = (
    WH
    | VERBS
    | FRONT
    | VAGUE
    | frozenset("a an the you your for of to do have want need like get much many often long".split())
)
JOINED = re.compile(r"\b(?:and|or)\b|[,;:?]", re.I)
LEAST_ASK = 3  # words: what is shorter, as ", and why?", asks nothing of its own
MOST_ASKS = 3  # parts of a question that are read
# Markup, JSON or an order to whoever grades: nobody who is asked about a task could answer that.
TALK = re.compile(
    r"</?\w[^>]*>|[{}]|\b(ignore|disregard|forget)\b.*\b(rubric|set|instructions?|above|other)\b|\bgive \d to\b", re.I
)
WORD = re.compile(r"[\w']+")
# What a person would put into a search engine, in meaning: such a question asks for the plan and not for the person.
SEARCHED = (
    "What is the best way to do this?", "How do I do this?", "What are the steps for this?", "What is it?",
    "Can you give me some tips on this?", "Where can I find more information about this?", "Is it safe to do this?",
)  # fmt: skip
ASKED = (
    "How much time do you have for it?", "Have you done it before?", "Who will be with you?", "Where do you live?",
    "Which of them do you already own?", "When does it have to be ready?", "How much can you spend on it?",
)  # fmt: skip
# Cosines between which a question goes from "asks something else" to "asks this", and from apart to the same.
# Lines like these were set by hand; prices, levels and cuts are fitted (scripts/fit_offline_judge.py).
MEETS, SAME = (0.4, 0.75), (0.6, 0.9)
# The share of gold's questions that makes a set gold's, and the points of its mean score that such a set may lose.
GOLD, TIES = 0.95, 0.06
OFF = 0.45  # cosine to the nearest unknown below which a question is about something else
COPIED = (0.8, 0.98)  # from "another question" to "a question of gold's", in whatever words
FAULTS = {
    "joined": "several asks in one question", "listed": "lists in a question", "preface": "words before the question", "long": "long questions", "short": "questions of fewer than five words", "vague": "questions that name nothing",
    "unformed": "no question by its first word", "pasted": "words of the task pasted in", "searched": "asked of a search engine",
    "missing": "unknowns not asked for", "uncritical": "the decisive unknown not asked for", "far": "far from anything that the plan depends on",
    "off": "questions that the plan does not depend on", "pairs": "questions that ask the same", "nearest": "two questions nearly the same",
    "crowd": "questions close together", "openings": "the same openings",
}  # fmt: skip


@dataclass(frozen=True)
class Amounts:
    """How much of each fault a set has, 0 for none, and what the judge can name."""

    of: dict[str, float]
    copied: float  # share of questions that are gold's, in its words or others
    void: float  # share of questions that ask the person nothing
    notes: dict[str, str]  # fault -> what it was found in
    asked: int = 7  # questions


def read(answer: Answer) -> list[str]:
    """The questions of an answer as far as they are read; one that asks nothing where there is none."""
    return [q[:LONG] for q in answer.questions] or ["?"]


def form_of(question: str) -> str:
    """How a question is put together, "" for one plain ask.

    >>> form_of("Who is coming, and what do they eat?"), form_of("Is it for you, your family or friends?")
    ('joined', 'listed')
    >>> form_of("Thinking of your evenings, when are you free?"), form_of("When are you free?")
    ('preface', '')
    """
    pieces = [WORD.findall(p.lower()) for p in JOINED.split(question.rstrip(" ?"))]
    asks = list(map(headed, filter(None, pieces)))
    if len(asks) < 2:
        return ""
    if sum(asks) > 1:
        return "joined"
    # Where the only ask stands first, things to choose from follow it; where it stands later, words lead up to it.
    if asks[0] or not any(asks):
        return "listed"
    return "preface"


def headed(words: Sequence[str]) -> bool:
    """Whether words begin as a question does, as "in which" also does."""
    return words[0] in WH | VERBS or (words[0] in FRONT and len(words) > 1 and words[1] in WH)


def parts(question: str) -> tuple[str, ...]:
    """The asks of a question that joins several, each by itself; () where it is one ask.

    >>> parts("Who is coming, and what do they eat?")
    ('Who is coming?', 'what do they eat?')
    >>> parts("How much can you spend, and why?")
    ()
    """
    asks = []
    for piece in JOINED.split(question.rstrip(" ?")):
        if len(WORD.findall(piece)) >= LEAST_ASK:
            asks.append(f"{piece.strip()}?")
    if len(asks) < 2:
        return ()
    # Cut off: else a question with ten commas in it would cover ten unknowns.
    return tuple(asks[:MOST_ASKS])


def ramp(values: Any, between: tuple[float, float]) -> Any:
    """0 below, 1 above, straight in between."""
    import numpy as np

    return np.clip((values - between[0]) / (between[1] - between[0]), 0, 1)


def texts_of(answer: Answer) -> list[str]:
    """Every text of an answer whose vector is needed: its questions and what they join."""
    asked = read(answer)
    return list(dict.fromkeys([*asked, *chain.from_iterable(map(parts, asked))]))


def amounts(case: Case, answer: Answer, vectors: Vectors, rows: Rows | None = None) -> Amounts:
    """The faults of an answer to a case; `rows` holds a vector for each of `texts_of(answer)` where they are known.
    Raises ValueError without gold."""
    gold = fixed(case.reference.questions, vectors)
    if rows is None:
        texts = texts_of(answer)
        rows = dict(zip(texts, vectors(texts), strict=True))
    import numpy as np

    asked = read(answer)
    words = [WORD.findall(q.lower().replace("’", "'")) for q in asked]
    here = np.stack([rows[q] for q in asked])
    asks = []
    for question in asked:
        asks.append(np.stack([rows[text] for text in (question, *parts(question))]))
    of, notes = _of_words(case.task, asked, words)
    for more, about in (_of_reach(case, here, asks, vectors), _of_repetition(here), _of_stance(asked, here, vectors)):
        for fault, amount in more.items():
            # Rounded: the last digits of a matrix product differ between machines, and scores must not.
            of[fault] = round(amount, 6)
            if about.get(fault):
                notes[fault] = about[fault]
    # A tail behind a question makes no other question of it, so its first part counts as well as the whole.
    copied = float(np.mean([ramp((ask[:2] @ gold.T).max(), COPIED) for ask in asks]))
    void = sum(map(_void, asked, words))
    return Amounts(of, copied, void / len(asked), notes, len(asked))


def _void(question: str, words: Sequence[str]) -> bool:
    """Whether a text asks a person nothing."""
    return not words or not question.rstrip().endswith("?") or bool(TALK.search(question))


def _of_words(task: str, asked: Sequence[str], words: Sequence[list[str]]) -> Faults:
    """Faults that the words alone show."""
    of_task = set(WORD.findall(task.lower()))
    marks = list(map(_marks, asked, words))
    n = len(asked)
    of, notes = {}, {}
    for fault in marks[0]:
        row = [own[fault] for own in marks]
        of[fault] = sum(row) / n
        if any(row):
            notes[fault] = _numbers(row)
    of["long"] = sum(max(0, len(w) - 14) for w in words) / (10 * n)
    of["pasted"] = sum(sum(map(of_task.__contains__, w)) / max(1, len(w)) for w in words) / n
    of["openings"] = 1 - len({tuple(w[:2]) for w in words}) / n
    return of, notes


def _marks(question: str, words: Sequence[str]) -> dict[str, bool]:
    """Which faults one question has that are there or not."""
    form, distinct = form_of(question), set(words)
    return {
        "joined": form == "joined",
        "listed": form == "listed",
        "preface": form == "preface",
        "unformed": not words or words[0] not in WH | VERBS | FRONT,
        "short": len(words) < 5,
        # "What about it?" names nothing; "What is that bolt made of?" names a bolt and what it is made of.
        "vague": bool(VAGUE & distinct) and len(distinct - PLAIN) < 3,
    }


def _of_reach(case: Case, here: Any, asks: Sequence[Any], vectors: Vectors) -> Faults:
    """How much of what a plan depends on is asked for. `here` is (questions, width), `asks` by question
    (1 + parts, width), the whole of it first."""
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    unknowns = unknowns_of(case)
    weight = np.array([u.weight for u in unknowns], dtype=float)
    nearest, slots = [], []
    for i, ask in enumerate(asks):
        way = closeness(ask, unknowns, vectors)  # (1 + parts, unknowns)
        nearest.append(way.max(0))
        # One question answers for one unknown, and what it joins for one more each, unless that was asked before:
        # else the same question twice would cover two things.
        if not repeats(here, i):
            slots.append(nearest[i])
        # The whole and its first part are one ask: what is joined to it begins at the third row.
        slots += [way[k] for k in range(2, len(ask)) if not repeats(ask[1:], k - 1)]
    near = np.stack(nearest)  # (questions, unknowns)
    # All at once: greedily, the first question would take the unknown that a later one alone can meet.
    taken, columns = linear_sum_assignment(-np.stack(slots))
    met = np.zeros(len(unknowns))
    met[columns] = ramp(np.stack(slots)[taken, columns], MEETS)
    # Nobody can ask for ten things in seven questions: the heaviest that gold's number allows are all that can be had.
    reach = np.sort(weight)[::-1][: len(case.reference.questions)].sum()
    best = near.max(1)
    critical = max(range(len(unknowns)), key=lambda i: (unknowns[i].critical, weight[i]))
    of = {
        "missing": 1 - min(1.0, float((met * weight).sum() / reach)),
        "uncritical": 1 - float(ramp(near[:, critical].max(), MEETS)),
        "far": 1 - float(ramp(best, (0.3, 0.7)).mean()),
        "off": float((best < OFF).mean()),
    }
    unmet = sorted(np.flatnonzero(met < 0.5), key=lambda i: -weight[i])[:3]
    notes = {"missing": ", ".join(unknowns[i].name for i in unmet), "uncritical": unknowns[critical].name}
    return of, notes | {"off": _numbers(best < OFF)}


def _of_repetition(here: Any) -> Faults:
    """How far the questions, (questions, width), say the same."""
    import numpy as np

    same = here @ here.T
    np.fill_diagonal(same, 0)  # every question is nearest to itself
    nearest = np.sort(same.max(1))[::-1]
    of = {
        # Every pair stands in the table twice.
        "pairs": float(ramp(same, SAME).sum() / 2 / len(here)),
        "nearest": float(ramp(nearest[0], (0.6, 1.0))),
        "crowd": float(ramp(nearest[:4].mean(), (0.5, 0.9))),
    }
    # The lower half, so that each pair is named once.
    twins = np.argwhere(np.tril(same) > 0.8)[:3] + 1
    return of, {"pairs": ", ".join(f"{first} and {second}" for second, first in twins)}


def _of_stance(asked: Sequence[str], here: Any, vectors: Vectors) -> Faults:
    """Whether the person is asked: the other questions are for a search engine, or for somebody else about the person."""
    import numpy as np

    # What counts is which of the two it is nearer to, not how near.
    searching = (here @ fixed(SEARCHED, vectors).T).max(1) - (here @ fixed(ASKED, vectors).T).max(1)
    own = np.array([bool(SELF & set(WORD.findall(q.lower()))) for q in asked])
    return {"searched": float(np.maximum(ramp(searching, (0.0, 0.2)), own).mean())}, {}


def repeats(rows: Any, i: int) -> bool:
    """Whether text i asks again what one before it asks; `rows` are their vectors."""
    return i > 0 and bool((rows[:i] @ rows[i]).max() > SAME[1])


def closeness(here: Any, unknowns: Sequence[Unknown], vectors: Vectors) -> Any:
    """How near each question comes to each unknown, in its nearest phrasing: (questions, unknowns)."""
    import numpy as np

    ways = [u.asked for u in unknowns]
    ends = np.cumsum(list(map(len, ways)))
    # All phrasings in one product, (questions, phrasings), then cut at the unknowns.
    every = here @ fixed(list(chain.from_iterable(ways)), vectors).T
    return np.stack([part.max(1) for part in np.split(every, ends[:-1], axis=1)], axis=1)


def unknowns_of(case: Case) -> tuple[Unknown, ...]:
    """What a plan of the task depends on: the ruler's unknowns, or else gold's questions, the critical one heaviest."""
    if case.unknowns:
        return case.unknowns
    unknowns = []
    for question in case.reference.questions:
        critical = question == case.reference.critical
        unknowns.append(Unknown(question, 3 + 2 * critical, (question,), critical))
    return tuple(unknowns)


_kept: dict[tuple[Vectors, tuple[str, ...]], Any] = {}


def fixed(texts: Sequence[str], vectors: Vectors) -> Any:
    """Vectors of texts of the ruler, worked out once in a process."""
    key = (vectors, tuple(texts))
    if key not in _kept:
        _kept[key] = vectors(texts)
    return _kept[key]


def _numbers(marks: Sequence[bool]) -> str:
    """The numbers of the questions that are marked."""
    places = [str(i) for i, marked in enumerate(marks, 1) if marked]
    if len(places) == 1:
        return f"question {places[0]}"
    if not places:
        return ""
    return f"questions {', '.join(places)}"


# --- from faults to scores -------------------------------------------------------------------------


@dataclass(frozen=True)
class Constants:
    """What was fitted."""

    best: dict[str, float]  # by dimension: the score without any fault
    prices: dict[str, dict[str, float]]  # by dimension and fault: points that a full amount costs, 0 or more
    levels: dict[str, list[list[float]]]  # by dimension: knots (points, score) of what points are worth, rising
    lead: dict[str, float]  # by fault: what less of it than gold has is worth for the verdict
    copies: float  # what a copied question costs there
    cuts: tuple[float, float]  # leads from which an answer wins, and ties


@cache
def _raw() -> Row:
    return json.loads(CONSTANTS.read_text(encoding="utf-8"))


@cache
def constants() -> Constants:
    """The fitted constants of this version."""
    raw = _raw()
    return Constants(**{**raw["constants"], "cuts": tuple(raw["constants"]["cuts"])})


def points(amount: dict[str, float], dimension: str, fit: Constants) -> float:
    """Points of a dimension before they are read as a score: best - sum of price x amount."""
    return fit.best[dimension] - sum(price * amount[fault] for fault, price in fit.prices[dimension].items())


def scores_of(answer: Amounts, fit: Constants) -> dict[str, float]:
    """Scores by dimension, 1 to 5. A set that asks the person nothing gets nothing."""
    import numpy as np

    scores = {}
    for dimension in DIMENSIONS:
        # Points are read as a score through a rising line that was fitted, so that a fault never raises a score.
        at, score = zip(*fit.levels[dimension], strict=True)
        value = float(np.interp(points(answer.of, dimension, fit), at, score))
        scores[dimension] = round(1 + (min(5.0, max(1.0, value)) - 1) * (1 - answer.void), 4)
    return scores


def lead(answer: Amounts, gold: Amounts, fit: Constants) -> float:
    """How far a set stands ahead of gold: less of gold's faults is ahead, more is behind."""
    ahead = sum(worth * (gold.of[fault] - answer.of[fault]) for fault, worth in fit.lead.items())
    # Gold's own questions have none of its faults, so without a price a copy would win for nothing.
    return ahead - fit.copies * answer.copied


def _behind(answer: Amounts, gold: Amounts, fit: Constants, without: str) -> float:
    """Points by which the scores of a set lie under gold's, in the mean of the dimensions that are seen."""
    scores, best = scores_of(answer, fit), scores_of(gold, fit)
    return fmean(best[d] - scores[d] for d in DIMENSIONS if d != without)


def own_faults(dimension: str, fit: Constants) -> set[str]:
    """The faults that only this dimension prices: a verdict without it does not see them. Another's are seen there."""
    others = chain.from_iterable(fit.prices[d] for d in DIMENSIONS if d != dimension)
    return fit.prices[dimension].keys() - set(others)


def verdict_of(answer: Amounts, gold: Amounts, fit: Constants, without: str = "") -> Verdict:
    """The verdict against gold; `without` a dimension, the faults that only that one prices are not seen."""
    if answer.void:
        return "loss"
    # Gold in whatever words cannot stand ahead of itself.
    if answer.copied >= GOLD and answer.asked == gold.asked:
        return "tie" if _behind(answer, gold, fit, without) <= TIES else "loss"
    worth = dict(fit.lead)
    if without:
        for fault in own_faults(without, fit):
            worth.pop(fault, None)
    ahead = lead(answer, gold, replace(fit, lead=worth))
    win, tie = fit.cuts
    if ahead >= win:
        return "win"
    if ahead >= tie:
        return "tie"
    return "loss"


class OfflineJudge:
    """The embedded judge. See the module for what it can and cannot see."""

    def __init__(self, vectors: Vectors) -> None:
        self.vectors = vectors

    @property
    def identity(self) -> Row:
        """What goes into the fingerprint: version, constants, embedder, and what it says of the ruler's calibration texts
        to two decimals. A comment or a moved import makes no other judge."""
        raw = _raw()
        hashes = {name: sha256(canonical(raw[name]))[:16] for name in ("constants", "calibration")}
        return {"kind": "offline", "version": VERSION, "embedder": raw["embedder"], **hashes}

    def judge(self, case: Case, answer: Answer, without: str = "") -> Judgment:
        """Scores from 1 to 5, a verdict against gold, and what lowered each score. Raises ValueError without gold."""
        return self.judge_all([(case, answer)], without)[0]

    def judge_all(self, pairs: Iterable[tuple[Case, Answer]], without: str = "") -> list[Judgment]:
        """Judgments in the order of the pairs; all their texts are embedded at once."""
        pairs, fit, judgments = list(pairs), constants(), []
        if not pairs:
            return []
        # One call for all: a text that several answers share is read once.
        texts = list(dict.fromkeys(chain.from_iterable(texts_of(answer) for _, answer in pairs)))
        rows = dict(zip(texts, self.vectors(texts), strict=True))
        for case, answer in pairs:
            gold, own = _gold_amounts(case, self.vectors), amounts(case, answer, self.vectors, rows)
            verdict = verdict_of(own, gold, fit, without)
            judgments.append(Judgment(scores_of(own, fit), verdict, _notes(own, gold, fit)))
        return judgments


@cache  # of every case: one that falls out of it is embedded again for each answer
def _gold_amounts(case: Case, vectors: Vectors) -> Amounts:
    gold = Answer(case.reference.title, case.reference.questions)
    texts = texts_of(gold)
    # Kept: these are the questions that every answer's are held against.
    return amounts(case, gold, vectors, dict(zip(texts, fixed(texts, vectors), strict=True)))


def _notes(answer: Amounts, gold: Amounts, fit: Constants) -> dict[str, str]:
    """By dimension: the two faults that cost most beyond what gold loses, with what they were found in."""
    notes = {}
    for dimension in DIMENSIONS:
        lost = {f: p * (answer.of[f] - gold.of[f]) for f, p in fit.prices[dimension].items()}
        texts = []
        if answer.void:
            texts.append("questions that ask the person nothing")
        for fault in sorted(lost, key=lambda f: -lost[f])[:2]:
            where = answer.notes.get(fault)
            # Less than a tenth of a point would not show in a score, and a note would blame it.
            if lost[fault] >= 0.1:
                texts.append(f"{FAULTS[fault]} ({where})" if where else FAULTS[fault])
        if texts:
            notes[dimension] = "; ".join(texts)
    return notes
