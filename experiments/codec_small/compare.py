"""The codecs of a run beside Opus and Codec2: known and unknown speakers, a language and a room that it never heard.

    python experiments/codec_small/compare.py runs/codec_small
    python experiments/codec_small/compare.py runs/codec_small --stages spectral transposed --utterances 8
    python experiments/codec_small/compare.py runs/codec_world --utterances 16 --out runs/codec_world/compared

A run that knows the world alone (`world.py`) is compared on its held-out sentences alone.

Every coder hears the same recordings. Opus is written by soundfile at its two lowest rates, Codec2 by `c2enc` (Debian's
package codec2; left out where it is missing). Their bitrates are those of one file of all recordings of a set, ours of
the codes. Whisper-base writes down what is left. Leaves `figures.json`, `quality.png`, `samples.json` beside this file
or in `--out`, and sounds in `compared/` of the run. `SLM_JAX_REAL_SPEECH` and `SLM_JAX_REAL_WEIGHTS` name the
folders of recordings and weights.
"""

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile

from slm_jax.assemblies.codec_tokenizer import CodecTokenizer
from slm_jax.audio.files import read_audio, resample, write_wav
from slm_jax.audio.plots import plot_lines
from slm_jax.data.corpus import PHONES, SeveralCorporaConfig, WorldConfig
from slm_jax.evaluation.codec import use_of
from slm_jax.evaluation.transcription import word_errors
from slm_jax.evaluation.units import count_pairs, frame_labels, score_units
from slm_jax.judges.codec import METRICS, scores
from slm_jax.serving.transcriber import Transcriber, load_transcriber
from slm_jax.training.held_out import waveform
from slm_jax.training.pre.codec import CodecStageConfig
from slm_jax.training.run_codec import run_codec
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import StageContext, read_run_config

SPEECH = Path(os.environ.get("SLM_JAX_REAL_SPEECH", "data/real_speech"))
WHISPER = Path(os.environ.get("SLM_JAX_REAL_WEIGHTS", "weights")) / "whisper-base"
RATE_HZ, GAP = 16_000, np.zeros(4_000, np.float32)
SCORED = 200
"""Sentences on which first books are held to phones."""
OPUS = {"Opus, lowest": 1.0, "Opus, next": 0.99}
CODEC2 = {"Codec2 700C": "700C", "Codec2 1200": "1200", "Codec2 3200": "3200"}


class Recordings(NamedTuple):
    """Waveforms at 16 kHz with what is said in them, in one language."""

    waveforms: list[np.ndarray]
    texts: list[str]
    language: str


Coded = tuple[list[np.ndarray], float]
"""Sound of each recording, and bits per second."""


def options() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where prepared corpora are kept")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where the figures go")
    parser.add_argument("--utterances", type=int, default=24, help="recordings of each set")
    parser.add_argument("--stages", nargs="*", help="whose codecs are compared; all unless it is said")
    return parser.parse_args()


def sets(context: StageContext, count: int) -> dict[str, Recordings]:
    """Four kinds of recordings that no training has heard; of a run that knows the world alone, its sentences."""
    if isinstance(context.corpus, WorldConfig):
        return {"world, held-out sentences": Recordings(*part(context, None, count), "en")}
    own = {name: part(context, name, count) for name in ("world", "czech")}
    read = [item for name in ("librivox", "jfk") for item in listed(name, 1.0, ("train", "dev", "test"))]
    return {
        "world, unknown speakers": Recordings(*own["world"], "en"),
        "Czech, held-out lines": Recordings(*own["czech"], "cs"),
        "Dutch, never heard": Recordings(*columns(listed("fillets-nl", 2.0, ("test",))[:count]), "nl"),
        "English read aloud, never heard": Recordings(*columns(read[:count]), "en"),
    }


def part(context: StageContext, name: str | None, count: int) -> tuple[list[np.ndarray], list[str]]:
    """Held-out items of one of the run's corpora (None: of its only one), two seconds or longer."""
    source = context.source("test")
    items = (source[place] for place in (range(len(source)) if name is None else context.places("test")[name]))
    long = [item for item in items if len(item["samples"]) >= 2 * context.corpus.rate_hz]
    return [waveform(item, context, RATE_HZ) for item in long[:count]], [item["text"] for item in long[:count]]


def listed(name: str, longer_than_s: float, splits: Sequence[str]) -> list[tuple[np.ndarray, str]]:
    """The recordings of a manifest."""
    manifest = SPEECH / name / "manifest.jsonl"
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    wanted = [row for row in rows if row["split"] in splits and row["duration"] >= longer_than_s]
    return [(read_audio(manifest.parent / row["audio_filepath"], rate_hz=RATE_HZ), row["text"]) for row in wanted]


