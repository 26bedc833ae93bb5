"""A JupyterLab of its own and a headless browser, both thrown away afterwards."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

import pytest

from lib.files import NOTEBOOKS, ROOT

TOKEN = "notch-test"
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


def _free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def browser():
    """Chromium through playwright; skipped with the reason where one of the two is not installed."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (the `browser` extra)")
    found = next((path for path in map(shutil.which, NAMES) if path), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
    # Its event loop runs in this thread until it ends: kept for the session, no later test could start one.
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=list(QUIET))
        yield running
        running.close()


class Served(NamedTuple):
    """A JupyterLab: its address, and the folder with the copy of the notebooks."""

    address: str
    folder: Path


@pytest.fixture(scope="module")
def lab(tmp_path_factory, browser):
    """A JupyterLab that serves a copy of the notebooks: nothing of the project is written."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(NOTEBOOKS, folder / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    # The page that writes steering files writes them beside runs of its own.
    page = folder / "notebooks" / "02_supervise.ipynb"
    page.write_text(
        page.read_text(encoding="utf-8").replace("Desk()", f"Desk(__import__('pathlib').Path('{folder}/runs'))")
    )
    # The page that takes ratings writes them beside a copy of the sealed runs.
    shutil.copytree(ROOT / "runs", folder / "rated", ignore=shutil.ignore_patterns("adapter", "ratings.jsonl"))
    page = folder / "notebooks" / "03_rate.ipynb"
    copy = f"runs=__import__('pathlib').Path('{folder}/rated')"
    page.write_text(page.read_text(encoding="utf-8").replace('who=\\"me\\"', f'who=\\"me\\", {copy}'))
    # So does the page that takes choices.
    page = folder / "notebooks" / "01_explore.ipynb"
    page.write_text(page.read_text(encoding="utf-8").replace('trip to Paris\\")"', f'trip to Paris\\", {copy})"'))
    port = _free_port()
    settings = {f"JUPYTER{name}": str(folder / name.lower()) for name in
                ("_CONFIG_DIR", "LAB_SETTINGS_DIR", "LAB_WORKSPACES_DIR", "_RUNTIME_DIR")}  # fmt: skip
    env = os.environ | settings | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    command = [
        sys.executable, "-m", "jupyterlab", "--allow-root", "--no-browser", "--ip=127.0.0.1", f"--port={port}",
        "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={folder / 'notebooks'}",
        "--LabApp.news_url=", "--LabApp.extension_manager=readonly",
    ]  # fmt: skip
    with (folder / "log.txt").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait(f"http://127.0.0.1:{port}/api?token={TOKEN}", server, folder / "log.txt")
        yield Served(f"http://127.0.0.1:{port}", folder)
    finally:
        server.terminate()
        server.wait(timeout=30)


def _wait(address, server, log):
    for _ in range(240):
        if server.poll() is not None:
            raise RuntimeError(f"JupyterLab stopped: {log.read_text()[-500:]}")
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise RuntimeError(f"JupyterLab did not answer: {log.read_text()[-500:]}")


class Notebook:
    """One notebook open in the browser, with everything that went wrong on its page."""

    def __init__(self, page, lab, name):
        self.page, self.wrong, self.foreign = page, [], []
        page.set_default_timeout(120_000)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith((lab, lab.replace("http", "ws"), "data:", "blob:"))
                else self.foreign.append(r.url))  # fmt: skip
        page.goto(f"{lab}/lab/tree/{name}?token={TOKEN}&reset")
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        # Run before the kernel is there opens a dialog instead.
        page.locator("#jp-main-statusbar", has_text="| Idle").wait_for()

    def run_all(self):
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_text("Run All Cells", exact=True).click()

    def says(self, text):
        """Wait until an output shows a text, or a text that a pattern finds."""
        self.page.locator(".jp-OutputArea-output", has_text=text).first.wait_for()

    @property
    def errors(self):
        shown = self.page.locator(".jp-OutputArea-output").all_inner_texts()
        return [t for t in shown if "Traceback" in t or "Error:" in t]


@pytest.fixture
def opened(browser, lab):
    """Open a notebook of the copy by its file name."""
    context = browser.new_context(viewport={"width": 1300, "height": 1600})
    yield lambda name: Notebook(context.new_page(), lab.address, name)
    context.close()
