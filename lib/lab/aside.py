"""Notebooks executed in processes of their own, several at a time: `python -m lib.lab.aside < {"template": ...}`.

Knows how to execute and hand back; seals nothing, so that the order of a study is the order of its plan, whichever run
ends first.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lib.files import ROOT
from lib.lab import execute

Executed = tuple[dict[str, Any], str]  # the notebook as it came out, and what stopped it ("" if nothing)


class Workers:
    """Up to `count` notebooks at a time. Leaving the block ends what still runs."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._threads = ThreadPoolExecutor(count)
        self._running: set[subprocess.Popen[str]] = set()
        self._closed = False

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        for child in list(self._running):
            child.terminate()
        self._threads.shutdown(cancel_futures=True)

    def start(self, template: str, parameters: dict[str, Any], folder: Path) -> Future[Executed]:
        """Execute a template; the future gives what `execute.execute` returns, or raises what it raises."""
        return self._threads.submit(self._one, {"template": template, "parameters": parameters, "folder": str(folder)})

    def _one(self, told: dict[str, Any]) -> Executed:
        if self._closed:
            return {}, "stopped"
        with tempfile.TemporaryDirectory(prefix="notch-") as temp:
            out = Path(temp) / "out.json"
            command = [sys.executable, "-m", "lib.lab.aside", str(out)]
            env = os.environ | {"PYTHONPATH": str(ROOT)}
            child = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=env, text=True)
            self._running.add(child)
            try:
                said = child.communicate(json.dumps(told))[1].strip().splitlines()
            finally:
                self._running.discard(child)
            if not out.exists():
                raise OSError(
                    None, f"a worker ended with exit code {child.returncode}: {said[-1] if said else 'no reason'}"
                )
            found = json.loads(out.read_text(encoding="utf-8"))
        if "errno" in found:
            raise OSError(found["errno"], found["said"])
        return found["notebook"], found["error"]


def main() -> None:
    told = json.load(sys.stdin)
    try:
        notebook, error = execute.execute(execute.template(told["template"]), told["parameters"], Path(told["folder"]))
        found: dict[str, Any] = {"notebook": notebook, "error": error}
    except OSError as failed:  # the machine's fault (disk full, say), not the run's
        found = {"errno": failed.errno, "said": failed.strerror or str(failed)}
    Path(sys.argv[1]).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
