"""A pipeline of steps on a model: plain data in, one state a case out.

Knows how to check a pipeline before it costs anything, and how to run one step over all cases at once: a step asks
for completions by yielding calls, and the calls of all cases go to the model as one batch. Does not know which steps
there are (they register themselves), nor gold, nor scores.
"""

from __future__ import annotations

import hashlib
import inspect
import types
import typing
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lib.agent.bank import Example
from lib.agent.prompt import BadReply, Draft, Message
from lib.files import OneLine
from lib.measure.answer import NoAnswer
from lib.models.model import Capabilities, Completion, Decoding, Model

MOST_STEPS = 20


class BadPipeline(OneLine, ValueError):
    """A pipeline that cannot run; the message says which step, what came and what was expected."""


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
        """The draft that a step works on. Raises BadReply where no step has written one."""
        if self.draft is None:
            raise BadReply("no draft to work on; put ask before it")
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


@dataclass(frozen=True)
class _Made:
    make: Callable[..., Callable[[State], Work]]
    family: str
    calls: Callable[..., float]
    needs: Callable[..., Iterable[str]]


STEPS: dict[str, _Made] = {}


def step(
    family: str,
    calls: Callable[..., float] = lambda **_: 0,
    needs: Callable[..., Iterable[str]] = lambda **_: (),
):
    """Register a lever: a function of keyword arguments that returns `run(state)`, a generator of calls.

    `calls` and `needs` take the lever's arguments: completions a case, and names of `Capabilities` that it must have.
    """

    def register(make: Callable[..., Callable[[State], Work]]) -> Callable[..., Callable[[State], Work]]:
        STEPS[make.__name__] = _Made(make, family, calls, needs)
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
    made = STEPS[name]
    signature = inspect.signature(made.make)
    hints = typing.get_type_hints(made.make)
    for key, value in args.items():
        if key not in signature.parameters:
            raise BadPipeline(
                f"step {place} ({name}): no argument {key!r}; it has {', '.join(signature.parameters) or 'none'}"
            )
        if not _fits(value, hints[key]):
            raise BadPipeline(f"step {place} ({name}): {key} is {value!r:.60}, expected {_spell(hints[key])}")
    bound = {k: p.default for k, p in signature.parameters.items()} | args
    try:
        run = made.make(**args)
    except (ValueError, TypeError) as error:
        raise BadPipeline(f"step {place} ({name}): {error}") from error
    about = (inspect.getdoc(made.make) or "").split("\n")[0]
    return Step(
        name, made.family, args, run, made.calls(**bound), about, tuple(_texts(args)), frozenset(made.needs(**bound))
    )


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


def _spell(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(hint)))
    return {int: "a whole number", float: "a number", str: "text", bool: "true or false"}.get(hint, str(hint))


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [t for v in value.values() for t in _texts(v)]
    return [t for v in value for t in _texts(v)] if isinstance(value, list) else []


def require(steps: Sequence[Step], name: str, can: Capabilities) -> None:
    """Raise BadPipeline naming the first step that needs what a model cannot do."""
    for place, one in enumerate(steps, 1):
        for need in sorted(one.needs):
            if not getattr(can, need):
                raise BadPipeline(f"step {place} ({one.name}) needs {need}, which model {name!r} does not offer")


def row_seed(seed: int, case: str, number: int) -> int:
    """The seed of a case's n-th call: it depends on nothing else, so a batch's make-up changes no text."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{case}/{number}".encode()).digest()[:4], "big")


def run(steps: Sequence[Step], tasks: Sequence[tuple[str, str]], model: Model, decoding: Decoding) -> list[State]:
    """Run every case, given as (id, task), through the steps. A bad reply ends its own case, never the run."""
    states = [State(case, task) for case, task in tasks]
    for one in steps:
        states = _run_step(one, states, model, decoding)
    return states


def _run_step(one: Step, states: list[State], model: Model, decoding: Decoding) -> list[State]:
    work = {i: one.run(s) for i, s in enumerate(states) if s.failed is None}
    replies: dict[int, list[Completion] | None] = dict.fromkeys(work)
    traces: dict[int, list[dict[str, Any]]] = {i: list(states[i].calls) for i in work}
    done = list(states)
    while work:
        asked: dict[int, list[Call]] = {}
        for i, generator in list(work.items()):
            try:
                reply = replies[i]
                asked[i] = next(generator) if reply is None else generator.send(reply)
            except StopIteration as stop:
                done[i] = replace(stop.value, calls=tuple(traces[i]))
            except BadReply as error:
                done[i] = replace(states[i].fail(f"{one.name}: {error}"), calls=tuple(traces[i]))
            if i not in asked:
                del work[i]
        flat = [(i, c, len(traces[i]) + k) for i, calls in asked.items() for k, c in enumerate(calls)]
        replies = {i: [] for i in asked}
        if not flat:
            continue
        decodings = [_decoding(decoding, c, states[i].case, number) for i, c, number in flat]
        completions = model.generate([c.messages for _, c, _ in flat], decodings)
        for (i, call, _), drawn, completion in zip(flat, decodings, completions, strict=True):
            replies[i].append(completion)  # type: ignore[union-attr]
            traces[i].append(
                {
                    "step": one.name,
                    "messages": call.messages,
                    "text": completion.text,
                    "finish_reason": completion.finish_reason,
                    "tokens": [completion.prompt_tokens, completion.generation_tokens],
                }
                | ({"temp": drawn.temp} if drawn.temp else {})  # greedy calls stay as short as they are
            )
    return done


def _decoding(base: Decoding, call: Call, case: str, number: int) -> Decoding:
    changed = replace(base, **call.change) if call.change else base
    return changed.with_seed(row_seed(base.seed, case, number))
