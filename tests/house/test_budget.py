"""The time budget of the tests: what counts as late."""

import time

import pytest

from tests.conftest import (
    BUDGET_S,
    DEFAULT_BUDGET_S,
    directory_of,
    overruns,
    pytest_collection_modifyitems,
    pytest_runtest_setup,
)


def test_directory_is_the_folder_below_tests():
    assert directory_of("tests/nn/test_conv.py::test_step[3]") == "nn"
    assert directory_of("tests/test_alone.py::test_step") == "."


def test_late_directories_are_named_with_their_budget():
    seconds = {"nn": BUDGET_S["nn"] * 1.5, "house": 0.1, "unlisted": DEFAULT_BUDGET_S + 1}
    assert [line.split(":")[0] for line in overruns(seconds)] == ["tests/nn", "tests/unlisted"]
    assert overruns(seconds, factor=2.0) == []


def test_all_budgets_fit_in_a_quarter_of_an_hour():
    assert sum(BUDGET_S.values()) <= 15 * 60 * 1.5, "two workers run side by side"


class Item:
    """As much of a collected test as the hooks read: its name and its `slow` marker."""

    def __init__(self, *marks: pytest.MarkDecorator, nodeid: str = "tests/nn/test_conv.py::test_step") -> None:
        self.nodeid, self.marks = nodeid, {mark.name: mark.mark for mark in marks}

    def get_closest_marker(self, name: str) -> pytest.Mark | None:
        return self.marks.get(name)


def test_only_slow_tests_that_do_not_fit_are_left_out(monkeypatch):
    monkeypatch.setenv("SLM_JAX_TESTS_END", str(time.time() + 200))
    pytest_runtest_setup(Item(pytest.mark.slow(seconds=100)))
    pytest_runtest_setup(Item())
    with pytest.raises(pytest.skip.Exception, match="no time left"):
        pytest_runtest_setup(Item(pytest.mark.slow(seconds=300)))
    monkeypatch.delenv("SLM_JAX_TESTS_END")
    pytest_runtest_setup(Item(pytest.mark.slow(seconds=300)))


def test_long_directories_come_first_and_files_of_slow_tests_from_short_to_long():
    names = ["core/test_a.py::x", "training/test_b.py::x", "core/test_a.py::y", "training/test_a.py::x"]
    items = [Item(nodeid=f"tests/{name}") for name in names]
    pytest_collection_modifyitems(items)
    assert [item.nodeid.removeprefix("tests/") for item in items] == [names[1], names[3], names[0], names[2]]

    slow = {"nn/test_a.py::x": 70, "nn/test_a.py::y": 60, "core/test_b.py::x": 80, "nn/test_a.py::z": 10}
    items = [Item(pytest.mark.slow(seconds=s), nodeid=f"tests/{name}") for name, s in slow.items()]
    pytest_collection_modifyitems(items)
    order = ["core/test_b.py::x", "nn/test_a.py::z", "nn/test_a.py::y", "nn/test_a.py::x"]
    assert [item.nodeid.removeprefix("tests/") for item in items] == order
