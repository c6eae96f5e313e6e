"""Qwen-Audio against a PyTorch twin with the published names: vectors of clips, logits, files both ways."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.messages import Message, Speech, Text
from slm_jax.core.trees import count_parameters
from slm_jax.data.examples.speech_prompts import PromptLayout, SpeechPromptExample, stacked
from slm_jax.data.examples.speech_tasks import SpeechTaskConfig
from slm_jax.interop.engine import MappingError, export_params
from slm_jax.interop.family_qwen import QWEN_AUDIO
from slm_jax.interop.model import export, load
from slm_jax.interop.reference import draw_weights
from slm_jax.systems.speech_aware import qwen_audio
from slm_jax.text import templates
from tests.serving.drawn import noise

torch = pytest.importorskip("torch")
twin = pytest.importorskip("tests.parity.qwen_audio_twin")

TOLERANCE = 1e-4
RATE, WINDOW = 16_000, 16_000
TOKENS = qwen_audio.TOKENS.make()
AUDIO = {"n_mels": 24, "n_ctx": 50, "n_state": 36, "n_head": 3, "n_layer": 2, "output_dim": 32, "audio_start_id": 7}
AUDIO |= {"avg_pool": True, "add_audio_bos_eos_token": True}
HUB = {"model_type": "qwen", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "kv_channels": 8}
HUB |= {"intermediate_size": 88, "layer_norm_epsilon": 1e-5, "rotary_emb_base": 10000, "rotary_pct": 1.0}
HUB |= {"vocab_size": TOKENS.size, "seq_length": 256, "max_position_embeddings": 8192, "no_bias": True, "bf16": False}
HUB |= {"use_dynamic_ntk": True, "use_logn_attn": True, "tie_word_embeddings": False, "audio": AUDIO}
CLIPS = [noise(1.0, 0)[:15_999], noise(1.0, 1)[:9_777], noise(1.0, 2)[:5_100]]
"""None ends with a mel frame, and with the second the last one that is begun would be a frame more."""


@pytest.fixture(scope="module")
def theirs():
    model = draw_weights(twin.QwenAudio(HUB), seed=5, gain=1.3)
    with torch.no_grad():
        model.transformer.audio.proj.weight.mul_(2.0)
    return model


@pytest.fixture(scope="module")
def folder(theirs, tmp_path_factory):
    """As the files lie: a PyTorch file beside a config."""
    folder = tmp_path_factory.mktemp("qwen_audio")
    torch.save(theirs.state_dict(), folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(HUB))
    return folder


@pytest.fixture(scope="module")
def ours(folder):
    """Config, weights."""
    config, params = load(folder)
    return config, jax.tree.map(jnp.asarray, params)


def frames_of(clip):
    """As the released tokenizer counts them."""
    return 1 + (len(clip) // 160 - 1) // 2


def vectors(theirs, config, clips):
    """What the twin makes of clips, together."""
    mel = np.zeros((len(clips), WINDOW), np.float32)
    for row, clip in enumerate(clips):
        mel[row, : len(clip)] = clip
    found = np.array(config.encoder.mel.make()(mel)).transpose(0, 2, 1)
    with torch.no_grad():
        return [one.numpy() for one in theirs.transformer.audio(torch.tensor(found), [frames_of(c) for c in clips])]


def test_the_vectors_of_each_clip_are_those_of_the_clip_alone(theirs, ours):
    config, params = ours
    samples, mask = np.zeros((3, 1, WINDOW), np.float32), np.zeros((3, 1, WINDOW), bool)
    for row, clip in enumerate(CLIPS):
        samples[row, 0, : len(clip)], mask[row, 0, : len(clip)] = clip, True
    model = config.make()

    def read(model, samples, mask):
        return model.speech(model.heard(samples, mask))

    out = jax.jit(lambda s, m: model.apply({"params": params}, s, m, method=read))(samples, mask)
    counts = [config.frames_out(len(clip)) for clip in CLIPS]
    assert counts == [(frames_of(clip) - 2) // 2 + 1 + 2 for clip in CLIPS] == [27, 17, 10]
    together = vectors(theirs, config, CLIPS)
    for row, clip in enumerate(CLIPS):
        (alone,) = vectors(theirs, config, [clip])
        assert len(alone) == counts[row] == np.asarray(out.mask)[row].sum()
        assert alone[1:-1].std() > 0.3
        np.testing.assert_allclose(out.values[row, : counts[row]], alone, atol=TOLERANCE * np.abs(alone).max())
    assert np.abs(together[2] - vectors(theirs, config, CLIPS[2:])[0]).max() > 1e-3, "the batch reaches no clip"


def test_logits_of_rows_with_clips(theirs, ours):
    config, params = ours
    layout = PromptLayout(TOKENS, templates.QWEN_AUDIO_CHAT, config.frames_out, window=config.window)
    said = [(Message("user", (Speech(clip, RATE), Text("What is it?"))),) for clip in CLIPS]
    example = SpeechPromptExample(layout, SpeechTaskConfig(), RATE, WINDOW, 160)
    entries = [layout.entries(one, answered=False) for one in said]
    pairs = zip(said, entries, strict=True)
    batch = stacked([{**example.samples(one), **example.row(own)} for one, own in pairs])
    names = ("samples", "sample_mask", "ids", "speech_at", "mask")
    model = config.make()
    logits = np.asarray(jax.jit(model.apply)({"params": params}, *(batch[name] for name in names)))
    for row, own in enumerate(entries):
        start = int(np.flatnonzero(own.clip == 0)[0])
        (speech,) = vectors(theirs, config, [CLIPS[row]])
        with torch.no_grad():
            wanted = theirs(torch.tensor(own.ids).long(), start, torch.tensor(speech)).numpy()
        assert wanted.std() > 0.3
        np.testing.assert_allclose(logits[row, : len(wanted)], wanted, atol=TOLERANCE * np.abs(wanted).max())


def test_files_go_both_ways(folder, ours, theirs, tmp_path):
    config, params = ours
    assert config.speech_id == 7 and config.lm.max_positions == 256 and config.encoder.mel_frames == "whole"
    held = dict(theirs.state_dict())
    assert count_parameters(params) == sum(value.numel() for value in held.values())
    written = dict(export_params(QWEN_AUDIO.table(config, "original"), params))
    assert written.keys() == held.keys()
    for name, array in written.items():
        np.testing.assert_array_equal(array, held[name], err_msg=name)
    export(config, params, tmp_path / "ours")
    again = load(tmp_path / "ours")
    assert again[0] == config
    jax.tree.map(np.testing.assert_array_equal, again[1], params)


def test_a_file_of_another_model_is_named(folder, theirs, tmp_path):
    state = dict(theirs.state_dict())
    state["transformer.audio.blocks.0.attn.key.bias"] = torch.zeros(36)
    torch.save(state, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps(HUB))
    with pytest.raises(MappingError, match=r"blocks.0.attn.key.bias' has no rule"):
        load(tmp_path)
    with pytest.raises(UserError, match="avg_pool is False"):
        QWEN_AUDIO.read_config(HUB | {"audio": AUDIO | {"avg_pool": False}})
