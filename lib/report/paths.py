"""What follows from a ledger: three honest paths, a recommendation whose words follow the numbers, and how to do it again.

Knows the newest era as `lib.report.era` reads it. Every sentence stands on a number that it names; what was not measured
is called so. Does not know what a product would need beyond the job.
"""

from __future__ import annotations

from collections import Counter

from lib.measure.keep import ALPHA, LOOKS
from lib.report import answer, tables
from lib.report.era import Era, eras
from lib.runs.ledger import Ledger
from lib.runs.record import Record
from lib.show import Markdown, bullets, candidate_name, chance, grid, plural

PATIENCE = 10  # changes in a row without a keep, after which a climb is called stalled
HALF_WAY = 0.5  # of the distance from a set that fits any task to the frontier


def since(era: Era) -> int:
    """How many runs competed after the champion."""
    return int((era.climb.index > era.kept.index[-1]).sum())


def recommendation(ledger: Ledger) -> Markdown:
    """One of the paths, and the numbers that speak for it."""
    era = Era.latest(ledger)
    if era.champion is None:
        return Markdown("**None yet.** Without a kept run there is nothing to ship and nothing to compare.")
    return Markdown(" ".join([_first(era), *_standing(era, era.champion)]))


def _first(era: Era) -> str:
    """What to do first, by how near the champion came."""
    test = answer.gap(era)
    if tables.unbeaten(era):
        return "**Ship nothing.** The best run is no better than answers that fit any task, so there is nothing to document yet."
    if test is not None and (test.p >= ALPHA or test.delta > 0):
        return (
            "**Ship and document.** On these tasks the small model cannot be told from the frontier, or is ahead of it."
        )
    if era.share is None:
        return "**Measure first.** How far the champion came between an any-task set and a frontier is not known here."
    if era.share >= HALF_WAY:
        return (
            "**Reframe the bar, then ship and document.** The champion is nearer to the frontier than to a set that fits any "
            "task; whether that is good enough is a question about usefulness, which a comparison with gold does not answer."
        )
    return (
        "**Wait for a bigger base.** The champion is nearer to a set that fits any task than to the frontier, and the same "
        "harness will say within minutes whether the next model changes that."
    )


def _standing(era: Era, champion: Record) -> list[str]:
    """Whether the climb goes on, and whether it was confirmed."""
    after, lines = since(era), []
    if not era.changes:
        lines.append("Nothing was tried after the first run, so nothing is known of what a change would do.")
    elif len(era.kept) < 2:
        lines.append(
            f"Of {plural(era.changes, 'change')} none was kept: either they do nothing, or thirty tasks do not show it."
        )
    elif after >= PATIENCE:
        lines.append(
            f"The climb has stalled: {plural(after, 'run')} since {champion.id} brought nothing that was kept."
        )
    else:
        lines.append(
            f"The climb has not stalled: the last keep, {champion.id}, was followed by {plural(after, 'run')}, and fewer than "
            f"{PATIENCE} say little. Going on is cheaper than deciding."
        )
    look = era.ledger.newest(lambda r: era.ledger.of(r) == champion.id, era.ledger.looks(era.fingerprint))
    if look is None:
        lines.append(
            f"Before anything is built on it, {champion.id} needs a look on the sealed tasks: `notch confirm`."
        )
    elif look.status != "kept":
        lines.append(_unconfirmed(era, champion, look))
    return lines


def _unconfirmed(era: Era, champion: Record, look: Record) -> str:
    """What a look that confirmed nothing leaves standing."""
    test, last = look.decision, era.ledger.confirmed(era.fingerprint)
    text = f"On the sealed tasks {champion.id} was looked at and not confirmed ({look.id}"
    if test.delta is not None:
        text += f": {test.delta:+.3f}, {chance(test.p)}, where a look needs p < {ALPHA / LOOKS:g}"
    text += ")"
    return f"{text}: what stands there is {era.ledger.of(last)}." if last else f"{text}."


def paths(ledger: Ledger) -> Markdown:
    """The three paths of whoever has to decide, each with what speaks for it and what is missing."""
    era = Era.latest(ledger)
    if era.champion is None:
        return bullets([], "No run was kept yet, so no path begins here.")
    return bullets([_ship(era.champion), _reframe(era.champion), _wait(era)])


