"""FastConformer and rolling encoders: chunk by chunk as whole, whatever the lengths; sizes; what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from slm_jax.core.errors import UserError
from slm_jax.core.trees import count_parameters
from slm_jax.encoders.fastconformer import FastConformerConfig, fastconformer, fastconformer_streaming
from slm_jax.encoders.preemphasised_mel import PreemphasisedMelConfig
from slm_jax.encoders.rolling import RollingEncoderConfig
from slm_jax.encoders.whisper import WhisperEncoderConfig
from tests.contracts import checks
from tests.shapes import WHISPER

MEL = PreemphasisedMelConfig(mels=20, normalise="none", causal=True)
SMALL = FastConformerConfig(
    mel=MEL, factor=4, channels=4, layers=2, width=16, heads=2, hidden=32, kernel=5, norm="layer", chunk=3, left=2
)
HEARS: dict[str, FastConformerConfig | RollingEncoderConfig] = {
    "fastconformer": SMALL,
    "rolling": RollingEncoderConfig(encoder=WHISPER.encoder.replace(trim=True, layers=1), chunk=1_280, before=640),
}


@pytest.fixture(params=HEARS, scope="module")
def part(request):
    """Config, parameters, and rows of four chunks and a bit, of two and a bit, of one, right-padded with garbage."""
    config = HEARS[request.param]
    size = config.chunk_samples
    length = 5 * size
    samples = 0.3 * np.random.default_rng(0).standard_normal((3, length)).astype(np.float32)
    mask = np.arange(length) < np.array([[4 * size + 700], [2 * size + 333], [size]])
    return config, checks.random_params(config.make(), jax.random.key(2), jnp.asarray(samples)), samples, mask


def test_a_stream_equals_the_whole_with_rows_that_rest_and_end(part):
    config, params, samples, mask = part
    module, size = config.make(), config.chunk_samples
    whole = jax.jit(lambda x, real: module.apply({"params": params}, x, real))(samples, mask)
    step = jax.jit(lambda x, real, state: module.apply({"params": params}, x, real, state, method="step"))
    state, heard, read = module.initial_state(3), [[], [], []], np.zeros(3, int)
    for turn in range(8):  # each row rests in a turn of its own
        given, real = np.full((3, size), 9.0, np.float32), np.zeros((3, size), bool)
        for row in range(3):
            if turn == 1 + row or read[row] >= 5:
                continue
            piece = slice(read[row] * size, (read[row] + 1) * size)
            given[row], real[row], read[row] = samples[row, piece], mask[row, piece], read[row] + 1
        out, state = step(given, real, state)
        for row in range(3):
            heard[row].append(np.asarray(out.values[row])[np.asarray(out.mask[row])])
    assert (read == 5).all()
    for row in range(3):
        wanted = np.asarray(whole.values[row])[np.asarray(whole.mask[row])]
        checks.assert_close(np.concatenate(heard[row]), wanted, 1e-5)
        assert len(wanted) == config.frame_count(int(mask[row].sum())) and wanted.std() > 0.1
    again, _ = step(samples[:, :size], mask[:, :size], module.reset(state, jnp.array([True, True, True])))
    first = whole.values[:, : again.mask.shape[1]]
    checks.assert_close(again.values, first, 1e-5, where=again.mask)


def test_what_comes_later_changes_nothing(part):
    config, params, samples, _ = part
    run = jax.jit(lambda x: config.make().apply({"params": params}, x).values)
    size = config.chunk_samples
    later = samples.copy()
    later[:, 2 * size :] = 0.9
    frames = 2 * size // config.hop
    checks.assert_close(run(later)[:, :frames], run(samples)[:, :frames], 1e-6)
    assert np.abs(run(later)[:, frames:] - run(samples)[:, frames:]).max() > 0.1


@pytest.mark.parametrize(("size", "least", "most"), [("large", 108e6, 120e6), ("xlarge", 600e6, 616e6)])
def test_published_shapes_have_about_the_parameters_that_nemo_names(size, least, most):
    """NeMo counts 115 M of the large streaming model with its head, 616 M of the extra large one with its decoder."""
    for config in (fastconformer(size), fastconformer_streaming(size)):
        shapes = jax.eval_shape(config.make().init, jax.random.key(0), jnp.zeros((1, 16_000)))
        assert least < count_parameters(meta.unbox(shapes["params"])) < most


def test_what_cannot_stream_says_so():
    with pytest.raises(UserError, match="normalise is 'utterance'"):
        PreemphasisedMelConfig(causal=True)
    with pytest.raises(UserError, match="chunk is None"):
        fastconformer("small").make().initial_state(1)
    with pytest.raises(UserError, match="factor is 6"):
        SMALL.replace(factor=6)
    with pytest.raises(UserError, match="gives 16 frames of 4 hops"):
        RollingEncoderConfig(encoder=WHISPER.encoder, chunk=1_280)
    assert isinstance(WHISPER.encoder, WhisperEncoderConfig)