def columns(items: Sequence[tuple[np.ndarray, str]]) -> tuple[list[np.ndarray], list[str]]:
    """Waveforms and texts apart."""
    return [one for one, _ in items], [text for _, text in items]


def ours(codec: CodecTokenizer, waveforms: Sequence[np.ndarray]) -> Coded:
    """A codec of the run."""
    return [codec.decode(codec.encode(one), len(one)) for one in waveforms], codec.bits_per_second


def opus(level: float, waveforms: Sequence[np.ndarray]) -> Coded:
    """One Opus file of all recordings."""
    whole = joined(waveforms)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "all.opus"
        soundfile.write(path, whole, RATE_HZ, format="OGG", subtype="OPUS", compression_level=level)
        made, bits = soundfile.read(path, dtype="float32")[0], 8 * path.stat().st_size
    return apart(made, waveforms), bits * RATE_HZ / len(whole)


def codec2(mode: str, waveforms: Sequence[np.ndarray]) -> Coded:
    """One Codec2 file of all recordings, at 8 kHz; what comes out late is moved back."""
    whole = joined(waveforms)
    with tempfile.TemporaryDirectory() as folder:
        raw, packed, out = (Path(folder) / name for name in ("in.raw", "packed", "out.raw"))
        raw.write_bytes((resample(whole, RATE_HZ, 8_000) * 32_000).astype(np.int16).tobytes())
        subprocess.run(["c2enc", mode, raw, packed], check=True, capture_output=True)
        subprocess.run(["c2dec", mode, packed, out], check=True, capture_output=True)
        made = np.frombuffer(out.read_bytes(), np.int16).astype(np.float32) / 32_000
        bits = 8 * packed.stat().st_size
    late = lateness(resample(made, 8_000, RATE_HZ), whole)
    return apart(resample(made, 8_000, RATE_HZ)[late:], waveforms), bits * RATE_HZ / len(whole)


def lateness(made: np.ndarray, whole: np.ndarray, step: int = 80, most: int = 20) -> int:
    """Samples by which `made` is late: where loudness agrees best, phase being the coder's own."""
    count = min(len(made), len(whole)) // step
    loud, other = (np.sqrt(np.square(x[: count * step].reshape(count, step)).mean(-1)) for x in (whole, made))
    agreement = [float((loud[: count - late] * other[late:]).sum()) for late in range(most)]
    return step * int(np.argmax(agreement))


def joined(waveforms: Sequence[np.ndarray]) -> np.ndarray:
    """All recordings with silence behind each."""
    return np.concatenate([piece for one in waveforms for piece in (one, GAP)])


