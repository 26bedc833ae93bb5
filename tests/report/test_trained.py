"""Adapters beside the bare base and beside imitation, from sealed trainings and the cases of the runs that used them."""

import json
import random

import pytest

from lib.report import figures, trained
from tests.report.test_tables import ERA, ledger_of, made, scores

ASK, PRUNE = [{"step": "ask"}], [{"step": "ask", "n": 8}, {"step": "prune"}]


def training(number, slug, method="sft", pairs=72, kind="clean", epoch=2, adapter="", **more):
    data = {} if method == "merge" else {"kind": kind, "train": pairs - (kind != "clean")}
    told = {"data": {"pairs": pairs} if data else {}, "adapter": adapter}
    found = {"method": method, "epoch": epoch, "data": data, "parameters": told} | more
    return made(number, "reference", None, slug, kind="train", lever="training", found=found, seconds=60.4)


def measured(number, gain, adapter, slug="on", status="discarded", **changes):
    return made(number, status, 0.3 + gain, slug, adapter=adapter, lever="adapter", **changes)


@pytest.fixture
def ledger(tmp_path):
    records = [
        made(1, "kept", 0.3, "stock", lever="baseline"),
        training(2, "sft-72"),
        measured(3, 0.0, "0002-sft-72"),
        training(4, "sft-288", pairs=288),
        measured(5, 0.1, "runs/0004-sft-288/adapter"),
        measured(6, 0.05, "0004-sft-288/epoch-01"),
        training(7, "orpo", "orpo", 288, "styles"),
        measured(8, -0.1, "0007-orpo"),
        training(19, "small", "orpo", 96),
        measured(20, 0.0, "0019-small"),
        training(9, "grpo", "grpo", 48, adapter="0002-sft-72"),
        measured(10, 0.0, "0009-grpo"),
        training(11, "both", "merge", epoch=0),
        measured(12, 0.0, "0011-both"),
        measured(13, 0.1, "0004-sft-288", pipeline=PRUNE),  # no base in this pipeline
        measured(14, 0.1, "somewhere"),
        measured(15, 0.1, "0004-sft-288", gate="dev"),
        measured(16, 0.1, "0004-sft-288", status="invalid"),
        made(17, "reference", 0.4, "anchor", lever="anchor", adapter="0004-sft-288"),
        made(18, "discarded", 0.31, "pruned", pipeline=PRUNE, seed=1),
    ]
    for r in records:
        if r["scores"]:
            gain = round(r["scores"]["quality"] - 0.3, 6)
            rng, folder = random.Random(3 * (gain == 0.05)), tmp_path / r["id"]
            folder.mkdir()
            rows = [
                {"case": f"c{i}", "quality": 0.3 + gain + rng.gauss(0, 0.02 + 0.3 * (gain == 0.05))} for i in range(30)
            ]
            (folder / "cases.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ledger_of(tmp_path, *records)


def test_each_adapter_stands_beside_the_bare_base_of_its_pipeline(ledger):
    found = trained.measured(ledger, ERA)
    assert [m.run["id"][:4] for m in found] == ["0003", "0005", "0006", "0008", "0020", "0010", "0012"]
    assert {m.base["id"] for m in found} == {"0001-stock"}
    assert [m.epoch for m in found] == [2, 2, 1, 2, 2, 2, 0]


def test_imitation_is_what_the_training_began_from_or_the_nearest_number_of_sets(ledger):
    beside = {m.run["id"][:4]: m.imitation and m.imitation["id"][:4] for m in trained.measured(ledger, ERA)}
    assert beside == {
        "0003": None,
        "0005": None,
        "0006": None,
        "0008": "0005",
        "0020": "0003",
        "0010": "0003",
        "0012": "0005",
    }


def test_differences_are_paired_on_the_sealed_cases(ledger):
    table = trained.table(ledger, ERA).set_index("run")
    assert table["to base"].tolist() == pytest.approx([0.0, 0.1, 0.05, -0.1, 0.0, 0.0, 0.0], abs=0.06)
    assert table.loc["0005-on", "p to base"] < 0.001 and table.loc["0003-on", "p to base"] == 1
    assert table.loc["0008-on", "to SFT"] == pytest.approx(-0.2) and table.loc["0008-on", "beside"] == "0005-on"
    assert table.loc["0008-on", ["method", "sets", "pairs"]].tolist() == ["ORPO", "styles", 287]


def test_the_sentences_name_what_is_beyond_chance(ledger):
    told = trained.summary(ledger, ERA).text
    assert "7 adapters in 7 measurements; beyond chance, 1 beat the bare base" in told and "1 fall behind it" in told
    assert "0005-on +0.100" in told and "0008-on -0.100" in told and "0003-on" not in told
    assert "Of 4 that can be compared with imitation, 0 beat it" in told


def test_the_figure_says_in_words_what_it_draws(ledger):
    drawn = figures.training(ledger)
    assert drawn.png.startswith(b"\x89PNG") and "bare base at 0.300" in drawn.alt
    assert "SFT, 288 pairs, epoch 1: 0.350" in drawn.alt and "ORPO styles, 287 pairs, epoch 2: 0.200" in drawn.alt


def test_without_an_adapter_the_page_says_so(tmp_path):
    empty = ledger_of(tmp_path, made(1, "kept", 0.3, "stock"))
    assert trained.table(empty, ERA).empty and "notch study train" in trained.summary(empty, ERA).text
    assert "no adapter was measured" in figures.training(empty).alt
    unscored = ledger_of(tmp_path, training(1, "sft"), measured(2, 0, "0001-sft", scores=scores(0.3, unscored=1)))
    assert trained.measured(unscored, ERA) == []
