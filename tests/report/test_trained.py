"""Adapters beside the bare base and beside imitation, from sealed trainings and the cases of the runs that used them."""

import json
import math
import random

import pytest

from lib import show
from lib.report import figures, trained
from tests.report.test_tables import ERA, ledger_of, made, scores

ASK, PRUNE = [{"step": "ask"}], [{"step": "ask", "n": 8}, {"step": "prune"}]


def training(number, slug, method="sft", pairs=72, kind="clean", epoch=2, adapter="", **more):
    data = {} if method == "merge" else {"kind": kind, "train": pairs - (kind != "clean")}
    told = {"data": {"pairs": pairs} if data else {}, "adapter": adapter, "merge": []}
    found = {"method": method, "epoch": epoch, "data": data, "parameters": told} | more
    kind = {"kind": "train", "lever": "training", "adapter": adapter}  # the adapter of a training is its parent
    return made(number, "reference", None, slug, found=found, seconds=60.4, **kind)


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
    return sealed(tmp_path, records)


def sealed(tmp_path, records):
    """The ledger of these records, with the cases of each run: all alike but for the noisy ones that gain 0.05."""
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
    assert [run[:4] for run in found.id] == ["0003", "0005", "0006", "0008", "0020", "0010", "0012"]
    assert set(found.base) == {"0001-stock"} and list(found.epoch) == [2, 2, 1, 2, 2, 2, 0]


def test_imitation_is_what_the_training_began_from_or_the_nearest_number_of_sets(ledger):
    found = trained.measured(ledger, ERA)
    beside = dict(zip((run[:4] for run in found.id), (run[:4] for run in found.beside), strict=True))
    sft = {"0003": "", "0005": "", "0006": ""}
    assert beside == sft | {"0008": "0005", "0020": "0003", "0010": "0003", "0012": "0005"}


def test_differences_are_paired_on_the_sealed_cases(ledger):
    table = trained.table(ledger, ERA).set_index("id")
    exact = table["to base"].drop(["0006-on", "0013-on"]).tolist()  # that one is noisy, so that it stays within chance
    assert exact == pytest.approx([0.0, 0.1, -0.1, 0.0, 0.0, 0.0]) and -0.1 < table.loc["0006-on", "to base"] < 0.2
    assert table.loc["0005-on", "p to base"] < 0.001 and table.loc["0003-on", "p to base"] == 1
    assert table.loc["0008-on", "to it"] == pytest.approx(-0.2) and table.loc["0008-on", "beside"] == "0005-on"
    assert table.loc["0008-on", ["training", "pairs"]].tolist() == ["ORPO styles", 287]


def test_pairs_and_epochs_are_whole_numbers_where_a_merge_has_none(ledger):
    rows = {line.split(" | ")[0][2:]: line for line in show.table(trained.table(ledger, ERA)).text.splitlines()[2:]}
    assert rows["0005-on"].startswith("| 0005-on | SFT | 288 | 2 |  | 0.400 | 1 | +0.090 | ")
    assert rows["0012-on"].startswith("| 0012-on | merge |  | 0 |")


def test_what_goes_on_from_an_adapter_is_counted_against_it_and_drawn_at_its_size(tmp_path):
    """GRPO of 48 pairs on SFT of 288: the gain over the bare base is SFT's, and 48 pairs did not make it."""
    records = [
        made(1, "kept", 0.3, "stock", lever="baseline"),
        training(2, "sft", pairs=288), measured(3, 0.1, "0002-sft"),
        training(4, "grpo", "grpo", 48, epoch=3, adapter="0002-sft"), measured(5, 0.1, "0004-grpo"),
        training(6, "gad", "gad", 48, epoch=1, adapter="0004-grpo"), measured(7, 0.2, "0006-gad"),
        training(8, "lost", "gad", 48, epoch=1, adapter="0002-sft/epoch-01"), measured(9, 0.2, "0008-lost"),
    ]  # fmt: skip
    ledger = sealed(tmp_path, records)
    found = trained.measured(ledger, ERA).set_index("id")
    assert list(found.label) == ["SFT", "GRPO after SFT", "GAD after GRPO", "GAD after SFT"]
    assert list(found["size"]) == [288] * 4 and list(found.pairs) == [288, 48, 48, 48]
    assert list(found.beside) == ["", "0003-on", "0005-on", ""]  # epoch 1 of the SFT was never measured
    text = trained.summary(ledger, ERA).text
    assert (
        "1 adapter trained from the bare base or merged, in 1 measurement: beyond chance, 1 beat the bare base" in text
    )
    assert (
        "2 measurements of adapters that go on from another one" in text
        and "1 beat it and 0 fell behind it. 0007-on +0.100" in text
    )
    base = text.partition("adapter runs beside")[0]
    assert "0005-on" not in base and "0009-on" not in base
    figure, ax = figures.canvas()
    figures.draw_pairs(trained.measured(ledger, ERA), ax)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["288"]


