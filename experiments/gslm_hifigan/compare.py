"""The voices of one run on the same units: the fast generator, HiFi-GAN by spectra alone, HiFi-GAN with its judges.

    python -m slm_jax train configs/speech/gslm_hifigan.py --workdir runs/demo
    python experiments/gslm_hifigan/compare.py runs/demo

Held-out sentences are rebuilt from their units with the recording's durations and F0, so that only the voices differ.
Leaves `figures.json` and `losses.png` beside this file, or in `--out`, and the sounds in the run's `hifigan/`.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from slm_jax.audio.files import write_wav
from slm_jax.data.passes import float_samples
from slm_jax.evaluation.resynthesis import mean_scores, score_resynthesis
from slm_jax.judges.resynthesis import frame_tracks
from slm_jax.serving.unit_speech_lm import UnitSpeechLM
from slm_jax.training.gradient_stage import trained
from slm_jax.training.held_out import held_out
from slm_jax.training.metrics import read_metrics
from slm_jax.training.pre.unit_vocoder import UnitVocoderStageConfig
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import RunConfig, StageContext, judging_context, read_run_config


def options() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("--utterances", type=int, default=24, help="held-out sentences")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where prepared corpora are kept")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where the results go")
    return parser.parse_args()


def voices(config: RunConfig, context: StageContext) -> list[str]:
    """The stages of the run that trained a vocoder and are done."""
    stages = [stage.name for stage in config.stages if isinstance(stage, UnitVocoderStageConfig)]
    return [name for name in stages if context.run.stage(name).is_done()]


def with_voice(system: UnitSpeechLM, context: StageContext, name: str) -> UnitSpeechLM:
    """The system speaking with the vocoder of another stage."""
    stage = UnitVocoderStageConfig.of(context.finished(name))
    params = trained(context.finished(name))[1]["params"]["generator"]
    return dataclasses.replace(system, vocoder=stage.vocoder(context).make(), vocoder_params=params)


def judge(system: UnitSpeechLM, config: Any, context: StageContext, name: str, items: list[dict]) -> dict[str, Any]:
    """Scores of one voice, and how it was trained."""
    originals = [float_samples(item["samples"]) for item in items]
    speech, tracks = system.encode(originals), frame_tracks(items, context, name)
    runs, durations = [one.runs for one in speech], [one.durations for one in speech]
    made = with_voice(system, context, name).decode(runs, durations=durations, f0=tracks)
    sounds = context.run.path / "hifigan"
    sounds.mkdir(exist_ok=True)
    for number, sound in enumerate(made[:3]):
        write_wav(sounds / f"{name}_{number}.wav", sound, system.rate_hz)
    scores = mean_scores([score_resynthesis(a, b) for a, b in zip(originals, made, strict=True)])
    stage = config.stage(name)
    steps = [row for row in read_metrics(context.run.stage(name).path) if "step_ms" in row]
    training = {"steps": stage.train.steps, "step_ms": float(np.median([row["step_ms"] for row in steps]))}
    return {**training, "judged": stage.discriminators is not None, **scores}


def spectral_curve(context: StageContext, name: str) -> tuple[list[int], list[float]]:
    """Steps and the spectral loss of a stage's generator (unweighed)."""
    rows = read_metrics(context.run.stage(name).path)
    found = [(row["step"], row.get("spectral", row.get("generator/spectral"))) for row in rows]
    kept = [(step, value) for step, value in found if value is not None]
    return [step for step, _ in kept], [value for _, value in kept]


def plot(context: StageContext, config: RunConfig, names: list[str], path: Path) -> None:
    """The mel loss of the HiFi-GAN stages; those that go on from another are drawn after it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="mel loss (ln magnitude)")
    for name in names:
        stage = config.stage(name)
        before = 0 if stage.start_from is None else config.stage(stage.start_from).train.steps
        steps, values = spectral_curve(context, name)
        axes.plot(np.asarray(steps) + before, values, label=name)
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Judge every voice of the run."""
    asked = options()
    run = RunFolder(asked.run)
    config = read_run_config(run)
    context = judging_context(config, run, asked.data_dir, print)
    system, items = config.load(context), held_out(context, asked.utterances)
    names = voices(config, context)
    figures = {name: judge(system, config, context, name, items) for name in names}
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    plot(context, config, [name for name in names if name != config.spoken_by], asked.out / "losses.png")
    for name, values in figures.items():
        print(name, json.dumps({key: round(value, 3) for key, value in values.items() if value is not None}))


if __name__ == "__main__":
    main()
