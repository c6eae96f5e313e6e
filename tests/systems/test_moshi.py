"""Moshi as it was published becomes a system, its marks behind its text, and says what it said."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.assemblies.codec import settled
from slm_jax.core.errors import UserError
from slm_jax.core.messages import spoken
from slm_jax.core.types import EMPTY
from slm_jax.interop.model import export
from slm_jax.interop.moshi_marks import MARKS, marks_last
from slm_jax.sequence_models.presets import moshi as published
from slm_jax.serving.duplex_speech_lm import DuplexDecoding
from slm_jax.systems.speech_text import moshi
from slm_jax.text.left_out import LeftOutConfig
from slm_jax.text.tokenizers import CharacterTokenizerConfig
from tests.codecs import CODECS, drawn_variables
from tests.contracts.checks import random_params
from tests.serving.drawn import noise
from tests.whisper_folder import write_tokenizer

BOOKS = 3
CODEC = CODECS["as Mimi"].replace(unquantized=0.0)


def narrow(words):
    config = published(words, CODEC.quantizer.sizes[0], BOOKS)
    body = config.temporal.body.replace(layers=1, width=16, heads=2, kv_heads=2, hidden=24, window=64)
    depth = config.depth.replace(width=8, layers=1, heads=1, hidden=16)
    return config.replace(temporal=config.temporal.replace(body=body), depth=depth)


def test_marks_behind_the_text_mean_what_they_meant_among_it():
    config = narrow(11)
    model, rng = config.make(), np.random.default_rng(0)
    params = random_params(model, jax.random.key(0), jnp.zeros((1, 2, 1 + 2 * BOOKS), jnp.int32))
    tokens = LeftOutConfig(tokens=CharacterTokenizerConfig(characters="abcdefghijk"), ids=MARKS).make()
    ids = rng.integers(0, [11, *[CODEC.quantizer.sizes[0]] * (2 * BOOKS)], (2, 6, 1 + 2 * BOOKS))
    ids[:, 0] = EMPTY
    order = [*tokens.kept, *MARKS]
    ours = ids.copy()
    ours[:, 1:, 0] = np.argsort(order)[ids[:, 1:, 0]]
    theirs = model.apply({"params": params}, jnp.asarray(ids))
    moved = model.apply({"params": jax.tree.map(jnp.asarray, marks_last(config, params))}, jnp.asarray(ours))
    np.testing.assert_allclose(moved[:, :, 0, :11], theirs[:, :, 0, order], atol=1e-5)
    np.testing.assert_allclose(moved[:, :, 1:], theirs[:, :, 1:], atol=1e-5)
    assert not np.allclose(moved[:, :, 0, :11], theirs[:, :, 0, :11])
    with pytest.raises(UserError, match="marks is"):
        marks_last(config, params, (11,))


def test_a_tokenizer_without_some_ids_spells_the_rest():
    tokens = LeftOutConfig(tokens=CharacterTokenizerConfig(characters="abcdef"), ids=(3, 0)).make()
    assert tokens.size == 4 and tokens.encode("bade") == [0, 2] and tokens.decode([0, 1, 2, 3]) == "bcef"
    with pytest.raises(UserError, match="ids left out"):
        LeftOutConfig(tokens=CharacterTokenizerConfig(characters="ab"), ids=(3,)).make()
    with pytest.raises(UserError, match="all different"):
        LeftOutConfig(tokens=CharacterTokenizerConfig(characters="ab"), ids=(1, 1))


@pytest.mark.slow(seconds=30)
def test_published_folders_talk(tmp_path):
    for name in ("moshi", "mimi"):
        (tmp_path / name).mkdir()
    write_tokenizer(tmp_path / "moshi")
    words = moshi.text_of(str(tmp_path / "moshi")).make().size + len(MARKS)
    config = narrow(words)
    params = random_params(config.make(), jax.random.key(1), jnp.zeros((1, 2, 1 + 2 * BOOKS), jnp.int32))
    export(config, params, tmp_path / "lm", family="moshi")
    (tmp_path / "moshi" / "tokenizer.json").rename(tmp_path / "lm" / "tokenizer.json")
    export(*settled(CODEC, drawn_variables(CODEC, 0)), tmp_path / "codec", family="mimi")
    system = moshi.released(str(tmp_path / "lm"), str(tmp_path / "codec"))
    clip = noise(0.5)[: 6 * system.codec.config.hop]
    how = DuplexDecoding(seconds=0.1, temperature=0.0, text_temperature=0.0)
    (reply,) = system.respond([spoken(clip, system.rate_hz)], how, jax.random.key(0))
    assert reply.trace["codes"].shape[1] == BOOKS and np.isfinite(reply.messages[0].speech[0].samples).all()
    session = system.open(1)
    said, _ = session.push(clip[None, : session.hop], np.ones(1, bool))
    assert said.shape == (1, session.hop)
    with pytest.raises(UserError, match="must hold Moshi"):
        moshi.released(str(tmp_path / "codec"), str(tmp_path / "codec"))
    with pytest.raises(UserError, match="Moshi size is 'huge'"):
        moshi.config("huge")
