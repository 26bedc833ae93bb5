"""What luck alone would show: studies in a world where no experiment changes anything, under each keep rule.

Knows the outcomes of the published study and draws its noise from them; the rule and its simulation are those of
`lib.measure.keep`. Does not know the project's own runs. Every function is seeded: same arguments, same numbers. What
it takes for granted is said in published.ipynb.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from study import REPORTED, climb, new_bests, pools, qualities, verdicts

from lib.measure.keep import Course, accepts, alike, if_better, play
from lib.measure.stats import paired
from lib.show import Markdown

if TYPE_CHECKING:
    import pandas as pd

FAMILY = ("adapter_v2a_e1", "exp046", "exp056")  # one adapter, greedy: the nearest thing to "nothing changed"
STUDIES = 2000


def by_luck(runs: int) -> float:
    """New bests after the first run among equals without ties: 1/2 + 1/3 + ... + 1/runs. No noise enters.

    >>> round(by_luck(71), 2)
    3.85
    """
    return sum(1 / k for k in range(2, runs + 1))


@lru_cache
def null_studies(tasks: int = 30, runs: int = REPORTED, studies: int = STUDIES, seed: int = 0) -> dict[str, Course]:
    """How studies go in a null world under four rules.

    Keep if better; a paired p below 0.05; that and a floor from one A/A repeat of the first run; that and a second
    paired test on as many other tasks, at p below 0.005: ten looks there share 0.05.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    world = alike(pools(), (studies, runs + 1, tasks), rng)
    world, repeat = world[:, :runs], world[:, runs]
    sealed = alike(pools(), (studies, runs, tasks), rng)
    rule, sure = play(world, sealed, np.abs((repeat - world[:, 0]).mean(axis=1)))
    return {
        "keep if better": if_better(world),
        "paired": play(world, sealed)[0],
        "+ A/A floor": rule,
        "+ confirmed": sure,
    }


