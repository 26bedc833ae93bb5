"""A pipeline of steps on a model: plain data in, one state a case out.

Knows how to check a pipeline before it costs anything, and how to run it over all cases at once: a step asks for
completions by yielding calls, and the calls of all cases go to the model as one batch. Does not know which steps
there are (they register themselves), nor gold, nor scores.
"""

from __future__ import annotations

import hashlib
import inspect
import types
import typing
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from lib.agent import prompt
from lib.agent.bank import Example
from lib.agent.prompt import BadReply, Draft, Message
from lib.files import Exit, OneLine
from lib.forms import checked
from lib.measure.answer import NoAnswer
from lib.models.model import FAILED, Capabilities, Completion, Cost, Decoding, Model

MOST_STEPS = 20
LONGEST = 1500  # letters of a wording


class BadPipeline(OneLine, ValueError):
    """A pipeline that cannot run; the message says which step, what came and what was expected."""

    exit = Exit.USAGE


class Misplaced(BadPipeline):
    """A step that finds nothing to work on, whatever a model answers; a dry run finds it before the run."""


@dataclass(frozen=True)
class Call:
    """One completion that a step asks for. `change` overrides decoding values for this call alone."""

    messages: list[Message]
    change: dict[str, Any] = field(default_factory=dict)
    reply: str = ""  # a reply to score (its mean log-probability comes back) instead of one to generate
    adapter: str | None = None  # another adapter than the run's for this call; "" is the bare base


@dataclass(frozen=True)
class State:
    """What is known about one case on its way through a pipeline."""

    case: str
    task: str
    draft: Draft | None = None
    pool: tuple[Draft, ...] = ()  # drafts to choose from, for steps that make or compare several
    demos: tuple[Example, ...] = ()
    failed: NoAnswer | None = None
    calls: tuple[dict[str, Any], ...] = ()  # step, messages, text, finish_reason: the trace
    notes: tuple[str, ...] = ()  # what a step decided without a model, in words

    def note(self, text: str) -> State:
        return replace(self, notes=(*self.notes, text))

    def fail(self, reason: str) -> State:
        return replace(self, failed=NoAnswer(reason))

    def need(self, step: str) -> Draft:
        """The draft that a step works on. Raises Misplaced where no step has written one."""
        if self.draft is None:
            raise Misplaced(f"{step}: no draft to work on; put ask before it")
        return self.draft


Work = Generator[list[Call], list[Completion], State]


@dataclass(frozen=True)
class Step:
    """One lever with its arguments bound."""

    name: str
    family: str
    args: dict[str, Any]
    run: Callable[[State], Work]
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
        if self.options:
            return "one of " + ", ".join(map(repr, self.options))
        kinds = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
        return kinds.get(self.hint, str(self.hint))


Role = Literal["before", "source", "after"]
Pool = Literal["", "fills", "chooses"]


@dataclass(frozen=True)
class Lever:
    """A registered step."""

    make: Callable[..., Callable[[State], Work]]
    family: str
    calls: Callable[..., float]
    needs: Callable[..., Iterable[str]]
    role: Role  # prepares what the asking step sees, writes the draft itself, or works on a draft
    pool: Pool  # adds sets to the pool and leaves the draft as it is, or takes its set from there

    @property
    def about(self) -> str:
        """The first line of its docstring."""
        return (inspect.getdoc(self.make) or "").split("\n")[0]

    @cached_property
    def arguments(self) -> dict[str, Argument]:
        hints = typing.get_type_hints(self.make)
        return {k: Argument(hints[k], p.default) for k, p in inspect.signature(self.make).parameters.items()}

    @property
    def defaults(self) -> dict[str, Any]:
        return {name: argument.default for name, argument in self.arguments.items()}


STEPS: dict[str, Lever] = {}