def _ship(champion: Record) -> str:
    s = champion.scored
    count = s.wins + s.ties + s.losses + s.no_answer
    text = (
        f"**Ship and document.** Take {candidate_name(champion.candidate)} as {champion.id} runs it and say what it is: "
        f"{s.quality:.3f} of 1, {s.wins + s.ties} of {plural(count, 'task')} won or tied against gold, {s.no_answer} without a "
        f"valid answer. It makes {plural(champion.cost.calls, 'model call')} for them"
    )
    if champion.cost.answer_seconds:
        text += f" and took {champion.cost.answer_seconds / max(count, 1):.1f} s for each on the machine that ran it"
    return text + ". Right where local, free and private count for more than the distance to the frontier."


def _reframe(champion: Record) -> str:
    text = "**Ask another question.** Not “as good as the frontier?” but “does this set lead to a good plan?” "
    useful = champion.found.useful.mean
    if useful is None:
        return (
            text + "Nobody asked that here yet: `useful: true` in a run lets the judge rate it without gold in sight."
        )
    return text + f"Asked so, without gold in sight, the judge rates the champion's sets {useful:.2f} of 5."


def _wait(era: Era) -> str:
    text = "**Wait for a bigger base.** `notch confirm --base MODEL` runs the pipelines that matter on another model"
    if era.comparison() is None:
        return f"{text}; none was tried in this harness yet."
    return f"{text}, as section 4 does with those that are at hand. The outcome is in nobody's hands here."


# --- how to do it again --------------------------------------------------------------------------


def reproduction(ledger: Ledger) -> Markdown:
    """Code, ruler, machine, time and the commands that make all of this again."""
    records = ledger.records
    if not records:
        return Markdown("Nothing was run yet: `make study` runs a short plan and writes this page.")
    commits = Counter(r.code.commit[:12] for r in records if r.code.commit not in ("", "unknown"))
    rows = [("code", _code(records, list(commits)))]
    seals = [f"`{fingerprint[:12]}`" for fingerprint in eras(ledger)]
    if seals:
        rows.append(("ruler and judge", f"{', '.join(seals)}, one for each era"))
    machines = {
        ", ".join(f"{name} {version}" for name, version in sorted(r.machine.items())) for r in records if r.machine
    }
    rows += [("machine and versions", machine) for machine in sorted(machines)]
    minutes, dollars = sum(r.seconds for r in records) / 60, sum(r.cost.dollars for r in records)
    rows.append(
        (
            "time and cost",
            f"{plural(len(records), 'sealed run')}, {minutes:.0f} minutes of running, {dollars:.2f} dollars",
        )
    )
    rows += [("check every seal and score", "`notch verify`"), ("write these pages", "`notch report --html site`")]
    rows.append(("run a short study, compare it with this one to the digit", "`make study`"))
    return Markdown(
        f"{grid(('', ''), rows)}\n\nGreedy runs repeat to the digit on one kind of machine. On another processor the last bits "
        "of a sum differ, and now and then a word with them."
    )


def _code(records: list[Record], commits: list[str]) -> str:
    """Which code ran: the commits from the first to the last, and how many runs had changes that no commit holds."""
    if not commits:
        return "no commit is named in these runs"
    text = f"commit `{commits[0]}`"
    if len(commits) > 1:
        text = f"{len(commits)} commits, from `{commits[0]}` to `{commits[-1]}`"
    dirty = sum(bool(r.code.dirty) for r in records)
    if dirty:
        text += f"; {plural(dirty, 'run')} of uncommitted code, whose hash the record holds"
    return f"{text}; every run names its own"


def climb(ledger: Ledger) -> Markdown:
    """The climb in words: what moved the champion and by how much, and what a rule of luck would have called the best."""
    era = Era.latest(ledger)
    if era.climb.empty:
        return Markdown("There is no run on the full gate yet.")
    if len(era.climb) == 1:
        return Markdown("One run is no climb.")
    if era.kept.empty:
        return Markdown(f"None of {plural(len(era.climb), 'run')} was kept.")
    first = era.climb.iloc[0]
    steps = era.kept[era.kept.id != first.id]
    if steps.empty:
        return Markdown(f"It never left the ground: {first.id} at {first.quality:.3f} is the champion still.")
    named = [f"{s.id} {s.delta:+.3f} ({chance(s.p)})" for s in steps.itertuples() if s.delta == s.delta]
    lucky = era.climb.loc[era.climb.quality.idxmax()]
    text = f"From {first.quality:.3f} ({first.id}) to {era.kept.quality.iloc[-1]:.3f} in {plural(len(steps), 'step')}: {'; '.join(named)}."
    if lucky.id != era.kept.id.iloc[-1]:
        text += f" The highest single score, {lucky.quality:.3f} ({lucky.id}), is {lucky.status}: whoever keeps what looks better would call it the best."
    return Markdown(text)
