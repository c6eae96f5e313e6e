"""How well does GE2E tell the voices of a corpus apart, by clips of a second or two?

    python experiments/fetch/real_weights.py weights --models ge2e-speaker
    python experiments/speakers/tell_apart.py data weights/ge2e-speaker --out experiments/speakers/figures.json

Every other utterance of a speaker enrols: the mean direction of their vectors stands for the voice. Of the rest,
stretches from the middle are given to the nearest voice. The corpus is made in DATA where it is not there yet.
"""

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from slm_jax.data.corpus import Source, open_corpus, parse_corpus, prepare_corpus
from slm_jax.encoders.speaker import RATE_HZ, SpeakerEmbedder
from slm_jax.evaluation.speaker import identify, pair_similarities, similarities, speaker_vectors
from slm_jax.interop.model import load

CORPORA = (
    "world:hours=0.05,speakers=4",
    "world:hours=0.3,speakers=4",
    "world:hours=0.3,speakers=4,seed=3",
    "world:hours=0.3,speakers=16",
)


def utterances(spec: str, data: Path, most: int) -> dict[str, list[np.ndarray]]:
    """Speaker -> up to `most` clips of at least 2 s, of all splits; speakers with fewer than two are left out."""
    config = parse_corpus(spec)
    prepare_corpus(config, data)
    found: dict[str, list[np.ndarray]] = {}
    for split in ("train", "dev", "test"):
        source = open_corpus(config, data, split)
        assert isinstance(source, Source)
        for i, (speaker, seconds) in enumerate(zip(source.speakers, source.seconds, strict=True)):
            clips = found.setdefault(speaker, [])
            if seconds >= 2 and len(clips) < most:
                clips.append(source[i]["samples"].astype(np.float32) / 32_768)
    return {speaker: clips for speaker, clips in sorted(found.items()) if len(clips) >= 2}


def middle(clip: np.ndarray, seconds: float | None) -> np.ndarray:
    """A stretch from the middle; all of it for None."""
    length = len(clip) if seconds is None else min(round(seconds * RATE_HZ), len(clip))
    start = (len(clip) - length) // 2
    return clip[start : start + length]


def tell_apart(embed: SpeakerEmbedder, clips: dict[str, list[np.ndarray]]) -> dict[str, Any]:
    """Identification of stretches of 1, 1.5 and 2 s and of whole utterances, and cosines of pairs of them."""
    enrolled = [(speaker, clip) for speaker, some in clips.items() for clip in some[::2]]
    asked = [(speaker, clip) for speaker, some in clips.items() for clip in some[1::2]]
    names, voices = speaker_vectors(embed([clip for _, clip in enrolled]), [speaker for speaker, _ in enrolled])
    speakers = [speaker for speaker, _ in asked]
    figures: dict[str, Any] = {"enrolled": Counter(speaker for speaker, _ in enrolled), "asked": Counter(speakers)}
    figures["voices"] = np.round(similarities(voices, voices), 3).tolist()
    for seconds in (1.0, 1.5, 2.0, None):
        vectors = embed([middle(clip, seconds) for _, clip in asked])
        cosines, right = similarities(vectors, voices), np.array([names.index(speaker) for speaker in speakers])
        same, other = pair_similarities(vectors, speakers)
        confused = Counter(
            f"{names[one]} as {names[found]}"
            for one, found in zip(right, cosines.argmax(1), strict=True)
            if one != found
        )
        figures["whole" if seconds is None else f"{seconds:g} s"] = {
            **identify(cosines, right).to_json(),
            "same": float(same.mean()),
            "other": float(other.mean()),
            "confused": dict(confused.most_common(6)),
        }
    return figures


def main() -> None:
    """Print the figures, and keep them where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="where corpora are made")
    parser.add_argument("weights", type=Path, help="the folder ge2e-speaker of the fetcher")
    parser.add_argument("--corpora", nargs="+", default=CORPORA, help="in their short form")
    parser.add_argument("--most", type=int, default=40, help="utterances per speaker")
    parser.add_argument("--out", type=Path, help="a file for the figures")
    options = parser.parse_args()
    embed = SpeakerEmbedder(*load(options.weights))
    figures = {one: tell_apart(embed, utterances(one, options.data, options.most)) for one in options.corpora}
    text = json.dumps(figures, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
