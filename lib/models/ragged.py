"""A Llama-like model on a CPU: rows of unequal length in one forward, and the prefix that they share attended once.

Knows weights, rotary angles, key-value slots and masks. Does not know text, sampling, grammars or which row ends.
It stands in for mlx-lm's forward on a CPU, in numpy over the very memory of mlx's weights, because mlx's CPU kernels
take 10 to 14 ns for one exponential (softmax, SiLU) where numpy takes 0.4, and its attention copies grouped keys.
- The prefix: one product for all rows and query heads of a key head, then the short rest row by row under the same
  softmax (Hydragen, arXiv 2402.05099). The query heads of a key head are rows of one product.
- Linear layers see only tokens that are there: no padding, no ended rows.
Covers mlx_lm's `llama` without sliding windows, in float32, bare or with LoRA. `fits` says so; else use mlx-lm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Array = np.ndarray
Map = Callable[[Array], Array]
ROOM = 64  # slots that are added when a row has none left
FOURS = 4  # OpenBLAS takes rows by the four; on busy cores 30 as 32 cost a tenth less, 10 as 12 two fifths
NEVER = np.float32(-1e30)  # not -inf: a row that sees nothing yet must not become NaN
ROPES = ("RoPE", "Llama3RoPE")  # whose angles depend on the position alone


def fits(model: Any) -> bool:
    """Whether `Llama(model)` computes what the model computes."""
    import mlx.core as mx

    if type(model).__module__ != "mlx_lm.models.llama" or mx.default_device() != mx.Device(mx.cpu):
        return False
    for layer in model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        rope = attention.rope
        maps = [attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj]
        maps += [mlp.gate_proj, mlp.up_proj, mlp.down_proj]
        plain = type(rope).__name__ in ROPES and not rope.traditional and rope.dims == attention.head_dim
        if layer.use_sliding or not plain or not all(map(_known, maps)):
            return False
    outer = [model.model.embed_tokens, *([] if model.args.tie_word_embeddings else [model.lm_head])]
    return all(type(m).__name__ in ("Embedding", "Linear") and m.weight.dtype == mx.float32 for m in outer)


def _known(layer: Any) -> bool:
    import mlx.core as mx

    if type(layer).__name__ == "LoRALinear":
        drops = layer.training and getattr(layer.dropout, "_p_1", 1) != 1
        return not drops and layer.lora_a.dtype == mx.float32 and _known(layer.linear)
    return type(layer).__name__ == "Linear" and layer.weight.dtype == mx.float32


def _linear(layer: Any) -> Map:
    if type(layer).__name__ == "LoRALinear":
        inner, a, b, scale = _linear(layer.linear), np.asarray(layer.lora_a), np.asarray(layer.lora_b), layer.scale
        return lambda x: inner(x) + np.float32(scale) * ((x @ a) @ b)
    weight = np.asarray(layer.weight).T
    if "bias" not in layer:
        return lambda x: x @ weight
    bias = np.asarray(layer.bias)
    return lambda x: x @ weight + bias


def _norm(layer: Any) -> Map:
    weight, eps = np.asarray(layer.weight), np.float32(layer.eps)

    def normed(x: Array) -> Array:
        mean = np.einsum("ij,ij->i", x, x) / np.float32(x.shape[-1])
        return x * (1 / np.sqrt(mean + eps))[:, None] * weight

    return normed


class _Layer:
    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.before, self.between = _norm(layer.input_layernorm), _norm(layer.post_attention_layernorm)
        self.q, self.k, self.v, self.o = (
            _linear(m) for m in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
        )
        self.gate, self.up, self.down = (_linear(m) for m in (mlp.gate_proj, mlp.up_proj, mlp.down_proj))

    def mlp(self, x: Array) -> Array:
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
        inner, attention = model.model, model.layers[0].self_attn
        self.rope, self.width = attention.rope, attention.head_dim
        self.heads, self.kv_heads = attention.n_heads, attention.n_kv_heads
        self.scale = np.float32(attention.scale)
        self.embedding = np.asarray(inner.embed_tokens.weight)
        self.layers, self.norm = [_Layer(layer) for layer in inner.layers], _norm(inner.norm)
        tied = model.args.tie_word_embeddings
        self.head: Map = _linear(inner.embed_tokens if tied else model.lm_head)
        self._angles = self._probe(512)

    def _probe(self, most: int) -> tuple[Array, Array]:
        """Cosines and sines of all positions below `most`: what the model's own rotation makes of (1, 0)."""
        import mlx.core as mx

        half = self.width // 2
        unit = mx.concatenate([mx.ones((1, 1, most, half)), mx.zeros((1, 1, most, half))], axis=-1)
        turned = np.array(self.rope(unit))[0, 0]
        return turned[:, None, :half], turned[:, None, half:]

    def angles(self, positions: Array) -> tuple[Array, Array]:
        """For each token, shapes (tokens, 1, half of a head)."""
        most = int(positions.max()) + 1
        if most > len(self._angles[0]):
            self._angles = self._probe(2 * most)
        return self._angles[0][positions], self._angles[1][positions]