def test_an_adapter_that_goes_on_needs_no_bare_base_and_is_drawn_only_in_the_plain_call(tmp_path):
    """As 0023-orpo-on-policy: measured with a penalty, like the SFT that it goes on from and unlike the bare model."""
    warm = {"decoding": {"repetition_penalty": 1.1}}
    records = [
        made(1, "kept", 0.3, "stock", lever="baseline"),
        training(2, "sft", pairs=288), measured(3, 0.1, "0002-sft"), measured(4, 0.1, "runs/0002-sft/adapter", **warm),
        training(5, "orpo", "orpo", 96, "on-policy", adapter="0002-sft"), measured(6, 0.0, "0005-orpo", **warm),
    ]  # fmt: skip
    ledger = sealed(tmp_path, records)
    row = trained.table(ledger, ERA).set_index("id").loc["0006-on"]
    assert row[["training", "pipeline", "beside"]].tolist() == [
        "ORPO on-policy after SFT",
        "ask [repetition_penalty=1.1]",
        "0004-on",
    ]
    assert row["to it"] == pytest.approx(-0.1) and math.isnan(row["to base"])
    assert "Quality of 1 adapter beside" in figures.training(ledger).alt and "ORPO" not in figures.training(ledger).alt


def test_the_sentences_name_what_is_beyond_chance(ledger):
    text = trained.summary(ledger, ERA).text
    assert (
        "6 adapters trained from the bare base or merged, in 6 measurements: beyond chance, 1 beat the bare base"
        in text
    )
    assert "0005-on +0.100" in text and "0008-on -0.100" in text and "0003-on" not in text
    assert (
        "1 measurement of adapters that go on from another one, compared with that one: beyond chance, 0 beat it"
        in text
    )
    assert "3 measurements can be compared with imitation: beyond chance, 0 beat it and 2 fell behind it" in text


def test_the_figure_says_in_words_what_it_draws(ledger):
    drawn = figures.training(ledger)
    assert drawn.svg.startswith("<svg") and "bare base at 0.300" in drawn.alt
    assert "SFT, 288 pairs, epoch 1: 0.350" in drawn.alt and "ORPO styles, 287 pairs, epoch 2: 0.200" in drawn.alt


def test_without_an_adapter_the_page_says_so(tmp_path):
    empty = ledger_of(tmp_path, made(1, "kept", 0.3, "stock"))
    assert trained.table(empty, ERA).empty and "notch study train" in trained.summary(empty, ERA).text
    assert "no adapter was measured" in figures.training(empty).alt
    unscored = ledger_of(tmp_path, training(1, "sft"), measured(2, 0, "0001-sft", scores=scores(0.3, unscored=1)))
    assert trained.measured(unscored, ERA).empty


def test_an_adapter_run_without_a_base_in_its_pipeline_still_stands_beside_the_best_prompting(ledger):
    table = trained.table(ledger, ERA).set_index("id")
    assert table.loc["0013-on", ["to base", "p to base"]].isna().all() and "0013-on" not in {
        *trained.measured(ledger, ERA).id
    }
    assert trained.best(ledger, ERA, adapter=False) == "0018-pruned"  # 0.31; the anchor at 0.4 is no prompting
    assert (
        table.loc["0013-on", "to prompting"] == pytest.approx(0.09) and table.loc["0013-on", "p to prompting"] < 0.001
    )
    assert table.loc["0008-on", "to prompting"] == pytest.approx(-0.11)


@pytest.mark.parametrize("gain, verb", [(0.1, "**beats**"), (-0.1, "**falls behind**"), (0.0, "**is not told from**")])
def test_it_is_said_whether_training_beats_prompting_either_way(tmp_path, gain, verb):
    records = [made(1, "kept", 0.3, "stock", lever="baseline"), training(2, "sft"), measured(3, gain, "0002-sft")]
    [text] = trained.duel(sealed(tmp_path, records), ERA)
    assert (
        f"the best adapter run, 0003-on ({0.3 + gain:.3f}), {verb} the best run without one, 0001-stock (0.300)" in text
    )


def test_an_adapter_without_any_run_beside_it_is_compared_with_nothing(tmp_path):
    text = trained.summary(sealed(tmp_path, [training(1, "sft"), measured(2, 0.1, "0001-sft")]), ERA).text
    assert text.startswith("No run stands beside an adapter yet")


def test_openings_are_counted_over_the_questions_of_valid_answers(tmp_path):
    def answer(*questions):
        return {"case": "a", "answer": {"title": "t", "questions": questions}}

    ledger = ledger_of(tmp_path, made(1, "kept", 0.3, "stock", lever="baseline"),
                       made(2, "kept", 0.4, "on", adapter="a"))  # fmt: skip
    rows = {"0001-stock": [{"case": "a", "answer": None}], "0002-on": [
        answer("When will you go there?", "when will you GO back?"), answer("Who?", "When will you leave?")
    ]}  # fmt: skip
    for run, cases in rows.items():
        (tmp_path / run).mkdir()
        (tmp_path / run / "cases.jsonl").write_text("".join(json.dumps(row) + "\n" for row in cases))
    found = trained.openings(ledger, ERA).to_numpy().tolist()
    assert found == [["0001-stock", 0, 0, 0, "no question"], ["0002-on", 2, 4, 3, "75 %"]]
    assert trained.openings(ledger_of(tmp_path), ERA).empty
