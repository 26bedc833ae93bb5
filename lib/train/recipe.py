"""One training from its recipe: pairs, base, method, settings in; curve, data and adapter files out, in a work folder.

Knows the methods and in which order things happen: the leak guard first, then drafts, then training, then files. Does
not know hypotheses, runs or seals; judge and ruler come in as functions. A killed training goes on from what it
saved last when it is called again with the same recipe, code, base and parents.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from lib.agent.guard import LeakGuard
from lib.agent.prompt import Draft
from lib.files import canonical, locked, sha256, sha256_file, write_atomic
from lib.forms import Filled, Number, fill, form
from lib.models.mlx import MLXModel, identity
from lib.models.model import Decoding
from lib.models.provenance import WEIGHTS
from lib.models.provenance import find as find_adapter
from lib.train import adapter as adapters
from lib.train import data, gad, grpo, lora, orpo
from lib.train.data import BadData, Card, Pairs
from lib.train.forward import Forward
from lib.train.lora import Fit, Objective, Row, Settings, epoch_file

METHODS = ("sft", "orpo", "grpo", "gad", "merge")
DRAWING = ("grpo", "gad")  # methods in which the model answers while it is trained
DATA_PACKED = "data.jsonl.xz"


@form(BadData, "data")
class ByTeacher:
    """Pairs whose chosen sets are the teacher's."""

    source: Literal["teacher"] = "teacher"
    kind: Literal[data.KINDS] = "clean"  # type: ignore[valid-type]
    pairs: Annotated[int, Field(ge=2)] = 288
    seed: int = 0
    draft_temp: Annotated[Number, Field(ge=0, le=5)] = 0.0  # of the model's own drafts


@form(BadData, "data")
class ByClaude(ByTeacher):
    """Pairs whose chosen sets are bought."""

    source: Literal["claude"] = "claude"  # type: ignore[assignment]
    model: str = "claude-sonnet-5-5"
    dollars: Annotated[Number, Field(gt=0)] = 2.0
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


Origin = ByTeacher | ByClaude | FromFile
SOURCES: dict[str, type[Origin]] = {"teacher": ByTeacher, "claude": ByClaude, "file": FromFile}


def origin_of(values: Mapping[str, Any]) -> Origin:
    """Where pairs come from. Raises BadData, also on a parameter that acts with another source alone: it would be
    sealed and say nothing."""
    source = values.get("source", "teacher")
    if source not in [*SOURCES]:
        raise BadData(f"data source is {source!r:.40}: expected one of {', '.join(SOURCES)}")
    having = {name: [s for s, cls in SOURCES.items() if name in cls.__dataclass_fields__] for name in values}
    for name, sources in having.items():
        if sources and source not in sources:
            raise BadData(f"data has {name} and source {source!r}: {name} acts with source {' or '.join(sources)} alone; "
                          "take one of the two out")  # fmt: skip
    return fill(SOURCES[source], values)


@form(what="objective")
class Plain:
    """Imitation has no terms."""


@form(what="objective")
class Preference:
    """Of ORPO."""

    beta: Annotated[Number, Field(ge=0)] = orpo.BETA


@form(what="objective")
class Shares:
    """Of a merge: one weight an adapter, equal ones where none is given."""

    weights: list[Number] | None = None


TERMS: dict[str, Any] = {"sft": Plain, "orpo": Preference, "grpo": grpo.Rules, "gad": grpo.Rules, "merge": Shares}