def step(
    family: str,
    calls: Callable[..., float] = lambda **_: 0,
    needs: Callable[..., Iterable[str]] = lambda **_: (),
    role: Role = "source",
    pool: Pool = "",
):
    """Register a lever: a function of keyword arguments that returns `run(state)`, a generator of calls.

    `calls` and `needs` take the lever's arguments: completions a case, and names of `Capabilities` that it must have.
    `role` and `pool` say where in a pipeline it can stand.
    """

    def register(make: Callable[..., Callable[[State], Work]]) -> Callable[..., Callable[[State], Work]]:
        STEPS[make.__name__] = Lever(checked(make), family, calls, needs, role, pool)
        return make

    return register


def build(pipeline: Sequence[dict[str, Any]]) -> list[Step]:
    """Steps from plain data such as `[{"step": "ask", "n": 8}]`. Raises BadPipeline before anything runs.

    Import it from `lib.agent.steps`, so that the levers have registered themselves.
    """
    if not isinstance(pipeline, (list, tuple)) or not pipeline:
        raise BadPipeline('a pipeline is a list of steps such as [{"step": "ask"}], got ' + repr(pipeline)[:80])
    if len(pipeline) > MOST_STEPS:
        raise BadPipeline(f"a pipeline of {len(pipeline)} steps; at most {MOST_STEPS} are allowed")
    return [_build_one(i, row) for i, row in enumerate(pipeline, 1)]


def _build_one(place: int, row: Any) -> Step:
    if not isinstance(row, dict) or not isinstance(row.get("step"), str):
        raise BadPipeline(f'step {place} is {row!r:.80}: expected {{"step": NAME, ...}}')
    name, args = row["step"], {k: v for k, v in row.items() if k != "step"}
    if name not in STEPS:
        raise BadPipeline(f"step {place}: no step {name!r}; there are {', '.join(sorted(STEPS))}")
    lever = STEPS[name]
    wording = _wording(f"step {place} ({name})", args.pop("wording", {}))
    for key, value in args.items():
        if key not in lever.arguments:
            known = ", ".join(lever.arguments) or "none"
            raise BadPipeline(f"step {place} ({name}): no argument {key!r}; it has {known}")
        if not _fits(value, lever.arguments[key].hint):
            expected = lever.arguments[key].expected
            raise BadPipeline(f"step {place} ({name}): {key} is {value!r:.60}, expected {expected}")
    bound = lever.defaults | args
    try:
        run = lever.make(**args)
    except (ValueError, TypeError) as error:
        raise BadPipeline(f"step {place} ({name}): {error}") from error
    if wording:
        args["wording"] = row["wording"]
    needs = frozenset(lever.needs(**bound))
    return Step(name, lever.family, args, run, lever.calls(**bound), lever.about, tuple(texts(args)), needs, wording)


def _wording(where: str, value: Any) -> dict[str, str]:
    """Other words for a step's calls, by the call's name; one text alone is for its main call. Raises BadPipeline."""
    named = {"": value} if isinstance(value, str) else value
    if not isinstance(named, dict) or not all(isinstance(t, str) for t in (*named, *named.values())):
        raise BadPipeline(f"{where}: wording is {value!r:.60}, expected text, or texts by the name of a call")
    for call, text in named.items():
        if call and call not in prompt.CALLS:
            raise BadPipeline(f"{where}: wording for {call!r:.40}, expected one of {', '.join(prompt.CALLS)}")
        if len(text.split()) < 3 or len(text) > LONGEST:
            raise BadPipeline(
                f"{where}: a wording of {len(text)} letters, expected 3 words or more and {LONGEST} letters at most"
            )
    return named


def calls_in(messages: Sequence[Message]) -> list[str]:
    """Names of the calls whose paragraph stands in a conversation, the main one first.

    >>> calls_in(prompt.ask("buy a boat"))
    ['ask']
    """
    text = "\n".join(m["content"] for m in messages)
    found = [name for name, paragraph in prompt.CALLS.items() if paragraph in text]
    return sorted(found, key=lambda name: name != "ask")


