"""Log-probabilities of learnt tokens for less than a plain forward pass costs; same values, same gradient.

Four savings. What all prompts begin with is read once a batch and not once a row. Layers below the first adapter are
frozen, so what they make of a row is kept. The vocabulary product is made where something is learnt and nowhere else.
The gradient of a log-probability with respect to its hidden state is found where the softmax is, so that no logits are
kept for the way back. Knows models that are embeddings, layers, norm and head; others are read plainly. Does not know
what is learnt from the numbers.

Shapes: B sequences, P tokens of prefix, T tokens after it, N learnt tokens of all sequences, D the width of a hidden
state, V the vocabulary, H heads of keys and values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lib.models.prefixes import shared

Array = Any  # of mlx: its own type says of every load that it may be a text or a mapping too
ROWS = 128  # of the vocabulary product at a time: 25 MB of logits at 49,152 tokens stay near the processor


class Tokens(NamedTuple):
    """One sequence of token ids, of which `ids[start:]` is learnt; start is 1 or more, as the first has no context."""

    ids: list[int]
    start: int


@dataclass(repr=False)
class Forward:
    """A model with an adapter, and what its frozen layers made of rows; the rows used least recently make way."""

    model: Any
    prefix: tuple[int, ...] = ()
    max_bytes: int = 2**30  # kept; a row of 576 wide and 110 tokens takes 250 kB
    cache: dict[tuple[int, ...], Any] = field(default_factory=dict)  # ids after the prefix -> (T, D)
    cached_bytes: int = 0
    grad_checkpoint: bool = False  # of the tuned layers nothing but their inputs is kept for the way back

    def __post_init__(self) -> None:
        """Parts the layers into `frozen`, whose states are kept, and `tuned` above, which every pass goes through."""
        from mlx.utils import tree_flatten

        self.tuned = list(getattr(self.model, "layers", ()))
        self.frozen: list[Any] = []
        # From below, up to the first layer with an adapter: above it every state moves with each step. A model that
        # learns nothing keeps all its layers above.
        if tree_flatten([layer.trainable_parameters() for layer in self.tuned]):
            while not tree_flatten(self.tuned[0].trainable_parameters()):
                self.frozen.append(self.tuned.pop(0))
        self.prefix_read: tuple[Any, list[_Keys]] | None = None
        self.plain = False

    @classmethod
    def of(cls, model: Any, batch: Sequence[Tokens], grad_checkpoint: bool = False) -> Forward:
        """For rows that begin alike. The prefix ends before the first learnt token and the one that predicts it.

        Raises ValueError on `grad_checkpoint` for a model that can only be read as a whole.
        """
        first = min(batch, key=lambda row: row.start)
        length = min(min(shared(first.ids, row.ids) for row in batch), first.start - 1)
        forward = cls(model, tuple(first.ids[:length]), grad_checkpoint=grad_checkpoint)
        # On the shortest row, which costs least: the layers one by one, beside the model as a whole.
        forward.plain = not forward._faithful(min(batch, key=lambda row: len(row.ids)))
        if forward.plain and grad_checkpoint:
            raise ValueError("settings has grad_checkpoint, and this model is only read as a whole; take it out")
        return forward

    def __call__(self, batch: Sequence[Tokens]) -> tuple[Any, Any]:
        """Log-probability of every learnt token, and the mask of those that are; both (B, most learnt tokens)."""
        return plain_logprobs(self.model, batch) if self.plain else self._logprobs(batch)

    def work(self, batch: Sequence[Tokens], learns: bool) -> float:
        """What a pass costs, in tokens times layers; the way back costs one and a half times the way there."""
        work = 0.0
        for row in batch:
            length = len(row.ids) - len(self.prefix)
            if self._key(row.ids) not in self.cache:
                work += length * len(self.frozen)
            work += length * len(self.tuned) * (2.5 if learns else 1)
        return work

    # --- how

    def _faithful(self, row: Tokens) -> bool:
        """Whether the layers one by one say what the model says: some scale embeddings, or attend in another way."""
        import mlx.core as mx

        training = self.model.training
        # Dropout would be another one each time, and move on the random numbers of a resumed step.
        self.model.eval()
        try:
            apart = mx.abs(self._logprobs([row])[0] - plain_logprobs(self.model, [row])[0])
            # Nats: more than another order of the same sums moves, less than scaled embeddings do.
            return bool(apart.max() < 0.05)
        except (AttributeError, TypeError, ValueError):
            return False
        finally:
            self.model.train(training)

    def _logprobs(self, batch: Sequence[Tokens]) -> tuple[Any, Any]:
        """The call itself, layer by layer: values and mask, both (B, most learnt tokens)."""
        import mlx.core as mx

        n = len(self.prefix)
        if any(tuple(row.ids[:n]) != self.prefix or row.start <= n for row in batch):
            # Begins otherwise: nothing is shared, and nothing that is kept would be found again.
            return Forward(self.model, max_bytes=0, grad_checkpoint=self.grad_checkpoint)._logprobs(batch)
        rows = [self._after_frozen(row.ids) for row in batch]
        width = max(map(len, rows))
        # (B, T, D), padded at the end, where causal attention lets nothing look back at it.
        state = mx.stack([mx.pad(r, ((0, width - len(r)), (0, 0))) for r in rows])
        prefix, _ = self._prefix()  # (1, P, D)
        for layer in self.tuned:
            # The prefix goes through the tuned layers each time, once for all rows: their weights move.
            keys = _Keys()
            if n:
                prefix = layer(prefix, "causal", keys)
            state = self._through(layer, state, keys)
        # The state at t - 1 predicts token t; only those are multiplied with the vocabulary: (N, D).
        predicting = self.model.model.norm(state.reshape(-1, state.shape[-1])[mx.array(_places(batch, width, n))])
        targets: list[int] = []
        for row in batch:
            targets += row.ids[row.start :]
        return by_row(logprobs(self._head, predicting, targets), batch)

    def _through(self, layer: Any, state: Any, keys: _Keys) -> Any:
        """(B, T, D) after a tuned layer."""
        import mlx.core as mx

        if not self.grad_checkpoint:
            return layer(state, "causal", keys)

        def again(parameters: Any, state: Any, *prefix: Any) -> Any:
            layer.update(parameters)
            held = _Keys()
            if prefix:
                held.prefix, held.offset = prefix, prefix[0].shape[2]
            return layer(state, "causal", held)

        # Weights and the prefix's keys are inputs of their own: what a checkpoint only closes over gets no slope.
        return mx.checkpoint(again)(layer.trainable_parameters(), state, *(keys.prefix or ()))

    def _head(self, state: Any) -> Any:
        """Logits (N, V) of hidden states (N, D), by a head of its own or by the embeddings."""
        head = getattr(self.model, "lm_head", None)
        return head(state) if head is not None else self.model.model.embed_tokens.as_linear(state)

    def _key(self, ids: Sequence[int]) -> tuple[int, ...]:
        """What names a row among those that are kept: its tokens behind the prefix, but for the last."""
        return tuple(ids[len(self.prefix) : -1])  # the last token predicts nothing, so nothing reads it

    def _prefix(self) -> tuple[Any, list[_Keys]]:
        """The prefix after the frozen layers, and the keys and values that they made of it."""
        import mlx.core as mx

        if self.prefix_read is None:
            state, keys = self.model.model.embed_tokens(mx.array([self.prefix], dtype=mx.int32)), []
            for layer in self.frozen:
                keys.append(_Keys())
                if self.prefix:
                    state = layer(state, "causal", keys[-1])
            mx.eval(state, [k.prefix for k in keys if k.prefix])
            self.prefix_read = state, keys
        return self.prefix_read

    def _after_frozen(self, ids: Sequence[int]) -> Any:
        """(T, D), the tokens after the prefix after the frozen layers: one row alone, so that its bits depend on no
        other and a resumed training reads the same ones."""
        import mlx.core as mx

        key = self._key(ids)
        state = self.cache.pop(key, None)
        if state is None:
            state = self.model.model.embed_tokens(mx.array([key]))
            for layer, keys in zip(self.frozen, self._prefix()[1], strict=True):
                state = layer(state, "causal", keys if self.prefix else None)
            state = state[0]
            mx.eval(state)
            self.cached_bytes += state.nbytes
        self.cache[key] = state  # the youngest stands last
        room = self.max_bytes if self.frozen else 0  # embeddings alone are not worth keeping
        while self.cache and self.cached_bytes > room:
            self.cached_bytes -= self.cache.pop(next(iter(self.cache))).nbytes
        return state


class _Keys:
    """Stands where a layer expects its cache: keeps what the prefix left there and puts it before every row."""

    def __init__(self) -> None:
        self.prefix: tuple[Any, Any] | None = None  # keys and values, (1, H, P, D / H)
        self.offset = 0  # of the positions of what comes next

    def update_and_fetch(self, keys: Any, values: Any) -> tuple[Any, Any]:
        """mlx-lm's own call of a cache: keys and values of the prefix before the new ones, (B, H, P + T, D / H)."""
        import mlx.core as mx

        # The prefix is read before any row, so the first call is its own.
        if self.prefix is None:
            self.prefix, self.offset = (keys, values), keys.shape[2]
            return keys, values
        # One prefix for all rows of a batch: it is laid out once a row only here, where attention reads the two as one.
        before = [mx.broadcast_to(t, (keys.shape[0], *t.shape[1:])) for t in self.prefix]
        return mx.concatenate([before[0], keys], 2), mx.concatenate([before[1], values], 2)