@dataclass(frozen=True)
class Recipe:
    """What is trained. `progress` gets what a progress bar shows, at each step."""

    method: str
    model: str
    work: Path
    guard: LeakGuard
    code: str  # hash of the sources
    data: dict[str, Any] = field(default_factory=dict)
    adapter: str = ""
    merge: tuple[str, ...] = ()
    settings: Settings = field(default_factory=Settings)
    objective: dict[str, Any] = field(default_factory=dict)
    checkpoints: tuple[int, ...] = ()
    seed: int = 0
    reward: grpo.Reward | None = None  # of grpo
    store: Path | None = None  # of what Claude was paid for
    runs: Path | None = None  # folder of sealed runs, whose adapters may be named; None: the usual one
    progress: Callable[[dict[str, Any]], None] = lambda _: None

    def check(self) -> Recipe:
        """Refuse what cannot be trained before anything is loaded. Raises ValueError, BadData, NoModel or Leak."""
        self.check_parameters()
        if self.method != "merge":
            self.planned  # noqa: B018  builds, or says what is wrong
        return self

    def check_parameters(self) -> Recipe:
        """Refuse what can be seen to be wrong without the data: nothing is built, read or bought. Raises ValueError, BadData."""
        if self.method == "merge":
            if len(self.merge) < 2 or len(self.weights) != len(self.merge):
                raise ValueError(f"merge is {list(self.merge)}: expected two or more adapters, one weight each")
            return self
        if self.merge:
            raise ValueError(f"merge is for method merge, method is {self.method}")
        self.terms  # noqa: B018  says what is wrong with them
        if self.adapter:
            lora.going_on(self.adapter, lora.plain(self.settings), self.runs)
        if any(not 1 <= e <= self.settings.epochs for e in self.checkpoints):
            raise ValueError(f"checkpoints {list(self.checkpoints)}: expected epochs from 1 to {self.settings.epochs}")
        self._check_kind()
        return self

    def _check_kind(self) -> None:
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
        return origin_of(self.data)

    @property
    def own_drafts(self) -> bool:
        """Whether the rejected sides are the model's own drafts, so that they are made when it is loaded."""
        return self.method == "orpo" and getattr(self.origin, "kind", "") == "on-policy"

    @cached_property
    def planned(self) -> Pairs:
        """The pairs as far as they can be made without the model, guarded. Raises BadData, Leak, CloudError."""
        origin = self.origin
        if isinstance(origin, FromFile):
            return data.from_file(origin.path, self.method == "orpo").check(self.guard)
        writer, source = data.teacher, data.TEACHER
        if isinstance(origin, ByClaude):
            from lib.train.teacher import teacher

            writer, source = teacher(asdict(origin), self.store, origin.seed), origin.model
        return data.build(origin.kind, origin.pairs, origin.seed, self.guard, writer, source).check(self.guard)

    @cached_property
    def terms(self) -> Any:
        """What the method's loss is made with, or the weights of a merge. Raises ValueError."""
        try:
            return fill(TERMS[self.method], self.objective)
        except ValueError as error:
            raise ValueError(f"method {self.method}: {error}") from None

    @property
    def weights(self) -> list[float]:
        """Of the adapters that are merged."""
        weights = self.terms.weights
        return [1 / len(self.merge)] * len(self.merge) if weights is None else [float(w) for w in weights]

    @cached_property
    def base(self) -> dict[str, Any]:
        # Of a folder only the name: a sealed adapter holds no path of this machine.
        name = Path(self.model).name if Path(self.model).is_absolute() else self.model
        return {"name": name, "weights": identity(self.model)}

    @cached_property
    def folder(self) -> Path:
        """The work folder of exactly this training: other code, base, parents or data, another folder."""
        parents = [sha256_file(find_adapter(a) / WEIGHTS) for a in (*self.merge, *([self.adapter] or [])) if a]
        parts = [self.method, self.base, self.data, parents, lora.plain(self.settings), self.objective, self.seed]
        known = self.planned.card.hash if self.method != "merge" else ""
        return self.work / sha256(canonical([self.code, known, *parts]))[:24]


@dataclass(frozen=True)
class Outcome:
    """What came out of a recipe."""

    curve: list[dict[str, Any]]
    card: Card | None  # a merge has no data of its own
    epoch: int
    files: dict[str, bytes]
    provenance: dict[str, Any]
    tokens: int  # trained on, an epoch
    seconds: float


