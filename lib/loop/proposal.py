"""A proposal: what to try next and why, as plain data.

Knows the fields, their form and their limits, and which experiment a proposal stands for. Nothing of it is ever
executed: a step is a name in the registry, a text is a text. Does not know who proposed it nor what was tried before.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, field
from functools import partial
from typing import Annotated, Any

from pydantic import Field

from lib.agent.pipeline import STEPS, Row
from lib.files import OneLine, canonical, sha256, without_paths
from lib.forms import Filled, Number, fill, form, unique
from lib.lab.experiment import LEVERS
from lib.loop.events import Event
from lib.models.model import Decoding
from lib.models.provenance import WEIGHTS
from lib.runs.ledger import REFERENCE, Ledger
from lib.runs.record import Record

MOST_BYTES = 20_000  # of a proposal as JSON
MOST_TEXT = 2000  # characters of one text in it
Parameters = dict[str, Any]  # of an experiment's parameters cell
PROPOSABLE = tuple(name for name in LEVERS if name not in (*REFERENCE, "baseline"))
NESTED = ("pipeline", "decoding", "request")  # fields that a flat reply holds as JSON texts
MOST_PAIRS = 5000  # that a proposal may ask to train on


class Refused(OneLine, ValueError):
    """A proposal that is not run. `name` is the rule that it broke, one word for the log and for counting."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name, self.reason = name, reason


@form(partial(Refused, "malformed"), "request")
class Wanted:
    """A training that a proposal asks for, and that a person may approve."""

    why: Filled
    expected: Number  # the effect on quality
    parameters: Parameters  # of 11_train

    def __post_init__(self) -> None:
        """Raises Refused where the training would set its own dollars, or wants more than MOST_PAIRS pairs."""
        data = self.parameters.get("data", {})
        if not isinstance(data, dict):
            raise Refused("malformed", f"request: data is {data!r:.60}: expected a mapping")
        if "dollars" in data:
            raise Refused(
                "budget", "request: data sets its own dollars; leave them out, a person decides what is spent"
            )
        pairs = data.get("pairs", 0)
        if type(pairs) is not int or pairs > MOST_PAIRS:
            raise Refused("budget", f"request: pairs is {pairs!r:.60}: expected a whole number, at most {MOST_PAIRS}")


@form(partial(Refused, "malformed"))
class Proposal:
    """One hypothesis and the experiment that tests it."""

    hypothesis: str  # what is expected and why, before anybody looks
    lever: str  # the class of the change
    pipeline: list[Any]
    predicted: Annotated[Number, Field(ge=-1, le=1)]  # the effect on quality that is expected, against the champion
    kill: str  # what would make us drop it
    parent: str = ""  # the run that it builds on
    decoding: Parameters = field(default_factory=dict)
    adapter: str = ""
    request: Parameters = field(default_factory=dict)  # empty, or what `Wanted` has

    def __post_init__(self) -> None:
        """Raises Refused at a request that is none, an empty hypothesis or kill, and a class nobody may propose."""
        if self.request:
            fill(Wanted, self.request)
        for name, what in (("hypothesis", "what you expect and why"), ("kill", "what would refute it")):
            if not getattr(self, name).strip():
                raise Refused("malformed", f"{name} is empty; say {what}")
        if self.lever not in PROPOSABLE:
            raise Refused("unknown-lever", f"{self.lever!r:.60}; expected one of {', '.join(PROPOSABLE)}")

    @classmethod
    def read(cls, value: Any) -> Proposal:
        """A proposal from plain data or its JSON; pipeline, decoding and request may be JSON texts inside.

        Raises Refused: malformed, too-large, not-finite, unknown-lever, budget.
        """
        value = parse(value) if isinstance(value, str) else value
        if not isinstance(value, Mapping):
            known = ", ".join(cls.__dataclass_fields__)
            raise Refused("malformed", f"a proposal is {value!r:.60}: expected a mapping with {known}")
        # A model with a fixed form cannot nest freely, so these come as JSON within JSON.
        value = dict(value)
        for name in NESTED:
            if isinstance(value.get(name), str):
                value[name] = parse(value[name])
        try:
            size = len(json.dumps(value).encode())
        except (TypeError, ValueError, RecursionError) as error:
            raise Refused("malformed", f"not plain data ({error})") from error
        if size > MOST_BYTES:
            raise Refused("too-large", f"{size} bytes; a proposal has at most {MOST_BYTES}")
        for name, inner in value.items():
            _sound(name, inner)
        return fill(cls, value)

    def as_dict(self) -> Parameters:
        """Plain data, as events and the files of the queue hold it."""
        return asdict(self)

    @property
    def texts(self) -> list[str]:
        """Every text in it, keys included."""
        return [text for text in _leaves(self.as_dict()) if isinstance(text, str)]