def logprobs(head: Any, state: Any, targets: Sequence[int]) -> Any:
    """Log-probabilities (N,) of targets from hidden states (N, D), some rows at a time, through numpy.

    mlx's exponential took 11 ns or more a number on the CPU; with numpy's this took half as long. The gradient of
    log p(y) is head^T (onehot(y) - p): it is made here, where p is, and enters as the slope of a term that is zero.
    """
    import mlx.core as mx
    import numpy as np

    fixed, values, slopes = mx.stop_gradient(state), [], []
    mx.eval(fixed)
    for at in range(0, len(targets), ROWS):
        part, tokens = fixed[at : at + ROWS], np.array(targets[at : at + ROWS])
        # (ROWS, V), logits first and then changed in place: at 49,152 tokens each copy is 25 MB.
        p = np.array(head(part).astype(mx.float32))
        p -= p.max(1, keepdims=True)  # so that no exponential overflows
        place = (np.arange(len(tokens)), tokens)
        logits = p[place].copy()
        np.exp(p, out=p)
        total = p.sum(1, keepdims=True)
        values.append(logits - np.log(total[:, 0]))
        p /= -total
        p[place] += 1  # now onehot(y) - p
        slopes.append(mx.vjp(head, [part], [mx.array(p).astype(part.dtype)])[1][0])  # (ROWS, D)
        mx.eval(slopes[-1])
    # state - fixed is zero, but its gradient is one: the slopes become the gradient of the values.
    return mx.array(np.concatenate(values)) + ((state - fixed) * mx.concatenate(slopes)).sum(-1)


