"""Times of the world's phones: rules of the alignment, and its offset measured on the audio."""

import numpy as np
import pytest
from scipy.fft import dct

from slm_jax.data.corpora.settings import WorldConfig
from slm_jax.data.corpora.world_phones import OFFSET_S, PHONES, align, word_times
from slm_jax.data.corpora.world_plans import jobs
from slm_jax.data.corpora.world_records import make_records
from slm_jax.data.corpora.world_voice import Speaker, Voice


def named(phones):
    rows = zip(phones.ids, phones.start_s, phones.end_s, phones.word, strict=True)
    return [(PHONES[i], round(float(a), 4), round(float(b), 4), int(w)) for i, a, b, w in rows]


def test_stress_length_space_and_pause():
    """A stress mark goes to what follows, a length mark to what precedes, a space to both, a comma is silence."""
    phones = align("ˈɑː nə,", np.asarray([4, 1, 2, 1, 2, 3, 2, 4, 3]), total_s=0.55, offset_s=0.0)
    assert named(phones) == [
        ("sil", 0.0, 0.1, -1),
        ("ɑ", 0.1, 0.225, 0),
        ("n", 0.225, 0.325, 1),
        ("ə", 0.325, 0.375, 1),
        ("sil", 0.375, 0.55, -1),
    ]
    start, end = word_times(phones, 2)
    np.testing.assert_allclose([start, end], [[0.1, 0.225], [0.225, 0.375]], atol=1e-6)


def test_offset_moves_inner_times_only():
    steps = np.asarray([4, 2, 3, 4])
    plain, moved = (align("nə", steps, 0.325, offset) for offset in (0.0, 0.05))
    np.testing.assert_allclose(moved.start_s[1:], plain.start_s[1:] - 0.05, atol=1e-6)
    assert moved.start_s[0] == 0.0 and moved.end_s[-1] == pytest.approx(0.325)


@pytest.fixture(scope="module")
def records():
    """About two minutes of the one voice."""
    endless = jobs(WorldConfig(seed=5), "sentence")
    return [record for _ in range(2) for record in make_records(next(endless))]


def cepstra(samples):
    """13 cepstral coefficients per 10 ms of int16 samples `[N]`."""
    frames = np.lib.stride_tricks.sliding_window_view(samples / 32768.0, 400)[::160] * np.hanning(400)
    power = np.abs(np.fft.rfft(frames, 512)) ** 2
    mel = 2595 * np.log10(1 + np.linspace(0, 8000, 257) / 700)
    edges = np.linspace(mel[2], mel[-8], 28)
    rise = (mel[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - mel[:, None]) / (edges[2:] - edges[1:-1])
    return dct(np.log(power @ np.maximum(0, np.minimum(rise, fall)) + 1e-6), norm="ortho")[:, :13]


def test_offset_is_where_clusters_and_phones_agree_best(records):
    """Clusters of cepstra know nothing of the phones: their agreement peaks where the times are right."""
    cluster = pytest.importorskip("sklearn.cluster", reason="scikit-learn is not installed")
    from sklearn.metrics import normalized_mutual_info_score

    features = [cepstra(record["samples"]) for record in records]
    together = np.concatenate(features)
    together = (together - together.mean(0)) / together.std(0)
    units = cluster.KMeans(50, n_init=1, max_iter=20, random_state=0).fit_predict(together)
    shifts = np.asarray([-0.04, -0.02, 0.0, 0.02, 0.04])
    agreement = []
    for shift in shifts:
        labels = []
        for record, frames in zip(records, features, strict=True):
            at = (np.arange(len(frames)) * 160 + 200) / 16_000 + shift
            row = np.searchsorted(record["phone_start_s"], at, side="right") - 1
            labels.append(record["phone_ids"][np.clip(row, 0, None)])
        agreement.append(normalized_mutual_info_score(np.concatenate(labels), units))
    a, b, _ = np.polyfit(shifts, agreement, 2)
    best = -b / (2 * a)
    assert np.argmax(agreement) == 2 and a < 0
    assert abs(best) < 0.008, f"the offset should be {OFFSET_S + best:.4f} s"


def test_speech_starts_where_the_first_phone_does():
    """A sentence that begins with a vowel: its energy and its voicing begin with the first phone."""
    voice = Voice()
    for speaker in (Speaker("a"), Speaker("b", pitch=0.6, formant=0.85, tempo=1.1)):
        speech = voice.speak("Anna likes honey.", speed=1.0, speaker=speaker, seed=[1])
        first = speech.phones.start_s[1]
        energy = np.convolve(speech.samples**2, np.ones(160) / 160, "same")
        loud_s = np.flatnonzero(energy > 0.01 * energy.max())[0] / 16_000
        voiced_s = np.flatnonzero(speech.f0_hz)[0] * 0.0125
        assert abs(loud_s - first) < 0.05 and abs(voiced_s - first) < 0.05
        assert speech.word_start_s[0] == first


def test_silence_is_quiet_and_vowels_are_loud(records):
    level = {"sil": [], "A": [], "I": [], "ɑ": []}
    for record in records:
        for phone, start, end in zip(record["phone_ids"], record["phone_start_s"], record["phone_end_s"], strict=True):
            stretch = record["samples"][int(start * 16_000) : int(end * 16_000)].astype(float)
            if PHONES[phone] in level and len(stretch):
                level[PHONES[phone]].append(np.sqrt(np.mean(stretch**2)))
    for vowel in ("A", "I", "ɑ"):
        assert np.median(level[vowel]) > 8 * np.median(level["sil"])