def reworded(call: Call, wording: dict[str, str]) -> Call:
    """A call with its paragraphs in other words; names of calls that it is not change nothing."""
    here = calls_in(call.messages)
    messages = call.messages
    for name, text in wording.items():
        target = name or next(iter(here), "")
        if target in here:
            messages = [{**m, "content": m["content"].replace(prompt.CALLS[target], text)} for m in messages]
    return replace(call, messages=messages)


def _fits(value: Any, hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return value in typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, h) for h in typing.get_args(hint))
    if origin is list:
        return isinstance(value, list) and all(_fits(v, typing.get_args(hint)[0]) for v in value)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, hint) and not (hint is int and isinstance(value, bool))


def texts(value: Any) -> list[str]:
    """Every text among the values of plain data, however deep."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [t for v in value.values() for t in texts(v)]
    return [t for v in value for t in texts(v)] if isinstance(value, list) else []


def require(steps: Sequence[Step], name: str, can: Capabilities) -> None:
    """Raise BadPipeline naming the first step that needs what a model cannot do."""
    for place, one in enumerate(steps, 1):
        for need in sorted(one.needs):
            if not getattr(can, need):
                raise BadPipeline(f"step {place} ({one.name}) needs {need}, which model {name!r} does not offer")


def row_seed(seed: int, case: str, number: int) -> int:
    """The seed of a case's n-th call: it depends on nothing else, so a batch's make-up changes no text."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{case}/{number}".encode()).digest()[:4], "big")


@dataclass
class _Case:
    """One case on its way: where it stands, the generator that waits for replies, and its trace."""

    state: State
    place: int = -1  # of the step that is at work
    work: Work | None = None
    trace: list[dict[str, Any]] = field(default_factory=list)
    asked: list[Call] = field(default_factory=list)
    replies: list[Completion] | None = None


def run(
    steps: Sequence[Step],
    tasks: Sequence[tuple[str, str]],
    model: Model,
    decoding: Decoding,
    stages: dict[str, Cost] | None = None,
) -> list[State]:
    """Run every case, given as (id, task), through the steps. A bad reply ends its own case, never the run.

    A case goes on as soon as it has its replies; whatever all cases ask for at a time goes out as one batch, so calls
    of different steps share it. What each step took is added to `stages`, by its number and name. Raises BadPipeline
    when a step asks for what the model cannot do.
    """
    stages = {} if stages is None else stages
    names = [f"{i} {one.name}" for i, one in enumerate(steps, 1)]
    for name in names:
        stages.setdefault(name, Cost())
    cases = [_Case(State(case, task)) for case, task in tasks]
    while waiting := [case for case in cases if _asks(case, steps)]:
        flat = [(case, call, k) for case in waiting for k, call in enumerate(case.asked)]
        decodings = [_decoding(decoding, c, case.state.case, len(case.trace) + k) for case, c, k in flat]
        before = model.cost
        completions = _complete([(steps[case.place], c) for case, c, _ in flat], decodings, model)
        for case in waiting:
            case.replies = []
        for (case, call, _), drawn, completion in zip(flat, decodings, completions, strict=True):
            case.replies.append(completion)  # type: ignore[union-attr]
            case.trace.append(
                {
                    "step": steps[case.place].name,
                    "messages": call.messages,
                    "text": completion.text,
                    "finish_reason": completion.finish_reason,
                    "tokens": [completion.prompt_tokens, completion.generation_tokens],
                }
                | (
                    {"temp": drawn.temp} if drawn.temp and not call.reply else {}
                )  # greedy calls stay as short as they are
                | ({} if completion.logprob is None else {"logprob": completion.logprob})
                | ({} if call.adapter is None else {"adapter": call.adapter})
                | ({"id": completion.id} if completion.id else {})
            )
        _book(stages, [names[case.place] for case, _, _ in flat], completions, model.cost, before)
    return [case.state for case in cases]


