"""Tables, sentences and figures as functions of a ledger. The ledgers are made up: no run, no kernel."""

import json
import re
import time

import pytest

from lib import show
from lib.files import canonical, sha256, sums
from lib.lab.experiment import Experiment
from lib.log import START
from lib.measure import calibrate
from lib.measure.answer import NoAnswer
from lib.measure.judge import DIMENSIONS
from lib.report import figures, levers, measured, tables
from lib.report.era import Era, eras
from lib.runs.ledger import Ledger
from lib.runs.record import record_of
from lib.runs.seal import LEDGER
from lib.show import Markdown

ERA = "f" * 64


def scores(quality, **changes):
    dims = {d: 3.0 for d in DIMENSIONS}
    return {"quality": quality, "low": quality - 0.05, "high": quality + 0.05, "dims": dims, "wins": 10, "ties": 5,
            "losses": 14, "no_answer": 1, "unscored": 0} | changes  # fmt: skip


def made(number, status="kept", quality=0.3, slug="run", **changes):
    """A record as the ledger holds it; quality None is a run without scores."""
    plain = {
        "kind": "experiment", "hypothesis": f"hypothesis {number}", "predicted": 0.01, "min_effect": 0.02,
        "lever": "prompting", "pipeline": [{"step": "ask"}], "model": "toy", "adapter": "", "decoding": {},
        "judge": "offline", "gate": "full", "seed": 0, "fingerprint": ERA, "code": {}, "status": status,
        "scores": {} if quality is None else scores(quality), "decision": {"reason": "r", "delta": None},
        "cost": {} if quality is None else {"calls": 60, "generation_tokens": 3000}, "id": f"{number:04d}-{slug}",
        "slug": slug,
    }  # fmt: skip
    return record_of(plain | changes).as_dict()


def ledger_of(tmp_path, *records):
    return Ledger(tmp_path, [record_of(r) for r in records])


@pytest.fixture
def climb(tmp_path):
    """A baseline, a lucky discard, a kept run, one that crashed, references, another era, two looks."""
    return ledger_of(
        tmp_path,
        made(1, quality=0.30, slug="baseline", lever="baseline"),
        made(2, "reference", 0.30, "again", lever="a/a", of="baseline", seed=1),
        made(3, "reference", 0.50, "larger", lever="anchor", model="large"),
        made(4, "indecisive", 0.45, "lucky", lever="decoding", decoding={"temp": 0.7}),
        made(
            5,
            "kept",
            0.40,
            "better",
            pipeline=[{"step": "ask", "n": 8}, {"step": "prune"}],
            decision={"reason": "r", "delta": 0.1, "p": 0.01, "against": "0001-baseline"},
        ),
        made(6, "crashed", None, "broken"),
        made(7, "indecisive", 0.60, "screened", gate="dev"),
        made(8, "kept", 0.33, "look", kind="confirm", gate="confirm", of="0001-baseline"),
        made(
            9,
            "kept",
            0.43,
            "look",
            kind="confirm",
            gate="confirm",
            of="0005-better",
            decision={"reason": "r", "delta": 0.1, "against": "0008-look"},
        ),
        made(10, "discarded", 0.20, "worse", lever="schema", pipeline=[{"step": "ask", "schema": "lines"}]),
    )


EMPTY = [
    tables.caveats, tables.runs, tables.confirmations, tables.headlines,
    tables.parameters, eras,
]  # fmt: skip


@pytest.mark.parametrize("table", EMPTY, ids=lambda f: f.__name__)
def test_an_empty_ledger_gives_no_row_and_no_number(tmp_path, table):
    content = table(ledger_of(tmp_path))
    text = content.text if isinstance(content, Markdown) else " ".join(content if isinstance(content, list) else [])
    assert not re.search(r"\d", text) and getattr(content, "empty", True)


@pytest.mark.parametrize("table", [tables.climb, levers.classes, tables.dimensions], ids=lambda f: f.__name__)
def test_an_era_without_runs_is_an_empty_table(tmp_path, table):
    assert (
        table(ledger_of(tmp_path), "").empty and tables.show(table(ledger_of(tmp_path), "")).text == "Nothing here yet."
    )


def test_the_headlines_of_an_empty_ledger_say_what_to_do(tmp_path):
    found = tables.headlines(ledger_of(tmp_path))
    assert len(found) == 3 and "no run" in found[0] and "make study" in found[2]


