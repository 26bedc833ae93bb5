"""Many rows through one MLX model at once: shared prefixes read once, rows leave and join while others go on.

Knows tokens, key-value caches, masks and random keys. Does not know text, prompts or where a model comes from.
It stands in for mlx-lm's BatchGenerator because that copies the whole cache for every row that ends, calls samplers
and masks row by row, and reads a prefix again for every row; the cache classes and their arithmetic are mlx-lm's.
`Batch` runs any model of mlx-lm, `RaggedBatch` a Llama-like one on a CPU; `batch` chooses. Both draw the
same tokens, but for sampled rows with a grammar: a forced token uses up no random key in `RaggedBatch`.
Shapes: B rows in flight, T tokens of one forward, V tokens of the vocabulary.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lib.models.grammar import Grammars, Rule
from lib.models.model import Decoding, NoModel
from lib.models.prefixes import PREFILL_TOKENS, Prefixes, settle

if TYPE_CHECKING:
    from lib.models.ragged import Llama

# Positions of one forward where the logits of each are needed: 500 MB with V = 128,000. Reading a prompt needs none.
SCORE_TOKENS = 1024
PROBED = 8  # tokens that a batch is compared on, once a model
# A share of the way from the mean logit to the largest: two tokens nearer than that, and half precision may decide.
TIE = 0.02
NO_NUMBERS = (
    "the model's logits are not numbers (NaN or infinite), so its tokens would be drawn from nothing: its weights are "
    "broken, or the text has more positions than it learnt"
)


@dataclass(eq=False)
class Row:
    """One reply in the making."""

    prompt: list[int]
    decoding: Decoding
    rule: Rule | None = None
    reply: list[int] = field(default_factory=list)
    end: list[int] = field(default_factory=list)  # the token that ended it; none where it was cut off
    reason: str = ""  # "stop" or "length", once it has ended
    fresh: bool = True  # the next forward reads the last token of its prompt
    feed: list[int] = field(default_factory=list)  # what the next forward reads, where that may be several tokens

    def take(self, token: int, ends: frozenset[int]) -> None:
        """Note a token that was drawn, unless the row has ended."""
        # A row stays in the batch for some steps after its end, and what is drawn for it there is nobody's.
        if self.reason:
            return
        if token in ends:
            self.reason, self.end = "stop", [token]
            return
        self.reply.append(token)
        if len(self.reply) >= self.decoding.max_tokens:
            self.reason = "length"

    def recent(self, newest: Sequence[int] = ()) -> list[int]:
        """The last tokens of prompt and reply that a repetition penalty looks at, `newest` behind them."""
        return [*self.prompt, *self.reply, *newest][-self.decoding.repetition_context :]


@dataclass
class Padded:
    """Keys and values of rows in flight as mlx-lm holds them, padded to one width. `ragged.Rows` is the other form."""

    caches: list[Any]  # one a layer, its arrays (B, heads, width, size)
    tokens: Any  # (B,), what the next forward reads

    def keep(self, places: list[int]) -> None:
        """Let all other rows go."""
        for cache in self.caches:
            cache.filter(places)
        self.tokens = self.tokens[places]

    def join(self, other: Padded) -> None:
        """The rows of another behind one's own."""
        import mlx.core as mx

        for cache, joining in zip(self.caches, other.caches, strict=True):
            cache.extend(joining)
        self.tokens = mx.concatenate([self.tokens, other.tokens])


