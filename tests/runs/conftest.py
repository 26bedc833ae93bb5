"""The folder of small sealed runs, as the tests of what makes them have it."""

from tests.lab.conftest import lab

__all__ = ["lab"]
