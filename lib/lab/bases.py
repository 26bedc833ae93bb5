"""Which runs a comparison of models needs: sealed ones are taken as they are, missing ones run as anchors.

Knows candidates, the champion's pipeline and the stock one, and a new base beside an old one. Does not know what comes
out of a comparison. Nothing here is ever kept: the lever of a run that it makes is `anchor`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from lib.files import canonical, leave_out
from lib.lab import execute
from lib.lab.base import BadParameters
from lib.lab.experiment import Experiment
from lib.lab.models import sealed, split
from lib.runs.ledger import Ledger
from lib.runs.record import Json, Record
from lib.show import words

FREE = ("pipeline", "decoding", "judge", "batch", "judging", "seed", "useful")  # what the caller may set, for all alike
WHY = "In the same harness, decoded the same way, {model} shows what the model alone changes."
REGRESSION = "On a larger base the same harness scores higher; on one of the same size the difference is chance."
DEFAULTS: Json = {"pipeline": [{"step": "ask"}], "decoding": {}, "seed": 0}
Made = tuple[str, Record]  # "there" or "ran", and the record


def compare(folder: Path, models: Sequence[str], parameters: Json, name: str = "") -> Iterator[Made]:
    """Each model in the same harness, then the comparison. Yields after every run. Raises what `execute.run` raises."""
    candidates = [m.strip() for m in models if m.strip()]
    if len(candidates) < 2 or len(set(candidates)) < len(candidates):
        raise BadParameters(
            f"models {', '.join(candidates)!r}: expected two or more, each once, the first to compare with"
        )
    harness = _harness(parameters)
    label = "-".join(s["step"] for s in Experiment(**harness).pipeline if isinstance(s, dict) and "step" in s)
    wanted = {label: [_anchor(m, harness, "anchor") for m in candidates]}
    yield from _run(folder, wanted, parameters.get("hypothesis"), name or "models")


def base(folder: Path, new: str, old: str, parameters: Json, name: str = "") -> Iterator[Made]:
    """The stock pipeline, the champion's and every anchor's, each on the old base and on the new one.

    An adapter of the old base does not fit another: the champion's pipeline runs bare on both.
    """
    if new == old:
        raise BadParameters(f"base {new!r} is the old base; name another model, or another old one with --old")
    if "+" in new + old:
        raise BadParameters("a base is a bare model: adapters are trained anew on each, and compared with --models")
    harness = _harness(parameters)
    fingerprint = Experiment(**harness).fingerprint
    tried = harnesses(Ledger.read(folder), fingerprint, harness)
    wanted = {k: [_anchor(m, harness | changes, k) for m in (old, new)] for k, changes in tried.items()}
    yield from _run(folder, wanted, parameters.get("hypothesis") or REGRESSION, name or f"base-{Path(new).name}")


def harnesses(ledger: Ledger, fingerprint: str, plain: Json) -> dict[str, Json]:
    """What a new base is tried with, by label: pipeline, decoding and seed, each combination once."""
    wanted: list[tuple[str, Json]] = [("stock", {**DEFAULTS, **plain})]
    champion = ledger.champion(fingerprint)
    if champion:
        wanted.append(("champion", champion.attempt))
    for r in ledger.records:
        if r.kind == "experiment" and r.lever == "anchor" and r.fingerprint == fingerprint and r.scores:
            wanted.append((f"{_steps(r)}", r.attempt | {"run": r.id[:4]}))
    by_setup: dict[str, tuple[str, Json]] = {}
    for label, attempt in wanted:
        same = {k: attempt.get(k, default) for k, default in DEFAULTS.items()}
        taken = {name for name, _ in by_setup.values()}
        if label in taken:
            label = f"{label} ({attempt['run']})"
        # Stock, champion and an anchor may be one and the same: it runs once, by the first of its names.
        by_setup.setdefault(canonical(same), (label, same))
    return dict(by_setup.values())


def _steps(record: Record) -> str:
    """A pipeline as the names of its steps, with its decoding where that is not greedy."""
    drawn = words(leave_out(record.decoding, "grammar"))
    steps = " ".join(str(s["step"]) for s in record.pipeline)
    return f"{steps}, {drawn}" if drawn else steps


def _harness(parameters: Json) -> Json:
    """What is the same for every candidate. Raises BadParameters on what may not be set."""
    fixed = sorted(set(parameters) - {*FREE, "hypothesis"})
    if fixed:
        raise BadParameters(
            f"{fixed[0]!r} cannot be set in a comparison of models; it takes hypothesis, {', '.join(FREE)}"
        )
    return leave_out(parameters, "hypothesis")


def _anchor(candidate: str, harness: Json, label: str) -> tuple[str, Json]:
    """Slug and parameters of the run of one candidate."""
    model, adapter = split(candidate)
    own = {"hypothesis": WHY.format(model=candidate), "lever": "anchor", "model": model, "adapter": adapter}
    return f"{label}-{Path(model).name}{'-adapter' if adapter else ''}", harness | own


def _run(folder: Path, wanted: dict[str, list[tuple[str, Json]]], hypothesis: str | None, name: str) -> Iterator[Made]:
    """Run what is not sealed yet of a comparison, then the comparison itself, each named as it ends."""
    # Everything is refused before anything runs: weights that the last candidate lacks cost nothing.
    accepted = {}
    for label, anchors in wanted.items():
        accepted[label] = [execute.accept("10_experiment", parameters, folder) for _, parameters in anchors]
    chosen: dict[str, list[str]] = {}
    for label, anchors in wanted.items():
        for (slug, parameters), experiment in zip(anchors, accepted[label], strict=True):
            have = sealed(Ledger.read(folder), experiment)  # type: ignore[arg-type]
            record = have or execute.run("10_experiment", parameters, slug, folder)
            chosen.setdefault(label, []).append(record.id)
            yield ("there" if have else "ran"), record
    parameters = {"groups": chosen}
    if hypothesis:
        parameters["hypothesis"] = hypothesis
    comparison = execute.accept("15_models", parameters, folder)
    have = Ledger.read(folder).by_key(comparison.key)
    yield ("there" if have else "ran"), have or execute.run("15_models", parameters, name, folder)