def test_the_headlines_of_runs_of_the_dev_gate_alone_say_what_goes_on_and_not_how_to_begin(tmp_path):
    found = tables.headlines(ledger_of(tmp_path, made(1, "reference", gate="dev")))
    assert found == ["no run on the full gate yet, which alone keeps", "nothing confirmed",
                     "what screened well goes on with `-p gate full`"]  # fmt: skip


def test_the_climb_leaves_out_references_other_gates_and_crashes(climb):
    found = tables.climb(climb, ERA)
    assert list(found["id"]) == ["0001-baseline", "0004-lucky", "0005-better", "0010-worse"]
    assert list(found["n"]) == [1, 4, 5, 10]


def test_the_running_best_keeps_the_luck_that_the_champion_does_not(climb):
    found = tables.climb(climb, ERA)
    assert list(found["running"]) == [0.30, 0.45, 0.45, 0.45]
    assert list(found["champion"]) == [0.30, 0.30, 0.40, 0.40]


def test_the_confirmed_best_is_what_the_last_run_that_won_on_the_sealed_gate_got_there(climb):
    found = tables.climb(climb, ERA)
    assert list(found["confirmed"].isna()) == [True, True, False, False]
    assert list(found["confirmed"][2:]) == [0.43, 0.43] and list(found["low"][2:]) == pytest.approx([0.38, 0.38])


def test_a_lost_look_confirms_nothing(tmp_path):
    lost = made(2, "discarded", 0.2, "look", kind="confirm", gate="confirm", of="0001-run")
    found = tables.climb(ledger_of(tmp_path, made(1), lost), ERA)
    assert found["confirmed"].isna().all()


def test_runs_of_another_era_are_in_no_table_of_this_one(tmp_path, climb):
    other = made(11, quality=0.9, slug="other", fingerprint="e" * 64)
    both = ledger_of(tmp_path, *climb.records, other)
    assert "0011-other" not in set(tables.climb(both, ERA)["id"])
    assert eras(both) == [ERA, "e" * 64] and tables.latest(both) == "e" * 64
    assert "2 eras" in tables.caveats(both).text and "eras" not in tables.caveats(climb).text


def test_the_page_says_that_the_question_about_3b_stays_open_and_who_judged(tmp_path):
    text = tables.caveats(ledger_of(tmp_path, made(1, "kept", 0.2, model="smollm2"))).text
    assert "about 3B models the question stays open" in text and "1 model (smollm2), one job" in text
    assert "agreement with Claude and not with people" in text


def test_the_table_of_runs_hides_nothing(climb):
    found = tables.runs(climb)
    assert list(found["id"]) == [r.id for r in climb.records]
    assert found.set_index("id").loc["0001-baseline", "wtl"] == "10/5/14"


def test_levers_are_counted_with_their_best_run_and_its_cost(climb):
    found = levers.classes(climb, ERA).set_index(["lever", "gate"])
    full, dev = "full-30", "dev-30"
    assert list(found.index) == [
        ("baseline", full), ("decoding", full), ("prompting", full), ("prompting", dev), ("schema", full),
    ]  # fmt: skip
    best = found.loc[("prompting", full)]
    assert (best["runs"], best["kept"], best["best run"], best["p"]) == (1, 1, "0005-better", 0.01)
    assert (best["calls_a_case"], best["new_tokens_a_case"]) == (2, 100)


def test_parameters_show_only_what_differs(climb):
    found = tables.parameters(climb)
    assert {"id", "status", "lever", "model", "pipeline", "decoding", "gate", "seed", "of"} == set(found.columns)
    assert found.set_index("id").loc["0004-lucky", "decoding"] == "temp=0.7"


def test_parameters_of_one_run_show_them_all(tmp_path):
    assert {"pipeline", "judge", "min_effect"} <= set(tables.parameters(ledger_of(tmp_path, made(1))).columns)


def test_a_pipeline_reads_as_its_steps_in_order(tmp_path):
    steps = [{"step": "ask", "n": 8}, {"step": "prune", "by": "last"}]
    found = tables.parameters(ledger_of(tmp_path, made(1), made(2, pipeline=steps)))
    assert list(found["pipeline"]) == ["ask", "ask(n=8) → prune(by=last)"]


def test_dimensions_are_those_of_baseline_champion_and_anchors(climb):
    found = tables.dimensions(climb, ERA)
    assert list(found["id"]) == ["0001-baseline", "0005-better", "0003-larger"]
    assert list(found.columns[2:]) == [d.replace("_", "-") for d in DIMENSIONS]


