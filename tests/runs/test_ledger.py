"""Sealing, the chain, the keep rule. Runs are sealed directly: no kernel, no model."""

import json
import os
import random
import shutil
import subprocess
from dataclasses import replace

import pytest

from lib.files import ROOT, Tampered, canonical, locked, sha256
from lib.log import START
from lib.measure.judge import DIMENSIONS, Judgment
from lib.measure.score import case_quality, score
from lib.runs.ledger import Ledger, NoRun
from lib.runs.seal import SEAL, rebuilt, seal, sealed_folders, sync
from lib.runs.verify import verify
from tests.lab.conftest import rows_of


def up(qualities, gain):
    return {k: v + gain for k, v in qualities.items()}


def repair(folder):
    with locked(folder / ".lock"):
        return sync(folder)


# --- seal and sync


def test_a_sealed_run_holds_its_files_and_a_seal_that_sha256sum_accepts(lab):
    run = lab.seal(slug="first")
    assert run == "0001-first"
    assert sorted(os.listdir(lab.folder / run)) == [SEAL, "cases.jsonl", "experiment.ipynb", "record.json"]
    done = subprocess.run(["sha256sum", "-c", SEAL], cwd=lab.folder / run, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count("OK") == 3


def test_sealed_files_are_read_only(lab):
    run = lab.seal()
    assert {p.stat().st_mode & 0o777 for p in (lab.folder / run).iterdir()} == {0o444}


def test_each_run_gets_the_next_number_and_follows_the_line_before(lab):
    runs = [lab.seal(slug=s) for s in ("a", "b", "c")]
    assert runs == ["0001-a", "0002-b", "0003-c"]
    before = START
    for number, line in enumerate(lab.path.read_text().splitlines(), 1):
        row = json.loads(line)
        assert (row["n"], row["prev"], row["id"]) == (number, before, runs[number - 1])
        before = sha256(line)
    assert verify(lab.folder) == []


def test_a_seal_that_fails_leaves_nothing_behind(lab):
    lab.seal()
    before = sorted(p.name for p in lab.folder.rglob("*"))

    def finish(run):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        seal(lab.folder, "second", {"cases.jsonl": b""}, finish)
    assert sorted(p.name for p in lab.folder.rglob("*")) == before
    assert lab.seal(slug="second") == "0002-second"


def test_a_missing_last_line_is_added_from_the_sealed_run(lab):
    lab.seal()
    lab.seal(slug="second")
    whole = lab.path.read_bytes()
    lab.path.write_bytes(whole[: whole.index(b"\n") + 1])
    assert any("0002-second" in text and "not listed" in text for text in verify(lab.folder))
    assert repair(lab.folder) == ["added 0002-second to the ledger"]
    assert lab.path.read_bytes() == whole and verify(lab.folder) == []


@pytest.mark.parametrize("cut", [1, 2, 40, 400])
def test_a_torn_last_line_is_refused_by_readers_and_made_whole_by_sync(lab, cut):
    lab.seal()
    lab.seal(slug="second")
    whole = lab.path.read_bytes()
    lab.path.write_bytes(whole[:-cut])
    with pytest.raises(Tampered, match="cut off"):
        lab.read()
    assert "cut off a torn last line of the ledger" in repair(lab.folder)
    assert lab.path.read_bytes() == whole


def test_a_line_cut_inside_a_letter_of_two_bytes_is_made_whole(lab):
    lab.seal(hypothesis="fewer words, more caf\u00e9")
    whole = lab.path.read_bytes()
    lab.path.write_bytes(whole[: whole.index("\u00e9".encode()) + 1])
    repair(lab.folder)
    assert lab.path.read_bytes() == whole


def test_a_lost_ledger_is_rebuilt_byte_for_byte(lab):
    lab.seal()
    lab.seal(slug="second")
    whole = lab.path.read_bytes()
    lab.path.unlink()
    repair(lab.folder)
    assert lab.path.read_bytes() == whole


def test_a_half_made_run_is_never_read_and_is_cleared(lab):
    lab.seal()
    half = lab.folder / ".tmp-0002-half"
    half.mkdir()
    (half / "record.json").write_text("{")
    assert [r.id for r in lab.read().records] == ["0001-run"] and len(sealed_folders(lab.folder)) == 1
    assert repair(lab.folder) == ["cleared .tmp-0002-half, left by an interrupted run"]
    assert not half.exists() and lab.seal(slug="second") == "0002-second"


def test_a_folder_without_a_seal_is_not_a_run_and_verify_says_so(lab):
    lab.seal()
    (lab.folder / "0002-copied").mkdir()
    assert len(sealed_folders(lab.folder)) == 1
    assert any("0002-copied" in text and SEAL in text for text in verify(lab.folder))


def test_a_line_that_contradicts_its_run_is_refused_and_nothing_is_written(lab):
    lab.seal()
    row = json.loads(lab.path.read_text())
    row["record"]["status"] = "discarded"
    lab.path.write_text(canonical(row) + "\n")
    before = lab.path.read_bytes()
    with pytest.raises(Tampered, match=r"ledger\.jsonl:1: differs"):
        lab.seal(slug="second")
    assert lab.path.read_bytes() == before and sealed_folders(lab.folder) == [lab.folder / "0001-run"]


def test_a_run_that_was_taken_away_is_refused(lab):
    lab.seal()
    lab.seal(slug="second")
    shutil.rmtree(lab.folder / "0002-second")
    with pytest.raises(Tampered, match=r"ledger\.jsonl:2"):
        repair(lab.folder)
    assert any("0002-second" in text for text in verify(lab.folder))


def test_a_changed_line_breaks_the_chain_at_the_next_one(lab):
    lab.seal()
    lab.seal(slug="second")
    lab.path.write_text(lab.path.read_text().replace("said before", "said after", 1))
    with pytest.raises(Tampered, match=r"ledger\.jsonl:2: does not follow"):
        lab.read()


@pytest.mark.slow  # no kernel, but ten thousand folders
def test_numbers_go_on_past_9999(lab):
    lab.seal()
    first = lab.folder / "0001-run"
    for number in range(2, 10_000):
        run = lab.folder / f"{number:04d}-run"
        run.mkdir()
        os.link(first / SEAL, run / SEAL)
        os.link(first / "record.json", run / "record.json")
    lab.path.write_bytes(b"".join(line + b"\n" for line in rebuilt(lab.folder)))
    assert lab.seal(slug="next", status="kept") == "10000-next"
    assert [p.name for p in sealed_folders(lab.folder)[-2:]] == ["9999-run", "10000-next"]
    found = lab.read()
    assert found.get("10000").id == "10000-next" and len(found.records) == 10_000


@pytest.mark.parametrize("odd", ["\u2028", "\u2029", "\x85"], ids=["line", "paragraph", "next-line"])
def test_a_line_separator_in_a_text_does_not_split_a_line(lab, odd):
    lab.seal({f"case{odd}{i}": 0.3 for i in range(12)}, hypothesis=f"one{odd}two")
    assert lab.seal(slug="second", status="indecisive") == "0002-second"
    assert len(lab.read().cases("0001-run")) == 12


# --- verify


def flipped(path, at, by):
    raw = bytearray(path.read_bytes())
    raw[at] ^= by
    return bytes(raw)


def test_verify_names_the_file_in_which_any_byte_was_flipped(lab):
    lab.seal(hypothesis="fewer words, more caf\u00e9")
    lab.seal(up(lab.full, 0.1), slug="second")
    assert verify(lab.folder) == []
    rng = random.Random(0)
    missed = []
    for path in sorted(p for p in lab.folder.rglob("*") if p.is_file() and p.name != ".lock"):
        whole = path.read_bytes()
        for at in sorted({0, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(12))} - {-1}):
            by = rng.randrange(1, 256)
            lab.overwrite(path, flipped(path, at, by))
            if not any(str(path) in text for text in verify(lab.folder)):
                missed.append((path.name, at, by))
            lab.overwrite(path, whole)
    assert missed == [] and verify(lab.folder) == []


