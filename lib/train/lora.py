"""Low-rank adapters: epochs, validation, checkpoints, early stop, resume after a kill.

Knows rows of token ids and any loss over the log-probabilities of what is learnt from them; the losses for preferences
and rewards live next door and come in as functions. Here is the plain one: imitate the chosen set. Does not know where
rows come from, how log-probabilities are computed, nor what an adapter is good for.
Sources: LoRA, Hu et al. 2021 (arXiv 2106.09685); QLoRA, Dettmers et al. 2023 (arXiv 2305.14314).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from lib.agent import prompt
from lib.files import write_atomic
from lib.forms import Number, fill, form
from lib.models.mlx import MLXModel, fast_blas
from lib.models.model import NoModel
from lib.models.provenance import CONFIG, WEIGHTS, find
from lib.train.data import BadData, Pair
from lib.train.forward import Forward, Learnt

STATE = "state.safetensors"  # adapter, optimiser and curve after the last whole epoch
STEP = "step.safetensors"  # adapter, optimiser and losses within an epoch, about once a minute
SAVE = 60.0  # s between two of them
PART = 2048  # tokens of a batch that are in memory at a time; 1,600 took 3.6 GB with 16 layers of 576, 6.2 GB with 30
Row = tuple[Any, ...]


@form(what="settings")
class Settings:
    """How an adapter is trained. Raises ValueError on a name, type or value that is none."""

    rank: Annotated[int, Field(ge=1)] = 8
    alpha: Annotated[Number, Field(gt=0)] = 16.0  # the update is scaled by alpha / rank
    layers: Annotated[int, Field(ge=-1)] = 16  # the last so many, or as many as there are; -1 is all
    dropout: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    learning_rate: Annotated[Number, Field(gt=0)] = 7e-4
    epochs: Annotated[int, Field(ge=1)] = 2
    batch: Annotated[int, Field(ge=1)] = 8
    warmup: Annotated[int, Field(ge=0)] = 10  # steps
    decay: Annotated[Number, Field(ge=0)] = 0.01  # of the weights, by AdamW
    clip: Annotated[Number, Field(gt=0)] = 1.0  # largest norm of a gradient
    patience: Annotated[int, Field(ge=0)] = (
        0  # epochs without a lower validation loss before it stops; 0 never stops early
    )
    mask_prompt: bool = True  # learn the reply only
    longest: Annotated[int, Field(ge=1)] = 640  # tokens of a row
    # On the tiny planner quality still rose where validation loss did too, so the loss does not choose by default.
    keep: Literal["best", "last"] = "last"  # the last epoch, or the best: the one with the lowest validation loss
    # Fixed, because the last bits of a product depend on it: a training must end in the same bytes when it is resumed.
    threads: Annotated[int, Field(ge=1)] = 2  # of OpenBLAS
    quantised: bool = False  # keep a quantised base as it is (QLoRA); on a CPU it is dequantised otherwise

    def __post_init__(self) -> None:
        if self.layers == 0:
            raise ValueError("layers is 0: expected 1 or more, or -1 for all")

    @classmethod
    def of(cls, values: Mapping[Any, Any]) -> Settings:
        """Settings from plain data."""
        return fill(cls, values)

    @property
    def lora(self) -> dict[str, Any]:
        """The same in mlx-lm's words."""
        return {"rank": self.rank, "scale": self.alpha / self.rank, "dropout": self.dropout}


def shape(folder: Path) -> tuple[dict[str, Any], int]:
    """Rank, alpha, layers and dropout of an adapter in a folder, in the words of the settings; and how many layers
    its base has. Raises NoModel.

    "All layers" becomes their number. The adapter alone says it: it holds the last layers, so also the very last one.
    """
    from safetensors import SafetensorError, safe_open

    try:
        told = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        kind, lora, layers = told.get("fine_tune_type", "lora"), told["lora_parameters"], told["num_layers"]
        with safe_open(str(folder / WEIGHTS), framework="numpy") as file:
            count = 1 + max(int(n) for name in file.keys() for n in re.findall(r"\.layers\.(\d+)\.", name))
        found = {
            "rank": lora["rank"], "alpha": float(lora["scale"] * lora["rank"]),
            "layers": min(layers, count) if layers > 0 else count, "dropout": float(lora.get("dropout", 0.0)),
        }  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise NoModel(f"adapter {folder}: rank, scale and layers cannot be read from its files ({error})") from error
    if kind != "lora":
        raise NoModel(f"adapter {folder}: its kind is {kind!r}, expected lora")
    return found, count


