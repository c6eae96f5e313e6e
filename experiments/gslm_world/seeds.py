"""The long run's encoder again with other seeds: is its lead over MFCC that of the recipe or of one draw?

    python experiments/gslm_world/seeds.py runs/gslm_world_seeds --seeds 1 2

For each seed the stages of `configs/speech/gslm_world.py` up to the units, with other parameters at the start, other
batches, crops and masks, and another start of k-means for the targets; the corpus stays. Then the thorough comparison
of units with three seeds of k-means. About a quarter of an hour per seed on two cores; stopped, it goes on where it
was. Leaves `encoder_seeds.json` beside this file, or in `--out`, and prints a table.
"""

import argparse
import json
import runpy
from pathlib import Path
from typing import Any

from slm_jax.data.corpus import WorldConfig
from slm_jax.evaluation.section import JudgeSettings
from slm_jax.judges.units import compare_units
from slm_jax.training.gradient_stage import GradientStageConfig
from slm_jax.training.pre.frame_units import FrameUnitsConfig
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import RunConfig, StageConfig, StageContext, run_stages

CONFIG = Path(__file__).parents[2] / "configs" / "speech" / "gslm_world.py"
FIGURES = ("phone_purity", "cluster_purity", "pnmi")


def options() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="a folder for one run folder per seed")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where prepared corpora are kept")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where the results go")
    parser.add_argument("--quick", action="store_true", help="a few steps on a minute or two of speech")
    return parser.parse_args()


def seeded(stage: StageConfig, seed: int) -> StageConfig:
    """The stage with another seed wherever it draws."""
    if isinstance(stage, GradientStageConfig):
        return stage.replace(train=stage.train.replace(seed=seed), batches=stage.batches.replace(seed=seed))
    assert isinstance(stage, FrameUnitsConfig)
    return stage.replace(kmeans=stage.kmeans.replace(seed=seed))


def recipe(seed: int, quick: bool) -> RunConfig:
    """The stages up to the units."""
    whole = runpy.run_path(str(CONFIG))["config"]
    names = [stage.name for stage in whole.stages]
    stages = tuple(seeded(stage, seed) for stage in whole.stages[: names.index("units") + 1])
    if not quick:
        return RunConfig(name=f"gslm_world_seed_{seed}", corpus=whole.corpus, stages=stages)
    short = [s.shortened() if isinstance(s, GradientStageConfig) else s for s in stages]
    return RunConfig(name=f"gslm_world_seed_{seed}", corpus=WorldConfig(hours=0.03), stages=tuple(short))


def judged(seed: int, asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Train one seed, or go on with it, and compare its units with those of MFCC."""
    config = recipe(seed, asked.quick)
    context = StageContext(RunFolder(asked.runs / f"seed_{seed}"), config.corpus, asked.data_dir, say=print)
    for name, seconds in run_stages(config, context):
        print(f"seed {seed}, {name}: {'done before' if seconds is None else f'{seconds:.0f} s'}", flush=True)
    settings = JudgeSettings(seeds=1 if asked.quick else 3, thorough=not asked.quick)
    units = FrameUnitsConfig.of(context.finished("units"))
    return [one.to_json() for one in compare_units(context, units, settings)]


def lead(rows: list[dict[str, Any]], figure: str) -> float:
    """The least that the encoder is ahead of the better MFCC under any treatment, in means over seeds of k-means."""
    treatments = {(row["normalise"], row["smooth"]) for row in rows}
    leads = []
    for treatment in treatments:
        same = [row for row in rows if (row["normalise"], row["smooth"]) == treatment]
        mfcc = [row[figure] for row in same if row["feature"].startswith("mfcc")]
        leads += [row[figure] - max(mfcc) for row in same if not row["feature"].startswith("mfcc")]
    return min(leads)


def main() -> None:
    """Every seed, one after the other."""
    asked = options()
    found = {str(seed): judged(seed, asked) for seed in asked.seeds}
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "encoder_seeds.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print("least lead over the better MFCC under equal treatment")
    for seed, rows in found.items():
        print(f"seed {seed}: " + ", ".join(f"{figure} {lead(rows, figure):+.3f}" for figure in FIGURES))


if __name__ == "__main__":
    main()
