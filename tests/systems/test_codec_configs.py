"""The published codecs as runs: counts of what is trained, what a step sees, and that every loss can be traced."""

import json
from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest

from slm_jax.core.config import from_json, load_config_file
from slm_jax.core.trees import count_parameters
from slm_jax.parallel.sharding import unbox
from slm_jax.quantizers.residual import ResidualVQConfig
from slm_jax.systems.recipes.rvqgan import judges, layers, rvqgan_losses, used_books
from slm_jax.training.step import check_players

FOLDER = Path(__file__).parents[2] / "configs" / "codecs"
RUNS = {  # parameters of the codec and of its judges; seconds of sound and frames of tokens in a batch
    "soundstream_16khz": (10_502_690, 17_018_584, 64.0, 64 * 50),
    "encodec_24khz": (14_851_810, 472_490, 64.0, 64 * 75),
    "dac_44khz": (76_651_890, 42_519_760, 72 * 33 * 512 / 44_100, 72 * 33),
    "dac_24khz": (74_708_706, 42_519_760, 72 * 28 / 75, 72 * 28),
    "dac_16khz": (74_175_906, 42_519_760, 72 * 19 / 50, 72 * 19),
    "mimi_24khz": (79_308_609, 472_490, 128 * 12.0, 128 * 150),
    "snac_24khz": (19_842_914, 42_519_760, 72 * 1.024, 72 * 12),
}


FEW = ("encodec_24khz", "mimi_24khz")
"""Those that every run of the tests looks at."""


@cache
def outlined(name):
    """The run, its stage, the outline, and the shapes of all variables."""
    run = load_config_file(FOLDER / f"{name}.py")
    (stage,) = run.stages
    outline = stage.outline(run)
    return run, stage, outline, unbox(jax.eval_shape(outline.initialise, jax.random.key(0)))


def test_every_config_is_here():
    assert sorted(RUNS) == sorted(path.stem for path in FOLDER.glob("*.py"))


@pytest.mark.parametrize(
    "name", [name if name in FEW else pytest.param(name, marks=pytest.mark.slow(seconds=5)) for name in RUNS]
)
def test_a_run_is_what_was_published(name):
    run, stage, outline, shapes = outlined(name)
    of_codec, of_judges, seconds, frames = RUNS[name]
    assert run.name == name and from_json(json.loads(json.dumps(run.to_json()))) == run
    assert count_parameters(shapes["params"]["generator"]) == of_codec
    assert count_parameters(shapes["params"]["discriminator"]) == of_judges
    assert outline.speech_s == pytest.approx(seconds) and outline.tokens == frames
    assert stage.model.rate_hz == run.corpus.rate_hz
    check_players(outline.players, shapes)


@pytest.mark.slow(seconds=15)
@pytest.mark.parametrize("name", RUNS)
def test_every_loss_can_be_traced(name):
    _, stage, outline, shapes = outlined(name)
    key, frozen = jax.eval_shape(lambda: jax.random.key(0)), unbox(outline.frozen)
    found = {}
    for player in outline.players:
        found[player.name] = set(jax.eval_shape(player.objective, shapes, outline.batch, key, frozen).terms)
    assert found["judges"] == {"judging"}
    expected = {"spectral", "adversarial", "features", "commitment"}
    expected |= {"waveform"} if stage.losses.waveform else set()
    expected |= set() if stage.model.quantizer.counted else {"codes"}
    expected |= {"taught"} if stage.teacher else set()
    assert found["codec"] == expected


def test_the_sums_of_dac_are_said_in_means():
    plain = ResidualVQConfig(books=9, dropout=0.0)
    assert used_books(plain) == 9 and used_books(plain.replace(dropout=0.5)) == 7.0
    losses = rvqgan_losses(plain)
    assert (judges(), layers()) == (8, 108)
    assert losses.spectral == pytest.approx(15 * 7 / np.log(10)) and losses.commitment == pytest.approx(0.25 * 9)
    assert losses.adversarial == 8 and losses.features == 216 and losses.codes == 9


def test_only_the_transformers_of_mimi_decay():
    _, _, outline, shapes = outlined("mimi_24khz")
    codec = next(player for player in outline.players if player.name == "codec")
    (group,) = codec.optimizer.groups
    assert group.weight_decay == 0.05 and codec.optimizer.weight_decay == 0.0
    assert {"encoder_context", "decoder_context"} <= set(shapes["params"]["generator"])
