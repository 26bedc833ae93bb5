"""Gold in an answer: which answers hold an expert's questions word for word, and when that is no chance any more.

Knows gold and answers. Does not know how gold got there, nor models or prompts: the guard in front of them is
`lib.agent.guard`. Exact words alone count, whatever their case and punctuation; gold in other words is not seen here.

The numbers come from counting. A real 3B model that had never seen gold shared one question with it in 13 of 78
answers of the published study ("How many people will attend?") and never two. At that rate one answer in two thousand
holds three by chance, so one such answer is flagged but condemns no run alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from lib.log import Row
from lib.measure.answer import Answer, normalised
from lib.measure.ruler import Case

COPIES = 3  # questions that stand word for word in gold, from which an answer is flagged
CERTAIN = 4  # from which it condemns its run alone: by chance one answer in eighty thousand
SHARE = 0.7  # copies a case over a whole run, from which gold leaks in drops; the study's model had 0.17


def copies(case: Case, answer: Answer) -> int:
    """How many gold questions stand in an answer word for word, wherever; 0 without gold."""
    # Spaces around both: "who will sail it" must not be found inside "who will sail items".
    text = f" {normalised(answer.text)} "
    questions = filter(None, map(normalised, case.golden))
    return sum(f" {question} " in text for question in questions)


def leaked(case: Case, answer: Answer) -> str:
    """What shows that gold was pasted into an answer, "" if nothing does.

    >>> from lib.measure.ruler import Gold
    >>> case = Case("x", "buy a boat", Gold("Buy a boat", ("Who will sail it?", "Where will it lie?", "How big is it?")))
    >>> leaked(case, Answer("Boat", ("who will sail it", "Where will it lie? How big is it?")))
    '3 of 3 questions stand word for word in gold'
    """
    same = copies(case, answer)
    if same < COPIES:
        return ""
    return f"{same} of {len(case.golden)} questions stand word for word in gold"


def leaks(rows: Sequence[Row]) -> list[str]:
    """The cases that make a run invalid, from the `copies` of its rows; rows from before they were counted have none.

    Two flagged answers, one with CERTAIN copies, or more than SHARE copies a case over all: then every case with two.

    >>> honest = [{"case": f"c{i}", "copies": 0} for i in range(10)]
    >>> leaks([*honest, {"case": "a", "copies": 3}, {"case": "b", "copies": 1}])
    []
    >>> leaks([*honest, {"case": "a", "copies": 7}, {"case": "b", "copies": 1}])
    ['a']
    """
    count = {row["case"]: row.get("copies") or 0 for row in rows}
    flagged = _with(count, COPIES)
    # One flagged answer may be chance; two, or one with more copies still, are not.
    if len(flagged) > 1 or max(count.values(), default=0) >= CERTAIN:
        return flagged
    # Gold that leaks in drops flags no answer, and still lifts the mean above what chance gives.
    if sum(count.values()) > SHARE * len(count):
        return _with(count, 2)
    return []


def _with(count: dict[str, int], least: int) -> list[str]:
    return [case for case, n in count.items() if n >= least]