def plain_logprobs(model: Any, batch: Sequence[Tokens]) -> tuple[Any, Any]:
    """The same as `Forward`, from the model as it is: the measure of it, and the way for models of other kinds."""
    import mlx.core as mx
    import mlx.nn as nn
    import numpy as np

    ids = np.zeros((len(batch), max(len(row.ids) for row in batch)), np.int32)
    for i, row in enumerate(batch):
        ids[i, : len(row.ids)] = row.ids
    logits = model(mx.array(ids[:, :-1])).astype(mx.float32)  # (B, T - 1, V)
    every = -nn.losses.cross_entropy(logits, mx.array(ids[:, 1:]))  # (B, T - 1)
    return by_row(every.reshape(-1)[mx.array(_places(batch, every.shape[1]))], batch)


def _places(batch: Sequence[Tokens], width: int, prefix: int = 0) -> list[int]:
    """Where the predictions of the learnt tokens stand, (N,), in rows of a width laid end to end behind the prefix."""
    at: list[int] = []
    for i, row in enumerate(batch):
        first = i * width - 1 - prefix  # -1: a token is predicted where the one before it stands
        at += range(first + row.start, first + len(row.ids))
    return at


def by_row(values: Any, batch: Sequence[Tokens]) -> tuple[Any, Any]:
    """Values (N,) of all learnt tokens in a line as one row a sequence, zeros at its end; and the mask of the values."""
    import mlx.core as mx
    import numpy as np

    counts = [len(row.ids) - row.start for row in batch]
    mask = np.arange(max(counts))[None] < np.array(counts)[:, None]
    at = np.where(mask, np.cumsum(mask).reshape(mask.shape) - 1, 0)
    return values[mx.array(at)] * mx.array(mask), mx.array(mask.astype(np.float32))
