"""Every layout of a run beside the others: words that are written, words that are spoken, lateness.

    python experiments/fetch/real_weights.py weights --models whisper-base
    python experiments/layouts/compare.py runs/layouts
    python experiments/layouts/compare.py runs/layouts --layouts aligned after --utterances 8

All hear and speak the same held-out sentences. Leaves `figures.json` beside this file or in `--out`, and figures and
sounds of every model in `compared/` of the run: what was judged once is not judged again. Models that are not trained
yet are left out. `SLM_JAX_REAL_WEIGHTS` names the folder of the weights.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from slm_jax.audio.files import write_wav
from slm_jax.core.errors import UserError
from slm_jax.evaluation.intervals import over_seeds
from slm_jax.evaluation.section import JudgeSettings
from slm_jax.judges.text_codes import TextCodesJudge
from slm_jax.systems.recipes.code_run import TextCodeRunConfig
from slm_jax.training.metrics import read_metrics
from slm_jax.training.pre.text_code_lm import TextCodeLMConfig
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import StageContext, read_run_config

WEIGHTS = Path(os.environ.get("SLM_JAX_REAL_WEIGHTS", "weights"))
DEV = ("nats_per_text", "nats_per_mark", "nats_per_code")


def options() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where prepared corpora are kept")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where the figures go")
    parser.add_argument("--utterances", type=int, default=20, help="held-out sentences")
    parser.add_argument("--layouts", nargs="*", help="whose models are compared, by name; all unless it is said")
    return parser.parse_args()


def judged(run: TextCodeRunConfig, stage: str, context: StageContext, settings: JudgeSettings) -> dict[str, Any]:
    """Figures of one model, judged unless they are in `compared/` of the run."""
    kept = context.run.path / "compared" / f"{stage}_{settings.utterances}.json"
    if not kept.is_file():
        system = run.replace(lm=stage).load(context)
        judge = TextCodesJudge(whisper=str(WEIGHTS / "whisper-base"))
        section = judge.judge(system, context, settings)
        kept.parent.mkdir(exist_ok=True)
        for sound in section.sounds:
            write_wav(kept.parent / f"{stage}_{sound.name}.wav", sound.samples, sound.rate_hz)
        last = [line for line in read_metrics(context.run.stage(stage).path) if "evaluate/nats_per_text" in line][-1]
        dev = {name: last[f"evaluate/{name}"] for name in DEV}
        texts = [list(row) for row in section.tables[1].rows]
        kept.write_text(json.dumps({**section.figures[judge.name], "dev": dev, "texts": texts}, indent=1) + "\n")
    return json.loads(kept.read_text())


def row_of(one: dict[str, Any]) -> dict[str, float | None]:
    """What of it goes into the table."""
    words = {f"WER {name}": one[name]["wer"] if name in one else None for name in ("heard", "spoken", "codec")}
    other = {"WER heard, other text": one["heard"]["shuffled_wer"] if "heard" in one else None}
    return {**words, **other, **one["dev"], **{f"{name}, frames late": count for name, count in one["late"].items()}}


def main() -> None:
    """Judge every model, write figures and table."""
    asked = options()
    folder = RunFolder(asked.run)
    run = read_run_config(folder)
    assert isinstance(run, TextCodeRunConfig), "not a run of text and codes"
    context = StageContext(folder, run.corpus, asked.data_dir, progress=False)
    figures: dict[str, dict[str, Any]] = {}
    for stage in run.stages:
        layout = stage.name.rpartition("_")[0]
        if isinstance(stage, TextCodeLMConfig) and (not asked.layouts or layout in asked.layouts):
            try:
                found = judged(run, stage.name, context, JudgeSettings(utterances=asked.utterances))
                figures.setdefault(layout, {})[stage.name] = found
            except UserError as error:
                print(f"{stage.name} is left out: {error}")
    rows = {layout: [row_of(one) for one in found.values()] for layout, found in figures.items()}
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "figures.json").write_text(json.dumps({"table": rows, "models": figures}, indent=1) + "\n")
    columns = list(next(iter(rows.values()))[0])
    print("| | " + " | ".join(columns) + " |\n|---" + "|---:" * len(columns) + "|")
    for layout, found in rows.items():
        print(f"| {layout} | " + " | ".join(over_seeds(row[name] for row in found) for name in columns) + " |")


if __name__ == "__main__":
    main()
