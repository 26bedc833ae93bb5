"""One run as its files hold it: the record, the rows of its cases, and the result that a notebook hands to the seal.

Knows plain data and its types. What is read back is the type that was written: fields that a later version adds have
defaults, and those that this version does not know stay as they are. Does not know how a run is executed, nor what is
decided about it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    PlainSerializer,
    TypeAdapter,
    ValidationError,
    model_serializer,
)
from typing_extensions import Self

from lib import show
from lib.files import OneLine, attributes, canonical, leave_out
from lib.forms import Number, fault
from lib.measure.answer import Answer, NoAnswer
from lib.measure.judge import Judgment, Unscored
from lib.measure.score import Outcome, Scores, case_quality

SCHEMA = 1
ATTEMPT = ("model", "pipeline", "decoding", "adapter", "seed")
MIME = "application/vnd.notch.run+json"
Json = dict[str, Any]  # free-form: what the owner of the data alone knows how to read
Value = TypeVar("Value")


class BadRecord(OneLine, ValueError):
    """Plain data that is no record of a run."""


class Written(BaseModel):
    """Plain data as a run's files hold it. Frozen."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow", serialize_by_alias=True)

    @classmethod
    def read(cls, plain: Any) -> Self:
        """The same, typed. Raises BadRecord with one line."""
        try:
            return cls.model_validate(plain)
        except ValidationError as wrong:
            raise fault(wrong, cls.model_fields, BadRecord) from None

    def as_dict(self) -> Json:
        """Plain data for JSON."""
        return self.model_dump()

    def revised(self, **changes: Any) -> Self:
        """The same with other values of some fields."""
        return self.model_copy(update=changes)


class Partial(Written):
    """What is not known is absent, in the file too."""

    # A default that nobody measured must not look like a measurement in the file.
    @model_serializer(mode="wrap")
    def _given(self, serialize: Any) -> Json:
        return {name: value for name, value in serialize(self).items() if name in self.model_fields_set}

    def __bool__(self) -> bool:
        return bool(self.model_fields_set)


def _instance(make: Any) -> BeforeValidator:
    """Plain data into a dataclass of the measure, its numbers as they are: 1 and 1.0 are two texts of JSON."""
    known = {f.name for f in fields(make)}

    # Not by pydantic, which would make 1.0 of 1 and so another text: seals are over bytes.
    def build(value: Any) -> Any:
        """None of an empty mapping; what is no mapping is left to the check behind. Raises ValueError."""
        if not isinstance(value, Mapping):
            return value
        if not value:
            return None
        try:
            return make(**{k: v for k, v in value.items() if k in known})
        except TypeError as error:
            raise ValueError(f"is no {make.__name__} ({error})") from None

    return BeforeValidator(build)


# Scores that a run does not have are an empty mapping in its file.
Scored = Annotated[InstanceOf[Scores] | None, _instance(Scores), PlainSerializer(lambda s: asdict(s) if s else {})]
Judged = Annotated[
    InstanceOf[Judgment] | None, _instance(Judgment), PlainSerializer(lambda j: dict(vars(j)) if j else None)
]


class Code(Written):
    """Which code made a run."""

    commit: str = "unknown"
    dirty: bool | None = None  # whether it differed from the commit; None without git
    sha256: str = ""  # of the sources of `lib`


class Identity(Partial):
    """What model, adapters and judges really were, as each of them says it of itself."""

    model: Json = {}
    judge: Json = {}
    adapters: dict[str, str] = {}  # those that only a step names
    blind: Json = {}  # the judge without one dimension


class Stage(Partial):
    """What one step of a pipeline took over all cases."""

    calls: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    seconds: Number = 0.0
    generation_tps: Number | None = None


