"""A pipeline of steps on a model: plain data in, one state a case out.

Knows how to check a pipeline before it costs anything, and how to run it over all cases at once: a step asks for
completions by yielding calls, and the calls of all cases go to the model as one batch. Does not know which steps
there are (they register themselves), nor gold, nor scores.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, count
from typing import Any, Literal

from lib.agent import prompt
from lib.agent.bank import Example
from lib.agent.prompt import BadReply, Draft, Message
from lib.files import Exit, OneLine, leave_out, sha256
from lib.forms import checked, fill, unknown
from lib.log import Row
from lib.measure.answer import NoAnswer
from lib.models.model import FAILED, Capabilities, Completion, Cost, Decoding, Model

MOST_STEPS = 20
LONGEST = 1500  # letters of a wording
Trace = Row  # one call as cases.jsonl holds it


class BadPipeline(OneLine, ValueError):
    """A pipeline that cannot run; the message says which step, what came and what was expected."""

    exit = Exit.USAGE


@dataclass(frozen=True)
class Call:
    """One completion that a step asks for. `change` overrides decoding values for this call alone."""

    messages: list[Message]
    change: Row = field(default_factory=dict)
    reply: str = ""  # a reply to score (its mean log-probability comes back) instead of one to generate
    adapter: str | None = None  # another adapter than the run's for this call; "" is the bare base

    def needs(self, decoding: Decoding) -> list[str]:
        """Capabilities that this call cannot do without."""
        # A reply that is only scored is given: no grammar shapes it.
        needs = []
        if self.reply:
            needs.append("logprobs")
        if self.adapter is not None:
            needs.append("adapters")
        if decoding.grammar and not self.reply:
            needs.append("grammar")
        return needs


@dataclass(frozen=True)
class State:
    """What is known about one case on its way through a pipeline."""

    case: str
    task: str
    draft: Draft | None = None
    pool: tuple[Draft, ...] = ()  # drafts to choose from, for steps that make or compare several
    demos: tuple[Example, ...] = ()
    failed: NoAnswer | None = None
    calls: tuple[Trace, ...] = ()
    notes: tuple[str, ...] = ()  # what a step decided without a model, in words

    @property
    def written(self) -> Draft:
        """The draft, for a step that takes one: a dry run has seen before the run that another step writes it."""
        assert self.draft is not None
        return self.draft

    def shown_demos(self, schema: str = "json") -> list[tuple[str, Draft]]:
        """The examples as earlier turns: each task and its set in a form that the schema can write."""
        return [(example.task, example.shown(schema)) for example in self.demos]

    def note(self, text: str) -> State:
        """The state with one more note."""
        return replace(self, notes=(*self.notes, text))

    def left_out(self, faults: Sequence[str], of: int, what: str) -> State:
        """The state with a note of the replies that could not be read; as it is where all could."""
        if not faults:
            return self
        return self.note(f"{len(faults)} of {of} {what} left out: {faults[0]}")

    def fail(self, reason: str) -> State:
        """The state of a case that ends here without an answer."""
        return replace(self, failed=NoAnswer(reason))


Work = Generator[list[Call], list[Completion], State]
Run = Callable[[State], Work]  # what a lever makes of its arguments
Part = Literal["demos", "draft", "pool"]  # fields of the state that steps hand to each other


@dataclass(frozen=True)
class Step:
    """One lever with its arguments bound."""

    name: str
    family: str
    args: Row
    run: Run
    calls: float  # completions per case, for the method table
    about: str  # first line of its docstring
    texts: tuple[str, ...]  # free texts among the arguments, for the leak guard
    needs: frozenset[str] = frozenset()  # capabilities of the model that it cannot do without
    wording: dict[str, str] = field(default_factory=dict)  # a call's name in prompt.CALLS -> other words for it


@dataclass(frozen=True)
class Argument:
    """One argument of a lever, as its signature has it."""

    hint: Any
    default: Any

    @property
    def options(self) -> tuple[Any, ...]:
        """Its values, where only some are allowed."""
        return typing.get_args(self.hint) if typing.get_origin(self.hint) is Literal else ()

    @property
    def expected(self) -> str:
        """What it takes, in words."""
        if self.options:
            return "one of " + ", ".join(map(repr, self.options))
        kinds = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
        return kinds.get(self.hint, str(self.hint))


@dataclass(frozen=True)
class Lever:
    """A registered step."""

    make: Callable[..., Run]
    family: str
    calls: Callable[..., float]
    needs: Callable[..., Iterable[str]]
    takes: tuple[Part, ...]  # what it cannot work without
    uses: tuple[Part, ...]  # what it works with where it is there
    gives: tuple[Part, ...]  # what it writes; whoever fills the pool also writes the first draft

    @property
    def about(self) -> str:
        """The first line of its docstring."""
        return (inspect.getdoc(self.make) or "").split("\n")[0]

    @cached_property
    def arguments(self) -> dict[str, Argument]:
        """Its arguments by name, with their types."""
        # Resolved: `from __future__ import annotations` leaves them as text in the signature.
        hints = typing.get_type_hints(self.make)
        return {k: Argument(hints[k], p.default) for k, p in inspect.signature(self.make).parameters.items()}

    @property
    def defaults(self) -> Row:
        return {name: argument.default for name, argument in self.arguments.items()}


STEPS: dict[str, Lever] = {}


def step(
    family: str,
    calls: Callable[..., float] = lambda **_: 0,
    needs: Callable[..., Iterable[str]] = lambda **_: (),
    takes: tuple[Part, ...] = (),
    uses: tuple[Part, ...] = (),
    gives: tuple[Part, ...] = ("draft",),
) -> Callable[[Callable[..., Run]], Callable[..., Run]]:
    """Register a lever: a function of keyword arguments that returns `run(state)`, a generator of calls.

    `calls` and `needs` take the lever's arguments: completions a case, and names of `Capabilities` that it must have.
    `takes`, `uses` and `gives` say what it does to the state, and so where in a pipeline it can stand.
    """

    def register(make: Callable[..., Run]) -> Callable[..., Run]:
        # The function itself stays as it is for tests and doctests; what a pipeline calls is checked.
        STEPS[make.__name__] = Lever(checked(make), family, calls, needs, takes, uses, gives)
        return make

    return register


def build(pipeline: Sequence[Row]) -> list[Step]:
    """Steps from plain data such as `[{"step": "ask", "n": 8}]`. Raises BadPipeline before anything runs.

    Import it from `lib.agent.steps`, so that the levers have registered themselves.
    """
    if not isinstance(pipeline, (list, tuple)) or not pipeline:
        raise BadPipeline('a pipeline is a list of steps such as [{"step": "ask"}], got ' + repr(pipeline)[:80])
    # A proposer is a program: without a bound one proposal could cost a night.
    if len(pipeline) > MOST_STEPS:
        raise BadPipeline(f"a pipeline of {len(pipeline)} steps; at most {MOST_STEPS} are allowed")
    return list(map(_build_one, count(1), pipeline))


def _build_one(place: int, row: Any) -> Step:
    """The step of one row. Raises BadPipeline with its place."""
    if not isinstance(row, dict) or not isinstance(row.get("step"), str):
        raise BadPipeline(f'step {place} is {row!r:.80}: expected {{"step": NAME, ...}}')
    name = row["step"]
    if name not in STEPS:
        raise BadPipeline(f"step {place}: no step {name!r}; there are {', '.join(sorted(STEPS))}")
    lever = STEPS[name]
    args = leave_out(row, "step", "wording")
    if others := {*map(str, args)} - lever.arguments.keys():
        fault = unknown("no parameter", min(others), [*lever.arguments, "wording"])
        raise BadPipeline(f"step {place} ({name}): {fault}")
    try:
        run = fill(lever.make, args)
        wording = _wording(row.get("wording", {}))
    except (ValueError, TypeError) as error:
        raise BadPipeline(f"step {place} ({name}): {error}") from error
    bound = lever.defaults | args
    # Part of the arguments again: the leak guard reads them, and they are part of what makes a setup another one.
    if wording:
        args["wording"] = row["wording"]
    # By the arguments as they are bound, defaults too: `best` needs log-probabilities by one of its four ways alone.
    needs = frozenset(lever.needs(**bound))
    return Step(name, lever.family, args, run, lever.calls(**bound), lever.about, tuple(texts(args)), needs, wording)


def _wording(value: Any) -> dict[str, str]:
    """Other words for a step's calls, by the call's name; one text alone is for its main call. Raises ValueError."""
    named = {"": value} if isinstance(value, str) else value
    if not isinstance(named, dict) or not all(isinstance(t, str) for t in (*named, *named.values())):
        raise ValueError(f"wording is {value!r:.60}, expected text, or texts by the name of a call")
    for call, text in named.items():
        if call and call not in prompt.CALLS:
            raise ValueError(f"wording for {call!r:.40}, expected one of {', '.join(prompt.CALLS)}")
        if len(text.split()) < 3 or len(text) > LONGEST:
            size = f"a wording of {len(text)} letters"
            raise ValueError(f"{size}, expected 3 words or more and {LONGEST} letters at most")
    return named


def calls_in(messages: Sequence[Message]) -> list[str]:
    """Names of the calls whose paragraph stands in a conversation, the main one first.

    >>> calls_in(prompt.ask("buy a boat"))
    ['ask']
    """
    # By the paragraph that stands in it: whoever words a call another way has another call.
    text = "\n".join(m["content"] for m in messages)
    names = [name for name, paragraph in prompt.CALLS.items() if paragraph in text]
    return sorted(names, key=lambda name: name != "ask")


def reworded(call: Call, wording: dict[str, str]) -> Call:
    """A call with its paragraphs in other words; names of calls that it is not change nothing."""
    here = calls_in(call.messages)
    messages = call.messages
    for name, text in wording.items():
        target = name or next(iter(here), "")
        if target in here:
            messages = [{**m, "content": m["content"].replace(prompt.CALLS[target], text)} for m in messages]
    return replace(call, messages=messages)


def texts(value: Any) -> list[str]:
    """Every text among the values of plain data, however deep."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return []
    return list(chain.from_iterable(map(texts, value)))