def luck(tasks: int = 30, runs: int = REPORTED, studies: int = STUDIES, seed: int = 0) -> pd.DataFrame:
    """The null world as a table: a row a rule. `studies fooled` is the share of studies that end with anything kept."""
    import numpy as np
    import pandas as pd

    rows = []
    for rule, course in null_studies(tasks, runs, studies, seed).items():
        last = course.gain[:, -1]
        rows.append(
            {
                "rule": rule, f"kept of {runs}": float(course.keeps.mean()),
                "studies fooled, %": 100 * float((course.keeps > 0).mean()),
                "climb": float(last.mean()), "climb, 1 study in 20": float(np.quantile(last, 0.95)),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def luck_paths(tasks: int = 30, runs: int = REPORTED, studies: int = STUDIES, seed: int = 0) -> pd.DataFrame:
    """For the chart, after each run: the lucky gain (mean, 5 and 95 %), the rule's, the confirmed, the study's own."""
    import numpy as np
    import pandas as pd

    world = null_studies(tasks, runs, studies, seed)
    gain = world["keep if better"].gain
    table = climb()
    own = table[(table.gate == "full") & ~table.invalid].running_all.to_numpy()
    low, high = np.quantile(gain, [0.05, 0.95], axis=0)
    return pd.DataFrame(
        {
            "run": range(1, runs + 1), "luck": gain.mean(axis=0), "low": low, "high": high,
            "rule": world["+ A/A floor"].gain.mean(axis=0),
            "confirmed": world["+ confirmed"].gain.mean(axis=0),
            "study": pd.Series(own - own[0]).reindex(range(runs)),
        }
    )  # fmt: skip


def noises(seed: int = 0, studies: int = STUDIES) -> pd.DataFrame:
    """How much the answer depends on whose verdicts the noise is taken from: lucky climb on 30 and on 10 tasks."""
    import numpy as np
    import pandas as pd

    kept = tuple(r for r in verdicts() if r in set(new_bests().run) and verdicts()[r]["gate"] == "full")
    rows = []
    for name, runs in (("eight runs", ()), ("five new bests", kept),
                       ("one adapter", FAMILY)):  # fmt: skip
        pool, climbs = pools(runs), []
        for tasks in (30, 10):
            # One run more than is used, as null_studies draws it: the same seed is the same world.
            world = alike(pool, (studies, REPORTED + 1, tasks), np.random.default_rng(seed))
            climbs.append(float(if_better(world[:, :REPORTED]).gain[:, -1].mean()))
        # Run and task means taken out: the spread that is left when nothing systematic is.
        left = pool - pool.mean(axis=0) - pool.mean(axis=1, keepdims=True) + pool.mean()
        freedom = (pool.shape[0] - 1) * (pool.shape[1] - 1)
        sd = float(np.sqrt((left**2).sum() / freedom))
        drawn = float(np.sqrt(pool.var(axis=0).mean()))
        rows.append((name, len(pool), drawn, sd, *climbs))
    names = ["noise taken from", "runs", "spread drawn", "spread unbiased", "climb on 30", "climb on 10"]
    return pd.DataFrame(rows, columns=names)


def power(seed: int = 0, looks: int = 1000) -> pd.DataFrame:
    """How often one look keeps a change that truly adds `true gain` to every task, by rule and number of tasks."""
    import numpy as np
    import pandas as pd

    rng, rows = np.random.default_rng(seed), []
    for gain in (0.0, 0.02, 0.05, 0.10):
        row: dict[str, Any] = {"true gain": f"{gain:+.2f}"}
        for tasks in (30, 100, 300):
            runs = alike(pools(), (looks, 2, tasks), rng)
            gains = runs[:, 0] + gain - runs[:, 1]
            if tasks == 30:
                row["keep if better, 30 tasks"] = float((gains.mean(axis=1) > 0).mean())
            row[f"paired, {tasks} tasks"] = float(accepts(gains).mean())
        rows.append(row)
    return pd.DataFrame(rows)


# --- in words ------------------------------------------------------------------------------------


def in_short() -> Markdown:
    """The page in one paragraph a finding, every number computed."""
    best, table = new_bests(), climb()
    tested = best[best.p.notna()]
    [held] = tested[tested.reading == "supported"].itertuples()
    rest = tested[tested.reading != "supported"]
    dev, full = [int((~g.invalid).sum()) for _, g in table.groupby("gate", sort=False)]
    world, gains = luck(), null_studies()["keep if better"].gain[:, full - 1]
    whole = paired(qualities("exp056"), qualities("adapter_e1_full"))
    plain, rule, sure = world.iloc[0], world.iloc[2], world.iloc[3]
    return Markdown(
        f"- **Nine new bests, one supported.** Of the nine, {len(best) - len(tested)} are the first run on their gate. "
        f"Of the other {len(tested)}, a paired test supports one: {held.run}, {held.delta:+.3f} over all tasks, "
        f"p = {held.p:.3f}. For the others p is {rest.p.min():.2f} to {rest.p.max():.2f}.\n"
        f"- **Seven steps is what luck gives.** Runs that do not differ at all set {by_luck(dev):.1f} new bests in "
        f"{dev} tries and {by_luck(full):.1f} in {full}: {by_luck(dev) + by_luck(full):.1f} together, against "
        f"{len(tested)} in the log.\n"
        f"- **Where nothing works, *keep if better* still reports progress**: of {REPORTED} runs it keeps "
        f"{plain.iloc[1]:.1f} and climbs {plain.climb:.3f} on thirty tasks, {luck(10).climb.iloc[0]:.3f} on ten. "
        f"notch's rule keeps {rule.iloc[1]:.2f}; after confirmation on other tasks {sure['studies fooled, %']:.2f} % "
        "of such studies still hold something false.\n"
        f"- **The climb as a whole is not luck.** From the first run on thirty tasks to the last new best it is "
        f"{whole.delta:+.3f} (p = {whole.p:.3f}); luck alone climbs so far in "
        f"{100 * (gains >= whole.delta).mean():.1f} % of studies."
    )


def after_the_step() -> Markdown:
    """The climb after the one supported step, against what luck climbs in as many runs."""
    table, tally = climb(), new_bests().set_index("run")["W/T/L"]
    full = table[(table.gate == "full") & ~table.invalid].reset_index(drop=True)
    at = int(full.index[full.run == "adapter_e1_g"][0])
    gained, left = full.running_all.iloc[-1] - full.running_all[at], len(full) - at
    gains = null_studies()["keep if better"].gain[:, left - 1]
    test = paired(qualities("exp056"), qualities("adapter_e1_g"))
    return Markdown(
        f"After that step the running best rises by {gained:.3f} in {left - 1} further runs. In a world where nothing "
        f"works it rises by {gains.mean():.3f} on average in as many, and by {gained:.3f} or more in "
        f"{100 * (gains >= gained).mean():.0f} % of studies. Tested as a whole, last new best against the supported "
        f"run, it is {test}. In wins, ties and losses it is {tally['adapter_e1_g']} becoming {tally['exp056']}."
    )