def train(recipe: Recipe) -> Outcome:
    """Do it. Raises what `check` raises, ValueError on a loss that is no number, OSError on a full disk."""
    recipe.check()
    began = time.perf_counter()
    if recipe.method == "merge":
        return _merged(recipe, began)
    recipe.folder.mkdir(parents=True, exist_ok=True)
    with locked(recipe.folder / ".lock"):  # the same training twice at a time: the second one finds it done
        return _trained(recipe, began)


def _trained(recipe: Recipe, began: float) -> Outcome:
    pairs = recipe.planned
    model = lora.prepare(recipe.model, recipe.adapter, recipe.settings, recipe.seed)
    if recipe.own_drafts:
        temp = float(recipe.origin.draft_temp)  # type: ignore[union-attr]
        pairs = data.drafted(pairs, model, Decoding(temp=temp, seed=recipe.seed, grammar=data.FORM)).check(recipe.guard)
    objective, rows, valid, extra, forward = _plan(recipe, model, pairs)
    fit = Fit(
        model, objective, recipe.settings, rows, valid, recipe.folder, recipe.seed, recipe.progress, extra, forward
    )
    curve = fit.run()
    epoch = fit.best(curve) if recipe.settings.keep == "best" else curve[-1]["epoch"]
    adapter_files, provenance = _adapters(recipe, pairs.card, model, epoch, curve)
    tokens = sum(len(ids) for row in fit.first for ids in row if isinstance(ids, list) and ids and type(ids[0]) is int)
    files = {DATA_PACKED: pairs.packed, **adapter_files}
    return Outcome(curve, pairs.card, epoch, files, provenance, tokens, time.perf_counter() - began)


Extra = dict[int, dict[str, float]]  # epoch -> what the curve shows beside validation


def _plan(
    recipe: Recipe, model: MLXModel, pairs: Pairs
) -> tuple[Objective, Callable[[int], list[Row]], list[Row], Extra, Forward]:
    """Objective, rows of an epoch, rows of validation, a table that fills while it trains, and the reader of rows."""
    s = recipe.settings
    make, objective = lora.sft_rows, lora.SFT
    if recipe.method == "orpo":
        make, objective = orpo.orpo_rows, orpo.objective(recipe.terms.beta)
    rows, valid, extra = make(model, pairs.train, s), make(model, pairs.valid, s), {}
    forward = Forward.of(model.model, objective.learnt([*rows, *valid]))
    if recipe.method not in DRAWING:
        return objective, lambda _: rows, valid, extra, forward
    # The rows of imitation said which pair is too long, and how all prompts begin.
    return grpo.objective(recipe.terms), _rounds(recipe, model, pairs, extra, forward), valid, extra, forward


def _rounds(
    recipe: Recipe, model: MLXModel, pairs: Pairs, extra: Extra, forward: Forward
) -> Callable[[int], list[Row]]:
    """Rows of a round: fresh drafts of every task, their reward, their advantage within the task."""
    start = grpo.anchor(model, forward, recipe.settings)

    def rows(epoch: int) -> list[Row]:
        reward, shown = recipe.reward, {}
        if recipe.method == "gad":
            two, flat = replace(recipe.terms, drafts=2), similar(lambda *_: 0.0)
            own = grpo.draw(model, pairs.train, two, flat, round_seed(recipe.seed, epoch, "critic"))
            sound = [(p, d) for p, d in zip(own.pairs, own.drafts, strict=True) if d]
            if len(sound) < 8:
                raise BadData(f"only {len(sound)} drafts have the form of a set; a critic needs 8 or more")
            critic = gad.critic([p for p, _ in sound], [d for _, d in sound])
            reward, shown = critic, {"auc": critic.auc}
        assert reward is not None, "grpo is given a reward"
        drawn = grpo.draw(model, pairs.train, recipe.terms, reward, round_seed(recipe.seed, epoch, "policy"))
        shown |= {"reward": sum(drawn.rewards) / len(drawn.rewards)}
        extra[epoch] = {k: round(float(v), 6) for k, v in shown.items()}
        learnt = grpo.grpo_rows(model, drawn, recipe.settings, forward, start)
        if not learnt:
            raise BadData("no draft stands out in its group: every one has the same reward, so nothing can be learnt")
        return learnt

    return rows


