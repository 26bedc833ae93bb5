"""The command line called in this process, as its entry point does it."""

import pytest

from lib import cli


class Said:
    """What a call of the command line answered."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def notch(tmp_path, monkeypatch, capsys):
    """Call `notch` in this process, as its entry point does."""
    monkeypatch.setenv("NOTCH_RUNS", str(tmp_path / "runs"))

    def call(*args):
        with pytest.raises(SystemExit) as stopped:
            cli.main(list(map(str, args)))
        told = capsys.readouterr()
        return Said(stopped.value.code, told.out, told.err)

    return call


def one_line(text):
    return text.startswith("notch: ") and len(text.strip().splitlines()) == 1 and "Traceback" not in text
