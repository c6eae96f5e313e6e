"""The judge of codecs: quality by bitrate, use of codebooks; figures of sound beside recordings."""

import jax
import numpy as np
import pytest

from slm_jax.assemblies.codec_tokenizer import CodecTokenizer
from slm_jax.core.errors import UserError
from slm_jax.core.messages import Message, Speech, Text
from slm_jax.evaluation.codec import si_sdr, use_of
from slm_jax.evaluation.section import JudgeSettings
from slm_jax.judges.codec import CodecJudge
from slm_jax.serving.codec_system import CodecDecoding, CodecSystem
from tests.codecs import CODECS, drawn_variables
from tests.training.small_answers import Context, context_of

MODEL, KEY = CODECS["over spectra"], jax.random.key(0)


class Speaking(Context):
    """Two recordings of a voice of sorts: bursts of noise."""

    def source(self, split, kinds=None):
        rng = np.random.default_rng(0)
        loud = np.repeat(rng.random(20), 1600)
        noise = [(6000 * loud * rng.standard_normal(len(loud))).astype(np.int16) for _ in range(2)]
        return [{"id": str(i), "samples": samples, "text": "", "kind": "sentence"} for i, samples in enumerate(noise)]


@pytest.fixture(scope="module")
def system():
    return CodecSystem(CodecTokenizer(MODEL, drawn_variables(MODEL)))


def test_quality_is_told_by_bitrate_and_books_by_their_use(system, tmp_path):
    context = context_of(tmp_path, kind=Speaking)
    section = CodecJudge().judge(system, context, JudgeSettings(utterances=2))
    kept = section.figures["codec"]
    assert list(kept["quality"]) == ["1", "2"]
    one, two = kept["quality"].values()
    assert two["bits_per_second"] == 2 * one["bits_per_second"] and 0 <= two["stoi"] <= 1
    assert one["log_mel_distance"] > 0 and one["real_time_factor"] > 0
    assert len(kept["codebooks"]) == 2 and all(
        0 < book["perplexity"] <= book["used"] <= 1 for book in kept["codebooks"]
    )
    assert [sound.name for sound in section.sounds] == ["codec_original", "codec_1_books", "codec_2_books"]
    section.plots[0].draw(tmp_path / "codec.png")
    assert (tmp_path / "codec.png").stat().st_size > 1000


def test_a_reply_is_the_clip_again_whatever_else_is_asked(system):
    rng = np.random.default_rng(1)
    clips = [0.1 * rng.standard_normal(n).astype(np.float32) for n in (900, 1600)]
    asked = [(Message("user", (Speech(clip, 16_000),)),) for clip in clips]
    together = system.respond(asked, None, KEY)
    alone = system.respond(asked[1:], None, KEY)[0]
    np.testing.assert_array_equal(together[1].messages[0].speech[0].samples, alone.messages[0].speech[0].samples)
    assert [len(reply.messages[0].speech[0].samples) for reply in together] == [900, 1600]
    assert system.respond(asked, CodecDecoding(books=1), KEY)[0].trace["codes"].shape[1] == 1
    with pytest.raises(UserError, match="holds text: this system reads speech only"):
        system.respond([(Message("user", (Text("hello"),)),)], None, KEY)


def test_figures_by_hand():
    wave = np.sin(np.arange(1000) * 0.1).astype(np.float32)
    assert si_sdr(wave, 0.5 * wave) > 60  # scale does not count
    noise = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    noise -= wave * (noise @ wave) / (wave @ wave)
    noise *= np.linalg.norm(wave) / np.linalg.norm(noise)
    assert si_sdr(wave, wave + 0.1 * noise) == pytest.approx(20, abs=0.1)
    (book,) = use_of(np.array([[0], [0], [1], [1]]), (8,))
    assert book == {"used": 0.25, "perplexity": pytest.approx(0.25)}
