"""Transcripts of what a speech language model says, scored as text: GenPPL, PPX, auto-BLEU, VERT.

Transcripts are kept as JSON lines, so that they are scored again, by another language model too, without the system:

    settings, said = read_transcripts("runs/demo/generation.jsonl")
    figures = score_transcripts(said, load_text_scorer("smollm2-135m-instruct"))

Figures of two language models, two recognisers or two lengths do not compare: beside those of continuations stand those
of the recorded ones, read by the same.
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.core.errors import UserError, require
from slm_jax.core.paths import Place, as_path, write_whole
from slm_jax.evaluation.diversity import Diversity, diversity
from slm_jax.evaluation.intervals import Interval, bootstrap_interval
from slm_jax.evaluation.scoring import sequence_log_probs
from slm_jax.evaluation.transcription import normaliser
from slm_jax.interop.parts import existing, open_source
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.sequence_models.decoder_config import DecoderConfig
from slm_jax.text.tokenizers import Tokenizer, TokenizerFileConfig


class Transcript(NamedTuple):
    """What was understood of draw `sample` on from the opening of item `id`; `text` None where nothing was to be heard.

    `group`: recorded, continuations, or one of the controls.
    """

    group: str
    id: str
    sample: int
    seconds: float
    text: str | None


@dataclasses.dataclass(frozen=True)
class GeneratedPerplexity:
    """How likely a language model of text finds texts.

    `gen_ppl`: exp of the mean over texts of a text's nats per token (slamkit's GenPPL), with its 95 % interval
    (bootstrap over texts). `ppx`: the mean over texts of exp of the same (GSLM's PPX), which a few odd texts rule.
    None where no text could be scored; `missing`: those that could not, for want of sound or of a second token.
    """

    gen_ppl: float | None
    gen_ppl_interval: Interval | None
    ppx: float | None
    texts: int
    missing: int

    def to_json(self) -> dict[str, Any]:
        """Plain numbers by name."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class TextScorer:
    """A language model of text and its tokenizer. `start`: the token that every text follows, None for none.

    Without one a text's first token is given and not scored, as in slamkit for tokenizers that add none.
    """

    model: Any
    params: Any
    tokenizer: Tokenizer
    start: int | None = None

    def nats_per_token(self, texts: Sequence[str | None]) -> list[float | None]:
        """Of each text, None for one that leaves nothing to score: None itself, or too few tokens."""
        first = [] if self.start is None else [self.start]
        rows = [[] if text is None else [*first, *self.tokenizer.encode(text.strip())] for text in texts]
        places = [place for place, row in enumerate(rows) if len(row) > 1]
        found: list[float | None] = [None] * len(rows)
        scores = sequence_log_probs(self.model, self.params, [np.array(rows[place], np.int32) for place in places])
        for place, row in zip(places, scores, strict=True):
            found[place] = float(-row.mean(dtype=np.float64))
        return found


def load_text_scorer(source: str, start: str | None = None, dtype: str = "float32") -> TextScorer:
    """A decoder from a hub folder, one of ours, or `hub:NAME`; `start`: the spelling of a special token.

    Raises `UserError` for another kind of model, for a folder without `tokenizer.json`, and for an unknown token.
    """
    config, stored = open_source(source, "text_lm")
    if not isinstance(config, DecoderConfig):
        raise UserError(f"text_lm is {source!r}: it holds a {type(config).__name__}, and a language model is needed")
    tokenizer = TokenizerFileConfig(path=str(existing(source, "text_lm") / "tokenizer.json")).make()
    fits = tokenizer.size <= config.vocabulary
    require(fits, "text_lm", source, f"its tokenizer has {tokenizer.size} tokens, its table {config.vocabulary} rows")
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, compute_dtype(dtype)), stored)
    first = None if start is None else tokenizer.special(start)
    return TextScorer(config.replace(dtype=dtype).make(), params, tokenizer, first)


def perplexities(nats: Sequence[float | None]) -> GeneratedPerplexity:
    """Both means over texts whose nats per token are given, None for missing ones."""
    known = [value for value in nats if value is not None]
    bounds = bootstrap_interval(known)
    return GeneratedPerplexity(
        gen_ppl=math.exp(sum(known) / len(known)) if known else None,
        gen_ppl_interval=None if bounds is None else (math.exp(bounds[0]), math.exp(bounds[1])),
        ppx=sum(map(math.exp, known)) / len(known) if known else None,
        texts=len(nats),
        missing=len(nats) - len(known),
    )


def score_transcripts(
    said: Sequence[Transcript], scorer: TextScorer, language: str | None = "en"
) -> dict[str, dict[str, Any]]:
    """Figures of every group: perplexities of the texts as they were written down, variety of their normalised words.

    Self-BLEU and VERT are means over draws, each over one text per opening, so that groups compare.
    """
    nats = dict(zip(said, scorer.nats_per_token([one.text for one in said]), strict=True))
    figures = {}
    for group in dict.fromkeys(one.group for one in said):
        own = [one for one in said if one.group == group]
        figures[group] = perplexities([nats[one] for one in own]).to_json() | _variety(own, language)
    return figures


def write_transcripts(path: Place, settings: dict[str, Any], said: Iterable[Transcript]) -> None:
    """Settings in the first line, then one transcript a line."""
    rows = [{"settings": settings}, *(one._asdict() for one in said)]
    write_whole(as_path(path), "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_transcripts(path: Place) -> tuple[dict[str, Any], list[Transcript]]:
    """Settings and transcripts; raises `UserError` for a file of something else."""
    try:
        first, *rows = map(json.loads, as_path(path).read_text(encoding="utf-8").splitlines())
        return first["settings"], [Transcript(**row) for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{str(path)!r} holds no transcripts: settings in the first line, then one a line") from error


def _variety(said: Sequence[Transcript], language: str | None) -> dict[str, Any]:
    plain = normaliser(language)
    draws: dict[int, list[list[str]]] = {}
    for one in said:
        draws.setdefault(one.sample, []).append(plain(one.text or "").split())
    every = diversity([words for texts in draws.values() for words in texts])
    apart = [diversity(texts) for texts in draws.values()]
    return {
        "auto_bleu": every.auto_bleu,
        "auto_bleu_interval": every.auto_bleu_interval,
        "repeated_bigrams": every.repeated_bigrams,
        "self_bleu": _mean_of(apart, "self_bleu"),
        "vert": _mean_of(apart, "vert"),
    }


def _mean_of(apart: Sequence[Diversity], name: str) -> float | None:
    values = [value for one in apart if (value := getattr(one, name)) is not None]
    return sum(values) / len(values) if values else None
