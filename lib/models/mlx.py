"""The model that runs here, on MLX. The one owner of `mlx_lm`.

Knows how to load weights (a folder or a hub id), put adapters on one base, and run all prompts of a stage as one
batch, each row with its own grammar, sampler and seed. Does not know prompts, cases or scores.
On a CPU it dequantises to float32, which decodes about 5 times faster than 4 or 8 bit there; on Apple silicon the
weights stay as they are.
"""

from __future__ import annotations

import copy
import os
import re
import sys
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from lib import weights
from lib.files import ROOT, leave_out
from lib.models import gguf, provenance
from lib.models.batching import PROBED, SCORE_TOKENS, Row, agrees, batch, mean_logprobs
from lib.models.blas import fast_blas
from lib.models.chat import CUT, PROBE, Chat
from lib.models.grammar import Grammars, Rule
from lib.models.model import Capabilities, Completion, Cost, Decoding, Message, Model, NoModel, one_line
from lib.models.prefixes import Prefixes

DEFAULT = "smollm2"  # the subject that needs no hub, no key and no GPU
CAN = Capabilities(logprobs=True, grammar=True, adapters=True)
# A tokenizer that brings code of its own is refused; left open, transformers would ask whoever sits at the terminal.
NO_CODE = {"trust_remote_code": False}
MOST_ADAPTERS = 8  # kept on one base; an adapter that is asked for again is read again
NAMES = (
    f"{DEFAULT}, toy, apple, stored:NAME, a claude-* id, an MLX folder, a GGUF file, or a hub id such as "
    "mlx-community/Llama-3.2-3B-Instruct-4bit"
)
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def engine() -> tuple[bool, str]:
    """Whether mlx can be imported, and its version and device, or why not."""
    fast_blas()
    try:
        import mlx.core as mx
    except ImportError as error:
        return False, f"cannot be imported ({error}); run `make setup`"
    from importlib.metadata import version

    return True, f"{version('mlx')}, {'Metal' if mx.metal.is_available() else 'CPU'}"


def folder_of(name: str) -> Path:
    """The folder that a model is loaded from; pinned weights and hub ids are fetched where they are not here, a GGUF
    file is converted. Raises NoModel."""
    where = name.removeprefix("mlx:")
    if where == DEFAULT:
        return gguf.folder(pinned(DEFAULT) / weights.PINNED[DEFAULT].files[0].name)
    if not where or len(where) > 200:
        raise NoModel(f"model {name[:40]!r}: expected {NAMES}")
    for path in (Path(where), ROOT / where):
        if path.is_dir():
            return path
        if path.is_file() and path.suffix == ".gguf":
            return gguf.folder(path)
    # A mistyped path of a GGUF file looks like a hub id: nobody should wait for a network to hear that it is not there.
    if HUB_ID.fullmatch(where) and not where.endswith(".gguf"):
        return _snapshot(where)
    raise NoModel(f"model {name!r}: there is no such file or folder, and it is none of {NAMES}")


def _snapshot(hub_id: str) -> Path:
    """A model of the hub as a folder, fetched once. Raises NoModel."""
    from huggingface_hub import snapshot_download

    fast_blas()
    from mlx_lm.utils import DEFAULT_ALLOW_PATTERNS

    # Keeps the progress bars of the hub out of notebooks.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        return Path(snapshot_download(hub_id, allow_patterns=DEFAULT_ALLOW_PATTERNS))
    except Exception as error:  # of the network, the hub, its client or the disk
        raise NoModel(
            f"model {hub_id!r} cannot be had (a hub id needs the network once; or name a folder with its weights): "
            f"{one_line(error)}"
        ) from error


def pinned(name: str) -> Path:
    """The folder of pinned weights, fetched where they are not here. Raises NoModel."""
    try:
        return weights.fetch(name)
    except weights.NoWeights as error:
        raise NoModel(str(error)) from error


def identity(name: str) -> str:
    """What a model is, whatever it is called and wherever it lies: 16 hex digits over its content. Raises NoModel."""
    if name.removeprefix("mlx:") == DEFAULT:
        return weights.PINNED[DEFAULT].identity
    return provenance.content_hash(folder_of(name))