def test_verify_names_the_ledger_when_its_line_end_became_a_carriage_return(lab):
    lab.seal()
    lab.path.write_bytes(lab.path.read_bytes()[:-1] + b"\r")
    assert any(str(lab.path) in text for text in verify(lab.folder))


def test_verify_names_the_ledger_when_the_seal_in_its_last_line_was_changed(lab):
    lab.seal()
    row = json.loads(lab.path.read_text())
    lab.path.write_text(canonical(row | {"seal": "0" * 64}) + "\n")
    assert any(str(lab.path) in text for text in verify(lab.folder))


def test_verify_names_a_line_that_lists_a_run_twice(lab):
    lab.seal()
    line = lab.path.read_text().rstrip("\n")
    again = canonical(json.loads(line) | {"n": 2, "prev": sha256(line)})
    lab.path.write_text(f"{line}\n{again}\n")
    assert any(f"{lab.path}:2" in text for text in verify(lab.folder))


@pytest.mark.parametrize("name", ["added.txt", ".hidden", "sub/SEALED"])
def test_verify_names_a_file_that_was_added_to_a_run(lab, name):
    run = lab.folder / lab.seal()
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).write_text("added later")
    assert any(str(run / name) in text for text in verify(lab.folder))


@pytest.mark.parametrize(
    "name",
    [
        ".DS_Store",
        "._record.json",
        "Icon\r",
        ".localized",
        ".ipynb_checkpoints/experiment-checkpoint.ipynb",
        "Thumbs.db",
    ],
)
def test_what_a_desktop_leaves_in_a_run_is_no_tampering(lab, name):
    run = lab.folder / lab.seal()
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).write_bytes(b"left by looking")
    assert verify(lab.folder) == []