def apart(whole: np.ndarray, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The recordings of such a sound."""
    ends = np.cumsum([len(one) + len(GAP) for one in waveforms])
    whole = np.pad(whole, (0, max(0, int(ends[-1]) - len(whole))))
    return [whole[end - len(GAP) - len(one) : end - len(GAP)] for one, end in zip(waveforms, ends, strict=True)]


def coders(run: Path, stages: Sequence[str]) -> Iterator[tuple[str, Callable[[Sequence[np.ndarray]], Coded]]]:
    """Everything that is compared, by name."""
    for stage in stages:
        most = run_codec(run, stage).config.quantizer.books
        for books in [*(2**power for power in range(4) if 2**power < most), most]:
            yield f"{stage}, {books} books", partial(ours, run_codec(run, stage, books))
    for name, level in OPUS.items():
        yield name, partial(opus, level)
    for name, mode in CODEC2.items() if shutil.which("c2enc") else ():
        yield name, partial(codec2, mode)


def measured(made: Sequence[np.ndarray], of: Recordings, transcriber: Transcriber) -> tuple[dict[str, Any], list[str]]:
    """Figures of one coder on one set, and what Whisper wrote down."""
    how = transcriber.decoding.replace(language=of.language)
    said = [one.text for one in transcriber.transcribe([np.asarray(one, np.float32) for one in made], how)]
    wer = word_errors(of.texts, said, of.language).rate
    return {**scores(of.waveforms, made, RATE_HZ), "wer": wer}, said


def compared(asked: argparse.Namespace, found: dict[str, Recordings]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Figures and transcripts: set -> coder -> what there is."""
    transcriber = load_transcriber(WHISPER)
    figures: dict[str, Any] = {name: {} for name in found}
    samples: dict[str, Any] = {name: {"said": of.texts[:3]} for name, of in found.items()}
    for name, of in found.items():
        figures[name]["original"], said = measured(of.waveforms, of, transcriber)
        samples[name]["original"] = said[:3]
    for coder, code in coders(asked.run, asked.stages):
        for name, of in found.items():
            started = time.perf_counter()
            made, bits = code(of.waveforms)
            seconds = (time.perf_counter() - started) / (sum(map(len, of.waveforms)) / RATE_HZ)
            told, said = measured(made, of, transcriber)
            figures[name][coder] = {"bits_per_second": bits, **told, "real_time_factor": seconds}
            samples[name][coder] = said[:3]
            kept(asked.run / "compared", name, coder, made[0])
            print(f"{name}: {coder}: {bits / 1000:.2f} kb/s, STOI {told['stoi']:.3f}, WER {told['wer']:.3f}")
    return figures, samples


def kept(folder: Path, name: str, coder: str, made: np.ndarray) -> None:
    """The first recording of a set as a coder makes it, to be listened to."""
    folder.mkdir(exist_ok=True)
    plain = "".join(c if c.isalnum() else "_" for c in f"{name}-{coder}")
    write_wav(folder / f"{plain}.wav", np.asarray(made, np.float32), RATE_HZ)


def codebooks(run: Path, stages: Sequence[str], found: dict[str, Recordings]) -> dict[str, Any]:
    """stage -> set -> use and perplexity of every book, as shares of its codes."""
    codecs = {stage: run_codec(run, stage) for stage in stages}
    return {
        stage: {
            name: use_of(np.concatenate([codec.encode(one) for one in of.waveforms]), codec.config.quantizer.sizes)
            for name, of in found.items()
        }
        for stage, codec in codecs.items()
    }


def phones(run: Path, stages: Sequence[str], context: StageContext, count: int) -> dict[str, Any]:
    """stage -> how well its first book matches the phones that the world knows."""
    several = isinstance(context.corpus, SeveralCorporaConfig)
    (world,) = [one.corpus for one in context.corpus.corpora if one.name == "world"] if several else [context.corpus]
    source = StageContext(context.run, world, context.data_dir).source("test")  # joined corpora keep no phones
    items = [source[place] for place in range(min(count, len(source)))]
    heard = [waveform(item, context, RATE_HZ) for item in items]
    found: dict[str, Any] = {}
    for stage in stages:
        codec = run_codec(run, stage)
        size, rate = codec.config.quantizer.sizes[0], codec.config.frames_per_second
        books = [codec.encode(one)[:, 0] for one in heard]
        centred = {"rate_hz": rate, "centre_s": 0.5 / rate}
        labels = [
            frame_labels(item["phone_start_s"], item["phone_end_s"], item["phone_ids"], len(book), **centred)
            for item, book in zip(items, books, strict=True)
        ]
        pairs = list(zip(books, labels, strict=True))
        found[stage] = score_units(count_pairs(pairs, size, len(PHONES))).to_json()
    return found


def table(coded: dict[str, dict[str, Any]]) -> list[str]:
    """The figures of a set as lines of Markdown."""
    head = ("", "kb/s", "STOI", "PESQ", "log mels", "SI-SDR", "WER")
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    for coder, one in coded.items():
        rate = f"{one['bits_per_second'] / 1000:.2f}" if "bits_per_second" in one else "–"
        cells = [f"{one[name]:.3f}" if one[name] is not None else "–" for name in (*METRICS, "wer")]
        lines.append("| " + " | ".join((coder, rate, *cells)) + " |")
    return lines


def curves(figures: dict[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """STOI by kb/s: a line for each stage and other family, the mean over all sets."""
    names = [name for name in next(iter(figures.values())) if name != "original"]
    lines: dict[str, list[tuple[float, float]]] = {}
    for name in names:
        per_set = [coded[name] for coded in figures.values()]
        rate, stoi = (float(np.mean([one[key] for one in per_set])) for key in ("bits_per_second", "stoi"))
        lines.setdefault(name.split(",")[0].split(" ")[0], []).append((rate / 1000, stoi))
    return {name: sorted(points) for name, points in lines.items()}


def main() -> None:
    """Listen, code, judge, write."""
    asked = options()
    run = RunFolder(asked.run)
    config = read_run_config(run)
    asked.stages = asked.stages or [stage.name for stage in config.stages if isinstance(stage, CodecStageConfig)]
    context = StageContext(run, config.corpus, asked.data_dir)
    found = sets(context, asked.utterances)
    figures, samples = compared(asked, found)
    books = codebooks(asked.run, asked.stages, found)
    first = phones(asked.run, asked.stages, context, SCORED)
    asked.out.mkdir(parents=True, exist_ok=True)
    whole = {"quality": figures, "codebooks": books, "first_book": first}
    (asked.out / "figures.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    (asked.out / "samples.json").write_text(json.dumps(samples, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    plot_lines(asked.out / "quality.png", curves(figures), "kb/s", "STOI", "The mean over four kinds of recordings")
    for name, coded in figures.items():
        print(f"\n{name}\n\n" + "\n".join(table(coded)))
    for stage, one in first.items():
        print(f"{stage}: first book: phone purity {one['phone_purity']:.3f}, PNMI {one['pnmi']:.3f}")


if __name__ == "__main__":
    main()
