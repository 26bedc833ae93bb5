"""Speed as ratios measured in one run: `make bench`. Prints a table and asserts nothing: machines are noisy.

Covers batching against a sequential loop, a run through `execute` against the papermill command, and the index of
10,000 runs. Does not cover training or a paid judge.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

from lib.files import NOTEBOOKS, canonical, sha256


def best(times, work):
    """Seconds of the fastest of several tries: the least disturbed one."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return min(found)


def batching():
    from lib.agent import prompt
    from lib.measure.ruler import Ruler
    from lib.models.mlx import MLXModel, fast_blas

    fast_blas()  # before mlx is imported, for both sides of the comparison
    from mlx_lm import generate

    from lib.models.model import Decoding

    model = MLXModel("tiny-m")
    prompts = [prompt.ask(c.task) for c in Ruler.load().gate("full")]
    ids = [model.encode(p) for p in prompts]
    texts = {}

    def alone():
        texts["alone"] = [generate(model.model, model.tokenizer, i, max_tokens=320) for i in ids]

    def batched():
        texts["batched"] = [c.text for c in model.generate(prompts, [Decoding()] * len(prompts))]

    batched()
    slow, fast = best(2, alone), best(3, batched)
    same = sum(a == b for a, b in zip(texts["alone"], texts["batched"], strict=True))
    return (
        "30 tasks: mlx_lm.generate one by one / one batch",
        slow,
        fast,
        f"same greedy text {same} of {len(ids)}, want 4x",
    )


def running():
    from lib.lab import execute

    with tempfile.TemporaryDirectory() as temp:
        folder = Path(temp) / "runs"
        parameters = {"model": "toy", "hypothesis": "bench"}
        command = [sys.executable, "-m", "papermill", str(NOTEBOOKS / "10_experiment.ipynb"), f"{temp}/out.ipynb"]
        for name, value in parameters.items():
            command += ["-p", name, value]
        env = {**os.environ, "NOTCH_RUNS": str(folder)}

        def by_command():
            subprocess.run(command, check=True, capture_output=True, env=env)

        def by_execute():
            execute.run("10_experiment", parameters, "bench", folder)

        by_execute()
        slow, fast = best(3, by_command), best(3, by_execute)
    return "one toy run: papermill command / lib.lab.execute, sealed", slow, fast, "figures and judging included"


def starting():
    """The same pair on a notebook whose cells cost nothing: what is left is papermill, kernel and shutdown."""
    from lib.lab import execute

    cells = [
        {
            "cell_type": "code",
            "id": f"c{i}",
            "source": source,
            "execution_count": None,
            "outputs": [],
            "metadata": {"tags": tags},
        }
        for i, (source, tags) in enumerate((("seed: int = 0", ["parameters"]), ("seed + 1", []), ("'done'", [])))
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    with tempfile.TemporaryDirectory() as temp:
        path = Path(temp) / "nothing.ipynb"
        path.write_text(
            json.dumps({"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5})
        )
        command = [sys.executable, "-m", "papermill", str(path), f"{temp}/out.ipynb", "-p", "seed", "1"]
        slow = best(3, lambda: subprocess.run(command, check=True, capture_output=True))
        fast = best(3, lambda: execute.execute(path, {"seed": 1}, Path(temp) / "runs"))
    return "a notebook that costs nothing: papermill command / lib.lab.execute", slow, fast, "want 3x"


def index():
    from lib.lab.ledger import Ledger
    from lib.report import levers, tables

    record = json.loads((Path(__file__).parent / "data" / "record.json").read_text())
    with tempfile.TemporaryDirectory() as temp:
        before, lines = "0" * 64, []
        for n in range(1, 10_001):
            mine = {**record, "id": f"{n:04d}-run", "slug": "run"}
            mine["scores"] = {**record["scores"], "quality": 0.3 + (n % 97) / 1000}
            line = canonical({"n": n, "prev": before, "id": mine["id"], "seal": "0" * 64, "record": mine})
            before = sha256(line)
            lines.append(line)
        (Path(temp) / "ledger.jsonl").write_text("\n".join(lines) + "\n")

        def read():
            ledger = Ledger.read(Path(temp))
            tables.climb(ledger, tables.latest(ledger))
            levers.classes(ledger, tables.latest(ledger))

        read()
        seconds = best(3, read)
        tracemalloc.start()
        read()
        peak = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
    return (
        "index of 10,000 runs: read, check the chain, climb and lever tables",
        seconds,
        None,
        f"peak {peak:.0f} MB, want 0.5 s, 300 MB",
    )


def main():
    print(f"{'what':68} {'slow s':>8} {'fast s':>8} {'ratio':>6}  note")
    for bench in (batching, starting, running, index):
        what, slow, fast, note = bench()
        ratio = f"{slow / fast:6.1f}" if fast else "      "
        print(f"{what:68} {slow:8.2f} {fast if fast else slow:8.2f} {ratio}  {note}", flush=True)


if __name__ == "__main__":
    main()
