"""ORPO: learn the chosen set and, in the same step, move away from the rejected one. No reference model.

    loss = - c + beta * - log sigmoid( log odds(c) - log odds(r) ),   log odds(x) = x - log(1 - exp(x))

c and r are the mean log-probabilities of a token of the chosen and of the rejected reply; the first term is plain
imitation, the second raises the odds of the chosen one. Hong, Lee and Thorne 2024 (arXiv 2403.07691), with the
length-normalised likelihood of their reference code. Knows pairs of token rows. Does not know where the two sides
come from. Watch the chosen log-probability beside the margin: the margin can rise while both fall.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lib.models.mlx import MLXModel
from lib.train.data import BadData, Pair
from lib.train.lora import Arrays, Objective, Row, Settings, encode, logprobs, stack

BETA = 0.2  # weight of the odds-ratio term, as in the published study
CEILING = -1e-6  # a mean log-probability of 0 has no odds


def orpo_rows(model: MLXModel, pairs: Sequence[Pair], settings: Settings) -> list[Row]:
    """(chosen ids, rejected ids, start of the chosen reply, of the rejected one). Raises BadData without a rejected side."""
    rows = []
    for number, pair in enumerate(pairs, 1):
        if pair.rejected is None:
            raise BadData(f"pair {number} has no rejected side; ORPO needs data of kind styles or on-policy")
        chosen, start = encode(model, pair.task, pair.chosen, settings.longest)
        rejected, other = encode(model, pair.task, pair.rejected, settings.longest)
        rows.append((chosen, rejected, start, other))
    return rows


def collate(rows: Sequence[Row]) -> Arrays:
    """Chosen rows over rejected rows, so that one forward pass reads both."""
    return stack([(chosen, start) for chosen, _, start, _ in rows] + [(bad, start) for _, bad, _, start in rows])


def means(model: Any, ids: Any, spans: Any) -> tuple[Any, Any]:
    """Mean log-probability of a reply's token, chosen and rejected, by pair."""
    import mlx.core as mx

    told, mask = logprobs(model, ids, spans)
    mean = mx.minimum((told * mask).sum(1) / mask.sum(1), CEILING)
    half = ids.shape[0] // 2
    return mean[:half], mean[half:]


def log_odds(mean: Any) -> Any:
    """log(p / (1 - p)) from a mean log-probability below 0."""
    import mlx.core as mx

    return mean - mx.log(-mx.expm1(mean))


def per_pair(model: Any, ids: Any, spans: Any, beta: float) -> tuple[Any, Any, Any]:
    """Loss, chosen and rejected mean log-probability, by pair."""
    import mlx.nn as nn

    chosen, rejected = means(model, ids, spans)
    return -chosen - beta * nn.log_sigmoid(log_odds(chosen) - log_odds(rejected)), chosen, rejected


def objective(beta: float = BETA) -> Objective:
    """ORPO with a weight of its odds-ratio term."""

    def loss(model: Any, ids: Any, spans: Any) -> tuple[Any, Any]:
        each, _, _ = per_pair(model, ids, spans, beta)
        return each.mean(), (spans[:, 1] - spans[:, 0]).sum()

    def read(model: Any, ids: Any, spans: Any) -> dict[str, Any]:
        each, chosen, rejected = per_pair(model, ids, spans, beta)
        return {"loss": each, "chosen": chosen, "margin": chosen - rejected}

    return Objective("orpo", collate, loss, read)
