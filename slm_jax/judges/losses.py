"""Loss curves of every trained stage: training, and what was evaluated on held-out speech, on the same axes."""

from functools import partial
from typing import Any

from slm_jax.audio.plots import plot_losses
from slm_jax.evaluation.section import JudgeConfig, JudgeSettings, Lacking, Plot, Section
from slm_jax.training.metrics import FILE as METRICS
from slm_jax.training.metrics import read_metrics
from slm_jax.training.stages import StageContext, read_run_config

HELD_OUT = "evaluate/"
Curves = dict[str, dict[str, tuple[list[Any], list[Any]]]]


class LossesJudge(JudgeConfig):
    """How training went, stage by stage."""

    name: str = "losses"

    def judge(self, system: Any, context: StageContext, settings: JudgeSettings) -> Section:
        curves = loss_curves(context)
        if not curves:
            raise Lacking("no stage of this run was trained by gradient")
        plot = Plot("losses", partial(plot_losses, stages=curves, ylabel="loss"), "Loss of every trained stage")
        return Section("Training", "Beside the loss of training: what was measured on the dev split.", plots=(plot,))


def loss_curves(context: StageContext) -> Curves:
    """Stage -> curve -> (steps, values), for every stage that was trained.

    One curve per player, and one for each figure of the dev split, `dev nats per unit`.
    """
    curves: Curves = {}
    for stage in read_run_config(context.run).stages:
        folder = context.run.stage(stage.name).path
        lines = read_metrics(folder) if (folder / METRICS).is_file() else []
        names = {name for line in lines for name in line if name.split("/")[-1] == "loss" or name.startswith(HELD_OUT)}
        for name in sorted(names, key=lambda name: (name.startswith(HELD_OUT), name)):
            kept = [line for line in lines if line.get(name) is not None]
            points = [line["step"] for line in kept], [line[name] for line in kept]
            curves.setdefault(stage.name, {})[label(name)] = points
    return curves


def label(name: str) -> str:
    """What the legend calls a metric."""
    return f"dev {name.removeprefix(HELD_OUT).replace('_', ' ')}" if name.startswith(HELD_OUT) else name