@pytest.mark.parametrize("name", ["record.json", "cases.jsonl", "experiment.ipynb", SEAL])
def test_verify_names_a_file_that_was_taken_away(lab, name):
    run = lab.folder / lab.seal()
    (run / name).unlink()
    assert any(str(run) in text and name in text for text in verify(lab.folder))


def test_verify_speaks_in_sentences_about_a_folder_with_an_odd_number(lab):
    run = lab.folder / lab.seal()
    shutil.copytree(run, lab.folder / "00012x-copied")
    assert any("00012x-copied" in text for text in verify(lab.folder))
    assert len(sealed_folders(lab.folder)) >= 1


def forge(lab, change):
    """Seal a first run whose files say something else than its judgments; the seal itself is right."""
    run = lab.seal()
    kept = {p.name: p.read_bytes() for p in (lab.folder / run).iterdir() if p.name != SEAL}
    shutil.rmtree(lab.folder)
    record, rows = json.loads(kept.pop("record.json")), [json.loads(x) for x in kept["cases.jsonl"].splitlines()]
    change(record, rows)
    kept["cases.jsonl"] = "".join(canonical(r) + "\n" for r in rows).encode()
    seal(lab.folder, "run", kept, lambda _: {"record.json": json.dumps(record).encode()})
    return verify(lab.folder)


def test_verify_finds_a_score_that_does_not_follow_from_the_judgments(lab):
    wrong = forge(lab, lambda record, rows: record["scores"].update(quality=0.9))
    assert any("record.json" in text and "quality" in text for text in wrong)


def test_verify_finds_a_case_quality_that_does_not_follow_from_its_judgment(lab):
    wrong = forge(lab, lambda record, rows: rows[0].update(quality=0.9))
    assert any("cases.jsonl" in text for text in wrong)


def test_verify_finds_scores_of_a_run_without_any_case(lab):
    assert forge(lab, lambda record, rows: rows.clear()) != []