class RunCost(Partial):
    """What a run took: the model's calls as `lib.models.model.Cost` counts them, the clock, and the judge's bill."""

    calls: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    seconds: Number = 0.0
    dollars: Number = 0.0
    peak_memory: Number = 0.0  # gigabytes
    prompt_seconds: Number = 0.0
    prompt_tps: Number | None = None
    generation_tps: Number | None = None
    load_seconds: Number = 0.0
    answer_seconds: Number = 0.0
    judge_seconds: Number = 0.0
    judge_dollars: Number | None = None  # None where the judge costs nothing
    stages: dict[str, Stage] = {}

    @property
    def total_dollars(self) -> float:
        """Of candidate and judge together."""
        return (self.judge_dollars or 0.0) + self.dollars


@dataclass(frozen=True)
class Decision:
    """What becomes of a run, and why. The record keeps the status itself."""

    status: str = ""
    reason: str = ""
    against: str = ""  # id of the run that it was compared with
    delta: float | None = None  # mean difference in quality to that run, paired by case
    p: float | None = None
    low: float | None = None  # 95 % interval of delta
    high: float | None = None
    floor: float | None = None  # of a repeat's noise; None where nobody measured it
    noise: str = ""  # how often luck alone passes this rule, in a sentence

    def as_dict(self) -> Json:
        """Plain data for the record, which keeps the status itself; nothing where nothing was decided."""
        if not self.reason:
            return {}
        return leave_out(vars(self), "status")

    def _repr_markdown_(self) -> str:
        if self.delta is None:
            return f"**{self.status}**: {self.reason}"
        floor = "not measured" if self.floor is None else f"{self.floor:.4f}"
        interval, p = show.interval(self.low, self.high), show.number(self.p, "p")
        numbers = (self.against, f"{self.delta:+.4f}", interval, p, floor)
        table = show.grid(("against", "difference", "95 % interval", "p", "A/A floor"), [numbers])
        return "\n\n".join(filter(None, (f"**{self.status}**: {self.reason}", table, self.noise)))


Decided = Annotated[
    InstanceOf[Decision],
    _instance(Decision),
    BeforeValidator(lambda d: d or Decision()),
    PlainSerializer(Decision.as_dict),
]


# --- what a run found beside its scores, one type a kind ------------------------------------------


class Usefulness(Partial):
    """How useful the sets of a run are in absolute terms, 1 to 5; see `lib.measure.score.usefulness`."""

    mean: Number | None = None
    low: Number = 0.0
    high: Number = 0.0
    cases: int = 0
    no_answer: int = 0
    unscored: int = 0


class Findings(Partial):
    """What was measured beside scores, or instead of them."""

    useful: Usefulness = Usefulness()
    parameters: Json = {}  # of what ran, where the record has no field of its own for each of them


class TrainingFindings(Findings):
    """What a training made."""

    method: str = ""
    curve: list[dict[str, Any]] = []  # a row an epoch
    epoch: int = 0  # whose weights are the adapter
    data: Json = {}  # the card of the pairs
    provenance: Json = {}
    files: dict[str, str] = {}  # sha256 by the name within the run's folder
    adapter_bytes: int = 0
    tokens: int = 0


class CalibrationFindings(Findings):
    """What a calibration found; the readings themselves are those of `lib.measure.calibrate`."""

    floor: Number | None = None
    floors: dict[str, Number | None] = {}  # "sampled", "greedy"
    controls: list[Json] = []
    unscored: int = 0


class RejudgeFindings(Findings):
    """What a re-judge found: the readings of `lib.measure.blind` by run."""

    runs: dict[str, Json] = {}
    without: str = ""


class Difference(Written):
    """A paired difference to the first run of a group; without a common case there is none."""

    delta: Number | None
    p: Number | None
    low: Number | None
    high: Number | None
    n: int


class Side(Partial):
    """One run of a comparison beside the first of its group, for which nothing is compared."""

    run: str
    scores: Scored = None
    difference: Difference | None = None
    dims: dict[str, Difference] = {}


class Group(Written):
    """Runs that differ in nothing but the model."""

    group: str
    runs: list[Side]


class Candidate(Partial):
    """What stands behind a run of a comparison, and what it took."""

    candidate: str
    model: str = ""
    adapter: str = ""
    lever: str = ""
    calls: int = 0
    generation_tokens: int = 0
    dollars: Number = 0.0
    useful: Usefulness = Usefulness()


