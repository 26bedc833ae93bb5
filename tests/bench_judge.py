"""What ClaudeJudge costs over a bare AsyncAnthropic loop: `python -m tests.bench_judge`. Prints ratios, asserts nothing.

60 calls against a loopback server that takes 100 ms for each, at 10 and at 30 in flight, arms alternating in one
process. The judge's time includes its loop, its client, parsing and a store with an fsync a reply.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DELAY, CASES, TIMES = 0.1, 20, 9  # seconds, cases of three calls each, tries of each arm


def main():
    from lib.measure.answer import Answer
    from lib.measure.claude_judge import ClaudeJudge
    from lib.measure.ruler import Ruler

    server = subprocess.Popen(
        [sys.executable, "-m", "tests.claude.loopback", "serve", "--delay", str(DELAY)],
        stdout=subprocess.PIPE,
        text=True,
    )
    os.environ |= {"ANTHROPIC_BASE_URL": server.stdout.readline().strip(), "ANTHROPIC_API_KEY": "no-key-needed-here"}
    ruler = Ruler.load()
    pairs = [(c, Answer(c.gold.title, c.gold.questions)) for c in ruler.gate("full")[:CASES]]
    try:
        with tempfile.TemporaryDirectory() as temp:

            def judged(flying, name):
                judge = ClaudeJudge(ruler, store=Path(temp) / f"{name}.jsonl", dollars=100, concurrency=flying)
                judge.judge_all(pairs)
                assert judge.cost.calls == 3 * CASES
                judge.close()

            maker = ClaudeJudge(ruler, store=Path(temp) / "none.jsonl")
            requests = [maker.request(c, *pair) for pair in pairs for c in maker.calls]
            for flying in (10, 30):
                compare(flying, requests, judged)
    finally:
        server.terminate()
        server.wait()


def compare(flying, requests, judged):
    judged(flying, f"warm-{flying}"), asyncio.run(bare(flying, requests))
    mine, its = [], []
    for i in range(TIMES):
        its.append(seconds(lambda: asyncio.run(bare(flying, requests))))
        mine.append(seconds(lambda i=i: judged(flying, f"{flying}-{i}")))
    a, b = statistics.median(mine), statistics.median(its)
    floor = DELAY * -(-len(requests) // flying)
    pairs = [m / i for m, i in zip(mine, its, strict=True)]
    print(f"{len(requests)} calls, {flying} in flight: ClaudeJudge {a:.3f} s, bare loop {b:.3f} s (floor {floor:.1f} s), "
          f"medians {a / b:.2f}, of {TIMES} pairs {statistics.median(pairs):.2f} ({min(pairs):.2f} to {max(pairs):.2f}), best {min(mine) / min(its):.2f}; want 1.15", flush=True)  # fmt: skip


async def bare(flying, requests):
    """What anyone would write: a client, a semaphore, gather."""
    import anthropic

    async with anthropic.AsyncAnthropic(max_retries=6) as client:
        room = asyncio.Semaphore(flying)

        async def one(request):
            async with room:
                return await client.messages.create(**request)

        return await asyncio.gather(*map(one, requests))


def seconds(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
