"""The published study read again: its numbers come out as its data say, and the null world is calibrated."""

import ast
import json
import re

import drawing
import luck
import pytest
import study

from lib.report.site import PUBLISHED

# Quality over judged and over all cases, as the study's own files give them.
QUALITIES = {
    "baseline": (10, 10, 0.3075, 0.3075),
    "exp003": (10, 10, 0.3200, 0.3200),
    "exp011": (10, 10, 0.3225, 0.3225),
    "adapter_e1": (9, 10, 0.4500, 0.4050),
    "adapter_e1_full": (29, 30, 0.2836, 0.2742),
    "adapter_e1_g": (29, 30, 0.3621, 0.3500),
    "adapter_v2a_e1": (29, 30, 0.4095, 0.3958),
    "exp046": (29, 30, 0.4302, 0.4158),
    "exp056": (29, 30, 0.4397, 0.4250),
    "exp078": (30, 30, 0.4700, 0.4700),
    "adapter_orpo_e2": (29, 30, 0.3612, 0.3492),
    "adapter_orpo_op_e2": (29, 30, 0.3759, 0.3633),
}
NINE = QUALITIES.keys() - {"exp078", "adapter_orpo_e2", "adapter_orpo_op_e2"}


@pytest.fixture(scope="module")
def bests():
    return study.new_bests().set_index("run")


@pytest.mark.parametrize("run", QUALITIES)
def test_both_denominators_come_out_of_the_verdicts(run):
    row = study.recomputed().set_index("run").loc[run]
    judged, tasks, over_judged, over_all = QUALITIES[run]
    assert (row.judged, row.tasks) == (judged, tasks)
    assert row["over judged"] == pytest.approx(over_judged, abs=1e-4)
    assert row["over all"] == pytest.approx(over_all, abs=1e-4)


def test_every_logged_quality_follows_from_its_verdicts_and_its_denominator():
    for row in study.recomputed().to_dict("records"):
        assert row["logged"] == pytest.approx(row[f"over {row['divided by']}"], abs=1e-9)


def test_the_log_agrees_with_the_verdicts_on_quality_tally_and_denominator():
    log = study.log().set_index("run")
    for run, row in study.verdicts().items():
        tally = [sum(c["verdict"] == v for c in row["cases"]) for v in ("win", "tie", "loss")]
        assert [log.wins[run], log.ties[run], log.losses[run]] == tally
        assert log.quality[run] == row["logged"]
        assert log.over_all[run] == pytest.approx(sum(study.qualities(run).values()) / len(row["cases"]))


def test_the_data_files_hold_numbers_and_labels_only():
    short = re.compile(r"[A-Za-z0-9_]{1,24}")
    for path in (study.VERDICTS, study.LOG):
        for line in path.read_text(encoding="utf-8").splitlines()[1:]:
            row = json.loads(line)
            for case in row.pop("cases", []):
                assert set(case) == {"case", "verdict", "scores"} and isinstance(case["case"], int)
            assert all(short.fullmatch(v) for v in row.values() if isinstance(v, str))


def test_there_are_nine_new_bests_and_two_are_the_first_on_their_gate(bests):
    assert set(bests.index) == NINE
    assert set(bests.index[bests.p.isna()]) == {"baseline", "adapter_e1_full"}


def test_one_step_is_supported(bests):
    assert list(bests.index[bests.reading == "supported"]) == ["adapter_e1_g"]
    assert bests.delta["adapter_e1_g"] == pytest.approx(0.0758, abs=1e-4)
    assert bests.p["adapter_e1_g"] == pytest.approx(0.0052, abs=5e-4)
    others = bests.p[bests.reading == "not supported"]
    assert len(others) == 6 and others.min() > 0.15


def test_the_three_climbs_begin_anew_on_the_second_gate_and_end_apart():
    table = study.climb()
    assert len(table) == 71
    first = table[table.gate == "full"].iloc[0]
    assert first.running == first.running_all == first.supported == pytest.approx(0.2742, abs=1e-4)
    last = table.iloc[-1]
    assert [last.running, last.running_all, last.supported] == pytest.approx([0.4397, 0.4250, 0.3500], abs=1e-4)


