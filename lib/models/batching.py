"""Many rows through one MLX model at once: shared prefixes read once, rows leave and join while others go on.

Knows tokens, key-value caches, masks and random keys. Does not know text, prompts or where a model comes from.
It stands in for mlx-lm's BatchGenerator because that copies the whole cache for every row that ends, calls samplers
and masks row by row, and reads a prefix again for every row; the cache classes and their arithmetic are mlx-lm's.
`Batch` runs any model of mlx-lm, `RaggedBatch` a Llama-like one on a CPU; `batch` chooses. Both draw the
same tokens, but for sampled rows with a grammar: a forced token uses up no random key in `RaggedBatch`.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lib.models.grammar import Grammars, Rule
from lib.models.model import Decoding, NoModel

if TYPE_CHECKING:
    from lib.models.ragged import Llama

PREFILL_TOKENS = 4096  # positions of one forward while prompts are read: bounds memory, not the result
WORTH = 48  # tokens that a shared prefix must save: below that an extra forward costs more
SCORE_TOKENS = 1024  # the same where every position's logits are needed, so 500 MB with 128,000 tokens
NO_NUMBERS = (
    "the model's logits are not numbers (NaN or infinite), so its tokens would be drawn from nothing: its weights are "
    "broken, or the text has more positions than it learnt"
)
PROBED = 8  # tokens that a batch is compared on, once a model
TIE = 0.02  # of the way from the mean logit to the largest: nearer than that, half precision may decide
PREFIX_BYTES, MOST_PREFIXES = 256_000_000, 32


@dataclass(eq=False)
class Row:
    """One reply in the making."""

    ids: list[int]  # the prompt
    decoding: Decoding
    rule: Rule | None = None
    made: list[int] = field(default_factory=list)
    end: list[int] = field(default_factory=list)  # the token that ended it; none where it was cut off
    reason: str = ""  # "stop" or "length", once it has ended
    fresh: bool = True  # the next forward reads the last token of its prompt
    feed: list[int] = field(default_factory=list)  # what the next forward reads, where that may be several tokens

    def take(self, token: int, ends: frozenset[int]) -> None:
        """Note a token that was drawn, unless the row has ended."""
        if self.reason:
            return
        if token in ends:
            self.reason, self.end = "stop", [token]
            return
        self.made.append(token)
        self.reason = "length" if len(self.made) >= self.decoding.max_tokens else ""

    def recent(self, *more: int) -> list[int]:
        """The last tokens of prompt and reply that a repetition penalty looks at, `more` being the newest."""
        return [*self.ids, *self.made, *more][-self.decoding.repetition_context :]


class Prefixes:
    """Key-value caches of token runs that many prompts begin with. The least recently used go first."""

    def __init__(self, model: Any, new_cache: Callable[[], list[Any]], most: int = PREFIX_BYTES) -> None:
        self.model, self.new_cache, self.most = model, new_cache, most
        # Caches that slide or hold a state cannot be cut at any place, so such models read every prompt whole.
        self.usable = all(type(c).__name__ == "KVCache" for c in new_cache())
        self._kept: OrderedDict[tuple[int, ...], list[Any]] = OrderedDict()

    @property
    def nbytes(self) -> int:
        return sum(c.nbytes for caches in self._kept.values() for c in caches)

    def clear(self) -> None:
        self._kept.clear()

    def groups(self, prompts: Sequence[Sequence[int]]) -> list[tuple[int, list[int]]]:
        """`grouped`, where prompts that share nothing may still begin with what an earlier call has read."""
        if not self.usable:
            return [(0, list(range(len(prompts))))]
        found = []
        for n, places in grouped(prompts):
            if not n:
                first = prompts[places[0]]
                here = max((shared(first, key) for key in self._kept), default=0)
                n = min(here, *(min(shared(first, prompts[i]), len(prompts[i]) - 1) for i in places))
            found.append((n, places))
        return found

    def get(self, ids: Sequence[int]) -> list[Any]:
        """A cache a layer that holds exactly these tokens; none of them may be written to."""
        import mlx.core as mx

        if not ids:
            return self.new_cache()
        near = max(self._kept, key=lambda key: shared(ids, key), default=())
        known = shared(ids, near)
        if known:
            self._kept.move_to_end(near)
        caches = self.new_cache()
        for mine, its in zip(caches, self._kept.get(near, ()), strict=False):
            if known:
                mine.keys, mine.values, mine.offset = its.keys[..., :known, :], its.values[..., :known, :], known
        if known == len(ids):
            return caches
        for at in range(known, len(ids), PREFILL_TOKENS):
            self.model(mx.array([list(ids[at : min(at + PREFILL_TOKENS, len(ids))])]), cache=caches)
            mx.eval([c.state for c in caches])
        for c in caches:
            # Without the room to grow that a cache keeps: it is only ever copied from.
            c.keys, c.values = (mx.contiguous(x[..., : c.offset, :]) for x in (c.keys, c.values))
        mx.eval([c.state for c in caches])
        self._kept[tuple(ids)] = caches
        while self._kept and (self.nbytes > self.most or len(self._kept) > MOST_PREFIXES):
            self._kept.popitem(last=False)
        return caches


def shared(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two runs begin with in common.

    >>> shared([1, 2, 3], [1, 2, 4, 5])
    2
    """
    most = min(len(a), len(b))
    for i in range(most):
        if a[i] != b[i]:
            return i
    return most


