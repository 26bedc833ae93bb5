"""A model tried on this machine: does it load, say in a batch what it says alone, answer, learn; how long is a study?

Knows the order of the tries, the clock, and how figures of a small part become those of the whole. Seals nothing and
leaves nothing behind. Does not cover pipelines of more than one call, and no model that costs money to try.
"""

from __future__ import annotations

import gc
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path

from lib.agent import prompt
from lib.claude.prices import PRICED, dollars
from lib.files import OneLine, leave_out, without_paths
from lib.lab.base import BadParameters, judge_named
from lib.lab.calibration import TYPICAL
from lib.lab.experiment import Experiment
from lib.lab.training import Training, progress
from lib.log import Row
from lib.measure.ruler import Ruler
from lib.models import load, mlx
from lib.models.blas import fast_blas
from lib.models.model import Decoding, Model
from lib.runs.provenance import code_state, machine
from lib.runs.record import CaseRow, Record
from lib.show import words
from lib.train import recipe as recipes

RUNS = 70  # of the study whose length is worked out: as many as the published one has
STEPS = 20  # of training
PAIRS = 1000  # of the training whose length is worked out
AROUND = 7.0  # s of a run beside its answers, kernel and seal: median of 30 sealed runs in a row, on two cores
PROBE = Decoding(max_tokens=32)
# Of unequal length: an engine that lets the padding of one row into another says something else in a batch.
PROMPTS = (
    prompt.ask("learn chess endings"),
    prompt.ask("learn chess endings with my niece, who is nine, plays twice a week and has a tournament in the spring"),
)


@dataclass(frozen=True)
class Figure:
    """One thing that was tried."""

    what: str
    value: str
    ok: bool = True


def trial(name: str, steps: int = STEPS) -> Iterator[Figure]:
    """What this machine makes of a model, a figure as soon as it is there.

    Raises BadParameters, BadRuler and NoModel before anything is computed.
    """
    if load.backend(name) is load.CLOUD:
        raise BadParameters(f"model {name!r:.60} costs money for each call; `notch run` takes it, with a cap")
    experiment = Experiment(hypothesis="What this machine makes of it.", model=name, gate="dev").check()
    trained = Training(hypothesis="Does it learn?", model=name) if load.capabilities(name).adapters else None
    full = len(experiment.ruler.gate("full"))
    yield Figure("machine", _machine())
    yield Figure("versions", words(leave_out(machine(), "platform", "processor")))
    state = code_state()
    yield Figure("code", f"{state['sha256'][:12]}, commit {state['commit'][:12]}")
    yield Figure("model", f"{without_paths(name, name)}, content {load.identity(name)}")
    yield from _loaded(name)
    run = experiment.run()
    record = run.record
    yield _answered(record, run.cases)
    if trained:
        yield learnt(trained, steps)
    else:
        yield Figure("training", "this model has no weights that can be trained here")
    yield Figure("peak memory", _memory())
    yield from _extrapolated(record, experiment.ruler, full)


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    parts = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GB"
    # Beside others on the same cores every time below is longer, a step of training five times and more.
    load = f"load {os.getloadavg()[0]:.1f} before this"
    return f"{parts}, {load}, mlx {mlx.engine()[1]}, BLAS {fast_blas()}"


def _loaded(name: str) -> Iterator[Figure]:
    """The time to load the model, and how its replies in a batch compare with those of each prompt alone."""
    began = time.perf_counter()
    model = load.load(name)
    yield Figure("load", f"{time.perf_counter() - began:.1f} s")
    yield batch(model)
    del model
    # The experiment loads it again, and two of 3 billion parameters do not fit everywhere.
    gc.collect()