class Batch:
    """Rows in flight on one model. `run` ends when every row has; results stand in the rows."""

    def __init__(self, model: Any, prefixes: Prefixes, ends: Sequence[int], grammars: Grammars | None, width: int):
        """`ends` are the tokens that end a reply, `width` is how many rows go through the model at once."""
        self.model, self.prefixes, self.grammars, self.width = model, prefixes, grammars, width
        self.ends = frozenset(ends)
        self.live: list[Row] = []
        self.states: Any = None  # keys and values of the live rows, None where there are none
        self.random_keys: Any = None  # (B, 2): a row's draws do not depend on its neighbours
        self.finite: Any = None  # whether the logits of the last step were numbers, worked out beside its tokens
        self.prompt_seconds = 0.0
        self.heard: Callable[[int], None] | None = None  # told after each step how many rows have ended

    def run(self, rows: Sequence[Row]) -> None:
        """Complete all rows, `width` of them at a time. Raises NoModel where the logits are no numbers."""
        waiting = deque(rows)
        while waiting or self.live:
            room = self.width - len(self.live)
            # By the quarter: a prompt that is read alone keeps all others waiting for a whole forward.
            if waiting and (not self.live or room >= max(1, self.width // 4)):
                began = time.perf_counter()
                self._admit([waiting.popleft() for _ in range(min(room, len(waiting)))])
                self.prompt_seconds += time.perf_counter() - began
            self._step()
            ended = sum(bool(row.reason) for row in self.live)
            if self.heard:
                self.heard(len(rows) - len(waiting) - len(self.live) + ended)
            # To let a row go copies the cache of all others, so rows leave by the quarter too.
            if ended * 4 >= len(self.live):
                self._leave()

    def _step(self) -> None:
        """Draw the next token of every live row, one forward of width 1. A row that has ended still takes part."""
        import mlx.core as mx

        # The tokens were drawn a step ago and may still be under way: nothing here waits for them but masks and windows.
        tokens = self.states.tokens
        logits = self.model(tokens[:, None], cache=self.states.caches)[:, -1]  # (B, 1, V) -> (B, V)
        # The largest of a row is NaN where any is: one number a row says whether all of them are numbers.
        finite_before, self.finite = self.finite, mx.isfinite(logits.max(axis=-1)).all()
        if any(row.decoding.repetition_penalty > 1 for row in self.live):
            mx.async_eval(logits)  # the forward runs while the windows are put together
            logits = penalised(logits, self._windows(), self.live)
        if any(row.rule and not row.reason for row in self.live):
            logits = self._masked(logits)
        following, self.random_keys = draw(logits, [row.decoding for row in self.live], self.random_keys)
        # One step ahead: the next token is on its way before this one is looked at.
        mx.async_eval(following, self.random_keys, self.finite)
        # Of the step that drew `tokens`: none is taken before its logits are known to be numbers, and nothing waits.
        if finite_before is not None and not finite_before.item():
            raise NoModel(NO_NUMBERS)
        # Of a fresh row this step read the last token of its prompt, which is no part of a reply.
        for row, token in zip(self.live, tokens.tolist(), strict=True):
            if not row.fresh:
                row.take(token, self.ends)
            row.fresh = False
        self.states.tokens = following

    def _windows(self) -> list[list[int]]:
        """What each row's penalty looks at: also the token that this step reads, which is not part of its reply yet."""
        windows = []
        for row, token in zip(self.live, self.states.tokens.tolist(), strict=True):
            newest = [] if row.fresh else [token]  # of a prompt the last token, which is in the window already
            windows.append(row.recent(newest))
        return windows

    def _masked(self, logits: Any) -> Any:
        """Logits (B, V) with -inf where a row's grammar allows no token."""
        import mlx.core as mx

        mx.async_eval(logits)  # the forward runs while the masks are worked out
        rules: list[Rule | None] = []
        for row, token in zip(self.live, self.states.tokens.tolist(), strict=True):
            # Here and not beside `row.take`, which comes after the draw: the mask has to know the token that is read.
            if row.rule and not row.fresh and not row.reason:
                row.rule.take(token)
            # Of an ended row nobody reads what is drawn, and its grammar may have no token left to allow.
            rules.append(None if row.reason else row.rule)
        allowed = mx.array(self.grammars.allowed(rules, logits.shape[-1]))  # type: ignore[union-attr]
        return mx.where(allowed, logits, -float("inf"))

    def _going(self) -> tuple[list[int], list[Row]]:
        """Places and rows of those that have not ended."""
        places = [i for i, row in enumerate(self.live) if not row.reason]
        return places, [self.live[i] for i in places]

    def _leave(self) -> None:
        """Let rows that have ended go, with their keys, values and random keys."""
        places, self.live = self._going()
        if not places:
            self.states = self.random_keys = None
            return
        self.states.keep(places)
        self.random_keys = self.random_keys[places]

    # --- reading prompts

    def _admit(self, rows: list[Row]) -> None:
        """Read the prompts of new rows, those that begin alike together, and let them join."""
        for length, places in self.prefixes.groups([row.prompt for row in rows]):
            # By length, so that a padded forward pads little.
            alike = sorted((rows[i] for i in places), key=lambda row: len(row.prompt))
            prefix = self.prefixes.get(alike[0].prompt[:length])
            for some in runs(alike, [len(row.prompt) - length for row in alike], PREFILL_TOKENS):
                self._join(some, self._read(some, length, prefix))

    def _join(self, rows: list[Row], states: Any) -> None:
        """Put rows whose prompts are read behind those in flight."""
        import mlx.core as mx

        # From the row's own seed, so a reply is the same whatever else is in flight and whenever it joins.
        random_keys = mx.stack([mx.random.key(row.decoding.seed) for row in rows])
        if self.live:
            self.states.join(states)
            self.random_keys = mx.concatenate([self.random_keys, random_keys])
        else:
            self.states, self.random_keys = states, random_keys
        self.live += rows

    def _read(self, rows: list[Row], length: int, prefix: list[Any]) -> Any:
        """Read what the rows do not share, up to each one's last token; returns their keys and values."""
        import mlx.core as mx

        # The prefix is copied once for each row here; `RaggedBatch` is spared that.
        caches = [cache.merge([cache] * len(rows)) for cache in prefix]
        # Without the last token: the first step reads it, and draws the first token of the reply from it.
        rest = [row.prompt[length:-1] for row in rows]
        lengths = [len(ids) for ids in rest]
        most = max(lengths)
        # Padded on the right while they are read, so that positions count from each row's own start; `finalize` then
        # moves the padding to the left, where a growing cache wants it.
        padded = min(lengths) < most
        if padded:
            for cache in caches:
                cache.prepare(lengths=lengths, right_padding=[most - n for n in lengths])
        tokens = right_padded(rest)
        # So many of each row, so that the bound holds for all rows together.
        step = max(1, PREFILL_TOKENS // len(rows))
        for at in range(0, most, step):
            self.model(tokens[:, at : at + step], cache=caches)
            settle(caches)
        if padded:
            for cache in caches:
                cache.finalize()
        settle(caches)
        return Padded(caches, mx.array([row.prompt[-1] for row in rows]))


class RaggedBatch(Batch):
    """The same for a Llama-like model on a CPU: no padding, no ended rows, and tokens that a grammar forces cost no
    step of their own. It knows every token before the next forward, so nothing runs ahead."""

    def __init__(self, *arguments: Any) -> None:
        from lib.models.ragged import Llama

        super().__init__(*arguments)
        self.llama: Llama = Llama(self.model)

    def _step(self) -> None:
        """Draw the next token of every row that goes on, then take what its grammar forces; (rows, V) at a time."""
        import mlx.core as mx
        import numpy as np

        places, going = self._going()
        if not places:  # a grammar that leaves no choice ends a reply before anything is drawn
            return
        logits = self.states.forward([[] if row.reason else row.feed for row in self.live])  # (going, V)
        # Before masks, which write -inf themselves. A row's largest is NaN where any is.
        if not np.isfinite(logits.max(axis=-1)).all():
            raise NoModel(NO_NUMBERS)
        decodings = [row.decoding for row in going]
        if any(decoding.repetition_penalty > 1 for decoding in decodings):
            logits = np.array(penalised(mx.array(logits), [row.recent() for row in going], going))
        if any(row.rule for row in going):
            allowed = self.grammars.allowed([row.rule for row in going], logits.shape[-1])  # type: ignore[union-attr]
            np.putmask(logits, allowed == 0, -np.inf)
        # Only sampling goes back to mlx: its random keys are those of `Batch`, so both draw the same tokens.
        if any(decoding.temp > 0 for decoding in decodings):
            at = mx.array(places)
            tokens, self.random_keys[at] = draw(mx.array(logits), decodings, self.random_keys[at])
            following = tokens.tolist()
        else:
            following = logits.argmax(axis=-1).tolist()
        for row, token in zip(going, following, strict=True):
            row.feed = self._with_forced(row, [token])

    def _with_forced(self, row: Row, drawn: list[int]) -> list[int]:
        """Take the tokens that were drawn, and all that the grammar forces after them; returns both."""
        for token in drawn:
            row.take(token, self.ends)
        if not row.rule:
            return drawn
        for token in drawn:
            row.rule.take(token)
        # A grammar forces most of a set's punctuation: those tokens are read with the next forward, all at once.
        tokens = list(drawn)
        for token in row.rule.forced():
            if not row.reason:
                row.take(token, self.ends)
                row.rule.take(token)
                tokens.append(token)
        # Of several ends the model chooses one, as under a mask; of one there is nothing to ask it.
        if row.rule.complete and len(self.ends) == 1:
            [end] = self.ends  # the one token that may still come
            row.take(end, self.ends)
        return tokens

    def _read(self, rows: list[Row], length: int, prefix: list[Any]) -> Any:
        """Read prompts behind their shared prefix, up to each one's last token; returns their keys and values."""
        from lib.models.ragged import Rows

        states = Rows(self.llama, len(rows), prefix, length)
        most = max(len(row.prompt) for row in rows) - 1
        step = max(1, PREFILL_TOKENS // len(rows))
        # A row whose prompt is read feeds nothing more, and so costs nothing in what is left of the others.
        for at in range(length, most, step):
            states.forward([row.prompt[at : min(at + step, len(row.prompt) - 1)] for row in rows], logits=False)
        for row in rows:
            # A grammar also forces how a reply begins: that is read in one forward with the last token of the prompt.
            row.feed = [row.prompt[-1], *self._with_forced(row, [])]
        return states


def batch(model: Any, *arguments: Any) -> Batch:
    """The fastest batch that this model can have here; arguments as of `Batch`."""
    from lib.models import ragged

    return RaggedBatch(model, *arguments) if ragged.fits(model) else Batch(model, *arguments)


def agrees(model: Any, prefixes: Prefixes, prompts: Sequence[list[int]], width: int) -> bool:
    """Whether rows of unequal prompts, `width` of them at a time, draw what a forward over each whole text says.

    mlx-lm's caches do not hold for every architecture: some break off on a batch, some let the padding of one row into
    another without an error. Raises NoModel where the model gives no numbers.
    """
    rows = [Row(ids, Decoding(max_tokens=PROBED)) for ids in prompts]
    try:
        # Without ends, so that every row draws all of its PROBED tokens.
        batch(model, prefixes, (), None, width).run(rows)
    except NoModel:
        raise
    except Exception:  # shapes that do not fit, a cache that cannot be put together: whatever mlx says there
        return False
    return all(_largest(model, row) for row in rows)


def _largest(model: Any, row: Row) -> bool:
    """Whether each drawn token has the largest logit, or one so near it that rounding may decide between the two."""
    import mlx.core as mx

    # Without any cache, as training calls it: the one forward that no cache of mlx-lm can spoil.
    text = mx.array([row.prompt + row.reply[:-1]])  # (1, T)
    logits = model(text)[0, len(row.prompt) - 1 :].astype(mx.float32)  # (drawn, V)
    top = logits.max(axis=-1)
    drawn = mx.take_along_axis(logits, mx.array(row.reply)[:, None], axis=-1)[:, 0]
    return bool(mx.all(top - drawn <= TIE * (top - logits.mean(axis=-1))).item())


def penalised(logits: Any, windows: Sequence[list[int]], rows: Sequence[Row]) -> Any:
    """Logits (B, V) with the tokens of each row's window made less likely, as mlx-lm's make_repetition_penalty does:
    positive ones over the penalty, negative ones times it, prompt tokens counted too (arXiv 1909.05858)."""
    import mlx.core as mx

    most = max(map(len, windows))
    # To fill a window up with one of its own tokens writes the same value twice.
    tokens = mx.array([window + window[-1:] * (most - len(window)) for window in windows])  # (B, most)
    penalties = mx.array([row.decoding.repetition_penalty for row in rows], dtype=logits.dtype)[:, None]
    values = mx.take_along_axis(logits, tokens, axis=-1)
    # The paper divides every logit; of a negative one that would make the token likelier.
    values = mx.where(values < 0, values * penalties, values / penalties)
    return mx.put_along_axis(logits, tokens, values, axis=-1)


def draw(logits: Any, decodings: Sequence[Decoding], random_keys: Any) -> tuple[Any, Any]:
    """The next token of every row (B,), greedy or sampled, and the random keys (B, 2) of the one after it."""
    import mlx.core as mx

    tokens = mx.argmax(logits, axis=-1)
    # Rows that sample alike pass the filters together: a pipeline has one decoding, so nearly always that is one group.
    kinds: dict[tuple[float, float, float, int], list[int]] = {}
    for i, d in enumerate(decodings):
        if d.temp > 0:
            kinds.setdefault((d.temp, d.top_p, d.min_p, d.top_k), []).append(i)
    if not kinds:
        return tokens, random_keys
    # A key is used once: one half draws now, the other is the key of the next token.
    pairs = mx.vmap(mx.random.split)(random_keys)
    random_keys, now = pairs[:, 0], pairs[:, 1]
    for kind, places in kinds.items():
        if len(places) == len(decodings):  # the usual case, without a copy of all logits
            return sample(logits, now, *kind), random_keys
        at = mx.array(places)
        tokens = mx.put_along_axis(tokens, at, sample(logits[at], now[at], *kind), axis=0)
    return tokens, random_keys


def sample(logits: Any, random_keys: Any, temp: float, top_p: float, min_p: float, top_k: int) -> Any:
    """One token a row, each from its own key: the largest of log-probability over temperature plus Gumbel noise, which
    draws from the softmax exactly (Gumbel-max). Filters come in mlx-lm's order, before the temperature."""
    import mlx.core as mx
    from mlx_lm.sample_utils import apply_min_p, apply_top_k, apply_top_p

    logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)  # (B, V)
    if top_p < 1:
        logprobs = apply_top_p(logprobs, top_p)
    if min_p > 0:
        logprobs = apply_min_p(logprobs, min_p)
    width = logprobs.shape[-1]
    if 0 < top_k < width:
        logprobs = apply_top_k(logprobs, top_k)
    noise = mx.vmap(lambda key: mx.random.gumbel((width,), key=key))(random_keys)
    return mx.argmax(logprobs / temp + noise, axis=-1)


def mean_logprobs(
    model: Any,
    prefixes: Prefixes,
    prompts: Sequence[list[int]],
    replies: Sequence[list[int]],
    positions: int = SCORE_TOKENS,
) -> list[float]:
    """The mean log-probability, in nats, of a token of each reply after its prompt; `positions` of them in one forward,
    and with 1 each row goes alone. No reply may be empty."""
    import mlx.core as mx

    means = [0.0] * len(prompts)
    texts = [prompt + reply for prompt, reply in zip(prompts, replies, strict=True)]
    for length, places in prefixes.groups(prompts):
        places = sorted(places, key=lambda i: len(texts[i]))  # short ones first, as `runs` wants them
        prefix = prefixes.get(prompts[places[0]][:length])
        for some in runs(places, [len(texts[i]) - length for i in places], positions):
            tokens = right_padded([texts[i][length:] for i in some])  # (B, T)
            caches = [cache.merge([cache] * len(some)) for cache in prefix] if length else None
            # Padding comes after a row's own tokens, so none of them sees it.
            logits = model(tokens[:, :-1], cache=caches).astype(mx.float32)  # (B, T - 1, V)
            logprobs = mx.take_along_axis(logits, tokens[:, 1:, None], axis=-1)[..., 0] - mx.logsumexp(logits, axis=-1)
            for i, row in zip(some, logprobs.tolist(), strict=True):
                # Position t says how likely token t + 1 was, so the reply begins one place before its first token.
                first = len(prompts[i]) - length - 1
                means[i] = sum(row[first : first + len(replies[i])]) / len(replies[i])
    return means


def right_padded(rows: Sequence[list[int]]) -> Any:
    """Rows of token ids as (B, longest), zeros behind the shorter ones."""
    import mlx.core as mx

    longest = max(map(len, rows))
    return mx.array([ids + [0] * (longest - len(ids)) for ids in rows])


def runs(rows: Sequence[Any], lengths: Sequence[int], most: int) -> list[list[Any]]:
    """Rows, shortest first, in runs whose padded width stays within one forward's bound.

    >>> runs("abc", [1, 2, 5], 6)
    [['a', 'b'], ['c']]
    """
    parts: list[list[Any]] = []
    for row, length in zip(rows, lengths, strict=True):
        # Shortest first, so whoever joins is the longest and sets the width of the whole run.
        if not parts or (len(parts[-1]) + 1) * length > most:
            parts.append([])
        parts[-1].append(row)
    return parts