def grouped(prompts: Sequence[Sequence[int]]) -> list[tuple[int, list[int]]]:
    """Prompts in groups that begin alike: how many tokens each group shares, and its places. A prompt's last token
    is never shared, since the first new token is drawn from it. Groups are chosen to save most tokens.

    >>> grouped([[1] * 60 + [2], [9, 9], [1] * 60 + [3]])
    [(60, [0, 2]), (0, [1])]
    """
    order = sorted(range(len(prompts)), key=lambda i: tuple(prompts[i]))
    depth = [min(shared(prompts[a], prompts[b]), len(prompts[a]) - 1) for a, b in zip(order, order[1:], strict=False)]

    def best(first: int, last: int) -> tuple[int, list[tuple[int, int, int]]]:
        if first == last:
            return 0, [(0, first, last)]
        least = min(depth[first:last])
        cuts = [i for i in range(first, last) if depth[i] == least]
        saved, parts = 0, []
        for a, b in zip([first, *(c + 1 for c in cuts)], [*cuts, last], strict=True):
            one, found = best(a, b)
            saved, parts = saved + one, parts + found
        whole = least * (last - first) - WORTH
        # Parts that share nothing are read together: one padded forward is better than many narrow ones.
        alone = [p for p in parts if not p[0]]
        if whole > saved or len(alone) == len(parts):
            return max(whole, 0), [(least if whole > 0 else 0, first, last)]
        return saved, parts

    found = best(0, len(order) - 1)[1] if order else []
    return [(n, sorted(order[a : b + 1])) for n, a, b in found]


@dataclass
class Padded:
    """Keys and values of rows in flight as mlx-lm holds them, padded to one width. `ragged.Rows` is the other form."""

    cache: list[Any]  # one a layer
    tokens: Any  # what the next forward reads, one a row

    def keep(self, places: list[int]) -> None:
        """Let all other rows go."""
        for c in self.cache:
            c.filter(places)
        self.tokens = self.tokens[places]

    def join(self, other: Padded) -> None:
        """The rows of another behind one's own."""
        import mlx.core as mx

        for mine, its in zip(self.cache, other.cache, strict=True):
            mine.extend(its)
        self.tokens = mx.concatenate([self.tokens, other.tokens])


