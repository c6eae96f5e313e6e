"""`generate` knows messages only: flags, files and what a system of another kind replies."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile

from slm_jax.audio.files import write_wav
from slm_jax.cli.generate import GenerateOptions, conversations_of, decoding_of, split_decoding, written_reply
from slm_jax.core.contracts import Reply
from slm_jax.core.errors import UserError
from slm_jax.core.messages import Message, Speech, Text
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.serving.unit_speech_lm import UnitDecoding

OPTIONS = GenerateOptions(run=Path("run"))


def test_flags_of_the_decoding_are_told_apart():
    own, changes = split_decoding(["run", "--decoding.top-k", "5", "--count", "2", "--decoding.temperature=0.5"])
    assert own == ["run", "--count", "2"]
    assert changes == ["--top-k", "5", "--temperature=0.5"]


def test_any_field_of_the_decoding_may_be_set_and_three_have_a_short_form():
    options = dataclasses.replace(OPTIONS, temperature=0.3, speaker="ann")
    made = decoding_of(options, UnitDecoding(), ["--top-k", "5", "--no-with-prompt"])
    assert made == UnitDecoding(temperature=0.3, speaker="ann", top_k=5, with_prompt=False)
    with pytest.raises(UserError, match="--speaker is 'ann': the decoding of this system has no such field"):
        decoding_of(options, SamplingConfig(), [])
    with pytest.raises(UserError, match="did you mean '--top-k'"):
        decoding_of(OPTIONS, SamplingConfig(), ["--top_kk", "5"])
    with pytest.raises(UserError, match="must not be negative"):
        decoding_of(OPTIONS, SamplingConfig(), ["--temperature", "-1"])


def test_words_follow_the_speech_of_each_prompt_and_the_same_prompt_is_one_conversation(tmp_path):
    paths = [write_wav(tmp_path / f"{name}.wav", 0.1 * np.sin(np.arange(8000) * 0.1), 16_000) for name in "ab"]
    options = dataclasses.replace(OPTIONS, prompts=tuple(paths), text="What is said?", count=2)
    asked = conversations_of(options, None, None, 16_000)
    assert list(asked) == ["1_a_1", "1_a_2", "2_b_1", "2_b_2"]
    assert asked["1_a_1"] is asked["1_a_2"]  # a system hears it once
    (message,) = asked["2_b_1"]
    assert message.role == "user"
    assert len(message.speech[0].samples) == 8000
    assert message.parts[1] == Text("What is said?")
    alone = conversations_of(dataclasses.replace(options, prompts=()), None, None, 16_000)
    assert list(alone) == ["text_1", "text_2"]
    assert alone["text_1"][0].kinds == {"text"}


def test_whatever_a_system_writes_becomes_a_file(tmp_path):
    clip = Speech(np.full(800, 0.5, np.float32), 24_000)
    both = Reply(
        (Message("assistant", (Text("yes"), clip, clip)),), {"ids": np.arange(3), "more": [{"p": np.float32(1)}]}
    )
    made = written_reply(tmp_path / "out", "a", both)
    assert [path.removeprefix(str(tmp_path)) for path in made["files"]] == ["/out/a.wav", "/out/a_2.wav", "/out/a.txt"]
    assert made["file"] == made["files"][0]
    assert soundfile.info(made["file"]).samplerate == 24_000
    assert made["text"] == "yes"
    assert (tmp_path / "out" / "a.txt").read_text() == "yes\n"
    assert made["trace"] == {"ids": [0, 1, 2], "more": [{"p": 1.0}]}
    words = written_reply(tmp_path / "words", "b", Reply((Message("assistant", (Text("no"),)),), {}))
    assert words["file"].endswith("b.txt")
