"""Speech rebuilt from its units, beside Griffin-Lim on the true mel."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from slm_jax.audio.plots import plot_f0
from slm_jax.evaluation.resynthesis import griffin_lim_from_mel, mean_scores, score_resynthesis, track_f0
from slm_jax.evaluation.section import JudgeConfig, JudgeSettings, Plot, Section, Sound, rows_of
from slm_jax.serving.unit_speech_lm import UnitSpeechLM
from slm_jax.training.held_out import held_out, waveform
from slm_jax.training.pre.pitch import PitchStageConfig
from slm_jax.training.pre.unit_vocoder import UnitVocoderStageConfig
from slm_jax.training.stages import StageContext

Track = tuple[np.ndarray, np.ndarray]
Scores = dict[str, dict[str, float | None]]
WORDS = "Means over held-out utterances. STOI: intelligibility, higher is better."
F0_TITLE = "F0 of a recording and of its resynthesis from units"


class ResynthesisJudge(JudgeConfig):
    """What is lost on the way through units: recordings said again in the vocoder's voice."""

    name: str = "resynthesis"

    def judge(self, system: UnitSpeechLM, context: StageContext, settings: JudgeSettings) -> Section:
        items = held_out(context, settings.utterances, longer_than_s=1.0)
        originals = [waveform(item, context, system.rate_hz) for item in items]
        tracks = frame_tracks(items, context, system.origin.vocoder)
        known = {name: place for place, name in enumerate(system.speakers)}
        speakers = [known.get(item["speaker"], 0) for item in items]
        figures, made = judge_resynthesis(system, originals, tracks, speakers, context.say)
        ours, _, griffin = made.values()
        heard = {"original": originals[0], "resynthesis": ours[0], "griffin_lim": griffin[0]}
        captions = ("A recording", "The same, from its units", "The same, Griffin-Lim on its mel")
        sounds = [
            Sound(name, samples, system.rate_hz, caption)
            for (name, samples), caption in zip(heard.items(), captions, strict=True)
        ]
        f0 = {name: track_f0(one, system.rate_hz) for name, one in (("recording", originals[0]), (self.name, ours[0]))}
        plot = Plot("f0", partial(plot_f0, tracks=f0, hop_s=0.01, title=F0_TITLE), F0_TITLE)
        return Section("Resynthesis", WORDS, {self.name: figures}, (rows_of(figures),), sounds, (plot,))


def judge_resynthesis(
    system: UnitSpeechLM,
    originals: Sequence[np.ndarray],
    tracks: Sequence[Track],
    speakers: Sequence[int],
    say: Callable[[str], None],
) -> tuple[Scores, dict[str, list[np.ndarray]]]:
    """Scores of speech rebuilt from its units, beside Griffin-Lim on the true mel; and the sounds by name.

    `speakers`: each utterance's own voice, as a place in `system.speakers`.
    """
    rate_hz, speech = system.rate_hz, system.encode(originals)
    runs, durations = [one.runs for one in speech], [one.durations for one in speech]
    made = {
        "units, with the recording's durations and F0": system.decode(
            runs, durations=durations, f0=tracks, speaker=speakers
        ),
        "units, with its durations, predicted F0": system.decode(runs, durations=durations, speaker=speakers),
        "Griffin-Lim (60 iterations) on the true mel": [griffin_lim_from_mel(one, rate_hz) for one in originals],
    }
    figures: Scores = {}
    for name, sounds in made.items():
        pairs = zip(originals, sounds, strict=True)
        figures[name] = mean_scores([score_resynthesis(original, sound, rate_hz) for original, sound in pairs])
        stoi = figures[name]["stoi"]
        say(f"{name}: STOI {'unknown' if stoi is None else f'{stoi:.3f}'}")
    return figures, made


def frame_tracks(items: Sequence[dict[str, Any]], context: StageContext, vocoder: str) -> list[Track]:
    """F0 (Hz) and voicing of every vocoder frame of each item, as the vocoder of stage `vocoder` was trained on."""
    stage = UnitVocoderStageConfig.of(context.finished(vocoder))
    pitch, example = PitchStageConfig.of(context.finished(stage.pitch)), stage.example(context)
    frames = [len(item["samples"]) // example.hop_samples for item in items]
    return [example.frame_f0(pitch.track(item), 0, count) for item, count in zip(items, frames, strict=True)]
