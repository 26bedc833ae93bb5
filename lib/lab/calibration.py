"""A calibration: a judge and a decoding measured before anybody believes a difference; what comes out is a record.

Knows where texts and repeats come from: gold damaged, the controls, a run's stored answers judged again, the same
pipeline answered again with other seeds. Does not know how texts are damaged nor what noise means for the keep rule
(`lib.measure`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, ClassVar

from pydantic import Field

from lib.agent.prompt import BadReply, ask, parse_set
from lib.claude.prices import BudgetSpent, dollars
from lib.files import RULER, attributes
from lib.forms import Text, form
from lib.lab.base import BadParameters, Clock, Finding, Runnable, judge_named, sealed_run
from lib.lab.experiment import Experiment
from lib.measure import calibrate
from lib.measure.answer import Answer, NoAnswer, spec_gate
from lib.measure.checks import noise
from lib.measure.checks.damage import texts
from lib.measure.judge import Judge
from lib.measure.ruler import Case, Ruler
from lib.models.model import quoting
from lib.models.stored import PREFIX, read
from lib.runs.ledger import Ledger
from lib.runs.provenance import code_state
from lib.runs.record import CaseRow, Decision, Json, RunCost

TYPICAL = {"input_tokens": 2000, "output_tokens": 500}  # of one call of the judge by Claude
# They only have to show whether anything moves.
GREEDY = 2  # greedy repeats beside the sampled ones
CAP = 5.0  # dollars for the whole calibration, unless `judging` says otherwise


class Judges:
    """The judge of a run, one replicate after the other, all of them under one dollar cap."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment, self.cap = experiment, float(experiment.judging.get("dollars", CAP))
        self.first = int(experiment.judging.get("replicate", 0))
        self.spent = 0.0
        self._last: Any = None

    def judging(self, replicate: int) -> Json:
        """Parameters of one replicate, with what is left of the cap. Raises BudgetSpent."""
        if self.experiment.judge != "claude":
            return {}
        self._settle()
        if self.spent >= self.cap:
            raise BudgetSpent(f"the cap of ${self.cap:.2f} for this calibration is spent; what was answered is stored")
        left = {"dollars": self.cap - self.spent, "replicate": self.first + replicate}
        return {**self.experiment.judging, **left}

    def of(self, replicate: int) -> Judge:
        """A judge that asks afresh for each replicate; the offline judge is always the same."""
        e = self.experiment
        self._last = judge_named(e.judge, e.ruler, e.batch, self.judging(replicate), e.folder)
        return self._last

    def book(self, cost: RunCost) -> None:
        """Add what an experiment paid for judging."""
        self.spent += cost.judge_dollars or 0.0

    def _settle(self) -> None:
        self.spent += getattr(getattr(self._last, "cost", None), "dollars", 0.0)
        self._last = None


