"""Warm against cold: one decoder, one set of unit tokens, with and without the weights of a text model.

    python experiments/fetch/real_weights.py data/real_weights --models stories15m
    python experiments/twist_warm_start/compare.py runs/twist_warm_start

    cold         drawn anew
    warm         the text model's body, a new table with the spread of the old one (TWIST)
    first_rows   the text model's body, the first rows of its table (what resizing in transformers leaves)
    permuted     as warm, but the values of every weight in random order: the same spread without what was learnt

Every arm sees the same batches in the same order, at each of the learning rates. The stages are those of the tiny GSLM;
a run folder that has its units already can lend them (`--units-of runs/demo`). Stopped, it goes on where it was. Leaves
`figures.json`, `curves.png` and `tables.md` beside this file, or in `--out`.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slm_jax.assemblies.phonetic_tokenizer import MFCCFeaturesConfig
from slm_jax.checkpoints.model_folder import save_model
from slm_jax.core.trees import count_parameters, map_by_path
from slm_jax.data.corpus import WorldConfig
from slm_jax.data.records import RecordSource
from slm_jax.evaluation.language_model import fit_ngram
from slm_jax.evaluation.scoring import nats_per_token
from slm_jax.systems.speech import gslm
from slm_jax.training.gradient_stage import trained
from slm_jax.training.loop import TrainConfig
from slm_jax.training.metrics import read_metrics
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.pre.frame_units import FrameUnitsConfig
from slm_jax.training.pre.unit_lm import UnitLMConfig, unit_vocabulary
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import RunConfig, StageConfig, StageContext, run_stages
from slm_jax.training.warm_start import decoder_in, load_decoder

ARMS = ("cold", "warm", "first_rows", "permuted")
NGRAMS = {"unigram": 1, "bigram": 2, "trigram": 3}
SPLITS = ("train", "dev", "test")


def options() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("--weights", type=Path, default=Path("data/real_weights/stories15m"), help="the text model")
    parser.add_argument("--units-of", type=Path, help="a run folder of the tiny GSLM whose units are taken over")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--rates", nargs="+", type=float, default=[5e-4, 1.5e-3], help="learning rates")
    parser.add_argument("--steps", type=int, default=200, help="steps of 4 rows of 256 tokens")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where prepared corpora are kept")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where the results go")
    parser.add_argument("--quick", action="store_true", help="four steps on a minute of speech and units of MFCC")
    return parser.parse_args()


def recipe(chosen: argparse.Namespace) -> RunConfig:
    """Units, then a language model per arm and rate."""
    base = gslm.tiny()
    units = [base.stage(name) for name in ("mfcc", "hubert", "units")]
    corpus = base.corpus
    if chosen.quick:
        corpus = WorldConfig(hours=0.03, processes=1, dev_share=0.2, test_share=0.2)
        mfcc = MFCCFeaturesConfig()
        units = [FrameUnitsConfig(name="units", features=mfcc, kmeans=base.stage("mfcc").kmeans.replace(clusters=16))]
    arms = [arm_stage(arm, rate, base.stage("lm"), units[-1], chosen) for rate in chosen.rates for arm in chosen.arms]
    return RunConfig(name="twist_warm_start", corpus=corpus, stages=(*units, *arms))


def arm_stage(arm: str, rate: float, lm: StageConfig, units: StageConfig, chosen: argparse.Namespace) -> UnitLMConfig:
    """The language model of one arm."""
    steps = 4 if chosen.quick else chosen.steps
    vocabulary = unit_vocabulary(units.clusters).padded_size(8)
    source = {"cold": None, "permuted": str(chosen.run / "permuted")}.get(arm, str(chosen.weights))
    return lm.replace(
        name=arm_name(arm, rate),
        model=decoder_in(str(chosen.weights)).replace(vocabulary=vocabulary, dropout=0.1, max_positions=None),
        start_from=source,
        table="first_rows" if arm == "first_rows" else "fresh",
        train=TrainConfig(steps=steps, evaluate_every=max(1, steps // 20), log_every=10),
        optimizer=OptimizerConfig(
            learning_rate=rate, warmup_steps=min(20, steps // 2), betas=(0.9, 0.95), weight_decay=0.1
        ),
    )


def arm_name(arm: str, rate: float) -> str:
    """Name of an arm's stage, such as `warm_0.0005`."""
    return f"{arm}_{rate:g}"


def permute(weights: Path, folder: Path) -> None:
    """A model folder in which the values within every layer of every weight stand in random order."""
    if folder.exists():
        return
    config, params = load_decoder(str(weights))
    draws = np.random.default_rng(0)

    def shuffled(path: str, leaf: Any) -> np.ndarray:
        rows = np.asarray(leaf).reshape(leaf.shape[0] if "layers" in path else 1, -1)
        return draws.permuted(rows, axis=1).reshape(leaf.shape)

    save_model(folder, config, map_by_path(shuffled, params), {"permuted": str(weights)})


def lend_units(giver: Path, run: Path) -> None:
    """Copy the finished stages up to the units; a stage of other settings is refused when it is looked at."""
    for name in ("mfcc", "hubert", "units"):
        target = RunFolder(run).stage(name).path
        if not target.exists():
            shutil.copytree(RunFolder(giver).stage(name).path, target)


