"""The climb stays readable: labels never cover each other, however many runs were kept."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from lib.report import figures


def climb_of(qualities, kept):
    n = len(qualities)
    names = [f"{i:04d}-a-rather-long-name-{i}" for i in range(1, n + 1)]
    return pd.DataFrame(
        {
            "n": range(1, n + 1), "id": names, "lever": "prompting", "quality": qualities,
            "status": ["kept" if k else "discarded" for k in kept], "running": np.maximum.accumulate(qualities),
            "champion": np.maximum.accumulate(qualities), "confirmed": [None] * n, "low": [None] * n, "high": [None] * n,
        }
    )  # fmt: skip


def drawn(table, anchors):
    figure, ax = figures.canvas(8, 4.4)
    figures.draw_climb(table, anchors, ax)
    figure.draw_without_rendering()
    return [(t.get_text(), t.get_window_extent()) for t in ax.texts if t.get_text()], ax


@pytest.mark.parametrize("count", [1, 2, 12, 80, 400])
@pytest.mark.parametrize("every", [1, 7])
def test_labels_of_kept_runs_never_cover_each_other(count, every):
    rng = np.random.default_rng(count)
    qualities = 0.2 + 0.002 * np.arange(count) / max(1, count / 80) + rng.normal(0, 0.01, count)
    texts, _ = drawn(climb_of(qualities, [i % every == 0 for i in range(count)]), {})
    assert texts and [(a[0], b[0]) for a, b in combinations(texts, 2) if a[1].overlaps(b[1])] == []


def test_the_newest_kept_run_and_the_first_are_labelled_before_others():
    made = [
        figures._label(x, y, t, 100)
        for x, y, t in (
            (1, 0.2, "first"),
            (3, 0.2, "second"),
            (88, 0.3, "before"),
            (90, 0.3, "late"),
            (92, 0.3, "last"),
        )
    ]
    placed = figures.fitting(made, 0.1)
    assert [label.text for label in placed] == ["last", "first", "late", "second"]  # above, else below, else nowhere
    assert placed[2].y < 0.3 - 0.1 and placed[3].y < 0.2 - 0.1
    assert [label.text for label in figures.fitting(made[:1], 0.1)] == ["first"]
    assert figures.fitting([], 0.1) == []


def test_the_axis_runs_from_zero_to_gold_and_the_bottom_is_a_band():
    figure, ax = figures.canvas(8, 4.4)
    figures.draw_climb(climb_of([0.2, 0.21], [True, False]), {"gold against itself": 0.75}, ax, [0.12, 0.17, 0.15])
    low, high = ax.get_ylim()
    assert low == 0 and 0.75 < high < 0.85 and "controls 0.12 to 0.17" in [t.get_text() for t in ax.texts]


def test_labels_of_lines_close_to_each_other_are_pushed_apart_and_none_is_missing():
    lines = {"a": 0.15, "b": 0.151, "c": 0.16, "gold against itself": 0.75}
    texts, _ = drawn(climb_of([0.2, 0.21], [True, False]), lines)
    assert {"a 0.15", "b 0.15", "c 0.16", "gold against itself 0.75"} <= {t for t, _ in texts}
    assert [(a[0], b[0]) for a, b in combinations(texts, 2) if a[1].overlaps(b[1])] == []
