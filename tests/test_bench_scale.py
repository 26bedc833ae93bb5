"""What the bench of large folders measures on is sound, and it says what it measured. Nothing is asserted on speed."""

import pytest

from lib.claude import store
from lib.loop import events
from lib.measure.ruler import Ruler
from lib.runs.ledger import Ledger
from lib.runs.verify import verify
from tests import bench_scale


def test_the_runs_are_as_sound_as_those_of_the_study_and_no_two_are_one_attempt(tmp_path):
    bench_scale.make_runs(tmp_path / "runs", 40)
    found = Ledger.read(tmp_path / "runs").records
    assert verify(tmp_path / "runs") == [] == events.verify(tmp_path / "runs")
    assert len(found) == 40 == len({r.key for r in found}) and {r.kind for r in found} > {"experiment", "train"}


def test_the_study_goes_on_after_its_last_run_under_new_numbers(tmp_path):
    count = len(Ledger.read().records)
    bench_scale.make_runs(tmp_path / "runs", 2 * count)
    first, again = (Ledger.read(tmp_path / "runs").records[part] for part in (slice(count), slice(count, None)))
    assert [int(r.id.split("-")[0]) for r in again] == [*range(count + 1, 2 * count + 1)]
    assert events.verify(tmp_path / "runs") == [] and not {r.key for r in first} & {r.key for r in again}
    assert {r.decision.against for r in again} - {""} <= {r.id for r in again}


def test_a_line_says_both_sizes_the_exponent_and_the_memory(tmp_path):
    [line] = bench_scale.measured(40, ["store"], tmp_path)
    said, sizes, small, large, exponent, memory = line
    assert sizes == [1_000, 4_000] and 0 < small and 0 < large and -5 < exponent < 5 and memory > 10
    assert store.verify(tmp_path / "store-4000" / "store") == []


def test_a_child_that_fails_ends_the_bench(tmp_path):
    with pytest.raises(SystemExit, match="store of .* ended with 1"):
        bench_scale.child("store", tmp_path)


def test_the_ruler_is_frozen_and_no_task_comes_twice(tmp_path):
    bench_scale.make_ruler(tmp_path / "ruler", 1_000)
    ruler = Ruler.load(tmp_path / "ruler")
    assert ruler.counts == "full 800, dev 100, confirm 100" and len({c.task for c in ruler.cases}) == 1_000