def test_verify_is_clean_where_scores_are_stored_in_another_order_than_they_were_summed(lab):
    # Canonical JSON sorts the dimensions; the sum of five floats must not depend on that.
    record, rng = lab.record_of(lab.full), random.Random(0)
    for number in range(20):
        told = [Judgment({d: rng.uniform(1, 5) for d in DIMENSIONS}, "tie") for _ in range(3)]
        rows = [{"case": f"c{i}", "judgment": dict(j.__dict__), "no_answer": None, "unscored": None, "quality": case_quality(j)}
                for i, j in enumerate(told)]  # fmt: skip
        record = record.revised(status="kept", scores=score(told), id=f"{number + 1:04d}-run")
        cases = "".join(canonical(r) + "\n" for r in rows).encode()
        text = json.dumps(record.as_dict()).encode()
        seal(lab.folder, "run", {"cases.jsonl": cases}, lambda _, text=text: {"record.json": text})
    assert verify(lab.folder) == []


def test_verify_computes_runs_of_an_earlier_judge_from_their_stored_judgments_alone():
    judges = {canonical(r.identity.judge) for r in Ledger.read(ROOT / "runs").records}
    assert len(judges) > 1 and verify(ROOT / "runs") == []


def test_scores_that_followed_are_kept_by_their_seal_and_every_byte_is_hashed_all_the_same(lab, tmp_path):
    kept = tmp_path / "scores"
    lab.seal()
    assert verify(lab.folder, kept) == [] == verify(lab.folder, kept)
    [file] = kept.iterdir()
    assert file.read_text() == sha256((lab.folder / "0001-run" / SEAL).read_bytes()) + "\n"
    # Sealed with a score that does not follow: its seal is another, so nothing that was kept covers it.
    record = lab.record_of(lab.full, status="kept")
    record = record.revised(scores=replace(record.scores, quality=0.9)).as_dict()
    cases = "".join(canonical(r) + "\n" for r in rows_of(lab.full)).encode()
    seal(
        lab.folder,
        "odd",
        {"cases.jsonl": cases},
        lambda run: {"record.json": json.dumps(record | {"id": run}).encode()},
    )
    for _ in range(2):
        assert verify(lab.folder, kept) == [
            f"{lab.folder}/0002-odd/record.json: quality does not follow from the judgments"
        ]
    # What is kept is believed, for the same bytes alone; without it everything is computed.
    file.write_text(file.read_text() + sha256((lab.folder / "0002-odd" / SEAL).read_bytes()) + "\n")
    assert verify(lab.folder, kept) == [] and len(verify(lab.folder)) == 1
    lab.overwrite(lab.folder / "0001-run" / "experiment.ipynb", b"[]")
    assert [text for text in verify(lab.folder, kept) if "0001-run/experiment.ipynb: changed" in text]


def test_scores_are_computed_where_none_can_be_kept(lab, tmp_path):
    lab.seal()
    (tmp_path / "file").write_text("")
    assert verify(lab.folder, tmp_path / "file" / "scores") == []


@pytest.mark.parametrize("rows", ["[1]", '"text"', "{}", "not json"])
def test_verify_says_which_run_has_cases_that_cannot_be_read(lab, rows):
    lab.seal()
    files = {"cases.jsonl": rows.encode(), "experiment.ipynb": b"{}"}
    record = lab.record_of(lab.full, status="kept").as_dict()
    seal(lab.folder, "odd", files, lambda run: {"record.json": json.dumps(record | {"id": run}).encode()})
    assert any("0002-odd" in text for text in verify(lab.folder))


# --- broken files are Tampered, never a bare parse error


def test_a_reader_refuses_a_last_line_that_is_not_json(lab):
    lab.seal()
    lab.path.write_bytes(b"X" + lab.path.read_bytes()[1:])
    with pytest.raises(Tampered, match=r"ledger\.jsonl"):
        lab.read()


