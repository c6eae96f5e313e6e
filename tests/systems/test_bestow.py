"""BESTOW: sizes, what is trained in which stage, that words listen and speech takes no place."""

import jax
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.trees import flatten_by_path
from slm_jax.nn.pacing import PaceConfig
from slm_jax.objectives.answers import Answers
from slm_jax.objectives.next_token import NextTokenConfig
from slm_jax.systems.speech_aware import bestow
from tests.assemblies.small_speech_aware import asked, voice
from tests.systems.drawn_bestow import drawn_bestow, small_bestow


@pytest.fixture(scope="module")
def system():
    return drawn_bestow()


def test_the_published_size_is_an_encoder_a_small_gpt_and_a_hundred_million_between():
    stage = bestow.config("large").stage("answers")
    model = stage.model({part.path: part.expect for part in stage.parts}).config
    assert (model.lm.width, model.listener.channels, model.encoder.layers) == (2048, 2048, 17)
    assert model.frames_out(160_000) == 125, "12.5 vectors a second"


def test_speech_takes_no_place_in_a_row_and_other_speech_is_heard(system):
    short, long = (system.layout.entries(asked(voice(s), "What is said?"), False) for s in (0.3, 0.6))
    assert len(short.ids) == len(long.ids) and (short.clip == -1).all()
    one, other = (asked(voice(0.4, seed), "What is said?", answer="so it is") for seed in (0, 5))
    first, second = system.log_prob([one])[0], system.log_prob([other])[0]
    assert np.abs(first - second).max() > 1e-3
    both = system.log_prob([one, asked(voice(0.6, 3), "What is it that is said?", answer="no")])[0]
    np.testing.assert_allclose(first, both, atol=1e-4)


def test_adapter_listener_and_lora_are_trained_and_rows_draw_paces():
    stage, configs = small_bestow()
    assert stage.listener is not None
    assert stage.goes_on == "answers" and stage.paces[-1] is None and len(stage.paces) == 3
    listener, paces = stage.listener.replace(dropout=0.0), (PaceConfig(chunk=2), PaceConfig(chunk=2, wait=3), None)
    stage = stage.replace(listener=listener, paces=paces)
    model, system = stage.model(configs), drawn_bestow()
    batch = system._batch([asked(voice(0.5), "Write.", answer="so it is")] * 4, 0, True)
    objective = Answers(model, NextTokenConfig())
    params = system.variables["params"]
    owned = {"params": {name: params[name] for name in ("adapter", "listener")}, "lora": system.variables["lora"]}
    frozen = {"frozen": {name: params[name] for name in ("encoder", "lm")}}

    @jax.jit
    def loss(owned, batch, key):
        return jax.value_and_grad(lambda owned: objective(owned, batch, key, frozen).value())(owned)

    value, gradients = loss(owned, batch, jax.random.key(0))
    felt = {path for path, leaf in flatten_by_path(gradients).items() if np.abs(leaf).max() > 0}
    assert {"params/listener/gain", "params/adapter/map/kernel"} <= felt and np.isfinite(value)
    assert any(path.startswith("params/listener/blocks/layers/cross_attention/key") for path in felt)
    assert any(path.startswith("lora/lm") for path in felt)
    assert float(loss(owned, batch, jax.random.key(1))[0]) != float(value), "all rows went at one pace"


def test_paces_go_with_a_listener_and_an_unknown_size_names_the_nearest():
    stage = bestow.config("tiny").stage("streaming")
    with pytest.raises(UserError, match="go with a listener"):
        stage.replace(listener=None)
    with pytest.raises(UserError, match="a pace counts the ids of answers"):
        stage.replace(targets="all")
    with pytest.raises(UserError, match=r"'larg'.*did you mean 'large'"):
        bestow.config("larg")
