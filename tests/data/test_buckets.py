import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.data.buckets import BucketConfig, bucket_members, pad_to_bucket
from slm_jax.data.order import Key, Mixture

CONFIG = BucketConfig(lengths=(2, 4), keys=("ids", "features"))


def example(length: int) -> dict:
    return {"ids": np.arange(length) + 1, "features": np.ones((length, 3), np.float32), "speaker": np.int32(length)}


def test_an_example_goes_to_the_shortest_bucket_that_holds_it():
    mixture = Mixture([[{}] * 5, [{}] * 2])
    members = bucket_members(mixture, CONFIG, [np.asarray([1, 2, 3, 4, 0]), np.asarray([4, 4])])
    assert [[positions.tolist() for positions in bucket] for bucket in members] == [[[0, 1, 4], []], [[2, 3], [0, 1]]]


def test_keys_are_padded_alike_and_others_left_alone():
    short, long = pad_to_bucket([example(2), example(3)], [Key(0, 0, 0), Key(0, 0, 1)], CONFIG)
    assert short["ids"].tolist() == [1, 2, 0, 0]
    assert long["ids"].tolist() == [1, 2, 3, 0]
    assert short["features"].shape == (4, 3)
    assert short["features"].sum() == 6
    assert short["mask"].tolist() == [True, True, False, False]
    assert long["positions"].tolist() == [0, 1, 2, 0]
    assert long["segment_ids"].tolist() == [1, 1, 1, 0]
    assert (short["speaker"], long["speaker"]) == (2, 3)


def test_lengths_that_do_not_hold_are_named():
    with pytest.raises(UserError, match=r"length is 5.*reach to 4"):
        pad_to_bucket([example(5)], [Key(0, 0, 0)], CONFIG)
    with pytest.raises(UserError, match="example 7 has lengths"):
        pad_to_bucket([example(2) | {"ids": np.arange(1)}], [Key(0, 0, 7)], CONFIG)
    with pytest.raises(UserError, match="one array per source"):
        bucket_members(Mixture([{}]), CONFIG, [])


@pytest.mark.parametrize("changes", [{"lengths": ()}, {"lengths": (4, 4)}, {"keys": ()}])
def test_config_checks_its_fields(changes):
    with pytest.raises(UserError, match=next(iter(changes))):
        CONFIG.replace(**changes)
