import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.data.examples.unit_durations import UnitDurationConfig
from slm_jax.data.examples.unit_text import UnitTextConfig
from slm_jax.token_compression.dedup import repeat_row

RNG = np.random.default_rng(0)


def test_units_move_to_their_range_between_start_and_end():
    example = UnitTextConfig(first_unit=3, bos=1, eos=2).make()({"units": np.asarray([0, 5, 5])}, RNG)
    assert example.keys() == {"ids"}
    assert example["ids"].dtype == np.int32
    assert example["ids"].tolist() == [1, 3, 8, 8, 2]
    assert UnitTextConfig().make()({"units": np.asarray([4])}, RNG)["ids"].tolist() == [4]
    assert UnitTextConfig(eos=9).make()({"units": np.zeros(0, np.int32)}, RNG)["ids"].tolist() == [9]


def test_padded_form_has_the_keys_of_packing():
    example = UnitTextConfig(bos=7, pad_to=5).make()({"units": np.asarray([1, 2])}, RNG)
    assert example["ids"].tolist() == [7, 1, 2, 0, 0]
    assert example["mask"].tolist() == [True, True, True, False, False]
    assert example["segment_ids"].tolist() == [1, 1, 1, 0, 0]
    assert example["positions"].tolist() == [0, 1, 2, 0, 0]
    assert {example[name].dtype for name in ("ids", "segment_ids", "positions")} == {np.dtype("int32")}


@pytest.mark.parametrize("limit", [{"longest": 6}, {"pad_to": 6}, {"longest": 6, "pad_to": 9}])
def test_long_sequences_are_cut_to_windows_from_everywhere(limit):
    example_fn = UnitTextConfig(bos=100, eos=101, **limit).make()
    seen = set()
    for seed in range(200):
        ids = example_fn({"units": np.arange(10)}, np.random.default_rng(seed))["ids"][:6].tolist()
        assert ids in ([100, *range(10), 101][start : start + 6] for start in range(7))
        seen.add(tuple(ids))
    assert len(seen) == 7


@pytest.mark.parametrize("field, value", [("longest", 1), ("pad_to", 0), ("first_unit", -1), ("bos", -2)])
def test_config_checks_its_fields(field, value):
    with pytest.raises(UserError, match=field):
        UnitTextConfig(**{field: value})


def test_durations_are_whole_runs():
    units = np.repeat(np.asarray([3, 1, 4, 1, 5]), [2, 1, 3, 1, 4])
    example = UnitDurationConfig(length=7).make()({"units": units}, RNG)
    assert example["units"].tolist() == [3, 1, 4, 1, 5, 0, 0]
    assert example["durations"].tolist() == [2, 1, 3, 1, 4, 0, 0]
    assert example["mask"].tolist() == [True] * 5 + [False] * 2
    np.testing.assert_array_equal(repeat_row(example["units"], example["durations"]), units)
    starts = set()
    for seed in range(60):
        window = UnitDurationConfig(length=3).make()({"units": units}, np.random.default_rng(seed))
        pairs = list(zip(window["units"].tolist(), window["durations"].tolist(), strict=True))
        starts.add([(3, 2), (1, 1), (4, 3), (1, 1), (5, 4)].index(pairs[0]) if pairs[0] != (1, 1) else 1)
        assert pairs in ([(3, 2), (1, 1), (4, 3), (1, 1), (5, 4)][start : start + 3] for start in range(3))
    assert starts == {0, 1, 2}
    with pytest.raises(UserError, match="length"):
        UnitDurationConfig(length=0)
