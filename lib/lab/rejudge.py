"""A re-judge without one dimension: stored answers judged again, blind and as a placebo, compared pair by pair.

Knows which runs can be judged again and with which two judges. Makes no answer: what the models said is as it was.
The result is a reference beside the climb, never part of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

from lib.forms import Text, form
from lib.lab.base import BadParameters, Clock, Finding, Runnable, judge_named
from lib.lab.calibration import CAP, price, stored
from lib.measure.answer import Answer
from lib.measure.calibrate import row_of
from lib.measure.checks import blind
from lib.measure.judge import DIMENSIONS, DIMS, Judge
from lib.measure.keep import ALPHA
from lib.measure.ruler import Case
from lib.runs.ledger import Ledger
from lib.runs.offline import OfflineJudge
from lib.runs.record import Decision, Json, Record
from lib.show import Markdown, chance, plural


@form(BadParameters)
class Rejudge(Runnable):
    """What the parameters cell says. Nothing runs until `run()`."""

    hypothesis: Text = "If the dimension were the reason for the losses, a judge that is blind to it would call fewer."
    runs: list[str] = field(default_factory=list)
    without: Literal[DIMENSIONS] = "coverage"  # type: ignore[valid-type]
    judge: str = "offline"
    batch: bool = False
    judging: Json = field(default_factory=dict)  # dollars are for both judges together
    kind: str = "rejudge"
    lever: ClassVar[str] = "re-judge"

    def __post_init__(self) -> None:
        if self.judging.get("protocol", "balanced") != "balanced":
            raise BadParameters("a blind re-judge needs protocol 'balanced': the prompt of 'seed' names no dimension")

    @cached_property
    def the_judge(self) -> Judge:
        """The placebo: the ordinary judge, asked afresh."""
        return judge_named(self.judge, self.ruler, self.batch, self._judging(), self.folder)

    @cached_property
    def blind_judge(self) -> Judge:
        """The same judge without the dimension."""
        if self.judge == "offline":
            return blind.BlindOfflineJudge(self.without, OfflineJudge())
        return judge_named(
            self.judge, blind.without(self.ruler, self.without), self.batch, self._judging(), self.folder
        )

    def _judging(self) -> Json:
        """Parameters of one of the two judges: a replicate of its own, so that no stored reply comes back."""
        if self.judge != "claude":
            return self.judging
        cap = float(self.judging.get("dollars", CAP))
        # Half each: both judges together stay under the cap that was given.
        return {"replicate": 1, **self.judging, "dollars": cap / 2}

    def check(self) -> Rejudge:
        """Refuse what cannot be judged again: no run, a run that is not there, the sealed gate, a judge without a key."""
        super().check()
        if not self.runs:
            raise BadParameters("runs is empty: name the runs whose answers are judged again")
        for run in self.runs:
            self._pairs(run)
        for judge in (self.the_judge, self.blind_judge):
            if hasattr(judge, "check"):
                judge.check()
        return self

    @property
    def slug(self) -> str:
        return f"rejudge-without-{self.without}"

    @property
    def ids(self) -> list[str]:
        """The runs by id, each once."""
        ledger = self.ledger
        return list(dict.fromkeys(ledger.get(r).id for r in self.runs))

    def _pairs(self, run: str) -> list[tuple[Case, Answer]]:
        return stored(self.ledger, run, self.ruler)

    def run(self) -> Rejudged:
        """Judge the stored answers of every run twice. Raises what the judges raise."""
        self.check()
        clock, ledger = Clock(), self.ledger
        rows = [row for run in self.ids for row in self._rows(ledger, run)]
        findings = {**blind.readings(rows), "without": self.without, "parameters": self.parameters}
        spent = sum(getattr(getattr(j, "cost", None), "dollars", 0.0) for j in (self.the_judge, self.blind_judge))
        record = self.record(
            found=findings, cost={"calls": 0, "generation_tokens": 0, "judge_dollars": round(spent, 6)},
            identity={"judge": self.the_judge.identity, "blind": self.blind_judge.identity}, **clock.times,
        )  # fmt: skip
        return Rejudged(self, record, rows)

    def _rows(self, ledger: Ledger, run: str) -> list[Json]:
        """Of every case the stored judgment (where ruler and judge were these), the placebo's and the blind one's."""
        pairs = self._pairs(run)
        old = ledger.cases(run)
        rows = []
        if ledger.get(run).fingerprint == self.fingerprint:
            rows = [row_of("stored", r.case, r.outcome, run=run) for r in old]
        # Both judge afresh: compared with what is stored, a second judging alone would look like the dimension.
        for part, judge in (("placebo", self.the_judge), ("blind", self.blind_judge)):
            judged = dict(zip((c.id for c, _ in pairs), judge.judge_all(pairs), strict=True))
            # A case without an answer has nothing to judge again, and stays what it was.
            rows += [row_of(part, r.case, judged.get(r.case, r.outcome), run=run) for r in old]
        return rows

    def record(self, **findings: Any) -> Record:
        """The record of this re-judge with what came out."""
        ledger = self.ledger
        gates = dict.fromkeys(ledger.get(run).gate for run in self.ids)
        return super().record(gate=", ".join(gates), of=", ".join(self.ids), **findings)

    # --- what the notebook shows

    @property
    def card(self) -> Markdown:
        """What was expected before anything was judged."""
        return Markdown(f"{super().card.text}\n\nLeft out: **{DIMS[self.without]}**.")

    @property
    def plan(self) -> str:
        """What it takes, and what comparisons can see so far: to be read before money is spent."""
        count = 2 * sum(len(self._pairs(run)) for run in self.ids)
        return f"{count} judgments{price(self, count)}. {self.ledger.sees(self.fingerprint)}"

    def _repr_markdown_(self) -> str:
        return (
            f"The stored answers of {', '.join(self.ids)} are judged twice by **{self.judge}**: once without "
            f"**{DIMS[self.without]}** in rubric and verdict, once with all five as a placebo. A second "
            f"judging alone moves numbers, so only the difference between the two counts.\n\n{self.plan}"
        )


@dataclass(frozen=True, repr=False)
class Rejudged(Finding):
    """What a re-judge found, before it is sealed."""

    @property
    def decision(self) -> Decision:
        """Nothing is kept; the sentence says what removing the dimension did."""
        runs = {k: v for k, v in self.found["runs"].items() if v["cases"]}
        moved = [k for k, v in runs.items() if v["judged"]["p"] < ALPHA]
        before, after = (sum(v["losses"][i] for v in runs.values()) for i in (0, 1))
        without = DIMS[self.runnable.without]
        effect = (
            f"without {without} the losses to gold go from {before} to {after} in {plural(len(runs), 'run')}; beyond "
        )
        effect += f"the arithmetic of one score fewer, quality moves beyond chance in {', '.join(moved) or 'none'}"
        return Decision("reference", effect)

    def _repr_markdown_(self) -> str:
        lines = []
        for run, v in self.found["runs"].items():
            if not v["cases"]:
                lines.append(f"- **{run}**: nothing was scored.")
                continue
            judged = v["judged"]
            least = f"{judged['detectable']:.3f}" if judged["detectable"] else "any difference"
            lines.append(
                f"- **{run}**: {v['delta']:+.4f} (95 % {v['low']:+.3f} to {v['high']:+.3f}, p = {v['p']:.3g}). Arithmetic: "
                f"{v['from_dropping']:+.4f} from one score fewer in the mean. Judgment: {judged['delta']:+.4f} "
                f"({chance(judged['p'])}), of which {v['from_scores']:+.4f} from the other scores and "
                f"{v['from_verdicts']:+.4f} from verdicts; {v['losses'][0]} → {v['losses'][1]} losses. It could have seen "
                f"{least} of judgment with 80 % power."
            )
        return "\n".join(lines)
