"""Log-probabilities of learnt tokens for less than a plain forward pass costs; same values, same gradient.

Four savings. What all prompts begin with is read once a batch and not once a row. Layers below the first adapter are
frozen, so what they make of a row is kept. The vocabulary product is made where something is learnt and nowhere else.
The gradient of a log-probability with respect to its hidden state is found where the softmax is, so that no logits are
kept for the way back. Knows models that are embeddings, layers, norm and head; others are read plainly. Does not know
what is learnt from the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lib.models.prefixes import shared

Learnt = tuple[Sequence[int], int]  # token ids, and the place of the first one that is learnt
ROWS = 128  # of the vocabulary product at a time: 25 MB of logits at 49,152 tokens stay near the processor


@dataclass(repr=False)
class Forward:
    """A model with an adapter, and what its frozen layers made of rows; the rows used least recently make way."""

    model: Any
    prefix: tuple[int, ...] = ()
    most: int = 2**30  # bytes kept; a row of 576 wide and 110 tokens takes 250 kB
    kept: dict[tuple[int, ...], Any] = field(default_factory=dict)
    size: int = 0

    def __post_init__(self) -> None:
        from mlx.utils import tree_flatten

        layers = list(getattr(self.model, "layers", ()))
        learns = [bool(tree_flatten(layer.trainable_parameters())) for layer in layers]
        count = learns.index(True) if any(learns) else 0
        self.low, self.up = layers[:count], layers[count:]
        self.before: tuple[Any, list[_Keys]] | None = None
        self.plainly = False

    @classmethod
    def of(cls, model: Any, seqs: Sequence[Learnt]) -> Forward:
        """For rows that begin alike, up to the least place from which a learnt token is told."""
        first = min(seqs, key=lambda s: s[1])
        most = min(min(shared(first[0], ids) for ids, _ in seqs), first[1] - 1)
        made = cls(model, tuple(first[0][:most]))
        made.plainly = not made._faithful(min(seqs, key=lambda s: len(s[0])))
        return made

    def __call__(self, seqs: Sequence[Learnt]) -> tuple[Any, Any]:
        """Log-probability of every learnt token, and the mask of those that are; both (rows, most learnt tokens)."""
        return plain(self.model, seqs) if self.plainly else self._told(seqs)

    def work(self, seqs: Sequence[Learnt], learns: bool) -> float:
        """What a pass costs, in tokens times layers; the way back costs one and a half times the way there."""
        sizes = [(len(ids) - len(self.prefix), self._key(ids) in self.kept) for ids, _ in seqs]
        new = sum(n for n, known in sizes if not known)
        return new * len(self.low) + sum(n for n, _ in sizes) * len(self.up) * (2.5 if learns else 1)

    # --- how

    def _faithful(self, seq: Learnt) -> bool:
        """Whether the layers one by one say what the model says: some scale embeddings, or attend in another way."""
        import mlx.core as mx

        training = self.model.training
        self.model.eval()  # dropout would be another one each time, and move on the random numbers of a resumed step
        try:
            return bool(mx.abs(self._told([seq])[0] - plain(self.model, [seq])[0]).max() < 0.05)
        except (AttributeError, TypeError, ValueError):
            return False
        finally:
            self.model.train(training)

    def _told(self, seqs: Sequence[Learnt]) -> tuple[Any, Any]:
        import mlx.core as mx

        n = len(self.prefix)
        if any(tuple(ids[:n]) != self.prefix or start <= n for ids, start in seqs):
            return Forward(self.model, most=0)._told(seqs)  # a row that begins otherwise: nothing is shared or kept
        rows = [self._lower(ids) for ids, _ in seqs]
        width = max(len(r) for r in rows)
        state, (start, _) = mx.stack([mx.pad(r, ((0, width - len(r)), (0, 0))) for r in rows]), self._prefix()
        for layer in self.up:
            keys = _Keys()
            if n:
                start = layer(start, "causal", keys)
            state = layer(state, "causal", keys)
        at = [i * width + t - 1 - n for i, (ids, first) in enumerate(seqs) for t in range(first, len(ids))]
        learnt = self.model.model.norm(state.reshape(-1, state.shape[-1])[mx.array(at)])
        return grid(logprobs(self._head, learnt, [t for ids, first in seqs for t in ids[first:]]), seqs)

    def _head(self, state: Any) -> Any:
        head = getattr(self.model, "lm_head", None)
        return head(state) if head is not None else self.model.model.embed_tokens.as_linear(state)

    def _key(self, ids: Sequence[int]) -> tuple[int, ...]:
        return tuple(ids[len(self.prefix) : -1])

    def _prefix(self) -> tuple[Any, list[_Keys]]:
        """The prefix after the frozen layers, and the keys and values that they made of it."""
        import mlx.core as mx

        if self.before is None:
            state, keys = self.model.model.embed_tokens(mx.array([self.prefix], dtype=mx.int32)), []
            for layer in self.low:
                keys.append(_Keys())
                state = layer(state, "causal", keys[-1]) if self.prefix else state
            mx.eval(state, [k.told for k in keys if k.told])
            self.before = state, keys
        return self.before

    def _lower(self, ids: Sequence[int]) -> Any:
        """The tokens after the prefix after the frozen layers: one row alone, so that its bits depend on no other."""
        import mlx.core as mx

        key = self._key(ids)
        state = self.kept.pop(key, None)
        if state is None:
            state = self.model.model.embed_tokens(mx.array([key]))
            for layer, keys in zip(self.low, self._prefix()[1], strict=True):
                state = layer(state, "causal", keys if self.prefix else None)
            state = state[0]
            mx.eval(state)
            self.size += state.nbytes
        self.kept[key] = state  # the youngest stands last
        while self.kept and self.size > (self.most if self.low else 0):  # embeddings alone are not worth keeping
            self.size -= self.kept.pop(next(iter(self.kept))).nbytes
        return state


class _Keys:
    """Stands where a layer expects its cache: keeps what the prefix left there and puts it before every row."""

    def __init__(self) -> None:
        self.told: tuple[Any, Any] | None = None
        self.offset = 0

    def update_and_fetch(self, keys: Any, values: Any) -> tuple[Any, Any]:
        import mlx.core as mx

        if self.told is None:
            self.told, self.offset = (keys, values), keys.shape[2]
            return keys, values
        wide = [mx.broadcast_to(t, (keys.shape[0], *t.shape[1:])) for t in self.told]
        return mx.concatenate([wide[0], keys], 2), mx.concatenate([wide[1], values], 2)


def logprobs(head: Any, state: Any, targets: Sequence[int]) -> Any:
    """Log-probabilities of targets from hidden states (n, width), some rows at a time, through numpy.

    mlx's exponential took 11 ns or more a number on the CPU; with numpy's this took half as long. The gradient of
    log p(y) is head^T (onehot(y) - p): it is made here, where p is, and enters as the slope of a term that is zero.
    """
    import mlx.core as mx
    import numpy as np

    here, told, slopes = mx.stop_gradient(state), [], []
    mx.eval(here)
    for at in range(0, len(targets), ROWS):
        part, want = here[at : at + ROWS], np.array(targets[at : at + ROWS])
        p = np.array(head(part).astype(mx.float32))
        p -= p.max(1, keepdims=True)
        place = (np.arange(len(want)), want)
        value = p[place].copy()
        np.exp(p, out=p)
        total = p.sum(1, keepdims=True)
        told.append(value - np.log(total[:, 0]))
        p /= -total
        p[place] += 1
        slopes.append(mx.vjp(head, [part], [mx.array(p).astype(part.dtype)])[1][0])
        mx.eval(slopes[-1])
    return mx.array(np.concatenate(told)) + ((state - here) * mx.concatenate(slopes)).sum(-1)


def plain(model: Any, seqs: Sequence[Learnt]) -> tuple[Any, Any]:
    """The same as `Forward`, from the model as it is: the measure of it, and the way for models of other kinds."""
    import mlx.core as mx
    import mlx.nn as nn
    import numpy as np

    ids = np.zeros((len(seqs), max(len(s) for s, _ in seqs)), np.int32)
    for i, (row, _) in enumerate(seqs):
        ids[i, : len(row)] = row
    told = -nn.losses.cross_entropy(model(mx.array(ids[:, :-1])).astype(mx.float32), mx.array(ids[:, 1:]))
    at = [i * told.shape[1] + t - 1 for i, (row, start) in enumerate(seqs) for t in range(start, len(row))]
    return grid(told.reshape(-1)[mx.array(at)], seqs)


def grid(told: Any, seqs: Sequence[Learnt]) -> tuple[Any, Any]:
    """What was told of all learnt tokens in a row, as one row a sequence with zeros at the end; and the mask."""
    import mlx.core as mx
    import numpy as np

    counts = [len(ids) - start for ids, start in seqs]
    mask = np.arange(max(counts))[None] < np.array(counts)[:, None]
    at = np.where(mask, np.cumsum(mask).reshape(mask.shape) - 1, 0)
    return told[mx.array(at)] * mx.array(mask), mx.array(mask.astype(np.float32))
