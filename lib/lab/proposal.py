"""A proposal: what to try next and why, as plain data.

Knows the fields, their form and their limits, and which experiment a proposal stands for. Nothing of it is ever
executed: a step is a name in the registry, a text is a text. Does not know who proposed it nor what was tried before.
"""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from lib.agent.pipeline import STEPS
from lib.files import OneLine, canonical, sha256, without_paths
from lib.lab.experiment import LEVERS
from lib.lab.ledger import REFERENCE, Ledger, named
from lib.models.model import Decoding
from lib.models.provenance import WEIGHTS

MOST_BYTES = 20_000  # of a proposal as JSON
MOST_TEXT = 2000  # characters of one text in it
PROPOSABLE = tuple(name for name in LEVERS if name not in (*REFERENCE, "baseline"))
NESTED = ("pipeline", "decoding", "request")  # fields that a flat reply holds as JSON texts
MOST_PAIRS = 5000  # that a proposal may ask to train on
REQUEST = ("why", "expected", "parameters")  # of a training request: the reason, the effect, parameters of 11_train


class Refused(OneLine, ValueError):
    """A proposal that is not run. `name` is the rule that it broke, one word for the log and for counting."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name, self.reason = name, reason


@dataclass(frozen=True)
class Proposal:
    """One hypothesis and the experiment that tests it."""

    hypothesis: str  # what is expected and why, before anybody looks
    lever: str  # the class of the change
    pipeline: list[dict[str, Any]]
    predicted: float  # the effect on quality that is expected, against the champion
    kill: str  # what would make us drop it
    parent: str = ""  # the run that it builds on
    decoding: dict[str, Any] = field(default_factory=dict)
    adapter: str = ""
    request: dict[str, Any] = field(default_factory=dict)  # a training that a person may approve; see REQUEST

    @classmethod
    def read(cls, value: Any) -> Proposal:
        """A proposal from plain data or its JSON; pipeline, decoding and request may be JSON texts inside. Raises Refused."""
        value = parse(value) if isinstance(value, str) else value
        if isinstance(value, Mapping):
            inner = {k: parse(v) for k, v in value.items() if k in NESTED and isinstance(v, str)}
            value = {**value, **inner}
        return cls.of(value)

    @classmethod
    def of(cls, value: Any) -> Proposal:
        """A proposal from plain data. Raises Refused: malformed, too-large, not-finite, unknown-lever."""
        known = {f.name: str(f.type).split("[")[0] for f in fields(cls)}
        if not isinstance(value, Mapping):
            raise Refused("malformed", f"a proposal is a mapping with {', '.join(known)}, got {_short(value)}")
        try:
            size = len(json.dumps(value).encode())
        except (TypeError, ValueError, RecursionError) as error:
            raise Refused("malformed", f"not plain data ({error})") from error
        if size > MOST_BYTES:
            raise Refused("too-large", f"{size} bytes; a proposal has at most {MOST_BYTES}")
        odd = [k for k in value if k not in known]
        if odd:
            raise Refused("malformed", f"no field {_short(odd[0])}; a proposal has {', '.join(known)}")
        for name in ("hypothesis", "lever", "pipeline", "predicted", "kill"):
            if name not in value:
                raise Refused("malformed", f"{name} is missing")
        for name, said in value.items():
            _check(name, said, known[name])
        made = cls(**value)
        wanted = {"hypothesis": "what you expect and why", "kill": "what would refute it"}
        empty = [name for name in wanted if not getattr(made, name).strip()]
        if empty:
            said, verb = " and ".join(wanted[name] for name in empty), "is" if len(empty) == 1 else "are"
            raise Refused("malformed", f"{' and '.join(empty)} {verb} empty; say {said}")
        if made.lever not in PROPOSABLE:
            raise Refused("unknown-lever", f"{_short(made.lever)}; expected one of {', '.join(PROPOSABLE)}")
        return made

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def texts(self) -> list[str]:
        """Every text in it, keys included."""
        return list(_texts(self.as_dict()))


_KINDS: dict[str, Any] = {"str": str, "float": (int, float), "list": list, "dict": dict}
_WORDS = {"str": "text", "float": "a number", "list": "a list of steps", "dict": "a mapping"}


def _check(name: str, said: Any, kind: str) -> None:
    if isinstance(said, bool) or not isinstance(said, _KINDS[kind]):
        raise Refused("malformed", f"{name} is {_short(said)}; expected {_WORDS[kind]}")
    if kind == "float" and not math.isfinite(said):
        raise Refused("not-finite", f"{name} is {said}; expected a finite number")
    if name == "predicted" and not -1 <= said <= 1:
        raise Refused("malformed", f"predicted is {said}; quality is 0 to 1, so an effect is -1 to 1")
    for number in _numbers(said):
        if not math.isfinite(number):
            raise Refused("not-finite", f"{name} holds {number}; expected finite numbers")
    for text in _texts(said):
        if len(text) > MOST_TEXT:
            raise Refused("too-large", f"{name} has a text of {len(text)} characters; at most {MOST_TEXT} are allowed")
        if any(ord(c) < 32 and c not in "\n\t" or "\ud800" <= c <= "\udfff" for c in text):
            raise Refused("malformed", f"{name} has control characters or halves of characters")
    if name == "request" and said:
        _request(said)


def _request(said: dict[str, Any]) -> None:
    if set(said) != set(REQUEST):
        raise Refused("malformed", f"request has {_short(sorted(said))}; expected exactly {', '.join(REQUEST)}")
    expected = said["expected"]
    number = isinstance(expected, (int, float)) and not isinstance(expected, bool)
    if not (isinstance(said["why"], str) and said["why"].strip() and number and isinstance(said["parameters"], dict)):
        raise Refused("malformed", "request: why is text, expected a number, parameters a mapping of 11_train")
    data = said["parameters"].get("data", {})
    if not isinstance(data, dict):
        raise Refused("malformed", f"request: data is {_short(data)}; expected a mapping")
    if "dollars" in data:
        raise Refused("budget", "request: data sets its own dollars; leave them out, a person decides what is spent")
    pairs = data.get("pairs", 0)
    if not isinstance(pairs, int) or isinstance(pairs, bool) or pairs > MOST_PAIRS:
        raise Refused("budget", f"request: pairs is {_short(pairs)}; expected a whole number, at most {MOST_PAIRS}")


def parse(text: str) -> Any:
    """The value of a JSON text; NaN and doubled fields are refused. Raises Refused."""
    if len(text.encode("utf-8", "replace")) > 3 * MOST_BYTES:
        raise Refused("too-large", f"{len(text)} characters; a proposal has at most {MOST_BYTES} bytes")
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_constant)
    except Refused:
        raise
    except (ValueError, RecursionError) as error:
        raise Refused("malformed", f"not JSON ({str(error)[:100]})") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise Refused("malformed", "a field stands there twice")
    return dict(pairs)


def _constant(name: str) -> Any:
    raise Refused("not-finite", f"{name} is no number to predict with; expected a finite one")


def setup(model: str, pipeline: list[dict[str, Any]], decoding: dict[str, Any], adapter: str, fingerprint: str) -> str:
    """Names what a run does, however it is worded: defaults written out are the same as defaults left out.

    Hypothesis, prediction and gate are not part of it: the same thing under another story is a duplicate. Of a model's
    own folder only the name counts, as a seal spells it.
    """
    spelled = without_paths(model, model)
    return sha256(canonical([spelled, [bound(row) for row in pipeline], _drawn(decoding), adapter, fingerprint]))[:32]


def setup_of(record: dict[str, Any], ledger: Ledger | None = None) -> str:
    """The setup of a sealed run; with a ledger, whatever it calls its adapters."""
    told = with_adapters(record, lambda name: ledger and adapter_id(name, ledger) or name)
    return setup(*({**record, **told}[k] for k in ("model", "pipeline", "decoding", "adapter", "fingerprint")))


def adapter_id(name: str, ledger: Ledger) -> str:
    """The full id of a sealed training's adapter, with its epoch if it names one; "" where the ledger has none such.

    By id, number or slug; runs made by hand also name the folder, `runs/0005-sft/adapter`.
    """
    run, epoch = re.fullmatch(r"(.*?)((?:/epoch-\d\d)?)", name, re.DOTALL).groups()  # type: ignore[union-attr]
    run = re.sub(r"^(?:.*/)?(\d{4,}-[a-z0-9-]+)/adapter$", r"\1", run)
    for record in reversed(ledger.records):
        folder = ledger.folder / record["id"] / "adapter" / epoch[1:]
        if record["kind"] == "train" and named(record, run) and (folder / WEIGHTS).is_file():
            return record["id"] + epoch
    return ""


def with_adapters(told: Mapping[str, Any], name: Callable[[str], str]) -> dict[str, Any]:
    """`adapter` and `pipeline` of plain data, each adapter in them under another name; "" stays, it is the bare base."""

    def row(one: Any) -> Any:
        has = isinstance(one, dict) and isinstance(one.get("adapter"), str) and one["adapter"]
        return {**one, "adapter": name(one["adapter"])} if has else one

    adapter = told["adapter"]
    return {"adapter": name(adapter) if adapter else adapter, "pipeline": [row(one) for one in told["pipeline"]]}


def bound(row: dict[str, Any]) -> dict[str, Any]:
    """A step with its defaults written out; an unknown one as it is."""
    made = STEPS.get(str(row.get("step")))
    if made is None:
        return row
    defaults = {k: p.default for k, p in inspect.signature(made.make).parameters.items()}
    return {"step": row["step"], **{k: _plain(v) for k, v in {**defaults, **row}.items() if k != "step"}}


def _plain(value: Any) -> Any:
    """1 and 1.0 are one value to a step, and lists and tuples too."""
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _drawn(decoding: dict[str, Any]) -> dict[str, Any]:
    defaults = Decoding().__dict__
    told = {k: _plain(v) for k, v in decoding.items() if v != defaults.get(k)}
    if not told.get("temp"):  # greedy: how it would have been drawn changes nothing
        told = {k: v for k, v in told.items() if k not in ("temp", "top_p", "min_p", "top_k", "seed")}
    return told


def _texts(value: Any) -> Any:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from (str(key), *_texts(inner))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _texts(inner)


def _numbers(value: Any) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _numbers(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _numbers(inner)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