def unit_tables(context: StageContext) -> dict[str, list[np.ndarray]]:
    """Units without repetitions of every utterance, by split."""
    folder = context.finished("units")
    sources = {split: RecordSource(FrameUnitsConfig.records(folder, split)) for split in SPLITS}
    return {split: [source[i]["runs"] for i in range(len(source))] for split, source in sources.items()}


def ngram_figures(tables: dict[str, list[np.ndarray]], units: int) -> dict[str, float]:
    """Nats per unit of smoothed n-grams on the test split."""

    def score(order: int) -> float:
        made = fit_ngram(tables["train"], units, order, tune_on=tables["dev"], count_end=True)
        return made.nats_per_unit(tables["test"])

    return {name: score(order) for name, order in NGRAMS.items()}


def arm_figures(arm: str, rate: float, context: StageContext, test: Sequence[np.ndarray]) -> dict[str, Any]:
    """The curve on the dev split and the score on the test split of one arm."""
    folder = context.finished(arm_name(arm, rate))
    stage, variables = trained(folder)
    params = variables["params"]
    units = FrameUnitsConfig.of(context.finished(stage.units))
    text = stage.example(unit_vocabulary(units.clusters))
    lines = [line for line in read_metrics(folder.path) if "evaluate/nats_per_unit" in line]
    return {
        "arm": arm,
        "rate": rate,
        "tokens": [line["step"] * stage.batches.batch * stage.row_length for line in lines],
        "dev": [line["evaluate/nats_per_unit"] for line in lines],
        "test": nats_per_token(stage.decoder(folder).make(), params, [text.sequence(row) for row in test]),
        "parameters": count_parameters(params),
    }


def tokens_to_reach(arm: dict[str, Any], level: float) -> int | None:
    """Tokens after which the dev loss is at or below `level`; None when it never is."""
    return next((tokens for tokens, dev in zip(arm["tokens"], arm["dev"], strict=True) if dev <= level), None)


def tables(figures: dict[str, Any]) -> str:
    """Markdown: one row per arm and rate, and the n-grams."""
    arms = figures["arms"]
    cold = [arm["dev"][-1] for arm in arms if arm["arm"] == "cold"]
    level = min(cold) if cold else min(arm["dev"][-1] for arm in arms)
    lines = [
        f"| arm | rate | dev, a quarter in | dev, half in | dev, end | test | tokens to a dev loss of {level:.3f} |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for arm in arms:
        quarter, half = (arm["dev"][max(0, len(arm["dev"]) * part // 4 - 1)] for part in (1, 2))
        values = " | ".join(f"{value:.3f}" for value in (quarter, half, arm["dev"][-1], arm["test"]))
        lines.append(f"| {arm['arm']} | {arm['rate']:g} | {values} | {tokens_to_reach(arm, level) or 'not reached'} |")
    ngrams = ", ".join(f"{name} {value:.3f}" for name, value in figures["ngrams"].items())
    return "\n".join([*lines, "", f"Nats per unit. On the test split: {ngrams}."])


def draw(figures: dict[str, Any], path: Path) -> None:
    """Dev loss over training tokens, a panel per learning rate."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rates = sorted({arm["rate"] for arm in figures["arms"]})
    picture, panels = pyplot.subplots(1, len(rates), figsize=(5 * len(rates), 3.6), sharey=True, squeeze=False)
    for panel, rate in zip(panels[0], rates, strict=True):
        for arm in (arm for arm in figures["arms"] if arm["rate"] == rate):
            panel.plot(np.asarray(arm["tokens"]) / 1000, arm["dev"], label=arm["arm"])
        panel.axhline(figures["ngrams"]["bigram"], color="grey", linestyle=":", label="bigram (test)")
        top = 1.2 * figures["ngrams"]["unigram"]  # or the first steps of a warm start hide all that follows
        panel.set(title=f"learning rate {rate:g}", xlabel="thousand tokens seen", ylim=(None, top))
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("dev nats per unit")
    panels[0][-1].legend()
    picture.tight_layout()
    picture.savefig(path, dpi=110)
    pyplot.close(picture)


def write(chosen: argparse.Namespace, config: RunConfig, context: StageContext) -> None:
    """Collect what the stages left, and leave figures, picture and tables."""
    by_split, units = unit_tables(context), FrameUnitsConfig.of(context.finished("units")).clusters
    pairs = [(arm, rate) for rate in chosen.rates for arm in chosen.arms]
    figures = {
        "weights": chosen.weights.name,
        "train_units": int(sum(map(len, by_split["train"]))),
        "ngrams": ngram_figures(by_split, units),
        "arms": [arm_figures(arm, rate, context, by_split["test"]) for arm, rate in pairs],
    }
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    draw(figures, chosen.out / "curves.png")
    (chosen.out / "tables.md").write_text(tables(figures) + "\n", encoding="utf-8")
    print(tables(figures))


def main() -> None:
    """Train every arm that is not done yet, then compare."""
    chosen = options()
    if "permuted" in chosen.arms:
        permute(chosen.weights, chosen.run / "permuted")
    if chosen.units_of is not None:
        lend_units(chosen.units_of, chosen.run)
    config = recipe(chosen)
    context = StageContext(RunFolder(chosen.run), config.corpus, chosen.data_dir)
    for name, seconds in run_stages(config, context):
        print(f"stage {name}: {'was done already' if seconds is None else f'{seconds:.0f} s'}", flush=True)
    write(chosen, config, context)


if __name__ == "__main__":
    main()
