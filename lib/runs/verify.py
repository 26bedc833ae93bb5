"""What is wrong with a folder of runs: every byte, every line of the ledger, every score, every rating.

Knows what must follow from what. Does not know how a run was made; judging again is `lib.runs.rescore`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

from lib.files import Tampered, canonical, check_sums, litter, sha256
from lib.log import Chain, Log
from lib.measure import calibrate
from lib.measure.answer import Answer
from lib.measure.checks import blind, compare
from lib.measure.checks.agreement import Chosen, Rating, item_id
from lib.measure.leak import copies, leaks
from lib.measure.ruler import RULER, BadRuler, Ruler
from lib.measure.score import case_quality, score, usefulness
from lib.runs import by_hand
from lib.runs.provenance import sources
from lib.runs.record import CaseRow, Json, Record
from lib.runs.seal import LEDGER, SEAL, checked_lines, number_of, read_cases, read_record, rebuilt

RATINGS = "ratings.jsonl"
# What may lie beside the runs: the ledger, paid replies, the loop's events, a person's verdicts and a reader's.
BESIDE = (LEDGER, "judgments.jsonl", "events.jsonl", RATINGS, by_hand.VERDICTS, by_hand.BLIND)
RATED = Chain("item")
RATABLE = ("full", "dev")  # gates whose answers a person may rate; the sealed gate is not among them
# Kinds without scores of their own: they measure the measure, or set sealed runs side by side.
READINGS: dict[str, Callable[[Sequence[Any]], Any]] = {
    "calibrate": calibrate.readings, "rejudge": blind.readings, "models": compare.readings,
}  # fmt: skip


def verify(folder: Path, kept: Path | None = None) -> list[str]:
    """Everything that is wrong with a folder of runs, one sentence each; empty when all is well.

    Checks every byte against the seals, every line of the ledger against its run, and computes every quality and
    every score again from the stored judgments; with `kept`, a folder outside the runs, not those that followed
    before, by the same code and ruler, of a run with the same seal.
    """
    if not folder.exists():
        return []
    wrong, seals = [], {}
    # Dot folders are no runs but work under way, such as `.pending`.
    for run in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
        if not (run / SEAL).exists() or number_of(run) is None:
            wrong.append(f"{run}: no sealed run; a run is a folder such as 0001-name with a {SEAL}")
            continue
        seal = (run / SEAL).read_text(encoding="utf-8", errors="replace")
        seals[run] = sha256(seal)
        wrong += check_sums(run, seal, SEAL)
        # Looked for apart, since a seal leaves hidden names out.
        for path in run.rglob(".*"):
            if not litter(path.relative_to(run).as_posix()):
                wrong.append(f"{path}: a hidden file, added later")
    for path in folder.iterdir():
        if path.is_file() and path.name not in BESIDE and not path.name.startswith("."):
            wrong.append(f"{path}: does not belong to a folder of runs")
    wrong += verify_ledger(folder) + verify_ratings(folder) + by_hand.verify(folder)
    # Scores last, and of files that are as they were sealed: from others nothing follows.
    if not wrong:
        wrong += _verify_scores(seals, kept)
    return wrong


def verify_ledger(folder: Path) -> list[str]:
    """What is wrong between the ledger's lines and the sealed runs."""
    path = folder / LEDGER
    try:
        lines = checked_lines(path)
        want = [json.loads(line) for line in rebuilt(folder)]
    except Tampered as error:
        return [str(error)]
    wrong = []
    for number, (line, run) in enumerate(zip_longest(lines, want), 1):
        if line is None:
            wrong.append(f"{path}: {run['id']} is sealed but not listed; `notch verify --repair` adds it")
        elif run is None or line.get("id") != run["id"]:
            wrong.append(f"{path}:{number}: lists {line.get('id')}, but there is no such sealed run at this place")
        elif line.get("seal") != run["seal"]:
            wrong.append(f"{path}:{number} and {folder / run['id'] / SEAL}: one of the two has changed")
        elif line != run:
            wrong.append(f"{path}:{number}: differs from what the sealed run says")
    return wrong


def verify_ratings(folder: Path) -> list[str]:
    """What is wrong with a person's verdicts: lines that do not parse, or that rate what no sealed run answered."""
    path = folder / RATINGS
    try:
        lines = Log(path, RATED).rows
    except Tampered as error:
        return [str(error)]
    wrong = []
    answers: dict[str, dict[str, str]] = {}
    for number, row in enumerate(lines, 1):
        try:
            _check_rating(folder, row, answers)
        except (ValueError, KeyError, TypeError, OSError) as error:
            wrong.append(f"{path}:{number}: not a rating ({error})")
    return wrong


def _check_rating(folder: Path, row: Json, answers: dict[str, dict[str, str]]) -> None:
    """Raise ValueError where a line of ratings.jsonl does not fit its sealed run; `answers` keeps what was read."""
    if row.get("kind") == "undo" and isinstance(row["item"], str) and isinstance(row.get("who"), str):
        return
    if row.get("kind") == "choice":
        Chosen.of(row)  # of a task typed by hand: it rates no sealed run
        return
    if row.get("kind") != "rating":
        raise ValueError(
            f"kind is {row.get('kind')!r}, who {row.get('who')!r}: expected a rating, a choice, or an undo with both"
        )
    rating = Rating.of(row)
    run = folder / rating.run
    # A name and no path: a line of this file must not lead out of the folder.
    if Path(rating.run).name != rating.run or not (run / SEAL).exists():
        raise ValueError(f"{rating.run!r} is no sealed run here")
    record = read_record(run)
    if record.kind != "experiment" or record.gate not in RATABLE:
        raise ValueError(f"{rating.run} is no experiment of the gates {' and '.join(RATABLE)}")
    if record.fingerprint != rating.fingerprint:
        raise ValueError(f"its fingerprint is not that of {rating.run}")
    if rating.run not in answers:
        answers[rating.run] = {r.case: item_of(r.case, r.answer) for r in read_cases(run) if r.answer}
    if answers[rating.run].get(rating.case) != rating.item:
        raise ValueError(f"the answer of {rating.run} to {rating.case} is another one")


