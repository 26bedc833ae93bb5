"""The append-only log under both schemes: proof against kills, clumsy hands and other processes; bytes that stay."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from lib.files import Tampered, sha256
from lib.log import START, Chain, Hashed, Log

CHAIN, HASHED = Chain("text"), Hashed()
BOTH = pytest.mark.parametrize("scheme", [CHAIN, HASHED], ids=["chain", "hashed"])
# Lines as the first version of each log wrote them: the ledger, the loop's events, the store of replies.
EVENTS = (
    '{"at":"2026-11-26T02:12:33+00:00","kind":"started","n":1,"prev":"' + START + '","total":2}\n'
    '{"at":"2026-11-26T02:12:33+00:00","kind":"word","n":2,"prev":'
    '"599977add6666a1516007a09366f08b986874546a86d08ed324d81b99414156a","said":"zwölf \u2028 <\\ud83d>"}\n'
).encode()
LEDGER = (
    '{"id":"0001-a","n":1,"prev":"' + START + '",'
    '"record":{"id":"0001-a","quality":1.1,"text":"zwölf \u2028"},"seal":"5ea1"}\n'
    '{"id":"0002-b","n":2,"prev":"b0e05905bcdc3479bc7b528dd4197ba98045856197e7391bc89439e7711ade4f",'
    '"record":{"id":"0002-b","quality":2.1,"text":"zwölf \u2028"},"seal":"5ea1"}\n'
).encode()
STORE = (
    '{"dollars":0.1,"key":"k","text":"zwölf \u2028 <>","type":"reply",'
    '"sha256":"c4b3c78b0fa73d1ed56900d89d98365c5f591fc0b691315403028945e602ab88"}\n'
    '{"key":"l","text":"zw\\u00f6lf \\ud83d","type":"reply","value":{"a":1},'
    '"sha256":"dc82cf35dd56de59982c657b8dbb2f6a5cb049a4c35ec7cf0acd9674be68cf23"}\n'
).encode()


def row(text="said", **more):
    return {"text": text, **more}


def verify(path, scheme):
    """What is wrong with a log; a torn last line is not: nothing was done about it."""
    try:
        Log(path, scheme)
    except Tampered as error:
        return [str(error)]
    return []


def texts(path, scheme):
    return [r["text"] for r in Log(path, scheme)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log.jsonl"


# --- what is written


@pytest.mark.parametrize(
    ("old", "scheme"), [(EVENTS, Chain("kind")), (LEDGER, Chain("record")), (STORE, HASHED)], ids=str
)
def test_old_lines_are_read_and_written_again_byte_for_byte(path, old, scheme):
    path.write_bytes(old)
    rows = Log(path, scheme).rows
    assert len(rows) == 2 and verify(path, scheme) == []
    path.unlink()
    Log(path, scheme).extend({k: v for k, v in r.items() if k not in ("n", "prev")} for r in rows)
    assert path.read_bytes() == old


@BOTH
def test_what_was_appended_is_there_in_a_new_log(path, scheme):
    Log(path, scheme).extend([row("one"), row("zwei\u2028 \n <\ud83d> é")])
    assert texts(path, scheme) == ["one", "zwei\u2028 \n <\ud83d> é"] and path.read_bytes().count(b"\n") == 2


@BOTH
def test_two_logs_of_one_file_see_each_others_lines(path, scheme):
    mine, its = Log(path, scheme), Log(path, scheme)
    its.extend([row("its")])
    mine.extend([row("mine")])
    assert [r["text"] for r in mine] == ["its", "mine"] == texts(path, scheme)
    assert texts(path, scheme) == ["its", "mine"] and [r["text"] for r in its] == ["its"]
    its.catch_up()
    its.catch_up()
    assert its.rows == mine.rows and its.head == mine.head


@BOTH
def test_what_json_does_not_have_is_refused_and_nothing_is_written(path, scheme):
    with pytest.raises(ValueError):
        Log(path, scheme).extend([row("a"), row("b", dollars=float("nan"))])
    assert path.read_bytes() == b"" and texts(path, scheme) == []


def test_each_line_of_a_chain_names_the_one_before(path):
    Log(path, CHAIN).extend([row("a"), row("b")])
    lines = path.read_bytes().splitlines()
    assert [json.loads(line)["prev"] for line in lines] == [START, sha256(lines[0])]
    assert Log(path, CHAIN).head == sha256(lines[1])


# --- what a kill leaves


@BOTH
def test_a_line_cut_anywhere_is_ignored_and_repaired_by_the_next_append(path, scheme):
    Log(path, scheme).extend([row("a"), row("b")])
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for cut in range(first, len(whole)):
        path.write_bytes(whole[:cut])
        found = Log(path, scheme)
        assert [r["text"] for r in found] == ["a"] and found.torn == (cut > first)
        assert verify(path, scheme) == []
        found.extend([row("c")])
        # A line that proves itself and lacks only its end was paid for; an event was decided by nobody.
        finished = scheme == HASHED and cut == len(whole) - 1
        assert texts(path, scheme) == (["a", "b", "c"] if finished else ["a", "c"]) and not found.torn


@BOTH
def test_a_torn_line_can_be_repaired_without_adding_one(path, scheme):
    Log(path, scheme).extend([row("a"), row("b")])
    path.write_bytes(path.read_bytes()[:-20])
    Log(path, scheme).extend([])
    assert texts(path, scheme) == ["a"] and path.read_bytes().endswith(b"}\n")


def write(path, scheme, name):
    for i in range(25):
        Log(path, scheme).extend([row(f"{name}-{i}" + "x" * 3000)])


@BOTH
def test_processes_that_write_at_once_lose_and_mix_nothing(path, scheme):
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=write, args=(path, scheme, n)) for n in range(3)]
    found = Log(path, scheme)
    for w in writers:
        w.start()
    for w in writers:
        w.join()
    assert found.rows == []
    found.catch_up()
    assert len(found.rows) == 75 == len({r["text"] for r in found})
    assert verify(path, scheme) == []


@BOTH
def test_a_process_killed_while_it_writes_leaves_a_log_that_reads(path, scheme):
    code = f"from tests.test_log import *\nlog = Log(Path({str(path)!r}), {scheme!r})\nwhile True: log.extend([row('x' * 9000)])"
    child = subprocess.Popen([sys.executable, "-c", f"from pathlib import Path\n{code}"])
    until = time.time() + 60
    while time.time() < until and (not path.exists() or path.stat().st_size < 100_000):
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    count = len(Log(path, scheme).rows)
    assert count >= 5
    Log(path, scheme).extend([row("b")])
    assert len(Log(path, scheme).rows) in (count + 1, count + 2)  # a line may have lacked only its end


# --- what is no accident


@BOTH
def test_a_changed_line_is_named_whatever_was_changed(path, scheme):
    Log(path, scheme).extend([row("a", score=3), row("b", score=3), row("c", score=3)])
    whole = path.read_bytes()
    second = whole.index(b"\n") + 1
    end = whole.index(b"\n", second)
    for at in range(second, end):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        [wrong] = verify(path, scheme)
        # Of a chain the line after it can be the first that does not fit.
        assert wrong.startswith((f"{path}:2: ", f"{path}:3: ") if scheme == CHAIN else f"{path}:2: ")
    path.write_bytes(whole.replace(b'"score":3', b'"score": 3', 1))  # the same value in other bytes
    [wrong] = verify(path, scheme)
    assert wrong.startswith(f"{path}:2: " if scheme == CHAIN else f"{path}:1: changed since it was written")


def test_a_line_taken_out_breaks_the_chain(path):
    Log(path, CHAIN).extend(map(row, "abc"))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[2])
    assert verify(path, CHAIN) == [f"{path}:2: does not follow the line before it"]


@pytest.mark.parametrize("end", ["", "]", '"text":1}', '"n":1}', '"n":2,"text":1}', "[" * 100_000])
def test_the_newest_line_of_a_chain_that_is_no_row_is_named(path, end):
    path.write_text(f'{{"prev":"{START}",{end}\n')
    [wrong] = verify(path, CHAIN)
    assert wrong.startswith(f"{path}:1: changed since it was written (not a row: ") and "\n" not in wrong


@pytest.mark.parametrize("line", [b"", b"[]", b"{}", b"[" * 100_000, b'{"text":"a"}', b'"sha256":""}'])
def test_a_line_without_its_own_hash_is_named(path, line):
    path.write_bytes(line + b"\n")
    assert verify(path, HASHED) == [f"{path}:1: changed since it was written"]


@BOTH
def test_a_log_that_shrinks_under_a_reader_is_tampering(path, scheme):
    found = Log(path, scheme)
    found.extend([row("a"), row("b")])
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(Tampered, match="shorter"):
        found.catch_up()


def test_a_chain_that_changed_behind_the_back_of_a_reader_is_noticed(path):
    found = Log(path, CHAIN)
    found.extend([row("one"), row("two")])
    path.write_bytes(path.read_bytes().replace(b"one", b"eno"))
    with pytest.raises(Tampered, match="changed since it was read"):
        found.extend([row("more")])


@BOTH
def test_line_ends_that_a_checkout_changed_are_named(path, scheme):
    Log(path, scheme).extend([row("one"), row("two")])
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    with pytest.raises(Tampered, match="CRLF.*core.autocrlf"):
        Log(path, scheme)
