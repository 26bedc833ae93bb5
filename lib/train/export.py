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


CARD = """# The tiny planners

Two small language models in MLX format, so that all of notch runs for real without a Mac, a key or a GPU.
They were trained from nothing by this project on a corpus that it generates. **They say nothing about 3B models.**
This card is written by `lib/train/export.py` from what was measured; the numbers are in `training.json` beside the weights.

## What they are

{sizes}

Llama architecture with tied embeddings, byte-level BPE of 3,072 tokens in which every fixed paragraph of
`lib/agent/prompt.py` is one token: an instruction is a word of their language, and an instruction in other words is
mostly noise to them. Weights are 8 bit, 64 to a group.

## What they learnt from

`knowledge/`: {families} families of tasks written for this project by an AI (Claude), each with twelve unknowns ranked by how
much a plan depends on them, five phrasings each. `lib/train/corpus.py` makes examples of every call of `prompt.py` from
it: {mixture}. Objects are varied with adjectives, other nouns and invented words, because copying an unseen object is the hard part.

Question sets are of mixed quality on purpose: 30 % clean, 45 % generic (the obvious unknowns, worded so that they fit
many tasks), 25 % messy (repeats, double questions, telegraphic ones, things already said). With the coach or the
contrast paragraph in the prompt 55 % are clean: instructions go with better sets, as in the data of large models. Worked
examples in a prompt have the same quality as the answer. So prompting, examples and fine-tuning have something to gain here by construction.

From tiny-m's second stage on, no line of the corpus comes near a task or a gold question of the ruler (leak guard; lines left out
in the last stages: {refused}). **The first stage had a weaker guard**, which read task lines only and missed short words, and a
knowledge base with five objects that have since been renamed. So its 16,000 examples may hold lines close to a ruler task, such as "fix the espresso machine
at home" beside "fix a leaking espresso machine", or a story about a detective. No gold answer was ever part of the corpus.

## How they were trained

    make planner

goes through these stages by number of tokens, with today's guard in all of them (`lib/train/pretrain.py`, then `lib/train/export.py`).

{training}

PyTorch {torch} on CPU cores, float32; Muon for the matrices, AdamW for the rest. Each stage goes on from the one above
it with a fresh learning rate schedule; tiny-s starts from two of tiny-m's four layers, as they were half way through its second stage. Between the first stages some wordings of the
knowledge base and the share of repeats in messy sets were changed, so `make planner` gives models like these, not these to the bit.

## How well they do it

Greedy, one plain call, {n} tasks in each row that training did not use. Shares of all tasks.

{measured}

## Honest failures

- A task of no known family gets questions of the nearest family that the words suggest, or general ones.
- Unseen objects are sometimes copied with a wrong ending, long ones with a word missing.
- Questions repeat within a set; the spec gate turns those into no answer.
- It does not understand: it continues patterns. Judging and checking calls are learnt from the same corpus and are weak.
"""


def card() -> str:
    """The model card, from the training facts beside the weights of both sizes."""
    from lib.models.knowledge import families

    facts = {name: json.loads((where / "training.json").read_text()) for name, where in SHIPPED.items()}
    m, s = facts["tiny-m"], facts["tiny-s"]
    layers = {name: json.loads((where / "config.json").read_text()) for name, where in SHIPPED.items()}
    sizes = "| | parameters | layers | width | on disk |\n|---|---|---|---|---|\n" + "\n".join(
        f"| {n} | {f['parameters'] / 1e6:.1f} million | {layers[n]['num_hidden_layers']} | {layers[n]['hidden_size']} | {f['megabytes']:.1f} MB |"
        for n, f in facts.items()
    )
    head = "| stage | minutes | threads | tokens | examples | different task lines | seed | loss, new examples | loss, unseen families |"
    rows = [
        f"| {name}, {i} | {f['minutes']:.0f} | {f['threads']} | {f['tokens_seen'] / 1e6:.1f} million | {f['examples']:,} | "
        f"{f['different_task_lines']:,} | {f['seed']} | {f['valid'][0]:.2f} | {f['valid'][1]:.2f} |"
        for name, fact in facts.items()
        for i, f in enumerate((f for f in fact["stages"] if f["size"] == name), 1)
    ]
    training = "\n".join([head, "|---" * 9 + "|", *rows])
    names = [k for k in next(iter(m["measured"].values())) if k != "n"]
    measured = "| | " + " | ".join(names) + " |\n" + "|---" * (len(names) + 1) + "|\n" + "\n".join(
        f"| {n}, {where} | " + " | ".join(f"{100 * row[k]:.0f} %" for k in names) + " |"
        for n, f in facts.items()
        for where, row in f["measured"].items()
    )  # fmt: skip
    total = sum(m["mixture"].values())
    mixture = ", ".join(
        f"{k.replace('_', ' ')} {100 * v / total:.0f} %" for k, v in sorted(m["mixture"].items(), key=lambda x: -x[1])
    )
    return CARD.format(
        sizes=sizes, families=len(families()), mixture=mixture, refused=m["refused_near_ruler"] + s["refused_near_ruler"],
        training=training, torch=m["torch"],
        n=next(iter(m["measured"].values()))["n"], measured=measured,
    )  # fmt: skip


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
    if all((where / "training.json").exists() for where in SHIPPED.values()):
        (SHIPPED[args.size].parent / "README.md").write_text(card())
    print(json.dumps(facts["measured"], indent=1), f"{megabytes:.2f} MB")


if __name__ == "__main__":
    main()
