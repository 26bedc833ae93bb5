"""What a call costs, the most that it can cost, and a budget that is never passed."""

import asyncio
import json

import pytest

from lib.claude.prices import Budget, BudgetSpent, Spent, dollars, input_tokens, worst

MODEL = "claude-sonnet-5-5"


def test_a_price_counts_every_kind_of_token():
    usage = {"input_tokens": 1000, "cache_read_input_tokens": 1000, "cache_creation_input_tokens": 3000,
             "output_tokens": 100, "service_tier": "standard"}  # fmt: skip
    expected = ((1000 + 0.1 * 1000 + 1.25 * 3000) * 2 + 100 * 10) / 1e6
    assert dollars(MODEL, usage) == pytest.approx(expected)
    assert dollars(MODEL, usage, batch=True) == pytest.approx(expected / 2)
    assert input_tokens(usage) == 5000


@pytest.mark.parametrize(
    "model, read, written", [(MODEL, 2, 10), ("claude-sonnet-4-6", 3, 15), ("claude-haiku-4-5", 1, 5)]
)
def test_the_prices_of_the_table(model, read, written):
    assert dollars(model, {"input_tokens": 10**6, "output_tokens": 0}) == read
    assert dollars(model, {"input_tokens": 0, "output_tokens": 10**6}) == written


def test_costs_add_and_subtract():
    a, b = Spent(1, 2, 30, 4, 0.5), Spent(1, 0, 10, 1, 0.25)
    assert a + b - b == a and (a - b).input_tokens == 20


def test_the_worst_case_is_above_what_any_usage_can_cost():
    made = {
        "model": MODEL,
        "max_tokens": 50,
        "system": [{"type": "text", "text": "grade"}],
        "messages": [{"role": "user", "content": "paint"}],
    }
    size = len(json.dumps(made).encode())
    dearest = {"input_tokens": 0, "cache_creation_input_tokens": size, "output_tokens": 50}
    assert worst(made) >= dollars(MODEL, dearest) and worst(made, batch=True) == worst(made) / 2


def test_a_budget_without_calls_in_flight_never_waits():
    async def use():
        budget = Budget(1.0)
        await budget.hold(0.7)
        waiting = asyncio.ensure_future(budget.hold(0.7))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        await budget.settle(0.7, 0.1)
        await waiting
        await budget.settle(0.7, 0.7)
        with pytest.raises(BudgetSpent):
            await budget.hold(0.7)

    asyncio.run(use())