def going_on(adapter: str, values: dict[str, Any], runs: Path | None = None) -> dict[str, Any]:
    """Settings of a training that goes on from an adapter: its shape stands where nothing is told.

    Raises NoModel, and ValueError where what is told is not what the adapter is: its shape cannot be changed.
    """
    has, count = shape(find(adapter, runs))
    for name, value in has.items():
        told = values.get(name, value)
        if name == "layers":
            told = count if told == -1 else min(told, count)
        if told != value and not (isinstance(told, float) and math.isclose(told, value, rel_tol=1e-6)):
            raise ValueError(
                f"{name} is {values[name]!r:.40}, but adapter {adapter} has {value}: leave {name} out to go on from it"
            )
    return {**values, **has}


# --- model and rows ------------------------------------------------------------------------------


def prepare(name: str, adapter: str, settings: Settings, seed: int) -> MLXModel:
    """A model whose base is frozen and whose adapter can learn: a new one, or the given one going on.

    Raises NoModel, and ValueError where the adapter has another shape than the settings say.
    """
    if adapter:
        going_on(adapter, plain(settings))
    fast_blas()
    import mlx.core as mx
    from mlx_lm.tuner.lora import LoRALinear
    from mlx_lm.tuner.utils import linear_to_lora_layers

    mx.random.seed(seed)
    model = MLXModel(name, adapter, quantised=settings.quantised)
    model.model.freeze()
    count = len(model.model.layers)
    if not adapter:
        linear_to_lora_layers(model.model, count if settings.layers == -1 else settings.layers, settings.lora)
    for _, module in model.model.named_modules():
        if isinstance(module, LoRALinear):
            module.unfreeze(keys=["lora_a", "lora_b"], recurse=False)
    return model


def encode(model: MLXModel, task: str, draft: prompt.Draft, longest: int) -> tuple[list[int], int]:
    """Token ids of the plain call with a reply and its end, and where the reply begins. Raises BadData over `longest`."""
    start = model.encode(prompt.ask(task, len(draft.questions)))
    reply = model.tokenizer.encode(prompt.write_set(draft), add_special_tokens=False)
    ids = [*start, *reply, model.tokenizer.eos_token_id]
    if len(ids) > longest:
        raise BadData(
            f"the pair of {prompt.clip(task)} has {len(ids)} tokens, more than {longest}: shorten it, or raise `longest` "
            "where the model takes more"
        )
    return ids, len(start)


def sft_rows(model: MLXModel, pairs: Sequence[Pair], settings: Settings) -> list[Row]:
    """(ids, start of what is learnt) of every pair."""
    made = [encode(model, p.task, p.chosen, settings.longest) for p in pairs]
    return [(ids, start if settings.mask_prompt else 1) for ids, start in made]


def batches(rows: Sequence[Row], size: int, seed: int, alike: bool = True) -> list[list[Row]]:
    """Rows of like length together (`alike`), batches in random order; what does not fill a batch joins the last one.

    Every row is used once an epoch, so `size` is the least and not the most that a batch holds.
    """
    rng = random.Random(seed)
    order = sorted(rows, key=lambda r: (len(r[0]) if alike else 0, rng.random()))
    cut = [order[i : i + size] for i in range(0, len(order), size)]
    if len(cut) > 1 and len(cut[-1]) < size:
        cut[-2:] = [cut[-2] + cut[-1]]
    rng.shuffle(cut)
    return cut


