"""A Llama-like model on a CPU: rows of unequal length in one forward, and the prefix that they share attended once.

Knows weights, rotary angles, key-value slots and masks. Does not know text, sampling, grammars or which row ends.
It stands in for mlx-lm's forward on a CPU, in numpy over the very memory of mlx's weights, because mlx's CPU kernels
take 10 to 14 ns for one exponential (softmax, SiLU) where numpy takes 0.4, and its attention copies grouped keys.
- The prefix: one product for all rows and query heads of a key head, then the short rest row by row under the same
  softmax (Hydragen, arXiv 2402.05099). The query heads of a key head are rows of one product.
- Linear layers see only tokens that are there: no padding, no ended rows.
Covers mlx_lm's `llama` without sliding windows, in float32, bare or with LoRA. `fits` says so; else use mlx-lm.
Shapes: B rows, N tokens of all rows in one forward, T of them in the longest row, S slots, D hidden, H heads of W.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

Array = np.ndarray
Map = Callable[[Array], Array]
Prefix = tuple[Array, Array]  # keys and values (key heads, length, W) of a prefix in one layer
ROOM = 64  # slots that are added when a row has none left
# OpenBLAS takes rows by the four; on busy cores 30 as 32 cost a tenth less, 10 as 12 two fifths.
FOURS = 4
NEVER = np.float32(-1e30)  # not -inf: a row that sees nothing yet must not become NaN
ROPES = ("RoPE", "Llama3RoPE")  # whose angles depend on the position alone


def fits(model: Any) -> bool:
    """Whether `Llama(model)` computes what the model computes."""
    import mlx.core as mx

    # By module, not by class: Qwen and others have a `Model` too, whose forward differs in a detail.
    if type(model).__module__ != "mlx_lm.models.llama" or mx.default_device() != mx.Device(mx.cpu):
        return False
    for layer in model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        rope = attention.rope
        maps = [attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj]
        maps += [mlp.gate_proj, mlp.up_proj, mlp.down_proj]
        plain = type(rope).__name__ in ROPES and not rope.traditional and rope.dims == attention.head_dim
        if layer.use_sliding or not plain or not all(map(_covered, maps)):
            return False
    outer = [model.model.embed_tokens]
    if not model.args.tie_word_embeddings:
        outer.append(model.lm_head)
    return all(type(layer).__name__ in ("Embedding", "Linear") and layer.weight.dtype == mx.float32 for layer in outer)


def _covered(layer: Any) -> bool:
    """Whether a linear layer is one that is computed here: bare or with LoRA, in float32."""
    import mlx.core as mx

    if type(layer).__name__ == "LoRALinear":
        # While it is trained a layer may drop out, which is not done here.
        # `_p_1` is what mlx's Dropout keeps: 1 - p.
        drops = layer.training and getattr(layer.dropout, "_p_1", 1) != 1
        return not drops and layer.lora_a.dtype == mx.float32 and _covered(layer.linear)
    return type(layer).__name__ == "Linear" and layer.weight.dtype == mx.float32


def _linear(layer: Any) -> Map:
    """x (N, D) -> x W^T + b (N, out), with scale * (x A) B on top where the layer has an adapter."""
    if type(layer).__name__ == "LoRALinear":
        inner, scale = _linear(layer.linear), np.float32(layer.scale)
        a, b = np.asarray(layer.lora_a), np.asarray(layer.lora_b)  # (D, rank), (rank, out)
        return lambda x: inner(x) + scale * ((x @ a) @ b)  # first down to the rank: B A is never formed
    weight = np.asarray(layer.weight).T  # a view of mlx's own memory, as all weights here
    if "bias" not in layer:
        return lambda x: x @ weight
    bias = np.asarray(layer.bias)
    return lambda x: x @ weight + bias


def _norm(layer: Any) -> Map:
    """RMSNorm over the last axis (arXiv 1910.07467)."""
    weight, eps = np.asarray(layer.weight), np.float32(layer.eps)

    def normed(x: Array) -> Array:
        # einsum sums the squares without an array of them.
        mean = np.einsum("ij,ij->i", x, x) / np.float32(x.shape[-1])
        return x * (1 / np.sqrt(mean + eps))[:, None] * weight

    return normed


class _Layer:
    """One layer: norms, attention maps and MLP as functions over numpy arrays."""

    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.before, self.between = _norm(layer.input_layernorm), _norm(layer.post_attention_layernorm)
        self.q, self.k, self.v, self.o = (
            _linear(m) for m in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
        )
        self.gate, self.up, self.down = (_linear(m) for m in (mlp.gate_proj, mlp.up_proj, mlp.down_proj))

    def mlp(self, x: Array) -> Array:
        """SwiGLU behind its norm, silu(gate) * up (arXiv 2002.05202): (N, D) -> (N, D)."""
        x = self.between(x)
        gate = self.gate(x)
        # SiLU in place: exp of a large negative gate overflows to inf, and gate / inf is the right -0.
        below = np.exp(-gate)
        below += 1
        gate /= below
        gate *= self.up(x)
        return self.down(gate)


class Llama:
    """The weights as numpy sees them, in mlx's own memory: make it anew after weights have changed."""

    def __init__(self, model: Any) -> None:
        """`model` is one of mlx-lm that `fits`; an adapter on it is taken along."""
        inner, attention = model.model, model.layers[0].self_attn
        self.rope, self.width = attention.rope, attention.head_dim
        self.heads, self.kv_heads = attention.n_heads, attention.n_kv_heads
        self.scale = np.float32(attention.scale)
        self.embedding = np.asarray(inner.embed_tokens.weight)
        self.layers, self.norm = [_Layer(layer) for layer in inner.layers], _norm(inner.norm)
        self.head: Map = _linear(inner.embed_tokens if model.args.tie_word_embeddings else model.lm_head)
        self._angles = self._probe(512)

    def _probe(self, most: int) -> tuple[Array, Array]:
        """Cosines and sines of all positions below `most`: what the model's own rotation makes of (1, 0). So any
        scaling of its frequencies is in them, and none is known here."""
        import mlx.core as mx

        half = self.width // 2
        unit = mx.concatenate([mx.ones((1, 1, most, half)), mx.zeros((1, 1, most, half))], axis=-1)
        turned = np.array(self.rope(unit))[0, 0]
        return turned[:, None, :half], turned[:, None, half:]

    def angles(self, positions: Array) -> tuple[Array, Array]:
        """For each token, shapes (N, 1, W / 2): the same for all heads."""
        # Twice as many at a time: a long reply would else have them worked out anew at every token.
        most = int(positions.max()) + 1
        if most > len(self._angles[0]):
            self._angles = self._probe(2 * most)
        return self._angles[0][positions], self._angles[1][positions]


