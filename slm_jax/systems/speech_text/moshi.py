"""Moshi (Défossez et al. 2024): it hears and speaks at once, and writes what it says a moment before it does.

    user -> codec -> 8 codes a frame --+
    own text, own codes of before -----+-> temporal transformer -> text -> depth transformer -> 8 codes -> codec

80 ms a frame, no turns: whoever talks to it is heard in every frame. What is special: the inner monologue (its words in
a stream of their own, at the time of their sound), one transformer over time and a small one over the codes of a frame
with kernels of their own for each, acoustic codes one frame late (two in pre-training).

What differs. Marks of the text stream stand behind the text's ids here, among them in the published tables (padding 3,
end of padding 0); `released(folder, codec)` moves them. Text-only batches have the optimizer of the others; in the
paper they have one of their own, and the text's table three quarters of the rate on speech. Noise is white and an echo
has no reverberation. The text model that the paper begins with (Helium, 2.1 T tokens) is a stage of the same model on
text alone, of which a lab will make a part (`start_from`). Interpretation: rows of text have as many steps as those of
speech; what the batches of fine-tuning hold is what their hours say at five minutes a row.

Sizes: "published" writes its own side, as released (7.69 B parameters); "paper" both, as the paper trains; "tiny" has a
codec of its own and learns to hear (`SideConfig.parts` "other") before it learns to answer, since minutes of dialogue
teach nobody to listen.
"""

import jax
import jax.numpy as jnp

from slm_jax.assemblies.codec import CodecConfig
from slm_jax.assemblies.codec_presets import mimi
from slm_jax.assemblies.codec_tokenizer import CodecTokenizer
from slm_jax.core.errors import nearest, require
from slm_jax.data.corpus import CorpusConfig, WorldConfig
from slm_jax.data.examples.dialogue_rows import DialogueRowsConfig, SideConfig
from slm_jax.data.lines import LineConfig
from slm_jax.data.mixture import MixtureConfig, PartConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.interop.model import load
from slm_jax.interop.moshi_marks import MARKS as MARKED
from slm_jax.interop.moshi_marks import marks_last
from slm_jax.layouts.beside import TimeAligned
from slm_jax.layouts.layout import MARKS
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.schemes.delay import Delay
from slm_jax.sequence_models.depth import DepthConfig
from slm_jax.sequence_models.multi_stream import MultiStreamConfig
from slm_jax.sequence_models.presets import llama, moshi
from slm_jax.sequence_models.temporal_depth import TemporalDepthConfig
from slm_jax.serving.duplex_speech_lm import DuplexSpeechLM
from slm_jax.systems.card import SystemCard
from slm_jax.systems.recipes.duplex_run import TALK, DuplexRunConfig
from slm_jax.systems.recipes.small_codec import small_codec
from slm_jax.text.left_out import LeftOutConfig
from slm_jax.text.tokenizers import CharacterTokenizerConfig, TokenizerFileConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import GroupConfig, OptimizerConfig
from slm_jax.training.pre.codec_tokens import CodecTokensConfig
from slm_jax.training.pre.dialogue_lm import DialogueLMConfig

CARD = SystemCard(
    name="Moshi",
    paper="Défossez et al. 2024",
    sizes=("tiny", "published", "paper"),
    reads=("speech",),
    writes=("speech", "text"),
    streams=True,
    counted="instruct",
)
BOOKS, WORDS, SEMANTIC = 8, 32_000, 100.0
LETTERS = CharacterTokenizerConfig(characters=" 'abcdefghijklmnopqrstuvwxyz", unknown="'")


def config(size: str = "tiny", weights: str = "weights", **changes: object) -> DuplexRunConfig:
    """A size with some fields changed; raises `UserError` for an unknown one.

    `weights`: the folder that holds `mimi` and `moshi/tokenizer.json` for the published sizes.
    """
    sizes = CARD.sizes
    require(size in sizes, "Moshi size", size, f"must be one of {', '.join(sizes)}{nearest(size, sizes)}")
    return (tiny() if size == "tiny" else published(size, weights)).replace(**changes)


