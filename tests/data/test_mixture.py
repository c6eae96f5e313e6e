import itertools

import numpy as np
import pytest

from slm_jax.cli.options import override_config
from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError
from slm_jax.data.examples.unit_text import UnitTextConfig
from slm_jax.data.mixture import MixtureConfig, PartConfig
from slm_jax.data.packing import PackingConfig
from slm_jax.data.pipeline import PipelineConfig, make_batches

MIXTURE = MixtureConfig(
    parts=(
        PartConfig(name="read", corpus="libri", weight=3.0),
        PartConfig(name="told", corpus="stories", weight=1.0, example=UnitTextConfig(units="units", bos=1, longest=4)),
    )
)
PLACES = {"libri": range(12), "stories": range(12, 20)}


def table() -> list[dict]:
    """Row i: `runs` of one to five values i + 100, and `units`, which say each of them twice."""
    runs = [np.full(1 + i % 5, 100 + i, np.int32) for i in range(20)]
    return [{"runs": values, "units": np.repeat(values, 2)} for values in runs]


def test_parts_take_the_rows_of_their_corpus():
    sources = MIXTURE.sources(table(), PLACES)
    assert [(len(source), weight) for source, weight in sources] == [(12, 3.0), (8, 1.0)]
    assert sources[1][0][0]["runs"][0] == 112
    everything = MixtureConfig(parts=(PartConfig(name="all", weight=1.0),)).sources(table(), PLACES)
    assert len(everything[0][0]) == 20


def test_corpora_that_are_not_there_are_named():
    with pytest.raises(UserError, match=r"part 'read' is 'libri'.*single corpus"):
        MIXTURE.sources(table(), {})
    with pytest.raises(UserError, match="did you mean 'libri_'"):
        MIXTURE.sources(table(), {"libri_": range(12), "stories": range(12, 20)})
    with pytest.raises(UserError, match=r"part 'told' is .*one kind of example only"):
        MIXTURE.sources(table(), PLACES, kinds=False)
    with pytest.raises(UserError, match=r"'stories'.*no example"):
        MIXTURE.sources(table(), {"libri": range(20), "stories": range(20, 20)})


def test_kinds_of_example_are_mixed_with_the_shares_asked_for():
    kinds = [UnitTextConfig(units="runs", bos=1, pad_to=8), MIXTURE.parts[1].example.replace(pad_to=8)]
    sources = MIXTURE.sources(table(), PLACES)
    batches = make_batches(sources, [kind.make() for kind in kinds], PipelineConfig(batch=4))
    found = list(itertools.islice(batches, 40))
    batches.close()
    ids, example = (np.concatenate([batch[name] for batch in found]) for name in ("ids", "example"))
    told = example >= 12
    assert abs(told.mean() - 0.25) < 0.01
    lengths = (ids > 0).sum(1)
    np.testing.assert_array_equal(lengths[~told], 2 + example[~told] % 5)
    assert lengths[told].max() == 4
    assert {int(one) for one in lengths[told & (example % 5 == 0)]} == {3}


def test_one_function_for_each_source():
    sources, make = MIXTURE.sources(table(), PLACES), UnitTextConfig(units="runs").make()
    with pytest.raises(UserError, match=r"example functions is 1.*each of 2 sources"):
        make_batches(sources, [make], PipelineConfig(batch=2), packing=PackingConfig(length=16))


def test_it_travels_as_json_and_is_overridden_by_name():
    assert from_json(MIXTURE.to_json()) == MIXTURE
    changed = override_config(MIXTURE, ["--parts.told.weight", "2", "--parts.told.example.longest", "9"])
    assert changed.parts[1].weight == 2.0
    assert changed.parts[1].example == UnitTextConfig(units="units", bos=1, longest=9)
    assert changed.parts[0] == MIXTURE.parts[0]


@pytest.mark.parametrize(
    "parts, message",
    [
        ((), "at least one part"),
        ((PartConfig(name="a", weight=1.0), PartConfig(name="a", weight=2.0)), "name of its own"),
    ],
)
def test_config_checks_its_parts(parts, message):
    with pytest.raises(UserError, match=message):
        MixtureConfig(parts=parts)


def test_config_checks_a_part():
    with pytest.raises(UserError, match="weights are above 0"):
        PartConfig(name="a", weight=0.0)
    with pytest.raises(UserError, match="needs one"):
        PartConfig(name="", weight=1.0)