def round_seed(seed: int, epoch: int, use: str) -> int:
    """The seed of a round's drafts. Drafts that fit the critic are never those that it then rewards: on its own
    negatives its verdict says nothing about new ones."""
    return int(sha256(f"{seed}/{epoch}/{use}")[:16], 16)


def _adapters(recipe: Recipe, card: Card, model: MLXModel, epoch: int, curve: list[dict[str, Any]]) -> Any:
    """Files of the chosen epoch's adapter and of the epochs that are kept beside it, and the chosen one's provenance."""
    lora_config, layers = _shape(recipe, model)
    files: dict[str, bytes] = {}
    provenance: dict[str, Any] = {}
    there = {row["epoch"] for row in curve}
    parents = [adapters.about(recipe.adapter, recipe.model)] if recipe.adapter else []
    for number in sorted({epoch, *recipe.checkpoints} & there):
        about = adapters.provenance(
            recipe.method, recipe.base, card.as_dict(), recipe.code, recipe.seed,
            {**lora.plain(recipe.settings), **recipe.objective}, parents, epoch=number,
        )  # fmt: skip
        written = adapters.files(
            epoch_file(recipe.folder, number).read_bytes(), about, adapters.config(layers, lora_config)
        )
        if number == epoch:
            files |= {f"adapter/{k}": v for k, v in written.items()}
            provenance = about
        if number in recipe.checkpoints and number != epoch:
            files |= {f"adapter/epoch-{number:02d}/{k}": v for k, v in written.items()}
    return files, provenance


def _shape(recipe: Recipe, model: MLXModel) -> tuple[dict[str, Any], int]:
    """(rank, scale, dropout) and layers: of the settings; of an adapter that was continued with which modules it has."""
    count = len(model.model.layers)
    layers = count if recipe.settings.layers == -1 else min(count, recipe.settings.layers)
    if recipe.adapter:
        import json

        from lib.models.provenance import CONFIG

        config = json.loads((find_adapter(recipe.adapter) / CONFIG).read_text(encoding="utf-8"))
        return config["lora_parameters"], layers
    return recipe.settings.lora, layers


def _merged(recipe: Recipe, began: float) -> Outcome:
    weights, config = adapters.merge(recipe.merge, recipe.weights, recipe.model)
    parents = [adapters.about(a, recipe.model) for a in recipe.merge]
    hashes = {"hash": sha256(canonical([p["data"] for p in parents]))}
    about = adapters.provenance(
        "merge", recipe.base, hashes, recipe.code, recipe.seed, {"weights": recipe.weights}, parents
    )
    written = adapters.files(weights, about, config)
    files = {f"adapter/{k}": v for k, v in written.items()}
    return Outcome([], None, 0, files, about, 0, time.perf_counter() - began)


def store(recipe: Recipe, outcome: Outcome) -> dict[str, str]:
    """Write the files into the work folder, from where the seal takes them; returns their hashes. Raises OSError."""
    for name, content in outcome.files.items():
        path = recipe.folder / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)
    return {name: sha256(content) for name, content in outcome.files.items()}


def similar(reward: Callable[[str, Draft, Draft], float]) -> grpo.Reward:
    """The reward of many drafts from a function of one: (task, its chosen set, a draft) -> 0 to 1."""

    def each(pairs: Any, drafts: Any) -> list[float]:
        return [reward(p.task, p.chosen, d) for p, d in zip(pairs, drafts, strict=True)]

    return each