def test_sync_refuses_a_record_that_is_not_json(lab):
    run = lab.folder / lab.seal()
    lab.overwrite(run / "record.json", b"X")
    with pytest.raises(Tampered, match=r"record\.json"):
        repair(lab.folder)


# --- the keep rule


def test_the_first_run_on_a_ruler_is_kept_as_the_baseline(lab):
    found = lab.decide(lab.full)
    assert found.status == "kept" and "baseline" in found.reason and found.delta is None


def test_a_run_that_is_better_on_every_case_is_kept(lab):
    first = lab.seal()
    found = lab.decide(up(lab.full, 0.1))
    assert found.status == "kept" and found.against == first
    assert found.delta == pytest.approx(0.1) and found.p < 0.05 and found.low > 0


def test_a_run_that_is_worse_on_every_case_is_discarded(lab):
    lab.seal()
    found = lab.decide(up(lab.full, -0.1))
    assert found.status == "discarded" and found.delta == pytest.approx(-0.1)


def test_the_same_qualities_again_are_discarded(lab):
    lab.seal()
    found = lab.decide(lab.full)
    assert (found.status, found.delta, found.p) == ("discarded", 0.0, 1.0)


def test_a_run_that_is_better_on_half_and_worse_on_half_is_indecisive(lab):
    lab.seal()
    mixed = {k: v + (0.15 if i % 2 else -0.1) for i, (k, v) in enumerate(lab.full.items())}
    found = lab.decide(mixed)
    assert found.status == "indecisive" and found.p > 0.05 and found.high >= 0.02


def test_a_small_gain_that_is_sure_is_kept_even_below_the_smallest_effect(lab):
    lab.seal()
    assert lab.decide(up(lab.full, 0.01)).status == "kept"


def test_a_run_with_an_unscored_case_is_incomplete_whatever_it_scored(lab):
    lab.seal()
    better = up(lab.full, 0.15) | {"case-00": None}
    found = lab.decide(better)
    assert found.status == "incomplete" and found.delta is None


def test_the_first_run_is_incomplete_when_a_case_is_unscored(lab):
    assert lab.decide(lab.full | {"case-00": None}).status == "incomplete"


def test_the_dev_gate_never_keeps(lab):
    assert lab.decide(lab.full, gate="dev").status == "reference"
    first = lab.seal(gate="dev")
    found = lab.decide(up(lab.full, 0.15), gate="dev")
    assert found.status == "indecisive" and found.against == first and found.p < 0.05


def test_without_a_champion_the_dev_gate_compares_with_its_first_run_or_with_what_beat_it(lab):
    first = lab.seal(gate="dev")
    lab.seal(dict.fromkeys(lab.full, 0.0), gate="dev", slug="empty")
    better = lab.seal(up(lab.full, 0.1), gate="dev", slug="better")
    assert lab.read().get("better").decision.against == first
    lab.seal(lab.full, gate="dev", slug="worse")
    found = lab.decide(up(lab.full, 0.05), gate="dev")
    assert (found.status, found.against) == ("discarded", better)


def test_a_run_on_the_full_gate_is_not_compared_with_the_dev_gate(lab):
    lab.seal(gate="dev")
    assert lab.decide(up(lab.full, -0.2)).status == "kept"


@pytest.mark.parametrize("lever", ["anchor", "a/a"])
def test_anchors_and_repeats_are_references_first_and_later(lab, lever):
    assert lab.decide(lab.full, lever=lever).status == "reference"
    first = lab.seal()
    found = lab.decide(up(lab.full, 0.15), lever=lever, of=first)
    assert found.status == "reference" and found.delta == pytest.approx(0.15)


def test_a_repeat_names_its_run_by_id_or_slug(lab):
    first = lab.seal(slug="baseline")
    lab.seal(up(lab.full, 0.1), slug="better")
    for of in (first, "baseline"):
        assert lab.decide(lab.full, lever="a/a", of=of).against == first


