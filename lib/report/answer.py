"""The first screen: the question answered from the ledger, and the figures that the answer stands on.

Knows the newest era alone. Every number is computed and every sentence follows from them: an empty ledger, one run or
nothing but crashes say what is missing. Does not know how a figure is drawn.
"""

from __future__ import annotations

from functools import partial

import pandas as pd

from lib.measure.keep import ALPHA
from lib.measure.stats import Paired, paired
from lib.report import by_hand, trained
from lib.report.era import Era
from lib.runs.ledger import Ledger
from lib.runs.record import Record
from lib.show import Markdown, bullets, candidate_name, chance, interval, plural


def opening(ledger: Ledger) -> Markdown:
    """The answer in a few sentences: how far from the frontier, against gold, how much of the climb holds up."""
    era = Era.latest(ledger)
    if era.champion is None:
        return Markdown(f"**Not answered yet.** {_missing(era)}")
    read = by_hand.distance(ledger)
    return Markdown(f"**{_distance(era, era.champion)}** {_against_gold(era, era.champion)}{read}\n\n{_climb(era)}")


def _missing(era: Era) -> str:
    """Why there is no champion."""
    every = era.ledger.frame()
    broken = int(every.status.isin(["crashed", "invalid", "incomplete"]).sum())
    if len(era.climb):
        return f"{plural(len(era.climb), 'run')} of the full gate came to an end, and none of them was kept."
    if len(every) == 0:
        return "No run is sealed here: `make study` makes some."
    return f"No run of the full gate came to an end; of {plural(len(every), 'sealed run')} {broken} broke off or do not count."


def gap(era: Era) -> Paired | None:
    """The champion paired with the stronger frontier's own answers, where both are sealed runs of the same cases."""
    if era.champion is None or not era.frontier_run:
        return None
    own, best = era.ledger.qualities(era.champion.id), era.ledger.qualities(era.frontier_run)
    # A judge may have failed on a case of either: then the two are no longer measured on the same tasks.
    if own.keys() != best.keys():
        return None
    return paired(own, best)


def _distance(era: Era, champion: Record) -> str:
    """How near the champion comes to the frontier, and how sure that is."""
    name = candidate_name(champion.candidate)
    if era.frontier is None:
        return f"Not compared with a frontier model yet: {name} gets {champion.scored.quality:.3f} of 1."
    quality, (frontier, best) = champion.scored.quality, era.frontier
    test, verb, sure = gap(era), "The champion of the small model gets", ""
    if test is not None:
        sure = f"; the difference is {test.delta:+.3f} (95 % {interval(test.low, test.high)}, {chance(test.p)})"
        verb = "It cannot be told apart here: the champion of the small model gets"
        if test.p < ALPHA:
            verb = (
                "Yes, on these tasks: the small model gets"
                if test.delta > 0
                else "No: the champion of the small model gets"
            )
    share = f", {quality / best:.2f} of it" if best else ""
    return f"{verb} {quality:.3f} ({champion.id}, {name}), the frontier's own answers {best:.3f} ({frontier}){share}{sure}."


def _against_gold(era: Era, champion: Record) -> str:
    """The champion task by task against gold, and what its quality is to be read between."""
    s = champion.scored
    # Without the unscored: their judge failed, so nobody knows how they stand.
    count = s.wins + s.ties + s.losses + s.no_answer
    text = f"Against gold it wins {s.wins}, ties {s.ties} and loses {s.losses} of {plural(count, 'task')}"
    text += f"; {s.no_answer} had no valid answer." if s.no_answer else "."
    if era.share is not None:
        text += (
            f" Seven questions that fit any task get {era.plain:.3f}, so it has come {100 * era.share:.0f} % of the way from "
            "there to the frontier."
        )
    return text


def _climb(era: Era) -> str:
    """How many changes hold up under the paired test, and how many of these on sealed tasks."""
    kept = era.kept.id[era.kept.id != era.climb.id.iloc[0]]
    looks = era.ledger.looks(era.fingerprint)
    # The first look had nothing to beat, so it confirms nothing.
    won = {era.ledger.of(look) for look in looks if look.status == "kept" and look.decision.against}
    if not era.changes:
        return "Nothing was tried after the first run yet."
    text = f"Of {plural(era.changes, 'change')} tried, {len(kept)} held up under a paired test on the same thirty tasks"
    if not looks:
        return f"{text}; none has been tried on the sealed tasks yet."
    return f"{text}, and {len(won & {*kept})} of these on thirty sealed tasks as well."


# --- the figures ----------------------------------------------------------------------------------


def chosen(ledger: Ledger) -> dict[str, str]:
    """The runs that the first screen compares, by what each is: stock, best prompting, best training, the frontier.

    What stands first is called stock only where it is a plain call.
    """
    era = Era.latest(ledger)
    runs = {
        trained.called(ledger, era.fingerprint): trained.stock(ledger, era.fingerprint),
        "best prompting": trained.best(ledger, era.fingerprint, adapter=False),
        "best training": trained.best(ledger, era.fingerprint, adapter=True),
        "frontier": era.frontier_run,
    }
    return {name: run for name, run in runs.items() if run}


def four(ledger: Ledger) -> pd.DataFrame:
    """A row each: quality with its interval and W/T/L, then the same split into form and content.

    Quality is the share of valid answers times the quality of those: a lever may win by form alone.
    """
    names = chosen(ledger)
    f = ledger.frame().set_index("id").loc[list(names.values())].reset_index()
    # As fractions: whole numbers that may be missing have no division without a remainder.
    valid = (f.cases - f.no_answer - f.unscored).astype("float64")
    f = f.assign(what=list(names), valid=[f"{int(n)} of {m}" for n, m in zip(valid, f.cases, strict=True)])
    # Quality is a mean with a 0 for each missing answer; this one has the zeros taken out.
    f["quality when valid"] = (f.quality * (f.cases - f.unscored) / valid.where(valid > 0)).astype("float64")
    f["interval"] = list(map(partial(interval, sign=""), f.low, f.high))
    return f[["what", "quality", "interval", "wtl", "valid", "quality when valid", "id"]]


def form(ledger: Ledger) -> Markdown:
    """How much of the way from stock to the champion is form (more valid answers) and how much is content."""
    era = Era.latest(ledger)
    if era.champion is None or len(era.climb) < 2:
        return bullets([], "One run has no gain to split.")
    first, last = era.climb.iloc[0], era.kept.iloc[-1]
    before, after = (1 - run.no_answer / run.cases for run in (first, last))
    gain = last.quality - first.quality
    # Valid answers that the first run lacked count at the worth that its own had; what is left is better content.
    worth, of = era.plain, "a set that fits any task, as it had none"
    if before:
        worth, of = first.quality / before, "its own"
    if worth is None:
        return Markdown(
            f"The gain of {gain:+.3f} since {first.id} cannot be split: it had no valid answer to begin with."
        )
    share = (after - before) * worth
    return Markdown(
        f"Of the gain of {gain:+.3f} since {first.id}, {share:+.3f} is form (valid answers to {100 * after:.0f} % of the tasks "
        f"instead of {100 * before:.0f} %, at the worth of {of}) and {gain - share:+.3f} is content (better answers)."
    )
