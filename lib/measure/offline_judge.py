"""A judge without network, key or model weights: it compares an answer with gold by hand-made signs of fault.

Every dimension starts at 5 and loses points for faults that can be counted, so gold judged against itself gets 5 and
a tie. What a fault costs was fitted on 78 answers that Claude Sonnet judged in the published study
(`lib.measure.fit_offline`) and is never negative: more fault is never a better score. On runs left out of the fit its
quality of a case has a Spearman of 0.65 with Sonnet's; its verdict is no better than calling everything a loss.

A question of another task in the place of a stock question can still raise a score: of such swaps in middling answers
a third do. A guard that stops most of them (all points down by the share of such questions) costs agreement with
Sonnet, 0.57 instead of 0.65, because a new thought about the task at hand looks the same to a judge that knows words.

Knows gold, the task and the English of the questions. Does not know the world: it cannot tell a clever question from a
strange one, takes two words for one thing to be two things unless ASPECTS has both, does not read the title, and has
no idea what would make an answer better than gold. In other languages it uses only what needs no word list.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lib.files import sha256
from lib.measure.answer import Answer
from lib.measure.judge import DIMENSIONS, Judgment, Verdict
from lib.measure.ruler import Case, Gold

VERSION = 2

# Points that a full fault costs, by dimension; printed by lib.measure.fit_offline.
PRICES: dict[str, dict[str, float]] = {
    "atomicity": {"joined": 3.82, "long": 0.88, "missing": 0.17, "untouched": 0.23, "narrow": 0.66, "foreign": 1.0},
    "specificity": {"vague": 5.99, "thin": 3.98, "aloof": 0.91, "missing": 1.37, "strange": 0.6, "narrow": 0.86},
    "coverage": {"missing": 4.0, "untouched": 0.74, "narrow": 1.21, "foreign": 0.5},
    "naturalness": {"broken": 5.0, "third": 1.5, "crowd": 2.01, "thin": 1.02, "missing": 1.62, "narrow": 1.62},
    "non_redundancy": {"pair": 1.5, "crowd": 3.0, "extra": 3.0, "missing": 0.64, "untouched": 0.63, "narrow": 1.66},
}
WIN, TIE = 3.89, 3.84  # mean of the five scores from which an answer wins or ties; fitted likewise

LONG = 2000  # characters read of a question
FULL = 0.55  # similarity from which a gold question counts as asked
ASPECT = 0.4  # similarity of two questions that share only what they are about
ALIKE = 0.3  # similarity from which two questions of one set begin to repeat each other
CRITICAL = 3.0  # weight of the most critical question; the others have 1
REACH = 0.3  # an answer that asks for less than this of gold gets no good score in anything
OWN = 0.25  # an answer less its own than this is gold, reworded or damaged, and cannot win
COPIED = 0.45  # nor can one that takes a larger share of its questions from gold almost as they are
LEAST = 2.5  # an answer that is worse than this in any dimension loses
LONGER = 1.25  # nor can one that is longer than gold by this factor: padding is no merit
FAR = (
    "untouched",
    "narrow",
    "strange",
    "foreign",
)  # faults of a whole set: a judge who sees little of gold marks all down
BROAD = 12  # aspects from which a set of questions is no longer narrow

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
WH = frozenset("what which who whom whose when where why how".split())
VERBS = frozenset(
    "is are was were am do does did have has had will would can could should shall may might must".split()
)
PRONOUNS = frozenset("i you he she we they it this that these those there".split())
YOU = frozenset("you your yours yourself".split())
OWNERS = frozenset("a an the your my our his her their its".split())
LINKS = frozenset(
    "of in on at for from with by about into over under to as and or but if than then so any some no not each per "
    "more most much many be been being me us him them yours yourself until since during after before".split()
)
PLAIN = frozenset("is are was were do does did have has".split())  # never nouns, as "a will" and "a can" are
_FRONT = "in on at for from with by about into over under to as if of than until since during after before between "
OPENERS = WH | VERBS | frozenset((_FRONT + "against roughly besides apart exactly ca and or also then so").split())
ENDLESS = frozenset("a an the your my our their its and or is are was were does did has".split())  # no question ends so
FUNCTION = WH | VERBS | PRONOUNS | OWNERS | LINKS
# In clarifying questions about anything whatever, so no sign that two of them are alike.
STOCK = frozenset(
    "already currently current specific mind like want need plan planning prefer preferred preference looking going "
    "get else all one".split()
)
# Words of questions about anything whatever, so no sign that a question is about another task.
EVERYDAY = frozenset(
    "done doing make makes made take takes taken give given go goes come comes use uses used using find keep put set work "
    "works happen happens help helps know known think say said tell told ask asked talk see seen look show bring brought "
    "leave left hold change changed decide decided choose likes liked love enjoy care feel matter matters worry worries "
    "worried try tried able exactly roughly anyone anybody someone everyone way ways part parts day days good best better "
    "well new big enough certain particular important mostly mainly usually ever yet soon later".split()
)
VAGUE = frozenset("it something anything thing things stuff somebody somewhere anywhere somehow".split())
DANGLING = frozenset("this that these those them one so such there".split())  # vague where a question ends on them
# What a question is about when it says so in other words than gold. Ours, and meant for any task.
ASPECTS = {
    "people": "who whom whose people person persons guest guests family relative relatives friend friends partner "
    "spouse kids children child household group team colleagues alone solo together attend attending others everyone",
    "audience": "audience customer customers client clients reader readers viewers visitors",
    "date": "when date dates day month season year deadline timeline timeframe schedule scheduled soon urgent urgency "
    "start starting begin finish finished complete completion weekend",
    "effort": "hours hour minutes minute often frequency daily weekly time dedicate devote spare commit",
    "duration": "long duration length last nights days weeks months stay",
    "place": "where city country region town state area district neighborhood neighbourhood location located place "
    "venue site address local live based abroad",
    "money": "budget cost costs pay paying spend spending afford price prices fee fees salary income money fund funds "
    "finance financing savings invest expense expenses cash",
    "level": "level experience experienced skill skills skilled beginner advanced expert fitness ability comfortable "
    "confident familiar ever before tried previously previous past history prior ago first since",
    "goal": "goal goals aim aims purpose reason why motivation motivated objective outcome hope hoping achieve success "
    "result results problem problems issue issues concern concerns obstacle obstacles challenge challenges difficulty "
    "struggle worry worried",
    "style": "style theme tone look looks taste mood feel atmosphere aesthetic design color colors colour type types "
    "kind kinds sort genre category model brand make format",
    "priority": "priority priorities most important focus main primary emphasis",
    "limits": "restriction restrictions limit limits limitation limitations allergy allergies avoid exclude "
    "requirement requirements rule rules must diet dietary health medical mobility disability condition special",
    "help": "help helper hire hiring professional professionals yourself teacher tutor instructor coach trainer "
    "lessons class course contractor support assistant diy guidance self",
    "means": "already own existing bought purchased booked found chosen equipment materials supplies gear ready access",
    "channel": "online remote virtual person app apps software platform platforms website phone shop store "
    "digital physical tool tools",
    "size": "size large big small space dimensions square rooms room amount number many",
    "age": "age aged old older young",
    "papers": "doctor permit permits license licence documents official legal law insurance insured",
}
ABOUT: dict[str, list[str]] = {}  # a word's aspects
for _name, _words in ASPECTS.items():
    for _word in _words.split():
        ABOUT.setdefault(_word, []).append(_name)
KNOWN = FUNCTION | STOCK | VAGUE | EVERYDAY | ABOUT.keys()
ENDINGS = "ations ation ating ments ment ings ing ies ied ers er ed es s ate ly e y".split()
SECOND = re.compile(rf"(?:\b(?:and|or|plus)|[,;])\s+(?:also\s+|if so,?\s+)?(?:{'|'.join(sorted(WH | VERBS))})\b")
# Markup, JSON or an order to whoever grades: nobody who is asked about a task could answer that.
TALK = re.compile(
    r"</?\w[^>]*>|[{}]|\b(ignore|disregard|forget)\b.*\b(rubric|set|instructions?|above|other)\b|\bgive \d to\b"
)
MARK = re.compile("[?？؟]")


@dataclass(frozen=True)
class Question:
    """One question, taken apart."""

    text: str
    words: tuple[str, ...]
    stems: Counter[str]  # of the words that carry meaning
    grams: Counter[str]  # groups of four letters of those words
    about: frozenset[str]  # names of aspects

    @property
    def void(self) -> bool:
        """Whether the person is asked nothing: no word, no question mark at the end, or it talks to the judge."""
        return not self.words or not MARK.match(self.text.rstrip()[-1]) or TALK.search(self.text) is not None

    @property
    def double(self) -> bool:
        """Whether a second question begins inside: "and how ...", "..., or do you ...", or a second question mark."""
        asks = [part for part in MARK.split(self.text) if WORD.search(part)]
        return len(asks) > 1 or SECOND.search(self.text) is not None


@lru_cache(maxsize=4096)
def parse(text: str) -> Question:
    """Take a question apart; the same text gives the same object."""
    text = text[:LONG].lower().replace("’", "'")
    words = tuple(WORD.findall(text))
    bare = [w.split("'")[0] for w in words]
    content = [w for w in bare if w not in FUNCTION and w not in STOCK]
    grams = Counter(f"_{w}_"[i : i + 4] for w in content for i in range(max(1, len(w) - 1)))
    about = frozenset(name for w in bare for name in ABOUT.get(w, ()))
    return Question(text, words, Counter(map(stem, content)), grams, about)


def stem(word: str) -> str:
    """A crude stem, enough to see that two forms are one word.

    >>> stem("renovating"), stem("renovation")
    ('renov', 'renov')
    """
    for ending in ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)]
            break
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word


def likeness(questions: Sequence[Question]) -> Callable[[Question, Question], float]:
    """A similarity of two of these questions, 0 to 1; words that most of them use count for little."""
    stems, grams = rarity([q.stems for q in questions]), rarity([q.grams for q in questions])

    def alike(a: Question, b: Question) -> float:
        if a.words == b.words:
            return 1.0
        shared = len(a.about & b.about)
        about = ASPECT * shared / math.sqrt(len(a.about) * len(b.about)) if shared else 0.0
        return max(cosine(a.stems, b.stems, stems), cosine(a.grams, b.grams, grams), about)

    return alike


def rarity(documents: Sequence[Counter[str]]) -> dict[str, float]:
    """Inverse document frequency inside one answer and its gold: what is common there is the task itself."""
    found = Counter(key for document in documents for key in document)
    return {key: math.log((len(documents) + 1) / (n + 0.5)) for key, n in found.items()}


def cosine(a: Counter[str], b: Counter[str], weight: dict[str, float]) -> float:
    """Cosine of two weighted bags."""
    dot = math.fsum(n * b[key] * weight[key] ** 2 for key, n in a.items() if key in b)
    size = [math.fsum((n * weight[key]) ** 2 for key, n in bag.items()) for bag in (a, b)]
    return min(1.0, dot / math.sqrt(size[0] * size[1])) if dot else 0.0


@dataclass
class Faults:
    """What is wrong with one answer: how much of each fault, and a line about it by dimension."""

    amount: dict[str, float]
    notes: dict[str, list[str]]


def find(gold: Gold, answer: Answer) -> Faults:
    """Count the faults of an answer. Word for word copies of gold questions have none of their own."""
    # What is no question counts as none at all, so its words cannot pass for breadth.
    asked = [parse("?") if parse(q).void else parse(q) for q in answer.questions]
    wanted = [parse(q) for q in gold.questions]
    faults = Faults({}, {d: [] for d in DIMENSIONS})
    alike = likeness(asked + wanted)
    copied = {q.words for q in wanted if not q.void}
    own = [(i, q) for i, q in enumerate(asked, 1) if q.words not in copied]
    n = max(1, len(wanted))
    english = sum(_broken(q) == "" for q in wanted) * 2 > len(wanted)  # else our word lists say nothing
    _cover(faults, gold, asked, wanted, alike)
    _join(faults, own, n)
    _blur(faults, own, n, english)
    _break(faults, own, n, english)
    _repeat(faults, asked, wanted, copied, alike)
    _stray(faults, gold, asked, wanted)
    voids = [i for i, q in enumerate(asked, 1) if q.void]
    faults.amount["void"] = max(len(voids) / max(1, len(asked)), 0.0 if asked else 1.0)
    for dimension in DIMENSIONS if voids else ():
        faults.notes[dimension].insert(0, f"{_names(voids)} not a question")
    return faults


def _cover(faults: Faults, gold: Gold, asked: list[Question], wanted: list[Question], alike: Any) -> None:
    table = [[alike(w, a) for a in asked] for w in wanted]
    copied = {w.words for w in wanted}
    # A question taken from gold asks what it asked there and does not cover for another that is gone.
    covers = [[x for x, a in zip(row, asked, strict=True) if x == 1 or a.words not in copied] for row in table]
    best = [max(row, default=0.0) for row in covers]
    weight = [CRITICAL if text.strip() == gold.critical.strip() else 1.0 for text in gold.questions]
    missing = [1 - min(1.0, b / FULL) for b in best]
    faults.amount["missing"] = math.fsum(w * m for w, m in zip(weight, missing, strict=True)) / max(1.0, sum(weight))
    faults.amount["own"] = 1 - _mean(max(column) for column in zip(*table, strict=True)) if table and asked else 1.0
    faults.amount["copied"] = _mean(float(max(c) > 0.8) for c in zip(*table, strict=True)) if table and asked else 0.0
    # Nothing for gold with a damage here and there, full for words of one's own: how far below 5 a good stranger is.
    faults.amount["strange"] = min(1.0, max(0.0, faults.amount["own"] / OWN - 1))
    for text, m in sorted(zip(gold.questions, missing, strict=True), key=lambda pair: -pair[1]):
        if m > 0.4:
            most = "the most critical, " if text.strip() == gold.critical.strip() else ""
            faults.notes["coverage"].append(f"nothing asks about: {most}{text}")


def _join(faults: Faults, own: list[tuple[int, Question]], n: int) -> None:
    grades, longest, notes = [], 0.0, faults.notes["atomicity"]
    for i, q in own:
        both = q.double or "and" in q.words or ";" in q.text
        grades.append(1.0 if both else 0.8 if "," in q.text else 0.2 if "or" in q.words or "/" in q.text else 0.0)
        if grades[-1]:
            what = "asks two things or lists several" if grades[-1] > 0.5 else "offers alternatives"
            notes.append(f"question {i} {what}: {_short(q)}")
        over = min(1.0, max(0, len(q.words) - 10) / 10)
        longest = max(longest, over)
        if over >= 0.3:
            notes.append(f"question {i} has {len(q.words)} words")
    faults.amount["joined"], faults.amount["long"] = min(1.0, math.fsum(grades) / n), longest


def _blur(faults: Faults, own: list[tuple[int, Question]], n: int, english: bool) -> None:
    vague, thin, aloof, notes = 0, [], 0, faults.notes["specificity"]
    for i, q in own:
        word = _vague(q)
        if word:
            vague += 1
            notes.append(f"question {i} says {word!r} where a thing should be named")
        carrying = sum(q.stems.values())
        thin.append(max(0, 3 - carrying) / 3)
        if carrying < 2:
            notes.append(f"question {i} could be asked about anything: {_short(q)}")
        if english and not YOU & set(q.words):
            aloof += 1
            notes.append(f"question {i} is not put to the person")
    faults.amount["vague"], faults.amount["thin"] = min(1.0, vague / n), min(1.0, math.fsum(thin) / n)
    faults.amount["aloof"] = min(1.0, aloof / n)


def _vague(q: Question) -> str:
    # After "or" and "and" the question itself has said what "it" is.
    first = next((k for k, w in enumerate(q.words) if w in ("or", "and")), len(q.words))
    found = [w for w in q.words[:first] if w.split("'")[0] in VAGUE]
    return found[0] if found else next((w for w in q.words[-1:] if w in DANGLING and first == len(q.words)), "")


def _break(faults: Faults, own: list[tuple[int, Question]], n: int, english: bool) -> None:
    broken, third = 0, 0
    for i, q in own:
        why = _broken(q) if english and not q.void else ""
        broken += bool(why)
        third += "user" in q.stems
        if why:
            faults.notes["naturalness"].append(f"question {i} {why}: {_short(q)}")
        if "user" in q.stems:
            faults.notes["naturalness"].append(f"question {i} speaks of the user instead of to them")
    faults.amount["broken"], faults.amount["third"] = min(1.0, broken / n), min(1.0, third / n)


def _broken(q: Question) -> str:
    """What is wrong with the word order of an English question, or nothing."""
    bare = [w.split("'")[0].removesuffix("n") if w.endswith("n't") else w.split("'")[0] for w in q.words] or [""]
    small = sum(w in FUNCTION for w in bare) / len(bare)
    asks = any(w in VERBS or w == "ca" for w in bare) or any(w.endswith(("'s", "'re")) for w in q.words)
    # "Which shops deliver to you?" asks with its own verb; small words or a past form stand in for the asking verb.
    if not asks and not (bare[0] in WH and len(bare) > 3 and (small >= 0.4 or any(w.endswith("ed") for w in bare))):
        return "has no verb that asks"
    if bare[0] not in OPENERS:
        return "does not begin like a question"
    pairs = list(zip(bare, bare[1:], strict=False))
    swapped = bare[0] in WH - {"who", "how", "whose"} and len(bare) > 1 and bare[1] in OWNERS | PRONOUNS
    torn = any(a in OWNERS and b in OWNERS | WH | PLAIN for a, b in pairs) or bare[-1] in ENDLESS
    left = bare[-1] in WH and len(bare) > 1 and bare[-2] not in OPENERS | {"and", "or"}
    if swapped or torn or left:
        return "has its words in the wrong order"
    return "leaves out the small words" if small < 0.25 else ""


def _repeat(faults: Faults, asked: list[Question], wanted: list[Question], copied: set[Any], alike: Any) -> None:
    worst, nearest = 0.0, [0.0] * len(asked)
    for i, a in enumerate(asked):
        for j in range(i):
            b = asked[j]
            both = a.words in copied and b.words in copied and a.words != b.words  # gold may ask so
            near = 0.0 if both else max(0.0, (alike(a, b) - ALIKE) / (1 - ALIKE))
            if a.words != b.words and (a.double or b.double):
                near /= 2  # that a double question holds this one too is mostly a fault of the double question
            worst, nearest[i], nearest[j] = max(worst, near), max(near, nearest[i]), max(near, nearest[j])
            if near > 0.25:
                faults.notes["non_redundancy"].append(f"questions {j + 1} and {i + 1} ask nearly the same")
    topics, all_topics = ({name for q in qs for name in q.about} for qs in (asked, wanted))
    extra = max(0, len(asked) - len(wanted))
    if extra:
        faults.notes["non_redundancy"].append(f"{extra} questions more than gold has")
    faults.amount["pair"], faults.amount["crowd"] = worst, _mean(nearest)
    # Gold may be narrow, words of one's own may not: breadth of aspects, where the word list knows gold's language.
    narrow = max(0.0, 1 - len(topics) / BROAD) * faults.amount["strange"]
    faults.amount["narrow"] = narrow if all_topics else 0.0
    left = sorted(all_topics - topics)
    faults.amount["untouched"] = len(left) / len(all_topics) if all_topics else 0.0
    if left:
        faults.notes["coverage"].append(f"gold also touches on {', '.join(left)}")
    faults.amount["extra"] = min(1.0, extra / max(1, len(wanted)))


def _stray(faults: Faults, gold: Gold, asked: list[Question], wanted: list[Question]) -> None:
    """Questions that name things of another task: none of their words stands in gold or its title.

    A new thought about this task can look like that too, so it costs only about what Sonnet's verdicts bear.
    """
    near = {s for q in (parse(gold.title), *wanted) for s in q.stems}
    found = []
    for i, q in enumerate(asked, 1):
        names = any(w.split("'")[0] not in KNOWN for w in q.words)
        if names and not q.void and not near & set(q.stems):
            found.append(i)
            faults.notes["coverage"].append(f"question {i} names nothing that gold names: {_short(q)}")
    faults.amount["foreign"] = len(found) / max(1, len(asked))


class OfflineJudge:
    """The embedded judge. See the module for what it can and cannot see."""

    @property
    def identity(self) -> dict[str, Any]:
        """What goes into the fingerprint: another code or price is another judge."""
        return {"kind": "offline", "version": VERSION, "code": sha256(Path(__file__).read_text(encoding="utf-8"))}

    def judge(self, case: Case, answer: Answer) -> Judgment:
        """Scores from 1 to 5, a verdict against gold, and what lowered each score. Raises ValueError without gold."""
        if case.gold is None:
            raise ValueError(f"case {case.id!r} has no gold answer, and the offline judge compares with gold")
        faults = find(case.gold, answer)
        scores = score(faults.amount)
        for dimension in DIMENSIONS:
            far = math.fsum(PRICES[dimension].get(f, 0.0) * faults.amount[f] for f in ("missing", *FAR))
            if far >= 0.3 and dimension != "coverage":
                faults.notes[dimension].append(f"{far:.1f} points off as the questions are far from gold's")
        notes = {d: "; ".join(lines) for d, lines in faults.notes.items() if lines}
        length = len(answer.text) / max(1, len("\n".join([case.gold.title, *case.gold.questions])))
        return Judgment(scores, verdict(faults.amount, length, list(scores.values())), notes)

    def judge_all(self, pairs: Iterable[tuple[Case, Answer]]) -> list[Judgment]:
        """Judgments in the order of the pairs."""
        return [self.judge(case, answer) for case, answer in pairs]


def score(amount: dict[str, float], prices: dict[str, dict[str, float]] = PRICES) -> dict[str, float]:
    """Scores by dimension from amounts of fault, 1 to 5."""
    reach = min(1.0, (1 - amount["missing"]) / REACH) * (1 - amount["void"])
    scores = {}
    for dimension in DIMENSIONS:
        lost = math.fsum(price * amount[fault] for fault, price in prices[dimension].items())
        # Neat questions about nothing are no plan: without reach no dimension gets far above 1.
        scores[dimension] = round(1 + reach * max(0.0, 4 - lost), 4)
    return scores


def verdict(
    amount: dict[str, float], length: float, scores: Sequence[float], cuts: tuple[float, float] = (WIN, TIE)
) -> Verdict:
    """The verdict on five scores of an answer of this length, counted in lengths of gold."""
    mean = _mean(scores)
    if mean < cuts[1] or min(scores) < LEAST:
        return "loss"
    own = amount["own"] >= OWN and amount["copied"] <= COPIED and length <= LONGER
    return "win" if mean >= cuts[0] and own else "tie"


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return math.fsum(found) / len(found) if found else 0.0


def _short(q: Question) -> str:
    return q.text if len(q.text) <= 80 else q.text[:77] + "..."


def _names(numbers: list[int]) -> str:
    plural = len(numbers) > 1
    return f"question{'s' * plural} {', '.join(map(str, numbers))} {'are' if plural else 'is'}"