def text_of(folder: str) -> LeftOutConfig:
    """Its text: the pieces of `tokenizer.json` in a folder without those two that mark where there is none."""
    return LeftOutConfig(tokens=TokenizerFileConfig(path=f"{folder}/tokenizer.json"), ids=MARKED)


def released(folder: str, codec: str) -> DuplexSpeechLM:
    """A folder of Moshi as transformers or Kyutai wrote it, with a `tokenizer.json`, and one of Mimi, as a system.

    Its marks are moved behind its text, so that rows and layouts are those of a model that was trained here.
    """
    config, params = load(folder)
    require(isinstance(config, TemporalDepthConfig), "folder", folder, "must hold Moshi")
    books, tokens = (len(config.streams) - 1) // 2, text_of(folder)
    shape, weights = load(codec)
    require(isinstance(shape, CodecConfig), "codec", codec, "must hold Mimi")
    voice = CodecTokenizer(shape, {"params": weights}, books)
    rows = DialogueRowsConfig(
        columns=(*voice.spec.columns, *(f"{name}_of_1" for name in voice.spec.columns)),
        scheme=delays(1, books),
        layout=TimeAligned(),
        tokens=tokens,
        frames=1,
        frames_per_second=voice.spec.frames_per_second,
    )
    rule = f"{folder!r} has {config.streams[0]} ids of text, marks included"
    require(rows.size == config.streams[0], "tokenizer", rows.size, rule)
    moved = jax.tree.map(jnp.asarray, marks_last(config, params))
    return DuplexSpeechLM(codec=voice, lm=config.make(), lm_params=moved, rows=rows)


def delays(acoustic: int, books: int = BOOKS) -> Delay:
    """Both sides: the semantic book in time, the others so many frames late."""
    side = (0, *[acoustic] * (books - 1))
    return Delay(delays=(*side, *side))


def shares(**parts: tuple[float, SideConfig]) -> MixtureConfig:
    """Parts by name with the share of each."""
    return MixtureConfig(
        parts=tuple(PartConfig(name=name, weight=weight, example=side) for name, (weight, side) in parts.items())
    )


def rates(temporal: float, depth: float, **changes: object) -> OptimizerConfig:
    """Its optimizer, with a rate for each of the two transformers."""
    group = GroupConfig(name="depth", match="params/depth/", learning_rate=depth)
    return OptimizerConfig(learning_rate=temporal, betas=(0.9, 0.95), weight_decay=0.1, groups=(group,)).replace(
        **changes
    )


def published(size: str, weights: str, corpus: CorpusConfig | None = None) -> DuplexRunConfig:
    """A published size, five stages behind each other: text, one side, both sides, recorded and written dialogues."""
    both, spread = size == "paper", TrainConfig(steps=500_000, mesh=MeshConfig(data=1, fsdp=-1, rules="fsdp"))
    model = moshi(words=WORDS, books=BOOKS, written=2 * BOOKS if both else None)
    temporal = model.temporal.replace(body=model.temporal.body.replace(dtype="bfloat16", remat=True))
    model = model.replace(temporal=temporal, depth=model.depth.replace(dtype="bfloat16"))
    side = (SEMANTIC, *[1.0] * (BOOKS - 1))
    text, one = SideConfig(parts="text"), SideConfig(kinds=("sentence",), own=0, parts="own", late=(-8, 8), masked=0.3)
    first = DialogueLMConfig(
        name="text",
        tokens="codes",
        model=model,
        scheme=delays(2),
        tasks=shares(text=(1.0, text)),
        text_tokens=text_of(f"{weights}/moshi"),
        text_ids=WORDS - MARKS,
        frames=3750,
        text=1500,
        weights=(1.0, *side, *(side if both else [0.0] * BOOKS)),
        apart=1,
        train=spread,
        batches=PipelineConfig(batch=1120),
        optimizer=rates(3e-4, 3e-4, warmup_steps=2000),
    )
    single = first.replace(
        name="pretraining",
        start_from="text",
        batches=PipelineConfig(batch=192),
        tasks=shares(text=(0.5, text), one=(0.5, one)),
        train=spread.replace(steps=1_000_000),
        optimizer=rates(3e-5, 2e-4, warmup_steps=2000),
    )
    talk = SideConfig(kinds=TALK)
    two = single.replace(
        name="posttraining",
        start_from="pretraining",
        tasks=shares(text=(0.1, text), two=(0.9, talk)),
        batches=PipelineConfig(batch=96),
        train=spread.replace(steps=100_000),
        optimizer=rates(3e-6, 5e-5, schedule="constant"),
    )
    fisher = two.replace(
        name="fisher",
        start_from="posttraining",
        scheme=delays(1),
        tasks=shares(two=(1.0, talk)),
        batches=PipelineConfig(batch=8),
        train=spread.replace(steps=10_000),
        optimizer=rates(2e-6, 4e-6, schedule="constant"),
    )
    instruct = fisher.replace(
        name="instruct",
        start_from="fisher",
        tokens="heard_codes",
        batches=PipelineConfig(batch=32),
        train=spread.replace(steps=30_000),
        optimizer=rates(2e-6, 2e-6, schedule="constant"),
    )
    codes = CodecTokensConfig(
        name="codes", source=f"{weights}/mimi", books=BOOKS, expect=mimi(), kinds=("sentence", *TALK)
    )
    return DuplexRunConfig(
        name=f"moshi_{size}",
        lm="instruct",
        corpus=corpus or WorldConfig(hours=100.0, dialogue_hours=100.0, speakers=1000, channels=2, rate_hz=24_000),
        stages=(codes, codes.replace(name="heard_codes", line=LineConfig()), first, single, two, fisher, instruct),
    )


