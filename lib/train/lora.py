"""Low-rank adapters: their settings, a base whose adapter can learn, and pairs as rows of token ids.

Knows LoRA as mlx-lm builds it: W x + scale * B A x with W frozen, A drawn at random and B zero, so that an adapter
starts as no change at all; scale is alpha / rank. Does not know losses nor the loop (`lib.train.fit`).
Sources: LoRA, Hu et al. 2021 (arXiv 2106.09685); QLoRA, Dettmers et al. 2023 (arXiv 2305.14314).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from lib.agent import prompt
from lib.forms import Number, fill, form
from lib.log import Row
from lib.models.blas import fast_blas
from lib.models.mlx import MLXModel
from lib.models.model import NoModel
from lib.models.provenance import WEIGHTS, config, find
from lib.train.data import BadData, Pair
from lib.train.forward import Tokens


@form(what="settings")
class Settings:
    """How an adapter is trained. Raises ValueError on a name, type or value that is none."""

    # The published study had rank 32, alpha 16 and batches of 4 on a 3B model, at a rate of 1e-3, with more pairs 5e-4.
    rank: Annotated[int, Field(ge=1)] = 8
    alpha: Annotated[Number, Field(gt=0)] = 16.0  # the update is scaled by alpha / rank
    # The last so many, or as many as there are; -1 is all. Layers below the first need no gradient, and what they make
    # of a row is kept.
    layers: Annotated[int, Field(ge=-1)] = 16
    dropout: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    learning_rate: Annotated[Number, Field(gt=0)] = 7e-4
    epochs: Annotated[int, Field(ge=1)] = 2
    batch: Annotated[int, Field(ge=1)] = 8
    warmup: Annotated[int, Field(ge=0)] = 10  # steps
    decay: Annotated[Number, Field(ge=0)] = 0.01  # of the weights, by AdamW
    clip: Annotated[Number, Field(gt=0)] = 1.0  # largest norm of a gradient
    # Epochs without a lower validation loss before it stops; 0 never stops early.
    patience: Annotated[int, Field(ge=0)] = 0
    mask_prompt: bool = True  # learn the reply only
    longest: Annotated[int, Field(ge=1)] = 640  # tokens of a row
    # On the tiny planner quality still rose where validation loss did too, so the loss does not choose by default.
    keep: Literal["best", "last"] = "last"  # the last epoch, or the best: the one with the lowest validation loss
    # Fixed, because the last bits of a product depend on it: a training must end in the same bytes when it is resumed.
    threads: Annotated[int, Field(ge=1)] = 2  # of OpenBLAS
    quantised: bool = False  # keep a quantised base as it is (QLoRA); on a CPU it is dequantised otherwise
    # Keep only what goes into each layer and make the rest again on the way back (Chen et al. 2016): less memory, more time.
    grad_checkpoint: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError where no layer would learn, `patience` is too long to end anything, or two cannot act together."""
        if self.layers == 0:
            raise ValueError("layers is 0: expected 1 or more, or -1 for all")
        if self.grad_checkpoint and self.dropout:
            # What is made again would be dropped otherwise than the first time, and the slope be of neither.
            raise ValueError(f"has grad_checkpoint and dropout {self.dropout}: they cannot act together; take one out")
        if self.patience >= self.epochs:
            raise ValueError(f"has patience {self.patience} and epochs {self.epochs}: it can never stop early; "
                             "take patience out, or allow more epochs")  # fmt: skip

    @classmethod
    def of(cls, values: Mapping[Any, Any]) -> Settings:
        """Settings from plain data."""
        return fill(cls, values)

    @property
    def lora(self) -> dict[str, float]:
        """The same in mlx-lm's words."""
        # Over the rank, so that another rank does not ask for another learning rate (Hu et al. 2021, 4.1).
        return {"rank": self.rank, "scale": self.alpha / self.rank, "dropout": self.dropout}