def test_every_look_is_listed_in_order_with_what_came_of_it(climb):
    found = tables.confirmations(climb)
    assert list(found["look"]) == [1, 2] and list(found["id"]) == ["0001-baseline", "0005-better"]
    assert list(found["confirmed"]) == ["first look: nothing to beat yet", "yes"]


def test_looks_of_every_era_are_counted_wherever_looks_are_counted(tmp_path, climb):
    """They wear out one gate, whatever judge saw them."""
    other = made(11, "kept", 0.3, "look", kind="confirm", gate="confirm", of="0001-baseline", fingerprint="e" * 64)
    ledger = ledger_of(tmp_path, other, *climb.records)
    assert len(tables.confirmations(ledger)) == 3
    assert "looks so far: 3" in tables.headlines(ledger)[2]


def test_anchors_are_the_anchor_runs_of_this_era(climb):
    assert tables.anchors(climb, ERA) == {"large": 0.50}
    assert tables.anchors(climb, "e" * 64) == {}


def test_what_a_new_base_was_tried_with_is_no_line_of_the_chart(tmp_path):
    anchors = [
        made(n, "reference", 0.1 * n, slug, lever="anchor", model=slug) for n, slug in ((1, "large"), (2, "bare"))
    ]
    found = {"groups": [{"group": "stock", "runs": [{"run": "0002-bare"}]}]}
    tried = made(3, "reference", None, "base", kind="models", found=found)
    assert tables.anchors(ledger_of(tmp_path, *anchors, tried), ERA) == {"large": 0.1}


def test_an_anchor_measured_again_is_one_line_and_another_pipeline_says_so(tmp_path):
    ledger = ledger_of(
        tmp_path,
        made(1, "reference", 0.40, "large", lever="anchor", model="large"),
        made(2, "reference", 0.41, "large-again", lever="anchor", model="large"),
        made(
            3,
            "reference",
            0.50,
            "champion",
            lever="anchor",
            model="large",
            pipeline=[{"step": "ask"}, {"step": "prune"}],
        ),
        made(4, "reference", 0.45, "warm", lever="anchor", model="large", decoding={"temp": 0.7}),
        made(5, "reference", 0.99, "screen", lever="anchor", model="large", gate="dev"),
    )
    assert tables.anchors(ledger, ERA) == {"large": 0.41, "large, ask prune": 0.50, "large (0004)": 0.45}
    assert list(tables.dimensions(ledger, ERA)["id"]) == ["0002-large-again", "0003-champion", "0004-warm"]


def test_gold_against_itself_is_the_ceiling_of_a_comparison_where_no_calibration_measured_it(tmp_path):
    found = {"groups": [{"group": "ask", "runs": []}], "ceiling": scores(0.7)}
    record = made(2, "reference", None, "models", kind="models", found=found)
    assert tables.anchors(ledger_of(tmp_path, made(1), record), ERA) == {"gold against itself": 0.7}
    assert tables.anchors(ledger_of(tmp_path, made(1)), ERA) == {}


def test_the_headlines_name_baseline_champion_luck_and_looks(climb):
    first, _, second, third = tables.headlines(climb)
    assert "0.300 (0001-baseline) to 0.400 (0005-better)" in first and "1 of 3 changes kept" in first
    assert "luckiest run shows 0.450" in first
    assert "0005-better (0.430 there); looks so far: 2" in second and "toy" in third


@pytest.mark.parametrize("status", ["incomplete", "indecisive"])
def test_an_era_in_which_nothing_was_kept_counts_no_negative_keeps(tmp_path, status):
    found = ledger_of(tmp_path, made(1, status))
    assert "-1" not in tables.headlines(found)[0]


def test_a_crash_alone_leaves_every_page_readable(tmp_path):
    found = ledger_of(tmp_path, made(1, "crashed", None))
    for figure in (figures.climb, figures.dims):
        assert "no runs yet" in figure(found).alt
    assert len(tables.headlines(found)) == 3
    [row] = show.table(tables.runs(found)).text.splitlines()[2:]
    assert "0001-run" in row and "crashed" in row and "nan" not in row.lower() and "NA" not in row


def test_a_table_for_a_notebook_has_short_numbers_and_no_broken_cells(tmp_path):
    found = tables.show(tables.runs(ledger_of(tmp_path, made(1, slug="a|b"))))
    assert "0001-a\\|b" in found.text and "0.300" in found.text and "nan" not in found.text.lower()
    assert len({line.replace("\\|", "").count("|") for line in found.text.splitlines()}) == 1


