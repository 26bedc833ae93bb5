"""Speed as ratios measured in one run: `make bench`. Prints a table and asserts nothing: machines are noisy.

Covers inference against mlx-lm's own loops and the machine's matrix products, with and without a schema, memory over 1,000 cases, a run through
`execute` against the papermill command, and the index of 10,000 runs. Does not cover a paid judge. Names
of benches as arguments run those alone.
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
from statistics import median

from lib.files import NOTEBOOKS, canonical, sha256
from tests.bench_train import train_tokens


def best(times, work):
    """Seconds of the fastest of several tries: the least disturbed one."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return min(found)


def median_ratio(times, slow, fast):
    """Median over several rounds of slow / fast, each pair timed one after the other; and the median seconds."""
    pairs = [(best(1, slow), best(1, fast)) for _ in range(times)]
    return median(a / b for a, b in pairs), median(a for a, _ in pairs), median(b for _, b in pairs)


SMOL = "smollm2"
NEW = 160  # tokens a reply, about what a set takes
FEW = 5  # prompts that mlx-lm's loop answers one by one, for all 30
SET = {"type": "object", "properties": {"title": {"type": "string"},
       "questions": {"type": "array", "items": {"type": "string"}, "minItems": 7, "maxItems": 7}},
       "required": ["title", "questions"], "additionalProperties": False}  # fmt: skip


def subject():
    """The model and the 30 prompts of the full gate."""
    from lib.agent import prompt
    from lib.measure.ruler import Ruler
    from lib.models.mlx import MLXModel

    return MLXModel(SMOL), [prompt.ask(c.task) for c in Ruler.load().gate("full")]


def batching():
    """30 prompts that share a system message: mlx-lm one by one, mlx-lm's batch, and this project's batch."""
    from lib.models.blas import fast_blas

    fast_blas()  # before mlx is imported, for both sides of the comparison
    from mlx_lm import batch_generate, generate

    from lib.models.model import Decoding
    from lib.models.prefixes import shared

    model, prompts = subject()
    ids = [model.encode(p) for p in prompts]
    n = min(shared(ids[0], other) for other in ids[1:])
    texts = {}

    def alone():
        texts["alone"] = [generate(model.model, model.tokenizer, i, max_tokens=NEW) for i in ids[:FEW]]

    def plain():
        texts["plain"] = batch_generate(model.model, model.tokenizer, ids, max_tokens=NEW).texts

    def ours():
        model.clear_cache()  # the prefix is read within the time that is measured
        texts["ours"] = [c.text for c in model.generate(prompts, [Decoding(max_tokens=NEW)] * len(prompts))]

    ours()
    for name, slow, times, want in (("batch_generate", plain, 3, "1.6x"), ("generate one by one", alone, 1, "6x")):
        ratio, before, after = median_ratio(times, slow, ours)
        its = texts["plain" if slow is plain else "alone"]
        whole = len(ids) / len(its)  # a few of them one by one stand for all
        ratio, before = ratio * whole, before * whole
        same = sum(a == b for a, b in zip(its, texts["ours"], strict=False))
        note = f"{n} shared tokens, same greedy text {same} of {len(its)}, want {want}"
        yield f"30 prompts, {NEW} new tokens: mlx_lm.{name} / ours", before, after, ratio, note


def rates():
    """Steps of 30 rows and reading 6 whole prompts in GFLOP/s of the weights, beside bare products of the same sizes."""
    import numpy as np

    from lib.models import ragged

    model, prompts = subject()
    if not ragged.fits(model.model):
        return
    ids = [model.encode(p) for p in prompts]
    llama, args = ragged.Llama(model.model), model.model.args
    inner = [w for layer in model.model.layers for w in matrices(layer)]
    head = np.asarray(model.model.model.embed_tokens.weight)
    for what, feeds, weights in (
        ("a step after 100 tokens", [[7]] * 30, [*inner, head]),
        ("reading 6 prompts", [i[:-1] for i in ids[:6]], inner),
    ):
        tokens = sum(map(len, feeds))
        some = np.ones((tokens, args.hidden_size), np.float32), np.ones((tokens, args.intermediate_size), np.float32)

        rows = ragged.Rows(llama, len(feeds))
        if weights[-1] is head:
            rows.forward([[7] * 100] * 30, logits=False)

        def bare(weights=weights, some=some):
            for w in weights:
                some[w.shape[1] != args.hidden_size] @ w.T

        def whole(rows=rows, feeds=feeds, step=weights[-1] is head):
            rows.forward(feeds, logits=step)

        whole(), bare()
        ratio, slow, fast = median_ratio(3, whole, bare)
        work = 2e-9 * tokens * sum(w.size for w in weights)
        yield f"{what}: ours / bare products", slow, fast, ratio, f"{work / slow:.0f} of {work / fast:.0f} GFLOP/s"


