"""For every test: what it does to the process's logging ends with it."""

import gc
import logging
import os

import pytest

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # dozens of processes are started: one of them compiles for all


@pytest.fixture(autouse=True)
def _logging_stays_as_it_was():
    """A command run in this process sends all logging to a stderr that is closed when its test ends."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def pytest_collection_finish():
    """What was collected lives to the end: the garbage collector need not look through it again and again."""
    gc.collect()
    gc.freeze()
