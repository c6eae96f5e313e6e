"""The world's voice: text to samples, phones, word times and pitch, in as many speakers as wanted.

Source: the `hibari-tts` model, whose inner durations are made an output of its graph. A speaker is a change of the
model's pitch curve before its vocoder, a change of its speed, and resampling, which moves formants and pitch alike.
"""

import dataclasses
import functools
import json
import os
from collections.abc import Iterator

import numpy as np
import soxr
from jaxtyping import Float, Int

from slm_jax.core.errors import require
from slm_jax.data.corpora.settings import RATE_HZ
from slm_jax.data.corpora.world_phones import OFFSET_S, Phones, align, word_times

DURATIONS = "/Clip_output_0"
"""The inner tensor of the model that holds the duration of every symbol."""
F0_HOP_S = 0.0125
FRAMES_PER_S = 80
"""One over `F0_HOP_S`, for whole numbers: frames of pitch per second."""
VOICED_HZ = 40.0
"""Below this the model's vocoder makes no pulses."""
PEAK = 0.95
DEEP, HIGH = 0.65, 0.8
"""Of a speaker's pitch times formants: below the first a voice is deep, above the second it is high."""


@dataclasses.dataclass(frozen=True)
class Speaker:
    """A voice as factors on the original one: `pitch`, `formant` (both times frequency) and `tempo` (times speed)."""

    name: str
    pitch: float = 1.0
    formant: float = 1.0
    tempo: float = 1.0

    @property
    def sound(self) -> str:
        """`deep` or `high` for a voice that is clearly one of them, else empty.

        Pitch and formants together: below 0.65 on the original's 1, or above 0.8.
        """
        height = self.pitch * self.formant
        return "deep" if height < DEEP else "high" if height > HIGH else ""


@dataclasses.dataclass(frozen=True)
class Speech:
    """What was spoken, at `rate_hz`: phones, words and pitch agree with the samples in time."""

    samples: Float[np.ndarray, "N"]
    rate_hz: int
    phones: Phones
    words: tuple[str, ...]
    word_start_s: Float[np.ndarray, "W"]
    word_end_s: Float[np.ndarray, "W"]
    f0_hz: Float[np.ndarray, "T"]


def make_speakers(count: int, seed: int) -> tuple[Speaker, ...]:
    """`count` speakers of a seed: the first is the unchanged voice, odd ones are deep, even ones high."""
    rng = np.random.default_rng([seed, 2])
    speakers = [Speaker("world-0")]
    for i in range(1, count):
        low_pitch, low_formant = (0.55, 0.83) if i % 2 else (0.8, 0.95)
        pitch, formant = low_pitch + 0.25 * rng.random(), low_formant + 0.15 * rng.random()
        speakers.append(Speaker(f"world-{i}", round(pitch, 3), round(formant, 3), round(0.92 + 0.16 * rng.random(), 3)))
    return tuple(speakers)