def require(steps: Sequence[Step], name: str, can: Capabilities) -> None:
    """Raise BadPipeline naming the first step that needs what a model cannot do."""
    # Before the run: a lever that a model cannot do would fail on every case and look like a bad lever.
    for place, one in enumerate(steps, 1):
        for need in sorted(one.needs):
            if not getattr(can, need):
                raise BadPipeline(f"step {place} ({one.name}) needs {need}, which model {name!r} does not offer")


def row_seed(seed: int, case: str, number: int) -> int:
    """The seed of a case's n-th call: it depends on nothing else, so a batch's make-up changes no text."""
    return int(sha256(f"{seed}/{case}/{number}")[:8], 16)


@dataclass
class _Case:
    """One case on its way: where it stands, the generator that waits for replies, and its trace."""

    state: State
    place: int = -1  # of the step that is at work
    work: Work | None = None
    trace: list[Trace] = field(default_factory=list)
    waits_for: list[Call] = field(default_factory=list)
    replies: list[Completion] | None = None


@dataclass(frozen=True)
class _Sent:
    """One call of a batch."""

    case: _Case
    place: int  # of its step
    step: Step
    call: Call
    decoding: Decoding

    @property
    def stage(self) -> str:
        """What its cost is booked under."""
        return f"{self.place + 1} {self.step.name}"


