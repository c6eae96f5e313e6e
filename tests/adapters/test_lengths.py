"""How many frames come out: the published figures, and what short rows give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.adapters.chain import ChainConfig
from slm_jax.adapters.conv import ConvAdapterConfig
from slm_jax.adapters.ctc import CTCAdapterConfig, CTCSegmentsConfig
from slm_jax.adapters.joined import JoinedConfig
from slm_jax.adapters.linear import LinearAdapterConfig
from slm_jax.adapters.mlp import MLPAdapterConfig
from slm_jax.adapters.pool import PoolAdapterConfig
from slm_jax.adapters.qformer import QFormerAdapterConfig, QFormerConfig
from slm_jax.adapters.transformer import TransformerAdapterConfig
from slm_jax.adapters.window_qformer import WindowQFormerConfig
from slm_jax.core.errors import UserError
from slm_jax.core.types import Frames
from tests.contracts import checks

SALMONN = WindowQFormerConfig(width=5120)
GRANITE = WindowQFormerConfig(width=2048, window=15, queries=3, tail="pad", fill_seen=True)
WAVLLM = ConvAdapterConfig(layers=((640, 3, 2, 1), (1024, 3, 2, 1)), activation="glu", bottleneck=512, projection=2048)


def test_qwen_audio_pools_as_it_counts():
    """Tokens of 1, 2.5, 5, 10 and 30 s, from Whisper's frames (T - 1) // 2 + 1 of the mel frames before them."""
    config = PoolAdapterConfig(width=4096)
    assert [config.frames_out(n) for n in (50, 125, 250, 500, 1500)] == [25, 62, 125, 250, 750]
    assert all(config.frames_out(n) == (n - 2) // 2 + 1 for n in range(200))


@pytest.mark.parametrize(("factor", "frames"), [(2, 249), (4, 124), (8, 62), (16, 31)])
def test_wavprompt_shortens_ten_seconds_as_published(factor, frames):
    config = ConvAdapterConfig(layers=((768, factor, factor, 0),))
    assert config.frames_out(499) == frames
    assert config.width == 768
    assert config.frames_out(factor - 1) == 0


def test_wavllm_has_12_frames_and_a_half_per_second():
    """1, 5, 10 and 30 s: the same on both streams, though WavLM has a frame less than Whisper."""
    assert [WAVLLM.frames_out(n) for n in (50, 250, 500, 1500)] == [13, 63, 125, 375]
    assert [WAVLLM.frames_out(n) for n in (49, 249, 499, 1499)] == [13, 63, 125, 375]
    assert WAVLLM.width == 2048


def test_windows_of_salmonn_and_granite():
    assert SALMONN.frames_out(1500) == 88
    assert GRANITE.frames_out(100) == 21
    assert [SALMONN.frames_out(n) for n in (0, 1, 16, 17, 33, 34)] == [0, 1, 1, 1, 1, 2]
    assert [GRANITE.frames_out(n) for n in (0, 1, 15, 16)] == [0, 3, 3, 6]


def test_a_row_shorter_than_a_window_is_heard_whole():
    """Alone or beside a longer row; what comes behind the last whole window of a longer row is not heard."""
    trunk = QFormerConfig(context_width=4, width=4, layers=1, heads=1, hidden=4, init_scale=0.5)
    module = WindowQFormerConfig(width=3, qformer=trunk, window=4).make()
    values = jax.random.normal(jax.random.key(0), (1, 7, 4))
    params = checks.random_params(module, jax.random.key(1), Frames(values, jnp.ones((1, 7), bool)))

    def first(values, real):
        frames = Frames(values, jnp.arange(values.shape[1])[None] < real)
        return module.apply({"params": params}, frames)

    alone, beside = jax.jit(first)(values[:, :3], 3), jax.jit(first)(values, 3)
    assert alone.mask.tolist() == beside.mask.tolist() == [[True]]
    np.testing.assert_allclose(alone.values, beside.values, atol=1e-6)
    reach = jax.jit(jax.grad(lambda x, real: jnp.square(first(x, real).values).sum()))
    assert np.asarray(reach(values, 3).any(-1))[0].tolist() == [True] * 3 + [False] * 4
    assert np.asarray(reach(values, 7).any(-1))[0].tolist() == [True] * 4 + [False] * 3


def test_a_chain_composes():
    parts = (WAVLLM, TransformerAdapterConfig(width=64, inner=64), LinearAdapterConfig(width=7, stack=2))
    config = ChainConfig(parts=parts)
    assert (config.frames_out(500), config.width) == (63, 7)


def test_segments_are_bounded_by_a_share():
    def bounds(keep, counts):
        config = CTCAdapterConfig(width=1, segments=CTCSegmentsConfig(vocabulary=5, rule="runs", keep=keep))
        return [config.frames_out(n) for n in counts]

    assert bounds(0.1, (0, 1, 10, 11, 30, 1500)) == [0, 1, 1, 2, 3, 150]
    assert bounds(1 / 3, (1, 3, 4, 300)) == [1, 1, 2, 100]
    assert bounds(1.0, (0, 7)) == [0, 7]


REFUSED = [
    (lambda: MLPAdapterConfig(width=1, tail="cut"), "tail is 'cut'"),
    (lambda: MLPAdapterConfig(width=1, stack=0), "stack is 0"),
    (lambda: PoolAdapterConfig(width=1, pool=0), "pool is 0"),
    (lambda: ConvAdapterConfig(layers=()), r"layers is \(\)"),
    (lambda: ConvAdapterConfig(layers=((4, 3, 0, 1),)), "layers is"),
    (lambda: ConvAdapterConfig(layers=((4, 3, 1, 1),), activation="tanh"), "activation is 'tanh'"),
    (lambda: TransformerAdapterConfig(width=1, inner=6, heads=4), "heads is 4"),
    (lambda: ChainConfig(parts=()), "parts is"),
    (lambda: JoinedConfig(widths=(3, 4), lasts="both"), "lasts is 'both'"),
    (lambda: QFormerConfig(width=6, heads=4), "heads is 4"),
    (lambda: QFormerAdapterConfig(width=1, norm="last"), "norm is 'last'"),
    (lambda: WindowQFormerConfig(width=1, tail="keep"), "tail is 'keep'"),
    (lambda: CTCSegmentsConfig(vocabulary=1, rule="runs"), "vocabulary is 1"),
    (lambda: CTCSegmentsConfig(vocabulary=4, rule="words"), "rule is 'words'"),
    (lambda: CTCSegmentsConfig(vocabulary=4, rule="runs", keep=0.0), "keep is 0.0"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()
