"""Every reply once, on disk before it counts, and proof against kills, clumsy hands and other processes."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from lib.claude import store as stores
from lib.claude.store import Store, key_of, line_of, row_of
from lib.measure.ruler import Tampered

KEY = ("fingerprint", "case", "text", "rubric", "gold_first", 0)


def reply(key="k", text="said", **more):
    row = {"type": "reply", "key": key, "fingerprint": "f", "replicate": 0, "text": text, "dollars": 0.01, "batch": ""}
    return row | ({"value": {"reason": text}} if "fault" not in more else {}) | more


@pytest.fixture
def path(tmp_path):
    return tmp_path / "judgments.jsonl"


def test_a_key_fits_the_custom_id_of_a_batch():
    assert len(key_of(*KEY)) == 64 and key_of(*KEY).isalnum() and key_of("f", "c", "half \ud83d", "k", "o", 0)


@pytest.mark.parametrize("part", range(6))
def test_each_part_of_a_key_counts(part):
    changed = [*KEY]
    changed[part] = 1 if part == 5 else KEY[part] + " "
    assert key_of(*changed) != key_of(*KEY) == key_of(*KEY)


def test_what_was_appended_is_there_in_a_new_store(path):
    Store(path).append(reply("a", "one"), reply("b", "zwei\u2028 \n <\ud83d> é"))
    again = Store(path)
    assert again.reply("a")["text"] == "one" and again.reply("b")["text"] == "zwei\u2028 \n <\ud83d> é"
    assert len(again) == 2 and again.reply("c") is None and path.read_bytes().count(b"\n") == 2


def test_a_faulty_reply_is_kept_but_answers_nothing(path):
    store = Store(path)
    store.append(reply("a", fault="not JSON"))
    assert store.reply("a") is None and len(store) == 1 and not store.has("f", 0)
    store.append(reply("a"))
    assert store.reply("a") and store.has("f", 0) and not store.has("f", 1) and not store.has("g", 0)


def test_a_line_cut_anywhere_is_ignored_and_repaired_by_the_next_append(path):
    Store(path).append(reply("a"), reply("b"))
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for cut in range(first, len(whole)):
        path.write_bytes(whole[:cut])
        store = Store(path)
        assert store.reply("a") and store.reply("b") is None
        assert stores.verify(path) == []
        store.append(reply("c"))
        assert [r["key"] for r in Store(path)] == (["a", "b", "c"] if cut == len(whole) - 1 else ["a", "c"])


def test_a_changed_line_is_named_whatever_was_changed(path):
    Store(path).append(reply("a", score=3), reply("b", score=3), reply("c", score=3))
    whole = path.read_bytes()
    second = whole.index(b"\n") + 1
    end = whole.index(b"\n", second)
    for at in range(second, end):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(Tampered) as stopped:
            Store(path)
        assert str(stopped.value).startswith(f"{path}:2: ")
    path.write_bytes(whole.replace(b'"score":3,', b'"score": 3,', 1))  # the same value in other bytes
    assert stores.verify(path) == [f"{path}:1: changed since it was written"]


def test_a_store_that_shrinks_under_a_reader_is_tampering(path):
    store = Store(path)
    store.append(reply("a"), reply("b"))
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(Tampered, match="shorter"):
        store.reply("a")


def test_what_json_does_not_have_is_refused_and_nothing_is_written(path):
    with pytest.raises(ValueError):
        Store(path).append(reply("a"), reply("b", dollars=float("nan")))
    assert not path.exists()


def test_a_line_is_json_with_its_own_hash_and_reads_back():
    line = line_of(reply("a"))
    assert json.loads(line)["sha256"] and row_of(line) == reply("a") and row_of(line[:-2] + b"\n") is None
    assert row_of(b"[" * 100_000 + b"\n") is None and row_of(b"[]\n") is None and row_of(b"{}\n") is None


def test_batches_are_pending_until_they_are_closed(path):
    store = Store(path)
    store.append({"type": "batch", "batch": "b1", "calls": []}, {"type": "batch", "batch": "b2", "calls": []})
    store.append({"type": "batch ended", "batch": "b1"})
    assert [b["batch"] for b in Store(path).pending()] == ["b2"]


def write(path, name):
    for i in range(25):
        Store(path).append(reply(f"{name}-{i}", "x" * 3000))


def test_processes_that_write_at_once_lose_and_mix_nothing(path):
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=write, args=(path, n)) for n in range(3)]
    store = Store(path)
    for w in writers:
        w.start()
    for w in writers:
        w.join()
    assert len(store.rows) == 0 and store.reply("2-24") and len(store) == 75 and stores.verify(path) == []


def test_a_process_killed_while_it_writes_leaves_a_store_that_reads(path):
    code = f"from tests.claude.test_store import reply, Store\nwhile True: Store({str(path)!r}).append(reply('a', 'x' * 9000))"
    child = subprocess.Popen([sys.executable, "-c", code])
    until = time.time() + 60
    while time.time() < until and (not path.exists() or path.stat().st_size < 100_000):
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    count = len(Store(path))
    assert count >= 5
    Store(path).append(reply("b"))
    assert len(Store(path)) == count + 1