def run(
    steps: Sequence[Step],
    tasks: Sequence[tuple[str, str]],
    model: Model,
    decoding: Decoding,
    stages: dict[str, Cost] | None = None,
    tell: Callable[[str, int], None] = lambda stage, replies: None,
) -> list[State]:
    """Run every case, given as (id, task), through the steps. A bad reply ends its own case, never the run.

    A case goes on as soon as it has its replies; whatever all cases ask for at a time goes out as one batch, so calls
    of different steps share it. What each step took is added to `stages`, by its number and name; `tell` hears the
    stage under way and how many replies there are so far. Raises BadPipeline when a step asks for what the model cannot do.
    """
    # Every step has a line of its own from the start: one that calls nothing took nothing, which is worth seeing.
    if stages is None:
        stages = {}
    for place, one in enumerate(steps, 1):
        stages.setdefault(f"{place} {one.name}", Cost())
    cases = [_Case(State(case, task)) for case, task in tasks]
    replies = 0
    # The longest pipeline sets the number of rounds, not the sum of them: cases do not wait for each other.
    while waiting := [case for case in cases if _asks(case, steps)]:
        batch: list[_Sent] = []
        for case in waiting:
            batch += _sent(case, steps, decoding)
            case.replies = []
        before = model.cost
        completions = _complete(batch, model, lambda ended: tell(batch[0].stage, replies + ended))  # noqa: B023
        replies += len(batch)
        tell(batch[0].stage, replies)
        for sent, completion in zip(batch, completions, strict=True):
            sent.case.replies.append(completion)  # type: ignore[union-attr]
            sent.case.trace.append(_traced(sent, completion))
        _book(stages, batch, completions, model.cost, before)
    return [case.state for case in cases]


def _sent(case: _Case, steps: Sequence[Step], base: Decoding) -> list[_Sent]:
    """The calls that a case waits for, each with its own decoding and seed."""
    sent = []
    for number, call in enumerate(case.waits_for, len(case.trace)):
        # Numbered by the case's own calls: another case that fails or is left out moves no seed.
        decoding = replace(base, **call.change).with_seed(row_seed(base.seed, case.state.case, number))
        sent.append(_Sent(case, case.place, steps[case.place], call, decoding))
    return sent


