import pytest

from slm_jax.core.errors import UserError
from slm_jax.data.joined import EndToEnd, Joined, Picked, Subset

SPEECH = [{"id": "a", "samples": 1}, {"id": "b", "samples": 2}]
UNITS = [{"id": "a", "units": 10}, {"id": "b", "units": 20}]


def test_rows_are_merged():
    joined = Joined(SPEECH, UNITS)
    assert len(joined) == 2
    assert joined[1] == {"id": "b", "samples": 2, "units": 20}


def test_fields_under_names_of_their_own_leave_others_alone():
    table = [{"id": "a", "units": 3, "runs": 4}, {"id": "b", "units": 5, "runs": 6}]
    joined = Joined(SPEECH, UNITS, Picked(table, {"pitch": "units"}))
    assert joined[1] == {"id": "b", "samples": 2, "units": 20, "pitch": 5} and len(Picked(table, {})) == 2


def test_rows_of_another_corpus_are_refused():
    with pytest.raises(UserError, match=r"ids of row 0 is \['a', 'b'\]"):
        Joined(SPEECH, UNITS[::-1])[0]
    with pytest.raises(UserError, match=r"\[2, 1\]"):
        Joined(SPEECH, UNITS[:1])


def test_subset_keeps_the_given_order_and_checks_its_bounds():
    assert [row["id"] for row in (Subset(SPEECH, [1, 0])[i] for i in range(2))] == ["b", "a"]
    with pytest.raises(UserError, match="0 to 1"):
        Subset(SPEECH, [2])


def test_subset_of_a_range_keeps_the_range():
    assert Subset(SPEECH, range(1, 2)).indices == range(1, 2)
    assert len(Subset(SPEECH, range(0))) == 0
    with pytest.raises(UserError, match="0 to 1"):
        Subset(SPEECH, range(1, 3))


def test_corpora_end_to_end_share_no_id_and_keep_what_all_have():
    read = [{"id": name, "speaker": "0", "samples": name, "phones": []} for name in "ab"]
    told = [{"id": "a", "speaker": "0", "samples": "c", "lang": "fr"}]
    both = EndToEnd({"read": read, "none": [], "told": told})
    assert len(both) == 3
    assert both.places == {"read": range(2), "none": range(2, 2), "told": range(2, 3)}
    assert [both[i] for i in (1, 2)] == [
        {"id": "read/b", "speaker": "read/0", "samples": "b", "corpus": "read"},
        {"id": "told/a", "speaker": "told/0", "samples": "c", "corpus": "told"},
    ]
    assert [both.first(1)[i]["id"] for i in range(2)] == ["read/a", "told/a"]
    with pytest.raises(IndexError):
        both[3]
