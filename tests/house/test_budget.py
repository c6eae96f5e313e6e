"""The time budget of the tests: what counts as late."""

import time
from pathlib import Path

import pytest

from tests.conftest import (
    BUDGET_S,
    CALIBRATION_S,
    calibration_s,
    directory_of,
    is_late,
    overruns,
    pytest_collection_modifyitems,
    pytest_runtest_setup,
    turn_of,
)

ROOT = Path(__file__).parents[2]


def test_directory_is_the_folder_below_tests():
    assert directory_of("tests/nn/test_conv.py::test_step[3]") == "nn"
    assert directory_of("tests/test_alone.py::test_step") == "."


def test_late_directories_are_named_with_their_budget():
    seconds = {"nn": BUDGET_S["nn"] * 1.5, "house": 0.1, "unlisted": 1.0}
    assert [line.split(":")[0] for line in overruns(seconds)] == ["tests/nn", "tests/unlisted"]
    assert overruns({"nn": BUDGET_S["nn"] * 1.5}, factor=2.0) == []


def test_a_run_is_late_as_a_whole():
    longest = max(BUDGET_S, key=BUDGET_S.__getitem__)
    one_late = BUDGET_S | {longest: BUDGET_S[longest] * 3}
    assert overruns(one_late, 2.0) and not is_late(one_late, 2.0)
    assert is_late({name: budget * 2.1 for name, budget in BUDGET_S.items()}, 2.0)


def test_every_directory_of_tests_has_a_budget_and_every_budget_a_directory():
    there = {path.parent.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").glob("*/**/test_*.py")}
    assert there == set(BUDGET_S)


def test_the_calibration_takes_about_as_long_as_it_says():
    assert CALIBRATION_S / 5 < calibration_s() < CALIBRATION_S * 20


def test_all_budgets_leave_room_for_systems_to_come():
    built = len(list((ROOT / "slm_jax" / "systems").glob("speech*/[!_]*.py"))) - 1  # one file holds what two share
    most = 1400 - 25 * (22 - built)
    assert sum(BUDGET_S.values()) <= most, "with 25 s for each system to come two workers need under 15 min"


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


def test_files_of_slow_tests_take_turns(monkeypatch):
    files = {f"tests/nn/test_{letter}.py" for letter in "abcdef"}
    firsts = []
    for turn in range(3):
        monkeypatch.setenv("SLM_JAX_TESTS_TURN", str(turn))
        places = turn_of(files)
        assert sorted(places.values()) == list(range(6))
        firsts += [name for name, place in places.items() if place < 2]
    assert set(firsts) == files, "three runs of which each has time for a third leave nothing out"
    assert turn_of(set()) == {}