def _turned(x: Array, cos: Array, sin: Array) -> Array:
    half = x.shape[-1] // 2
    made = np.empty_like(x)
    a, b = x[..., :half], x[..., half:]
    np.subtract(a * cos, b * sin, out=made[..., :half])
    np.add(a * sin, b * cos, out=made[..., half:])
    return made


class Rows:
    """Keys and values of rows in flight. Neighbours that begin alike refer to one prefix; the rest has slots.

    A step takes as many slots in every row as its longest row needs, and a shorter row leaves holes that nobody sees.
    """

    def __init__(self, llama: Llama, count: int, held: Sequence[Any] = (), n: int = 0) -> None:
        """`count` rows that begin with the first `n` tokens of `held`, mlx-lm's caches of one row."""
        self.llama = llama
        prefix = [tuple(np.asarray(x)[0, :, :n] for x in (c.keys, c.values)) for c in held] if n else []
        self.groups: list[tuple[int, int, list[Any]]] = [(count, n, prefix)]
        self.next = np.full(count, n)  # a row's next position
        self.used = 0
        self.seen = np.zeros((count, ROOM), dtype=bool)
        self.kv = self._empty(count, ROOM)

    def _empty(self, count: int, slots: int) -> Array:
        shape = (len(self.llama.layers), 2, self.llama.kv_heads, count, slots, self.llama.width)
        return np.zeros(shape, dtype=np.float32)

    def _grow(self, slots: int) -> None:
        if slots <= self.seen.shape[1]:
            return
        slots += ROOM
        kv, seen = self._empty(len(self.next), slots), np.zeros((len(self.next), slots), dtype=bool)
        kv[..., : self.used, :], seen[:, : self.used] = self.kv[..., : self.used, :], self.seen[:, : self.used]
        self.kv, self.seen = kv, seen

    def keep(self, places: Sequence[int]) -> None:
        """Let all other rows go, and with them the slots that only they had filled."""
        at, groups = 0, []
        for count, n, prefix in self.groups:
            left = sum(at <= i < at + count for i in places)
            groups += [(left, n, prefix)] if left else []
            at += count
        self.groups, self.next = groups, self.next[list(places)]
        seen = self.seen[list(places)]
        slots = np.flatnonzero(seen.any(axis=0))
        self.kv = self.kv[:, :, :, list(places)][..., slots, :]
        self.seen, self.used = seen[:, slots], len(slots)

    def join(self, other: Rows) -> None:
        """The rows of another behind one's own."""
        used = max(self.used, other.used)
        for rows in (self, other):
            rows._grow(used)
        self.kv = np.concatenate([r.kv[..., :used, :] for r in (self, other)], axis=3)
        self.seen = np.concatenate([r.seen[:, :used] for r in (self, other)])
        self.next, self.used = np.concatenate([self.next, other.next]), used
        self.groups += other.groups

    def forward(self, feeds: Sequence[Sequence[int]], logits: bool = True) -> Array:
        """Read each row's next tokens, none where its list is empty.

        Returns the logits after the last token of each row that read any, in float32, or nothing without `logits`.
        """
        counts = np.array([len(f) for f in feeds])
        wide = int(counts.max())
        row = np.repeat(np.arange(len(feeds)), counts)
        turn = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)  # 0, 1, … within its row
        self._grow(self.used + wide)
        self.seen[row, self.used + turn] = True
        angles = self.llama.angles(self.next[row] + turn)
        filled = 1 if len(row) == 1 else -(-len(row) // FOURS) * FOURS
        hidden = np.zeros((filled, self.llama.embedding.shape[1]), dtype=np.float32)
        hidden[: len(row)] = self.llama.embedding[np.concatenate([np.asarray(f, dtype=int) for f in feeds])]
        mask = self._mask(wide)
        for i, layer in enumerate(self.llama.layers):
            hidden = hidden + layer.o(self._attended(i, layer, hidden, row, turn, wide, angles, mask))
            hidden += layer.mlp(hidden)
        self.used, self.next = self.used + wide, self.next + counts
        if not logits:
            return np.zeros((0, 0), dtype=np.float32)
        last = (np.cumsum(counts) - 1)[counts > 0]
        fill = 0 if len(last) == 1 else -len(last) % FOURS
        return self.llama.head(self.llama.norm(hidden[np.pad(last, (0, fill))]))[: len(last)]

    def _mask(self, wide: int) -> Array | None:
        """0 or `NEVER` for row, token of the step and slot; None where every row sees every slot."""
        seen = self.seen[:, None, : self.used + wide]
        if wide > 1:
            slots = np.arange(self.used + wide)
            seen = seen & (slots <= self.used + np.arange(wide)[:, None])
        return None if seen.all() else np.where(seen, np.float32(0), NEVER)

    def _attended(
        self, i: int, layer: _Layer, x: Array, row: Array, turn: Array, wide: int, angles: Any, mask: Array | None
    ) -> Array:
        """What layer `i` attends to: (tokens and filling, hidden) in and out, before the output map."""
        of, real = self.llama, len(row)
        x, (cos, sin) = layer.before(x), angles
        query, key, value = (m(x)[:real].reshape(real, -1, of.width) for m in (layer.q, layer.k, layer.v))
        keys, values = self.kv[i]
        at = self.used + turn
        keys[:, row, at] = _turned(key, cos, sin).swapaxes(0, 1)
        values[:, row, at] = value.swapaxes(0, 1)
        # Key head, row, query head of that key head, token: so rows and heads before one prefix are one matrix.
        ordered = np.zeros((of.kv_heads, len(self.next), of.heads // of.kv_heads, wide, of.width), dtype=np.float32)
        query = _turned(query, cos, sin) * of.scale
        ordered[:, row, :, turn] = query.reshape(real, of.kv_heads, -1, of.width)
        made = np.empty_like(ordered)
        first = 0
        for count, n, prefix in self.groups:
            mine = slice(first, first + count)
            slots = slice(0, self.used + wide)
            rest = keys[:, mine, slots], values[:, mine, slots]
            made[:, mine] = _attend(
                ordered[:, mine], prefix[i] if n else None, rest, None if mask is None else mask[mine]
            )
            first += count
        out = np.zeros((len(x), of.heads * of.width), dtype=np.float32)
        out[:real] = made[:, row, :, turn].reshape(real, -1)
        return out


def _attend(query: Array, prefix: Any, rest: tuple[Array, Array], mask: Array | None) -> Array:
    """One softmax over a shared prefix (heads, n, width) and each row's own slots (heads, rows, slots, width)."""
    heads, rows, shared, wide, width = query.shape
    keys, values = rest
    n, slots = (prefix[0].shape[1] if prefix else 0), keys.shape[2]
    scores = np.empty((heads, rows, shared * wide, n + slots), dtype=np.float32)
    if n:
        together = query.reshape(heads, -1, width) @ prefix[0].swapaxes(-1, -2)
        scores[..., :n] = together.reshape(heads, rows, shared * wide, n)
    scores[..., n:] = query.reshape(heads, rows, shared * wide, width) @ keys.swapaxes(-1, -2)
    if mask is not None:
        scores[..., n:].reshape(heads, rows, shared, wide, slots)[...] += mask[None, :, None]
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    sums = scores.sum(axis=-1, keepdims=True)
    made = scores[..., n:] @ values
    if n:
        made += (scores[..., :n].reshape(heads, -1, n) @ prefix[1]).reshape(made.shape)
    made /= sums
    return made.reshape(query.shape)
