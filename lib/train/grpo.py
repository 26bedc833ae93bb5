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
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from lib.agent import prompt
from lib.agent.pipeline import row_seed
from lib.agent.prompt import Draft
from lib.forms import Number, form
from lib.models.mlx import MLXModel
from lib.models.model import Decoding
from lib.train.data import FORM, Pair, read
from lib.train.fit import SFT, Objective
from lib.train.forward import Array, Forward, Tokens
from lib.train.lora import Settings

Reward = Callable[[Pair, Draft], float]  # a task with its chosen set, and a draft of it -> 0 to 1


@form(what="objective")
class Rules:
    """How drafts are drawn and how far the policy may go. Values of the study where it says them."""

    drafts: Annotated[int, Field(ge=2)] = 6  # of each task: a group needs a rival
    temp: Annotated[Number, Field(gt=0)] = 0.9
    top_p: Annotated[Number, Field(gt=0, le=1)] = 0.95
    # The study's first run had no anchor; its second took a squared distance of weight 1, and stood still.
    kl: Annotated[Number, Field(ge=0)] = 0.1
    # As in PPO, from where the clipped ratio comes (arXiv 1707.06347); the study had none.
    clip: Annotated[Number, Field(gt=0, lt=1)] = 0.2


class Rewarded(NamedTuple):
    """A reply to learn from, with the log-probabilities of its N tokens when it was drawn and at the start."""

    ids: list[int]
    start: int
    advantage: float
    logprobs: list[float]  # (N,), of the policy that drew it
    ref_logprobs: list[float]  # (N,), of the policy at the start


class Rollout(NamedTuple):
    """One reply of a round, with its reward: one without the form of a set earns 0."""

    pair: Pair  # its task
    draft: Draft | None
    reward: float
    tokens: Sequence[int]  # as they were drawn: one that was cut off has no end


def advantages(rollouts: Sequence[Rollout]) -> list[float]:
    """Of each reply within the group of its task."""
    # Within a task: drafts of an easy one would else all count as good, those of a hard one as bad.
    groups: dict[str, list[float]] = {}
    for rollout in rollouts:
        groups.setdefault(rollout.pair.task, []).append(rollout.reward)
    return [advantage(rollout.reward, groups[rollout.pair.task]) for rollout in rollouts]


def advantage(reward: float, group: Sequence[float]) -> float:
    """How far a reward stands above its group, in the group's own spread; a group of equals has none.

    >>> [round(advantage(r, [0.2, 0.4]), 2) for r in (0.2, 0.4)]
    [-1.0, 1.0]
    """
    mean = sum(group) / len(group)
    spread = (sum((g - mean) ** 2 for g in group) / len(group)) ** 0.5
    # The small constant keeps a group that hardly differs from counting for much: noise over no spread is a large step.
    return (reward - mean) / (spread + 1e-4)


def draw(model: MLXModel, pairs: Sequence[Pair], rules: Rules, reward: Reward, seed: int) -> list[Rollout]:
    """Several sampled drafts of each task, rewarded. Same seed, same weights, same drafts."""
    model.model.eval()  # without dropout: what is drawn is what the policy says
    model.clear_cache()  # the weights may have moved in place since a prefix was read
    decoding = Decoding(temp=rules.temp, top_p=rules.top_p, grammar=FORM)
    tasks, decodings = [], []
    for pair in pairs:
        for number in range(rules.drafts):
            tasks.append(pair)
            # By task and number alone: other tasks of the round, and their order, change no draft.
            decodings.append(decoding.with_seed(row_seed(seed, pair.task, number)))
    rollouts = []
    for pair, reply in zip(tasks, model.generate([prompt.ask(p.task) for p in tasks], decodings), strict=True):
        draft = read(reply.text)
        rollouts.append(Rollout(pair, draft, reward(pair, draft) if draft else 0.0, reply.tokens))
    return rollouts


