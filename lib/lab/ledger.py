"""The ledger: every sealed run in order, the keep rule, the champion, what is confirmed.

Knows the folder of runs. A run is read only when its SEALED is complete; `ledger.jsonl` has a line a run, each with
the hash of the line before, and can always be rebuilt from the folders. Does not know how runs are made.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import takewhile, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.files import (
    Tampered,
    canonical,
    check_sums,
    locked,
    rows,
    runs_folder,
    sha256,
    sha256_file,
    sums,
    sync_folder,
    write_new,
)
from lib.lab import show
from lib.log import START, Chain, Log
from lib.measure import calibrate, keep
from lib.measure.answer import Answer, NoAnswer
from lib.measure.checks import blind, compare, noise
from lib.measure.checks.agreement import Rating, item_id
from lib.measure.judge import DIMENSIONS, Judgment, Unscored
from lib.measure.leak import copies, leaks
from lib.measure.ruler import RULER, BadRuler, Ruler
from lib.measure.score import Outcome, case_quality, score, usefulness
from lib.measure.stats import paired

if TYPE_CHECKING:
    import pandas as pd

SEAL = "SEALED"
LEDGER = "ledger.jsonl"
RATINGS = "ratings.jsonl"
# What may lie beside the runs: the ledger, paid replies, the loop's events, a person's verdicts.
BESIDE = (LEDGER, "judgments.jsonl", "events.jsonl", RATINGS)
LINES, RATED = Chain("record"), Chain("item")
RATABLE = ("full", "dev")  # gates whose answers a person may rate; the sealed gate is not among them
REFERENCE = ("anchor", "a/a")  # levers that are measured beside the climb and never part of it
# Kinds without scores of their own: they measure the measure, or set sealed runs side by side.
READINGS = {"calibrate": calibrate.readings, "rejudge": blind.readings, "models": compare.readings}
SETUP = ("model", "pipeline", "decoding", "adapter", "seed")  # what makes two runs of one gate the same attempt
HARNESS = ("model", "pipeline", "decoding", "judge", "gate", "seed", "fingerprint")  # all of a run but its adapter
# Columns of `Ledger.frame`: texts and plain data as the record has them, whole numbers, fractions.
FIELDS = ("id", "slug", "kind", "status", "lever", "model", "adapter", "pipeline", "decoding", "judge", "gate", "of",
          "fingerprint", "hypothesis", "error")  # fmt: skip
COUNTS = ("wins", "ties", "losses", "no_answer", "unscored")
WHOLE = ("seed", *COUNTS, "cases", "calls", "new_tokens")
FRACTIONS = ("quality", "low", "high", *DIMENSIONS, "delta", "p", "delta_low", "delta_high", "predicted", "min_effect",
             "seconds", "dollars", "useful", "calls_a_case", "new_tokens_a_case")  # fmt: skip


@dataclass(frozen=True)
class Decision:
    """What becomes of a run, and why."""

    status: str
    reason: str
    against: str = ""
    delta: float | None = None
    p: float | None = None
    low: float | None = None
    high: float | None = None
    floor: float | None = None
    noise: str = ""  # how often luck alone passes this rule, in a sentence

    def as_dict(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "status"}

    def _repr_markdown_(self) -> str:
        if self.delta is None:
            return f"**{self.status}**: {self.reason}"
        floor = "not measured" if self.floor is None else f"{self.floor:.4f}"
        interval, p = show.interval(self.low, self.high), show.number(self.p, "p")
        numbers = (self.against, f"{self.delta:+.4f}", interval, p, floor)
        table = show.grid(("against", "difference", "95 % interval", "p", "A/A floor"), [numbers])
        return "\n\n".join(filter(None, (f"**{self.status}**: {self.reason}", table, self.noise)))


@dataclass
class Ledger:
    """All sealed runs of a folder, oldest first. Make it with `Ledger.read()`."""

    folder: Path
    records: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path | None = None) -> Ledger:
        """The runs that `ledger.jsonl` lists. Raises Tampered naming the line where the chain breaks."""
        folder = folder or runs_folder()
        return cls(folder, [row["record"] for row in checked_lines(folder / LEDGER)])

    def frame(self) -> pd.DataFrame:
        """A row a run, oldest first, as tables want it: texts, whole numbers and fractions, all in one level.

        `quality`, `low`, `high` are the run's own, `delta`, `p`, `delta_low`, `delta_high` those of its comparison. What a
        run does not have is missing. `competes` are the scored experiments of the climb; a run whose pipeline never came
        to ask the model is `idle`, says nothing about its lever and is not among them.
        """
        return self._frame.copy()

    @cached_property
    def _frame(self) -> pd.DataFrame:
        import pandas as pd

        texts = [*FIELDS, "against", "reason", "wtl", "method", "weights", "harness"]
        f = pd.DataFrame([_flat(r) for r in self.records], columns=[*texts, *WHOLE, *FRACTIONS])
        f = f.astype(dict.fromkeys(WHOLE, "Int64") | dict.fromkeys(FRACTIONS, "float64"))
        f["cases"] = f[list(COUNTS)].sum(axis=1, skipna=False)
        f["calls_a_case"], f["new_tokens_a_case"] = (
            (f[k] / f.cases).astype("float64") for k in ("calls", "new_tokens")
        )
        f["idle"] = ((f.calls == 0) & (f.no_answer == f.cases)).fillna(False).astype(bool)
        mine = (f.kind == "experiment") & ~f.lever.isin(REFERENCE) & (f.status != "invalid")
        return f.assign(competes=mine & f.quality.notna() & ~f.idle)

    # --- looking things up

    def get(self, run: str) -> dict[str, Any]:
        """A record by id, number or slug (the newest with that slug). Raises KeyError."""
        found = next((r for r in reversed(self.records) if named(r, run)), None)
        if found is None:
            raise KeyError(f"no run {run!r} in {self.folder}; there are {len(self.records)} runs")
        return found

    def of(self, record: dict[str, Any]) -> str:
        """Id of the run that a record's `of` names, among those sealed before it; `of` itself where it names none."""
        before = takewhile(lambda r: r["id"] != record["id"], self.records) if record["id"] else self.records
        return next((r["id"] for r in reversed(list(before)) if named(r, record["of"])), record["of"])

    def first(self, record: dict[str, Any]) -> str:
        """Id of the run that a record repeats, through repeats of repeats; where it repeats none, what `of` gives."""
        by_id = {r["id"]: r for r in self.records}
        of = self.of(record)
        while of in by_id and by_id[of]["of"]:
            of = self.of(by_id[of])
        return of

    def by_key(self, key: str) -> dict[str, Any] | None:
        """The newest run with a key that came to an end, or None; a leak would come again, so it counts as an end."""
        ended = (r for r in reversed(self.records) if r["status"] not in ("crashed", "invalid") or r.get("leaks"))
        return next((r for r in ended if r["key"] == key), None)

    def cases(self, run: str) -> list[dict[str, Any]]:
        """The rows of a run's cases.jsonl."""
        text = (self.folder / run / "cases.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in rows(text)]

    def qualities(self, run: str) -> dict[str, float]:
        """Quality by case id of a run, without the unscored."""
        return qualities(self.cases(run))

    def climb(self, fingerprint: str, gate: str = "full") -> list[dict[str, Any]]:
        """The experiments that compete with each other: one fingerprint, one gate, no references, nothing invalid."""
        return [
            r
            for r in self.records
            if r["fingerprint"] == fingerprint and r["gate"] == gate and r["kind"] == "experiment"
            and r["lever"] not in REFERENCE and r["status"] != "invalid"
        ]  # fmt: skip

    def champion(self, fingerprint: str) -> dict[str, Any] | None:
        """The last kept run of the full gate."""
        return next((r for r in reversed(self.climb(fingerprint)) if r["status"] == "kept"), None)

    def screened(self, fingerprint: str) -> dict[str, Any] | None:
        """What a run on the dev gate is compared with: the champion's own run there, else the last one."""
        champion = self.champion(fingerprint) or {}
        there = [r for r in self.climb(fingerprint, "dev") if r["scores"]]
        same = [r for r in there if all(r[k] == champion.get(k) for k in SETUP)]
        return (same or there or [None])[-1]

    def looks(self, fingerprint: str | None = None) -> list[dict[str, Any]]:
        """Every look at the sealed gate, oldest first."""
        return [r for r in self.records if r["kind"] == "confirm" and fingerprint in (None, r["fingerprint"])]

    def confirmed(self, fingerprint: str) -> dict[str, Any] | None:
        """The last look that confirmed its run (the first look counts: it is what later ones must beat)."""
        return next((r for r in reversed(self.looks(fingerprint)) if r["status"] == "kept"), None)

    def calibration(self, fingerprint: str) -> dict[str, Any] | None:
        """The newest sealed calibration of this ruler and judge that measured a floor."""
        made = (r for r in reversed(self.records) if r["kind"] == "calibrate" and r["fingerprint"] == fingerprint)
        return next((r for r in made if r.get("found", {}).get("floor") is not None), None)

    def noise(self, fingerprint: str, sampled: bool = True) -> str:
        """Floor and false-keep rate of the keep rule on this ruler and judge, in one sentence."""
        made = self.calibration(fingerprint)
        return noise.sentence(made["found"], sampled) + f" ({made['id']})" if made else noise.sentence({})

    def sees(self, fingerprint: str, sampled: bool = True) -> str:
        """The smallest gain that the keep rule finds in four of five runs, in one sentence: read it before you spend."""
        made = self.calibration(fingerprint)
        gain = noise.detectable_in(made["found"], sampled) if made else None
        if not made or gain is None:
            return "Which gain this comparison can see is not measured yet: `notch calibrate`."
        if not gain:
            return f"In {made['id']} repeats differed in nothing, so it cannot say which gain this comparison can see."
        return f"The smallest gain that this comparison sees with 80 % power is {gain:.3f} on quality ({made['id']})."

    def floor(self, fingerprint: str, sampled: bool = True) -> float | None:
        """The measured A/A floor: the newest calibration's, else the largest difference that a repeat has shown.

        `sampled`: whether one of the two runs that are compared draws its answers; two greedy ones have a floor of
        their own. None if unmeasured.
        """
        made = self.calibration(fingerprint)
        if made:
            return noise.floor_of(made["found"], sampled)
        seen = [
            abs(r["decision"]["delta"])
            for r in self.records
            if r["lever"] == "a/a" and r["fingerprint"] == fingerprint and r["decision"].get("delta") is not None
            and (sampled or not samples(r))
        ]  # fmt: skip
        return max(seen) if seen else None

    def pooled(self, record: dict[str, Any], qualities: dict[str, float]) -> tuple[dict[str, float], int]:
        """Mean quality by case over a run and the runs that it repeats, and how many looks that makes.

        Each look at the same hypothesis is another chance for luck, so p must be below 0.05 / looks.
        """
        first = self.first(record)  # by id, however each of them names it
        climb = [r for r in self.climb(record["fingerprint"]) if r["scores"]]
        same = [r for r in climb if r["id"] == first or (r["of"] and self.first(r) == first)]
        seen = [q for r in same if (q := self.qualities(r["id"])).keys() == qualities.keys()] + [qualities]
        return {case: sum(q[case] for q in seen) / len(seen) for case in qualities}, len(seen)

    # --- the keep rule

    def decide(self, record: dict[str, Any], qualities: dict[str, float]) -> Decision:
        """Apply the keep rule to a run that is not in the ledger yet.

        Gold in the answers makes a run invalid, whatever else it is. Keep needs p < 0.05 in a paired sign-flip test
        against the champion and a mean difference above the A/A floor: that of greedy runs when both are, else that
        of sampling. Otherwise indecisive while the interval still admits the smallest effect worth keeping, else
        discarded. A repeat (`of` names a run of the full gate) is decided on the mean of all looks,
        with a stricter p.
        """
        fingerprint, lever = record["fingerprint"], record["lever"]
        if record.get("leaks"):
            return Decision("invalid", _leak(record))
        if record["scores"].get("unscored"):
            return Decision("incomplete", f"{record['scores']['unscored']} cases are unscored; judge them again first")
        if record["kind"] == "confirm":
            rival = self.confirmed(fingerprint)
            first = "first look at the sealed gate: the reference for later confirmations"
        elif lever == "a/a":
            of = self.of(record)
            rival = next((r for r in self.records if r["id"] == of), None)
            first = "nothing to repeat: name the repeated run in `of`"
        elif record["gate"] == "full":
            rival = self.champion(fingerprint)
            first = "first run on this ruler: the baseline that others must beat"
        else:
            rival = self.screened(fingerprint)
            first = "first run on this gate; the dev gate screens and never keeps"
        if rival is None:
            keeps = record["kind"] == "confirm" or (record["gate"] == "full" and lever not in REFERENCE)
            return Decision("kept" if keeps else "reference", first)
        other = self.qualities(rival["id"])
        if rival["fingerprint"] != fingerprint or other.keys() != qualities.keys():
            return Decision("reference", f"not comparable with {rival['id']}: another ruler, judge or gate")
        looks, sampled = 1, samples(record) or samples(rival)
        if record["of"] and record["gate"] == "full" and record["kind"] == "experiment" and lever not in REFERENCE:
            qualities, looks = self.pooled(record, qualities)
        test, floor = paired(qualities, other), self.floor(fingerprint, sampled)
        numbers = {k: getattr(test, k) for k in ("delta", "p", "low", "high")}
        numbers |= {"against": rival["id"], "floor": floor, "noise": self.noise(fingerprint, sampled)}
        if lever in REFERENCE:
            return Decision("reference", "measured beside the climb, never part of it", **numbers)
        status, reason = keep.decide(test, floor, record["min_effect"], looks)
        if status == "kept" and record["gate"] == "dev":
            status = "indecisive"
            reason = "better on the dev gate, which screens and never keeps; run it on the full gate"
        return Decision(status, reason, **numbers)


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    """A record in one level, as a row of `Ledger.frame`."""
    s, d, cost = record["scores"], record["decision"], record["cost"]
    found, judged = record.get("found") or {}, record["judge"] == "claude"
    return {
        **{k: record[k] for k in (*FIELDS, "seed", "predicted", "min_effect", "seconds")},
        **{k: s.get(k) for k in ("quality", "low", "high", *COUNTS)}, **s.get("dims", {}),
        **{k: d.get(k) for k in ("delta", "p")}, "delta_low": d.get("low"), "delta_high": d.get("high"),
        "wtl": f"{s['wins']}/{s['ties']}/{s['losses']}" if s else "", "against": d.get("against", ""),
        "reason": d.get("reason", ""), "calls": cost.get("calls"), "new_tokens": cost.get("generation_tokens"),
        "dollars": cost.get("judge_dollars", 0.0) + cost.get("dollars", 0.0),
        # Without a real judge usefulness measures nothing: the offline one rates gold of another task above gold.
        "useful": found.get("useful", {}).get("mean") if judged else None, "method": found.get("method", ""),
        "weights": (record["identity"].get("model") or {}).get("adapter") or record["adapter"],
        "harness": canonical([record[k] for k in HARNESS]),
    }  # fmt: skip


def named(record: dict[str, Any], run: str) -> bool:
    """Whether a text names this run: by id, number or slug."""
    return run in (record["id"], record["slug"]) or (run.isdecimal() and record["id"].startswith(f"{int(run):04d}-"))


def samples(record: dict[str, Any]) -> bool:
    """Whether a run drew its answers: what its calls did, or in older records what its decoding says."""
    said = record.get("sampled")
    return bool((record["decoding"] or {}).get("temp")) if said is None else bool(said)


def _leak(record: dict[str, Any]) -> str:
    found = record["leaks"]
    # The sealed gate names nothing: a case that is known to be in it is worn out a little.
    where = "" if record["gate"] == "confirm" else f" ({', '.join(found)})"
    return (
        f"gold stands word for word in the answers of {len(found)} cases{where}; find where the model saw it, "
        "then run again"
    )


# --- lines and folders ---------------------------------------------------------------------------


def checked_lines(path: Path) -> list[dict[str, Any]]:
    """The ledger's rows after a check of the hash chain. Raises Tampered naming the first bad line."""
    log = Log(path, LINES)
    if log.torn:
        raise Tampered(f"{path}: the last line is cut off; `notch verify --repair` rebuilds it from the sealed runs")
    return log.rows


def sealed_folders(folder: Path) -> list[Path]:
    """The complete runs of a folder, in the order of their numbers."""
    found = (p.parent for p in folder.glob("[0-9]*-*/" + SEAL))
    return sorted((p for p in found if _number(p) is not None), key=lambda p: (_number(p), p.name))


def _number(run: Path) -> int | None:
    """The number of a run's folder, or None where the name is not one that notch gives."""
    match = re.fullmatch(r"(\d{4,})-.+", run.name)
    return int(match[1]) if match else None


def rebuilt(folder: Path) -> list[bytes]:
    """The ledger's lines as the sealed folders say they must be. Raises Tampered on a broken record."""
    lines: list[bytes] = []
    before = START
    for number, run in enumerate(sealed_folders(folder), 1):
        path = run / "record.json"
        try:
            record = json.loads(path.read_bytes())
            line = LINES.line({"id": run.name, "seal": sha256_file(run / SEAL), "record": record}, number, before)
        except (OSError, ValueError) as error:
            raise Tampered(f"{path}: cannot be read as a record ({error})") from error
        lines.append(line)
        before = sha256(line)
    return lines


def sync(folder: Path) -> list[str]:
    """Bring the ledger up to the sealed runs after an interruption, and clear what was left half done.

    Adds missing last lines and completes a torn one; returns what was done, in words. Raises Tampered where lines
    and folders contradict each other. Call it with the lock held.
    """
    done = []
    for leftover in folder.glob(".tmp-*"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        done.append(f"cleared {leftover.name}, left by an interrupted run")
    path = folder / LEDGER
    want = rebuilt(folder)
    *have, torn = (path.read_bytes() if path.exists() else b"").split(b"\n")
    if have != want[: len(have)]:
        number = next((i for i, (a, b) in enumerate(zip(have, want, strict=False)) if a != b), len(want)) + 1
        raise Tampered(f"{path}:{number}: differs from the sealed run; nothing was written")
    missing = [json.loads(line) for line in want[len(have) :]]
    if torn or missing:
        Log(path, LINES).extend(missing)
    if torn:
        done.append("cut off a torn last line of the ledger")
    return done + [f"added {row['id']} to the ledger" for row in missing]


def seal(folder: Path, slug: str, files: dict[str, bytes], finish: Callable[[str], dict[str, bytes]]) -> str:
    """Seal a run: all files and SEALED appear at once, under the next number; then its ledger line. Returns the id.

    `finish(id)` gives the files that need to know the id. Raises OSError (disk full: nothing stays).
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock"):
        sync(folder)
        number = len(sealed_folders(folder)) + 1
        run = f"{number:04d}-{slug}"
        temp = folder / f".tmp-{run}"
        temp.mkdir()
        try:
            for name, data in {**files, **finish(run)}.items():
                (temp / name).parent.mkdir(parents=True, exist_ok=True)
                write_new(temp / name, data)
            names = [p.relative_to(temp).as_posix() for p in temp.rglob("*") if p.is_file()]
            write_new(temp / SEAL, sums(temp, names))
            sync_folder(temp)
            os.rename(temp, folder / run)
            sync_folder(folder)
        except BaseException:
            shutil.rmtree(temp, ignore_errors=True)
            raise
        sync(folder)
    return run


# --- verification --------------------------------------------------------------------------------


def verify(folder: Path) -> list[str]:
    """Everything that is wrong with a folder of runs, one sentence each; empty when all is well.

    Checks every byte against the seals, every line of the ledger against its run, and computes every quality and
    every score again from the stored judgments.
    """
    if not folder.exists():
        return []
    wrong = []
    for run in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
        if not (run / SEAL).exists() or _number(run) is None:
            wrong.append(f"{run}: no sealed run; a run is a folder such as 0001-name with a {SEAL}")
            continue
        wrong += check_sums(run, (run / SEAL).read_text(encoding="utf-8", errors="replace"), SEAL)
        wrong += [f"{p}: a hidden file, added later" for p in run.rglob(".*")]
    stray = [p for p in folder.iterdir() if p.is_file() and p.name not in BESIDE and not p.name.startswith(".")]
    wrong += [f"{p}: does not belong to a folder of runs" for p in stray]
    wrong += verify_ledger(folder) + verify_ratings(folder)
    if not wrong:
        for run in sealed_folders(folder):
            wrong += _verify_scores(run)
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


def _check_rating(folder: Path, row: dict[str, Any], answers: dict[str, dict[str, str]]) -> None:
    """Raise ValueError where a line of ratings.jsonl does not fit its sealed run; `answers` keeps what was read."""
    if row.get("kind") == "undo" and isinstance(row["item"], str) and isinstance(row.get("who"), str):
        return
    if row.get("kind") != "rating":
        raise ValueError(
            f"kind is {row.get('kind')!r}, who {row.get('who')!r}: expected a rating, or an undo with both"
        )
    rating = Rating.of(row)
    if Path(rating.run).name != rating.run or not (folder / rating.run / SEAL).exists():
        raise ValueError(f"{rating.run!r} is no sealed run here")
    record = json.loads((folder / rating.run / "record.json").read_bytes())
    if record["kind"] != "experiment" or record["gate"] not in RATABLE:
        raise ValueError(f"{rating.run} is no experiment of the gates {' and '.join(RATABLE)}")
    if record["fingerprint"] != rating.fingerprint:
        raise ValueError(f"its fingerprint is not that of {rating.run}")
    if rating.run not in answers:
        text = (folder / rating.run / "cases.jsonl").read_text(encoding="utf-8")
        answers[rating.run] = {r["case"]: item_of(r) for r in map(json.loads, rows(text)) if r["answer"]}
    if answers[rating.run].get(rating.case) != rating.item:
        raise ValueError(f"the answer of {rating.run} to {rating.case} is another one")


def item_of(row: dict[str, Any]) -> str:
    """The id of the answer that a row of cases.jsonl holds."""
    return item_id(row["case"], row["answer"]["title"], row["answer"]["questions"])


def qualities(rows: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Quality by case id, without the unscored."""
    return {r["case"]: r["quality"] for r in rows if r["quality"] is not None}


def answer_of(row: dict[str, Any]) -> Answer:
    """The answer that a row of cases.jsonl stores, where it has one."""
    return Answer(row["answer"]["title"], tuple(row["answer"]["questions"]))


def outcome_of(row: dict[str, Any]) -> Outcome:
    """The outcome that a row of cases.jsonl stores."""
    if row["judgment"] is not None:
        j = row["judgment"]
        return Judgment(j["scores"], j["verdict"], j.get("notes", {}), j.get("flipped", False), j.get("dollars", 0.0))
    return NoAnswer(row["no_answer"]) if row["no_answer"] is not None else Unscored(row["unscored"] or "")


def recomputed(record: dict[str, Any], cases: list[dict[str, Any]]) -> list[str]:
    """What does not follow from the stored judgments: a quality, a score of the run, a reading. Empty when all does."""
    outcomes = [outcome_of(row) for row in cases]
    odd = [f"quality of {r['case']}" for r, o in zip(cases, outcomes, strict=True) if case_quality(o) != r["quality"]]
    if not cases:
        return ["scores without a case"] if record["scores"] else []
    if record["kind"] in READINGS:
        said = record["found"]
        again = {k: v for k, v in READINGS[record["kind"]](cases).items() if k in said}  # later code may read more
    else:
        again, said = score(outcomes).as_dict(), record["scores"]
        asked = (record.get("found") or {}).get("useful", {})
        odd += ["usefulness"] if not alike(usefulness(cases), asked) else []
        if "copies" in cases[0] and leaks(cases) != record.get("leaks"):
            odd.append("leaks")
    return odd + [k for k, v in again.items() if not alike(v, said.get(k), k)]


# What is drawn by resampling comes out a little otherwise with another version of the library that draws.
DRAWN, DRAW_NEAR = frozenset({"low", "high", "p"}), 0.01


def alike(again: Any, said: Any, name: str = "") -> bool:
    """Whether plain data says the same: exactly, but for intervals and probabilities, which may be 0.01 apart."""
    if isinstance(again, Mapping) and isinstance(said, Mapping):
        return again.keys() == said.keys() and all(alike(again[k], said[k], k) for k in again)
    if isinstance(again, list | tuple) and isinstance(said, list | tuple):
        return len(again) == len(said) and all(map(partial(alike, name=name), again, said))
    if name in DRAWN and isinstance(again, float) and isinstance(said, float):
        return abs(again - said) <= DRAW_NEAR
    return canonical(again) == canonical(said)


def _copied(record: dict[str, Any], cases: list[dict[str, Any]]) -> list[str]:
    """Rows whose count of gold questions is not what gold says, where gold is still the one that was compared."""
    try:
        ruler = Ruler.load(RULER)
    except (Tampered, BadRuler):
        return []  # is said elsewhere; a seal needs no ruler
    if record["kind"] in READINGS or ruler.fingerprint(record["identity"].get("judge", {})) != record["fingerprint"]:
        return []
    own = {c.id: c for c in ruler.cases}
    odd = []
    for row in cases:
        if row.get("answer") and row["case"] in own:
            said = copies(own[row["case"]], answer_of(row))
            odd += [f"copies of {row['case']}"] if said != row.get("copies", said if said < 2 else None) else []
    return odd


def _verify_scores(run: Path) -> list[str]:
    try:
        record = json.loads((run / "record.json").read_bytes())
        cases = [json.loads(line) for line in rows((run / "cases.jsonl").read_text(encoding="utf-8"))]
        odd = recomputed(record, cases) or _copied(record, cases)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"{run}: record or cases cannot be read ({type(error).__name__}: {error})"]
    where = "cases.jsonl" if odd and odd[0].startswith(("quality of", "copies of")) else "record.json"
    return [f"{run / where}: {odd[0]} does not follow from the judgments"] if odd else []
