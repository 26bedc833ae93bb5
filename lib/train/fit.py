"""The training loop: epochs, validation, checkpoints, early stop, resume after a kill.

Knows rows of tokens and any loss over the log-probabilities of what is learnt from them; the losses for preferences
and rewards live next door and come in as objectives. Here is the plain one: imitate the chosen set. Does not know
where rows come from, how log-probabilities are computed, nor what an adapter is good for.

Shapes: B rows of a batch, T the most learnt tokens of one of them.
"""

from __future__ import annotations

import contextlib
import json
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from lib.files import write_atomic
from lib.models.mlx import MLXModel
from lib.models.model import Json
from lib.train.forward import Array, Forward, Tokens
from lib.train.lora import Settings

# Two states, because drafts of an epoch are drawn from the weights at its start: those are loaded first, the rows
# drawn again, and only then comes the state of the step.
STATE = "state.safetensors"  # adapter, optimiser and curve after the last whole epoch
STEP = "step.safetensors"  # adapter, optimiser and losses within an epoch, about once a minute
SAVE = 60.0  # s between two of them
PART = 2048  # tokens of a batch that are in memory at a time; 1,600 took 3.6 GB with 16 layers of 576, 6.2 GB with 30
Row = Any  # Tokens, or what the objective of the training has: Preference, Rewarded
Curve = list[Json]  # a row an epoch: epoch, train_loss, valid_loss and what else an objective shows


@dataclass(frozen=True)
class Objective:
    """What is trained for: what is learnt from rows, and the loss of each row given its log-probabilities."""

    tokens: Callable[[Sequence[Row]], list[Tokens]]  # what is read and learnt from rows, in one forward pass
    # logprobs (B, T), mask (B, T), rows -> "loss" (B,), and (B,) of whatever else the curve shows
    losses: Callable[[Array, Array, Sequence[Row]], dict[str, Array]]
    weight: Callable[[Row], float] = lambda row: 1.0  # of a row in the mean of a batch
    length: Callable[[Row], int] = lambda row: 0  # rows of like length go together, so that little is padding
    valid: Objective | None = None  # of validation, where it is another one


def cross_entropy(logprobs: Array, mask: Array, _: Sequence[Tokens]) -> dict[str, Array]:
    """Cross-entropy of a learnt token, by row."""
    return {"loss": -logprobs.sum(1) / mask.sum(1)}


# Every token counts the same, so a row counts by its tokens.
SFT = Objective(list, cross_entropy, lambda row: len(row.ids) - row.start, lambda row: len(row.ids))


def batches(rows: Sequence[Row], size: int, seed: int, length: Callable[[Row], int]) -> list[list[Row]]:
    """Rows of like length together, batches in random order; what does not fill a batch joins the last one.

    Every row is used once an epoch, so `size` is the least and not the most that a batch holds.
    """
    rng = random.Random(seed)
    # Equals by lot, or the same rows would meet in the same batch in every epoch.
    order = sorted(rows, key=lambda row: (length(row), rng.random()))
    cut = [order[i : i + size] for i in range(0, len(order), size)]
    if len(cut) > 1 and len(cut[-1]) < size:
        cut[-2:] = [cut[-2] + cut[-1]]
    rng.shuffle(cut)
    return cut