class Voice:
    """The loaded model; one thread, so that several processes share the cores and bytes repeat."""

    def __init__(self) -> None:
        from hibari import Hibari

        self._tts = Hibari(threads=1)
        self._session = _session_with_durations(self._tts.model_path)

    def speak(self, text: str, *, speed: float, speaker: Speaker, seed: list[int], rate_hz: int = RATE_HZ) -> Speech:
        """One sentence as `Speech` at `rate_hz` (Hz); `seed` fixes the noise part.

        The model's own rate is 24 kHz: above it the samples are more, and no band is added. Raises `UserError` when the
        words do not pair with the sounds.
        """
        words = tuple(text.split())
        return self.speak_symbols(self.symbols(text), words, speed=speed, speaker=speaker, seed=seed, rate_hz=rate_hz)

    def symbols(self, text: str) -> str:
        """How one sentence is said, in the model's symbols, a space between words; raises as `speak` does."""
        symbols = self._tts.phonemize(text)
        require(len(symbols) == 1, "text", text, "one sentence at a time")
        require(len(symbols[0].split(" ")) == len(text.split()), "text", text, f"words do not pair with {symbols[0]!r}")
        return symbols[0]

    def speak_symbols(
        self,
        symbols: str,
        words: tuple[str, ...],
        *,
        speed: float,
        speaker: Speaker,
        seed: list[int],
        rate_hz: int = RATE_HZ,
    ) -> Speech:
        """What `symbols` say as `Speech` at `rate_hz` (Hz): one sentence, `words` as many as it has words."""
        audio, audio_hz, steps, f0 = self._synthesize(symbols, speed * speaker.tempo, speaker, seed)
        samples = soxr.resample(audio, audio_hz, rate_hz, quality="HQ")
        total_s = len(samples) / rate_hz
        stretched = _stretch(align(symbols, steps, total_s * speaker.formant), speaker.formant)
        start_s, end_s = word_times(stretched, len(words))
        return Speech(samples, rate_hz, stretched, words, start_s, end_s, _regrid(f0, speaker, total_s))

    def pronunciations(self) -> Iterator[str]:
        """How the words of the model's dictionary are said, in its symbols; some come several times."""
        lexicon = self._tts.g2p.lexicon
        for table in (lexicon.golds.d, lexicon.silvers.d):
            for said in table.values():
                yield from filter(None, said.values() if isinstance(said, dict) else (said,))

    def _synthesize(
        self, symbols: str, speed: float, speaker: Speaker, seed: list[int]
    ) -> tuple[np.ndarray, float, np.ndarray, np.ndarray]:
        """Samples, the rate at which they are the speaker's, steps per symbol, the model's own pitch (Hz per 12.5 ms).

        Read at the model's rate times `formant`, formants and pitch are moved: the resampling to any rate does both.
        """
        from hibari import dsp

        feed = {
            "ids": np.asarray([self._tts.ids(symbols)], np.int64),
            "speed": np.asarray([speed / speaker.formant], np.float32),
        }
        *spectrum, f0, steps = self._session.run(None, feed)
        source_f0 = f0[0] * np.float32(speaker.pitch / speaker.formant)
        audio = dsp.synth(*(part[0] for part in spectrum), source_f0, np.random.default_rng(seed))
        return audio.astype(np.float32), dsp.SR * speaker.formant, np.ravel(steps).astype(np.int64), f0[0]


@functools.cache
def the_voice() -> Voice:
    """One voice per process."""
    return Voice()


def to_int16(samples: Float[np.ndarray, "N *channels"]) -> Int[np.ndarray, "N *channels"]:
    """Samples as int16, all channels by one factor; a peak above 0.95 is scaled down to it rather than clipped."""
    peak = float(np.abs(samples).max(initial=0.0))
    return np.round(samples * (min(1.0, PEAK / peak) if peak else 1.0) * 32767.0).astype(np.int16)


def _session_with_durations(path: str | os.PathLike):
    """An inference session whose last output is the duration of every symbol."""
    import onnx
    import onnxruntime

    model = onnx.load(path)
    model.graph.output.append(onnx.helper.make_tensor_value_info(DURATIONS, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _stretch(phones: Phones, formant: float) -> Phones:
    """Times after resampling by `formant`."""
    return dataclasses.replace(
        phones,
        start_s=(phones.start_s / formant).astype(np.float32),
        end_s=(phones.end_s / formant).astype(np.float32),
    )


def _regrid(f0: np.ndarray, speaker: Speaker, total_s: float) -> Float[np.ndarray, "T"]:
    """The pitch of the samples per 12.5 ms, 0 where unvoiced: frame t stands for the time (t + 0.5) 12.5 ms.

    The model's curve is read at the nearest frame, since a mean over a voicing edge would be no pitch at all.
    """
    frames = int(np.ceil(total_s / F0_HOP_S - 1e-6))
    source = np.clip(np.floor((np.arange(frames) + 0.5) * speaker.formant).astype(int), 0, len(f0) - 1)
    scaled = f0[source] * np.float32(speaker.pitch)
    voiced = f0[source] * (speaker.pitch / speaker.formant) > VOICED_HZ
    return np.where(voiced, scaled, 0.0).astype(np.float32)


@functools.cache
def voice_version() -> str:
    """The version of the voice and its phone inventory, part of the corpus's identity."""
    from importlib.metadata import version

    return json.dumps({"hibari-tts": version("hibari-tts"), "soxr": version("soxr"), "offset_s": OFFSET_S})