# --- the two ends of the scale

CASES = [f"c{i}" for i in range(12)]
LEVELS = {"gold": 0.75, "stored:b": 0.5, "stored:a": 0.4, "toy template": 0.2, "gold of another task": 0.15,
          "any-task set": 0.1}  # fmt: skip


def scaled(tmp_path, champion, levels=LEVELS, gate="full"):
    """A ledger with a champion of that quality in every case, and a calibration whose controls have theirs."""
    rows = [calibrate.row_of("control", c, NoAnswer("x"), kind=name) | {"quality": q}
            for name, q in levels.items() for c in CASES]  # fmt: skip
    found = {"floor": 0.01, "controls": [scores(q, name=name) for name, q in levels.items()]}
    records = [made(1, quality=champion), made(2, "reference", None, kind="calibrate", gate=gate, found=found)]
    for record, lines in zip(records, ([{"case": c, "quality": champion} for c in CASES], rows), strict=True):
        (tmp_path / record["id"]).mkdir(parents=True)
        (tmp_path / record["id"] / "cases.jsonl").write_text("".join(f"{canonical(line)}\n" for line in lines))
    return ledger_of(tmp_path, *records)


def test_the_headline_is_the_share_of_the_way_from_the_any_task_set_to_the_stronger_frontier(tmp_path):
    ledger = scaled(tmp_path, 0.3)
    assert Era(ledger, ERA).share == pytest.approx(0.5)
    said = "the champion has come 50 % of the way from a set that fits any task (0.100) to the frontier's own answers"
    assert said in tables.headlines(ledger)[1] and said[4:] not in measured.scale(ledger).text  # on the first screen
    assert "template" not in " ".join(tables.headlines(ledger))


@pytest.mark.parametrize("champion", [0.2, 0.205, 0.05])
def test_a_champion_that_does_not_beat_every_control_at_the_bottom_is_no_better_than_a_template(tmp_path, champion):
    ledger = scaled(tmp_path, champion)
    for text in (tables.headlines(ledger)[1], measured.scale(ledger).text):
        assert "0001-run is no better than a template: " in text and "to the toy template" in text


def test_controls_stand_in_the_chart_and_in_a_table_with_the_champions_difference(tmp_path):
    ledger = scaled(tmp_path, 0.3)
    assert tables.anchors(ledger, ERA) == {"stored:b": 0.5, "gold against itself": 0.75}
    assert "any-task set 0.100, stored:b 0.500, gold against itself 0.750" in figures.climb(ledger).alt
    text = measured.scale(ledger).text
    assert "From 0002-run" in text and "| toy template | 0.200 |" in text and "+0.200" in text


def test_controls_of_another_gate_or_era_are_not_those_of_the_climb(tmp_path):
    assert Era(scaled(tmp_path / "dev", 0.3, gate="dev"), ERA).controls.empty
    assert Era(scaled(tmp_path / "full", 0.3), "e" * 64).controls.empty


def test_before_any_calibration_the_report_says_which_command_measures_the_controls(tmp_path, climb):
    assert "`notch calibrate` measures it" in tables.headlines(climb)[1]
    assert "`notch calibrate` measures it" in measured.scale(climb).text and Era(climb, ERA).share is None


def test_sealed_stored_answers_are_the_frontier_where_no_calibration_is(tmp_path):
    anchors = [made(n, "reference", q, f"a{n}", lever="anchor", model=m) for n, q, m in
               ((2, 0.4, "stored:a"), (3, 0.5, "stored:b"))]  # fmt: skip
    assert tables.anchors(ledger_of(tmp_path, made(1), *anchors), ERA) == {"stored:a": 0.4, "stored:b": 0.5}
    without = {name: q for name, q in LEVELS.items() if not name.startswith("stored:")}
    ledger = scaled(tmp_path, 0.3, without)
    assert "stores no frontier" in tables.headline(Era(ledger, ERA))
    assert Era(ledger_of(tmp_path, *ledger.records, *anchors), ERA).share == pytest.approx(0.5)


# --- seals


def seal_of(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "record.json").write_text("{}")
    (tmp_path / name / "SEALED").write_text(sums(tmp_path / name, ["record.json"]))