def batch(model: Model) -> Figure:
    """Whether two prompts of unequal length are answered together as each is alone."""
    together = model.generate(PROMPTS, [PROBE] * len(PROMPTS))
    alone = [model.generate([messages], [PROBE])[0] for messages in PROMPTS]
    other = sum(a.text != b.text for a, b in zip(together, alone, strict=True))
    means = f"; {model.identity['batch']}" if "batch" in model.identity else ""
    if other:
        return Figure(
            "batch", f"{other} of {len(PROMPTS)} replies are other words in a batch than alone{means}", ok=False
        )
    return Figure("batch", f"{len(PROMPTS)} prompts of unequal length say the same together and alone{means}")


def _answered(record: Record, cases: Sequence[CaseRow]) -> Figure:
    scores, cost = record.scores, record.cost
    assert scores is not None, "an experiment has scores"
    speed = f", {cost.generation_tps:.0f} new tokens a second" if cost.generation_tps else ""
    valid = f"{scores.n - scores.no_answer} of {scores.n} answers valid"
    reasons = Counter(map(attrgetter("no_answer"), cases))
    reasons.pop(None, None)
    for reason, count in reasons.most_common(1):
        valid += f" ({count} not: {prompt.clip(str(reason))})"
    return Figure(
        "dev gate",
        f"{scores.n} tasks in {cost.answer_seconds:.1f} s, {valid}, quality {scores.quality:.3f} (offline judge){speed}",
    )


def learnt(training: Training, steps: int) -> Figure:
    """The time of a step, its first one left out, which also reads what the frozen layers make of the prompts."""
    settings = training.recipe().settings
    at: dict[float, float] = {}  # steps done -> when
    show = progress()  # twenty steps of a large model are minutes

    def note(state: Row) -> None:
        at.setdefault(state["done"], time.perf_counter())
        show(state)

    short = replace(training, data={"pairs": steps * settings.batch}, settings={**training.settings, "epochs": 1})
    try:
        with tempfile.TemporaryDirectory(prefix="notch-") as work:
            outcome = recipes.train(replace(short.recipe(note), work=Path(work)))
    except (OneLine, ValueError) as error:
        return Figure("training", f"failed: {error}", ok=False)
    times = [when for done, when in sorted(at.items()) if done]
    step = (times[-1] - times[0]) / (len(times) - 1)
    first, last = outcome.curve[0], outcome.curve[-1]
    minutes = step * PAIRS / settings.batch * settings.epochs / 60
    return Figure("training", f"{len(times)} steps of {settings.batch} pairs, {step:.2f} s a step, validation loss "
                  f"{first['valid_loss']:.3f} -> {last['valid_loss']:.3f}; {PAIRS} pairs in {settings.epochs} epochs: "
                  f"about {minutes:.0f} minutes")  # fmt: skip


def _memory() -> str:
    """What mlx held at most, and what the whole process did; on a CPU part of the work is not in mlx's memory."""
    import resource

    unit = 1.0 if sys.platform == "darwin" else 1024.0  # bytes there, kilobytes elsewhere
    whole = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
    return f"{mlx.peak_memory():.1f} GB in mlx, {whole:.1f} GB of the process"


def _extrapolated(record: Record, ruler: Ruler, cases: int) -> Iterator[Figure]:
    """A full gate and a study, in time and, with Claude as the judge, in money."""
    assert record.scores is not None, "an experiment has scores"
    each = (record.cost.answer_seconds + record.cost.judge_seconds) / record.scores.n
    minutes = (record.cost.load_seconds + each * cases) / 60
    judge = judge_named("claude", ruler)
    call = dollars(judge.identity["model"], TYPICAL)
    price = cases * len(judge.calls) * call  # type: ignore[attr-defined]
    priced = f"with judge claude, at list prices of {PRICED}, about"
    yield Figure("full gate", f"{cases} tasks: about {minutes:.1f} minutes; {priced} ${price:.2f}")
    whole = (minutes + AROUND / 60) * RUNS
    yield Figure(f"{RUNS} such runs", f"about {whole:.0f} minutes, one after another; {priced} ${price * RUNS:.2f}; pipelines of more "
                 "calls take so much more")  # fmt: skip