def test_a_repeat_of_a_run_on_another_ruler_or_other_cases_is_not_compared(lab):
    first = lab.seal()
    other = lab.decide(lab.full, lever="a/a", of=first, fingerprint="e" * 64)
    assert other.status == "reference" and "not comparable" in other.reason and other.delta is None
    fewer = lab.decide({"case-00": 0.3}, lever="a/a", of=first)
    assert fewer.status == "reference" and fewer.delta is None


def test_the_measured_floor_blocks_a_gain_that_a_repeat_also_showed(lab):
    first = lab.seal()
    lab.seal(up(lab.full, -0.12), slug="again", lever="a/a", of=first)
    assert lab.read().floor("f" * 64) == pytest.approx(0.12)
    found = lab.decide(up(lab.full, 0.1))
    assert found.status == "indecisive" and "floor" in found.reason and found.p < 0.05
    assert lab.decide(up(lab.full, 0.15)).status == "kept"


def test_a_floor_that_nobody_measured_is_absent_and_never_shown_as_0(lab):
    lab.seal()
    better = lab.decide(up(lab.full, 0.1))
    assert (better.status, better.floor) == ("kept", None) and better.as_dict()["floor"] is None
    assert "no A/A floor is measured yet" in better.reason
    assert "| not measured |" in better._repr_markdown_() and "0.0000" not in better._repr_markdown_()
    lab.seal(lab.full, slug="again", lever="a/a", of="0001-run")
    assert "| 0.0000 |" in lab.decide(up(lab.full, 0.1))._repr_markdown_()


def test_a_run_with_another_fingerprint_starts_anew(lab):
    lab.seal(up(lab.full, 0.15))
    found = lab.decide(lab.full, fingerprint="e" * 64)
    assert found.status == "kept" and found.against == ""


def test_a_crashed_run_is_no_rival(lab):
    lab.seal({}, status="crashed")
    assert lab.decide(lab.full).status == "kept"


def test_the_first_look_at_the_sealed_gate_is_the_reference_that_later_looks_must_beat(lab):
    first = lab.seal()
    assert lab.decide(lab.full, kind="confirm", gate="confirm", of=first).status == "kept"
    look = lab.seal(kind="confirm", gate="confirm", of=first, slug="confirm-run")
    better = lab.seal(up(lab.full, 0.1), slug="better")
    same = lab.decide(lab.full, kind="confirm", gate="confirm", of=better)
    assert same.status == "discarded" and same.against == look
    won = lab.decide(up(lab.full, 0.1), kind="confirm", gate="confirm", of=better)
    assert won.status == "kept" and won.against == look


def test_looks_at_the_sealed_gate_share_one_error(lab):
    """What would be kept on the full gate, six cases of twelve better, is too little for one look of ten."""
    first = lab.seal()
    lab.seal(kind="confirm", gate="confirm", of=first, slug="look")
    for cases, status in ((6, "indecisive"), (9, "kept")):
        gained = {c: q + 0.1 * (i < cases) for i, (c, q) in enumerate(lab.full.items())}
        assert lab.decide(gained).status == "kept"
        assert lab.decide(gained, kind="confirm", gate="confirm", of=first).status == status


def test_a_lost_look_leaves_the_confirmed_run_and_is_counted(lab):
    f = "f" * 64
    first = lab.seal()
    look = lab.seal(kind="confirm", gate="confirm", of=first, slug="look")
    better = lab.seal(up(lab.full, 0.1), slug="better")
    lab.seal(kind="confirm", gate="confirm", of=better, slug="look")
    found = lab.read()
    assert [r.of for r in found.looks(f)] == [first, better]
    assert found.confirmed(f).id == look and found.champion(f).id == better
    assert found.looks("e" * 64) == [] and found.confirmed("e" * 64) is None


