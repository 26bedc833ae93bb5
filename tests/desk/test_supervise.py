"""The supervision page: read without a loop, a browser or a kernel; it writes steering files and nothing else."""

import ast
import json
import re

import pytest

from lib.desk import supervise
from lib.desk.supervise import Desk
from lib.files import NOTEBOOKS
from lib.lab.base import tell
from lib.loop import steering as steer
from lib.loop.events import Events
from lib.loop.training_requests import open_request
from lib.report import levers
from lib.report.live import Live
from lib.report.site import page_path
from lib.runs.ledger import Ledger
from tests.lab.conftest import FULL, seal_run
from tests.loop.test_proposal import GOOD
from tests.test_notebooks import BANNED, cells, lines, source

PAGE = NOTEBOOKS / "02_supervise.ipynb"


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path / "runs")


@pytest.fixture
def busy(desk):
    """A few sealed runs, events of every kind, something in the queue."""
    seal_run(desk.runs, slug="baseline", lever="baseline")
    seal_run(desk.runs, {k: v + 0.15 for k, v in FULL.items()}, slug="better", predicted=0.1)
    seal_run(desk.runs, {k: v - 0.1 for k, v in FULL.items()}, slug="worse", lever="schema")
    events = Events(desk.runs)
    events.append("started", total=9, measure={})
    events.append("refused", rule="leak", reason="a | text <b>", by="claude", dollars=0.25)
    events.append("accepted", by="search", proposal=GOOD)
    events.append("stopped", why="3 runs are sealed")
    steer.enqueue(desk.steer, GOOD, "agent")
    return desk


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_it_reads_where_nothing_ever_ran(desk):
    assert "No study or loop runs here now" in desk._repr_markdown_() and "0 runs" in desk.now.text
    for part in (desk.queue, desk.events, desk.lessons, desk.requests):
        assert part.text == "Nothing here yet."
    assert "empty chart" in desk.chart.alt


def test_it_says_champion_cost_end_and_what_waits(busy):
    text = busy.now.text
    assert "0002-better" in text and "$0.25" in text and "3 runs are sealed" in text
    assert "over-generate and prune" in busy.queue.text and "leak" in busy.events.text
    assert "schema" in busy.lessons.text and "0002-better" in busy.lessons.text


def test_looking_changes_nothing(busy, tmp_path):
    before = files(tmp_path)
    for name in ("now", "chart", "runs_so_far", "queue", "requests", "lessons", "events"):
        assert getattr(busy, name) is not None
    assert files(tmp_path) == before


def test_a_text_of_others_stays_text(busy):
    assert "<b>" not in busy.events.text and "\\|" in busy.events.text


def test_a_long_text_of_others_ends_with_a_word(busy):
    Events(busy.runs).append("refused", rule="leak", reason="<measure> " * 40)
    [line] = [line for line in busy.events.text.splitlines() if "measure" in line]
    assert line.endswith("&lt;measure> …") and line.count("measure") == 15  # "leak " before it, 160 letters in all


def test_it_says_what_the_live_page_says_of_a_study_or_a_loop(busy, monkeypatch):
    page = Live(busy.runs, page_path(busy.runs, "live"), "quick", 10)
    with pytest.raises(RuntimeError), page:
        monkeypatch.setenv(*page.environment.popitem())  # this process is the kernel, too
        tell("1 ask ████░░░░░░░░ 10 of 30 cases", "baseline-ask: One <call>.")
        page.show(3, "sft-penalty", ran=True)
        for shown in (busy.now.text, page.path.read_text()):
            assert "3 of 10 done" in shown and "now: sft-penalty" in shown and "is gone" not in shown
            assert "10 of 30 cases · baseline-ask: One &lt;call" in shown
        raise RuntimeError
    assert "quick: Ended: broken off (RuntimeError)" in busy.now.text and "of 30 cases" not in busy.now.text
    runs = [run.split("|")[1].strip() for run in busy.runs_so_far.text.splitlines()[2:]]
    assert (
        runs
        == re.findall(r"<td>(\d{4}-[a-z]+)</td>", page.path.read_text())
        == ["0003-worse", "0002-better", "0001-baseline"]
    )


def test_a_process_that_was_killed_is_said_to_be_gone(busy):
    page = Live(busy.runs, page_path(busy.runs, "live"), "loop", 10)
    page.show(1, "x")
    path = page.path.with_suffix(".json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pid": 2**22 + 1}))
    assert "Its process is gone" in busy.now.text


def test_of_runs_that_were_made_elsewhere_it_does_not_say_that_none_ever_was(busy):
    """A clone has the sealed runs and the events of their loop, and not the page of whoever made them."""
    assert "**No study or loop runs here now.** Sealed: 3 runs." in busy.now.text and " yet" not in busy.now.text
    state = page_path(busy.runs, "live").with_suffix(".json")
    state.parent.mkdir()
    state.write_text("{")  # nor of a page that cannot be read
    assert "No study or loop runs here now" in busy.now.text


