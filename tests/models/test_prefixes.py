"""What many prompts begin with: how they are grouped, and that what is kept of it is bounded."""

import pytest

from lib.models.mlx import MLXModel
from lib.models.prefixes import Prefixes, grouped

TASKS = ("bake bread", "learn the accordion", "repair the roof of a barn", "adopt a cat", "knit", "move to the sea")


@pytest.fixture(scope="module")
def tiny(llama):
    return MLXModel(llama)


def test_prompts_are_grouped_by_what_saves_most_tokens():
    a, b = [1] * 100, [2] * 100
    prompts = [[*a, 5], [*b, 5], [*a, 6, 7], [*b, 6], [*a, *b], [9]]
    assert sorted(grouped(prompts)) == [(0, [5]), (100, [0, 2, 4]), (100, [1, 3])]
    assert grouped([[*a, 1], [*a, 1]]) == [(100, [0, 1])]  # the last token is never shared
    assert grouped([[*a, 3]]) == [(0, [0])] and grouped([]) == []
    assert sorted(i for _, places in grouped(prompts * 20) for i in places) == list(range(120))


def test_kept_prefixes_do_not_grow_without_bound(tiny):
    bound = 100_000
    small = Prefixes(tiny.model, tiny._prefixes.new_cache, most=bound)
    for task in TASKS:
        ids = tiny.encode([{"role": "user", "content": task * 9}])
        assert small.get(ids)[0].offset == len(ids)
        assert small.nbytes <= bound
    small.most = 10
    small.get([1, 2, 3])
    assert small.nbytes == 0


def test_a_longer_prefix_is_read_from_where_a_kept_one_ends(tiny):
    """And a shorter one is cut out of it: nothing is read at all."""
    lengths = []

    def model(tokens, cache):
        lengths.append(tokens.shape[1])
        return tiny.model(tokens, cache=cache)

    prefixes = Prefixes(model, tiny._prefixes.new_cache)
    ids = tiny.encode([{"role": "user", "content": TASKS[2] * 9}])
    for length in (40, 90, 60):
        caches = prefixes.get(ids[:length])
        assert {cache.offset for cache in caches} == {length} == {cache.keys.shape[2] for cache in caches}
    assert lengths == [40, 50]
