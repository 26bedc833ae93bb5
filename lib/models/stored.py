"""Answers that were written before, played back: a frontier model as an anchor where there is no key.

Knows files of `ruler/answers`: a first line that says who wrote them, how and for which prompt, then a line a case.
Does not know prompts: the hash of the prompt stands in the file, and a call that asks in other words gets no answer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.files import RULER, canonical, rows, sha256
from lib.models.model import Capabilities, Completion, Cost, Decoding, Json, Message, Model, NoModel

PREFIX = "stored:"
# What stands in a file was drawn already: decoding that is asked for would act on nothing, so it is refused.
CAN = Capabilities(greedy=False, temperature=False)
ELSE = "{task}"  # stands for the task in the prompt that is hashed


@dataclass(frozen=True)
class Answers:
    """A file of answers."""

    about: Json  # its first line: who wrote it, how, when, `prompt_sha256`, `pipeline`
    replies: dict[str, str]  # task -> reply as the prompt asks for it


def named(name: str) -> bool:
    """Whether a model's name asks for stored answers."""
    return name.startswith(PREFIX)


def _file(name: str) -> Path:
    """The file of answers that a name asks for. Raises NoModel."""
    folder = RULER / "answers"
    path = folder / f"{name.removeprefix(PREFIX)}.jsonl"
    names = sorted(p.stem for p in folder.glob("*.jsonl"))
    # Also the parent: a name such as `stored:../cases` would leave the folder.
    if path.stem not in names or path.parent != folder:
        raise NoModel(f"model {name!r:.60}: this ruler stores answers of {', '.join(names) or 'nobody'}")
    return path


def read(name: str) -> Answers:
    """The answers behind a name such as `stored:claude`. Raises NoModel."""
    path = _file(name)
    try:
        about, *lines = (json.loads(line) for line in rows(path.read_text(encoding="utf-8")))
        about["prompt_sha256"], about["pipeline"]  # noqa: B018  there, or not such a file
        replies = {row["task"]: json.dumps(row["reply"], ensure_ascii=False) for row in lines}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NoModel(f"{path}: cannot be read as stored answers ({error})") from error
    return Answers(about, replies)


def content_hash(name: str) -> str:
    """What the answers behind a name are, 16 hex digits."""
    return sha256(_file(name).read_bytes())[:16]


def prompt_hash(messages: Sequence[Message], task: str) -> str:
    """The hash of a prompt with the task taken out, so that it is one hash for all tasks."""
    blank = [{**m, "content": m["content"].replace(task, ELSE)} for m in messages]
    return sha256(canonical(blank))


class StoredModel(Model):
    """A model that answers one prompt of one pipeline with what stands in a file. Costs nothing."""

    def __init__(self, name: str) -> None:
        super().__init__(name, CAN, answers=content_hash(name))
        self.answers = read(name)

    def generate(self, prompts: Sequence[Sequence[Message]], decodings: Sequence[Decoding]) -> list[Completion]:
        """The stored reply to each prompt; a prompt that it was not written for is an error of that case."""
        done = [self._reply(messages) for messages in prompts]
        self.cost += Cost.of(done)
        return done

    def _reply(self, messages: Sequence[Message]) -> Completion:
        """The reply to the task in the last message; an error where the prompt is not the one of the answers."""
        wanted = self.answers.about["prompt_sha256"]
        # The task is found in the text rather than parsed out of it: this room knows no prompts.
        for task, reply in self.answers.replies.items():
            if task in messages[-1]["content"] and prompt_hash(messages, task) == wanted:
                return Completion(reply, 0, 0, "stop")
        return Completion("stored answers are for another prompt or task", 0, 0, "error")
