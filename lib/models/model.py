"""What a model is: messages in, text out, with its cost. And ToyModel, which needs nothing.

Knows the words of generation, in mlx-lm's spelling. Does not know engines, tasks, parsers or scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

from pydantic import Field

from lib.files import Exit, OneLine
from lib.forms import Number, fill, form

Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": text}
Json = dict[str, Any]  # free form: what a server, a file format or a schema wants
Identity = dict[str, Any]  # what the record keeps of a model: name, weights, adapter, and what was done to its prompts

FAILED = ("refusal", "error")  # finish reasons of a reply that is none


class NoModel(OneLine):
    """A model that cannot be had here; the message says why and what to do."""

    exit = Exit.MISSING


def one_line(error: Exception) -> str:
    """What an error of elsewhere says, in one line that is not long.

    >>> one_line(ValueError("no such\\n  key"))
    'no such key'
    """
    text = " ".join(str(error).split()) or type(error).__name__
    if len(text) <= 200:
        return text
    return text[:199].rsplit(" ", 1)[0] + "…"


@form(what="decoding")
class Decoding:
    """How text is drawn. `temp` 0 is greedy and repeats exactly. Raises ValueError on a name, type or value that is none."""

    temp: Annotated[Number, Field(ge=0, le=5)] = 0.0
    # Nucleus sampling (arXiv 1904.09751); 1 is off.
    top_p: Annotated[Number, Field(gt=0, le=1)] = 1.0
    # A share of the likeliest token's probability (arXiv 2407.01082); 0 is off.
    min_p: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    top_k: Annotated[int, Field(ge=0)] = 0  # 0 is off
    max_tokens: Annotated[int, Field(ge=1, le=100_000)] = 320
    seed: int = 0
    grammar: str = ""  # a JSON schema as text that the reply must fit; "" is free text
    # CTRL's (arXiv 1909.05858); 1 is off.
    repetition_penalty: Annotated[Number, Field(ge=1, le=2)] = 1.0
    # Tokens of prompt and reply that the penalty looks back on.
    repetition_context: Annotated[int, Field(ge=1, le=4096)] = 64

    @classmethod
    def of(cls, values: Mapping[Any, Any]) -> Decoding:
        """Decoding from plain data."""
        return fill(cls, values)

    def with_seed(self, seed: int) -> Decoding:
        return replace(self, seed=seed)


@dataclass(frozen=True)
class Completion:
    """One reply of a model."""

    text: str
    prompt_tokens: int
    generation_tokens: int
    # "stop", "length", "scored" for a reply that was handed in; "refusal" or "error" with the reason as text
    finish_reason: str
    logprob: float | None = None  # mean log-probability of a token of the reply, in nats, where it was asked for
    id: str = ""  # of the reply, where a server gave one
    tokens: tuple[int, ...] = ()  # as they were drawn, with the end where it was drawn; of a model that runs on MLX


@dataclass(frozen=True)
class Cost:
    """What something took. Costs add with `+`; peak memory takes the larger."""

    calls: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    seconds: float = 0.0
    dollars: float = 0.0
    peak_memory: float = 0.0  # gigabytes, as mlx-lm reports it
    prompt_seconds: float = 0.0  # of the seconds: reading prompts, where the backend can tell

    def __add__(self, other: Cost) -> Cost:
        both = {name: value + getattr(other, name) for name, value in asdict(self).items()}
        return Cost(**both | {"peak_memory": max(self.peak_memory, other.peak_memory)})

    @classmethod
    def of(cls, replies: Sequence[Completion], **more: float) -> Cost:
        """What replies took: their calls and tokens, and what else is known of them."""
        prompt_tokens = sum(reply.prompt_tokens for reply in replies)
        return cls(len(replies), prompt_tokens, sum(reply.generation_tokens for reply in replies), **more)

    @property
    def prompt_tps(self) -> float | None:
        """Prompt tokens a second, prefixes that were read once counted for every row; None where nobody timed it."""
        if not self.prompt_seconds:
            return None
        return self.prompt_tokens / self.prompt_seconds

    @property
    def generation_tps(self) -> float | None:
        """New tokens a second, reading prompts left out where that is known; None where nothing was generated."""
        seconds = self.seconds - self.prompt_seconds
        if not self.generation_tokens or seconds <= 0:
            return None
        return self.generation_tokens / seconds


@dataclass(frozen=True)
class Capabilities:
    """What a backend can do; a pipeline that needs more is refused by name before it runs."""

    greedy: bool = True
    temperature: bool = True
    logprobs: bool = False
    grammar: bool = False
    adapters: bool = False


@dataclass
class Account:
    """What was spent: one for a model and all adapters on its base."""

    cost: Cost = Cost()


class Model:
    """Anything that completes conversations. `cost` grows with every call."""

    # Told how many replies of the call under way have ended, where that is known.
    heard: Callable[[int], None] | None = None

    def __init__(self, name: str, capabilities: Capabilities, **identity: Any) -> None:
        """`identity` is what tells this model from others of its name, such as a hash of its weights."""
        self.name, self.capabilities = name, capabilities
        self.identity: Identity = {"name": name, **identity}
        # An object of its own: a model with another adapter is a copy, and shares it.
        self._account = Account()

    @property
    def cost(self) -> Cost:
        """What this model took, with every adapter on its base."""
        return self._account.cost

    @cost.setter
    def cost(self, cost: Cost) -> None:
        self._account.cost = cost

    def generate(self, prompts: Sequence[Sequence[Message]], decodings: Sequence[Decoding]) -> list[Completion]:
        """Complete every conversation. The replies are in the order of the prompts."""
        raise NotImplementedError

    def score(self, prompts: Sequence[Sequence[Message]], replies: Sequence[str]) -> list[Completion]:
        """With the capability "logprobs": the same replies back, each with its `logprob`; nothing is generated."""
        raise NotImplementedError

    def with_adapter(self, adapter: str) -> Model:
        """With the capability "adapters": the same base with another adapter, "" for none; costs go to this model."""
        raise NotImplementedError


class ToyModel(Model):
    """Answers from a function of the conversation: for tests and for reading how a pipeline works.

    Without a function it writes a set of questions that quote the task, as many as asked for, in JSON.
    """

    def __init__(self, reply: Callable[[Sequence[Message]], str] | None = None, name: str = "toy") -> None:
        super().__init__(name, Capabilities())
        self.seen: list[Sequence[Message]] = []
        self._reply = reply or quoting

    def generate(self, prompts: Sequence[Sequence[Message]], decodings: Sequence[Decoding]) -> list[Completion]:
        """A reply to each prompt; words count as tokens, and a reply ends after `max_tokens` of them."""
        done = []
        for messages, decoding in zip(prompts, decodings, strict=True):
            self.seen.append(messages)
            # Words stand for tokens: a toy has no tokenizer, and its counts must add up all the same.
            words = self._reply(messages).split(" ")
            text = " ".join(words[: decoding.max_tokens])
            prompt_tokens = sum(len(m["content"].split()) for m in messages)
            reason = "stop" if len(words) <= decoding.max_tokens else "length"
            done.append(Completion(text, prompt_tokens, min(len(words), decoding.max_tokens), reason))
        self.cost += Cost.of(done)
        return done


TOPICS = (
    "person", "day", "cost", "place", "tool", "part", "risk", "rule", "helper", "reason",
    "room", "season", "size", "style", "limit", "order", "number", "owner", "distance", "wish",
)  # fmt: skip


def quoting(messages: Sequence[Message]) -> str:
    """The toy's reply: n questions that each quote the task."""
    import json

    lines = dict(line.split(": ", 1) for line in messages[-1]["content"].split("\n") if ": " in line)
    task, n = lines.get("Task", "the task"), int(lines.get("Questions", "7"))
    title = f"Plan: {task}"[:120]
    return json.dumps(
        {"title": title, "questions": [f"Which {t} matters when you {task[:80]}?" for t in TOPICS[:n]]},
        ensure_ascii=False,
    )
