"""A small Whisper on drawn weights in a folder as the hub lays it out, with a tokenizer of its own."""

import json
from pathlib import Path

import jax
import numpy as np

from slm_jax.assemblies.whisper import WhisperConfig
from slm_jax.interop.families import family_for
from slm_jax.interop.model import export
from tests.shapes import WHISPER

WORDS = [f"w{number}" for number in range(30)]
LANGUAGES = {"cs": 33, "en": 32, "nl": 34}
SPECIALS = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|cs|>", "<|nl|>", "<|translate|>", "<|transcribe|>"]
END, START, TRANSLATE, TRANSCRIBE, NO_TIMES = 30, 31, 35, 36, 37
SETTINGS = {
    "is_multilingual": True,
    "lang_to_id": {f"<|{name}|>": number for name, number in LANGUAGES.items()},
    "suppress_tokens": [1, 2, 31, 32, 33, 34, 35, 36, 37],
    "begin_suppress_tokens": [0, END],
}
"""What a multilingual model's `generation_config.json` says."""

WIDTHS = {"scale": 0.1, "bias": 0.1, "places": 1.5, "cross_attention": 3.0, "encoder": 0.8, "decoder": 0.5}


def write_tokenizer(folder: Path) -> Path:
    """`tokenizer.json`: 30 words, then the specials from 30 on, in the order of Whisper's."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="w0"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens([*SPECIALS, "<|notimestamps|>"])
    made.save(str(folder / "tokenizer.json"))
    return folder


def drawn_params(config: WhisperConfig) -> dict:
    """Weights so wide that what is said depends on what is heard."""
    rng = np.random.default_rng(1)

    def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        wide = next(width for part, width in WIDTHS.items() if part in name)
        return (float(name.endswith("scale")) + wide * rng.standard_normal(leaf.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, family_for(config).abstract(config))


def write_whisper(folder: Path, config: WhisperConfig = WHISPER, settings: dict | None = None) -> Path:
    """The whole folder, which must not be there yet."""
    export(config, drawn_params(config), folder)
    (folder / "generation_config.json").write_text(json.dumps(SETTINGS if settings is None else settings))
    return write_tokenizer(folder)
