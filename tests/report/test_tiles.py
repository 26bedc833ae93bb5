"""A tile a run: shapes follow from the pipeline, and the words beside them say the same."""

from xml.etree import ElementTree

import pandas as pd
import pytest

from lib.report import levers, tiles
from tests.report.test_tables import ledger_of, made


@pytest.fixture
def ledger(tmp_path):
    return ledger_of(
        tmp_path,
        made(1, slug="stock"),
        made(2, "discarded", slug="pruned", pipeline=[{"step": "ask", "n": 8}, {"step": "prune"}]),
        made(3, "reference", None, "orpo", kind="train", lever="training", pipeline=[], found={"method": "orpo"}),
        made(4, "kept", slug="on-orpo", lever="adapter", adapter="runs/0003-orpo/adapter"),
        made(5, "crashed", None, "gone", pipeline=[{"step": "no-such-step"}]),
        made(6, "kept", slug="look", kind="confirm", gate="confirm"),
        made(7, "reference", None, "measured", kind="calibrate"),
    )


def test_a_step_without_a_model_is_a_row_of_no_calls(ledger):
    rows = tiles.tiles(ledger).set_index("id").rows
    assert rows["0001-stock"] == (1,) and rows["0002-pruned"] == (1, 0)


def test_trainings_have_a_tile_and_looks_and_calibrations_have_none(ledger):
    f = tiles.tiles(ledger)
    assert [run.partition("-")[0] for run in f.id] == ["0001", "0002", "0003", "0004", "0005"]
    training, run = f.iloc[2], f.iloc[3]
    assert training.trains and training.method == "orpo" and not training.adapted
    assert run.adapted and run.method == "orpo" and not run.trains


def test_a_training_has_the_colour_of_its_own_method_and_not_of_its_parent(tmp_path):
    """As sealed: lever `training`, `adapter` is the parent that it goes on from, `found` names the method."""
    plain = {"kind": "train", "lever": "training", "pipeline": []}
    sft = made(1, "reference", None, "train-sft", found={"method": "sft"}, **plain)
    grpo = made(2, "reference", None, "train-kl", adapter="0001-train-sft", found={"method": "grpo"}, **plain)
    user = made(3, slug="on", lever="adapter", adapter="0002-train-kl")
    shapes = [tiles._marks(t, 0, 0)[0][:2] for t in tiles.tiles(ledger_of(tmp_path, sft, grpo, user)).itertuples()]
    assert shapes == [("D", tiles.COLOURS["sft"]), ("D", tiles.COLOURS["grpo"]), ("D", tiles.COLOURS["grpo"])]


def test_an_adapter_run_has_a_column_more_and_its_own_colour(ledger):
    stock, _, _, run, _ = tiles.tiles(ledger).itertuples()
    assert [m[:2] for m in tiles._marks(stock, 0, 0)] == [("o", tiles.INK)]
    assert [m[:2] for m in tiles._marks(run, 0, 0)] == [("D", tiles.PROVEN), ("o", tiles.PROVEN)]


def test_many_calls_are_drawn_as_few_and_stay_inside_the_tile():
    tall = pd.Series({"rows": (40, *[1] * 39), "method": "", "colour": "red", "adapted": False, "trains": False})
    places = [(m.x, m.y) for m in tiles._marks(tall, 3, -2)]
    assert len(places) == tiles.WIDEST + 39
    assert all(abs(x - 3) < 0.44 and abs(y + 2) < 0.44 for x, y in places)


def test_a_pipeline_that_this_code_no_longer_knows_still_has_a_tile(ledger):
    assert tiles.tiles(ledger).rows.iloc[4] == (0,)


def test_the_words_count_the_calls_and_name_the_steps(ledger):
    table = tiles.table(ledger).set_index("id")
    assert table.loc["0002-pruned", "steps"] == "ask → prune" and table.loc["0001-stock", "calls_a_case"] == 2
    assert table.loc["0003-orpo", "steps"] == "training (ORPO)" and table.loc["0004-on-orpo", "adapter"] == "ORPO"


@pytest.mark.parametrize("count", [0, 1, 80])
def test_the_grid_is_drawn_for_any_number_of_runs_and_says_how_many(tmp_path, count):
    picture = tiles.at_a_glance(ledger_of(tmp_path, *[made(i, slug="r") for i in range(1, count + 1)]))
    assert picture.svg.startswith("<svg")
    assert picture.alt.startswith({0: "An empty grid", 1: "1 tile, ", 80: "80 tiles, "}[count])


def test_every_way_of_training_has_a_colour():
    assert set(levers.METHODS) <= set(tiles.COLOURS) and len(set(tiles.COLOURS.values())) == len(tiles.COLOURS)


def test_every_tile_is_a_named_link_to_its_run_and_its_frame_says_what_became_of_it(ledger):
    """Links are what the tiles are for; the frame must tell a kept run from a broken one without colour."""
    root = ElementTree.fromstring(tiles.at_a_glance(ledger).svg)
    links = [a for a in root.iter() if a.tag.endswith("}a")]
    assert {a.get("href") for a in links} == {f"{run}.html" for run in tiles.tiles(ledger).id}
    assert all(next(t for t in a if t.tag.endswith("}title")).text.startswith(a.get("href")[:-5]) for a in links)
    assert {"0004-on-orpo: kept, quality 0.300", "0005-gone: crashed"} <= {
        t.text for t in root.iter() if t.tag.endswith("}title")
    }
    dashed = {(a.get("href"), p.get("stroke-dasharray")) for a in links for p in a if p.tag.endswith("}path")}
    assert ("0004-on-orpo.html", None) in dashed and ("0005-gone.html", None) not in dashed
