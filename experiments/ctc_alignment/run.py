"""Word times from a small CTC model, held against the times that the synthetic world knows.

    python experiments/ctc_alignment/run.py runs/ctc_alignment

Half an hour of the world, a stage of CTC over characters, then on the held-out sentences: the character error rate of
greedy decoding, and the distance (ms) of every word's start and end by forced alignment from the true ones. Two other
ways to place words are measured beside it: words spread over the utterance by their number of characters, which hears
nothing, and the alignment moved by its median error on the dev split. Leaves `figures.json` beside this file, or in
`--out`.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from slm_jax.data.corpus import WorldConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.encoders.ssl_presets import log_mel_tiny
from slm_jax.evaluation.ctc import CTCReader
from slm_jax.token_compression.word_times import WordTimes, word_slices
from slm_jax.training.gradient_stage import trained
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.pre.ctc import CTCStageConfig
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import RunConfig, StageContext, run_stages

EDGES = ("start", "end")
Edges = dict[str, np.ndarray]
"""Starts and ends (seconds) of all words of a split, laid end to end."""


def options() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where prepared corpora are kept")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where the figures go")
    parser.add_argument("--quick", action="store_true", help="a few steps on a minute of speech")
    return parser.parse_args()


def recipe(quick: bool) -> RunConfig:
    """The corpus and the one stage."""
    stage = CTCStageConfig(
        name="ctc",
        encoder=log_mel_tiny(),
        longest_s=4.0,
        longest_text=64,
        train=TrainConfig(steps=3 if quick else 1200, evaluate_every=200),
        batches=PipelineConfig(batch=8),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=0 if quick else 100, weight_decay=0.01),
    )
    corpus = WorldConfig(hours=0.02 if quick else 0.5, processes=1)
    return RunConfig(name="ctc_alignment", corpus=corpus, stages=(stage,))


def true_edges(items: list[dict[str, Any]]) -> Edges:
    """What the world knows."""
    return {edge: np.concatenate([item[f"word_{edge}_s"] for item in items]) for edge in EDGES}


def found_edges(times: list[WordTimes]) -> Edges:
    """What was found."""
    return {edge: np.concatenate([getattr(one, f"{edge}_s") for one in times]) for edge in EDGES}


def spread_words(items: list[dict[str, Any]], reader: CTCReader) -> list[WordTimes]:
    """Words spread over the utterance by their number of characters, spaces counted."""
    found, tokenizer = [], reader.example.tokenizer.make()
    for item in items:
        text = reader.example.plain(item["text"])
        words, slices = word_slices(text, tokenizer)
        start_s, end_s = (slices * item["seconds"] / len(text)).T
        found.append(WordTimes(words, start_s, end_s))
    return found


def distances(found: Edges, true: Edges, inner: np.ndarray) -> dict[str, dict[str, float]]:
    """Of starts, ends, and ends without the last of each utterance (`inner`), in ms.

    Median and 90th percentile of the distance, median error with its sign, share of distances up to 50 ms.
    """
    error_ms = {edge: 1000 * (found[edge] - true[edge]) for edge in EDGES}
    error_ms["end_but_last"] = error_ms["end"][inner]
    return {edge: spread_of(values) for edge, values in error_ms.items()}


def spread_of(error_ms: np.ndarray) -> dict[str, float]:
    """The figures of one kind of edge."""
    distance = np.abs(error_ms)
    return {
        "median_ms": round(float(np.median(distance)), 1),
        "p90_ms": round(float(np.quantile(distance, 0.9)), 1),
        "median_with_sign_ms": round(float(np.median(error_ms)), 1),
        "within_50_ms": round(float((distance <= 50).mean()), 3),
    }


def aligned(reader: CTCReader, items: list[dict[str, Any]]) -> Edges:
    """Forced alignment; every text has to fit and to have the world's words."""
    times = reader.times(items)
    for one, item in zip(times, items, strict=True):
        if one is None or list(one.words) != item["words"]:
            raise SystemExit(f"the words of {item['id']} were not found: {item['text']!r}")
    return found_edges(times)


def measured(reader: CTCReader, dev: list[dict[str, Any]], test: list[dict[str, Any]]) -> dict[str, Any]:
    """All figures."""
    true, found = true_edges(test), aligned(reader, test)
    known, on_dev = true_edges(dev), aligned(reader, dev)
    inner = np.concatenate([np.arange(len(item["words"])) < len(item["words"]) - 1 for item in test])
    shift = {edge: float(np.median(on_dev[edge] - known[edge])) for edge in EDGES}
    return {
        "utterances": len(test),
        "words": len(true["start"]),
        **reader.figures(test),
        "alignment": distances(found, true, inner),
        "alignment_moved_by_dev": distances({edge: found[edge] - shift[edge] for edge in EDGES}, true, inner),
        "dev_shift_ms": {edge: round(1000 * shift[edge], 1) for edge in EDGES},
        "spread_by_characters": distances(found_edges(spread_words(test, reader)), true, inner),
    }


def main() -> None:
    """Train, or go on, and measure."""
    asked = options()
    config = recipe(asked.quick)
    context = StageContext(RunFolder(asked.run), config.corpus, asked.data_dir, say=print)
    for name, seconds in run_stages(config, context):
        print(f"{name}: {'done before' if seconds is None else f'{seconds:.0f} s'}", flush=True)
    stage, variables = trained(context.finished("ctc"))
    assert isinstance(stage, CTCStageConfig)
    reader = CTCReader(stage.model(), variables, stage.example, stage.batches.batch)
    dev, test = ([source[i] for i in range(len(source))] for source in map(context.source, ("dev", "test")))
    figures = measured(reader, dev, test)
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