def item_of(case: str, answer: Answer) -> str:
    """The id of an answer to a case, as ratings name it."""
    return item_id(case, answer.title, answer.questions)


# --- scores ---------------------------------------------------------------------------------------


def recomputed(record: Record, cases: Sequence[CaseRow]) -> list[str]:
    """What does not follow from the stored judgments: a quality, a score of the run, a reading. Empty when all does."""
    return wrong_cases(cases) + wrong_scores(record, cases)


def wrong_cases(cases: Sequence[CaseRow]) -> list[str]:
    """Qualities that do not follow from their judgments."""
    return [f"quality of {row.case}" for row in cases if case_quality(row.outcome) != row.quality]


def wrong_scores(record: Record, cases: Sequence[CaseRow]) -> list[str]:
    """Names of scores and readings of a record that do not follow from its cases."""
    if not cases:
        if record.scores:
            return ["scores without a case"]
        return []
    wrong = []
    plain = list(map(CaseRow.as_dict, cases))
    if record.kind in READINGS:
        stored = record.found.as_dict()
        # Later code may read more out of the same rows than the record holds.
        again = {k: v for k, v in READINGS[record.kind](plain).items() if k in stored}
    else:
        again = score([row.outcome for row in cases]).as_dict()
        stored = asdict(record.scores) if record.scores else {}
        if not alike(usefulness(plain), record.found.useful.as_dict()):
            wrong.append("usefulness")
        if cases[0].copies is not None and leaks(plain) != record.leaks:
            wrong.append("leaks")
    return wrong + [name for name, value in again.items() if not alike(value, stored.get(name), name)]


# What is drawn by resampling comes out a little otherwise with another version of the library that draws.
DRAWN, DRAW_NEAR = frozenset({"low", "high", "p"}), 0.01


def alike(again: Any, stored: Any, name: str = "") -> bool:
    """Whether plain data says the same: exactly, but for intervals and probabilities, which may be 0.01 apart."""
    if isinstance(again, Mapping) and isinstance(stored, Mapping):
        return again.keys() == stored.keys() and all(alike(again[k], stored[k], k) for k in again)
    if isinstance(again, list | tuple) and isinstance(stored, list | tuple):
        return len(again) == len(stored) and all(map(partial(alike, name=name), again, stored))
    if name in DRAWN and isinstance(again, float) and isinstance(stored, float):
        return abs(again - stored) <= DRAW_NEAR
    # As JSON: what was stored has been through it, and a tuple came back as a list.
    return canonical(again) == canonical(stored)


def _verify_scores(seals: Mapping[Path, str], kept: Path | None) -> list[str]:
    """What is wrong with the scores of sealed runs, each with the hash of its seal: the first thing of each, by file."""
    ruler = None  # is said elsewhere; a seal needs no ruler
    with suppress(Tampered, BadRuler):
        ruler = Ruler.load(RULER)
    known: set[str] = set()
    wrong, sound = [], []
    if kept:
        kept /= sha256(canonical([sources(), ruler.seal if ruler else ""]))[:24]
        with suppress(OSError):  # where nothing can be kept it is only slower
            known = set(kept.read_text(encoding="ascii", errors="replace").split())
    try:
        for run, seal in seals.items():
            if seal in known:
                continue
            if fault := _fault(run, ruler):
                wrong.append(fault)
            else:
                sound.append(f"{seal}\n")
    finally:  # a call that is stopped has not worked for nothing
        if kept and sound:
            with suppress(OSError):
                kept.parent.mkdir(parents=True, exist_ok=True)
                with open(kept, "a", encoding="ascii") as file:
                    file.writelines(sound)
    return wrong


def _fault(run: Path, ruler: Ruler | None) -> str:
    """What is wrong with the scores of one sealed run, "" where nothing is."""
    try:
        record, cases = read_record(run), read_cases(run)
        wrong = {"cases.jsonl": wrong_cases(cases), "record.json": wrong_scores(record, cases)}
        if ruler:
            wrong["cases.jsonl"] += _wrong_copies(record, cases, ruler)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{run}: record or cases cannot be read ({type(error).__name__}: {error})"
    for file, names in wrong.items():
        if names:
            return f"{run / file}: {names[0]} does not follow from the judgments"
    return ""


def _wrong_copies(record: Record, cases: Sequence[CaseRow], ruler: Ruler) -> list[str]:
    """Rows whose count of gold questions is not what gold says, where gold is still the one that was compared."""
    if record.kind in READINGS or ruler.fingerprint(record.identity.judge) != record.fingerprint:
        return []
    wrong = []
    for row in cases:
        if row.answer is None or row.case not in ruler.by_id:
            continue
        count = copies(ruler.by_id[row.case], row.answer)
        # Rows from before copies were counted hold one at most by chance.
        uncounted = row.copies is None and count < 2
        if count != row.copies and not uncounted:
            wrong.append(f"copies of {row.case}")
    return wrong
