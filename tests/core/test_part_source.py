"""What a part's source may say."""

import pytest

from slm_jax.core.config import Config, from_json
from slm_jax.core.errors import UserError
from slm_jax.core.part_source import PartSource, stages_of

FROZEN = PartSource(path="frozen/lm", source="folder", dtype="bfloat16")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"path": ""}, "path is ''"),
        ({"path": "frozen//lm"}, "path is 'frozen//lm'"),
        ({"source": "hub:"}, "source is 'hub:'"),
        ({"dtype": "int4"}, "dtype is 'int4'"),
        ({"path": "params/lm", "dtype": "int8", "frozen": False}, "integers are not trained"),
        ({"frozen": False}, "path is 'frozen/lm'"),
    ],
)
def test_a_source_that_cannot_be_is_refused(changes, told):
    with pytest.raises(UserError, match=told):
        FROZEN.replace(**changes)


class Inner(Config):
    """A part."""


class Outer(Config):
    """A model with a part and something else."""

    inner: Inner = Inner()
    count: int = 3


def test_a_part_of_a_model_may_be_meant():
    whole, part = FROZEN.replace(take=None), FROZEN.replace(take="inner")
    params = {"inner": {"kernel": 1}, "other": 2}
    assert whole.taken(Outer(), params) == (Outer(), params)
    assert part.taken(Outer(), params) == (Inner(), {"kernel": 1})
    for take in ("count", "nothing"):
        with pytest.raises(UserError, match=f"part 'frozen/lm': take is '{take}': no part of a Outer"):
            FROZEN.replace(take=take).taken_config(Outer())
    with pytest.raises(UserError, match=r"'folder' holds weights of \['other'\] only"):
        part.taken(Outer(), {"other": 2})


def test_it_travels_as_json_and_names_its_stage():
    inner = FROZEN.replace(source="stage:lm", expect=PartSource(path="params", source="hub:a/b", frozen=False))
    assert from_json(inner.to_json()) == inner
    assert (inner.stage, FROZEN.stage) == ("lm", None)
    assert stages_of((inner, FROZEN, inner)) == ("lm",)
