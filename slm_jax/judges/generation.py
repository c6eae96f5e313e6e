"""Openings that the system speaks on, written down and read as text: does it make sense, does it repeat itself?"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from slm_jax.audio.files import resample
from slm_jax.core.config import Config
from slm_jax.core.errors import UserError, require
from slm_jax.core.messages import spoken
from slm_jax.evaluation.generated_text import Transcript, load_text_scorer, score_transcripts, write_transcripts
from slm_jax.evaluation.language_model import shuffled
from slm_jax.evaluation.metrics import heading
from slm_jax.evaluation.section import JudgeConfig, JudgeSettings, Lacking, Section, Sound, Table
from slm_jax.judges.asking import replies_to, require_kinds_of_parts
from slm_jax.judges.continuations import in_two
from slm_jax.serving.transcriber import Transcriber, Transcription, load_transcriber
from slm_jax.serving.unit_speech_lm import UnitSpeechLM
from slm_jax.training.held_out import held_out, waveform
from slm_jax.training.stages import StageContext

RECORDED, MADE, RESYNTHESISED = "recorded", "continuations", "recorded, from units"
SHUFFLED_UNITS, SHUFFLED_WORDS = "shuffled units", "shuffled words"
REST_S = 1.0
"""What must be left of an utterance after its opening."""
SHOWN = 5
"""Openings whose texts are shown."""
SCORES = ("gen_ppl", "ppx", "auto_bleu", "repeated_bigrams", "self_bleu", "vert")
WORDS = (
    "Whisper's transcripts of what follows an opening, under a language model of text: GenPPL is exp of the mean over "
    "texts of nats per token, PPX the mean of exp. auto-BLEU and VERT: repetition within and between texts. All "
    "depend on recogniser, language model and length: read them beside the recorded rests. Low perplexity with high "
    "auto-BLEU is a loop. Missing: nothing was to be heard, or nothing was understood."
)


class Clip(NamedTuple):
    """What is to be written down: samples at the system's rate, None where there is no sound."""

    group: str
    id: str
    sample: int
    samples: np.ndarray | None