def check(name: str) -> None:
    """Refuse a model that is not there, or whose chat template loses what is said. Raises NoModel.

    The tokenizer alone is loaded for that, once a process for each content. A hub id is fetched here, so that no network
    is a refusal and never a run that crashed.
    """
    folder, content = folder_of(name), identity(name)
    if content != weights.PINNED[DEFAULT].identity:
        _check_chat(name, folder, content)


@lru_cache(maxsize=16)
def _check_chat(name: str, folder: Path, _content: str) -> None:
    """The same for a folder; another content is looked at anew."""
    fast_blas()
    from mlx_lm.utils import load_tokenizer

    try:
        tokenizer = load_tokenizer(folder, NO_CODE)
    except Exception as error:  # of transformers, which reads what anybody wrote
        raise NoModel(f"model {name!r}: its tokenizer cannot be loaded from {folder} ({one_line(error)})") from error
    Chat.of(tokenizer, name)


def adapter_folder(adapter: str, name: str = "", runs: Path | None = None) -> str:
    """The folder of an adapter: a path, or a sealed run by id or slug. Raises NoModel, also where model `name` is not
    the base that it was trained on."""
    folder = provenance.find(adapter, runs)
    if name:
        provenance.check(folder, name, identity(name))
    return str(folder)


class MLXModel(Model):
    """A language model in this process. Raises NoModel when the weights or mlx cannot be loaded.

    The base is loaded once; `with_adapter` gives the same weights another adapter.
    """

    def __init__(
        self, name: str, adapter: str = "", batch: int = 64, quantised: bool = False, runs: Path | None = None
    ) -> None:
        """`adapter` is a folder or a sealed run of `runs`, `batch` is in rows; `quantised` keeps 4 bit on a CPU."""
        fast_blas()
        try:
            import mlx.core as mx
            from mlx_lm import load
            from mlx_lm.utils import dequantize_model
        except ImportError as error:
            raise NoModel(f"mlx-lm cannot be imported ({error}); run `make setup`") from error
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # keeps its notices out of notebooks
        where = folder_of(name)
        adapter, self._runs = adapter_folder(adapter, name, runs) if adapter else "", runs
        try:
            base, self.tokenizer, config = load(str(where), tokenizer_config=NO_CODE, return_config=True)
        except Exception as error:
            raise NoModel(f"model {name!r} cannot be loaded from {where}: {one_line(error)}") from error
        # On a CPU kernels for 4 and 8 bit lose to float32 by a factor of 5; on a GPU the memory they save is speed.
        self.on_gpu = mx.metal.is_available()
        if not self.on_gpu:
            if not quantised:  # training can ask to keep the base as it is
                dequantize_model(base)
            # Half precision too: bfloat16 goes through a loop of mlx's own there, without BLAS, at 2 to 5 GFLOP/s.
            base.set_dtype(mx.float32)
        self.chat = Chat.of(self.tokenizer, name)
        self.context = context(config)
        super().__init__(name, CAN, weights=identity(name), **self.chat.identity)
        self.batch = self._checked_width(base, batch)
        self._base, self._others = base, OrderedDict[str, MLXModel]()
        self._grammars: list[Grammars] = []
        self._set_adapter(adapter)

    def _checked_width(self, base: Any, width: int) -> int:
        """How many rows go through at once: as many as wanted, or 1 where a batch does not say what one row says."""
        from lib.models import ragged  # brings numpy, which `from lib import OfflineJudge` must not

        # The rows of `ragged` are our own and of one architecture: tests compare them, once and for all.
        if width == 1 or ragged.fits(base):
            return width
        # Unequal prompts, or nothing would be padded: it is padding that a cache may let into another row.
        long = [*PROBE[:-1], {**PROBE[-1], "content": PROBE[-1]["content"] * 5}]
        prompts = [self.encode(PROBE), self.encode(long)]
        if any(len(ids) + PROBED > self.context for ids in prompts):
            return width
        # Of its own, so that no later prompt begins with what a batch may have read wrongly.
        fresh = Prefixes(base, lambda: prompt_cache(base))
        if agrees(base, fresh, prompts, 2):
            return width
        self.identity["batch"] = "row by row: this architecture draws other tokens in a batch"
        if agrees(base, fresh, prompts, 1):
            return 1
        raise NoModel(f"model {self.name!r} draws other tokens step by step than over a whole text: mlx-lm does not run "
                      "this architecture soundly here; take another version of mlx-lm, or another model")  # fmt: skip

    def _set_adapter(self, adapter: str) -> None:
        """Put an adapter's folder on; "" is the bare base."""
        self.adapter = adapter
        model = self._base
        # A copy: what is said of one adapter holds for no other.
        self.identity = leave_out(self.identity, "adapter")
        if adapter:
            model = adapted(self._base, adapter, self.on_gpu)
            self.identity["adapter"] = provenance.content_hash(Path(adapter), provenance.ADAPTER)
        self.model, self._prefixes = model, Prefixes(model, lambda: prompt_cache(model))

    def with_adapter(self, adapter: str) -> MLXModel:
        """The same base with another adapter, "" for none; what it costs is added to this model. Raises NoModel."""
        folder = adapter_folder(adapter, self.name, self._runs) if adapter else ""
        if folder == self.adapter:
            return self
        if folder not in self._others:
            # A shallow copy: tokenizer, chat, account and grammars stay shared, model and prefixes are its own.
            other = copy.copy(self)
            other._set_adapter(folder)
            self._others[folder] = other
            # The one asked for longest ago goes; it is read again from its file where it is asked for again.
            if len(self._others) > MOST_ADAPTERS:
                self._others.popitem(last=False)
        self._others.move_to_end(folder)
        return self._others[folder]

    def clear_cache(self) -> None:
        """Let go of the prefixes that were kept for later prompts; they are up to a quarter of a gigabyte.

        Whoever changes weights in place calls it: prefixes that the old weights read would stand in later replies.
        """
        self._prefixes.clear()

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation, ready for the reply."""
        return self.chat.encode(messages)

    def generate(self, prompts: Sequence[Sequence[Message]], decodings: Sequence[Decoding]) -> list[Completion]:
        """Complete every conversation, all of them in one continuous batch. Order of the replies is that of the prompts.

        A prompt that leaves no room in the context is an error of its own reply. Raises BadGrammar before anything is
        computed, NoModel where the model gives no numbers.
        """
        from mlx_lm.generate import wired_limit

        if not prompts:
            return []
        began = time.perf_counter()
        rows = [self._row(self.encode(p), d) for p, d in zip(prompts, decodings, strict=True)]
        grammars = self._grammars[0] if self._grammars else None
        running = batch(self.model, self._prefixes, self.tokenizer.eos_token_ids, grammars, self.batch)
        running.heard = self.heard
        with wired_limit(self.model):  # keeps the weights in place while a GPU works; nothing on a CPU
            running.run([row for row in rows if not row.reason])
        done = [self._completion(row) for row in rows]
        self._book(done, began, running.prompt_seconds)
        return done

    def _row(self, ids: list[int], decoding: Decoding) -> Row:
        """A prompt as a row of the batch; one that fills the context has ended before it begins."""
        room = self.context - len(ids)
        if room < 1:
            return Row(ids, decoding, reason="error")
        if room < decoding.max_tokens:
            # Past its context a model counts positions that it never learnt: the reply is cut off there.
            decoding = replace(decoding, max_tokens=room)
        if not decoding.grammar:
            return Row(ids, decoding)
        return Row(ids, decoding, self._rule(decoding.grammar))

    def _completion(self, row: Row) -> Completion:
        """A row that has ended as a reply, its text without what the chat template puts around it."""
        if row.reason == "error":
            text = f"the prompt has {len(row.prompt)} tokens, and the context of the model is {self.context}"
            return Completion(text, len(row.prompt), 0, "error")
        whole = self.tokenizer.decode(row.reply, skip_special_tokens=True)
        text = self.chat.reply(whole)
        if text != whole:  # also of a model that nothing said this of
            self.identity["reply"] = CUT
        tokens = (*row.reply, *row.end)
        return Completion(text, len(row.prompt), len(tokens), row.reason, tokens=tokens)

    def score(self, prompts: Sequence[Sequence[Message]], replies: Sequence[str]) -> list[Completion]:
        """The replies back, each with the mean log-probability of its tokens, its end not among them. Raises ValueError
        on an empty reply, and on one that goes past the context."""
        from mlx_lm.generate import wired_limit

        if not prompts:
            return []
        began = time.perf_counter()
        starts = [self.encode(prompt) for prompt in prompts]
        # Prompt and reply apart, as training reads them: read together, a token could span the border.
        ends = [self.tokenizer.encode(reply, add_special_tokens=False) for reply in replies]
        if not all(ends):
            raise ValueError("a reply to score is empty: it has no tokens to score")
        lengths = [len(start) + len(end) for start, end in zip(starts, ends, strict=True)]
        if max(lengths) > self.context:
            raise ValueError(
                f"a reply to score ends at token {max(lengths)}, and the context of the model is {self.context}"
            )
        # Where rows cannot share a forward to be written, they cannot share one to be scored.
        positions = 1 if self.batch == 1 else SCORE_TOKENS
        with wired_limit(self.model):
            logprobs = mean_logprobs(self.model, self._prefixes, starts, ends, positions)
        done = []
        for text, length, logprob in zip(replies, lengths, logprobs, strict=True):
            done.append(Completion(text, length, 0, "scored", logprob))
        self._book(done, began, time.perf_counter() - began)
        return done

    def _rule(self, schema: str) -> Rule:
        """A grammar at its start, compiled once for the tokenizer."""
        if not self._grammars:  # one for all adapters: they share the tokenizer
            self._grammars.append(Grammars(self.tokenizer._tokenizer, self.tokenizer.eos_token_ids))
        return self._grammars[0].begin(schema)

    def _book(self, done: Sequence[Completion], began: float, prompt_seconds: float) -> None:
        """Add what a call took to the cost of the model."""
        import mlx.core as mx

        # Buffers of this width are of no use to the next call, and mlx would hold them for good.
        mx.clear_cache()
        seconds = time.perf_counter() - began
        self.cost += Cost.of(done, seconds=seconds, prompt_seconds=prompt_seconds, peak_memory=peak_memory())


def peak_memory() -> float:
    """Gigabytes that mlx held at most in this process."""
    import mlx.core as mx

    return mx.get_peak_memory() / 1e9


def prompt_cache(model: Any) -> list[Any]:
    """A new cache a layer, as the model wants them."""
    from mlx_lm.models.cache import make_prompt_cache

    return list(make_prompt_cache(model))


def context(config: Mapping[str, Any]) -> int:
    """How many tokens a model reads at most, as its configuration says; no bound where it says nothing."""
    # Each architecture has a name of its own for it. Whoever scales its positions writes the scaled number there.
    # A model that also sees pictures has the numbers of its language part a level deeper.
    values = {**config, **(config.get("text_config") or {})}
    for name in ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"):
        if isinstance(values.get(name), int):
            return int(values[name])
    return sys.maxsize


def adapted(base: Any, adapter: str, on_gpu: bool) -> Any:
    """A model that shares every weight of `base` and has an adapter on top. Raises NoModel."""
    import mlx.core as mx
    from mlx_lm.tuner.utils import load_adapters

    # mlx-lm puts its layers into the very tree it is given, and cannot take them out again.
    model = share_weights(base)
    try:
        load_adapters(model, adapter)
    except Exception as error:
        raise NoModel(f"adapter {adapter!r} does not fit the model: {one_line(error)}") from error
    # The adapter's own weights alone: those of the base stay the very arrays that all adapters share.
    if not on_gpu:
        model.set_dtype(mx.float32, lambda dtype: mx.issubdtype(dtype, mx.floating) and dtype != mx.float32)
    model.eval()
    return model


def share_weights(model: Any) -> Any:
    """A module tree of its own over the same arrays: layers can be replaced in it and stay in the other."""
    from mlx.utils import tree_flatten

    arrays = {id(array): array for _, array in tree_flatten(model.parameters())}
    return copy.deepcopy(model, arrays)  # what stands there already counts as copied
