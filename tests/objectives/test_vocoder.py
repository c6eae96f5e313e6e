"""Vocoder objectives: two players, masks, integer samples, and that training lowers the loss."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.trees import flatten_by_path, map_by_path
from slm_jax.decoders.discriminators import DiscriminatorsConfig
from slm_jax.decoders.istft_vocoder import ISTFTVocoderConfig
from slm_jax.decoders.predictors import PredictorConfig
from slm_jax.decoders.unit_vocoder import UnitVocoderConfig, initialise
from slm_jax.objectives.duration import DurationObjective
from slm_jax.objectives.vocoder import DiscriminatorObjective, GeneratorObjective, VocoderLossConfig, waveform_of

CONFIG = UnitVocoderConfig(
    units=6,
    unit_dim=8,
    generator=ISTFTVocoderConfig(widths=(16, 12), blocks=(1, 0), upsample=(2,), n_fft=64, istft_hop=16),
    pitch_predictor=PredictorConfig(outputs=2, width=8, dropout=0.1),
)
JUDGES = DiscriminatorsConfig(periods=(2,), period_widths=(4, 4), scales=1, scale_layers=((4, 5, 2, 1),))
LOSSES = VocoderLossConfig(resolutions=((64, 16, 10), (128, 32, 0)))
FRAMES = 12


def batch_of(rows=2):
    keys = jax.random.split(jax.random.key(3), 4)
    voiced = jax.random.bernoulli(keys[1], 0.7, (rows, FRAMES))
    return {
        "units": jax.random.randint(keys[0], (rows, FRAMES), 0, 6),
        "voiced": voiced,
        "f0_hz": jnp.where(voiced, 150.0, 0.0),
        "samples": 0.1 * jax.random.normal(keys[3], (rows, FRAMES * CONFIG.hop)),
    }


@pytest.fixture(scope="module")
def players():
    vocoder, judges, rng = CONFIG.make(), JUDGES.make(), np.random.default_rng(0)
    shapes = {
        "generator": jax.eval_shape(lambda key: initialise(vocoder, key), jax.random.key(0))["params"],
        "discriminator": jax.eval_shape(judges.init, jax.random.key(1), jnp.zeros((1, 64)))["params"],
    }
    weights = jax.tree.map(
        lambda s: jnp.asarray(rng.normal(scale=0.2, size=s.shape), jnp.float32), nn.meta.unbox(shapes)
    )
    return vocoder, judges, weights


def test_each_player_owns_its_half_and_only_that_needs_its_gradient(players):
    vocoder, judges, params = players
    making, judging = GeneratorObjective(LOSSES, vocoder, judges), DiscriminatorObjective(vocoder, judges)
    names = flatten_by_path(params)
    assert {making.owns(f"params/{name}") + 2 * judging.owns(f"params/{name}") for name in names} == {1, 2}

    def gradient(objective):
        return jax.jit(jax.grad(lambda p: objective({"params": p}, batch_of(), jax.random.key(2)).value()))(params)

    for name, leaf in flatten_by_path(gradient(judging)).items():
        assert bool(leaf.any()) == name.startswith("discriminator/"), name
    made = flatten_by_path(gradient(making))
    for name, leaf in made.items():
        assert bool(jnp.isfinite(leaf).all())
        if name.startswith("generator/") and not name.startswith("generator/durations"):
            assert bool(leaf.any()), name


def test_padding_changes_nothing_and_rows_weigh_by_their_frames(players):
    vocoder, judges, params = players
    objective = GeneratorObjective(LOSSES, vocoder)
    loss = jax.jit(lambda batch: objective({"params": params}, batch, jax.random.key(2)))
    batch = batch_of() | {"frame_mask": jnp.arange(FRAMES) < jnp.array([[FRAMES], [7]])}
    outside = jnp.repeat(~batch["frame_mask"], CONFIG.hop, axis=1)
    clean = loss(batch | {"samples": jnp.where(outside, 0.0, batch["samples"])})
    spoiled = batch | {
        "samples": jnp.where(outside, 0.0, batch["samples"]),
        "units": jnp.where(batch["frame_mask"], batch["units"], 5),
        "f0_hz": jnp.where(batch["frame_mask"], batch["f0_hz"], 300.0),
    }
    other = loss(spoiled)
    assert float(clean.terms["spectral"].count) == FRAMES + 7
    np.testing.assert_allclose(other.metrics["log_f0"][0], clean.metrics["log_f0"][0], rtol=1e-5)
    np.testing.assert_allclose(other.metrics["voicing"][0], clean.metrics["voicing"][0], rtol=1e-5)
    np.testing.assert_allclose(other.value(), clean.value(), rtol=1e-4)


def test_integer_samples_mean_the_same():
    integers = jnp.array([[-32768, -1, 0, 16384]], jnp.int16)
    floats = jnp.array([[-1.0, -1 / 32768, 0.0, 0.5]])
    for samples in (integers, floats):
        np.testing.assert_array_equal(waveform_of({"samples": samples}), floats)


def test_the_spectral_loss_of_the_truth_is_zero_and_of_another_gain_its_logarithm(players):
    objective = GeneratorObjective(LOSSES, players[0])
    samples, mask = batch_of()["samples"], jnp.ones((2, FRAMES), bool)
    np.testing.assert_allclose(objective.spectral(samples, samples, mask), 0.0, atol=1e-6)
    np.testing.assert_allclose(objective.spectral(2.0 * samples, samples, mask), np.log(2.0), rtol=0.02)


def test_adversarial_training_of_both_players_lowers_the_spectral_loss(players):
    vocoder, judges, params = players
    objectives = {
        "generator": GeneratorObjective(LOSSES, vocoder, judges),
        "discriminator": DiscriminatorObjective(vocoder, judges),
    }
    optimizer, batch = optax.adam(3e-3), batch_of()

    def mean_loss(own, player, params, key):
        loss = objectives[player]({"params": {**params, player: own}}, batch, key)
        return loss.value(), loss.metrics

    @jax.jit
    def step(params, states, key):
        metrics = {}
        for player in objectives:
            gradient, seen = jax.grad(mean_loss, has_aux=True)(params[player], player, params, key)
            updates, states[player] = optimizer.update(gradient, states[player])
            params = {**params, player: optax.apply_updates(params[player], updates)}
            metrics |= {name: total / count for name, (total, count) in seen.items()}
        return params, states, metrics

    states = {player: optimizer.init(params[player]) for player in objectives}
    history = []
    for turn in range(60):
        params, states, metrics = step(params, states, jax.random.fold_in(jax.random.key(7), turn))
        history.append(metrics)
    assert history[-1]["spectral"] < 0.7 * history[0]["spectral"]
    assert history[-1]["judging"] < history[0]["judging"]
    assert history[-1]["voicing"] < history[0]["voicing"]


def test_durations_by_hand_and_owned_leaves(players):
    vocoder, _, params = players
    params = map_by_path(lambda name, leaf: jnp.zeros_like(leaf) if "durations/out" in name else leaf, params)
    objective = DurationObjective(vocoder)
    batch = {
        "units": jnp.array([[1, 2, 3], [4, 5, 0]]),
        "durations": jnp.array([[3, 1, 7], [2, 1, 99]]),
        "mask": jnp.array([[True, True, True], [True, True, False]]),
        "loss_mask": jnp.array([[False, True, True], [True, True, False]]),
    }
    loss = objective({"params": params}, batch, jax.random.key(0))
    term = loss.terms["duration"]
    expected = np.log([2.0, 8.0, 3.0, 2.0]) ** 2  # the zeroed predictor says 0 for every unit
    np.testing.assert_allclose(term.total, expected.sum(), rtol=1e-5)
    assert float(term.count) == 4
    np.testing.assert_allclose(loss.metrics["frames_off"][0], 0 + 6 + 1 + 0)
    owned = [name for name in flatten_by_path({"params": params}) if objective.owns(name)]
    assert len(owned) == 10
    assert all(name.startswith("params/generator/durations/") for name in owned)


def test_a_hop_that_does_not_fit_is_refused():
    with pytest.raises(UserError, match="resolutions"):
        VocoderLossConfig(resolutions=((64, 128, 10),))