class Batch:
    """Rows in flight on one model. `run` ends when every row has; results stand in the rows."""

    def __init__(self, model: Any, prefixes: Prefixes, ends: Sequence[int], grammars: Grammars | None, width: int):
        self.model, self.prefixes, self.grammars, self.width = model, prefixes, grammars, width
        self.ends = frozenset(ends)
        self.live: list[Row] = []
        self.held: Any = None  # keys and values of the live rows, None where there are none
        self.keys: Any = None  # random keys, one a row: a row's draws do not depend on its neighbours
        self.finite: Any = None  # whether the logits of the last step were numbers, worked out beside its tokens
        self.prompt_seconds = 0.0

    def run(self, rows: Sequence[Row]) -> None:
        """Complete all rows, `width` of them at a time."""
        waiting = deque(rows)
        while waiting or self.live:
            room = self.width - len(self.live)
            if waiting and (not self.live or room >= max(1, self.width // 4)):
                began = time.perf_counter()
                self._admit([waiting.popleft() for _ in range(min(room, len(waiting)))])
                self.prompt_seconds += time.perf_counter() - began
            self._step()
            ended = sum(bool(row.reason) for row in self.live)
            # To let a row go copies the cache of all others, so rows leave by the quarter.
            if ended * 4 >= len(self.live):
                self._leave()

    def _step(self) -> None:
        import mlx.core as mx

        tokens = self.held.tokens
        logits = self.model(tokens[:, None], cache=self.held.cache)[:, -1]  # (rows, vocabulary)
        before, self.finite = self.finite, mx.isfinite(logits.max(axis=-1)).all()
        if any(row.decoding.repetition_penalty > 1 for row in self.live):
            mx.async_eval(logits)  # the forward runs while the windows are put together
            newest = [[] if row.fresh else [t] for row, t in zip(self.live, tokens.tolist(), strict=True)]
            logits = penalised(logits, self.live, newest)
        if any(row.rule and not row.reason for row in self.live):
            logits = self._masked(logits)
        following, self.keys = drawn(logits, [row.decoding for row in self.live], self.keys)
        # One step ahead: the next token is on its way before this one is looked at.
        mx.async_eval(following, self.keys, self.finite)
        if before is not None and not before.item():
            raise NoModel(NO_NUMBERS)
        for row, token in zip(self.live, tokens.tolist(), strict=True):
            if not row.fresh:
                row.take(token, self.ends)
            row.fresh = False
        self.held.tokens = following

    def _masked(self, logits: Any) -> Any:
        import mlx.core as mx

        mx.async_eval(logits)  # the forward runs while the masks are worked out
        for row, token in zip(self.live, self.held.tokens.tolist(), strict=True):
            if row.rule and not row.fresh and not row.reason:
                row.rule.take(token)
        rules = [None if row.reason else row.rule for row in self.live]
        allowed = mx.array(self.grammars.allowed(rules, logits.shape[-1]))  # type: ignore[union-attr]
        return mx.where(allowed, logits, -float("inf"))

    def _leave(self) -> None:
        keep = [i for i, row in enumerate(self.live) if not row.reason]
        self.live = [self.live[i] for i in keep]
        if not keep:
            self.held = self.keys = None
            return
        self.held.keep(keep)
        self.keys = self.keys[keep]

    # --- reading prompts

    def _admit(self, rows: list[Row]) -> None:
        for n, places in self.prefixes.groups([row.ids for row in rows]):
            mine = sorted((rows[i] for i in places), key=lambda row: len(row.ids))
            prefix = self.prefixes.get(mine[0].ids[:n])
            for some in _runs(mine, [len(row.ids) - n for row in mine], PREFILL_TOKENS):
                self._join(some, self._read(some, n, prefix))

    def _join(self, rows: list[Row], held: Any) -> None:
        import mlx.core as mx

        keys = mx.stack([mx.random.key(row.decoding.seed) for row in rows])
        if self.live:
            self.held.join(held)
            self.keys = mx.concatenate([self.keys, keys])
        else:
            self.held, self.keys = held, keys
        self.live += rows

    def _read(self, rows: list[Row], n: int, prefix: list[Any]) -> Any:
        """Read what the rows do not share, up to each one's last token; returns their keys and values."""
        import mlx.core as mx

        cache = [c.merge([c] * len(rows)) for c in prefix]
        rest = [row.ids[n:-1] for row in rows]
        lengths = [len(r) for r in rest]
        most = max(lengths)
        if most:
            for c in cache:
                if min(lengths) < most:
                    c.prepare(lengths=lengths, right_padding=[most - m for m in lengths])
            tokens = mx.array([r + [0] * (most - len(r)) for r in rest])
            step = max(1, PREFILL_TOKENS // len(rows))
            for at in range(0, most, step):
                self.model(tokens[:, at : at + step], cache=cache)
                mx.eval([c.state for c in cache])
            for c in cache:
                if min(lengths) < most:
                    c.finalize()
        mx.eval([c.state for c in cache])
        return Padded(cache, mx.array([row.ids[-1] for row in rows]))


class RaggedBatch(Batch):
    """The same for a Llama-like model on a CPU: no padding, no ended rows, and tokens that a grammar forces cost no
    step of their own. It knows every token before the next forward, so nothing runs ahead."""

    def __init__(self, *arguments: Any) -> None:
        from lib.models.ragged import Llama

        super().__init__(*arguments)
        self.llama: Llama = Llama(self.model)

    def _step(self) -> None:
        import mlx.core as mx
        import numpy as np

        places = [i for i, row in enumerate(self.live) if not row.reason]
        if not places:  # a grammar that leaves no choice ends a reply before anything is drawn
            return
        logits = self.held.forward([[] if row.reason else row.feed for row in self.live])
        if not np.isfinite(logits.max(axis=-1)).all():
            raise NoModel(NO_NUMBERS)
        going = [self.live[i] for i in places]
        decodings = [row.decoding for row in going]
        if any(d.repetition_penalty > 1 for d in decodings):
            logits = np.array(penalised(mx.array(logits), going))
        if any(row.rule for row in going):
            allowed = self.grammars.allowed([row.rule for row in going], logits.shape[-1])  # type: ignore[union-attr]
            np.putmask(logits, allowed == 0, -np.inf)
        if not any(d.temp > 0 for d in decodings):
            following = logits.argmax(axis=-1).tolist()
        else:
            at = mx.array(places)
            tokens, self.keys[at] = drawn(mx.array(logits), decodings, self.keys[at])
            following = tokens.tolist()
        for row, token in zip(going, following, strict=True):
            row.feed = self._forced(row, token)

    def _forced(self, row: Row, *tokens: int) -> list[int]:
        """Take the tokens that were drawn, and all that the grammar forces after them; returns both."""
        taken = list(tokens)
        for token in tokens:
            row.take(token, self.ends)
            if row.rule:
                row.rule.take(token)
        for token in row.rule.forced() if row.rule else ():
            if not row.reason:
                row.take(token, self.ends)
                row.rule.take(token)  # type: ignore[union-attr]
                taken.append(token)
        if row.rule and row.rule.complete and len(self.ends) == 1:
            row.take(*self.ends, self.ends)  # the one token that is left
        return taken

    def _read(self, rows: list[Row], n: int, prefix: list[Any]) -> Any:
        from lib.models.ragged import Rows

        held = Rows(self.llama, len(rows), prefix, n)
        most, step = max(len(row.ids) - n - 1 for row in rows), max(1, PREFILL_TOKENS // len(rows))
        for at in range(n, n + most, step):
            held.forward([row.ids[at : min(at + step, len(row.ids) - 1)] for row in rows], logits=False)
        for row in rows:
            row.feed = [row.ids[-1], *self._forced(row)]
        return held


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
        batch(model, prefixes, (), None, width).run(rows)
    except NoModel:
        raise
    except Exception:  # shapes that do not fit, a cache that cannot be put together: whatever mlx says there
        return False
    return all(_largest(model, row) for row in rows)


def _largest(model: Any, row: Row) -> bool:
    """Whether each drawn token has the largest logit, or one so near it that rounding may decide between the two."""
    import mlx.core as mx

    text = mx.array([row.ids + row.made[:-1]])
    logits = model(text)[0, len(row.ids) - 1 :].astype(mx.float32)  # (drawn, vocabulary)
    top = logits.max(axis=-1)
    drawn = mx.take_along_axis(logits, mx.array(row.made)[:, None], axis=-1)[:, 0]
    return bool(mx.all(top - drawn <= TIE * (top - logits.mean(axis=-1))).item())


def penalised(logits: Any, rows: Sequence[Row], newest: Sequence[Sequence[int]] = ()) -> Any:
    """Logits with the tokens of each row's window made less likely, as mlx_lm.sample_utils.make_repetition_penalty
    does: positive ones over the penalty, negative ones times it, prompt tokens counted too (arXiv 1909.05858)."""
    import mlx.core as mx

    windows = [row.recent(*more) for row, more in zip(rows, newest or [()] * len(rows), strict=True)]
    most = max(map(len, windows))
    # To fill a window up with one of its own tokens writes the same value twice.
    seen = mx.array([w + w[-1:] * (most - len(w)) for w in windows])
    penalties = mx.array([row.decoding.repetition_penalty for row in rows], dtype=logits.dtype)[:, None]
    said = mx.take_along_axis(logits, seen, axis=-1)
    said = mx.where(said < 0, said * penalties, said / penalties)
    return mx.put_along_axis(logits, seen, said, axis=-1)


def drawn(logits: Any, decodings: Sequence[Decoding], keys: Any) -> tuple[Any, Any]:
    """The next token of every row, greedy or sampled, and the random keys of the one after it."""
    import mlx.core as mx

    made = mx.argmax(logits, axis=-1)
    kinds: dict[tuple[float, float, float, int], list[int]] = {}
    for i, d in enumerate(decodings):
        if d.temp > 0:
            kinds.setdefault((d.temp, d.top_p, d.min_p, d.top_k), []).append(i)
    if not kinds:
        return made, keys
    both = mx.vmap(mx.random.split)(keys)
    keys, now = both[:, 0], both[:, 1]
    for kind, places in kinds.items():
        every = len(places) == len(decodings)
        at = mx.array(places)
        said = sampled(logits if every else logits[at], now if every else now[at], *kind)
        made = said if every else mx.put_along_axis(made, at, said, axis=0)
    return made, keys


def sampled(logits: Any, keys: Any, temp: float, top_p: float, min_p: float, top_k: int) -> Any:
    """One token a row, each from its own key: the largest of log-probability over temperature plus Gumbel noise."""
    import mlx.core as mx
    from mlx_lm.sample_utils import apply_min_p, apply_top_k, apply_top_p

    logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    if top_p < 1:
        logprobs = apply_top_p(logprobs, top_p)
    if min_p > 0:
        logprobs = apply_min_p(logprobs, min_p)
    if 0 < top_k < logprobs.shape[-1]:
        logprobs = apply_top_k(logprobs, top_k)
    width = logprobs.shape[-1]
    noise = mx.vmap(lambda key: mx.random.gumbel((width,), key=key))(keys)
    return mx.argmax(logprobs / temp + noise, axis=-1)


def mean_logprobs(
    model: Any,
    prefixes: Prefixes,
    prompts: Sequence[list[int]],
    replies: Sequence[list[int]],
    positions: int = SCORE_TOKENS,
) -> list[float]:
    """The mean log-probability of a token of each reply after its prompt, `positions` of them in one forward; with 1
    each row goes alone. No reply may be empty."""
    import mlx.core as mx

    found = [0.0] * len(prompts)
    for n, places in prefixes.groups(prompts):
        places = sorted(places, key=lambda i: len(prompts[i]) + len(replies[i]))
        held = prefixes.get(prompts[places[0]][:n])
        for some in _runs(places, [len(prompts[i]) + len(replies[i]) - n for i in places], positions):
            whole = [(prompts[i] + replies[i])[n:] for i in some]
            most = max(map(len, whole)) - 1
            tokens = mx.array([w + [0] * (most + 1 - len(w)) for w in whole])
            # Padding comes after a row's own tokens, so none of them sees it.
            logits = model(tokens[:, :-1], cache=[c.merge([c] * len(some)) for c in held] if n else None)
            logits = logits.astype(mx.float32)
            said = mx.take_along_axis(logits, tokens[:, 1:, None], axis=-1)[..., 0] - mx.logsumexp(logits, axis=-1)
            for i, row in zip(some, said.tolist(), strict=True):
                first = len(prompts[i]) - n - 1
                found[i] = sum(row[first : first + len(replies[i])]) / len(replies[i])
    return found


def _runs(rows: Sequence[Any], lengths: Sequence[int], most: int) -> list[list[Any]]:
    """Rows, shortest first, in runs whose padded width stays within one forward's bound.

    >>> _runs("abc", [1, 2, 5], 6)
    [['a', 'b'], ['c']]
    """
    found: list[list[Any]] = []
    for row, length in zip(rows, lengths, strict=True):
        if not found or (len(found[-1]) + 1) * length > most:
            found.append([])
        found[-1].append(row)
    return found
