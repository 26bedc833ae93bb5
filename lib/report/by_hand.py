"""What a blind reading of the sealed gate makes of the climb: each source by hand beside the offline judge.

Knows the lines of `lib.runs.by_hand`. Does not know how they were taken. Nothing is drawn from them for the climb.
"""

from __future__ import annotations

from statistics import fmean

import pandas as pd

from lib import show
from lib.measure.judge import DIMS
from lib.measure.keep import ALPHA
from lib.measure.stats import Paired, bca, paired
from lib.report.era import Era
from lib.runs import by_hand
from lib.runs.by_hand import ByHand
from lib.runs.ledger import Ledger
from lib.show import Markdown, bullets, chance, interval, plural


def sources(ledger: Ledger, name: str = by_hand.VERDICTS) -> dict[str, list[ByHand]]:
    """The lines of the newest era by source, in the order of the file; {} where nothing was read in it."""
    if by_hand.about(ledger.folder, name).get("fingerprint") != Era.latest(ledger).fingerprint:
        return {}
    found: dict[str, list[ByHand]] = {}
    for line in by_hand.read(ledger.folder, name):
        found.setdefault(line.source, []).append(line)
    return found


def table(ledger: Ledger) -> pd.DataFrame:
    """A row a source: quality by hand with its interval, W/T/L by hand, then both by the offline judge."""
    made = []
    for source, lines in sources(ledger).items():
        hand = [line.quality for line in lines]
        made.append({
            "what": source, "valid": f"{sum(bool(line.questions) for line in lines)} of {len(lines)}",
            "quality by hand": fmean(hand), "interval": interval(*bca(hand), ""),
            "W/T/L by hand": _wtl([line.verdict for line in lines if line.questions]),
            "quality offline": sum(line.offline for line in lines) / len(lines),
            "W/T/L offline": _wtl([line.offline_verdict for line in lines if line.questions]),
            "id": lines[0].run,
        })  # fmt: skip
    return pd.DataFrame(made)


def _wtl(verdicts: list[str]) -> str:
    return "/".join(str(verdicts.count(verdict)) for verdict in ("win", "tie", "loss"))


def _ends(found: dict[str, list[ByHand]]) -> list[tuple[float, str]]:
    """Mean quality by hand of what has no sealed look, the weakest first: an any-task set, the frontier's own answers."""
    ends = []
    for source, lines in found.items():
        if not lines[0].run:
            ends.append((fmean(line.quality for line in lines), source))
    return sorted(ends)


def _reader(ledger: Ledger, name: str = by_hand.VERDICTS) -> str:
    return str(by_hand.about(ledger.folder, name).get("model", "somebody")).split(";")[0]


def distance(ledger: Ledger) -> str:
    """How far the champion came by hand between the weakest and the strongest other source; "" if that was not read."""
    era, found = Era.latest(ledger), sources(ledger)
    champion, ends, own = era.champion, _ends(found), None
    for lines in found.values():
        look = ledger.by_id.get(lines[0].run)
        if champion and look and ledger.of(look) == champion.id:
            own = fmean(line.quality for line in lines)
    if champion is None or own is None or len(ends) < 2:
        return ""
    (low, plain), (high, best) = ends[0], ends[-1]
    judged, reader = "", _reader(ledger)
    if champion.judge == "offline":
        judged = f"**Those scores are a local formula's, fitted to {reader}.** "
    return (
        f"\n\n{judged}Read blind by {reader} itself on {plural(max(map(len, found.values())), 'sealed task')} the champion gets "
        f"{own:.3f}, {best} {high:.3f}, {plain} {low:.3f}: {100 * (own - low) / (high - low):.0f} % of the way."
    )


def beside(ledger: Ledger) -> Markdown:
    """The table, and below it what of the climb a blind reading upholds; one sentence where nothing was read."""
    found = sources(ledger)
    if not found:
        return Markdown("The sealed tasks have not been read by hand: the climb stands on the offline judge alone.")
    tasks = plural(max(map(len, found.values())), "sealed task")
    lead = f"Once the climb was closed, {_reader(ledger)} read the answers to {tasks} blind, through the judge's frozen prompts alone{_since(ledger, found)}:"
    return Markdown(f"{lead}\n\n{show.table(table(ledger)).text}\n\n{bullets(_upheld(found)).text}")


