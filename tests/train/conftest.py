"""Bases that are real llamas with random weights, so small that training them takes no time; plain and 8 bit."""

import pytest

from lib.agent.guard import LeakGuard
from tests.llama import write_base


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base") / "micro")


@pytest.fixture(scope="session")
def other_base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base") / "other", seed=1)


@pytest.fixture(scope="session")
def base_8bit(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base") / "micro-8bit", quantised=8)


def write(folder, adapter):
    """The folder of an adapter, as a seal would write it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in adapter.files().items():
        (folder / name).write_bytes(content)
    return str(folder)


@pytest.fixture
def no_guard():
    return LeakGuard([])
