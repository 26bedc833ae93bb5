"""How a conversation becomes the tokens that a model reads, and what of its reply is the reply.

Knows chat templates: which of them take a system role, want content in parts, ask the clock or switch thinking off.
Does not know what is said. A template is trusted with nothing: before anything runs, a conversation is put through it
and looked for among the tokens, because a template that leaves a text out does so without an error, and a model that
never saw its instructions looks like one that cannot follow them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from lib.models.model import Json, Message, NoModel, one_line

TODAY = date(2024, 7, 26)  # in every run: the day that Llama 3's own templates fall back on
DAY = "%d %b %Y"  # as those templates write it
CLOCK = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")
PROBE: tuple[Message, ...] = (
    {"role": "system", "content": "Reply with the name of one river"},
    {"role": "user", "content": "Which of them flows through the city of Cusco"},
)
CUT = "leading thoughts, byte order mark and zero-width signs are cut"  # as the record names the rule of `reply`
UNSEEN = "\ufeff\u200b\u200c\u200d\u2060"
BLANK = " \t\r\n" + UNSEEN
ANSWERS = ("{", "[", '"', "`")  # what begins like this is the answer already, whatever stands in its texts


@dataclass(frozen=True)
class Chat:
    """A tokenizer of mlx-lm, and the form in which its template takes a conversation."""

    tokenizer: Any
    template: str = ""  # its source; "" where code of mlx-lm or of the tokenizer renders
    dated: bool = False  # it writes a day
    folds: bool = False  # the system text goes in front of the first user text
    parts: bool = False  # content is a list of parts, as models that also see pictures have it

    @classmethod
    def of(cls, tokenizer: Any, name: str) -> Chat:
        """The form that a model's template takes. Raises NoModel where none holds all that is said."""
        template = _template(tokenizer, name)
        # A day that changes between two runs would be a second change beside the lever. Tried at last: a template that
        # asks for the day in another way fails on the probe, by name.
        fixed = CLOCK.sub(lambda call: repr(TODAY.strftime(call[2])), template)
        if fixed:
            tokenizer.chat_template = fixed
        dated = fixed != template or "date_string" in template
        # The plainest form first: what holds the probe as it is, is left as it is.
        faults = []
        # Gemma's templates raise on a system role, those of models that also see pictures want parts.
        for folds, parts in ((False, False), (True, False), (False, True), (True, True)):
            chat = cls(tokenizer, fixed, dated, folds, parts)
            fault = chat.fault()
            if not fault:
                return chat
            faults.append(fault)
        raise NoModel(
            f"model {name!r}: its chat template {faults[0]}; take another version of the model, or mend its template"
        )

    def fault(self) -> str:
        """What the template does to the probe that it should not; "" where all of it is among the tokens."""
        if "strftime_now(" in self.template:
            return "asks the clock in a form that cannot be given a fixed day"
        try:
            ids = self.encode(PROBE)
        except Exception as error:  # a template may raise whatever it likes
            return f"cannot be used ({one_line(error)})"
        missing = self._missing(PROBE, ids)
        if missing:
            return f"leaves out the {missing} text"
        if self.encode(PROBE) != ids:
            return "says another thing each time"
        return ""

    @property
    def identity(self) -> dict[str, str]:
        """What a record says of the form: nothing where a conversation goes in as it is."""
        notes = {}
        if self.folds:
            notes["system"] = "in the first user turn"
        if self.parts:
            notes["content"] = "in parts"
        if self.dated:
            notes["date"] = TODAY.isoformat()
        if "enable_thinking" in self.template:
            notes["thinking"] = "off"
        if self.tokenizer.has_thinking or "think>" in self.template:
            notes["reply"] = CUT
        return notes

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation, ready for the reply. Raises NoModel where earlier turns do not go in."""
        day = {"date_string": TODAY.strftime(DAY)} if "date_string" in self.template else {}
        # mlx-lm would switch thinking on where the model can: at this length of reply the thoughts are all there is.
        ids: list[int] = self.tokenizer.apply_chat_template(
            self._formed(messages), add_generation_prompt=True, tokenize=True, return_dict=False,
            enable_thinking=False, **day,
        )  # fmt: skip
        if len(messages) > len(PROBE):  # examples as earlier turns: the probe says nothing about those
            missing = self._missing(messages, ids)
            if missing:
                raise NoModel(
                    f"the chat template leaves out an earlier {missing} text; take a pipeline without such turns"
                )
        return ids

    def reply(self, text: str) -> str:
        """A reply without what some models put in front of it: a think block, or its end alone where the template has
        opened it, a byte order mark, zero-width signs. A text without them stays as it is, spaces included."""
        # Behind the first end and not the last: an answer may speak of the sign, thoughts have ended with it.
        answer = text.lstrip(BLANK)
        end = self.tokenizer.think_end or "</think>"
        if end in answer and not answer.startswith(ANSWERS):
            return answer.partition(end)[2].lstrip(BLANK)
        if answer == text.lstrip():
            return text
        return answer

    def _formed(self, messages: Sequence[Message]) -> list[Json]:
        """Messages in the form that this template takes."""
        turns: list[Json] = [dict(message) for message in messages]
        if self.folds and turns[0]["role"] == "system" and len(turns) > 1:
            system, first, *later = turns
            turns = [{**first, "content": f"{system['content']}\n\n{first['content']}"}, *later]
        if self.parts:
            for turn in turns:
                turn["content"] = [{"type": "text", "text": turn["content"]}]
        return turns

    def _missing(self, messages: Sequence[Message], ids: list[int]) -> str:
        """The role of the first message whose text is not among the tokens, "" where none is missing."""
        text = _letters(self.tokenizer.decode(ids))
        for message in messages:
            if _letters(message["content"]) not in text:
                return message["role"]
        return ""


def _template(tokenizer: Any, name: str) -> str:
    """The source of the one template that is used. Raises NoModel where there is none, or several and no usual one."""
    if not tokenizer.has_chat_template:
        raise NoModel(
            f"model {name!r} has no chat template, so nobody knows how it is spoken to; take its instruction-tuned "
            "version, or put a chat_template.jinja beside its weights"
        )
    template = tokenizer.chat_template
    if not isinstance(template, dict):
        return template or ""
    if "default" not in template:
        raise NoModel(
            f"model {name!r} has chat templates {', '.join(sorted(template))} and none called default; put the one that "
            "is meant into a chat_template.jinja beside its weights"
        )
    return template["default"]


def _letters(text: str) -> str:
    """Letters and digits alone: tokenizers change spaces, case and the form of a letter, and nothing is lost by it."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return "".join(letter for letter in plain if letter.isalnum())
