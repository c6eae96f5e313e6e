"""Qwen-Audio and Qwen2-Audio: sizes, stages, prompts, frames, and replies that do not depend on who else is asked."""

import jax
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.messages import Message, Speech, Text
from slm_jax.core.trees import count_parameters
from slm_jax.interop.family_whisper import boxed_encoder
from slm_jax.interop.parts import boxed_shapes
from slm_jax.parallel.sharding import unbox
from slm_jax.systems.speech_aware import qwen_audio
from slm_jax.text import templates
from tests.serving.drawn import noise
from tests.systems.drawn_qwen_audio import drawn_qwen_audio

RATE = 16_000


@pytest.fixture(scope="module")
def system():
    return drawn_qwen_audio()


def asked(seconds, words="What is said?", seed=0):
    return (Message("user", (Speech(noise(seconds, seed), RATE), Text(words))),)


def counted(config):
    return count_parameters(unbox(boxed_shapes(config)))


def test_the_published_sizes_have_the_published_numbers_of_parameters():
    """An encoder of 640 million and a language model of 7.7 billion; 8.2 billion and more with tables and all."""
    first = qwen_audio.model("qwen-audio")
    assert round(counted(first.encoder) / 1e6) == 637
    assert 7.7e9 < counted(first.lm) < 7.8e9
    assert 8.2e9 < counted(qwen_audio.model("qwen2-audio")) < 8.5e9
    layer = 4 * 4096**2 + 3 * 4096 * 11_008 + 3 * 4096 + 2 * 4096
    assert counted(first.lm) == 32 * layer + 4096 + 2 * 155_947 * 4096


@pytest.mark.parametrize("size", ["qwen-audio", "qwen2-audio"])
def test_a_clip_becomes_so_many_vectors(size):
    config = qwen_audio.model(size)
    ends = 0 if size == "qwen2-audio" else 2
    found = [config.frames_out(round(seconds * RATE)) for seconds in (1, 2.5, 5, 10, 30)]
    assert found == [count + ends for count in (25, 62, 125, 250, 750)]
    assert config.window == 30 * RATE
    for samples in (479, 480, 641, 9_777, 15_999, 161_279):  # as the two published codes count
        mels = samples // 160 if ends else -(-samples // 160)
        tokens = (1 + (mels - 1) // 2 - 2) // 2 + 1
        assert config.frames_out(samples) == (tokens + ends if tokens else 0)


def test_what_is_frozen_when():
    """The encoder learns, then the language model."""
    for size in ("qwen-audio", "qwen2-audio"):
        first, second = qwen_audio.config(size).stages
        assert [part.path for part in first.parts] == ["params/encoder", "frozen/lm"]
        assert [part.path for part in second.parts] == ["frozen/encoder", "params/lm"]
        assert second.goes_on == "pretraining" == second.parts[0].source.removeprefix("stage:")
        assert first.parts[0].source.endswith({"qwen-audio": "v2", "qwen2-audio": "v3"}[size])
        assert first.parts[0].take == second.parts[0].take == "encoder"
    tiny = qwen_audio.config("tiny")
    assert [stage.name for stage in tiny.stages] == ["letters", "lm", "pretraining", "chat"]
    assert tiny.stage("pretraining").kept == "lm/(blocks|final_norm)"
    heard, frozen = (tiny.stage(name).parts[0].expect for name in ("pretraining", "chat"))
    assert tiny.stage("letters").encoder == frozen
    assert heard.masks is not None and heard.replace(masks=None) == frozen


def strings(template, conversation):
    pieces = template.pieces(conversation, answered=False)
    return "".join("<audio>" if piece.clip is not None else piece.text for piece in pieces)


def test_the_chat_of_qwen_audio_is_the_published_one():
    """Clips are numbered anew in each message, and where they begin and end is said by vectors."""
    clip, other = Speech(noise(0.1), RATE), Speech(noise(0.1, 1), RATE)
    turns = (
        Message("user", (clip, other, Text("what is said?"))),
        Message("assistant", (Text("Yes."),)),
        Message("user", (clip, Text("And here?"))),
    )
    assert strings(templates.QWEN_AUDIO_CHAT, turns) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nAudio 1:<audio>\nAudio 2:<audio>\nwhat is said?<|im_end|>\n"
        "<|im_start|>assistant\nYes.<|im_end|>\n"
        "<|im_start|>user\nAudio 1:<audio>\nAnd here?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_forms_of_pretraining_are_the_published_ones():
    item = {"samples": np.ones(640, np.int16), "text": "Yes."}
    said = qwen_audio.TAGGED_TRANSCRIPTION.conversation(item, RATE, np.random.default_rng(0))
    assert strings(templates.QWEN_AUDIO, said[:-1]) == (
        "<audio><|startoftranscript|><|en|><|transcribe|><|en|><|notimestamps|><|wo_itn|>"
    )
    asked_so = strings(templates.QWEN2_AUDIO_BASE, asked(0.1, "Generate the caption in English:"))
    assert asked_so == "<|audio_bos|><audio><|audio_eos|>Generate the caption in English:"


def test_replies_do_not_depend_on_who_else_is_asked(system):
    seconds = (0.3, 0.95, 0.6, 0.7, 0.9, 0.5, 0.45, 0.8, 0.35)
    conversations = [asked(length, "a b c d e"[: 1 + seed], seed) for seed, length in enumerate(seconds)]
    alone = [system.respond([one], None, jax.random.key(0))[0] for one in conversations[:3]]
    for count in (3, 9):
        together = system.respond(conversations[:count], None, jax.random.key(0))
        for one, other in zip(alone, together, strict=False):
            np.testing.assert_array_equal(one.trace["ids"], other.trace["ids"])
            np.testing.assert_allclose(one.trace["log_probs"], other.trace["log_probs"], atol=1e-4)
    assert len({tuple(one.trace["ids"]) for one in alone}) > 1, "what hears nothing would pass as well"


def test_a_clip_that_cannot_be_heard_is_refused(system):
    with pytest.raises(UserError, match=r"3\.1 s"):
        system.respond([asked(3.1)], None, jax.random.key(0))
    with pytest.raises(UserError, match="frame"):
        system.respond([asked(0.02)], None, jax.random.key(0))


def test_an_unknown_size_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'qwen2-audio'"):
        qwen_audio.config("qwen2audio")


def test_a_whisper_encoder_without_its_last_norm_has_two_leaves_less():
    encoder = qwen_audio.model("qwen-audio").encoder
    names = set(unbox(boxed_encoder(encoder.replace(final_norm=True)))) - set(unbox(boxed_encoder(encoder)))
    assert names == {"final_norm"}
