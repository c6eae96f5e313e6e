"""What tokens of pitch and style tell of voices that were never trained on, beside controls.

    python -m slm_jax train experiments/expressive_tokens/config.py --workdir runs/expressive_tokens
    python experiments/expressive_tokens/run.py runs/expressive_tokens

Leaves `figures.json` beside this file or in `--out`. Pitch: F0 that the codes give back, against what was tracked;
beside it the same of other utterances' codes (as long as both go), and of 64 classes of the mean ln F0 of each code's
time. Style: how much tokens tell of each label, and how often a label is guessed right from them by what they met most
in the training speech; beside it the same of tokens that were dealt out anew among the utterances.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from slm_jax.assemblies.pitch_tokenizer import PitchTokenizer
from slm_jax.audio.pitch_features import PitchFeaturesConfig
from slm_jax.data.examples.labelled_speech import LabelsConfig
from slm_jax.data.records import RecordSource
from slm_jax.evaluation.pitch_codes import code_use, pitch_kept
from slm_jax.evaluation.units import count_pairs, score_units
from slm_jax.training.pre.pitch import PitchStageConfig
from slm_jax.training.pre.pitch_codec import PitchCodecStageConfig
from slm_jax.training.pre.style import StyleStageConfig
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import StageContext, read_run_config
from slm_jax.training.token_stage import token_stage

Rows = list[np.ndarray]
CLASSES = 64
LOG = PitchFeaturesConfig()


def options() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where prepared corpora are kept")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where the figures go")
    return parser.parse_args()


def tokens(context: StageContext, stage: str, split: str) -> Rows:
    """The only column of a stage's table."""
    config = token_stage(context, stage)
    table, column = RecordSource(config.records(context.finished(stage), split)), config.spec(context).columns[0]
    return [table[i][column] for i in range(len(table))]


def pitch_figures(context: StageContext) -> dict[str, Any]:
    """Codes of held-out voices, and what their F0 is."""
    stage = PitchCodecStageConfig.of(context.finished("pitch_codec"))
    tokenizer: PitchTokenizer = token_stage(context, "pitch_codes").tokenizer(context)
    test, codes = context.source("test"), tokens(context, "pitch_codes", "test")
    tracker = PitchStageConfig.of(context.finished(stage.pitch))
    tracked = dict(tracker.tracks(test, context))
    real = [tracked[i]["f0_hz"] for i in range(len(test))]
    known = RecordSource(context.finished(stage.pitch).path / "f0" / "train")
    given = {"codes": codes, "codes of other utterances": codes[1:] + codes[:1]}
    made = {
        name: [tokenizer.decode(ids, stage.model.features.mean(track)) for ids, track in zip(rows, real, strict=True)]
        for name, rows in given.items()
    }
    made["64 classes of the mean"] = classes_of_means([known[i]["f0_hz"] for i in range(len(known))], real)
    use = code_use(codes, stage.model.codes)
    seconds = sum(len(track) for track in real) * tracker.pitch.hop_s
    runs = sum(int((ids[1:] != ids[:-1]).sum()) + 1 for ids in codes)
    return {
        "utterances": len(real),
        "minutes": seconds / 60,
        "codes used": use.used,
        "perplexity": use.perplexity,
        "codes a second": sum(map(len, codes)) / seconds,
        "of them not as the one before": runs / seconds,
        "kept": {name: pitch_kept(tracks, real)._asdict() for name, tracks in made.items()},
    }


def classes_of_means(known: Rows, real: Rows, hop: int = 16) -> Rows:
    """F0 that 63 classes of equally many means of ln F0 and one of silence give back, each for `hop` values."""
    edges = np.quantile(np.concatenate([means_of(track, hop)[1] for track in known]), np.arange(1, CLASSES - 1) / 63)
    middles = np.concatenate([edges[:1], (edges[1:] + edges[:-1]) / 2, edges[-1:]])
    made = []
    for track in real:
        voiced, means = means_of(track, hop)
        hz = np.zeros(len(voiced))
        hz[voiced] = np.exp(middles[np.searchsorted(edges, means)] + LOG.mean(track))
        made.append(np.repeat(hz, hop).astype(np.float32))
    return made


def means_of(track: np.ndarray, hop: int) -> tuple[np.ndarray, np.ndarray]:
    """Which stretches are voiced in half of their values, and the mean ln F0 of those, less that of the track."""
    cut = track[: len(track) // hop * hop].reshape(-1, hop)
    voiced = (cut > 0).sum(1) * 2 >= hop
    logs = np.log(np.where(cut > 0, cut, 1.0)).sum(1) / np.maximum((cut > 0).sum(1), 1)
    return voiced, (logs - LOG.mean(track))[voiced]


def style_figures(context: StageContext, name: str, labels: LabelsConfig) -> dict[str, Any]:
    """What the tokens of stage `name` tell of each label, and of all together."""
    size = token_stage(context, name).spec(context).units
    rows = {split: tokens(context, name, split) for split in ("train", "test")}
    items = {split: context.source(split) for split in rows}
    found = {}
    for field, values in [*zip(labels.fields, labels.values, strict=True), ("all", labels.names)]:
        single = labels if field == "all" else LabelsConfig(fields=(field,), values=(values,))
        said = {split: [single.class_of(items[split][i]) for i in range(len(rows[split]))] for split in rows}
        guess = table_of(rows["train"], said["train"], size, single.count).argmax(1)
        order = np.random.default_rng(0).permutation(len(rows["test"]))
        dealt = [rows["test"][i] for i in order]
        found[field] = {
            "values": single.count,
            **told(rows["test"], said["test"], guess, single.count),
            "dealt out anew": told(dealt, said["test"], guess, single.count),
        }
    return {"tokens": size, "perplexity": code_use(rows["test"], size).perplexity, "labels": found}


def table_of(rows: Rows, labels: list[int], size: int, classes: int) -> np.ndarray:
    """How often each token meets each label."""
    return count_pairs(
        [(row, np.full(len(row), label)) for row, label in zip(rows, labels, strict=True)], size, classes
    )


def told(rows: Rows, labels: list[int], guess: np.ndarray, classes: int) -> dict[str, float]:
    """Share of a label's entropy that a token tells; how often it is guessed, from a token and from an utterance's."""
    counts = table_of(rows, labels, len(guess), classes)
    single = float(np.take_along_axis(counts, guess[:, None], 1).sum() / counts.sum())
    voted = [np.bincount(guess[row], minlength=classes).argmax() for row in rows]
    whole = float(np.mean([vote == label for vote, label in zip(voted, labels, strict=True)]))
    return {"information": score_units(counts).pnmi, "of a token": single, "of an utterance": whole}


def main() -> None:
    """Measure, write, show."""
    asked = options()
    run = RunFolder(asked.run)
    context = StageContext(run, read_run_config(run).corpus, asked.data_dir, progress=False)
    labels = StyleStageConfig.of(context.finished("style")).labels
    sources = {split: context.source(split) for split in ("train", "test")}
    speakers = {split: {source[i]["speaker"] for i in range(len(source))} for split, source in sources.items()}
    figures = {
        "speakers": {split: len(names) for split, names in speakers.items()},
        "heard in both": len(speakers["train"] & speakers["test"]),
        "pitch": pitch_figures(context),
        "style": {name: style_figures(context, name, labels) for name in ("style_classes", "style_clusters")},
    }
    text = json.dumps(figures, indent=1)
    (asked.out / "figures.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
