"""What a part's source may say."""

import pytest

from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError
from slm_jax.core.part_source import PartSource, stages_of

FROZEN = PartSource(path="frozen/lm", source="folder", dtype="bfloat16")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"path": ""}, "path is ''"),
        ({"path": "frozen//lm"}, "path is 'frozen//lm'"),
        ({"source": "hub:"}, "source is 'hub:'"),
        ({"dtype": "int8"}, "dtype is 'int8'"),
        ({"frozen": False}, "path is 'frozen/lm'"),
    ],
)
def test_a_source_that_cannot_be_is_refused(changes, told):
    with pytest.raises(UserError, match=told):
        FROZEN.replace(**changes)


def test_it_travels_as_json_and_names_its_stage():
    inner = FROZEN.replace(source="stage:lm", expect=PartSource(path="params", source="hub:a/b", frozen=False))
    assert from_json(inner.to_json()) == inner
    assert (inner.stage, FROZEN.stage) == ("lm", None)
    assert stages_of((inner, FROZEN, inner)) == ("lm",)
