"""SLM: what is frozen and what is trained at both sizes, the fields of its adapter, its prompt.

That replies do not depend on who is asked beside is in `tests.serving.test_answers_apart`, on SLM in miniature.
"""

import jax
import numpy as np
import pytest
from flax.core import meta

from slm_jax.core.errors import UserError
from slm_jax.core.messages import Message, Speech, Text
from slm_jax.core.trees import count_parameters
from slm_jax.interop.parts import boxed_shapes
from slm_jax.sequence_models.encoder_decoder import EncoderDecoderConfig
from slm_jax.systems.catalogue import outlined
from slm_jax.systems.speech_aware import slm
from slm_jax.text.templates import T5


def model_of(config):
    """The config of the whole model, from what its parts must be."""
    stage = config.answering
    return stage.planned_model(config)


def trained_shapes(config):
    return meta.unbox(outlined(config, config.answering)[1]["params"])


@pytest.mark.parametrize("size", slm.CARD.sizes)
def test_the_adapter_alone_is_trained(size):
    config = slm.config(size)
    assert all(source.frozen for source in config.answering.parts)
    assert trained_shapes(config).keys() == {"adapter"}
    assert isinstance(model_of(config).lm, EncoderDecoderConfig)


def test_the_published_size_stands_between_whisper_large_v3_and_mt5_xxl():
    config = slm.config("13b", weights="folder")
    encoder, lm = config.answering.parts
    assert (encoder.source, encoder.take) == ("folder/whisper-large-v3", "encoder")
    assert (encoder.expect.layers, encoder.expect.width, encoder.expect.mel.mels) == (32, 1280, 128)
    assert lm.source == "folder/mt0-xxl-mt"
    for stack in (lm.expect.encoder, lm.expect.decoder):
        shape = (stack.layers, stack.width, stack.heads, stack.head_width, stack.hidden, stack.vocabulary)
        assert shape == (24, 4096, 64, None, 10240, 250112)


def test_the_published_adapter_is_one_percent_of_156_million():
    config = slm.config("13b")
    adapter = count_parameters(trained_shapes(config))
    frozen = [count_parameters(meta.unbox(boxed_shapes(part.expect))) for part in config.answering.parts]
    # as torch counts WhisperEncoder without the positions that nobody trains, and MT5ForConditionalGeneration
    assert frozen == [635_048_960 + 1500 * 1280, 12_921_057_280]
    d, hidden, stack, lm = 2432, 9472, 2 * 1280, 4096
    layer = 4 * (d * d + d) + 2 * d * hidden + hidden + d + 4 * d
    assert adapter == stack * d + d + 2 * layer + 2 * d + d * lm + lm
    assert abs(adapter / 156e6 - 1) < 0.005
    assert 0.01 < adapter / (adapter + sum(frozen)) < 0.012


def test_a_clip_takes_as_many_entries_as_its_size_says():
    published, tiny = model_of(slm.config("13b")), model_of(slm.config(stride=1))
    assert [published.frames_out(16_000 * s) for s in (1, 30)] == [25, 750]  # of 50 frames a second every second
    heard = tiny.frames_heard(16_000)
    assert tiny.frames_out(16_000) == np.ceil(0.6 * heard)  # at most: what is not spoken is not real
    assert model_of(slm.config(stride=1, blanks=False)).frames_out(16_000) == heard
    assert model_of(slm.config(blanks=False)).frames_out(16_000) == np.ceil(heard / 4)
    assert model_of(slm.config()).frames_out(16_000) == np.ceil(np.ceil(0.6 * heard) / 4)


@pytest.mark.parametrize("depth", [1, 3])
def test_depth_is_that_of_the_adapter(depth):
    leaves = jax.tree.leaves(trained_shapes(slm.config(depth=depth))["adapter"]["parts_2"]["stack"])
    assert {leaf.shape[0] for leaf in leaves} == {depth}


def test_blanks_are_told_by_the_head_of_the_encoders_own_stage():
    config = slm.config()
    parts = {part.path: part for part in config.answering.parts}
    head, encoder = parts["frozen/adapter/parts_0/segments/head"], parts["frozen/encoder"]
    assert (head.source, head.take) == ("stage:letters", "head")
    assert (encoder.source, encoder.take) == ("stage:letters", "encoder")
    assert config.answering.adapter.parts[0].segments.rule == "spoken_frames"
    assert "segments" not in trained_shapes(config)["adapter"]["parts_0"]
    without = slm.config(blanks=False)
    assert len(without.answering.parts) == 2 and len(without.answering.adapter.parts) == 3


def test_the_language_model_learns_the_same_tasks_in_writing_before():
    config = slm.config()
    assert [stage.name for stage in config.stages] == ["lm", "instructed", "letters", "answers"]
    written, heard = config.stage("instructed").mixture.parts, config.answering.mixture.parts
    assert [part.example.task for part in written] == [part.example for part in heard]
    lm = config.stage("instructed").parts[-1]
    assert (lm.path, lm.source, lm.frozen) == ("params/lm", "stage:lm", False)
    assert (config.answering.parts[-1].source, config.answering.parts[-1].take) == ("stage:instructed", "lm")


def test_what_is_read_and_what_is_written():
    clip = Speech(np.zeros(4, np.float32), 16_000)
    said = Message("user", (clip, Text("What is said?"))), Message("assistant", (Text("Yes."),))
    pieces = [("<clip>" if p.clip is not None else p.text, p.answer) for p in T5.pieces(said, answered=True)]
    assert "".join(text for text, answer in pieces if not answer) == "<clip> What is said?</s>"
    assert "".join(text for text, answer in pieces if answer) == "Yes.</s>"
    assert all(config.answering.template == T5 for config in map(slm.config, slm.CARD.sizes))


def test_what_there_is_not_is_named():
    with pytest.raises(UserError, match=r"SLM size is '13B'.*'13b'"):
        slm.config("13B")
    with pytest.raises(UserError, match=r"blanks.*no CTC head"):
        slm.config("13b", blanks=True)