def _turned(x: Array, cos: Array, sin: Array) -> Array:
    """Heads (N, heads, W) turned by their positions' angles, (N, 1, W / 2) each."""
    # RoFormer (arXiv 2104.09864) with the halves of a head as pairs, as Hugging Face lays them out.
    half = x.shape[-1] // 2
    turned = np.empty_like(x)
    # A turn of the plane by position times a frequency: the product of two heads then sees their distance alone.
    a, b = x[..., :half], x[..., half:]
    np.subtract(a * cos, b * sin, out=turned[..., :half])
    np.add(a * sin, b * cos, out=turned[..., half:])
    return turned


@dataclass(frozen=True)
class Group:
    """Neighbours that begin with the same tokens."""

    count: int  # rows
    length: int  # tokens of the prefix
    prefix: list[Prefix]  # one a layer, none where it has no tokens


@dataclass(frozen=True)
class Step:
    """The new tokens of one forward, and what they may see."""

    row: Array  # (N,): which row a token is of
    turn: Array  # (N,): its place among the new ones of its row
    wide: int  # T, the most of them in one row
    cos: Array
    sin: Array
    mask: Array | None


class Rows:
    """Keys and values of rows in flight. Neighbours that begin alike refer to one prefix; the rest has slots.

    A step takes as many slots in every row as its longest row needs, and a shorter row leaves holes that nobody sees.
    """

    def __init__(self, llama: Llama, count: int, caches: Sequence[Any] = (), length: int = 0) -> None:
        """`count` rows that begin with the first `length` tokens of `caches`, mlx-lm's of one row."""
        self.llama = llama
        prefix = []
        if length:
            for cache in caches:  # (1, heads, tokens, W) -> (heads, length, W)
                prefix.append((np.asarray(cache.keys)[0, :, :length], np.asarray(cache.values)[0, :, :length]))
        self.groups = [Group(count, length, prefix)]
        self.next = np.full(count, length)  # a row's next position
        self.used = 0  # slots, the same in all rows
        self.filled = np.zeros((count, ROOM), dtype=bool)  # (B, S): which slots of a row hold a token of it
        # (layers, 2, key heads, B, S, W): one array, so that rows of all layers stay, go or join in one indexing.
        self.kv = self._empty(count, ROOM)

    def _empty(self, count: int, slots: int) -> Array:
        """Keys and values of so many rows and slots, all zero: (layers, 2, key heads, rows, slots, W)."""
        shape = (len(self.llama.layers), 2, self.llama.kv_heads, count, slots, self.llama.width)
        return np.zeros(shape, dtype=np.float32)

    def _grow(self, slots: int) -> None:
        """Make room for so many slots in every row."""
        if slots <= self.filled.shape[1]:
            return
        # Some slots ahead of the need: each growth copies what every row holds in every layer.
        count, slots, used = len(self.next), slots + ROOM, slice(self.used)
        kv, filled = self._empty(count, slots), np.zeros((count, slots), dtype=bool)
        kv[..., used, :], filled[:, used] = self.kv[..., used, :], self.filled[:, used]
        self.kv, self.filled = kv, filled

    def keep(self, places: Sequence[int]) -> None:
        """Let all other rows go, and with them the slots that only they had filled."""
        # Rows lie in the order of their groups, so a group's rows are those between two places.
        first, groups = 0, []
        for group in self.groups:
            staying = sum(first <= place < first + group.count for place in places)
            if staying:
                groups.append(replace(group, count=staying))
            first += group.count
        rows = list(places)
        filled = self.filled[rows]
        slots = np.flatnonzero(filled.any(axis=0))
        self.groups, self.next, self.used = groups, self.next[rows], len(slots)
        self.kv, self.filled = self.kv[:, :, :, rows][..., slots, :], filled[:, slots]

    def join(self, other: Rows) -> None:
        """The rows of another behind one's own."""
        # Slots of both begin at 0, so the later rows simply have holes where the earlier ones are further on.
        used = max(self.used, other.used)
        for rows in (self, other):
            rows._grow(used)
        self.kv = np.concatenate([self.kv[..., :used, :], other.kv[..., :used, :]], axis=3)
        self.filled = np.concatenate([self.filled[:, :used], other.filled[:, :used]])
        self.next, self.used = np.concatenate([self.next, other.next]), used
        self.groups += other.groups

    def forward(self, feeds: Sequence[Sequence[int]], logits: bool = True) -> Array:
        """Read each row's next tokens, none where its list is empty.

        Returns the logits after the last token of each row that read any, in float32, or nothing without `logits`.
        """
        counts = np.array([len(feed) for feed in feeds])  # (B,)
        row = np.repeat(np.arange(len(feeds)), counts)  # (N,): which row a token is of
        turn = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)  # (N,): 0, 1, … within its row
        wide = int(counts.max())
        self._grow(self.used + wide)
        self.filled[row, self.used + turn] = True
        # Positions count the tokens of a row and not its slots: a hole turns nothing.
        step = Step(row, turn, wide, *self.llama.angles(self.next[row] + turn), self._mask(wide))
        # (N and filling, D). Rows of zeros fill up: their norm is no NaN, and nobody reads what comes of them.
        hidden = np.zeros((_whole(len(row)), self.llama.embedding.shape[1]), dtype=np.float32)
        hidden[: len(row)] = self.llama.embedding[np.concatenate([np.asarray(feed, dtype=int) for feed in feeds])]
        # Norm first: both halves of a layer read a normed copy and add to one stream (LLaMA, arXiv 2302.13971).
        for i, layer in enumerate(self.llama.layers):
            hidden = hidden + layer.o(self._attended(i, layer, hidden, step))
            hidden += layer.mlp(hidden)
        self.used, self.next = self.used + wide, self.next + counts
        if not logits:
            return np.zeros((0, 0), dtype=np.float32)
        # The output layer is the largest matrix: only the last token of each row goes through it.
        last = (np.cumsum(counts) - 1)[counts > 0]
        filling = _whole(len(last)) - len(last)
        return self.llama.head(self.llama.norm(hidden[np.pad(last, (0, filling))]))[: len(last)]

    def _mask(self, wide: int) -> Array | None:
        """(B, T, S), 0 or `NEVER` for row, token of the step and slot; None where every row sees every slot."""
        visible = self.filled[:, None, : self.used + wide]
        if wide > 1:  # several new tokens of a row: none sees those behind it
            slots = np.arange(self.used + wide)
            visible = visible & (slots <= self.used + np.arange(wide)[:, None])
        # No hole and one token a row: a mask of zeros would be a pass over all scores for nothing.
        if visible.all():
            return None
        return np.where(visible, np.float32(0), NEVER)

    def _attended(self, i: int, layer: _Layer, x: Array, step: Step) -> Array:
        """What layer `i` attends to: (N and filling, D) in, (N and filling, H W) out, before the output map."""
        llama, count, row = self.llama, len(step.row), step.row
        x = layer.before(x)
        query, key, value = (m(x)[:count].reshape(count, -1, llama.width) for m in (layer.q, layer.k, layer.v))
        keys, values = self.kv[i]  # (key heads, B, S, W)
        at = self.used + step.turn
        # Turned before they are kept: a key's position never changes, so later steps need not turn it again.
        keys[:, row, at] = _turned(key, step.cos, step.sin).swapaxes(0, 1)
        values[:, row, at] = value.swapaxes(0, 1)
        # Key head, row, query head of that key head, token: so rows and heads before one prefix are one matrix.
        shape = llama.kv_heads, len(self.next), llama.heads // llama.kv_heads, step.wide, llama.width
        queries = np.zeros(shape, dtype=np.float32)
        # Scaled here and not at the scores: W numbers a query head instead of one for every slot.
        query = _turned(query, step.cos, step.sin) * llama.scale
        # Two index arrays with a slice between them: numpy puts their axis first, (N, key heads, query heads of each,
        # W).
        queries[:, row, :, step.turn] = query.reshape(count, llama.kv_heads, -1, llama.width)
        # A group at a time: its rows share the product with the prefix.
        attended, first, slots = np.empty_like(queries), 0, slice(0, self.used + step.wide)
        for group in self.groups:
            rows = slice(first, first + group.count)
            prefix = group.prefix[i] if group.length else None
            mask = None if step.mask is None else step.mask[rows]
            attended[:, rows] = _attend(queries[:, rows], prefix, keys[:, rows, slots], values[:, rows, slots], mask)
            first += group.count
        out = np.zeros((len(x), llama.heads * llama.width), dtype=np.float32)
        # Read back by the same index, so the queries of zeros that stand at holes fall away.
        out[:count] = attended[:, row, :, step.turn].reshape(count, -1)
        return out


