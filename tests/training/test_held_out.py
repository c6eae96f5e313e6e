import dataclasses

import numpy as np
import pytest

from slm_jax.audio.files import write_wav
from slm_jax.data.corpus import FolderConfig
from slm_jax.evaluation.section import Lacking
from slm_jax.training.held_out import held_out, openings, speech_of, waveform
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import RunConfig, StageContext, run_stages


def kept_context(tmp_path, **shares):
    """What is left to judge by of a run without stages over eight recordings of 0.5 to 1.2 s."""
    rng = np.random.default_rng(0)
    for number in range(8):
        write_wav(tmp_path / "speech" / f"{number}.wav", 0.1 * rng.normal(size=8000 + 1600 * number), 16_000)
    corpus = FolderConfig(path=str(tmp_path / "speech"), processes=1, **shares)
    config, run = RunConfig(name="empty", corpus=corpus, stages=()), RunFolder(tmp_path / "run")
    context = StageContext(run, corpus, tmp_path / "data", progress=False)
    assert list(run_stages(config, context)) == []
    return config, dataclasses.replace(context, kept=True)


def test_openings_are_conversations_of_the_first_seconds(tmp_path):
    config, context = kept_context(tmp_path, test_share=0.6, dev_share=0.0)
    whole, first = openings(context, 100), config.prompts(context, 100, 0.6)
    assert whole.keys() >= first.keys() and len(first) > 0
    for name, (message,) in first.items():
        (clip,) = message.speech
        assert (message.role, clip.rate_hz, len(clip.samples)) == ("user", 16_000, 9600)
        np.testing.assert_array_equal(clip.samples, whole[name][0].speech[0].samples[:9600])
    assert len(openings(context, 1)) == 1


def test_channels_are_averaged_and_the_rate_is_the_systems(tmp_path):
    corpus = FolderConfig(path=str(tmp_path), rate_hz=24_000)
    context = StageContext(RunFolder(tmp_path), corpus, tmp_path)
    tone = 0.3 * np.sin(2 * np.pi * 200 * np.arange(24_000) / 24_000).astype(np.float32)
    item = {"samples": np.stack([tone, np.zeros_like(tone)], axis=1)}
    heard = waveform(item, context, 16_000)
    wanted = 0.15 * np.sin(2 * np.pi * 200 * np.arange(16_000) / 16_000)
    np.testing.assert_allclose(heard[500:-500], wanted[500:-500], atol=1e-3)


def test_a_corpus_without_held_out_speech_lacks_it_and_nothing_breaks(tmp_path):
    _, context = kept_context(tmp_path, test_share=0.0, dev_share=0.0)
    assert len(speech_of(context, "test")) == len(speech_of(context, "train")) == 0
    with pytest.raises(Lacking, match="at least one longer than 1 s is needed"):
        held_out(context, 3, longer_than_s=1.0)
