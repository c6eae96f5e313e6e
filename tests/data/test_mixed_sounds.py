"""Recordings that sound together."""

import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.data.mixed_sounds import MixedConfig, MixedSounds, laid


class Levels:
    """Recording i is i thousandths throughout."""

    def __len__(self) -> int:
        return 200

    def __getitem__(self, index: int) -> dict:
        return {"id": str(index), "samples": np.full(100 + index % 7, index / 1000, np.float32)}


def test_shares_are_met_and_an_item_is_the_same_whenever_it_is_read():
    mixed = MixedSounds(Levels(), MixedConfig())
    alone = [np.array_equal(mixed[i]["samples"], Levels()[i]["samples"]) for i in range(200)]
    assert 0.54 < np.mean(alone) < 0.74 and len(mixed) == 200
    for i in (0, 17, 199):
        np.testing.assert_array_equal(mixed[i]["samples"], mixed[i]["samples"])
        assert mixed[i]["samples"].dtype == np.float32 and len(mixed[i]["samples"]) == 100 + i % 7


def test_others_are_added_with_their_gain():
    mixed = MixedSounds(Levels(), MixedConfig(shares=(0.0, 1.0), gain_db=(0.0, 0.0)))
    added = [mixed[i]["samples"].max() - i / 1000 for i in range(50)]
    assert all(abs(1000 * one - round(1000 * float(one))) < 1e-2 for one in added) and len(set(np.round(added, 4))) > 20
    louder = MixedSounds(Levels(), MixedConfig(shares=(0.0, 1.0), gain_db=(20.0, 20.0)))
    np.testing.assert_allclose(louder[3]["samples"].max() - 0.003, np.minimum(10 * added[3], 0.997), rtol=1e-3)
    assert max(louder[i]["samples"].max() for i in range(200)) == 1.0  # never beyond full scale


@pytest.mark.parametrize("length", [3, 8, 20])
def test_a_recording_is_laid_inside(length):
    other, rng = np.arange(1, 1 + length, dtype=np.float32), np.random.default_rng(0)
    starts = set()
    for _ in range(50):
        found = laid(other, (8,), rng)
        assert found.shape == (8,) and (np.diff(found[found > 0]) == 1).all()
        starts.add((float(found[0]), int((found > 0).argmax())))
    assert len(starts) == abs(length - 8) + 1


@pytest.mark.parametrize("field", [{"shares": (0.5, 0.4)}, {"shares": ()}, {"gain_db": (3.0, 1.0)}])
def test_what_makes_no_sense_is_refused(field):
    with pytest.raises(UserError, match=next(iter(field))):
        MixedConfig(**field)
