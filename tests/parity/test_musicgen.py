"""MusicGen's decoder of `transformers`: read and written, its delays, what it writes with and without a prompt."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.types import EMPTY, Codes, Frames
from slm_jax.generation.by_scheme import continue_codes, told_steps
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.interop.family_musicgen import read_config
from slm_jax.interop.model import export, load
from slm_jax.interop.reference import draw_weights
from slm_jax.schemes.delay import Delay
from slm_jax.sequence_models.presets import musicgen
from slm_jax.workbench.parity import compare_folder

BOOKS, CODES, FRAMES = 3, 41, 9
SHAPE = {"vocab_size": CODES, "num_codebooks": BOOKS, "hidden_size": 36, "num_hidden_layers": 2}
SHAPE |= {"num_attention_heads": 3, "ffn_dim": 50, "pad_token_id": CODES, "bos_token_id": CODES}
OURS = musicgen("small", BOOKS, CODES, layers=2, width=36, heads=3, hidden=50, context_width=36)
DELAYS = Delay(delays=(0, 1, 2))
RNG = np.random.default_rng(0)
HEARD = RNG.standard_normal((2, 5, 36)).astype(np.float32)
GREEDY = SamplingConfig(max_new=1, temperature=0.0)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The reference with every weight drawn anew, its folder, our config and parameters read from it."""
    transformers = pytest.importorskip("transformers")
    theirs = draw_weights(transformers.MusicgenForCausalLM(transformers.MusicgenDecoderConfig(**SHAPE)), 3)
    folder = tmp_path_factory.mktemp("musicgen") / "hub"
    theirs.save_pretrained(folder)
    config, params = load(folder)
    assert config == OURS
    return theirs, folder, config, params


def written_by_reference(theirs: Any, frames: int) -> np.ndarray:
    """Codes `[B, T, K]`, greedily; its sequence begins with a step of padding and ends with the last delay.

    Without its cache, which mixes what is heard with what is written, and with a mask, or the step that it begins with
    would be hidden as padding.
    """
    import torch

    with torch.no_grad():
        ids = theirs.generate(
            input_ids=torch.full((2 * BOOKS, 1), CODES),
            encoder_hidden_states=torch.tensor(HEARD),
            do_sample=False,
            max_length=frames + BOOKS,
            guidance_scale=1.0,
            decoder_start_token_id=CODES,
            num_return_sequences=1,
            attention_mask=torch.ones(2 * BOOKS, 1, dtype=torch.long),
            use_cache=False,
        )
    return ids.reshape(2, BOOKS, -1).permute(0, 2, 1).numpy()


def written_by_ours(config: Any, params: Any, frames: int, prompt: np.ndarray) -> np.ndarray:
    codes = Codes(jnp.asarray(prompt, jnp.int32), jnp.ones(prompt.shape[:2], bool))
    heard = Frames(jnp.asarray(HEARD), jnp.ones(HEARD.shape[:2], bool))
    made = continue_codes(config.make(), params, codes, frames, DELAYS, jax.random.key(0), GREEDY, context=heard)
    return np.asarray(made.ids)


def test_it_writes_what_the_reference_writes(pair):
    theirs, _, config, params = pair
    nothing = np.zeros((2, 0, BOOKS), np.int32)
    found, wanted = written_by_ours(config, params, FRAMES, nothing), written_by_reference(theirs, FRAMES)
    assert len(np.unique(wanted)) > 5
    np.testing.assert_array_equal(found, wanted)


def test_delays_are_those_of_the_reference(pair):
    import torch

    theirs = pair[0]
    prompt = RNG.integers(0, CODES, (2, 4, BOOKS))
    flat = torch.tensor(np.pad(prompt, ((0, 0), (1, 0), (0, 0)), constant_values=CODES)).permute(0, 2, 1).flatten(0, 1)
    _, mask = theirs.build_delay_pattern_mask(flat, pad_token_id=CODES, max_length=FRAMES + BOOKS)
    wanted = np.where(mask == CODES, EMPTY, mask).reshape(2, BOOKS, -1).transpose(0, 2, 1)
    codes = Codes(jnp.asarray(prompt, jnp.int32), jnp.ones(prompt.shape[:2], bool))
    np.testing.assert_array_equal(told_steps(DELAYS, codes, FRAMES), wanted[:, 1:])


def test_a_folder_written_is_the_folder_read(pair, tmp_path):
    _, _, config, params = pair
    export(config, params, tmp_path / "out")
    again, same = load(tmp_path / "out")
    assert again == config
    jax.tree.map(np.testing.assert_array_equal, same, params)
    found = list(compare_folder(tmp_path / "out", 0, "float32"))
    for item in found[:-1]:
        assert {"layer_2", "final_norm", "logits_2"} <= {row.layer for row in item.rows}
        assert [row for row in item.rows if not row.ok or row.max_abs > row.tolerance / 10] == []
    assert found[-1].rows[0].ok, "the negative control is noticed"


def test_published_sizes_and_stereo():
    assert read_config({"model_type": "musicgen_decoder"}).body == musicgen("small").body
    with pytest.raises(UserError, match="pad_token_id is 0"):
        read_config({"model_type": "musicgen_decoder", "pad_token_id": 0})
    with pytest.raises(UserError, match="audio_channels is 2"):
        read_config({"model_type": "musicgen_decoder", "audio_channels": 2})