def test_a_struck_run_lifts_no_running_best():
    table = study.climb()
    assert table.quality[table.invalid].max() > table.running.max()


def test_the_lever_table_of_the_report_is_explained_to_the_last_run():
    told = study.claims().set_index("the report")["its data"]["71 experiments: 1 + 29 + 34 + 2 + 2"]
    parts = r"has (\d+) runs.* (\d+) of fine.*\((\d+) on ten.* (\d+) on thirty, (\d+) of.* (\d+) of ORPO"
    untuned, tuned, dev, full, struck, orpo = map(int, re.search(parts, told).groups())
    assert untuned + tuned + orpo == 71 and dev + full == tuned
    assert 1 + untuned + (full - struck) + orpo == 68


def test_coverage_is_not_three_unrounded():
    cover = study.dimensions().set_index("run").coverage
    assert (cover.idxmin(), cover.idxmax()) == ("baseline", "exp078")
    assert [cover.min(), cover.max()] == pytest.approx([2.6, 3.4667], abs=1e-4)


def test_scores_and_verdicts_add_up_to_the_quality_over_judged_cases():
    table = study.dimensions().set_index("run")
    for run, (_, _, over_judged, _) in QUALITIES.items():
        assert table["from scores"][run] + table["from verdicts"][run] == pytest.approx(over_judged, abs=1e-4)


def test_the_verdict_is_half_explained_by_the_scores():
    found = study.explained()
    assert found["cases"] == 272
    assert 0.4 < found["r2"] < 0.6 and 0.5 < found["first"] < 0.6


# --- the page ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "draw, table",
    [
        (drawing.climb, study.climb),
        (drawing.steps, study.new_bests),
        (drawing.luck, luck.luck_paths),
    ],
)
def test_each_picture_says_its_numbers(draw, table):
    picture = draw(table())
    assert picture.svg.startswith("<svg")
    assert len(re.findall(r"\d\.\d{3}", picture.alt)) >= 4


def cells(kind):
    found = json.loads(PUBLISHED.read_text(encoding="utf-8"))["cells"]
    return [c for c in found if c["cell_type"] == kind]


def test_the_page_is_short_cells_of_calls():
    for cell in cells("code"):
        source = "".join(cell["source"])
        kinds = {type(node) for node in ast.walk(ast.parse(source))}
        assert not kinds & {ast.FunctionDef, ast.ClassDef, ast.For, ast.If, ast.Lambda, ast.ListComp, ast.With}
        assert 1 <= len([line for line in source.splitlines() if line.strip()]) <= 4


def test_the_committed_page_shows_what_the_code_says_now():
    shown = ["".join(o["data"].get("text/markdown", "")) for c in cells("code") for o in c["outputs"]]
    for told in (luck.in_short(), luck.after_the_step(), study.later(), study.shared()):
        assert told.text in shown


def test_the_numbers_in_its_prose_are_those_of_the_tables(bests):
    prose = "\n".join("".join(c["source"]) for c in cells("markdown"))
    assert f"fell from {bests.logged['adapter_e1']:.3f} to {bests.logged['adapter_e1_full']:.3f}" in prose
    assert f"seven times its p is {7 * bests.p['adapter_e1_g']:.2f}" in prose
    log = study.log().set_index("run")
    assert f"0.274 to {log.quality['adapter_e1_g']:.3f} is 0.274 to {log.over_all['adapter_e1_g']:.3f}" in prose
    dims = study.dimensions().set_index("run")
    moved = dims.loc["exp056"] - dims.loc["adapter_e1_g"]
    assert (
        f"({moved.coverage:+.2f}; specificity {moved.specificity:+.2f}, naturalness {moved.naturalness:+.2f})" in prose
    )
    assert f"add {moved['from scores']:.2f} to the quality" in prose
    assert len(study.qualities("baseline").keys() & study.qualities("exp056").keys()) == 10
