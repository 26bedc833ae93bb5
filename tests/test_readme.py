"""README and manual: what they name exists, what they show runs, and what they tell is the ledger's."""

import re
import shlex

import pytest

from lib.cli import notch
from lib.files import ROOT
from tests.llama import small

README = (ROOT / "README.md").read_text(encoding="utf-8")
BOTH = README + (ROOT / "manual.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
BLOCKS = re.findall(r"(?:^ {4}.+\n?)+", BOTH, re.MULTILINE)
COMMANDS = [
    line for b in BLOCKS for line in b.replace("\\\n", " ").splitlines() if line.strip().startswith((".venv", "make"))
]


def test_every_make_target_that_it_names_exists():
    named = set(re.findall(r"`make (\w[\w-]*)`", BOTH)) | {c.split()[1] for c in COMMANDS if "make" in c.split()[0]}
    assert named and all(re.search(rf"^{n}:", MAKEFILE, re.MULTILINE) for n in named)


def test_every_notch_command_that_it_names_exists():
    named = set(re.findall(r"`notch (\w+)", BOTH))
    assert named and named <= set(notch.commands)


@pytest.mark.parametrize("link", re.findall(r"\]\((?!https:)([^)#]+)\)", BOTH))
def test_every_file_that_it_links_exists(link):
    assert (ROOT / link).exists()


def test_the_tree_names_every_folder():
    tree = README[README.index("## What is where") :]
    rooms = {p.name for p in (ROOT / "lib").iterdir() if p.is_dir() and p.name != "__pycache__"}
    tops = {p.name for p in ROOT.iterdir() if p.is_dir() and not p.name.startswith(".")} - {"study", "site", "steer"}
    assert all(f"{name}/" in tree for name in rooms | tops)


@pytest.mark.parametrize("command", [c.strip() for c in COMMANDS if "notch run" in c])
def test_the_experiments_that_it_shows_would_be_accepted(command):
    import yaml

    from lib.lab.execute import accept

    words = shlex.split(command)
    pairs = [(words[i + 1], words[i + 2]) for i, w in enumerate(words) if w == "-p"]
    parameters = {k: v if k == "hypothesis" else yaml.safe_load(v) for k, v in pairs}
    if "/" in parameters.get("model", ""):
        parameters["model"] = small()  # a model of the hub is fetched when it is checked
    assert accept("10_experiment", parameters).hypothesis


def test_the_words_of_the_study_are_explained_in_a_line_each():
    rows = re.findall(r"^\| ([\w ,]+) \| (.+) \|$", README, re.MULTILINE)
    explained = {word for words, meaning in rows if len(meaning.split()) > 4 for word in words.split(", ")}
    assert explained >= {
        "gate", "lever", "era", "kept", "indecisive", "discarded", "champion", "confirmed", "noise floor", "control",
        "anchor", "look", "unscored",
    }  # fmt: skip


def test_the_result_that_it_tells_is_the_ledgers():
    from lib.report import answer, by_hand
    from lib.report.era import Era
    from lib.runs.ledger import Ledger

    ledger = Ledger.read(ROOT / "runs")
    era = Era.latest(ledger)
    hand = by_hand.table(ledger).set_index("what")
    judged = era.climb[["wins", "ties", "losses"]].astype(float).sum()
    best = answer.four(ledger).set_index("what").quality
    look = next(r for r in reversed(ledger.looks(era.fingerprint)) if ledger.of(r) == era.champion.id)
    assert judged.wins == 0 and look.status == "indecisive"
    told = [
        f"to all 30 and {era.champion.scored.quality:.3f}", f"quality {best['best prompting']:.3f}",
        f"get {best['frontier']:.3f} to the plain call", f"any task have {era.plain:.3f}", f"Of {era.changes} changes",
        f"{len(era.kept) - 1} held up", f"{judged.ties:.0f} of its {judged.sum():,.0f} judged answers in the climb",
        f"without the adapter: {ledger.get('0208-champion-smollm2').scored.quality:.3f}", f"judge says {100 * era.share:.0f} %",
        f"({look.decision.delta:+.3f}, p = {look.decision.p:.4f})", f"champion gets {hand['quality by hand']['champion']:.3f}",
        f"says {hand['quality offline']['champion']:.3f}", f"the frontier {hand['quality by hand']['the frontier']:.3f}",
        f"kept {hand['quality by hand']['first kept with an adapter']:.3f}", by_hand.distance(ledger).rpartition(": ")[2][:4],
    ]  # fmt: skip
    assert [text for text in told if text not in BOTH] == []
    brief = hand["quality by hand"]["the frontier with the teacher's brief"]
    first = [
        f"quality {best['best prompting']:.3f}", f"seven stay, to {era.champion.scored.quality:.3f}",
        f"get {best['frontier']:.3f}", f"any task {era.plain:.3f}", f"Of {era.changes} changes tried, {len(era.kept) - 1} held",
        f"small model gets {hand['quality by hand']['champion']:.3f}",
        f"the frontier with a brief {brief:.3f}", by_hand.distance(ledger).rpartition(": ")[2][:4],
    ]  # fmt: skip
    assert [text for text in first if text not in README] == []


def test_the_readme_is_read_in_two_minutes():
    prose = [line for line in README.splitlines() if not line.startswith(("|", "    "))]
    assert len(" ".join(prose).split()) <= 520
