"""Answers side by side: hidden until one is chosen, on disk as one line, faults marked, counts by source."""

import random
from dataclasses import replace

import pytest

pytest.importorskip("ipywidgets")

from lib.desk import choose, rate  # noqa: E402
from lib.desk.choose import Blind, Panel  # noqa: E402
from lib.desk.explore import Choice  # noqa: E402
from lib.log import Log  # noqa: E402
from lib.runs.verify import RATED, RATINGS, verify_ratings  # noqa: E402

SETS = {
    "stock": Choice("", model="toy", decoding={"max_tokens": 5}),  # is cut off
    "champion": Choice("", [{"step": "ask", "n": 8}, {"step": "prune", "by": "last"}], model="toy"),
    "third": Choice("", model="toy", adapter="nowhere"),  # cannot be asked
    "plain": Choice("", model="toy"),
}


@pytest.fixture
def blind(tmp_path):
    return Blind(runs=tmp_path / "runs", sources=SETS, lot=random.Random(1))


@pytest.fixture
def panel(blind):
    panel = Panel(blind, "teach my parrot to whistle")
    panel.go.click()
    return panel


def letter_of(blind, source):
    return next(letter for letter, name in blind.letters.items() if name == source)


def heads(panel):
    return [column.children[0].value.partition("</h4>")[0].removeprefix("<h4>") for column in panel.columns.children]


def button(panel, letter):
    return panel.columns.children["ABCD".index(letter)].children[1]


def test_no_source_is_named_before_the_choice_and_all_are_after_it(panel):
    shown = panel.message.value + "".join(column.children[0].value for column in panel.columns.children)
    assert heads(panel) == ["A", "B", "C", "D"] and not any(name in shown for name in SETS)
    letter = letter_of(panel.blind, "champion")
    button(panel, letter).click()
    assert heads(panel) == [f"{at}: {name}" for at, name in panel.blind.letters.items()]
    assert f"You chose {letter}, champion." in panel.message.value and "champion 1 of 1 time" in panel.message.value
    assert all(column.children[1].disabled for column in panel.columns.children)


def test_the_lot_decides_which_letter_is_whose(tmp_path):
    drawn = set()
    for seed in range(20):
        blind = Blind(runs=tmp_path, sources=SETS, lot=random.Random(seed))
        blind.answer("x")
        drawn.add("".join(name[0] for name in blind.letters.values()))
    assert len(drawn) > 12


def test_a_failed_answer_is_shown_with_its_fault_and_cannot_be_chosen(panel):
    for source, fault in (
        ("stock", "✗ No answer: ask: cut off after 5 tokens"),
        ("third", "✗ No answer: model 'toy' takes no adapter"),
    ):
        letter = letter_of(panel.blind, source)
        column = panel.columns.children["ABCD".index(letter)]
        assert fault in column.children[0].value.replace("&#x27;", "'") and column.children[1].disabled
        with pytest.raises(ValueError, match="an answer that is no set cannot be"):
            panel.blind.choose(letter)
    stock = panel.columns.children["ABCD".index(letter_of(panel.blind, "stock"))].children[0].value
    assert "Plan: teach my parrot</pre>" in stock  # what was written as far as it came


def test_a_choice_is_one_line_that_every_reader_of_the_file_takes(panel, tmp_path):
    panel.blind.choose(letter_of(panel.blind, "champion"))
    with pytest.raises(ValueError, match="once"):
        panel.blind.choose(letter_of(panel.blind, "champion"))
    [row] = Log(tmp_path / "runs" / RATINGS, RATED).rows
    assert row["kind"] == "choice" and row["task"] == "teach my parrot to whistle" and row["who"] == "me"
    assert len(row["answers"]["champion"]) == 8 and row["answers"]["stock"] == row["answers"]["third"] == []
    assert verify_ratings(tmp_path / "runs") == [] and rate.Session(runs=tmp_path / "runs").rated == []


@pytest.mark.parametrize("change", [{"chosen": "Z"}, {"item": "x"}, {"who": ""}, {"answers": {}}, {"letters": 3}])
def test_a_line_that_is_no_choice_is_named(panel, tmp_path, change):
    panel.blind.choose(letter_of(panel.blind, "champion"))
    path = tmp_path / "runs" / RATINGS
    [row] = Log(path, RATED).rows
    path.unlink()
    Log(path, RATED).extend([{k: v for k, v in row.items() if k not in ("n", "prev")} | change])
    [wrong] = verify_ratings(tmp_path / "runs")
    assert wrong.startswith(f"{path}:1: not a rating (")


