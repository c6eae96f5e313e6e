"""The report of a unit speech LM: judge everything, keep sounds, pictures and figures in the run folder, show them.

figures.json  prompt.wav  resynthesis.wav  continuation_*.wav  plots/*.png  report.html
"""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from slm_jax.audio.files import write_wav
from slm_jax.audio.plots import plot_f0, plot_losses, plot_units
from slm_jax.core.errors import require
from slm_jax.core.paths import is_local
from slm_jax.data.passes import float_samples
from slm_jax.evaluation.resynthesis import track_f0
from slm_jax.serving.unit_speech_lm import UnitSpeechLM
from slm_jax.token_compression.dedup import repeat_row
from slm_jax.training.metrics import FILE as METRICS
from slm_jax.training.metrics import read_metrics
from slm_jax.training.pre.frame_units import FrameUnitsConfig
from slm_jax.training.stages import RunConfig, StageContext
from slm_jax.workbench import speech_lm as judge
from slm_jax.workbench.report import Report

FIGURES = "figures.json"
SHOWN = 4
"""Continuations that are kept as sounds."""


@dataclasses.dataclass
class Evaluation:
    """A run under judgement: figures come together here, sounds and plots lie in the run's folder."""

    config: Any
    context: StageContext
    settings: judge.JudgeSettings
    say: judge.Say
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)
    sounds: dict[str, Path] = dataclasses.field(default_factory=dict)
    plots: dict[str, Path] = dataclasses.field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where everything is written."""
        path = self.context.run.path
        rule = "the report is written beside the run: copy the run to this machine first"
        require(is_local(path), "run folder", str(path), rule)
        return Path(path)

    def run(self) -> dict[str, Any]:
        """Judge all parts; returns the figures, which are also written to `figures.json`."""
        system = self.config.load(self.context)
        self._units()
        tables = judge.unit_tables(self.context, self.config.units_stage)
        self.figures["language_model"] = judge.judge_language_model(system, tables)
        items = judge.held_out(self.context, self.settings.utterances, longer_than_s=1.0)
        originals = [float_samples(item["samples"]) for item in items]
        tracks = judge.frame_tracks(items, self.context, self.config.spoken_by)
        known = {name: place for place, name in enumerate(system.speakers)}
        self._resynthesis(system, originals, tracks, [known.get(item["speaker"], 0) for item in items])
        self._continuations(system, originals, tables["train"])
        self._plots(system, items, originals)
        partial = self.folder / f"{FIGURES}.partial"
        partial.write_text(json.dumps(self.figures, indent=1), encoding="utf-8")
        os.replace(partial, self.folder / FIGURES)
        return self.figures

    def _units(self) -> None:
        stage = self.config.stage(self.config.units_stage)
        assert isinstance(stage, FrameUnitsConfig)
        compared = judge.judge_units(self.context, stage, self.settings, self.say)
        self.figures["units"] = [one.to_json() for one in compared]
        if not compared:
            self.figures["units_left_out"] = "the corpus has no true phones"

    def _resynthesis(
        self,
        system: UnitSpeechLM,
        originals: Sequence[np.ndarray],
        tracks: Sequence[judge.Track],
        speakers: Sequence[int],
    ) -> None:
        self.figures["resynthesis"], made = judge.judge_resynthesis(system, originals, tracks, speakers, self.say)
        ours, _, griffin = made.values()
        for name, samples in {"original": originals[0], "resynthesis": ours[0], "griffin_lim": griffin[0]}.items():
            self._keep(name, samples, system.rate_hz)
        tracked = {"recording": track_f0(originals[0]), "resynthesis": track_f0(ours[0])}
        title = "F0 of a recording and of its resynthesis"
        self.plots["f0"] = plot_f0(self.folder / "plots" / "f0.png", tracked, hop_s=0.01, title=title)

    def _continuations(
        self, system: UnitSpeechLM, originals: Sequence[np.ndarray], training: Sequence[np.ndarray]
    ) -> None:
        known = judge.train_phone_classifier(self.context, self.settings)
        if known is not None:
            self.figures["phone_classifier_accuracy"] = known[1]
        figures, sounds = judge.judge_continuations(
            system,
            originals,
            training,
            self.config.prompt_s,
            self.config.sampling,
            None if known is None else known[0],
            jax.random.key(0),
        )
        self.figures["continuations"] = figures
        prompt = originals[0][: round(self.config.prompt_s * system.rate_hz)]
        self._keep("prompt", prompt, system.rate_hz)
        ways = judge.continued(system, prompt, SHOWN, self.config.sampling, jax.random.key(1))
        for number, samples in enumerate(ways, start=1):
            self._keep(f"continuation_{number}", samples, system.rate_hz)
        self._keep("shuffled", sounds["shuffled real"][0], system.rate_hz)

    def _plots(self, system: UnitSpeechLM, items: Sequence[dict], originals: Sequence[np.ndarray]) -> None:
        plots, item, original = self.folder / "plots", items[0], originals[0]
        speech = system.encode([original])[0]
        spans = [
            (float(start), float(end), phone)
            for start, end, phone in zip(
                item.get("phone_start_s", ()), item.get("phone_end_s", ()), item.get("phones", ()), strict=True
            )
        ]
        units = repeat_row(speech.runs, speech.durations)
        title = item["text"] or item["id"]
        self.plots["units"] = plot_units(
            plots / "units.png", original, system.rate_hz, units, phones=spans, title=title
        )
        self.plots["losses"] = plot_losses(plots / "losses.png", loss_curves(self.config, self.context), ylabel="loss")

    def _keep(self, name: str, samples: np.ndarray, rate_hz: int) -> None:
        self.sounds[name] = write_wav(self.folder / f"{name}.wav", samples, rate_hz)

    def report(self, command: str) -> Path:
        """Write `report.html`; returns its path."""
        page = Report(
            self.folder,
            f"{self.config.name}: a spoken language model, from recordings to generated speech",
            "Speech becomes units, a language model continues the units, a vocoder speaks them. No text is used.",
        )
        page.section(
            "Listen",
            "One recording and what becomes of it; its opening as a prompt, and four ways in which the model goes on.",
        )
        captions = {
            "prompt": "Prompt (recorded)",
            "original": "A recording",
            "resynthesis": "The same, from its units",
            "griffin_lim": "The same, Griffin-Lim on its mel",
            "shuffled": "Real units in random order (control)",
        }
        page.sounds(
            (path, captions.get(name, name.replace("_", " ").capitalize())) for name, path in self.sounds.items()
        )
        page.section("Speech as units", "Below the spectrogram lies the ruler of units, one colour per unit.")
        page.image(self.plots["units"], "Log-mel spectrogram with units (and phones where they are known)")
        page.image(self.plots["f0"], "F0 of a recording and of its resynthesis from units")
        self._unit_table(page)
        self._model_tables(page)
        page.section("Training")
        page.image(self.plots["losses"], "Loss of every trained stage")
        page.command(command)
        return page.write()

    def _unit_table(self, page: Report) -> None:
        if not self.figures["units"]:
            return
        page.section(
            "How well units match phones",
            "K-means on each feature after equal treatment, scored on the same frames of held-out speech. Phone "
            "purity: a unit read as its most frequent phone is right so often. PNMI: the share of uncertainty about "
            "the phone that the unit removes.",
        )
        header = ("feature", "normalisation", "window", "K", "phone purity", "cluster purity", "PNMI")
        keys = ("feature", "normalise", "smooth", "clusters", "phone_purity", "cluster_purity", "pnmi")
        page.table(header, [[row[key] for key in keys] for row in self.figures["units"]])

    def _model_tables(self, page: Report) -> None:
        page.section("Language model", "Nats per unit on held-out speech, the end of each utterance counted.")
        figures = self.figures["language_model"]
        page.table(list(figures), [list(figures.values())])
        for title, key, words in (
            ("Resynthesis", "resynthesis", "Means over held-out utterances. STOI: intelligibility, higher is better."),
            ("Continuations", "continuations", "All spoken by the same vocoder; entropies at equal numbers of units."),
        ):
            rows = self.figures[key]
            columns = list(next(iter(rows.values())))
            page.section(title, words)
            table = [[name, *(values[column] for column in columns)] for name, values in rows.items()]
            page.table(["", *(column.replace("_", " ") for column in columns)], table)


def loss_curves(config: RunConfig, context: StageContext) -> dict[str, dict[str, Any]]:
    """Stage -> curve -> (steps, values), for every stage that was trained; one curve per player."""
    curves: dict[str, dict[str, Any]] = {}
    for stage in config.stages:
        folder = context.run.stage(stage.name).path
        if not (folder / METRICS).is_file():
            continue
        lines = read_metrics(folder)
        names = sorted({name for line in lines for name in line if name.split("/")[-1] == "loss"})
        for name in names:
            kept = [line for line in lines if line.get(name) is not None]
            points = [line["step"] for line in kept], [line[name] for line in kept]
            curves.setdefault(stage.name, {})[name] = points
    return curves