class ComparisonFindings(Findings):
    """What a comparison of models found."""

    groups: list[Group] = []
    candidates: dict[str, Candidate] = {}  # by the id of the run
    ceiling: Scored = None  # every gold answer judged as a candidate


# --- the record -----------------------------------------------------------------------------------


class Record(Written):
    """One run as `record.json` holds it. `id` and `slug` are given when it is sealed."""

    kind: str  # experiment, confirm, calibrate, rejudge, train, models
    hypothesis: str
    fingerprint: str  # of ruler and judge: runs of different ones are never compared
    code: Code
    predicted: Number = 0.0  # the effect on quality that the hypothesis declares
    min_effect: Number = 0.02  # a run whose interval rules out this gain is discarded instead of indecisive
    lever: str = ""
    pipeline: list[Json] = []
    model: str = ""  # none answers
    adapter: str = ""
    decoding: Json = {}
    judge: str = "offline"
    gate: str = "none"
    seed: int = 0
    batch: bool = False
    judging: Json = {}  # protocol, replicate, dollars, as the parameters said
    identity: Identity = Identity()
    of: str = ""  # confirm, a/a: the run that is looked at again
    status: str = ""  # kept, discarded, indecisive, incomplete, invalid, crashed, reference
    scores: Scored = None
    decision: Decided = Decision()
    cost: RunCost = RunCost()
    error: str = ""
    started: str = ""
    seconds: Number = 0.0
    machine: dict[str, str] = {}
    key: str = ""  # same key, same experiment: a plan runs it once
    id: str = ""
    slug: str = ""
    version: int = Field(SCHEMA, alias="schema")  # pydantic has a method of that name
    leaks: list[str] = []  # cases whose answers hold gold word for word: the run is invalid
    sampled: bool | None = None  # whether any call drew its reply; None in what makes no answers
    found: Findings = Findings()
    useful: bool = False  # whether the judge was also asked, without gold in sight, how useful each set is

    @property
    def setup(self) -> Setup:
        """What its answers and their judgments depend on."""
        return setup_of(self)

    @property
    def attempt(self) -> Json:
        """What was tried, whatever measured it."""
        return attributes(self, ATTEMPT)

    @property
    def drawn(self) -> bool:
        """Whether it drew its answers: what its calls did, or in older records what its decoding says."""
        return bool(self.decoding.get("temp")) if self.sampled is None else self.sampled

    @property
    def scored(self) -> Scores:
        """Its scores, where those without any were left out before."""
        assert self.scores is not None
        return self.scores

    @property
    def error_name(self) -> str:
        """The class of the error that ended it, "" where none did: `error` holds it in front of the message."""
        name, colon, _ = self.error.partition(": ")
        return name if colon and name.isidentifier() else ""

    @property
    def whole(self) -> bool:
        """Whether every case has a quality."""
        return self.scores is not None and not self.scores.unscored

    @property
    def candidate(self) -> str:
        """The model, with its adapter if it has one."""
        return candidate_of(self.model, self.adapter)

    def named(self, run: str) -> bool:
        """Whether a text names this run: by id, number or slug."""
        return run in (self.id, self.slug) or (run.isdecimal() and self.id.startswith(f"{int(run):04d}-"))


class TrainingRecord(Record):
    """A training; its adapter lies in the run's folder."""

    found: TrainingFindings = TrainingFindings()


class CalibrationRecord(Record):
    """A calibration of judge and noise."""

    found: CalibrationFindings = CalibrationFindings()


class RejudgeRecord(Record):
    """A re-judge without one dimension."""

    found: RejudgeFindings = RejudgeFindings()


class ComparisonRecord(Record):
    """A comparison of models."""

    found: ComparisonFindings = ComparisonFindings()


KINDS: dict[str, type[Record]] = {
    "experiment": Record, "confirm": Record, "train": TrainingRecord, "calibrate": CalibrationRecord,
    "rejudge": RejudgeRecord, "models": ComparisonRecord,
}  # fmt: skip


