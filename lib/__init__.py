"""notch: can a small on-device language model do one narrow job as well as a frontier cloud model?

The package is a house of rooms over a floor. This is the order to read it in; a file imports only from files
above it, and tests/test_order.py holds that.

    files                       folders, canonical JSON, hashes, files written once
    forms                       checked dataclasses, and one line about what is wrong with a value
    show                        text, numbers and tables as a notebook shows them
    log                         lines that are appended and prove themselves
    weights                     pinned weights, fetched once into the cache
    claude.prices               what the cloud costs, and the cap
    claude.client               Claude through the SDK
    claude.store                every reply that was paid for, once
    claude.paid                 live and batch calls, resumed after a kill
    measure.ruler               cases, gold, rubric, protocol; the seal and the fingerprint
    measure.answer              an answer that can be judged, or why there is none
    measure.judge               what a judge is
    measure.offline_judge       the judge that needs no key
    measure.judge_calls         the cloud judge's prompts and parsers
    measure.claude_judge        the judge by Claude
    measure.useful              does a set enable a good plan? without gold
    measure.stats               paired comparison
    measure.score               from judgments to numbers
    measure.leak                gold in an answer, and when that is no chance any more
    measure.keep                the one keep rule, and what it keeps where nothing works
    measure.checks.damage       gold with one thing broken, gold in other words, answers made to fool a judge
    measure.checks.noise        how far repeats differ, and what can be seen above it
    measure.checks.blind        a judge without one dimension
    measure.checks.compare      models side by side on the same cases
    measure.checks.agreement    a judge beside a person's verdicts, or another judge's
    measure.checks.against      a judge beside stored verdicts of another
    measure.calibrate           a judge on texts whose faults are known
    models.model                what a model is; ToyModel
    models.blas                 a fast BLAS, before mlx is imported
    models.chat                 how a conversation becomes tokens, and what of a reply is the reply
    models.gguf                 a GGUF file as a folder that mlx-lm loads
    models.grammar              which tokens may come next
    models.ragged               a Llama-like model on a CPU, rows of unequal length at once
    models.prefixes             what many prompts begin with, read once
    models.batching             many rows through one MLX model at once
    models.provenance           what weights are by content, where an adapter comes from, whether it fits
    models.mlx                  the model that runs here
    models.apple                Apple's on-device model
    models.cloud                Claude as a candidate
    models.stored               answers that were written before
    models.load                 the one door to a model
    models.embed                texts as vectors
    agent.prompt                every call beside the parser of its reply
    agent.guard                 the leak guard, and words that texts share
    agent.bank                  the teacher's sets: examples, the nearest, train and valid
    agent.likeness              how much texts say the same
    agent.pipeline              plain data in, one state a case out
    agent.steps.asking          prompting and schema
    agent.steps.decoding        one question at a time
    agent.steps.retrieval       worked examples shown, as a checklist, made over
    agent.steps.planning        multi-call: think first, ask then
    agent.steps.critiquing      self-critique
    agent.steps.pruning         over-generate and prune, by question
    agent.steps.choosing        over-generate and prune, by whole sets
    agent.steps.scenarios       info-gain and answer simulation
    agent.steps.verifying       four checks a question
    agent.steps.adapters        a second draft from another adapter
    agent.steps                 registers the levers
    agent.dry_run               a pipeline tried on a stand-in: can it end in a set at all?
    train.data                  pairs to train on, with their card
    train.teacher               chosen sets that Claude writes
    train.forward               log-probabilities of what is learnt, at less cost
    train.lora                  low-rank adapters: settings, a base that can learn, rows
    train.fit                   the training loop, epoch by epoch
    train.orpo                  a loss on pairs of preference
    train.grpo                  rewards within a group, near the start
    train.gad                   a critic that tells drafts from gold-like sets
    train.adapter               an adapter as files; two merged into one
    train.recipe                one training, from its recipe to its files
    runs.provenance             which code and which machine, and the key of a run
    runs.record                 one run as its files hold it
    runs.secrets                secrets of this machine, and whether a text holds one
    runs.seal                   all files of a run at once, and its line
    runs.pending                what waits for its judge
    runs.by_hand                verdicts given by hand on the sealed gate
    runs.ledger                 sealed runs, the champion, what becomes of a new one
    runs.verify                 what is wrong with a folder of runs
    runs.offline                the offline judge with the embedded embedder
    runs.rescore                scores again, in a process of its own
    lab.base                    what can run and what comes out: parameters, keys, records
    lab.experiment              ruler x pipeline x judge -> record
    lab.calibration             a judge and a decoding measured -> record
    lab.rejudge                 stored answers judged without one dimension -> record
    lab.models                  change only the model: which runs that needs, sealed runs side by side -> record
    lab.training                a method and its data -> an adapter, a record
    lab.kernel                  papermill: a notebook executed in a kernel of this Python
    lab.execute                 papermill: notebook + parameters -> a sealed run
    lab.orders                  a row that another machine executes
    lab.workers                 rows in kernels here, or on the workers of a Dask cluster
    lab.batches                 many runs judged in one message batch
    lab.study                   a plan of experiments, resumable
    loop.events                 the loop's own log
    loop.guard                  the measure out of reach
    loop.proposal               what to try next, as plain data
    loop.steering               steering by files
    loop.validate               what a proposal must pass before it costs anything
    loop.lessons                predicted against measured, and dead ends
    loop.view                   what a proposer may know
    loop.proposers.plan         proposals from a file
    loop.proposers.search       proposals without a key
    loop.proposers.claude       proposals by Claude
    loop.next_run               what the loop does next
    loop.training_requests      a training that is asked for, and who approved it
    loop.loop                   propose, check, run, decide, record, again
    report.era                  one era of a ledger: climb, champion, the two ends of the scale
    report.tables               the ledger -> tables
    report.measured             calibration and re-judge -> tables
    report.compared             a comparison of models -> tables
    report.levers               what each class of lever did, its negatives included -> tables
    report.trained              what training gave, beside the base, imitation and prompting -> tables
    report.examples             the worst and the best answers beside a frontier's and gold -> Markdown
    report.by_hand              a blind reading of the sealed gate beside the offline judge
    report.answer               the question answered in sentences, and the figures that they stand on
    report.paths                what follows: three paths, a recommendation, how to do it all again
    report.drawing              the canvas of a figure, and the figure as SVG with links
    report.figures              a table -> a figure
    report.effects              what each change did, at what cost, on which tasks -> figures
    report.tiles                every run as a small diagram
    report.run_page             what stands around a run's notebook on its page
    report.run_table            every run searched and sorted, two case by case
    report.site                 notebooks -> pages
    report.live                 how a study or a loop stands, as a page that loads itself again
    desk.doctor                 what this machine has, and what is missing
    desk.trial                  a model tried here, and how long and how dear a study would be
    desk.draft                  a ruler of one's own, from a list of tasks to rows that a person reviews
    desk.explore                one task tried by hand
    desk.panel                  the same with menus (ipywidgets)
    desk.choose                 one task answered by several models side by side, blind until one is chosen
    desk.supervise              a loop watched and steered from a notebook
    desk.rate                   stored answers rated by a person, blind
    cli.options                 exit codes, options, the line about a run
    cli.runs                    notch doctor, freeze, run, seal, calibrate, rejudge, report, verify
    cli.ruler                   notch ruler draft
    cli.study                   notch study, confirm, compare
    cli.loop                    notch loop, log, propose, next
    cli.train                   notch train
    cli                         notch
    cli.__main__                python -m lib.cli
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
    "OfflineJudge": "lib.runs.offline",
    "ClaudeJudge": "lib.measure.claude_judge",
    "Judgment": "lib.measure.judge",
    "quality": "lib.measure.score",
    "paired": "lib.measure.stats",
    "ToyModel": "lib.models.model",
    "Experiment": "lib.lab.experiment",
    "Calibration": "lib.lab.calibration",
    "Rejudge": "lib.lab.rejudge",
    "Models": "lib.lab.models",
    "Training": "lib.lab.training",
    "Ledger": "lib.runs.ledger",
    "Desk": "lib.desk.supervise",
    "Session": "lib.desk.rate",
    "answer": "lib.report",
    "by_hand": "lib.report",
    "choose": "lib.desk",
    "compared": "lib.report",
    "examples": "lib.report",
    "explore": "lib.desk",
    "figures": "lib.report",
    "levers": "lib.report",
    "effects": "lib.report",
    "measured": "lib.report",
    "paths": "lib.report",
    "panel": "lib.desk",
    "tables": "lib.report",
    "tiles": "lib.report",
    "trained": "lib.report",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    """A name of `_HOME`, its module imported only when somebody asks for it. Raises AttributeError."""
    from importlib import import_module

    if name not in _HOME:
        raise AttributeError(f"module 'lib' has no attribute {name!r}")
    if _HOME[name] in ("lib.report", "lib.desk"):
        return import_module(f"{_HOME[name]}.{name}")
    return getattr(import_module(_HOME[name]), name)