def _traced(sent: _Sent, completion: Completion) -> Trace:
    """A call and its reply as plain data. What is as usual is left out: greedy calls stay as short as they are."""
    trace: Trace = {
        "step": sent.step.name,
        "messages": sent.call.messages,
        "text": completion.text,
        "finish_reason": completion.finish_reason,
        "tokens": [completion.prompt_tokens, completion.generation_tokens],
    }
    if sent.decoding.temp and not sent.call.reply:
        trace["temp"] = sent.decoding.temp
    if completion.logprob is not None:
        trace["logprob"] = completion.logprob
    if sent.call.adapter is not None:
        trace["adapter"] = sent.call.adapter
    if completion.id:
        trace["id"] = completion.id
    return trace


def _asks(case: _Case, steps: Sequence[Step]) -> bool:
    """Take a case as far as it gets without a model. Returns whether it waits for replies."""
    while case.state.failed is None:
        try:
            if case.work is None:
                # Behind its last step a case is done; the others go on without it.
                if case.place + 1 == len(steps):
                    break
                case.place += 1
                case.replies, case.work = None, steps[case.place].run(case.state)
            # A step that asks for nothing gets an empty list.
            replies, case.replies = case.replies, []
            for reply in replies or ():
                if reply.finish_reason in FAILED:
                    raise BadReply(f"{reply.finish_reason} of the model: {reply.text or 'it gave no reason'}"[:300])
            # A generator that has not begun takes no value: the first calls come from `next`.
            case.waits_for = next(case.work) if replies is None else case.work.send(replies)
            if wording := steps[case.place].wording:
                case.waits_for = [reworded(call, wording) for call in case.waits_for]
            if case.waits_for:
                return True
        except StopIteration as stop:
            case.state, case.work = replace(stop.value, calls=tuple(case.trace)), None
        except BadReply as error:
            case.state = replace(case.state.fail(f"{steps[case.place].name}: {error}"), calls=tuple(case.trace))
    case.waits_for = []
    return False


def _complete(batch: Sequence[_Sent], model: Model, heard: Callable[[int], None]) -> list[Completion]:
    """One batch for each adapter, replies to score apart from replies to write; in the order of the calls."""
    # Asked of the calls again and not of the steps alone: a call may change the decoding that its step was checked with.
    groups: dict[tuple[str | None, bool], list[int]] = {}
    for i, sent in enumerate(batch):
        for need in sent.call.needs(sent.decoding):
            if not getattr(model.capabilities, need):
                raise BadPipeline(f"step {sent.step.name} needs {need}, which model {model.name!r} does not offer")
        # Whoever wears another adapter cannot share a batch, and scoring is another call of the model than writing.
        groups.setdefault((sent.call.adapter, bool(sent.call.reply)), []).append(i)
    done: dict[int, Completion] = {}
    for (adapter, scores), places in groups.items():
        answering = model if adapter is None else model.with_adapter(adapter)
        answering.heard = lambda ended, before=len(done): heard(before + ended)
        messages = [batch[i].call.messages for i in places]
        if scores:
            completions = answering.score(messages, [batch[i].call.reply for i in places])
        else:
            completions = answering.generate(messages, [batch[i].decoding for i in places])
        done.update(zip(places, map(_in_utf8, completions), strict=True))
    return [done[i] for i in range(len(batch))]


def _in_utf8(reply: Completion) -> Completion:
    """A reply whose text can be written as UTF-8: half of a surrogate pair, as a server may send it, becomes U+FFFD."""
    return replace(reply, text=reply.text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def _book(
    stages: dict[str, Cost], batch: Sequence[_Sent], completions: Sequence[Completion], after: Cost, before: Cost
) -> None:
    """Charge a batch to its steps: calls and tokens as they are, time and dollars by each step's share of the tokens."""
    counted: dict[str, Cost] = {}
    for sent, c in zip(batch, completions, strict=True):
        one = Cost(calls=1, prompt_tokens=c.prompt_tokens, generation_tokens=c.generation_tokens)
        counted[sent.stage] = counted.get(sent.stage, Cost()) + one
    # Steps share the batch, so nobody can time one alone; tokens are what time and price go by.
    whole = sum(cost.prompt_tokens + cost.generation_tokens for cost in counted.values()) or 1
    for stage, cost in counted.items():
        share = (cost.prompt_tokens + cost.generation_tokens) / whole
        stages[stage] += replace(
            cost,
            seconds=share * (after.seconds - before.seconds),
            dollars=share * (after.dollars - before.dollars),
            prompt_seconds=share * (after.prompt_seconds - before.prompt_seconds),
        )