def candidate_of(model: str, adapter: str) -> str:
    """A model as comparisons and charts name it."""
    return f"{model} + {adapter}" if adapter else model


def record_of(plain: Any) -> Record:
    """A record of any kind from plain data. Raises BadRecord."""
    kind = plain.get("kind") if isinstance(plain, dict) else None
    return KINDS.get(str(kind), Record).read(plain)


# --- setups ---------------------------------------------------------------------------------------

# What judging may cost and how fast it goes changes no judgment.
PURSE = ("dollars", "concurrency")  # of judging


class Setup(Written):
    """What a run's answers and their judgments depend on: two runs of one setup differ by chance alone."""

    model: str
    adapter: str
    pipeline: list[Any]
    decoding: Json
    seed: int
    judge: str
    judging: Json  # without the purse
    gate: str
    fingerprint: str

    def differs(self, other: Setup) -> list[str]:
        """Names of what is not the same in both."""
        return [name for name in Setup.model_fields if getattr(self, name) != getattr(other, name)]

    def harness(self) -> str:
        """All of it but the adapter and how the judge was paid, as one text to group by."""
        return canonical(self.model_dump(exclude={"adapter", "judging"}))


def setup_of(run: Any) -> Setup:
    """The setup of a record, or of an experiment that did not run yet."""
    return Setup(**attributes(run, Setup.model_fields) | {"judging": leave_out(run.judging, *PURSE)})


# --- cases ----------------------------------------------------------------------------------------


def _plain_answer(answer: Answer | None) -> Json | None:
    return {"title": answer.title, "questions": list(answer.questions)} if answer else None


Answered = Annotated[InstanceOf[Answer] | None, _instance(Answer), PlainSerializer(_plain_answer)]


class CaseRow(Partial):
    """A line of cases.jsonl: exactly one of judgment, no_answer and unscored is there.

    The rows of a calibration, a re-judge or a comparison are readings: judgments with fields of their own beside these,
    which `lib.measure` writes and reads as plain data.
    """

    case: str
    task: str = ""
    calls: list[Json] = []  # messages, decoding and completion of every call
    notes: list[str] = []  # of the steps
    answer: Answered = None
    copies: int | None = None  # gold questions that stand in the answer; None in rows from before they were counted
    leak: str = ""
    no_answer: str | None = None  # the model's failure, which scores 0
    judgment: Judged = None
    unscored: str | None = None  # the judge's failure, which is left out of every mean
    quality: Number | None = None
    useful: Json | None = None

    def judged(self, outcome: Outcome) -> Self:
        """The same row with what became of it."""
        values: Json = {"no_answer": None, "judgment": None, "unscored": None, "quality": case_quality(outcome)}
        if isinstance(outcome, Judgment):
            values["judgment"] = outcome
        else:
            values["no_answer" if isinstance(outcome, NoAnswer) else "unscored"] = outcome.reason
        return self.revised(**values)

    @property
    def outcome(self) -> Outcome:
        """The judgment, or why there is none and whose failure that is."""
        if self.judgment is not None:
            return self.judgment
        if self.no_answer is not None:
            return NoAnswer(self.no_answer)
        return Unscored(self.unscored or "")


def qualities(rows: Iterable[CaseRow]) -> dict[str, float]:
    """Quality by case id, without the unscored."""
    return {r.case: r.quality for r in rows if r.quality is not None}


@dataclass(frozen=True)
class Result:
    """A record with its cases. Displaying it is how a notebook hands its result to the seal."""

    record: Record
    cases: list[Any]  # rows, typed or as plain data

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Json:
        plain = TypeAdapter(list[Any]).dump_python(self.cases)
        data = {"schema": SCHEMA, "record": self.record.as_dict(), "cases": plain}
        rows = "cases" if self.record.scores else "judgments"
        text = f"{len(self.cases)} {rows}, status {self.record.status}, fingerprint {self.record.fingerprint[:12]}"
        return {MIME: data, "text/plain": text, "text/markdown": f"Result record: {text}."}
