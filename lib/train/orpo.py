"""ORPO: learn the chosen set and, in the same step, move away from the rejected one. No reference model.

    loss = - c + beta * - log sigmoid( log odds(c) - log odds(r) ),   log odds(x) = x - log(1 - exp(x))

c and r are the mean log-probabilities of a token of the chosen and of the rejected reply; the first term is plain
imitation, the second raises the odds of the chosen one. Hong, Lee and Thorne 2024 (arXiv 2403.07691), with the
length-normalised likelihood of their reference code. Knows pairs of token rows. Does not know where the two sides
come from. Watch the chosen log-probability beside the margin: the margin can rise while both fall.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from lib.models.mlx import MLXModel
from lib.train.data import BadData, Pair
from lib.train.fit import Objective
from lib.train.forward import Array, Tokens
from lib.train.lora import Settings, encode

# Weight of the odds-ratio term, the paper's lambda; the published study's value.
BETA = 0.2
CEILING = -1e-6  # a mean log-probability of 0 has no odds


class Preference(NamedTuple):
    """Two replies to one task."""

    chosen: Tokens
    rejected: Tokens


def orpo_rows(model: MLXModel, pairs: Sequence[Pair], settings: Settings) -> list[Preference]:
    """Both sides of every pair as tokens. Raises BadData without a rejected side."""
    # Both under the same prompt: what differs between the sides is the set alone.
    rows = []
    for number, pair in enumerate(pairs, 1):
        if pair.rejected is None:
            raise BadData(f"pair {number} has no rejected side; ORPO needs data of kind styles or on-policy")
        chosen = encode(model, pair.task, pair.chosen, settings.longest)
        rows.append(Preference(chosen, encode(model, pair.task, pair.rejected, settings.longest)))
    return rows


def both_sides(rows: Sequence[Preference]) -> list[Tokens]:
    """Chosen rows over rejected rows, so that one forward pass reads both."""
    return [row.chosen for row in rows] + [row.rejected for row in rows]


def log_odds(mean: Any) -> Any:
    """log(p / (1 - p)) from a mean log-probability below 0; expm1 keeps what 1 - exp would lose near 0."""
    import mlx.core as mx

    return mean - mx.log(-mx.expm1(mean))


def objective(beta: float = BETA) -> Objective:
    """ORPO with a weight of its odds-ratio term."""

    def losses(logprobs: Array, mask: Array, rows: Sequence[Preference]) -> dict[str, Array]:
        """Loss, mean log-probability of a chosen token, and how far it stands above a rejected one, by pair: (B,)."""
        import mlx.core as mx
        import mlx.nn as nn

        # (2B, T) -> (2B,) -> (B,), (B,). Means, or a longer reply would be less likely for its length alone.
        means = mx.minimum(logprobs.sum(1) / mask.sum(1), CEILING)
        # Both terms read one mean over the reply alone: the prompt is learnt in neither.
        chosen, rejected = mx.split(means, [len(rows)])
        # log_sigmoid in one: far on the wrong side a sigmoid is 0 in float32, and the log of that -inf.
        loss = -chosen - beta * nn.log_sigmoid(log_odds(chosen) - log_odds(rejected))
        return {"loss": loss, "chosen": chosen, "margin": chosen - rejected}

    # Every pair counts as one, however long its sides are; rows of imitation count by their tokens.
    return Objective(both_sides, losses, length=lambda row: len(row.chosen.ids))
