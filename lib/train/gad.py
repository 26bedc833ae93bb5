"""Adversarial distillation: a small critic learns to tell sets like gold from the model's drafts; fooling it is the reward.

Round 0 trains the critic against the starting policy. Later rounds train it again on fresh drafts, as the method
asks for (the published study stopped after round 0). The update is GRPO's, with its anchor.
Knows texts and hashed features: word pairs, endings, a few signs of style. Does not know gold of the ruler, nor any
embedding model. Its judgment is checked on families of tasks that it was not trained on (AUC), and shown.
Source of the idea: generative adversarial distillation, Ye et al. 2025 (arXiv 2511.10643), much smaller here.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, starmap
from typing import Any

from lib.agent.guard import content, overlap
from lib.agent.prompt import Draft
from lib.measure.answer import normalised
from lib.train.data import Pair

# The study's critic read sentence vectors: AUC 0.63. Signs of style alone, which it had tried before, reached 0.76.
SIZE, STYLE = 4096, 16  # features, and how many first ones are kept for signs of style
# The ridge holds down what a hundred sets and four thousand features would learn by heart.
STEPS, RATE, RIDGE = 300, 0.5, 3e-3


def features(task: str, draft: Draft) -> Any:
    """Hashed features of a set (SIZE,): counts of word pairs as a vector of length 1, signs of style in the first
    places."""
    import numpy as np

    vector = np.zeros(SIZE)
    for question in draft.questions:
        words = ["^", *normalised(question).split(), "$"]
        for pair in zip(words, words[1:], strict=False):
            # crc32, not hash(): Python's own differs from process to process.
            vector[STYLE + zlib.crc32(" ".join(pair).encode()) % (SIZE - STYLE)] += 1
    # Of length 1, or more questions and longer ones would look surer of themselves.
    vector /= np.linalg.norm(vector) or 1.0
    signs = style(task, draft)
    vector[: len(signs)] = signs
    return vector


def style(task: str, draft: Draft) -> list[float]:
    """Signs of style: length, how often the topic is named, how much the questions repeat each other, joined ones."""
    sets = list(map(content, draft.questions))
    n = len(sets) or 1
    topic = content(task)
    return [
        1.0,  # the bias: it stands among the features, so that one product is the whole model
        # Near 1 for questions of ten words, as large as the other signs.
        len(" ".join(draft.questions).split()) / (10 * n),
        sum(not topic.isdisjoint(words) for words in sets) / n,
        max(starmap(overlap, combinations(sets, 2)), default=0.0),
        sum(" and " in q for q in draft.questions) / n,
    ]


@dataclass(frozen=True)
class Critic:
    """A logistic model over features. `auc` is measured on families that it was not fitted on."""

    weights: Any
    auc: float

    def __call__(self, pair: Pair, draft: Draft) -> float:
        """The probability that a draft is like gold: the reward."""
        return float(sigmoid(features(pair.task, draft) @ self.weights))


def sigmoid(logits: Any) -> Any:
    """Probabilities from the critic's logits."""
    import numpy as np

    return 1 / (1 + np.exp(-logits))


def matrix(pairs: Sequence[Pair], drafts: Sequence[Draft]) -> Any:
    """Features of N drafts: (N, SIZE)."""
    import numpy as np

    return np.array(list(map(features, [p.task for p in pairs], drafts))).reshape(-1, SIZE)


def critic(pairs: Sequence[Pair], drafts: Sequence[Draft]) -> Critic:
    """Fit on a task's chosen set against a draft of it; every fourth family is left out to measure the AUC.

    Plain gradient descent on the logistic loss with a ridge, so the same texts give the same critic:
    gradient = X^T (sigmoid(X w) - y) / N + ridge w.
    """
    import numpy as np

    # By family and not by task: tasks of one family share their words, and would flatter the critic.
    apart = set(sorted({p.family for p in pairs})[3::4])
    held = np.array([p.family in apart for p in pairs])
    chosen, own = matrix(pairs, [p.chosen for p in pairs]), matrix(pairs, drafts)
    x = np.concatenate([chosen[~held], own[~held]])
    y = np.repeat([1.0, 0.0], (~held).sum())
    # From zero: the loss is convex, so no start is better than another, and none has to be drawn.
    weights = np.zeros(SIZE)
    for _ in range(STEPS):
        weights -= RATE * (x.T @ (sigmoid(x @ weights) - y) / len(y) + RIDGE * weights)
    # Fewer than four families leave none to measure with; on those it was fitted to an AUC would flatter it.
    if not held.any():
        return Critic(weights, float("nan"))
    return Critic(weights, auc(chosen[held] @ weights, own[held] @ weights))


def auc(positive: Any, negative: Any) -> float:
    """The chance that a positive score stands above a negative one, ties counting half.

    >>> auc([2.0, 3.0], [1.0, 2.0])
    0.875
    """
    from scipy.stats import mannwhitneyu

    return float(mannwhitneyu(positive, negative).statistic) / (len(positive) * len(negative))