def matrices(layer):
    import numpy as np

    attention, mlp = layer.self_attn, layer.mlp
    maps = (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj, mlp.gate_proj, mlp.up_proj)
    return [np.asarray(m.weight) for m in (*maps, mlp.down_proj)]


def threads():
    """The 30 prompts with one BLAS thread and with two: worth it on idle cores alone."""
    from lib.models.blas import use_threads
    from lib.models.model import Decoding

    model, prompts = subject()
    texts = {}

    def run(count):
        use_threads(count)
        model.clear_cache()
        texts[count] = [c.text for c in model.generate(prompts, [Decoding(max_tokens=NEW)] * len(prompts))]
        use_threads(1)

    ratio, one, two = median_ratio(1, lambda: run(1), lambda: run(2))
    same = sum(a == b for a, b in zip(texts[1], texts[2], strict=True))
    yield "30 prompts: one BLAS thread / two", one, two, ratio, f"same greedy text {same} of {len(prompts)}"


def constraining():
    """The same prompts held to a schema and free, by the token: what a mask costs and forced tokens save."""
    from lib.models.model import Decoding

    model, prompts = subject()
    made = {}

    def answer(name, grammar):
        done = model.generate(prompts, [Decoding(grammar=grammar, max_tokens=NEW)] * len(prompts))
        made[name] = sum(c.generation_tokens for c in done)

    def held():
        answer("held", json.dumps(SET))

    def free():
        answer("free", "")

    held(), free()
    ratio, slow, fast = median_ratio(3, held, free)
    note = f"{made['held']} and {made['free']} new tokens, want at most 1.3 a token"
    yield "30 tasks in one batch, a token: held / free", slow, fast, ratio * made["free"] / made["held"], note


MEMORY = """
import resource, sys
from lib.models.load import load
from lib.models.model import Decoding
model = load(sys.argv[1])
for at in range(0, 1000, 50):
    prompts = [[{"role": "user", "content": f"Task: {i}"}] for i in range(at, at + 50)]
    model.generate(prompts, [Decoding(max_tokens=3)] * 50)
    if at in (50, 950):
        print(at + 50, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def memory():
    """Peak memory of a process that answers 1,000 cases, after the first 100 and at the end."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", MEMORY, SMOL], check=True, capture_output=True, text=True)
    first, last = (int(line.split()[1]) for line in done.stdout.splitlines())
    note = f"peak memory after 1,000 / after 100: {last / first:.3f}"
    yield "1,000 short replies in one process", time.perf_counter() - began, None, None, note


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
    yield (
        "one toy run: papermill command / lib.lab.kernel, sealed",
        slow,
        fast,
        slow / fast,
        "figures and judging included",
    )


def starting():
    """The same pair on a notebook whose cells cost nothing: what is left is papermill, kernel and shutdown."""
    from lib.lab import kernel

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
    spec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    with tempfile.TemporaryDirectory() as temp:
        path = Path(temp) / "nothing.ipynb"
        path.write_text(
            json.dumps({"cells": cells, "metadata": {"kernelspec": spec}, "nbformat": 4, "nbformat_minor": 5})
        )
        command = [sys.executable, "-m", "papermill", str(path), f"{temp}/out.ipynb", "-p", "seed", "1"]
        slow = best(3, lambda: subprocess.run(command, check=True, capture_output=True))
        fast = best(3, lambda: kernel.execute(path, {"seed": 1}, {}))
    yield "a notebook that costs nothing: papermill command / lib.lab.kernel", slow, fast, slow / fast, "want 3x"


def index():
    from lib.report import levers, tables
    from lib.runs.ledger import Ledger

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
    yield (
        "index of 10,000 runs: read, check the chain, climb and lever tables",
        seconds,
        None,
        None,
        f"peak {peak:.0f} MB, want 0.5 s, 300 MB",
    )


BENCHES = (batching, rates, threads, constraining, train_tokens, memory, running, starting, index)


def main():
    """All benches, or those that are named."""
    print(f"{'what':68} {'slow s':>8} {'fast s':>8} {'ratio':>6}  note")
    for bench in BENCHES:
        if len(sys.argv) > 1 and bench.__name__ not in sys.argv[1:]:
            continue
        for what, slow, fast, ratio, note in bench():
            said = f"{ratio:6.2f}" if ratio else "      "
            print(f"{what:68} {slow:8.2f} {fast if fast else slow:8.2f} {said}  {note}", flush=True)


if __name__ == "__main__":
    main()
