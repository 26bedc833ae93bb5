"""GRPO: draw several drafts of a task, reward them, raise those that beat their group and stay near the start.

    A_i  = (r_i - mean of the group) / (std of the group + 1e-4)
    loss = - mean_t min( q_t A, clip(q_t, 1 - eps, 1 + eps) A ) + kl * mean_t ( exp(d_t) - d_t - 1 )

q_t is the probability of a token now over that when it was drawn, d_t the log-probability at the start minus now: the
unbiased k3 estimate of KL. Shao et al. 2024 (arXiv 2402.03300). The published study ran one offline batch, once
without an anchor (seven refusals) and once with one; here drafts are drawn afresh in each epoch.
Knows drafts, rewards as a function, and groups. Does not know judges: the reward comes from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from lib.agent import prompt
from lib.agent.pipeline import row_seed
from lib.agent.prompt import Draft
from lib.forms import Number, form
from lib.models.mlx import MLXModel
from lib.models.model import Decoding
from lib.train.data import FORM, Pair, read
from lib.train.forward import Forward
from lib.train.lora import SFT, Objective, Row, Settings

Reward = Callable[[Sequence[Pair], Sequence[Draft]], list[float]]  # a task each, a draft each -> 0 to 1 each


@form(what="objective")
class Rules:
    """How drafts are drawn and how far the policy may go. Values of the study where it says them."""

    drafts: Annotated[int, Field(ge=2)] = 6  # of each task: a group needs a rival
    temp: Annotated[Number, Field(gt=0)] = 0.9
    top_p: Annotated[Number, Field(gt=0, le=1)] = 0.95
    kl: Annotated[Number, Field(ge=0)] = 0.1
    clip: Annotated[Number, Field(gt=0, lt=1)] = 0.2


@dataclass(frozen=True)
class Drawn:
    """The drafts of a round as the model wrote them, with their rewards. A reply without the form earns 0."""

    pairs: list[Pair]  # the task of each reply
    replies: list[str]
    drafts: list[Draft | None]
    rewards: list[float]
    tokens: list[list[int]]  # as they were drawn: one that was cut off has no end

    @property
    def advantages(self) -> list[float]:
        """Of each reply within the group of its task."""
        groups: dict[str, list[float]] = {}
        for pair, reward in zip(self.pairs, self.rewards, strict=True):
            groups.setdefault(pair.task, []).append(reward)
        return [advantage(r, groups[p.task]) for p, r in zip(self.pairs, self.rewards, strict=True)]


def advantage(reward: float, group: Sequence[float]) -> float:
    """How far a reward stands above its group, in the group's own spread; a group of equals has none.

    >>> [round(advantage(r, [0.2, 0.4]), 2) for r in (0.2, 0.4)]
    [-1.0, 1.0]
    """
    mean = sum(group) / len(group)
    spread = (sum((g - mean) ** 2 for g in group) / len(group)) ** 0.5
    return (reward - mean) / (spread + 1e-4)


def draw(model: MLXModel, pairs: Sequence[Pair], rules: Rules, reward: Reward, seed: int) -> Drawn:
    """Several sampled drafts of each task, rewarded. Same seed, same weights, same drafts."""
    model.model.eval()
    model.clear_cache()  # the weights may have moved in place since a prefix was read
    tasks = [p for p in pairs for _ in range(rules.drafts)]
    plain = Decoding(temp=rules.temp, top_p=rules.top_p, grammar=FORM)
    drawn = [plain.with_seed(row_seed(seed, p.task, i % rules.drafts)) for i, p in enumerate(tasks)]
    done = model.generate([prompt.ask(p.task) for p in tasks], drawn)
    replies = [c.text for c in done]
    drafts = [read(text) for text in replies]
    sound = [(p, d) for p, d in zip(tasks, drafts, strict=True) if d]
    told = iter(reward([p for p, _ in sound], [d for _, d in sound]))
    rewards = [next(told) if d else 0.0 for d in drafts]
    return Drawn(tasks, replies, drafts, rewards, [list(c.tokens) for c in done])


def grpo_rows(
    model: MLXModel, drawn: Drawn, settings: Settings, forward: Forward, reference: Callable[[Sequence[Row]], list]
) -> list[Row]:
    """(ids, start, advantage, log-probabilities when drawn, and at the start) of every reply that has an advantage.

    The tokens are those that were drawn. A draft that was cut off learns no end, which it never chose; over
    `settings.longest` a draft is left out.
    """
    plain: list[Row] = []
    for pair, tokens, gain in zip(drawn.pairs, drawn.tokens, drawn.advantages, strict=True):
        start = model.encode(prompt.ask(pair.task))
        ids = [*start, *tokens]
        if abs(gain) > 1e-6 and len(ids) <= settings.longest:
            plain.append((ids, len(start), gain))
    now, first = token_logprobs(forward, plain, settings.batch), reference(plain)
    return [(*row, old, ref) for row, old, ref in zip(plain, now, first, strict=True)]


def token_logprobs(forward: Forward, rows: Sequence[Row], size: int) -> list[list[float]]:
    """The log-probability of every learnt token, by row, in batches of `size`."""
    forward.model.eval()
    found: list[list[float]] = []
    for at in range(0, len(rows), size):
        part = [(row[0], row[1]) for row in rows[at : at + size]]
        told, _ = forward(part)
        found += [values[: len(ids) - start] for values, (ids, start) in zip(told.tolist(), part, strict=True)]
    return found


def objective(rules: Rules) -> Objective:
    """GRPO under these rules. Validation reads plain rows, as imitation does: drafts have no fixed rows."""

    def each(told: Any, mask: Any, rows: Sequence[Row]) -> dict[str, Any]:
        """Loss and KL of every row, each a mean over the tokens of its reply."""
        import mlx.core as mx
        import numpy as np

        sides = np.zeros((2, *told.shape), np.float32)
        for i, row in enumerate(rows):
            for side in (0, 1):
                sides[side, i, : len(row[3 + side])] = row[3 + side]
        old, first, gains = mx.array(sides[0]), mx.array(sides[1]), mx.array([[row[2]] for row in rows])
        ratio = mx.exp(told - old)
        gain = mx.minimum(ratio * gains, mx.clip(ratio, 1 - rules.clip, 1 + rules.clip) * gains)
        away = first - told  # 0 where nothing is learnt, like told itself
        kl = mx.exp(away) - away - 1
        count = mask.sum(1)
        return {"loss": (rules.kl * kl.sum(1) - (gain * mask).sum(1)) / count, "kl": kl.sum(1) / count}

    # Drafts that ran on are long and earn nothing: together in a batch they would push one way only.
    return Objective(lambda rows: [(r[0], r[1]) for r in rows], each, alike=False, valid=SFT)


def anchor(model: MLXModel, forward: Forward, settings: Settings) -> Callable[[Sequence[Row]], list]:
    """Log-probabilities of rows under the adapter as it is now, whatever it becomes later."""
    from mlx.utils import tree_map

    start = tree_map(lambda v: v + 0, model.model.trainable_parameters())

    def read_rows(rows: Sequence[Row]) -> list:
        now = model.model.trainable_parameters()
        model.model.update(start)
        try:
            return token_logprobs(forward, rows, settings.batch)
        finally:
            model.model.update(now)

    return read_rows