@form(BadParameters)
class Calibration(Runnable):
    """What the parameters cell says. Nothing runs until `run()`."""

    hypothesis: Text = "The judge sees each planted fault in its own dimension, and its noise is small."
    damaged: Annotated[int, Field(ge=0)] = 0  # cases whose gold is damaged; 0 is all of the gate
    repeats: Annotated[int, Field(ge=2)] = 5
    pipeline: list[Any] = field(default_factory=lambda: [{"step": "ask"}])
    model: str = "smollm2"
    adapter: str = ""
    decoding: Json = field(default_factory=lambda: {"temp": 0.7, "top_p": 0.95})
    judge: str = "offline"
    batch: bool = False
    judging: Json = field(default_factory=dict)
    gate: str = "full"
    seed: int = 0
    of: str = ""  # a run whose stored answers are judged again; empty: the first answers made here
    kind: str = "calibrate"
    lever: ClassVar[str] = "calibration"

    def __post_init__(self) -> None:
        if "seed" in self.decoding:
            raise BadParameters("decoding has a seed; a calibration answers with several, starting at `seed`")
        self.experiment(0)  # says what is wrong with the rest

    def experiment(self, repeat: int, judging: Json | None = None, greedy: bool = False) -> Experiment:
        """The pipeline of this calibration with the seed of one repeat, or greedy whatever its decoding says."""
        same = attributes(self, ("pipeline", "model", "adapter", "judge", "batch", "gate", "of"))
        # Greedy in how it draws and in nothing else: a shorter reply would be another measurement.
        plain = {k: v for k, v in self.decoding.items() if k == "max_tokens"}
        return Experiment(
            hypothesis=self.hypothesis, lever="decoding", decoding=plain if greedy else self.decoding,
            seed=self.seed + repeat, judging=self.judging if judging is None else judging, folder=self.folder, **same,
        )  # fmt: skip

    @cached_property
    def base(self) -> Experiment:
        """The experiment of the first repeat, which stands for all of them where something is checked."""
        return self.experiment(0)

    @property
    def adapters(self) -> tuple[str, ...]:
        return self.base.adapters

    def check(self) -> Calibration:
        """Refuse what cannot run: bad steps, model, decoding, judge, a stored run that does not fit, a leak."""
        self.base.check()
        if self.of:
            self._stored()
        return self

    @property
    def cases(self) -> tuple[Case, ...]:
        """The cases whose gold is damaged."""
        gate = self.base.ruler.gate(self.gate)
        return gate[: self.damaged] if self.damaged else gate

    @property
    def judgments(self) -> int:
        """How many judgments it takes at most."""
        controls = len(self._others()) + 3  # and gold, gold of another task, the any-task set
        # Twice: each repeat is answered and judged, and the first answers are judged as often again.
        answers = len(self.base.ruler.gate(self.gate)) * (2 * self.repeats + GREEDY + controls)
        return len(texts(self.cases[:1])) * len(self.cases) + answers

    def run(self) -> Calibrated:
        """Judge what must be placed, answer and judge again. Raises what an experiment raises."""
        self.check()
        clock = Clock()
        judges, ledger = Judges(self.base), self.ledger
        rows, cost = self._made(judges)
        pairs = self._stored() if self.of else self._answers(rows)
        for repeat in range(self.repeats):
            rows += calibrate.again(judges.of(repeat), pairs, repeat)
        rows += calibrate.placed(judges.of(0), self.cases)
        rows += calibrate.control(judges.of(0), self.base.ruler.gate(self.gate), self._others())
        # Before the readings: what the last judge cost is known only when it has ended.
        judges._settle()
        findings = calibrate.readings(rows)
        findings |= calibrate.worlds(rows, findings["floors"], self.seed)
        findings |= {"halo": calibrate.halo(_judgments(ledger, self.fingerprint, rows)), "parameters": self.parameters}
        cost |= {"judge_dollars": round(judges.spent, 6)}
        record = self.record(found=findings, cost=cost, identity={"judge": self.the_judge.identity}, **clock.times)
        return Calibrated(self, record, rows)

    def _made(self, judges: Judges) -> tuple[list[calibrate.Row], Json]:
        """The pipeline answered and judged again with other seeds, and greedily: rows with their answers, and the cost.

        The part says what the calls did, not what was asked for: a pipeline may draw where its decoding is greedy.
        """
        rows: list[calibrate.Row] = []
        cost: Json = {"calls": 0, "generation_tokens": 0}
        repeats = [(repeat, False) for repeat in range(self.repeats)]
        if self.decoding.get("temp"):
            repeats += [(repeat, True) for repeat in range(GREEDY)]
        for repeat, greedy in repeats:
            run = self.experiment(repeat, judges.judging(repeat), greedy).run()
            judges.book(run.record.cost)
            cost["calls"] += run.record.cost.calls
            cost["generation_tokens"] += run.record.cost.generation_tokens
            if greedy and run.record.sampled:
                break  # this pipeline has no greedy answers
            part = "fresh" if run.record.sampled else "greedy"
            for r in run.cases:
                rows.append(calibrate.row_of(part, r.case, r.outcome, repeat=repeat, answer=r.as_dict()["answer"]))
        return rows, cost

    def _answers(self, rows: Sequence[calibrate.Row]) -> list[tuple[Case, Answer]]:
        """Cases and answers of one repeat, to be judged again as they are; a case without an answer is left out."""
        # Greedy ones where there are any: their repeats cost no second call, the store knows them already.
        part = "greedy" if any(r["part"] == "greedy" for r in rows) else "fresh"
        first = (CaseRow.read(r) for r in rows if r["part"] == part and r["repeat"] == 0)
        return [(self.base.ruler.by_id[r.case], r.answer) for r in first if r.answer is not None]

    def _others(self) -> dict[str, list[Answer | NoAnswer]]:
        """An answer a case of the gate from every frontier that the ruler stores answers of, and from the toy."""
        cases = self.base.ruler.gate(self.gate)
        names = [f"{PREFIX}{path.stem}" for path in sorted((RULER / "answers").glob("*.jsonl"))]
        replies = {name: read(name).replies for name in names}
        written = {name: [self._read(own.get(c.task)) for c in cases] for name, own in replies.items()}
        return written | {calibrate.TOY: [self._read(quoting(ask(c.task))) for c in cases]}

    def _read(self, reply: str | None) -> Answer | NoAnswer:
        """A reply after the spec gate; NoAnswer where nothing is stored or it cannot be read."""
        protocol = self.base.ruler.protocol
        try:
            draft = parse_set(reply or "")
        except BadReply as error:
            return NoAnswer(str(error) if reply else "nothing is stored for this task")
        return spec_gate(draft.title, draft.questions, protocol.questions, protocol.generic_titles)

    def _stored(self) -> list[tuple[Case, Answer]]:
        return stored(self.ledger, self.of, self.base.ruler)

    # --- what the notebook shows

    @property
    def plan(self) -> str:
        """What it takes, and what comparisons can see so far: to be read before money is spent."""
        cost = price(self, self.judgments)
        return f"{self.judgments} judgments at most{cost}. {self.ledger.sees(self.fingerprint)}"

    def _repr_markdown_(self) -> str:
        source = f"run {self.of}" if self.of else "the first of these (a greedy one, where there is one)"
        return (
            f"Judge **{self.judge}**, gate **{self.gate}**. Gold of {len(self.cases)} cases is damaged, reworded and "
            f"attacked; the controls are judged on the whole gate. **{self.model}** answers the gate {self.repeats} "
            f"times with seeds from {self.seed}, decoding {self.decoding or 'greedy'}, and greedily; "
            f"the answers of {source} are judged {self.repeats} times.\n\n{self.plan}\n\n"
            f"Ruler and judge: `{self.fingerprint[:12]}`; code `{code_state()['sha256'][:12]}`."
        )


