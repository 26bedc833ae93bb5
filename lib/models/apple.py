"""Apple's on-device Foundation Model through the optional package `apple-fm-sdk`. The one owner of `apple_fm_sdk`.

Knows sessions, sampling options and the SDK's errors, as its source of 2026 names them. This file was never run on a
Mac: its tests use a stand-in with the same names, so expect to mend it there. One session a conversation, since a
session remembers; one at a time, since the model serves one. No log-probabilities, no grammar of ours, no adapters:
the SDK offers none of these.
"""

from __future__ import annotations

import asyncio
import platform
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any

from lib.models.model import Capabilities, Completion, Cost, Decoding, Message, Model, NoModel

CAN = Capabilities()
NEEDS = (
    "a Mac with Apple silicon, macOS 26 or newer with Apple Intelligence on, Xcode 26, and `pip install apple-fm-sdk`"
)
UNAVAILABLE = {
    "APPLE_INTELLIGENCE_NOT_ENABLED": "Apple Intelligence is off; turn it on in System Settings",
    "DEVICE_NOT_ELIGIBLE": "this machine cannot run it",
    "MODEL_NOT_READY": "the model is still being downloaded; try again later",
}
PAUSES = (1.0, 2.0, 4.0)  # seconds before a call that was turned away is made again


def check() -> None:
    """Refuse where the SDK is not installed. Raises NoModel."""
    if find_spec("apple_fm_sdk") is None:
        raise NoModel(f"model 'apple' is not available here; it needs {NEEDS}")


def identity() -> str:
    """What the model is, as far as anybody can say: it comes with the system and changes with it, without a name."""
    return f"apple, macOS {platform.mac_ver()[0] or 'unknown'}"


class AppleModel(Model):
    """The system's language model. Raises NoModel where it cannot be used."""

    def __init__(self, pauses: Sequence[float] = PAUSES) -> None:
        """`pauses` are the seconds before each new try of a call that was turned away."""
        check()
        try:
            import apple_fm_sdk as fm
        except ImportError as error:
            raise NoModel(f"model 'apple': its SDK cannot be imported ({error}); it needs {NEEDS}") from error
        self._fm, self._pauses = fm, pauses
        self._model = fm.SystemLanguageModel()
        there, why = self._model.is_available()
        if not there:
            reason = str(getattr(why, "name", why)).rpartition(".")[2]
            raise NoModel(f"model 'apple' is not available: {UNAVAILABLE.get(reason, reason)}")
        super().__init__("apple", CAN, system=identity(), window=int(self._model.context_size))

    def generate(self, prompts: Sequence[Sequence[Message]], decodings: Sequence[Decoding]) -> list[Completion]:
        """Complete the conversations one after another. Raises NoModel for what the model does not take."""
        began = time.perf_counter()
        options = [self._options(decoding) for decoding in decodings]  # refused before anything is asked
        done = _run(self._all(prompts, options, decodings))
        self.cost += Cost.of(done, seconds=time.perf_counter() - began)
        return done

    def _options(self, d: Decoding) -> Any:
        """A decoding as the SDK takes it. Raises NoModel for a grammar, min_p, and top_p together with top_k."""
        refused = {
            "grammar": bool(d.grammar),
            "min_p": d.min_p > 0,
            "top_p and top_k together": d.top_p < 1 and d.top_k > 0,
        }
        for name, wanted in refused.items():
            if wanted:
                raise NoModel(f"model 'apple' takes no {name}; leave it out of decoding")
        # Its random mode takes either a number of tokens or a share of probability.
        mode = self._fm.SamplingMode
        if d.temp == 0:
            return self._fm.GenerationOptions(sampling=mode.greedy(), maximum_response_tokens=d.max_tokens)
        if d.top_k > 0:
            sampling = mode.random(top=d.top_k, seed=d.seed)
        else:
            sampling = mode.random(probability_threshold=d.top_p, seed=d.seed)
        return self._fm.GenerationOptions(temperature=d.temp, sampling=sampling, maximum_response_tokens=d.max_tokens)

    async def _all(
        self, prompts: Sequence[Sequence[Message]], options: Sequence[Any], decodings: Sequence[Decoding]
    ) -> list[Completion]:
        done = []
        for messages, how, decoding in zip(prompts, options, decodings, strict=True):
            done.append(await self._one(messages, how, decoding.max_tokens))
        return done

    async def _one(self, messages: Sequence[Message], options: Any, max_tokens: int) -> Completion:
        """One reply; a refusal, or a fault that trying again does not mend, is a Completion too. Raises NoModel."""
        fm = self._fm
        instructions, prompt = _split(messages)
        prompt_tokens = await self._model.token_count(instructions) + await self._model.token_count(prompt)
        fault = ""
        # None is the last try, after which nothing is waited for.
        for pause in (*self._pauses, None):
            try:
                # A new one for each conversation: a session remembers, and a case must not see another.
                session = fm.LanguageModelSession(instructions=instructions, model=self._model)
                text = str(await session.respond(prompt, options=options))
                tokens = int(await self._model.token_count(text))
                # The SDK does not say why a reply ended.
                return Completion(text, prompt_tokens, tokens, "stop" if tokens < max_tokens else "length")
            except (fm.GuardrailViolationError, fm.RefusalError) as error:
                return Completion(_line(error), prompt_tokens, 0, "refusal")
            except fm.ExceededContextWindowSizeError as error:
                fault = f"the conversation does not fit the window of {self.identity['window']} tokens ({_line(error)})"
                break
            except fm.AssetsUnavailableError as error:
                raise NoModel(f"model 'apple': its files are not there ({_line(error)}); try again later") from error
            except (fm.RateLimitedError, fm.ConcurrentRequestsError) as error:
                fault = _line(error)
                if pause is not None:
                    await asyncio.sleep(pause)
        return Completion(fault, prompt_tokens, 0, "error")


def _split(messages: Sequence[Message]) -> tuple[str, str]:
    """Instructions and one prompt. Earlier turns become text: a session cannot be handed a history."""
    instructions, turns = [], []
    for message in messages:
        if message["role"] == "system":
            instructions.append(message["content"])
        elif message["role"] == "assistant":
            turns.append(f"Reply: {message['content']}")
        else:
            turns.append(message["content"])
    return "\n".join(instructions), "\n\n".join(turns)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200].rstrip(": ")


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    """Wait for a coroutine on a thread of its own: a notebook's thread has a loop already."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, work).result()
