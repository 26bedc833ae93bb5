"""notch: can a small on-device language model do one narrow job as well as a frontier cloud model?

The package is a house of six rooms and a floor. This is the order to read it in; a file imports only from files
above it, and tests/test_order.py holds that.

    files                       folders, canonical JSON, hashes, files written once
    measure.ruler               cases, gold, rubric, protocol; the seal and the fingerprint
    measure.answer              an answer that can be judged, or why there is none
    measure.judge               what a judge is
    measure.offline_judge       the judge that needs no key
    measure.store               every judgment that was paid for, once
    measure.spend               what the cloud costs, and the cap
    measure.claude              Claude through the SDK
    measure.judge_calls         the cloud judge's prompts and parsers
    measure.claude_judge        the judge by Claude
    measure.stats               paired comparison
    measure.score               from judgments to numbers
    measure.damage              gold with one thing broken, gold in other words, answers made to fool a judge
    measure.noise               how far repeats differ, what luck alone would keep
    measure.calibrate           a judge on texts whose faults are known
    measure.blind               a judge without one dimension
    measure.fit_offline         how the offline judge's constants were fitted (a script)
    measure.against             a judge beside stored verdicts of another
    models.model                what a model is; ToyModel
    models.provenance           where an adapter comes from, and whether it fits
    models.mlx                  the model that runs here
    models.load                 the one door to a model
    models.knowledge            what a plan depends on, by family of task
    agent.prompt                every call beside the parser of its reply
    agent.bank                  worked examples and the leak guard
    agent.pipeline              plain data in, one state a case out
    agent.steps.asking          prompting and schema
    agent.steps.pruning         over-generate and prune
    agent.steps.retrieval       worked examples as demonstrations
    agent.steps                 registers the levers
    train.corpus                examples of every call, for the tiny planner
    train.pretrain              trains a tiny planner (a script)
    train.export                quantises and measures it (a script)
    train.data                  pairs to train on, with their card
    train.teacher               chosen sets that Claude writes
    train.lora                  low-rank adapters, epoch by epoch
    train.orpo                  a loss on pairs of preference
    train.grpo                  rewards within a group, near the start
    train.gad                   a critic that tells drafts from gold-like sets
    train.adapter               an adapter as files; two merged into one
    train.recipe                one training, from its recipe to its files
    lab.record                  what one run was and found
    lab.ledger                  sealed runs, the keep rule, the champion
    lab.rescore                 scores again, in a process of its own
    lab.events                  the loop's own log
    lab.guard                   the measure out of reach
    lab.experiment              ruler x pipeline x judge -> record
    lab.calibration             a judge and a decoding measured -> record
    lab.rejudge                 stored answers judged without one dimension -> record
    lab.training                a method and its data -> an adapter, a record
    lab.execute                 papermill: notebook + parameters -> a sealed run
    lab.requests                a training that is asked for, and who approved it
    lab.study                   a plan of experiments, resumable
    lab.proposal                what to try next, as plain data
    lab.steer                   steering by files
    lab.admit                   what a proposal must pass before it costs anything
    lab.lessons                 predicted against measured, and dead ends
    lab.context                 what a proposer may know
    lab.propose.plan            proposals from a file
    lab.propose.search          proposals without a key
    lab.propose.claude          proposals by Claude
    lab.state                   what the loop does next
    lab.loop                    propose, check, run, decide, record, again
    report.tables               the ledger -> tables
    report.measured             calibration and re-judge -> tables
    report.figures              a table -> a figure
    report.published            the published study read again
    report.luck                 what each keep rule does where nothing works
    report.site                 notebooks -> pages
    report.memory               what the loop remembers, as tables
    report.supervise            a loop watched and steered from a notebook
    cli_loop                    notch loop, log, propose, next
    cli_train                   notch train
    cli                         notch
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"

# Names load on first use: `import lib` must stay cheap, and a notebook must not pay for what it does not use.
_HOME = {
    "Ruler": "lib.measure.ruler",
    "Case": "lib.measure.ruler",
    "Gold": "lib.measure.ruler",
    "Answer": "lib.measure.answer",
    "NoAnswer": "lib.measure.answer",
    "OfflineJudge": "lib.measure.offline_judge",
    "ClaudeJudge": "lib.measure.claude_judge",
    "Judgment": "lib.measure.judge",
    "quality": "lib.measure.score",
    "paired": "lib.measure.stats",
    "ToyModel": "lib.models.model",
    "Experiment": "lib.lab.experiment",
    "Calibration": "lib.lab.calibration",
    "Rejudge": "lib.lab.rejudge",
    "Training": "lib.lab.training",
    "Ledger": "lib.lab.ledger",
    "figures": "lib.report",
    "measured": "lib.report",
    "tables": "lib.report",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOME:
        raise AttributeError(f"module 'lib' has no attribute {name!r}")
    if name in ("figures", "measured", "tables"):
        return import_module(f"lib.report.{name}")
    return getattr(import_module(_HOME[name]), name)
