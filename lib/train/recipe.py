"""One training from its recipe: pairs, base, method, settings in; curve, data and adapter files out, in a work folder.

Knows the methods and in which order things happen: the leak guard first, then drafts, then training, then files. Does
not know hypotheses, runs or seals; judge and ruler come in as functions. A killed training goes on from what it
saved last when it is called again with the same recipe, code, base and parents.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from lib.agent.guard import LeakGuard
from lib.files import canonical, locked, sha256, write_atomic
from lib.forms import Filled, Number, fill, form
from lib.log import Row
from lib.models.mlx import MLXModel, folder_of, identity
from lib.models.model import Decoding
from lib.models.provenance import ADAPTER, config, content_hash, find
from lib.train import data, gad, grpo, lora, orpo
from lib.train.adapter import Adapter, Provenance, merge, parent
from lib.train.data import BadData, Card, Pair, Pairs
from lib.train.fit import SFT, Curve, Fit, epoch_file
from lib.train.forward import Forward
from lib.train.lora import Settings

DRAWING = ("grpo", "gad")  # methods in which the model answers while it is trained
DATA_PACKED = "data.jsonl.xz"
FEWEST = 8  # drafts with the form of a set that a critic is fitted on

# --- where pairs come from, and what a loss is made with -------------------------------------------


@form(BadData, "data")
class ByTeacher:
    """Pairs whose chosen sets are the teacher's."""

    source: Literal["teacher"] = "teacher"
    kind: Literal[data.KINDS] = "clean"  # type: ignore[valid-type]
    # As many as the published study's first training had.
    pairs: Annotated[int, Field(ge=2)] = 288
    seed: int = 0
    draft_temp: Annotated[Number, Field(ge=0, le=5)] = 0.0  # of the model's own drafts


@form(BadData, "data")
class ByClaude(ByTeacher):
    """Pairs whose chosen sets are bought."""

    source: Literal["claude"] = "claude"  # type: ignore[assignment]
    model: Filled = "claude-sonnet-5-5"
    dollars: Annotated[Number, Field(gt=0)] = 2.0  # a cap for all of them
    batch: bool = True

    def __post_init__(self) -> None:
        if self.kind == "styles":
            raise BadData(
                "data kind 'styles' with source 'claude': the second style is the teacher's; take source teacher"
            )


@form(BadData, "data")
class FromFile:
    """Pairs that somebody else made."""

    source: Literal["file"]
    path: Filled


@form(what="objective")
class Imitation:
    """Cross-entropy has no terms."""


@form(what="objective")
class Preference:
    """Of ORPO."""

    beta: Annotated[Number, Field(ge=0)] = orpo.BETA


@form(what="objective")
class Shares:
    """Of a merge: one weight an adapter, equal ones where none is given."""

    weights: Annotated[list[Number], Field(min_length=1)] | None = None


Origin = ByTeacher | ByClaude | FromFile
SOURCES: dict[str, Any] = {"teacher": ByTeacher, "claude": ByClaude, "file": FromFile}
TERMS: dict[str, Any] = {"sft": Imitation, "orpo": Preference, "grpo": grpo.Rules, "gad": grpo.Rules, "merge": Shares}
METHODS = tuple(TERMS)