def test_the_champion_is_the_last_kept_run_of_the_full_gate(lab):
    f = "f" * 64
    assert lab.read().champion(f) is None
    lab.seal(slug="first")
    better = lab.seal(up(lab.full, 0.1), slug="better")
    lab.seal(slug="worse")
    lab.seal(up(lab.full, 0.2), slug="dev", gate="dev")
    lab.seal(up(lab.full, 0.2), slug="anchor", lever="anchor")
    lab.seal({}, slug="crashed", status="crashed")
    found = lab.read()
    assert found.champion(f).id == better
    assert [r.slug for r in found.climb(f)] == ["first", "better", "worse", "crashed"]


def test_a_run_is_found_by_id_number_and_newest_slug(lab):
    lab.seal(slug="same")
    second = lab.seal(slug="same")
    found = lab.read()
    assert found.get("0001-same").id == found.get("1").id == "0001-same" and found.get("same").id == second
    with pytest.raises(NoRun, match="no run '7' in .*, which holds 2 runs"):
        found.get("7")


def test_an_experiment_that_crashed_counts_as_not_done(lab):
    lab.seal({}, status="crashed", key="k")
    assert lab.read().by_key("k") is None
    second = lab.seal(key="k", slug="again")
    assert lab.read().by_key("k").id == second


def test_a_folder_that_does_not_exist_is_an_empty_ledger(tmp_path):
    assert Ledger.read(tmp_path / "none").records == [] and verify(tmp_path / "none") == []
    assert not (tmp_path / "none").exists()


# --- gold in the answers


def test_a_run_with_gold_in_its_answers_is_invalid_names_its_cases_and_is_no_rival(lab):
    first = lab.seal()
    better = {k: v + 0.2 for k, v in lab.full.items()}
    found = lab.decide(better, leaks=["case-01", "case-07"])
    assert found.status == "invalid" and "2 cases (case-01, case-07)" in found.reason
    run = lab.seal(better, leaks=["case-01"])
    read = lab.read()
    assert read.get(run).status == "invalid" and read.champion("f" * 64).id == first
    assert [r.id for r in read.climb("f" * 64)] == [first]
    assert lab.decide(better).against == first


def test_a_leak_of_the_sealed_gate_names_no_case(lab):
    found = lab.decide(lab.full, leaks=["case-01"], kind="confirm", gate="confirm")
    assert found.status == "invalid" and "case-01" not in found.reason and "1 cases" in found.reason


def test_a_run_that_leaked_is_not_run_again_by_its_plan(lab):
    run = lab.seal(leaks=["case-01"], key="k")
    assert lab.read().by_key("k").id == run


# --- a floor for each decoding

TWO_FLOORS = {
    "floor": 0.05, "floors": {"greedy": 0.0, "sampled": 0.05}, "same": {"floor": 0.0}, "detectable": 0.07,
    "null_world": {"false_keep": 0.1, "runs": 71, "confirmed": 0.01, "keeps": 0.1, "lucky_climb": 0.1},
    "greedy_world": {"false_keep": 0.3, "runs": 71, "confirmed": 0.02, "keeps": 0.3, "lucky_climb": 0.1, "detectable": 0.04},
}  # fmt: skip
SAMPLED = {"decoding": {"temp": 0.7}}


def calibrated(lab, found):
    return lab.seal({}, kind="calibrate", lever="calibration", status="reference", found=found)


def test_two_greedy_runs_are_compared_at_the_floor_of_greedy_runs(lab):
    lab.seal()
    calibrated(lab, TWO_FLOORS)
    better = {k: v + 0.04 for k, v in lab.full.items()}
    greedy, drawn = lab.decide(better), lab.decide(better, **SAMPLED)
    assert (greedy.status, greedy.floor) == ("kept", 0.0) and "30 % of studies" in greedy.noise
    assert (drawn.status, drawn.floor) == ("indecisive", 0.05) and "10 % of studies" in drawn.noise
    assert "0.040" in lab.read().sees("f" * 64, sampled=False) and "0.070" in lab.read().sees("f" * 64)


