"""Key-value caches of what many prompts begin with: read once, kept for later calls, never written to.

Knows tokens and the caches of mlx-lm. Does not know rows, batches or text. A prompt's last token is never part of a
prefix: the first new token is drawn from it, so every row reads it for itself.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

PREFILL_TOKENS = 4096  # positions of one forward while prompts are read: bounds memory, not the result
WORTH = 48  # tokens that a shared prefix must save: below that an extra forward costs more
# Bytes of all that is kept: of SmolLM2 in float32 a token takes 46 kB (keys and values of 3 heads of 64 in 30 layers).
PREFIX_BYTES, MOST_PREFIXES = 256_000_000, 32


class Prefixes:
    """Key-value caches of token runs that many prompts begin with. The least recently used go first."""

    def __init__(self, model: Any, new_cache: Callable[[], list[Any]], most: int = PREFIX_BYTES) -> None:
        """`new_cache` gives empty caches, one a layer; `most` is the bound of what is kept, in bytes."""
        self.model, self.new_cache, self.most = model, new_cache, most
        # Caches that slide or hold a state cannot be cut at any place, so such models read every prompt whole.
        self.usable = all(type(cache).__name__ == "KVCache" for cache in new_cache())
        self._kept: OrderedDict[tuple[int, ...], list[Any]] = OrderedDict()

    @property
    def nbytes(self) -> int:
        return sum(cache.nbytes for layers in self._kept.values() for cache in layers)

    def clear(self) -> None:
        self._kept.clear()

    def groups(self, prompts: Sequence[Sequence[int]]) -> list[tuple[int, list[int]]]:
        """`grouped`, where prompts that share nothing may still begin with what an earlier call has read."""
        if not self.usable:
            return [(0, list(range(len(prompts))))]
        groups = []
        # A step of a pipeline shares its start with the step before it, which an earlier call has read.
        for length, places in grouped(prompts):
            if not length:
                first = prompts[places[0]]
                length = max((shared(first, kept) for kept in self._kept), default=0)
                for place in places:
                    length = min(length, shared(first, prompts[place]), len(prompts[place]) - 1)
            groups.append((length, places))
        return groups

    def get(self, ids: Sequence[int]) -> list[Any]:
        """A cache a layer that holds exactly these tokens; none of them may be written to."""
        caches = self.new_cache()
        nearest = max(self._kept, key=lambda kept: shared(ids, kept), default=())
        length = shared(ids, nearest)
        if length:
            self._kept.move_to_end(nearest)
            for cache, other in zip(caches, self._kept[nearest], strict=True):
                # Views of the kept arrays, shape (1, heads, length, size): nothing is copied.
                cache.keys, cache.values = other.keys[..., :length, :], other.values[..., :length, :]
                cache.offset = length
        if length < len(ids):
            self._read(ids, length, caches)
        return caches

    def _read(self, ids: Sequence[int], start: int, caches: list[Any]) -> None:
        """Read the rest of a prefix into its caches and keep them."""
        import mlx.core as mx

        # In pieces that are worked out one after the other: mlx would else hold the activations of all of them.
        for at in range(start, len(ids), PREFILL_TOKENS):
            self.model(mx.array([list(ids[at : at + PREFILL_TOKENS])]), cache=caches)
            settle(caches)
        for cache in caches:
            # Without the room to grow that a cache keeps: it is only ever copied from.
            cache.keys = mx.contiguous(cache.keys[..., : cache.offset, :])
            cache.values = mx.contiguous(cache.values[..., : cache.offset, :])
        settle(caches)
        self._kept[tuple(ids)] = caches
        # Also the newest, where it alone is over the bound: it is used by whoever asked and not kept.
        while self._kept and (self.nbytes > self.most or len(self._kept) > MOST_PREFIXES):
            self._kept.popitem(last=False)


def settle(caches: list[Any]) -> None:
    """Work out what caches hold. mlx is lazy: they would else hold on to everything that they were made from."""
    import mlx.core as mx

    mx.eval([cache.state for cache in caches])


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
    """Prompts in groups that begin alike: how many tokens each group shares, and its places. Groups are chosen to save
    most tokens.

    >>> grouped([[1] * 60 + [2], [9, 9], [1] * 60 + [3]])
    [(60, [0, 2]), (0, [1])]
    """
    if not prompts:
        return []
    # Sorted, prompts that begin alike are neighbours, and a group shares what its least similar neighbours do.
    order = sorted(range(len(prompts)), key=lambda i: tuple(prompts[i]))
    depth = [min(shared(prompts[a], prompts[b]), len(prompts[a]) - 1) for a, b in zip(order, order[1:], strict=False)]

    def best(first: int, last: int) -> tuple[int, list[tuple[int, int, int]]]:
        """Tokens saved between two places of the order, and the parts (tokens shared, first, last) that save them."""
        if first == last:
            return 0, [(0, first, last)]
        least = min(depth[first:last])
        saved, start = 0, first
        parts: list[tuple[int, int, int]] = []
        for end in [*range(first, last), last]:
            # Between the other neighbours more is shared: those stay together and are looked at for themselves.
            if end == last or depth[end] == least:
                more, inner = best(start, end)
                saved, parts, start = saved + more, parts + inner, end + 1
        # All of them as one group: every prompt but one is spared the shared tokens, for one more forward.
        whole = least * (last - first) - WORTH
        if whole > saved and whole > 0:
            return whole, [(least, first, last)]
        if any(length for length, _, _ in parts):
            return saved, parts
        # Parts that share nothing are read together: one padded forward is better than many narrow ones.
        return 0, [(0, first, last)]

    _, parts = best(0, len(order) - 1)
    return [(length, sorted(order[first : last + 1])) for length, first, last in parts]
