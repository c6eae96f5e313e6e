import jax
import jax.numpy as jnp
import pytest

from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError
from slm_jax.core.trees import count_parameters
from slm_jax.decoders.unit_vocoder import initialise
from slm_jax.systems.speech import gslm


def count(module, *inputs):
    """Parameters of a module, without computing any."""
    return count_parameters(jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"])


def test_published_sizes_have_the_published_numbers_of_parameters():
    config = gslm.config("published")
    encoder = config.stage("hubert_2").model.encoder
    assert count(encoder.make(), jnp.zeros((1, 400))) == 94_371_712  # HuBERT base of transformers
    assert config.stage("units").features.layer == 6
    lm = config.stage("lm").model
    # 12 layers of 4 d^2 + 2 d f weights with biases and two norms, the tied table, the last norm
    d, f, vocabulary = 1024, 4096, 104
    layer = 4 * d * d + 4 * d + 2 * d * f + f + d + 4 * d
    assert count(lm.make(), jnp.zeros((1, 2), jnp.int32)) == 12 * layer + vocabulary * d + 2 * d == 151_263_232
    vocoder = config.stage("vocoder").model
    made = jax.eval_shape(lambda key: initialise(vocoder.make(), key), jax.random.key(0))["params"]
    weights = sum(count_parameters(made["generator"][name]) for name in made["generator"])
    assert 12_000_000 < weights < 15_000_000  # 13.4 M in fairseq with 500 units, without F0 inputs


@pytest.mark.parametrize("clusters", [50, 100, 200])
def test_published_unit_counts(clusters):
    config = gslm.published(clusters=clusters)
    assert config.stage("units").clusters == clusters
    assert config.stage("lm").model.vocabulary >= gslm.unit_vocabulary(clusters).size
    assert config.stage("vocoder").model.units == clusters


def test_an_unknown_size_names_the_nearest():
    with pytest.raises(UserError, match=r"'tinny'.*did you mean 'tiny'"):
        gslm.config("tinny")


def test_the_tiny_twin_is_tiny():
    config = gslm.config("tiny")
    assert count(config.stage("hubert").model.encoder.make(), jnp.zeros((1, 1600))) < 2_500_000
    assert count(config.stage("lm").model.make(), jnp.zeros((1, 2), jnp.int32)) < 2_500_000


def test_a_run_of_an_older_version_is_judged_as_it_was():
    config = gslm.config("tiny")
    old = config.to_json()
    del old["judges"]
    assert from_json(old) == config
    assert [judge.name for judge in config.judges] == [
        "units",
        "language_model",
        "resynthesis",
        "continuations",
        "pairs",
        "losses",
    ]


def test_other_judges_do_not_make_another_run():
    config = gslm.config("tiny")
    assert config.replace(judges=()).binding_json() == config.binding_json()