# --- losses ----------------------------------------------------------------------------------------


Each = Callable[[Any, Any, Sequence[Row]], dict[str, Any]]  # told, mask, rows -> "loss" and what else shows, by row


@dataclass(frozen=True)
class Objective:
    """What is trained for: what is learnt from rows, and the loss of each row given its log-probabilities."""

    learnt: Callable[[Sequence[Row]], list[Learnt]]  # one or more sequences a row
    each: Each
    weigh: Callable[[Row], float] = lambda _: 1.0  # of a row's loss among those of a batch
    alike: bool = True  # batches of like length; not where length goes with what is learnt from a row
    valid: Objective | None = None  # what validation reads, where it is something else


def sft_each(told: Any, mask: Any, _: Sequence[Row]) -> dict[str, Any]:
    """Cross-entropy of a learnt token, by row."""
    return {"loss": -told.sum(1) / mask.sum(1)}


# Every token counts the same, so a row counts by its tokens.
SFT = Objective(list, sft_each, lambda row: len(row[0]) - row[1])


# --- the loop ------------------------------------------------------------------------------------


@dataclass
class Fit:
    """An adapter being trained in a folder; `curve` has a row a epoch, epoch 0 being the start.

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
    told: Callable[[dict[str, Any]], None] = lambda _: None  # called at each step with what a progress bar shows
    extra: Mapping[int, dict[str, float]] = field(default_factory=dict)  # what `rows` found out about an epoch
    forward: Forward | None = None  # one that has read rows already
    spent: float = field(default=0.0, init=False)  # s on
    worked: float = field(default=0.0, init=False)  # so much work, by `Forward.work`

    def run(self) -> list[dict[str, Any]]:
        """Train to the last epoch or to the early stop; returns the curve. Raises OSError where the disk is full."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with threads(self.settings.threads):
            return self._run()

    def _run(self) -> list[dict[str, Any]]:
        self.first = first = self._drawn(1)
        self.steps = len(batches(first, self.settings.batch, 0))
        optimiser = self._optimiser(self.steps * self.settings.epochs)
        curve = self._load(STATE, optimiser).get("curve", [])
        self.model.clear_cache()  # what it read with other weights would stand in its next drafts
        if not curve:
            curve = [self.read(0, None)]
            self._save_epoch(0, optimiser, curve)
            self._tell(0, 0, curve[0]["valid_loss"], [], valid=False)
        for epoch in range(len(curve), self.settings.epochs + 1):
            if self._should_stop(curve):
                break
            loss = self._epoch(epoch, first if epoch == 1 else self._drawn(epoch), optimiser)
            curve.append({**self.read(epoch, loss), **self.extra.get(epoch, {})})
            self._save_epoch(epoch, optimiser, curve)
            self._tell(epoch, epoch * self.steps, loss, [], valid=False)
        return curve

    def _drawn(self, epoch: int) -> Sequence[Row]:
        began = time.perf_counter()
        rows = self.rows(epoch)
        self.drawing = time.perf_counter() - began
        return rows

    def read(self, epoch: int, loss: float | None) -> dict[str, Any]:
        """What validation shows after an epoch: means over its rows."""
        self.model.model.eval()
        sums: dict[str, float] = {}
        objective = self.objective.valid or self.objective
        for part in batches(self.valid, self.settings.batch, 0):
            with self._timed(objective.learnt(part), learns=False):
                for name, values in self._each(objective, part).items():
                    sums[name] = sums.get(name, 0.0) + float(values.sum().item())
        means = {f"valid_{k}": round(v / len(self.valid), 6) for k, v in sums.items()}
        return {"epoch": epoch, "train_loss": None if loss is None else round(loss, 6), **means}

    def _each(self, objective: Objective, rows: Sequence[Row]) -> dict[str, Any]:
        return objective.each(*self._reader()(objective.learnt(rows)), rows)

    def _reader(self) -> Forward:
        if self.forward is None:
            self.forward = Forward.of(self.model.model, (self.objective.valid or self.objective).learnt(self.valid))
        return self.forward

    def best(self, curve: Sequence[dict[str, Any]]) -> int:
        """The epoch (from 1) with the lowest validation loss, the earlier one of equals."""
        return min(curve[1:], key=lambda r: (r["valid_loss"], r["epoch"]))["epoch"]

    def _should_stop(self, curve: Sequence[dict[str, Any]]) -> bool:
        return (
            self.settings.patience > 0
            and len(curve) > 1
            and curve[-1]["epoch"] - self.best(curve) >= self.settings.patience
        )

    def _optimiser(self, steps: int) -> Any:
        import mlx.core as mx
        import mlx.optimizers as opt

        clip = self.settings.clip

        class Clipped(opt.AdamW):
            """AdamW on a gradient of bounded norm: one odd batch must not throw a small adapter far away."""

            def apply_gradients(self, gradients: Any, parameters: Any) -> Any:
                return super().apply_gradients(opt.clip_grad_norm(gradients, clip)[0], parameters)

        warmup, rate = min(self.settings.warmup, steps // 2), self.settings.learning_rate
        fall = opt.cosine_decay(rate, max(1, steps - warmup), rate * 0.05)
        schedule = fall
        if warmup:
            schedule = opt.join_schedules([opt.linear_schedule(rate * 0.05, rate, warmup), fall], [warmup])
        made = Clipped(learning_rate=schedule, weight_decay=self.settings.decay)
        made.init(self.model.model.trainable_parameters())
        mx.eval(made.state)
        return made

    def _epoch(self, epoch: int, rows: Sequence[Row], optimiser: Any) -> float:
        """One pass over the rows, or what a killed one left of it; returns the mean loss of a step."""
        import mlx.core as mx

        cut = batches(rows, self.settings.batch, self.seed * 1000 + epoch, self.objective.alike)
        losses = self._load(STEP, optimiser, epoch).get("losses", [])
        self.model.model.train()
        saved = time.perf_counter()
        for step in range(len(losses), len(cut)):
            # Dropout of a step depends on seed, epoch and step alone: a resumed training ends in the same bytes.
            mx.random.seed((self.seed * 1000 + epoch) * 100_003 + step)
            losses.append(self._step(epoch, cut[step], optimiser))
            done = (epoch - 1 + (step + 1) / len(cut)) * self.steps
            self._tell(epoch, done, losses[-1], [row for part in cut[step + 1 :] for row in part])
            if time.perf_counter() - saved > SAVE:
                self._save(STEP, optimiser, epoch=epoch, losses=losses)
                saved = time.perf_counter()
        self.model.clear_cache()
        return sum(losses) / len(losses)

    def _step(self, epoch: int, rows: Sequence[Row], optimiser: Any) -> float:
        """The mean loss of a batch, and the adapter moved down its slope; in parts where it is large."""
        import mlx.core as mx
        import mlx.nn as nn
        from mlx.utils import tree_map

        total, learnt = sum(map(self.objective.weigh, rows)), self.objective.learnt(rows)
        size = max(1, PART * len(rows) // sum(len(ids) for ids, _ in learnt))
        loss, slope = 0.0, None
        for part in (rows[i : i + size] for i in range(0, len(rows), size)):
            weights = mx.array([self.objective.weigh(r) / total for r in part])
            mean = nn.value_and_grad(
                self.model.model, lambda r=part, w=weights: (self._each(self.objective, r)["loss"] * w).sum()
            )
            with self._timed(self.objective.learnt(part), learns=True):
                value, more = mean()
                slope = more if slope is None else tree_map(mx.add, slope, more)
                mx.eval(value, slope)
            loss += value.item()
        if not math.isfinite(loss):
            raise ValueError(f"the loss became {loss} in epoch {epoch}: lower learning_rate")
        optimiser.update(self.model.model, slope)
        mx.eval(self.model.model.trainable_parameters(), optimiser.state)
        return loss

    # --- how much is left

    @contextlib.contextmanager
    def _timed(self, learnt: Sequence[Learnt], learns: bool) -> Iterator[None]:
        began, work = time.perf_counter(), self._reader().work(learnt, learns)
        yield
        self.spent += time.perf_counter() - began
        self.worked += work

    def _tell(self, epoch: int, done: float, loss: float, rest: Sequence[Row], valid: bool = True) -> None:
        """Progress, with the time left by work: tokens times layers, dear where a row is read for the first time."""
        objective, more, work = self.objective, self.settings.epochs - epoch, self._reader().work
        read = work((objective.valid or objective).learnt(self.valid), False)
        left = work(objective.learnt(rest), True) + valid * read
        left += more * (work(objective.learnt(self.first), True) + read)
        seconds = self.spent / max(self.worked, 1.0) * left + more * self.drawing
        total = self.settings.epochs * self.steps
        self.told({"epoch": epoch, "done": done, "total": total, "loss": loss, "seconds_left": seconds})

    # --- on disk

    def weights(self) -> dict[str, Any]:
        """The adapter's tensors in full precision."""
        from mlx.utils import tree_flatten

        return dict(tree_flatten(self.model.model.trainable_parameters()))

    def _save_epoch(self, epoch: int, optimiser: Any, curve: list[dict[str, Any]]) -> None:
        """The adapter of an epoch, then in one file everything that it takes to go on from there."""
        write_atomic(epoch_file(self.folder, epoch), tensors(self.weights(), half=True))
        self._save(STATE, optimiser, curve=curve)
        (self.folder / STEP).unlink(missing_ok=True)

    def _save(self, name: str, optimiser: Any, **told: Any) -> None:
        from mlx.utils import tree_flatten

        state = tree_flatten({"adapter": self.weights(), "optimiser": optimiser.state})
        write_atomic(self.folder / name, tensors(dict(state), **{k: json.dumps(v) for k, v in told.items()}))

    def _load(self, name: str, optimiser: Any, epoch: int = 0) -> dict[str, Any]:
        """What an earlier, killed call said with its state, which is loaded; empty when there is none that fits."""
        import mlx.core as mx
        from mlx.utils import tree_flatten, tree_unflatten

        if not (self.folder / name).exists():
            return {}
        flat, said = mx.load(str(self.folder / name), return_metadata=True)
        state = tree_unflatten(list(flat.items()))
        adapter = tree_flatten(state["adapter"])
        shapes = {(k, v.shape) for k, v in adapter}
        if shapes != {(k, v.shape) for k, v in self.weights().items()} or said.get("epoch", str(epoch)) != str(epoch):
            return {}
        self.model.model.load_weights(adapter, strict=False)
        optimiser.state = state["optimiser"]
        return {k: json.loads(v) for k, v in said.items() if k != "format"}


def epoch_file(folder: Path, epoch: int) -> Path:
    """Where a training keeps the adapter of an epoch."""
    return folder / f"epoch-{epoch:02d}.safetensors"


def tensors(named: dict[str, Any], half: bool = False, **told: str) -> bytes:
    """Tensors as the bytes of a safetensors file; `half` stores them in float16, half the size."""
    import mlx.core as mx
    import numpy as np
    from safetensors.numpy import save

    plain = {}
    for name, value in named.items():
        cast = value.astype(mx.float16) if half else value
        plain[name] = np.ascontiguousarray(np.array(cast))
    return save(plain, metadata={"format": "mlx", **told})


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """OpenBLAS with so many threads meanwhile: two pay for large products, not for those of a decoding step."""
    try:
        blas = ctypes.CDLL("libopenblas.so.0")
    except OSError:  # Apple's library, or the slow one of the wheel: neither is told
        yield
        return
    before = blas.openblas_get_num_threads()
    blas.openblas_set_num_threads(count)
    try:
        yield
    finally:
        blas.openblas_set_num_threads(before)


def plain(settings: Settings) -> dict[str, Any]:
    """Settings as plain data."""
    return asdict(settings)