@pytest.mark.parametrize(
    "act, name, text",
    [
        (lambda d: d.write("next.md", " try slots "), "next.md", "try slots\n"),
        (lambda d: d.write("standing.md", "cheap"), "standing.md", "cheap\n"),
        (lambda d: d.write("bans.txt", "decoding"), "bans.txt", "decoding\n"),
        (lambda d: d.write("budget.yaml", "dollars: 2"), "budget.yaml", "dollars: 2\n"),
        (lambda d: d.switch("PAUSE"), "PAUSE", ""),
        (lambda d: d.switch("STOP"), "STOP", ""),
    ],
)
def test_each_control_writes_its_one_file(desk, act, name, text):
    act(desk)
    assert {p.name: p.read_text() for p in desk.steer.iterdir()} == {name: text} and not desk.runs.exists()


def test_what_was_written_can_be_taken_back(desk):
    for name in supervise.BOXES:
        desk.write(name, "decoding")
        desk.write(name, "")
    for name in supervise.SWITCHES:
        desk.switch(name)
        desk.switch(name, False)
    assert list(desk.steer.iterdir()) == []


def test_a_steering_file_that_is_not_understood_is_shown(desk):
    desk.write("bans.txt", "retreival")
    assert "retreival" in desk.now.text


def test_a_changed_ledger_is_shown_not_raised(busy):
    path = busy.runs / "ledger.jsonl"
    path.write_bytes(b"X" + path.read_bytes()[1:])
    assert "changed" in busy.now.text


def test_the_widgets_do_what_the_desk_does(busy):
    panel = busy.panel()
    switches, texts = panel.children[0].children, [c for c in panel.children if hasattr(c, "children")]
    switches[0].value = True
    assert (busy.steer / "PAUSE").exists()
    switches[0].value = False
    assert not (busy.steer / "PAUSE").exists()
    switches[1].value = True
    assert (busy.steer / "STOP").exists()
    box = next(c for c in texts if getattr(c.children[0], "description", "") == "bans")
    box.children[0].value = "schema"
    box.children[1].click()
    assert (busy.steer / "bans.txt").read_text() == "schema\n"
    outputs = [c for c in panel.children if hasattr(c, "outputs")]
    assert len(outputs) == 7 and all(c.outputs for c in outputs)


def test_a_refresh_shows_what_is_new(busy):
    panel = supervise.Panel(busy)
    first = panel.parts["now"].outputs
    panel.refresh()
    assert panel.parts["now"].outputs is first
    seal_run(busy.runs, slug="more")
    panel.refresh()
    assert panel.parts["now"].outputs != first


def test_a_file_in_the_queue_that_is_no_proposal_keeps_its_row(busy):
    (busy.steer / "queue" / "0009-x.json").write_text('{"by": "me", "proposal": 3}')
    rows = busy.queue.text.splitlines()
    assert len(rows) == 2 and rows[1] == "- queued: 0009-x.json: cannot be read, and will be refused"


def test_a_training_request_stands_with_its_buttons_until_it_is_answered(busy):
    folder = busy.steer / "requests"
    open_request(folder, {"method": "sft", "data": {"pairs": 20}}, "drafts are vague | often", 0.05, "agent")
    panel = supervise.Panel(busy)
    assert "drafts are vague \\| often" in busy.requests.text and "0.050" in busy.requests.text
    [row] = panel._approvals().children
    row.children[1].click()
    assert "approved" in busy.requests.text and panel._approvals().children == ()


def test_the_notebook_is_short_and_holds_no_logic():
    for cell in cells(PAGE, "code"):
        assert cell["outputs"] == [] and len(lines(cell)) <= 4
        assert [n for n in ast.walk(ast.parse(source(cell))) if isinstance(n, BANNED)] == []


def test_the_notebook_runs_where_nothing_ran_and_writes_nothing(tmp_path):
    from lib.lab import kernel

    notebook, error = kernel.execute(PAGE, {}, {"NOTCH_RUNS": str(tmp_path / "runs")})
    assert error is None and kernel.fault(notebook, results=0) is None
    assert [c for c in notebook["cells"] if c["cell_type"] == "code" and not c["outputs"]] == []
    assert files(tmp_path) == {}


# --- memory as tables


def test_memory_of_an_empty_ledger_is_no_error(tmp_path):
    empty = Ledger(tmp_path)
    for table in (levers.lessons, levers.dead_ends):
        assert table(empty)._repr_markdown_() == "Nothing here yet."


def test_memory_has_lessons_and_dead_ends(busy):
    ledger = busy.ledger
    assert "best run" in levers.lessons(ledger).text
    assert "0003-worse" in levers.dead_ends(ledger).text