def test_a_report_says_that_a_seal_is_broken_and_is_silent_while_none_is(tmp_path):
    ledger = ledger_of(tmp_path, made(1), made(2))
    for record in ledger.records:
        seal_of(tmp_path, record.id)
    assert "seal" not in tables.caveats(ledger).text.lower()
    (tmp_path / "0002-run" / "record.json").write_text("{} ")
    text = tables.caveats(ledger).text
    assert text.startswith(
        "- **Broken seal, so what stands here cannot be trusted: 0002-run/record.json: changed since"
    )
    assert "1 fault in all; `notch verify` names each.**" in text


# --- figures


def test_figures_have_alt_text_with_their_numbers(climb):
    for drawn, said in ((figures.climb(climb), "4 runs"), (figures.dims(climb), "0005 toy")):
        assert said in drawn.alt and "nan" not in drawn.alt and drawn.svg.startswith("<svg")
    data, meta = figures.climb(climb)._repr_mimebundle_()
    assert f'aria-label="{data["text/plain"]}"' in data["image/svg+xml"] and data["text/plain"] and not meta


def test_the_climb_in_words_gives_first_running_best_champion_and_confirmed(climb):
    alt = figures.climb(climb).alt
    assert "from 0.300" in alt and "reaches 0.450" in alt and "champion 0.400" in alt and "confirmed best 0.430" in alt


def test_figures_of_an_empty_ledger_say_so(tmp_path):
    for drawn in (figures.climb(ledger_of(tmp_path)), figures.dims(ledger_of(tmp_path))):
        assert "no runs yet" in drawn.alt and drawn.svg


def test_a_figure_is_drawn_when_nothing_was_kept(tmp_path):
    found = ledger_of(tmp_path, made(1, "incomplete"))
    assert "over 1 run: " in figures.climb(found).alt and figures.dims(found).alt


def test_a_run_without_any_answer_has_no_dimensions_and_is_not_called_nan(tmp_path):
    none = made(2, "reference", 0.0, "silent", lever="anchor", scores=scores(0.0, dims={}))
    assert "nan" not in figures.dims(ledger_of(tmp_path, made(1), none)).alt


def test_the_same_ledger_draws_the_same_bytes(climb):
    assert figures.climb(climb).svg == figures.climb(climb).svg


def test_a_pipeline_is_drawn_with_its_steps_in_words():
    drawn = figures.pipeline(Experiment(pipeline=[{"step": "ask", "n": 8}, {"step": "prune"}]))
    assert drawn.alt.startswith("Pipeline: task") and "ask (n=8), then prune" in drawn.alt


# --- many runs


def test_ten_thousand_runs_are_read_and_tabled(tmp_path):
    before, lines = START, []
    for number in range(1, 10_001):
        kept = number % 100 == 1
        record = made(
            number,
            "kept" if kept else "discarded",
            0.1 + number / 20_000,
            lever="schema" if kept else "decoding",
            seed=number // 2,
        )
        line = canonical({"n": number, "prev": before, "id": record["id"], "seal": "0" * 64, "record": record})
        before = sha256(line)
        lines.append(line)
    (tmp_path / LEDGER).write_text("".join(f"{line}\n" for line in lines))
    began = time.perf_counter()
    found = Ledger.read(tmp_path)
    assert len(tables.runs(found)) == len(tables.climb(found, ERA)) == len(tables.parameters(found)) == 10_000
    assert levers.classes(found, ERA).set_index("lever").loc["schema", "kept"] == 100
    assert "99 of 5000 changes kept" in tables.headlines(found)[0]
    assert json.loads(lines[-1])["record"]["id"] == found.records[-1].id == "10000-run"
    assert time.perf_counter() - began < 20  # seconds here: 1; a quadratic table would take minutes


def test_usefulness_is_shown_only_where_claude_judged(tmp_path):
    asked = {"useful": {"mean": 3.4, "low": 3.0, "high": 3.8, "cases": 30, "no_answer": 1, "unscored": 0}}
    offline = ledger_of(tmp_path, made(1, found=asked))
    assert "useful" not in tables.runs(offline)
    paid = ledger_of(tmp_path, made(1), made(2, found=asked, judge="claude"))
    assert tables.runs(paid)["useful"].tolist()[1] == 3.4


def test_the_frozen_ruler_is_told_with_its_gates_and_seal():
    told = tables.frozen().text
    assert "full 30, dev 10, confirm 30" in told and "exactly 7 questions" in told and "Seal `" in told


def test_a_long_table_is_folded_whole(climb):
    text = tables.fold(tables.runs(climb), "All runs").text
    assert text.startswith("<details><summary>All runs</summary>\n\n| run |") and "0010-worse" in text
