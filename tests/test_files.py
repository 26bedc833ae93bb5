"""The floor: files that are written once or not at all, and lists of sums that notice every change."""

import os
import shutil
import stat
import subprocess
import sys
import threading

import pytest

from lib import files


def names(folder):
    return sorted(p.name for p in folder.iterdir())


@pytest.fixture
def sealed(tmp_path):
    """A folder of two files, one in a subfolder, and the sha256sum lines of both."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.txt").write_text("alpha")
    (tmp_path / "deep" / "b.txt").write_text("beta")
    text = files.sums(tmp_path, ["deep/b.txt", "a.txt"])
    (tmp_path / "SUMS").write_text(text)
    return tmp_path


def check(folder):
    return files.check_sums(folder, (folder / "SUMS").read_text(), "SUMS")


def test_equal_values_have_equal_text():
    assert files.canonical({"a": 1, "b": [2, "ü"]}) == files.canonical({"b": [2, "ü"], "a": 1}) == '{"a":1,"b":[2,"ü"]}'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [float("-inf")]}])
def test_what_is_no_json_is_refused(value):
    with pytest.raises(ValueError):
        files.canonical(value)


def test_a_text_hashes_as_its_utf_8_bytes(tmp_path):
    (tmp_path / "f").write_bytes("é".encode())
    known = "4a99557e4033c3539de2eb65472017cad5f9557f7a0625a09f1c3f6e2ba69c4c"
    assert files.sha256("é") == files.sha256("é".encode()) == files.sha256_file(tmp_path / "f") == known


def test_a_file_is_written_once_and_read_only(tmp_path):
    files.write_new(tmp_path / "f", "first")
    with pytest.raises(FileExistsError):
        files.write_new(tmp_path / "f", "second")
    assert (tmp_path / "f").read_text() == "first"
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o444
    assert names(tmp_path) == ["f"]


def test_of_many_writers_exactly_one_wins(tmp_path):
    won = []

    def write(i):
        try:
            files.write_new(tmp_path / "f", f"{i}" * 10_000)
        except FileExistsError:
            return
        won.append(i)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert (tmp_path / "f").read_text() == f"{won[0]}" * 10_000
    assert names(tmp_path) == ["f"]


def test_a_replaced_file_has_the_new_bytes_and_can_be_replaced_again(tmp_path):
    for text in ("first", "second", ""):
        files.write_atomic(tmp_path / "f", text)
        assert (tmp_path / "f").read_text() == text
    assert names(tmp_path) == ["f"]


def test_a_replacement_that_fails_leaves_nothing_behind(tmp_path):
    (tmp_path / "f").mkdir()
    with pytest.raises(OSError):
        files.write_atomic(tmp_path / "f", "text")
    assert names(tmp_path) == ["f"]


def test_a_lock_is_held_by_one_at_a_time(tmp_path):
    said = []

    def second():
        with files.locked(tmp_path / "lock"):
            said.append("second")

    thread = threading.Thread(target=second)
    with files.locked(tmp_path / "lock"):
        thread.start()
        thread.join(0.2)
        said.append("first")
    thread.join(10)
    assert said == ["first", "second"]


def test_a_lock_dies_with_its_process(tmp_path):
    code = "import sys; from lib.files import *\nwith locked(Path(sys.argv[1])): print('held', flush=True); input()"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=files.ROOT,
    )
    with holder:
        assert holder.stdout.readline() == b"held\n"
        took = threading.Event()

        def take():
            with files.locked(tmp_path / "lock"):
                took.set()

        thread = threading.Thread(target=take)
        thread.start()
        assert not took.wait(0.1)
        holder.kill()
        assert took.wait(10)
        thread.join()


def test_runs_live_where_the_environment_says(monkeypatch):
    monkeypatch.setenv("NOTCH_RUNS", os.path.join("some", "where"))
    assert files.runs_folder().parts == ("some", "where")
    monkeypatch.setenv("NOTCH_RUNS", "")
    assert files.runs_folder() == files.ROOT / "runs"


def test_an_untouched_folder_has_nothing_wrong(sealed):
    assert check(sealed) == []


@pytest.mark.parametrize(
    ("spoil", "file", "what"),
    [
        (lambda f: (f / "a.txt").write_text("alphA"), "a.txt", "changed"),
        (lambda f: (f / "deep" / "b.txt").unlink(), "deep/b.txt", "missing"),
        (lambda f: (f / "deep" / "c.txt").write_text(""), "deep/c.txt", "added"),
    ],
)
def test_a_changed_missing_or_added_file_is_named(sealed, spoil, file, what):
    spoil(sealed)
    [wrong] = check(sealed)
    assert wrong.startswith(f"{sealed / file}:") and what in wrong


def test_a_list_of_sums_that_is_none_is_named(sealed):
    (sealed / "SUMS").write_text("nonsense\n")
    [wrong] = check(sealed)
    assert wrong.startswith(f"{sealed / 'SUMS'}:")


def test_an_emptied_list_of_sums_vouches_for_no_file(sealed):
    (sealed / "SUMS").write_text("")
    assert len(check(sealed)) == 2


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="no sha256sum on this machine")
def test_sha256sum_reads_the_list_too(sealed):
    command = ["sha256sum", "--status", "--strict", "-c", "SUMS"]
    assert subprocess.run(command, cwd=sealed).returncode == 0
    (sealed / "a.txt").write_text("alphA")
    assert subprocess.run(command, cwd=sealed).returncode == 1


def test_a_checkout_that_changed_only_line_ends_is_told_so(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one\ntwo\n")
    text = files.sums(tmp_path, ["a.txt"])
    (tmp_path / "a.txt").write_bytes(b"one\r\ntwo\r\n")
    [fault] = files.check_sums(tmp_path, text.replace("\n", "\r\n"), "SUMS")
    assert "CRLF" in fault and "core.autocrlf" in fault
    (tmp_path / "a.txt").write_bytes(b"one\r\nTWO\r\n")
    [fault] = files.check_sums(tmp_path, text, "SUMS")
    assert "changed since it was sealed" in fault and "CRLF" not in fault


def test_a_clone_that_converts_line_ends_keeps_the_bytes_of_this_project(tmp_path):
    def git(*args):
        user = ("-c", "user.name=t", "-c", "user.email=t@t.example", "-c", "core.autocrlf=true")
        subprocess.run(["git", *user, *args], check=True, capture_output=True)

    here, there = tmp_path / "here", tmp_path / "there"
    git("init", here)
    shutil.copy(files.ROOT / ".gitattributes", here)
    (here / "cases.jsonl").write_bytes(b"{}\n{}\n")
    git("-C", here, "add", ".")
    git("-C", here, "commit", "-m", "sealed")
    git("clone", here, there)
    assert (there / "cases.jsonl").read_bytes() == b"{}\n{}\n"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user without a home")
def test_a_user_without_a_home_has_paths_taken_out_and_a_cache():
    code = """
import os
from lib.files import ROOT, without_paths
from lib.weights import cache
for name in ("HOME", "XDG_CACHE_HOME", "NOTCH_CACHE"):
    os.environ.pop(name, None)
import platformdirs
os.setuid(12345)
print(without_paths(f"{ROOT}/ruler and /elsewhere"), cache().name)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=files.ROOT, capture_output=True, text=True)
    assert done.stdout == "./ruler and /elsewhere notch-12345\n", done.stderr
