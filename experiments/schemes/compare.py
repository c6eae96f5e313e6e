"""Every scheme of a run beside the others: likelihood, agreement of the books, latency, time, and what is understood.

    python experiments/fetch/real_weights.py weights --models whisper-base smollm2-135m-instruct
    python experiments/schemes/compare.py runs/schemes
    python experiments/schemes/compare.py runs/schemes --schemes delay parallel --utterances 8

All continue the same openings of held-out sentences. Leaves `figures.json` and `quality.png` beside this file or in
`--out`, and figures and sounds of every model in `compared/` of the run: what was judged once is not judged again, and
two commands with different `--schemes` share the work. Models that are not trained yet are left out.
`SLM_JAX_REAL_WEIGHTS` names the folder of the weights.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from slm_jax.audio.files import write_wav
from slm_jax.audio.plots import plot_points
from slm_jax.core.errors import UserError
from slm_jax.evaluation.intervals import over_seeds
from slm_jax.evaluation.section import JudgeSettings
from slm_jax.judges.codes import CodesJudge
from slm_jax.judges.generation import MADE, RECORDED, GenerationJudge
from slm_jax.systems.recipes.code_run import CodeRunConfig
from slm_jax.training.pre.code_lm import CodeLMConfig
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import StageContext, read_run_config

WEIGHTS = Path(os.environ.get("SLM_JAX_REAL_WEIGHTS", "weights"))
COLUMNS = (
    ("nats", "nats per code"),
    ("agreement", "agreement of books"),
    ("gen_ppl", "GenPPL"),
    ("vert", "VERT"),
    ("steps_per_second", "steps per second"),
    ("latency_frames", "latency, frames"),
    ("seconds_per_second", "s per s of sound"),
)


def options() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where prepared corpora are kept")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where the figures go")
    parser.add_argument("--utterances", type=int, default=40, help="openings that are continued")
    parser.add_argument("--no-text", action="store_true", help="leave out what Whisper understands")
    parser.add_argument("--schemes", nargs="*", help="whose models are compared, by name; all unless it is said")
    return parser.parse_args()


def models(run: CodeRunConfig, asked: list[str] | None) -> dict[str, list[str]]:
    """scheme -> the stages of its seeds."""
    found: dict[str, list[str]] = {}
    for stage in run.stages:
        scheme = stage.name.rpartition("_")[0]
        if isinstance(stage, CodeLMConfig) and (not asked or scheme in asked):
            found.setdefault(scheme, []).append(stage.name)
    return found


def judged(
    run: CodeRunConfig, stage: str, context: StageContext, settings: JudgeSettings, text: bool
) -> dict[str, Any]:
    """Figures of one model, kept in `compared/` of the run: what was judged on as many openings is not judged again."""
    kept = context.run.path / "compared" / f"{stage}_{settings.utterances}{'' if text else '_no_text'}.json"
    if not kept.is_file():
        found = newly_judged(run, stage, context, settings, text)
        kept.write_text(json.dumps(found, indent=1) + "\n")
    return json.loads(kept.read_text())


def newly_judged(
    run: CodeRunConfig, stage: str, context: StageContext, settings: JudgeSettings, text: bool
) -> dict[str, Any]:
    """The same, by loading the model and letting it speak."""
    system = run.replace(lm=stage).load(context)
    codes = CodesJudge().judge(system, context, settings)
    (context.run.path / "compared").mkdir(exist_ok=True)
    for sound in codes.sounds:
        write_wav(context.run.path / "compared" / f"{stage}_{sound.name}.wav", sound.samples, sound.rate_hz)
    if not text:
        return codes.figures["codes"]
    weights = {"whisper": str(WEIGHTS / "whisper-base"), "text_lm": str(WEIGHTS / "smollm2-135m-instruct")}
    read = GenerationJudge(name=f"generation_{stage}", samples=1, **weights).judge(system, context, settings)
    return {**codes.figures["codes"], "text": read.figures[f"generation_{stage}"]}


def row_of(one: dict[str, Any]) -> dict[str, float | None]:
    """What of it goes into the table; how well books agree is told as a share of what was recorded."""
    text, agreement = one.get("text", {}).get(MADE, {}), one["agreement"]
    return {
        "nats": one["nats"]["all"]["model"],
        "agreement": agreement["made"] / agreement["recorded"],
        "gen_ppl": text.get("gen_ppl"),
        "vert": text.get("vert"),
        **one["scheme"],
        "seconds_per_second": one["seconds_per_second"],
    }


def main() -> None:
    """Judge every model, write figures, plot and table."""
    asked = options()
    folder = RunFolder(asked.run)
    run = read_run_config(folder)
    assert isinstance(run, CodeRunConfig), "not a run of codes"
    context = StageContext(folder, run.corpus, asked.data_dir, progress=False)
    settings = JudgeSettings(utterances=asked.utterances)
    figures: dict[str, dict[str, Any]] = {}
    for scheme, stages in models(run, asked.schemes).items():
        for stage in stages:
            try:
                figures.setdefault(scheme, {})[stage] = judged(run, stage, context, settings, not asked.no_text)
            except UserError as error:
                print(f"{stage} is left out: {error}")
    rows = {scheme: [row_of(one) for one in found.values()] for scheme, found in figures.items() if found}
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "figures.json").write_text(json.dumps({"table": rows, "models": figures}, indent=1) + "\n")
    points = {}
    for scheme, found in rows.items():
        nats = [row["nats"] for row in found]
        agreement = float(np.mean([row["agreement"] for row in found]))
        points[scheme] = (agreement, float(np.mean(nats)), (min(nats), max(nats)))
    words = "agreement of books in what is made (1: as recorded)", "nats per code", "Held-out speech"
    plot_points(asked.out / "quality.png", points, *words)
    print("| | " + " | ".join(head for _, head in COLUMNS) + " |\n|---" + "|---:" * len(COLUMNS) + "|")
    for scheme, found in rows.items():
        print(f"| {scheme} | " + " | ".join(over_seeds(row[name] for row in found) for name, _ in COLUMNS) + " |")
    first = next(iter(next(iter(figures.values())).values()))
    print(f"n-grams: {first['nats']['all']}; agreement, recorded: {first['agreement']['recorded']:.3f}")
    if "text" in first:
        recorded = first["text"][RECORDED]
        print(f"recorded rests: GenPPL {recorded['gen_ppl']:.1f}, VERT {recorded['vert']}")


if __name__ == "__main__":
    main()