def _sound(name: str, value: Any) -> None:
    """Raise Refused on numbers without end, and on texts that are too long or no text, however deep they lie."""
    for leaf in _leaves(value):
        if isinstance(leaf, float) and not math.isfinite(leaf):
            raise Refused("not-finite", f"{name!s:.60} has {leaf}: expected finite numbers")
        if isinstance(leaf, str) and len(leaf) > MOST_TEXT:
            raise Refused(
                "too-large", f"{name!s:.60} has a text of {len(leaf)} characters; at most {MOST_TEXT} are allowed"
            )
        if isinstance(leaf, str) and any(ord(c) < 32 and c not in "\n\t" or "\ud800" <= c <= "\udfff" for c in leaf):
            raise Refused("malformed", f"{name!s:.60} has control characters or halves of characters")


def parse(text: str) -> Any:
    """The value of a JSON text; doubled fields are refused. Raises Refused."""
    if len(text.encode("utf-8", "replace")) > 3 * MOST_BYTES:
        raise Refused("too-large", f"{len(text)} characters; a proposal has at most {MOST_BYTES} bytes")
    try:
        return json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise Refused("malformed", f"not JSON ({str(error)[:100]})") from error


def setup(model: str, pipeline: list[Row], decoding: Parameters, adapter: str, fingerprint: str) -> str:
    """Names what a run does, however it is worded: defaults written out are the same as defaults left out.

    Hypothesis, prediction and gate are not part of it: the same thing under another story is a duplicate. Of a model's
    own folder only the name counts, as a seal spells it.
    """
    spelled = without_paths(model, model)
    return sha256(canonical([spelled, [bound(row) for row in pipeline], _effective(decoding), adapter, fingerprint]))[
        :32
    ]


def setup_asked(event: Event) -> str:
    """The setup that an accepted proposal asks for."""
    p = event["parameters"]
    return setup(p["model"], p["pipeline"], p["decoding"], p["adapter"], event["fingerprint"])


def setup_of(record: Record, ledger: Ledger | None = None) -> str:
    """The setup of a sealed run; with a ledger, whatever it calls its adapters."""

    def full(name: str) -> str:
        return (ledger and adapter_id(name, ledger)) or name

    # An adapter goes by id, number, slug or path; another name for it is no other attempt.
    adapter, pipeline = with_adapters(record.adapter, record.pipeline, full)
    return setup(record.model, pipeline, record.decoding, adapter, record.fingerprint)


def adapter_id(name: str, ledger: Ledger) -> str:
    """The full id of a sealed training's adapter, with its epoch if it names one; "" where the ledger has none such.

    By id, number or slug; runs made by hand also name the folder, `runs/0005-sft/adapter`.
    """
    run, epoch = re.fullmatch(r"(.*?)((?:/epoch-\d\d)?)", name, re.DOTALL).groups()  # type: ignore[union-attr]
    run = re.sub(r"^(?:.*/)?(\d{4,}-[a-z0-9-]+)/adapter$", r"\1", run)
    # The newest of a slug, as everywhere; a full id, as records have it, is looked up.
    known = ledger.by_id.get(run)
    for record in reversed([known] if known else ledger.records):
        folder = ledger.folder / record.id / "adapter" / epoch[1:]
        if record.kind == "train" and record.named(run) and (folder / WEIGHTS).is_file():
            return record.id + epoch
    return ""


def with_adapters(adapter: str, pipeline: list[Any], name: Callable[[str], str]) -> tuple[str, list[Any]]:
    """A setup's adapter and pipeline, each adapter in them under another name; "" stays, it is the bare base."""
    rows = []
    for row in pipeline:
        if isinstance(row, dict) and isinstance(row.get("adapter"), str) and row["adapter"]:
            row = row | {"adapter": name(row["adapter"])}
        rows.append(row)
    return adapter and name(adapter), rows


def bound(row: Row) -> Row:
    """A step with its defaults written out; an unknown one as it is."""
    step = STEPS.get(str(row.get("step")))
    if step is None:
        return row
    return {name: _one_spelling(value) for name, value in (step.defaults | row).items()}


def _one_spelling(value: Any) -> Any:
    """1 and 1.0 are one value to a step, and lists and tuples too."""
    if isinstance(value, (list, tuple)):
        return [_one_spelling(v) for v in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _effective(decoding: Parameters) -> Parameters:
    """What of a decoding has an effect: nothing at its default, and of a greedy one not how it would have drawn.

    The seed is none: another draw of the same is a repeat, which the loop makes and pools, and no new chance for luck.
    """
    defaults = Decoding().__dict__
    values = {k: _one_spelling(v) for k, v in decoding.items() if v != defaults.get(k) and k != "seed"}
    if not values.get("temp"):
        for name in ("temp", "top_p", "min_p", "top_k"):
            values.pop(name, None)
    return values


def _leaves(value: Any) -> Iterator[Any]:
    """Every value within plain data, keys included."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from (str(key), *_leaves(inner))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _leaves(inner)
    else:
        yield value