@dataclass(frozen=True, repr=False)
class Calibrated(Finding):
    """What a calibration found, before it is sealed."""

    @property
    def decision(self) -> Decision:
        """Nothing is kept: later runs read their floor here."""
        readings = self.found
        sentence = noise.sentence(readings)
        if noise.floor_of(readings, False) != readings["floor"]:
            sentence = f"{sentence} {noise.sentence(readings, False)}"
        if readings["unscored"]:
            sentence = f"{readings['unscored']} judgments are missing. {sentence}"
        return Decision("reference", sentence, floor=readings["floor"])

    def _repr_markdown_(self) -> str:
        f = self.found
        right = sum(f["own_falls_most"].values())
        beaten = [name for name, a in f["attacks"].items() if a["above"]]
        return (
            f"**{right} of {len(f['own_falls_most'])} dimensions** fall most when they are the damaged one. Gold against "
            f"itself: {f['identity']['ties']} ties and {f['identity']['fives']} times all fives in {f['identity']['cases']} "
            f"cases. Attacks that ever beat their honest text: {', '.join(beaten) or 'none'}."
        )


def price(what: Runnable, judgments: int) -> str:
    """What so many judgments cost, as a part of a sentence; "" where they cost nothing."""
    if what.judge != "claude":
        return ""
    calls = len(getattr(what.the_judge, "calls", ())) or 1
    about = judgments * calls * dollars(what.the_judge.identity["model"], TYPICAL, what.batch)
    cap = float(what.judging.get("dollars", CAP))
    return f", {calls} calls each: about ${about:.2f} at list prices, never more than ${cap:.2f}"


def stored(ledger: Ledger, run: str, ruler: Ruler) -> list[tuple[Case, Answer]]:
    """A run's stored answers with their cases. Raises BadParameters on a run of the sealed gate or another ruler."""
    record = sealed_run(ledger, run)
    if record.kind != "experiment" or record.gate == "confirm" or not record.scores:
        raise BadParameters(f"{record.id} is no experiment with stored answers on an open gate")
    pairs = []
    for row in ledger.cases(record.id):
        if row.answer is None:
            continue
        case = ruler.by_id.get(row.case)
        if case is None or case.task != row.task:
            raise BadParameters(f"{record.id} has case {row.case!r}, which this ruler does not have")
        pairs.append((case, row.answer))
    return pairs


def _judgments(ledger: Ledger, fingerprint: str, rows: Sequence[calibrate.Row]) -> list[Json]:
    """Stored judgments of every open run of this ruler and judge, and of the answers made here."""
    runs = [r for r in ledger.experiments(fingerprint) if r.scores]
    judgments = [vars(row.judgment) for r in runs for row in ledger.cases(r.id) if row.judgment]
    part = next((p for p in ("fresh", "greedy") if any(r["part"] == p for r in rows)), "")
    return judgments + [r["judgment"] for r in rows if r["part"] == part and r["judgment"]]