def _whole(count: int) -> int:
    """How many rows of a matrix stand for so many: one alone, else the next multiple of `FOURS`."""
    if count == 1:
        return 1
    return -(-count // FOURS) * FOURS


def _attend(query: Array, prefix: Prefix | None, keys: Array, values: Array, mask: Array | None) -> Array:
    """One softmax over a shared prefix (key heads, length, W) and each row's own slots (key heads, B, S, W). Queries and
    what comes back: (key heads, B, query heads of each, T, W)."""
    heads, rows, shared, wide, width = query.shape
    length, slots = 0, keys.shape[2]
    if prefix:
        length = prefix[0].shape[1]
    # Prefix and slots side by side under one softmax: so neither has to be rescaled by the other's sum afterwards.
    scores = np.empty((heads, rows, shared * wide, length + slots), dtype=np.float32)
    if prefix:
        together = query.reshape(heads, -1, width) @ prefix[0].swapaxes(-1, -2)  # one product for all rows
        scores[..., :length] = together.reshape(heads, rows, shared * wide, length)
    scores[..., length:] = query.reshape(heads, rows, shared * wide, width) @ keys.swapaxes(-1, -2)
    if mask is not None:
        scores[..., length:].reshape(heads, rows, shared, wide, slots)[...] += mask[None, :, None]
    # The largest is taken off first: exp of a large score would overflow.
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    sums = scores.sum(axis=-1, keepdims=True)
    attended = scores[..., length:] @ values
    if prefix:
        attended += (scores[..., :length].reshape(heads, -1, length) @ prefix[1]).reshape(attended.shape)
    attended /= sums  # once, behind both products: it is linear
    return attended.reshape(query.shape)