def shape(folder: Path) -> tuple[dict[str, float], int]:
    """Rank, alpha, layers and dropout of an adapter in a folder, in the words of the settings; and how many layers
    its base has. Raises NoModel.

    "All layers" becomes their number. The adapter alone says it: it holds the last layers, so also the very last one.
    """
    from safetensors import SafetensorError, safe_open

    about = config(folder)
    if about.fine_tune_type != "lora":
        raise NoModel(f"adapter {folder}: its kind is {about.fine_tune_type!r}, expected lora")
    try:
        with safe_open(str(folder / WEIGHTS), framework="numpy") as file:
            numbers = re.findall(r"\.layers\.(\d+)\.", " ".join(file.keys()))
        count = 1 + max(map(int, numbers))
    except (OSError, ValueError, SafetensorError) as error:
        raise NoModel(f"adapter {folder}: no layers can be read from {WEIGHTS} ({error})") from error
    lora, layers = about.lora_parameters, count
    if about.num_layers > 0:
        layers = min(about.num_layers, count)
    return {"rank": lora.rank, "alpha": lora.scale * lora.rank, "layers": layers, "dropout": lora.dropout}, count


def going_on(adapter: str, values: Row, runs: Path | None = None) -> Row:
    """Settings of a training that goes on from an adapter: its shape stands where nothing else is given.

    Raises NoModel, and ValueError where what is given is not what the adapter is: its shape cannot be changed.
    """
    parts, count = shape(find(adapter, runs))
    for name, value in parts.items():
        given = values.get(name, value)
        if name == "layers" and not 0 < given < count:  # all of them, whatever they are called
            given = count
        # Not by ==: alpha comes back as scale times rank.
        if not math.isclose(given, value, rel_tol=1e-6):
            raise ValueError(
                f"{name} is {values[name]!r:.40}, but adapter {adapter} has {value}: leave {name} out to go on from it"
            )
    return values | parts


def prepare(name: str, adapter: str, settings: Settings, seed: int, runs: Path | None = None) -> MLXModel:
    """A model whose base is frozen and whose adapter can learn: a new one, or the given one going on.

    Raises NoModel, and ValueError where the adapter has another shape than the settings say.
    """
    if adapter:
        going_on(adapter, asdict(settings), runs)
    fast_blas()
    import mlx.core as mx
    from mlx_lm.tuner.lora import LoRALinear
    from mlx_lm.tuner.utils import linear_to_lora_layers

    mx.random.seed(seed)  # A is drawn
    model = MLXModel(name, adapter, quantised=settings.quantised, runs=runs)
    # Everything first, also what loading an adapter made trainable; then A and B of each adapted layer alone.
    model.model.freeze()
    if not adapter:
        layers = settings.layers if settings.layers != -1 else len(model.model.layers)
        # In every linear map of a layer, as QLoRA asks for; Hu et al. adapted those of attention alone.
        linear_to_lora_layers(model.model, layers, settings.lora)
    for _, module in model.model.named_modules():
        if isinstance(module, LoRALinear):
            # Not what it wraps: that is the base's own weight.
            module.unfreeze(keys=["lora_a", "lora_b"], recurse=False)
    return model


def encode(model: MLXModel, task: str, draft: prompt.Draft, longest: int) -> Tokens:
    """The plain call with a reply and its end; the reply is learnt. Raises BadData over `longest` tokens."""
    # Tokens of prompt and reply apart: read together, a token could span the border and be half learnt.
    # Asked for as many questions as the reply has: a set of nine must not contradict its own prompt.
    asked = model.encode(prompt.ask(task, len(draft.questions)))
    reply = model.tokenizer.encode(prompt.write_set(draft), add_special_tokens=False)
    # The end is learnt with the reply: without it a model would write on until it is cut off.
    ids = [*asked, *reply, model.tokenizer.eos_token_id]
    if len(ids) > longest:
        raise BadData(
            f"the pair of {prompt.clip(task)} has {len(ids)} tokens, more than {longest}: shorten it, or raise `longest` "
            "where the model takes more"
        )
    return Tokens(ids, len(asked))


def sft_rows(model: MLXModel, pairs: Sequence[Pair], settings: Settings) -> list[Tokens]:
    """The chosen set of every pair."""
    rows = [encode(model, p.task, p.chosen, settings.longest) for p in pairs]
    if not settings.mask_prompt:
        rows = [row._replace(start=1) for row in rows]  # nothing predicts the first token
    return rows