def _asks(case: _Case, steps: Sequence[Step]) -> bool:
    """Take a case as far as it gets without a model. Returns whether it waits for replies."""
    while case.state.failed is None:
        try:
            if case.work is None:
                if case.place + 1 == len(steps):
                    break
                case.place += 1
                case.replies, case.work = None, steps[case.place].run(case.state)
            reply, case.replies = case.replies, []  # a step that asks for nothing gets an empty list
            lost = next((r for r in reply or () if r.finish_reason in FAILED), None)
            if lost:
                raise BadReply(f"{lost.finish_reason} of the model: {lost.text or 'it gave no reason'}"[:300])
            case.asked = next(case.work) if reply is None else case.work.send(reply)
            if steps[case.place].wording:
                case.asked = [reworded(call, steps[case.place].wording) for call in case.asked]
            if case.asked:
                return True
        except StopIteration as stop:
            case.state, case.work = replace(stop.value, calls=tuple(case.trace)), None
        except BadReply as error:
            case.state = replace(case.state.fail(f"{steps[case.place].name}: {error}"), calls=tuple(case.trace))
    case.asked = []
    return False


def _complete(asked: Sequence[tuple[Step, Call]], decodings: Sequence[Decoding], model: Model) -> list[Completion]:
    """One batch for each adapter, replies to score apart from replies to write; in the order of the calls."""
    groups: dict[tuple[str | None, bool], list[int]] = {}
    for i, ((one, call), decoding) in enumerate(zip(asked, decodings, strict=True)):
        can = model.capabilities
        for needs, needed in (("logprobs", call.reply), ("adapters", call.adapter is not None)):
            if needed and not getattr(can, needs):
                raise BadPipeline(f"step {one.name} needs {needs}, which model {model.name!r} does not offer")
        if decoding.grammar and not can.grammar and not call.reply:
            raise BadPipeline(f"step {one.name} needs grammar, which model {model.name!r} does not offer")
        groups.setdefault((call.adapter, bool(call.reply)), []).append(i)
    done: dict[int, Completion] = {}
    for (adapter, scores), places in groups.items():
        mine = model if adapter is None else model.with_adapter(adapter)
        messages = [asked[i][1].messages for i in places]
        if scores:
            found = mine.score(messages, [asked[i][1].reply for i in places])
        else:
            found = mine.generate(messages, [decodings[i] for i in places])
        done |= dict(zip(places, map(_text, found), strict=True))
    return [done[i] for i in range(len(asked))]


def _text(reply: Completion) -> Completion:
    """A reply whose text can be written as UTF-8: half of a surrogate pair, as a server may send it, becomes U+FFFD."""
    return replace(reply, text=reply.text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def _book(
    stages: dict[str, Cost], names: Sequence[str], completions: Sequence[Completion], after: Cost, before: Cost
) -> None:
    """Charge a batch to its steps: calls and tokens as they are, time and dollars by each step's share of the tokens."""
    whole = sum(c.prompt_tokens + c.generation_tokens for c in completions) or 1
    for name in dict.fromkeys(names):
        mine = [c for n, c in zip(names, completions, strict=True) if n == name]
        read, made = sum(c.prompt_tokens for c in mine), sum(c.generation_tokens for c in mine)
        share = (read + made) / whole
        stages[name] += Cost(
            calls=len(mine),
            prompt_tokens=read,
            generation_tokens=made,
            seconds=share * (after.seconds - before.seconds),
            dollars=share * (after.dollars - before.dollars),
            prompt_seconds=share * (after.prompt_seconds - before.prompt_seconds),
        )


def _decoding(base: Decoding, call: Call, case: str, number: int) -> Decoding:
    changed = replace(base, **call.change) if call.change else base
    return changed.with_seed(row_seed(base.seed, case, number))
