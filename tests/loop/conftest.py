"""The folder of small sealed runs, as the tests of what makes them have it; and what every loop on the toy begins with."""

import shutil

import pytest

from lib.loop.loop import Loop, Settings
from lib.loop.validate import Base
from tests.lab.conftest import lab

__all__ = ["lab"]


@pytest.fixture(scope="session")
def first_runs(tmp_path_factory):
    """A folder in which a loop has sealed its baseline on both gates."""
    folder = tmp_path_factory.mktemp("begun")
    list(Loop(folder / "runs", folder / "steer", Settings(total=2, base=Base(model="toy"))).run())
    return folder


@pytest.fixture
def begun(first_runs, tmp_path):
    """A copy of it, in which a loop goes on."""
    shutil.copytree(first_runs, tmp_path, dirs_exist_ok=True)
    return tmp_path