def grpo_rows(
    model: MLXModel,
    rollouts: Sequence[Rollout],
    settings: Settings,
    forward: Forward,
    reference: Callable[[list[Tokens]], list],
) -> list[Rewarded]:
    """Every reply that has an advantage, ready to learn from.

    The tokens are those that were drawn, not those of its text: only for them is the ratio of the formula 1 at first.
    A draft that was cut off learns no end, which it never chose; over `settings.longest` a draft is left out.
    """
    rows, values = [], []
    for rollout, value in zip(rollouts, advantages(rollouts), strict=True):
        asked = model.encode(prompt.ask(rollout.pair.task))
        # Without an advantage a row has no gradient but the anchor's, and would only thin out the batch.
        if abs(value) > 1e-6 and len(asked) + len(rollout.tokens) <= settings.longest:
            rows.append(Tokens([*asked, *rollout.tokens], len(asked)))
            values.append(value)
    # Before the first step of the round, while the weights are still those that drew the tokens.
    old, ref = token_logprobs(forward, rows, settings.batch), reference(rows)
    return [Rewarded(*row, *rest) for row, *rest in zip(rows, values, old, ref, strict=True)]


def token_logprobs(forward: Forward, rows: Sequence[Any], size: int) -> list[list[float]]:
    """The log-probability of every learnt token, by row, in batches of `size`."""
    forward.model.eval()  # without dropout, as the tokens were drawn
    values: list[list[float]] = []
    for at in range(0, len(rows), size):
        part = [Tokens(*row[:2]) for row in rows[at : at + size]]
        # Of the plain policy, without temperature, top-p and grammar: then and now alike, so the ratio begins at 1.
        logprobs, _ = forward(part)  # (B, T)
        values += [line[: len(row.ids) - row.start] for line, row in zip(logprobs.tolist(), part, strict=True)]
    return values


def objective(rules: Rules) -> Objective:
    """GRPO under these rules. Validation reads plain rows, as imitation does: drafts have no fixed rows."""

    def losses(logprobs: Array, mask: Array, rows: Sequence[Rewarded]) -> dict[str, Array]:
        """Loss and KL of every row, each a mean over the tokens of its reply: (B,)."""
        import mlx.core as mx

        # Of the start of the round: many steps learn from one set of drafts, and after the first the policy is another.
        old_logprobs = padded([row.logprobs for row in rows], logprobs.shape)
        ref_logprobs = padded([row.ref_logprobs for row in rows], logprobs.shape)
        by_row = mx.array([[row.advantage] for row in rows])  # (B, 1)
        ratio = mx.exp(logprobs - old_logprobs)  # (B, T)
        clipped = mx.clip(ratio, 1 - rules.clip, 1 + rules.clip)
        # The smaller of the two: a step that has gone far enough earns no more, one that went wrong still costs.
        gain = mx.minimum(ratio * by_row, clipped * by_row)
        away = ref_logprobs - logprobs  # 0 where nothing is learnt, like the log-probabilities themselves
        kl = mx.exp(away) - away - 1  # k3: never negative, unlike -away, and of less variance
        # Over the row's own tokens, as the paper has it: a long draft moves the policy no more than a short one.
        count = mask.sum(1)
        return {"loss": (rules.kl * kl.sum(1) - (gain * mask).sum(1)) / count, "kl": kl.sum(1) / count}

    # No order by length: drafts that ran on are long and earn nothing, and together they would push one way only.
    return Objective(lambda rows: [Tokens(row.ids, row.start) for row in rows], losses, valid=SFT)


def padded(rows: Sequence[Sequence[float]], shape: tuple[int, int]) -> Any:
    """Rows of unequal length as (B, T), zeros at the end."""
    import mlx.core as mx
    import numpy as np

    values = np.zeros(shape, np.float32)
    for i, row in enumerate(rows):
        values[i, : len(row)] = row
    return mx.array(values)


def anchor(model: MLXModel, forward: Forward, settings: Settings) -> Callable[[list[Tokens]], list]:
    """Log-probabilities of rows under the adapter as it is now, whatever it becomes later: the reference policy."""
    from mlx.utils import tree_map

    # Where this training begins and not the bare base: who goes on from an adapter stays near that one.
    start = tree_map(lambda v: v + 0, model.model.trainable_parameters())  # a copy: training moves them in place

    def reference(rows: list[Tokens]) -> list:
        """As `token_logprobs` gives them, with the weights of the start put on meanwhile and taken off again."""
        now = model.model.trainable_parameters()
        model.model.update(start)
        try:
            return token_logprobs(forward, rows, settings.batch)
        finally:
            model.model.update(now)

    return reference