def tiny(corpus: CorpusConfig | None = None) -> DuplexRunConfig:
    """Two million parameters and a codec of 25 frames a second: two hours of one core."""
    books, codes = 8, 256
    codec, tokens = small_codec(books, codes, stride=2)
    body = llama("7b", vocabulary=1, layers=4, width=192, heads=4, kv_heads=4, hidden=512, tied_head=True)
    body = body.replace(window=400, max_positions=None)
    streams = (len(LETTERS.characters) + MARKS, *[codes] * (2 * books))
    model = TemporalDepthConfig(
        temporal=MultiStreamConfig(streams=streams, body=body, blanks=True, heads=1),
        depth=DepthConfig(width=96, layers=2, heads=4, hidden=192),
        written=1 + books,
    )
    said = SideConfig(kinds=("sentence",), own=0, parts="own")
    heard = SideConfig(kinds=("sentence", *TALK), parts="other", late=(10, 10), masked=0.4)
    talk = SideConfig(kinds=TALK)
    first = DialogueLMConfig(
        name="text",
        tokens="codes",
        model=model,
        scheme=delays(1, books),
        tasks=shares(text=(1.0, SideConfig(parts="text"))),
        text_tokens=LETTERS,
        frames=150,
        text=96,
        weights=(1.0, 2.0, *[1.0] * (books - 1), *[0.0] * books),
        apart=1,
        train=TrainConfig(steps=150, evaluate_every=150),
        batches=PipelineConfig(batch=8),
        optimizer=rates(2e-3, 2e-3, warmup_steps=50, weight_decay=0.01, final_fraction=0.3),
    )
    single = first.replace(
        name="pretraining",
        start_from="text",
        tasks=shares(text=(0.05, SideConfig(parts="text")), one=(0.25, said), heard=(0.7, heard)),
        frames=75,
        text=64,
        batches=PipelineConfig(batch=16),
        train=TrainConfig(steps=1300, evaluate_every=260),
    )
    two = single.replace(
        name="instruct",
        start_from="pretraining",
        tasks=shares(heard=(0.4, heard), two=(0.6, talk)),
        frames=150,
        text=96,
        batches=PipelineConfig(batch=8),
        train=TrainConfig(steps=1500, evaluate_every=300),
        optimizer=rates(1e-3, 1e-3, warmup_steps=50, weight_decay=0.01, final_fraction=0.1),
    )
    world = WorldConfig(hours=1.0, question_hours=1.5, dialogue_hours=0.7, speakers=4, channels=2)
    tokens = tokens.replace(kinds=("sentence", *TALK))
    return DuplexRunConfig(
        name="moshi_tiny", lm="instruct", corpus=corpus or world, stages=(codec, tokens, first, single, two)
    )
