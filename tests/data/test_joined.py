import pytest

from slm_jax.core.errors import UserError
from slm_jax.data.joined import Joined, Subset

SPEECH = [{"id": "a", "samples": 1}, {"id": "b", "samples": 2}]
UNITS = [{"id": "a", "units": 10}, {"id": "b", "units": 20}]


def test_rows_are_merged():
    joined = Joined(SPEECH, UNITS)
    assert len(joined) == 2
    assert joined[1] == {"id": "b", "samples": 2, "units": 20}


def test_rows_of_another_corpus_are_refused():
    with pytest.raises(UserError, match=r"ids of row 0 is \['a', 'b'\]"):
        Joined(SPEECH, UNITS[::-1])[0]
    with pytest.raises(UserError, match=r"\[2, 1\]"):
        Joined(SPEECH, UNITS[:1])


def test_subset_keeps_the_given_order_and_checks_its_bounds():
    assert [row["id"] for row in (Subset(SPEECH, [1, 0])[i] for i in range(2))] == ["b", "a"]
    with pytest.raises(UserError, match="0 to 1"):
        Subset(SPEECH, [2])
