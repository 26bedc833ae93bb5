"""What can run and what comes out: the part that experiment, calibration, re-judge, comparison and training share.

Knows parameters, keys, records and the clock. Does not know what is done with them, nor how a run is sealed.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from typing_extensions import Self

from lib.files import RULER, Exit, OneLine, runs_folder, tell
from lib.forms import Text, form
from lib.log import now
from lib.measure.judge import Judge
from lib.measure.ruler import Ruler
from lib.models import load
from lib.runs.ledger import Ledger, NoRun
from lib.runs.offline import OfflineJudge
from lib.runs.provenance import code_state, machine, run_key
from lib.runs.record import Decision, Json, Record, Result, record_of
from lib.show import Markdown, bar, cell

DECLARED = ("kind", "hypothesis", "predicted", "min_effect", "lever", "pipeline", "model", "adapter", "decoding", "judge",
         "gate", "seed", "batch", "judging", "of", "useful")  # of a record, as the parameters say it  # fmt: skip


# Of a run by its id: what lies there never changes, so no key has to hash it.
SEALED_ADAPTER = re.compile(r"((runs/)?\d{4,}-[a-z0-9-]+(/adapter)?(/epoch-\d\d)?)?")


class BadParameters(OneLine, ValueError):
    """Parameters that cannot run; the message says which, what came and what was expected."""

    exit = Exit.USAGE


def judge_named(
    name: str, ruler: Ruler | None = None, batch: bool = False, judging: Json | None = None, runs: Path | None = None
) -> Judge:
    """The judge of a run; `batch` and `judging` are for Claude, whose replies are stored in the folder of runs.

    Raises BadParameters, UnknownModel, Tampered.
    """
    if name == "offline":
        if batch or judging:
            raise BadParameters("batch and judging are for judge 'claude'; the offline judge takes neither")
        return OfflineJudge()
    if name != "claude":
        raise BadParameters(f"judge is {name!r}: expected offline or claude")
    from lib.claude.store import NAME
    from lib.measure.claude_judge import ClaudeJudge

    given: Json = {"batch": batch} | (judging or {})
    # Arguments of ClaudeJudge too; but a run with a store of its own would pay again for what its folder holds.
    if own := given.keys() & {"ruler", "store", "poll"}:
        raise BadParameters(f"judging has {min(own)!r}, which a run does not choose; take it out")
    if given["batch"] is not batch:
        raise BadParameters("batch is a parameter of its own; take it out of judging")
    try:
        return ClaudeJudge(ruler, store=(runs or runs_folder()) / NAME, **given)
    except (ValueError, TypeError) as error:
        raise BadParameters(str(error)) from error


def sealed_run(ledger: Ledger, run: str) -> Record:
    """The record that a parameter names. Raises BadParameters."""
    try:
        return ledger.get(run)
    except NoRun as error:
        raise BadParameters(str(error)) from error


class Clock:
    """When a run began and how long it has taken."""

    def __init__(self) -> None:
        self.started, self._began = now(), time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._began

    @property
    def times(self) -> Json:
        """The same for a record."""
        return {"started": self.started, "seconds": round(self.seconds, 3)}


OFTEN = 0.5  # s between two lines about one stage


class Telling:
    """How far a run is, as a line for whoever waits; nothing where nobody does.

    The cases of a batch go side by side, so of many calls a case a part of the calls counts as that part of the cases.
    """

    def __init__(self, cases: int, calls: float, what: str = "") -> None:
        self.cases, self.calls, self.what = cases, max(1.0, cases * calls), what
        self._began, self._next, self._stage = time.monotonic(), 0.0, ""

    def say(self, text: str) -> None:
        """Say one line, in place of the last."""
        tell(text, self.what)

    def __call__(self, stage: str, replies: float) -> None:
        """So many replies of all stages are there. With the first call time begins."""
        now, share = time.monotonic(), min(1.0, replies / self.calls)
        if not self._stage:
            self._began = now
        if stage == self._stage and now < self._next:
            return
        self._stage, self._next = stage, now + OFTEN
        left = (now - self._began) * (1 / share - 1) if share else None
        self.say(bar(stage, int(share * self.cases), self.cases, "cases", left))


NOTHING: Json = {}


@form(BadParameters)
class Runnable:
    """What a parameters cell says. Nothing runs until `run()`."""

    hypothesis: Text = ""
    kind: str = ""
    folder: Path | None = None  # of sealed runs; None in a notebook, which looks where its kernel was told to
    # What has no such parameter leaves these as they are.
    # Without annotations: else they would be parameters of every kind of run.
    model = ""  # none answers
    judge = "offline"
    batch = False
    judging = NOTHING

    @cached_property
    def ruler(self) -> Ruler:
        """The ruler in use, read once. Raises BadRuler, Tampered."""
        return Ruler.load(RULER)

    @cached_property
    def the_judge(self) -> Judge:
        """The judge that it names, made once. Raises BadParameters, UnknownModel, Tampered."""
        return judge_named(self.judge, self.ruler, self.batch, self.judging, self.folder)

    @property
    def fingerprint(self) -> str:
        """Ruler and judge as one hash: results of different ones are never compared."""
        return self.ruler.fingerprint(self.the_judge.identity)

    @property
    def runs_folder(self) -> Path:
        """Where sealed runs lie."""
        return self.folder or runs_folder()

    @property
    def ledger(self) -> Ledger:
        """The sealed runs, as they are now."""
        return Ledger.read(self.runs_folder)

    @property
    def parameters(self) -> Json:
        """Its parameters as the cell of a notebook holds them."""
        # Without the folder: the same run in another one has the same key.
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("kind", "folder")}

    @property
    def keyed(self) -> Json:
        """What tells two runs of a kind apart, beside ruler and judge."""
        return self.parameters

    @property
    def adapters(self) -> tuple[str, ...]:
        """Every adapter that it names."""
        return ()

    @property
    def key(self) -> str:
        """Same key, same run. A path says only where weights lie, so what lies there is part of it too."""
        # A name that is pinned or sealed never changes its meaning; hashing it here would only end every older key.
        contents = {}
        if load.placed(self.model) and self.model:
            contents[self.model] = load.identity(self.model)
        for adapter in self.adapters:
            if not SEALED_ADAPTER.fullmatch(adapter):
                contents[adapter] = load.adapter_identity(adapter, self.runs_folder)
        keyed = self.keyed | {"contents": contents} if contents else self.keyed
        return run_key(self.kind, keyed, self.measured_by)

    @property
    def measured_by(self) -> str:
        """What measures it, for its key."""
        return self.fingerprint

    def check(self) -> Self:
        """Refuse what cannot run or must not. Raises BadParameters."""
        if not self.hypothesis.strip():
            raise BadParameters(
                'hypothesis is empty: say what you expect and why before you look (-p hypothesis "...")'
            )
        return self

    def record(self, **findings: Any) -> Record:
        """The record of a run of this, with what came out."""
        setup = {name: getattr(self, name) for name in DECLARED if hasattr(self, name)}
        stamps = {"fingerprint": self.fingerprint, "code": code_state(), "machine": machine(), "key": self.key}
        return record_of({**setup, **stamps, **findings})

    @property
    def slug(self) -> str:
        """What its run is called where nobody says otherwise."""
        return self.kind

    @property
    def plan(self) -> str:
        """What it takes, to be read before it is spent."""
        return self.hypothesis

    def files(self, record: Record) -> dict[str, bytes]:
        """What the seal keeps beside notebook, record and cases. Raises OSError."""
        return {}

    def clear(self) -> None:
        """Forget what lies in work folders: everything is sealed."""

    @property
    def card(self) -> Markdown:
        """What was expected before anybody looked."""
        return Markdown(f"> {cell(self.hypothesis)}")


# A repr of every case would stand in the sealed notebook.
@dataclass(frozen=True, repr=False)
class Finding:
    """What came out, before it is sealed."""

    runnable: Any
    record: Record
    cases: list[Any]  # rows

    @property
    def found(self) -> Json:
        """What was measured beside scores, as plain data: what tables read."""
        return self.record.found.as_dict()

    @property
    def decision(self) -> Decision:
        """What becomes of it, and why."""
        raise NotImplementedError

    @property
    def result(self) -> Result:
        """The one result record: display it last."""
        decision = self.decision
        return Result(self.record.revised(status=decision.status, decision=decision), self.cases)