def _since(ledger: Ledger, found: dict[str, list[ByHand]]) -> str:
    """What was tried after the last of these looks, and how much of it was kept."""
    f = ledger.frame()
    looks = f.index[f.id.isin([lines[0].run for lines in found.values()])]
    later = f[f.competes & (f.fingerprint == Era.latest(ledger).fingerprint) & (f.index > looks.max())]
    if later.empty:
        return ""
    return f" ({plural(len(later), 'run')} since then, {(later.status == 'kept').sum() or 'none'} kept)"


def _test(found: dict[str, list[ByHand]], source: str, other: str) -> Paired:
    """Two sources paired by case, by hand."""
    return paired(*({line.case: line.quality for line in found[name]} for name in (source, other)))


def _upheld(found: dict[str, list[ByHand]]) -> list[str]:
    """For each step of the climb, in the order of the looks, whether its gain on the sealed gate stands by hand too."""
    # Controls and stored answers have no sealed look, and are no steps of the climb.
    climbed = [source for source, lines in found.items() if lines[0].run]
    lines = []
    for before, after in zip(climbed, climbed[1:], strict=False):
        offline = paired(*({line.case: line.offline for line in found[source]} for source in (after, before)))
        hand = _test(found, after, before)
        says = f"{hand.delta:+.3f} (95 % {interval(hand.low, hand.high)}, {chance(hand.p)}) by hand"
        if offline.delta <= 0:
            word = "no gain on the sealed tasks to uphold"
        elif hand.p < ALPHA and hand.delta > 0:
            word = "upheld"
        else:
            word = "**not upheld**"
        lines.append(f"From {before} to {after}: {offline.delta:+.3f} offline, {says}: {word}.")
    if _ends(found):
        _, plain = _ends(found)[0]
        tests = {source: _test(found, source, plain) for source in climbed}
        texts = (f"{source} {test.delta:+.3f} ({chance(test.p)})" for source, test in tests.items())
        lines.append(f"Beside the {plain}, by hand: {'; '.join(texts)}.")
    wins = sum(line.verdict == "win" for source in climbed for line in found[source])
    won = "no case"
    if wins:
        won = plural(wins, "case")
    lines.append(f"By hand the small model wins {won} against gold.")
    return lines


WORTH = {"win": 1.0, "tie": 0.5, "loss": 0.0}


def blind(ledger: Ledger) -> Markdown:
    """The verdicts on some sources by a reader who was told to leave one dimension out, beside those with all five."""
    full, found, made = sources(ledger), sources(ledger, by_hand.BLIND), []
    if not found:
        return Markdown("")
    without = DIMS[by_hand.about(ledger.folder, by_hand.BLIND)["without"]]
    for source, lines in found.items():
        before, after = _verdicts(full[source]), _verdicts(lines)
        test = paired(dict(after.map(WORTH)), dict(before.map(WORTH)))
        made.append({
            "what": source, "W/T/L by hand": _wtl(list(before)), f"without {without}": _wtl(list(after)),
            "delta": test.delta, "interval": interval(test.low, test.high), "p": test.p,
        })  # fmt: skip
    f = pd.DataFrame(made)
    eased = ", ".join(f.what[(f.p < ALPHA) & (f.delta > 0)])
    reason = f"Beyond chance the verdict eases for {eased}: there {without} is a part of the reason."
    if not eased:
        reason = f"For none of them does the verdict ease beyond chance: they stand as they do without {without} too."
    lead = f"{_reader(ledger, by_hand.BLIND)} read answers to sealed tasks blind once more, by prompts that leave {without} out (a win is 1, a tie 0.5):"
    return Markdown(f"{lead}\n\n{show.table(f).text}\n\n{reason}")


def _verdicts(lines: list[ByHand]) -> pd.Series:
    """The verdicts on valid answers by case."""
    return pd.Series({line.case: line.verdict for line in lines if line.questions})
