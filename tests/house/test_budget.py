"""The time budget of the tests: what counts as late."""

import time

import pytest

from tests.conftest import BUDGET_S, DEFAULT_BUDGET_S, directory_of, overruns, pytest_runtest_setup


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
    """As much of a collected test as the hook reads: its `slow` marker."""

    def __init__(self, *marks: pytest.MarkDecorator) -> None:
        self.marks = {mark.name: mark.mark for mark in marks}

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