def test_with_one_whole_set_nothing_is_asked_recorded_or_hidden(tmp_path):
    three = {name: SETS[name] for name in ("champion", "stock", "third")}
    panel = Panel(Blind(runs=tmp_path / "runs", sources=three), "teach my parrot to whistle")
    panel.go.click()
    assert "A choice takes two sets, and 1 set came out whole" in panel.message.value and "?" not in panel.message.value
    assert panel.neither.disabled and all(column.children[1].disabled for column in panel.columns.children)
    assert sorted(head.partition(": ")[2] for head in heads(panel)) == ["champion", "stock", "third"]
    for letter in (letter_of(panel.blind, "champion"), choose.NEITHER):
        with pytest.raises(ValueError, match="of two whole sets or more"):
            panel.blind.choose(letter)
    assert not (tmp_path / "runs").exists()


def test_neither_is_a_choice_that_counts_for_no_source(panel, tmp_path):
    panel.neither.click()
    assert "You chose neither." in panel.message.value and panel.neither.disabled
    assert heads(panel) == [f"{at}: {name}" for at, name in panel.blind.letters.items()]
    assert (
        panel.blind.counts
        == "Chosen so far: champion 0 of 1 time, plain 0 of 1 time, stock 0 of 1 time, third 0 of 1 time."
    )
    [row] = Log(tmp_path / "runs" / RATINGS, RATED).rows
    assert row["chosen"] == "neither" and verify_ratings(tmp_path / "runs") == []


def test_choices_are_counted_by_source_and_person(blind):
    for _ in range(2):
        blind.answer("x")
        blind.choose(letter_of(blind, "champion"))
    assert (
        blind.counts
        == "Chosen so far: champion 2 of 2 times, plain 0 of 2 times, stock 0 of 2 times, third 0 of 2 times."
    )
    assert Blind("somebody", blind.runs, SETS).counts == "Nothing was chosen yet."


def test_the_sources_are_the_stock_model_the_champion_and_with_a_key_claude(tmp_path, monkeypatch):
    from tests.lab.conftest import FULL, seal_run

    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    assert list(choose.sources(tmp_path)) == ["stock"]
    seal_run(tmp_path, slug="baseline", lever="baseline")
    assert list(choose.sources(tmp_path)) == ["stock", "champion"]
    adapter = tmp_path / "0009-sft" / "adapter"
    adapter.mkdir(parents=True)
    (adapter / "adapters.safetensors").write_bytes(b"")
    (adapter / "adapter_config.json").write_text('{"num_layers": 2, "lora_parameters": {"rank": 8, "scale": 2.0}}')
    seal_run(tmp_path, {k: v + 0.2 for k, v in FULL.items()}, slug="on", adapter="0009-sft")
    assert list(choose.sources(tmp_path)) == ["stock", "champion"]  # without an adapter there is the stock run alone
    seal_run(tmp_path, {k: v + 0.1 for k, v in FULL.items()}, slug="light", seed=7)
    found = choose.sources(tmp_path)
    assert (found["champion"].adapter, found["best prompting"].adapter) == (str(adapter), "")
    assert found["best prompting"].seed == 7
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-none")
    found = choose.sources(tmp_path)
    assert found["stock"].model == "smollm2" and found["claude"].model == "claude-sonnet-5-5"


def test_an_empty_task_asks_nobody(panel):
    panel.task.value = "  "
    panel.go.click()
    assert "The task is empty" in panel.message.value and panel.columns.children == ()


def test_with_a_key_claude_answers_as_blind_as_the_others(tmp_path, monkeypatch):
    from tests.claude.loopback import Loopback
    from tests.lab.test_cloud_candidates import planner

    monkeypatch.setenv("ANTHROPIC_API_KEY", "loopback-key-0123456789")
    claude = choose.sources(tmp_path)["claude"]
    blind = Blind(
        runs=tmp_path, sources={"stock": Choice("", model="toy"), "claude": replace(claude, model="claude-haiku-4-5")}
    )
    with Loopback(planner) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        panel = Panel(blind, "teach my parrot to whistle")
        panel.go.click()
        assert len(server.messages) == 1
    assert heads(panel) == ["A", "B"] and all(len(blind.set_of(letter)) == 8 for letter in "AB")
    panel.choose(letter_of(blind, "claude"))
    assert "claude 1 of 1 time" in panel.message.value
    assert "loopback-key" not in (tmp_path / RATINGS).read_text()