class GenerationJudge(JudgeConfig):
    """Continues the openings of held-out utterances, `samples` times each, and scores the transcripts.

    `whisper`, `text_lm`: folders (a hub's or ours) or `hub:NAME`; `start`: the token that texts follow under the
    language model, so that a single word has a score; None for none. `prompt_s`: seconds of an opening, None for the
    system's own (else 3). `same_length`: what is made is cut to the length of the recorded rest, as GSLM's measure
    does. Transcripts are kept in the run folder as `NAME.jsonl`, for `evaluation.generated_text.score_transcripts`.
    """

    name: str = "generation"
    whisper: str = "whisper-base"
    text_lm: str = "smollm2-135m-instruct"
    start: str | None = "<|endoftext|>"
    language: str | None = "en"
    samples: int = 2
    prompt_s: float | int | None = None
    same_length: bool = True

    def __post_init__(self) -> None:
        require(self.samples >= 1, "samples", self.samples, "at least 1")
        require(self.prompt_s is None or self.prompt_s > 0, "prompt_s", self.prompt_s, "must be positive")

    def judge(self, system: Any, context: StageContext, settings: JudgeSettings) -> Section:
        require_kinds_of_parts(system, reads=("speech",), writes=("speech",))
        transcriber = found("whisper", lambda: load_transcriber(self.whisper, Transcription(language=self.language)))
        scorer = found("text_lm", lambda: load_text_scorer(self.text_lm, self.start))
        clips = self.clips(system, context, settings.utterances)
        said = with_shuffled_words(written_down(clips, transcriber, system.rate_hz))
        context.run.path.mkdir(parents=True, exist_ok=True)
        write_transcripts(context.run.path / f"{self.name}.jsonl", self.conditions(system), said)
        figures = score_transcripts(said, scorer, self.language)
        return Section("Generation", WORDS, {self.name: figures}, tables(figures, said), sounds(clips, system.rate_hz))

    def clips(self, system: Any, context: StageContext, count: int) -> list[Clip]:
        """Continuations of held-out openings beside the recorded rests and, of a system of units, controls."""
        seconds = getattr(system, "prompt_s", 3.0) if self.prompt_s is None else self.prompt_s
        items = held_out(context, count, longer_than_s=seconds + REST_S)
        cut, originals = round(seconds * system.rate_hz), [waveform(item, context, system.rate_hz) for item in items]
        rests = [one[cut:] for one in originals]
        made = {RECORDED: [rests], MADE: self.continued(system, [one[:cut] for one in originals])}
        if isinstance(system, UnitSpeechLM):
            made |= controls(system, originals, cut)
        return [
            Clip(group, item["id"], sample, self.whole_or_none(clip, len(rest)))
            for group, draws in made.items()
            for sample, draw in enumerate(draws)
            for item, clip, rest in zip(items, draw, rests, strict=True)
        ]

    def continued(self, system: Any, openings: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
        """What the system says after each opening, draw by draw."""
        asked = [spoken(opening, system.rate_hz) for opening in openings]
        replies = [replies_to(system, asked, seed, without_prompt(system)) for seed in range(self.samples)]
        return [[_heard(reply.messages, system.rate_hz) for reply in draw] for draw in replies]

    def whole_or_none(self, clip: np.ndarray, length: int) -> np.ndarray | None:
        """The clip at its length, None for one that nobody can hear."""
        cut = clip[:length] if self.same_length else clip
        return cut if len(cut) and bool(np.isfinite(cut).all()) else None

    def conditions(self, system: Any) -> dict[str, Any]:
        """Under which transcripts were made."""
        decoding = system.decoding.to_json() if isinstance(system.decoding, Config) else None
        return {"judge": self.to_json(), "decoding": decoding}


def found(field: str, load: Callable[[], Any]) -> Any:
    """What `load` gives; raises `Lacking` with its one sentence where there is no such model."""
    try:
        return load()
    except UserError as error:
        raise Lacking(f"the model of {field!r} cannot be read: {error}") from error


def without_prompt(system: Any) -> Any:
    """The system's decoding, such that replies do not begin with the opening; None where it has no say in that."""
    return system.decoding.replace(with_prompt=False) if hasattr(system.decoding, "with_prompt") else None


def controls(system: UnitSpeechLM, originals: Sequence[np.ndarray], cut: int) -> dict[str, list[list[np.ndarray]]]:
    """The recorded rests said again from their units, and from the same in random order."""
    rests = in_two(system, originals, cut)[1]
    return {RESYNTHESISED: [system.said(rests)], SHUFFLED_UNITS: [system.said(shuffled(rests))]}


def written_down(clips: Sequence[Clip], transcriber: Transcriber, rate_hz: int) -> list[Transcript]:
    """A transcript of each clip, None for one without sound; an utterance in which nothing is said is empty."""
    sounding = [clip.samples for clip in clips if clip.samples is not None]
    heard = iter(transcriber.transcribe([resample(one, rate_hz, transcriber.rate_hz) for one in sounding]))
    return [
        Transcript(clip.group, clip.id, clip.sample, 0.0, None)
        if clip.samples is None
        else Transcript(clip.group, clip.id, clip.sample, len(clip.samples) / rate_hz, next(heard).text)
        for clip in clips
    ]


def with_shuffled_words(said: Sequence[Transcript], seed: int = 0) -> list[Transcript]:
    """Also the recorded texts with their words in random order: what has the words and no sense."""
    rng = np.random.default_rng(seed)
    mixed = [
        one._replace(group=SHUFFLED_WORDS, text=" ".join(rng.permutation(one.text.split()).tolist()))
        for one in said
        if one.group == RECORDED and one.text is not None
    ]
    return [*said, *mixed]


def tables(figures: dict[str, dict[str, Any]], said: Sequence[Transcript]) -> tuple[Table, ...]:
    """Figures by group, and some texts beside each other."""
    header = ["", *map(heading, SCORES), "95 % of GenPPL", "texts", "missing"]
    rows = [
        [group, *(row[name] for name in SCORES), _bounds(row["gen_ppl_interval"]), row["texts"], row["missing"]]
        for group, row in figures.items()
    ]
    texts = {(one.group, one.id): one.text for one in said if one.sample == 0}
    shown = list(dict.fromkeys(one.id for one in said))[:SHOWN]
    beside = [[texts.get((group, item)) for group in (RECORDED, MADE)] for item in shown]
    return Table(header, rows), Table(["recorded rest", "first continuation"], beside, "What was understood")


def sounds(clips: Sequence[Clip], rate_hz: int) -> list[Sound]:
    """The first continuation that can be heard."""
    heard = [clip.samples for clip in clips if clip.group == MADE and clip.samples is not None]
    return [Sound("generation", samples, rate_hz, "A continuation that was written down") for samples in heard[:1]]


def _heard(messages: Sequence[Any], rate_hz: int) -> np.ndarray:
    """All speech of a reply at `rate_hz`, of no length where there is none."""
    clips = [resample(clip.samples, clip.rate_hz, rate_hz) for one in messages for clip in one.speech if clip.seconds]
    return np.concatenate(clips) if clips else np.zeros(0, np.float32)


def _bounds(interval: Sequence[float] | None) -> str | None:
    return None if interval is None else f"{interval[0]:.1f} to {interval[1]:.1f}"