@dataclass
class Fit:
    """An adapter being trained in a folder; `curve` has a row an epoch, epoch 0 being the start.

    `rows` gives the rows of an epoch (the same ones, or fresh ones where the model answers between epochs). The
    adapter, the optimiser and the curve are on disk after each epoch, and about once a minute within one, so a killed
    training goes on from there and ends in the same bytes.
    """

    model: MLXModel
    objective: Objective
    settings: Settings
    rows: Callable[[int], Sequence[Row]]
    valid: Sequence[Row]
    folder: Path
    seed: int = 0
    progress: Callable[[Json], None] = lambda _: None  # gets what a progress bar shows, at each step
    extra: dict[int, dict[str, float]] = field(default_factory=dict)  # epoch -> what `rows` adds to its curve
    forward: Forward | None = None  # one that has read rows already
    spent: float = field(default=0.0, init=False)  # s on
    worked: float = field(default=0.0, init=False)  # so much work, by `Forward.work`
    first: Sequence[Row] = field(default=(), init=False)  # rows of the first epoch, and the steps that they make
    steps: int = field(default=0, init=False)
    drawing: float = field(default=0.0, init=False)  # s that the rows of an epoch took

    def run(self) -> Curve:
        """Train to the last epoch or to the early stop; returns the curve. Raises OSError where the disk is full."""
        from threadpoolctl import threadpool_limits

        self.folder.mkdir(parents=True, exist_ok=True)
        # Two threads pay for the large products of training, not for those of a decoding step; so only meanwhile.
        with threadpool_limits(self.settings.threads, user_api="blas"):
            return self._run()

    def _run(self) -> Curve:
        """All epochs that are still to come, from what a killed call saved or from the start."""
        self.first = self._draw(1)
        # The first epoch stands for all: of drafts a later one may have more rows or fewer, and the schedule goes by
        # this.
        self.steps = len(batches(self.first, self.settings.batch, 0, self.objective.length))
        optimiser = self._optimiser(self.steps * self.settings.epochs)
        curve = self._load(STATE, optimiser).get("curve", [])
        # Prefixes that it read with other weights would stand in its next drafts.
        self.model.clear_cache()
        if not curve:
            curve = [self.read(0, None)]
            self._save_epoch(0, optimiser, curve)
        # A curve has a row an epoch, the start included: its length is the epoch that comes next, also after a kill.
        for epoch in range(len(curve), self.settings.epochs + 1):
            if self._should_stop(curve):
                break
            # Those of the first epoch were drawn to count the steps; drafts are dear, so they are not drawn twice.
            rows = self.first if epoch == 1 else self._draw(epoch)
            loss = self._epoch(epoch, rows, optimiser)
            curve.append({**self.read(epoch, loss), **self.extra.get(epoch, {})})
            self._save_epoch(epoch, optimiser, curve)
        return curve

    def _draw(self, epoch: int) -> Sequence[Row]:
        """The rows of an epoch; how long they took to draw is kept for the time that is left."""
        began = time.perf_counter()
        rows = self.rows(epoch)
        self.drawing = time.perf_counter() - began
        return rows

    def read(self, epoch: int, loss: float | None) -> Json:
        """What validation shows after an epoch: means over its rows."""
        self.model.model.eval()
        sums: dict[str, float] = {}
        objective = self.objective.valid or self.objective
        cut = batches(self.valid, self.settings.batch, 0, objective.length)
        seen = 0
        # Rows count alike here, in a step by the objective's weight: the two losses of a curve are near and not one
        # measure.
        for number, part in enumerate(cut, 1):
            with self._timed(objective.tokens(part), learns=False):
                for name, values in self._losses(objective, part).items():
                    sums[name] = sums.get(name, 0.0) + float(values.sum().item())
            seen += len(part)
            # Of a large model these are minutes, and before the first step nothing else tells that it works.
            unread = list(chain.from_iterable(cut[number:]))
            self._report(epoch, epoch * self.steps, sums["loss"] / seen, [], unread)
        row: Json = {"epoch": epoch, "train_loss": loss}
        if loss is not None:
            row["train_loss"] = round(loss, 6)
        return row | {f"valid_{name}": round(total / len(self.valid), 6) for name, total in sums.items()}

    def _losses(self, objective: Objective, rows: Sequence[Row]) -> dict[str, Array]:
        """Losses of rows under an objective, (B,) each."""
        logprobs, mask = self._reader()(objective.tokens(rows))
        return objective.losses(logprobs, mask, rows)

    def _reader(self) -> Forward:
        """What reads rows; made of the validation rows where nobody handed one in."""
        if self.forward is None:
            rows = (self.objective.valid or self.objective).tokens(self.valid)
            self.forward = Forward.of(self.model.model, rows, self.settings.grad_checkpoint)
        return self.forward

    def best(self, curve: Curve) -> int:
        """The epoch (from 1) with the lowest validation loss, the earlier one of equals."""
        return min(curve[1:], key=lambda row: (row["valid_loss"], row["epoch"]))["epoch"]

    def _should_stop(self, curve: Curve) -> bool:
        """Whether validation has not become better for `patience` epochs."""
        if self.settings.patience == 0 or len(curve) == 1:
            return False
        return curve[-1]["epoch"] - self.best(curve) >= self.settings.patience

    def _optimiser(self, steps: int) -> Any:
        """AdamW with a linear warm-up and a cosine down to a twentieth of the rate."""
        import mlx.core as mx
        import mlx.optimizers as opt

        # A short training must not spend more than half of its steps on the way up.
        warmup, rate = min(self.settings.warmup, steps // 2), self.settings.learning_rate
        schedule = opt.cosine_decay(rate, max(1, steps - warmup), rate * 0.05)
        if warmup:
            schedule = opt.join_schedules([opt.linear_schedule(rate * 0.05, rate, warmup), schedule], [warmup])
        # mlx leaves out Adam's bias correction: a first step is three times the paper's, but for the warm-up.
        optimiser = opt.AdamW(learning_rate=schedule, weight_decay=self.settings.decay)
        optimiser.init(self.model.model.trainable_parameters())
        mx.eval(optimiser.state)
        return optimiser

    def _epoch(self, epoch: int, rows: Sequence[Row], optimiser: Any) -> float:
        """One pass over the rows, or what a killed one did not do; returns the mean loss of a step."""
        import mlx.core as mx

        # No training has 1,000 epochs, and no epoch 100,003 steps: no two of them share a seed.
        cut = batches(rows, self.settings.batch, self.seed * 1000 + epoch, self.objective.length)
        losses = self._load(STEP, optimiser, epoch).get("losses", [])
        self.model.model.train()
        saved = time.perf_counter()
        for step in range(len(losses), len(cut)):
            # Dropout of a step depends on seed, epoch and step alone: a resumed training ends in the same bytes.
            mx.random.seed((self.seed * 1000 + epoch) * 100_003 + step)
            losses.append(self._step(epoch, cut[step], optimiser))
            done = (epoch - 1 + (step + 1) / len(cut)) * self.steps
            self._report(epoch, done, losses[-1], list(chain.from_iterable(cut[step + 1 :])), self.valid)
            if time.perf_counter() - saved > SAVE:
                self._save(STEP, optimiser, epoch=epoch, losses=losses)
                saved = time.perf_counter()
        self.model.clear_cache()
        return sum(losses) / len(losses)

    def _step(self, epoch: int, rows: Sequence[Row], optimiser: Any) -> float:
        """The mean loss of a batch, and the adapter moved down its gradient.

        A large batch is read in parts, whose weighted gradients add up to that of the whole: memory is bounded, and
        the step is the same.
        """
        import mlx.core as mx
        import mlx.nn as nn
        from mlx.optimizers import clip_grad_norm
        from mlx.utils import tree_map

        objective = self.objective
        total, tokens = sum(map(objective.weight, rows)), objective.tokens(rows)
        # As many rows as hold PART tokens, by the mean of this batch.
        size = max(1, PART * len(rows) // sum(len(row.ids) for row in tokens))
        loss, gradient = 0.0, None
        for at in range(0, len(rows), size):
            part = rows[at : at + size]
            weights = mx.array([objective.weight(row) / total for row in part])  # (B,)

            def mean(part: Sequence[Row] = part, weights: Any = weights) -> Any:
                return (self._losses(objective, part)["loss"] * weights).sum()

            with self._timed(objective.tokens(part), learns=True):
                value, more = nn.value_and_grad(self.model.model, mean)()
                gradient = more if gradient is None else tree_map(mx.add, gradient, more)
                mx.eval(value, gradient)
            loss += value.item()
        if not math.isfinite(loss):
            raise ValueError(f"the loss became {loss} in epoch {epoch}: lower learning_rate")
        # Of bounded norm: one odd batch must not throw a small adapter far away.
        optimiser.update(self.model.model, clip_grad_norm(gradient, self.settings.clip)[0])
        mx.eval(self.model.model.trainable_parameters(), optimiser.state)
        return loss

    # --- how much time is left

    @contextlib.contextmanager
    def _timed(self, tokens: Sequence[Tokens], learns: bool) -> Iterator[None]:
        """Book the time of a pass, and its work, for the time that is left."""
        began, work = time.perf_counter(), self._reader().work(tokens, learns)
        yield
        self.spent += time.perf_counter() - began
        self.worked += work

    def _report(self, epoch: int, done: float, loss: float, rest: Sequence[Row], unread: Sequence[Row]) -> None:
        """Progress, with the time left by work: a step of the first epoch also reads the frozen layers, so steps say
        little. `rest` is what the epoch has not learnt from yet, `unread` what of validation it has not read."""
        objective, work = self.objective, self._reader().work
        valid = objective.valid or objective
        ahead = work(objective.tokens(rest), True) + work(valid.tokens(unread), False)
        epochs = self.settings.epochs - epoch
        ahead += epochs * (work(objective.tokens(self.first), True) + work(valid.tokens(self.valid), False))
        seconds = self.spent / max(self.worked, 1.0) * ahead + epochs * self.drawing
        total = self.settings.epochs * self.steps
        self.progress({"epoch": epoch, "done": done, "total": total, "loss": loss, "seconds_left": seconds})

    # --- on disk

    def weights(self) -> dict[str, Array]:
        """The adapter's tensors in full precision."""
        from mlx.utils import tree_flatten

        return dict(tree_flatten(self.model.model.trainable_parameters()))

    def _save_epoch(self, epoch: int, optimiser: Any, curve: Curve) -> None:
        """The adapter of an epoch, then in one file everything that it takes to go on from there."""
        write_atomic(epoch_file(self.folder, epoch), tensors(self.weights(), half=True))
        self._save(STATE, optimiser, curve=curve)
        # Killed before this line, an old step is told by its epoch and not loaded.
        (self.folder / STEP).unlink(missing_ok=True)

    def _save(self, name: str, optimiser: Any, **numbers: Any) -> None:
        """One file with the adapter, the optimiser and numbers: all of it or the one before it."""
        from mlx.utils import tree_flatten

        state = tree_flatten({"adapter": self.weights(), "optimiser": optimiser.state})
        metadata = {name: json.dumps(value) for name, value in numbers.items()}
        write_atomic(self.folder / name, tensors(dict(state), metadata=metadata))

    def _load(self, name: str, optimiser: Any, epoch: int = 0) -> Json:
        """The numbers that an earlier, killed call saved with its state, which is loaded; none where none fits."""
        import mlx.core as mx
        from mlx.utils import tree_flatten, tree_unflatten

        if not (self.folder / name).exists():
            return {}
        flat, metadata = mx.load(str(self.folder / name), return_metadata=True)
        numbers = {name: json.loads(text) for name, text in metadata.items() if name != "format"}
        state = tree_unflatten(list(flat.items()))
        adapter = tree_flatten(state["adapter"])
        # A state of other settings or of another epoch belongs to another training: none is better than that one.
        same_shapes = {k: v.shape for k, v in adapter} == {k: v.shape for k, v in self.weights().items()}
        if not same_shapes or numbers.get("epoch", epoch) != epoch:
            return {}
        self.model.model.load_weights(adapter, strict=False)
        optimiser.state = state["optimiser"]
        return numbers


def epoch_file(folder: Path, epoch: int) -> Path:
    """Where a training keeps the adapter of an epoch."""
    return folder / f"epoch-{epoch:02d}.safetensors"


def tensors(named: dict[str, Array], half: bool = False, metadata: dict[str, str] | None = None) -> bytes:
    """Tensors as the bytes of a safetensors file; `half` stores them in float16, half the size."""
    import mlx.core as mx
    import numpy as np
    from safetensors.numpy import save

    arrays = {}
    for name, value in named.items():
        if half:
            value = value.astype(mx.float16)
        # An array of mlx may be a view with strides; a file holds memory as it lies.
        arrays[name] = np.ascontiguousarray(np.array(value))
    return save(arrays, metadata={"format": "mlx"} | (metadata or {}))