def test_a_greedy_run_against_a_sampled_champion_needs_the_floor_of_sampling(lab):
    lab.seal(**SAMPLED)
    calibrated(lab, TWO_FLOORS)
    assert lab.decide({k: v + 0.04 for k, v in lab.full.items()}).floor == 0.05


def test_a_pipeline_that_draws_under_greedy_decoding_counts_as_sampled(lab):
    lab.seal()
    calibrated(lab, TWO_FLOORS)
    assert lab.decide(lab.full, sampled=True).floor == 0.05
    assert lab.decide(lab.full, sampled=False, **SAMPLED).floor == 0.0


def test_an_older_calibration_has_the_greedy_floor_in_its_answers_judged_again(lab):
    lab.seal()
    calibrated(
        lab, {"floor": 0.05, "same": {"floor": 0.01}, "null_world": TWO_FLOORS["null_world"], "detectable": 0.07}
    )
    found = lab.decide({k: v + 0.04 for k, v in lab.full.items()})
    assert (found.status, found.floor) == ("kept", 0.01) and "not measured" in found.noise
    assert lab.read().floor("f" * 64) == 0.05 and "not measured" in lab.read().sees("f" * 64, sampled=False)


def test_a_sampled_repeat_sets_no_floor_for_greedy_runs(lab):
    first = lab.seal()
    lab.seal({k: v + 0.1 for k, v in lab.full.items()}, lever="a/a", of=first, **SAMPLED)
    assert lab.read().floor("f" * 64) == pytest.approx(0.1) and lab.read().floor("f" * 64, sampled=False) is None


# --- what a repeat repeats


@pytest.mark.parametrize("of", ["0002-try", "try", "2", "0002", "0003-again", "again", "3"])
def test_a_repeat_is_pooled_with_every_look_however_it_names_one_of_them(lab, of):
    lab.seal(slug="base", lever="baseline")
    lab.seal(up(lab.full, 0.01), slug="try", status="indecisive")
    lab.seal(up(lab.full, 0.04), slug="again", status="indecisive", of="try")
    lab.seal(up(lab.full, 0.9 - 0.3), slug="other", status="indecisive")
    mean, looks = lab.read().pooled(lab.record_of(lab.full, of=of), up(lab.full, 0.07))
    assert looks == 3 and mean["case-00"] == pytest.approx(0.34)


def test_a_repeat_by_slug_needs_the_stricter_p(lab):
    lab.seal(slug="base", lever="baseline")
    lab.seal(up(lab.full, 0.1), slug="try", status="indecisive")
    assert "below 0.025" in lab.decide(up(lab.full, 0.1), of="try").reason


def test_a_slug_names_the_newest_run_of_that_slug_before_the_repeat(lab):
    first = lab.seal(slug="try", lever="baseline")
    repeat = lab.seal(slug="again", of="try", status="indecisive")
    second = lab.seal(slug="try", status="indecisive")
    read = lab.read()
    assert read.of(read.get(repeat)) == first and read.of(lab.record_of(lab.full, of="try")) == second
    assert read.of(lab.record_of(lab.full, of="²")) == "²"


def test_repeats_of_a_run_that_is_not_there_are_pooled_with_each_other_alone(lab):
    lab.seal(slug="base", lever="baseline")
    lab.seal(slug="odd", of="no-such-run", status="indecisive")
    assert lab.read().pooled(lab.record_of(lab.full, of="no-such-run"), lab.full)[1] == 2
    assert lab.read().pooled(lab.record_of(lab.full, of="another"), lab.full)[1] == 1


@pytest.mark.parametrize("of", ["base", "0001-base", "1"])
def test_a_look_at_the_sealed_gate_is_known_however_it_names_its_run(lab, of):
    first = lab.seal(slug="base", lever="baseline")
    look = lab.seal(kind="confirm", gate="confirm", of=of, slug="look")
    assert lab.read().of(lab.read().get(look)) == first
