"""Every reply once, under its key, and what it cost; how its lines stay whole is tested with the log."""

import tracemalloc

import pytest

from lib.claude import store as stores
from lib.claude.store import Store
from lib.files import Tampered


def reply(key="k", text="said", **more):
    row = {"type": "reply", "key": key, "fingerprint": "f", "replicate": 0, "text": text, "dollars": 0.01, "batch": ""}
    return row | ({"value": {"reason": text}} if "fault" not in more else {}) | more


@pytest.fixture
def path(tmp_path):
    return tmp_path / "judgments.jsonl"


def test_what_was_appended_is_there_in_a_new_store(path):
    Store(path).append(reply("a", "one"), reply("b", "zwei\u2028 \n <\ud83d> é"))
    again = Store(path)
    assert again.reply("a")["text"] == "one" and again.reply("b")["text"] == "zwei\u2028 \n <\ud83d> é"
    assert len(list(again)) == 2 and again.reply("c") is None and path.read_bytes().count(b"\n") == 2


def test_a_faulty_reply_is_kept_but_answers_nothing(path):
    store = Store(path)
    store.append(reply("a", fault="not JSON"))
    assert store.reply("a") is None and len(list(store)) == 1 and not store.has("f", 0)
    store.append(reply("a"))
    assert store.reply("a") and store.has("f", 0) and not store.has("f", 1) and not store.has("g", 0)


def test_batches_are_pending_until_they_are_closed(path):
    store = Store(path)
    store.append({"type": "batch", "batch": "b1", "calls": []}, {"type": "batch", "batch": "b2", "calls": []})
    store.append({"type": "batch ended", "batch": "b1"})
    assert [b["batch"] for b in Store(path).pending()] == ["b2"]


def test_a_store_of_other_processes_is_seen_at_the_next_look(path):
    mine, its = Store(path), Store(path)
    its.append(reply("a"), {"type": "batch", "batch": "b1", "calls": []})
    assert mine.reply("a") and mine.has("f", 0) and [b["batch"] for b in mine.pending()] == ["b1"]


def test_faulty_replies_were_paid_for_too(path):
    assert stores.paid(path) == 0
    Store(path).append(reply("a"), reply("a", fault="not JSON"), {"type": "batch ended", "batch": "b1"})
    assert stores.paid(path) == 0.02


def test_a_changed_line_is_named(path):
    Store(path).append(reply("a"), reply("b"))
    assert stores.verify(path) == []
    path.write_bytes(path.read_bytes().replace(b'"key":"b"', b'"key":"c"'))
    assert stores.verify(path) == [f"{path}:2: changed since it was written"]
    with pytest.raises(Tampered, match=":2: "):
        Store(path)


def test_replies_stay_on_disk_and_a_large_store_takes_little_memory(path):
    many = 400
    Store(path).append(*(reply(f"k{i}", f"{i} " + "x" * 10_000) for i in range(many)))
    tracemalloc.start()
    store = Store(path)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert path.stat().st_size > 8e6 and held < 5e5 and peak < 2e6
    assert store.reply("k399")["text"].startswith("399 x") and len(list(store)) == many


def test_a_reply_that_was_changed_after_the_store_was_opened_is_never_given_out(path):
    store = Store(path)
    store.append(reply("a", "said"), reply("b", "said"))
    path.write_bytes(path.read_bytes().replace(b'"text":"said"', b'"text":"dais"'))
    with pytest.raises(Tampered, match="changed since it was written"):
        store.reply("b")
