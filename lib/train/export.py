"""Quantise a trained tiny planner, ship it, and measure it on tasks that it never saw: `python -m lib.train.export`.

Knows mlx_lm's converter and the measurements that the model card quotes. Does not know the ruler: the held-out tasks
are made from the knowledge base (families and objects that training did not use).
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from lib.agent import prompt
from lib.agent.prompt import BadReply
from lib.measure.answer import Answer, normalised, spec_gate
from lib.models.knowledge import Situation
from lib.models.mlx import SHIPPED, MLXModel, fast_blas
from lib.models.model import Decoding
from lib.train.corpus import Writer

KEPT = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "training.json")


def quantise(source: Path, target: Path, bits: int = 8, group: int = 64) -> float:
    """Write the model in `bits` per weight; returns the size of its weights in megabytes."""
    fast_blas()
    import mlx.core as mx
    from mlx_lm.utils import load_model, quantize_model, save_model

    model, config = load_model(source)
    model.set_dtype(mx.float16)
    model, config = quantize_model(model, config, group, bits)
    target.mkdir(parents=True, exist_ok=True)
    save_model(target, model, donate_model=False)
    (target / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    (target / "model.safetensors.index.json").unlink(missing_ok=True)
    for name in KEPT:
        if (source / name).exists():
            shutil.copyfile(source / name, target / name)
    return sum(p.stat().st_size for p in target.glob("*.safetensors")) / 1e6


def held_out(n: int, families: set[str] | None, seed: int, invent: float) -> list[Situation]:
    """n task lines that training did not use: other families, or new objects in known ones."""
    writer = Writer(seed, invent=invent, only=families)
    return [writer.situation() for _ in range(n)]


def measure(model: MLXModel, situations: list[Situation]) -> dict[str, Any]:
    """Shares of answers with a valid form, a title that names the object, and seven different questions; greedy."""
    replies = model.generate([prompt.ask(s.task) for s in situations], [Decoding()] * len(situations))
    counts = {"json": 0, "seven": 0, "title names the object": 0, "passes the spec gate": 0, "asks the critical one": 0}
    for s, reply in zip(situations, replies, strict=True):
        try:
            draft = prompt.parse_set(reply.text)
        except BadReply:
            continue
        counts["json"] += 1
        counts["seven"] += len(draft.questions) == 7
        counts["title names the object"] += normalised(s.thing) in normalised(draft.title)
        counts["passes the spec gate"] += isinstance(spec_gate(draft.title, draft.questions), Answer)
        top = s.open_unknowns()[0]
        asked = {normalised(q.replace(s.thing, "{x}")) for q in draft.questions}
        counts["asks the critical one"] += bool(asked & {normalised(a) for a in top.ask})
    return {"n": len(situations), **{k: round(v / len(situations), 3) for k, v in counts.items()}}


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--size", choices=SHIPPED, required=True)
    ap.add_argument("--source", type=Path, required=True, help="folder that pretrain wrote")
    ap.add_argument("--tasks", type=int, default=100)
    args = ap.parse_args()
    megabytes = quantise(args.source, SHIPPED[args.size])
    facts = (
        json.loads((SHIPPED[args.size] / "training.json").read_text())
        if (args.source / "training.json").exists()
        else {}
    )
    model = MLXModel(args.size)
    facts["megabytes"] = round(megabytes, 2)
    facts["measured"] = {
        "families never seen": measure(model, held_out(args.tasks, set(facts.get("families_held_out", ())), 901, 0.0)),
        "known families, invented objects": measure(model, held_out(args.tasks, None, 902, 1.0)),
        "known families, known objects": measure(model, held_out(args.tasks, None, 903, 0.0)),
    }
    (SHIPPED[args.size] / "training.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps(facts["measured"], indent=1), f"{megabytes:.2f} MB")


if __name__ == "__main__":
    main()