def variant(what: str, by: str, choice: str, forms: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    """The form that a choice decides, filled. Raises ValueError, also on a parameter that acts with another choice
    alone: it would be sealed and say nothing."""
    if choice not in list(forms):  # also where it is no text
        raise ValueError(f"{what} {by} is {choice!r:.40}: expected one of {', '.join(forms)}")
    for name in values:
        takers = [other for other, one in forms.items() if name in one.__dataclass_fields__]
        if takers and choice not in takers:
            raise ValueError(f"{what} has {name} and {by} {choice!r}: {name} acts with {by} {' or '.join(takers)} alone; "
                             "take one of the two out")  # fmt: skip
    return fill(forms[choice], values)


# --- the recipe ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """What is trained. `progress` gets what a progress bar shows, at each step."""

    method: str
    model: str
    work: Path
    guard: LeakGuard
    code: str  # hash of the sources
    data: Row = field(default_factory=dict)
    adapter: str = ""
    merge: tuple[str, ...] = ()
    settings: Settings = field(default_factory=Settings)
    objective: Row = field(default_factory=dict)
    checkpoints: tuple[int, ...] = ()
    seed: int = 0
    reward: grpo.Reward | None = None  # of grpo
    store: Path | None = None  # of what Claude was paid for
    runs: Path | None = None  # folder of sealed runs, whose adapters may be named; None: the usual one
    progress: Callable[[Row], None] = lambda _: None

    def check(self) -> Recipe:
        """Refuse what cannot be trained before anything is loaded. Raises ValueError, BadData, NoModel or Leak."""
        self.check_parameters()
        if self.method != "merge":
            self.planned  # noqa: B018  builds, or says what is wrong
        return self

    def check_parameters(self) -> Recipe:
        """Refuse what can be seen to be wrong without the data: nothing is built, read or bought. Raises ValueError, BadData."""
        self._check_effects()
        if self.method == "merge":
            if len(self.merge) < 2 or len(self.weights) != len(self.merge):
                raise ValueError(f"merge is {list(self.merge)}: expected two or more adapters, one weight each")
            return self
        self.terms  # noqa: B018  says what is wrong with them
        if self.adapter:
            lora.going_on(self.adapter, asdict(self.settings), self.runs)
        if not {*self.checkpoints} <= {*range(1, self.settings.epochs + 1)}:
            raise ValueError(f"checkpoints {list(self.checkpoints)}: expected epochs from 1 to {self.settings.epochs}")
        self._check_kind()
        return self

    def _check_effects(self) -> None:
        """Refuse a parameter that this method does nothing with: it would be sealed and say nothing."""
        unused: Row = {"merge": ()}
        if self.method == "merge":
            unused = {"data": {}, "adapter": "", "settings": Settings(), "checkpoints": (), "seed": 0}
        for name, default in unused.items():
            if getattr(self, name) != default:
                raise ValueError(
                    f"{name} and method {self.method!r}: {name} does nothing there; take one of the two out"
                )
        if self.method != "sft" and not self.settings.mask_prompt:
            raise ValueError(
                f"settings has mask_prompt false and method {self.method!r}: only sft can learn the prompt too"
            )
        if self.settings.quantised and not self._base_is_quantised():
            raise ValueError(f"settings has quantised and model {self.model!r:.60}, whose weights are not quantised; take "
                             "quantised out, or a model of 4 or 8 bits")  # fmt: skip

    def _base_is_quantised(self) -> bool:
        about = json.loads((folder_of(self.model) / "config.json").read_text(encoding="utf-8"))
        return "quantization" in about

    def _check_kind(self) -> None:
        """Refuse data of a kind that the method cannot learn from. Raises BadData."""
        if isinstance(self.origin, FromFile):
            return
        kind, prefers = self.origin.kind, self.method == "orpo"
        if (kind in data.PREFERENCE) != prefers:
            fitting = [k for k in data.KINDS if (k in data.PREFERENCE) == prefers]
            raise BadData(f"data kind {kind!r} with method {self.method}: expected {' or '.join(fitting)}")
        if "draft_temp" in self.data and not self.own_drafts:
            raise BadData(f"data has draft_temp and kind {kind!r}: only on-policy pairs have own drafts")

    # --- what it says

    @cached_property
    def origin(self) -> Origin:
        """Where its pairs come from. Raises BadData."""
        try:
            return variant("data", "source", self.data.get("source", "teacher"), SOURCES, self.data)
        except ValueError as error:
            raise BadData(str(error)) from None

    @property
    def own_drafts(self) -> bool:
        """Whether the rejected sides are the model's own drafts, so that they are made when it is loaded."""
        return isinstance(self.origin, ByTeacher) and self.origin.kind == "on-policy"

    @cached_property
    def planned(self) -> Pairs:
        """The pairs as far as they can be made without the model, guarded. Raises BadData, Leak, CloudError."""
        origin = self.origin
        if isinstance(origin, FromFile):
            return data.from_file(origin.path, self.method == "orpo").check(self.guard)
        writer: data.Writer = data.teacher
        source = data.TEACHER
        if isinstance(origin, ByClaude):
            from lib.train.teacher import teacher

            writer, source = teacher(asdict(origin), self.store, origin.seed), origin.model
        return data.build(origin.kind, origin.pairs, origin.seed, self.guard, writer, source).check(self.guard)

    @cached_property
    def terms(self) -> Any:
        """What the method's loss is made with, or the weights of a merge. Raises ValueError."""
        return variant("objective", "method", self.method, TERMS, self.objective)

    @property
    def weights(self) -> list[float]:
        """Of the adapters that are merged."""
        return self.terms.weights or [1 / len(self.merge)] * len(self.merge)

    @cached_property
    def base(self) -> dict[str, str]:
        """The base by name and content, as it stands in the adapter's provenance."""
        # Of a folder only the name: a sealed adapter holds no path of this machine.
        name = self.model
        if Path(name).is_absolute():
            name = Path(name).name
        return {"name": name, "weights": identity(self.model)}

    @cached_property
    def folder(self) -> Path:
        """The work folder of exactly this training: other code, base, parents or data, another folder."""
        # All that moves a byte of the adapter: a killed training goes on from its very own state or from none.
        parents = [
            content_hash(find(adapter, self.runs), ADAPTER) for adapter in (*self.merge, self.adapter) if adapter
        ]
        pairs = self.planned.card.hash if self.method != "merge" else ""
        parts = [self.code, self.method, self.base, pairs, self.data, parents, asdict(self.settings), self.objective]
        return self.work / sha256(canonical([*parts, self.seed]))[:24]


@dataclass(frozen=True)
class Outcome:
    """What came out of a recipe."""

    curve: Curve
    card: Card | None  # a merge has no data of its own
    epoch: int
    files: dict[str, bytes]
    provenance: Row
    tokens: int  # trained on, an epoch
    seconds: float


# --- the training ----------------------------------------------------------------------------------


def train(recipe: Recipe) -> Outcome:
    """Do it. Raises what `check` raises, ValueError on a loss that is no number, OSError on a full disk."""
    recipe.check()
    began = time.perf_counter()
    if recipe.method == "merge":
        return _merged(recipe, began)
    recipe.folder.mkdir(parents=True, exist_ok=True)
    # The same training twice at a time: the second one waits and finds it done.
    with locked(recipe.folder / ".lock"):
        return _trained(recipe, began)


def _trained(recipe: Recipe, began: float) -> Outcome:
    """Train as a recipe says, its lock held; checkpoints become adapters of their own."""
    pairs = recipe.planned
    model = lora.prepare(recipe.model, recipe.adapter, recipe.settings, recipe.seed, recipe.runs)
    if recipe.own_drafts:
        # Drafts of the very model that learns, before it learns: what it says is what it must move away from.
        temp = float(recipe.origin.draft_temp)  # type: ignore[union-attr]
        decoding = Decoding(temp=temp, seed=recipe.seed, grammar=data.FORM)
        pairs = data.drafted(pairs, model, recipe.guard, decoding).check(recipe.guard)
    fit = _fit(recipe, model, pairs)
    curve = fit.run()
    epoch = fit.best(curve) if recipe.settings.keep == "best" else curve[-1]["epoch"]
    # An early stop may come before a checkpoint.
    numbers = {epoch, *recipe.checkpoints} & {row["epoch"] for row in curve}
    adapters = {number: _adapter(recipe, fit, pairs.card, number) for number in numbers}
    files = {DATA_PACKED: pairs.packed}
    for number, adapter in adapters.items():
        folder = "adapter" if number == epoch else f"adapter/epoch-{number:02d}"
        files |= {f"{folder}/{name}": content for name, content in adapter.files().items()}
    tokens = sum(len(row.ids) for row in fit.objective.tokens(fit.first))
    about = adapters[epoch].provenance.as_dict()
    return Outcome(curve, pairs.card, epoch, files, about, tokens, time.perf_counter() - began)


def _fit(recipe: Recipe, model: MLXModel, pairs: Pairs) -> Fit:
    """The loop of this recipe's method, with its rows and the reader of them."""
    s = recipe.settings
    make, objective = lora.sft_rows, SFT
    if recipe.method == "orpo":
        make, objective = orpo.orpo_rows, orpo.objective(recipe.terms.beta)  # type: ignore[assignment]
    rows, valid = make(model, pairs.train, s), make(model, pairs.valid, s)
    forward = Forward.of(model.model, objective.tokens([*rows, *valid]), s.grad_checkpoint)
    fit = Fit(model, objective, s, lambda _: rows, valid, recipe.folder, recipe.seed, recipe.progress, forward=forward)
    if recipe.method in DRAWING:
        # Its rows are drafts, drawn afresh each epoch; those of imitation said which pair is too long, and how all
        # prompts begin.
        start = grpo.anchor(model, forward, s)
        fit.objective = grpo.objective(recipe.terms)
        fit.rows = lambda epoch: _round(recipe, fit, pairs.train, start, epoch)
    return fit


def _round(recipe: Recipe, fit: Fit, pairs: Sequence[Pair], reference: Any, epoch: int) -> list[grpo.Rewarded]:
    """Rows of a round: fresh drafts of every task, their reward, their advantage within the task."""
    assert fit.forward is not None, "_fit reads rows first"
    reward, shown = recipe.reward, {}
    if recipe.method == "gad":
        reward = _critic(recipe, fit.model, pairs, epoch)
        shown["auc"] = reward.auc
    assert reward is not None, "grpo is given a reward"
    rollouts = grpo.draw(fit.model, pairs, recipe.terms, reward, round_seed(recipe.seed, epoch, "policy"))
    shown["reward"] = sum(rollout.reward for rollout in rollouts) / len(rollouts)
    fit.extra[epoch] = {name: round(float(value), 6) for name, value in shown.items()}
    rows = grpo.grpo_rows(fit.model, rollouts, recipe.settings, fit.forward, reference)
    if not rows:
        raise BadData("no draft stands out in its group: every one has the same reward, so nothing can be learnt")
    return rows


def _critic(recipe: Recipe, model: MLXModel, pairs: Sequence[Pair], epoch: int) -> gad.Critic:
    """The critic of a round, fitted on two drafts of every task against its chosen set. Raises BadData."""
    # The reward of these drafts is not used: they are the negatives of the critic.
    rules = replace(recipe.terms, drafts=2)
    of, drafts = [], []
    for rollout in grpo.draw(model, pairs, rules, lambda *_: 0.0, round_seed(recipe.seed, epoch, "critic")):
        # What has not the form of a set is told from gold without a critic, and would teach it only that.
        if rollout.draft:
            of.append(rollout.pair)
            drafts.append(rollout.draft)
    if len(drafts) < FEWEST:
        raise BadData(f"only {len(drafts)} drafts have the form of a set; a critic needs {FEWEST} or more")
    return gad.critic(of, drafts)


def round_seed(seed: int, epoch: int, use: str) -> int:
    """The seed of a round's drafts. Drafts that fit the critic are never those that it then rewards: on its own
    negatives its verdict says nothing about new ones."""
    return int(sha256(f"{seed}/{epoch}/{use}")[:16], 16)


def _adapter(recipe: Recipe, fit: Fit, card: Card, epoch: int) -> Adapter:
    """The adapter of an epoch. One that goes on from another keeps that one's shape, with which modules it has."""
    s, count = recipe.settings, len(fit.model.model.layers)
    layers, shape, parents = min(count, s.layers), s.lora, []
    if s.layers == -1:
        layers = count
    if recipe.adapter:
        parents = [parent(recipe.adapter, recipe.model, recipe.runs)]
        shape = config(find(recipe.adapter, recipe.runs)).lora_parameters.model_dump()
    about = Provenance(
        recipe.method, recipe.base, card.as_dict(), recipe.code, recipe.seed, {**asdict(s), **recipe.objective},
        parents, epoch,
    )  # fmt: skip
    return Adapter(epoch_file(recipe.folder, epoch).read_bytes(), layers, shape, about)


def _merged(recipe: Recipe, began: float) -> Outcome:
    """Two or more adapters as one; nothing is trained, so the curve is empty."""
    parents = [parent(adapter, recipe.model, recipe.runs) for adapter in recipe.merge]
    # A merge has no data of its own: its hash is over those of its parents.
    pairs = {"hash": sha256(canonical([p["data"] for p in parents]))}
    about = Provenance("merge", recipe.base, pairs, recipe.code, recipe.seed, {"weights": recipe.weights}, parents)
    adapter = merge(recipe.merge, recipe.weights, recipe.model, about, recipe.runs)
    files = {f"adapter/{name}": content for name, content in adapter.files().items()}
    return Outcome([], None, 0, files, about.as_dict(), 0, time.perf_counter() - began)


def store(recipe: Recipe, outcome: Outcome) -> dict[str, str]:
    """Write the files into the work folder, from where the seal takes them; returns their hashes. Raises OSError."""
    hashes = {}
    for name, content in outcome.files.items():
        path = recipe.folder / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)
        hashes[name] = sha256(content)
    return hashes
