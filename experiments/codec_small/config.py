"""A small streaming codec for speech at 16 kHz: 50 frames a second, 12 books of 1,024 for 6 kb/s, on two cores.

    python experiments/fetch/real_speech.py data/real_speech --sets librivox jfk fillets-cs fillets-nl
    python experiments/fetch/real_weights.py weights --models whisper-base
    python -m slm_jax train experiments/codec_small/config.py --workdir runs/codec_small
    python experiments/codec_small/compare.py runs/codec_small
    python -m slm_jax codec encode runs/codec_small a.wav a.codes

One run, stage by stage, all with the same encoder of log-mel frames and the same books: `spectral` and `transposed` are
two forms of decoder for as long; `taught` is the first with a teacher for its first book, the last layer of
Whisper-base; `longer` goes on from the first, and so does `judged`, with judges. It hears the
synthetic world and a game in Czech, half of the segments as through other microphones and lines; speakers of the
world's test split are heard in no other, and Dutch never. `SLM_JAX_REAL_SPEECH` names the folder of recordings,
`data/real_speech` unless it is set, `SLM_JAX_REAL_WEIGHTS` that of the weights, `weights` unless it is set.
"""

import os
from pathlib import Path

from slm_jax.assemblies.codec import CodecConfig
from slm_jax.core.part_source import PartSource
from slm_jax.data.corpus import ManifestConfig, NamedCorpusConfig, SeveralCorporaConfig
from slm_jax.data.examples.waveform_segments import ChannelConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.decoders.seanet import SEANetDecoderConfig
from slm_jax.decoders.spectral import SpectralDecoderConfig
from slm_jax.decoders.spectral_discriminators import JudgesConfig, STFTDiscriminatorsConfig
from slm_jax.encoders.spectral import SpectralEncoderConfig
from slm_jax.encoders.whisper import WhisperEncoderConfig
from slm_jax.objectives.codec import CodecLossConfig
from slm_jax.quantizers.codebooks import CodebookConfig
from slm_jax.quantizers.residual import ResidualVQConfig
from slm_jax.systems.recipes.codec_run import CodecRunConfig
from slm_jax.systems.recipes.small_parts import UNKNOWN_SPEAKERS
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.pre.codec import CodecStageConfig
from slm_jax.training.pre.codec_teacher import CodecTeacherConfig
from slm_jax.training.pre.frame_units import LayerOfPartConfig

WEIGHTS = Path(os.environ.get("SLM_JAX_REAL_WEIGHTS", "weights"))
SPEECH = Path(os.environ.get("SLM_JAX_REAL_SPEECH", "data/real_speech"))
corpus = SeveralCorporaConfig(
    corpora=(
        NamedCorpusConfig(name="world", corpus=UNKNOWN_SPEAKERS.replace(hours=1.5)),
        NamedCorpusConfig(name="czech", corpus=ManifestConfig(path=str(SPEECH / "fillets-cs" / "manifest.jsonl"))),
    )
)
model = CodecConfig(
    encoder=SpectralEncoderConfig(),
    decoder=SpectralDecoderConfig(),
    quantizer=ResidualVQConfig(width=64, books=12, codebook=CodebookConfig(size=1024, width=64), dropout=0.4),
    whole=True,
    rate_hz=16_000,
)
spectral = CodecStageConfig(
    name="spectral",
    model=model,
    segment_s=0.8,
    channel=ChannelConfig(share=0.5),
    train=TrainConfig(steps=5000, evaluate_every=1000),
    batches=PipelineConfig(batch=12),
    optimizer=OptimizerConfig(
        learning_rate=2e-3, betas=(0.8, 0.99), warmup_steps=100, weight_decay=0.01, final_fraction=0.1
    ),
)
waves = SEANetDecoderConfig(width=64, filters=16, strides=(2, 4, 5, 8), lstm=0, before="zeros", weight_norm=False)
transposed = spectral.replace(
    name="transposed",
    model=model.replace(decoder=waves),
    train=TrainConfig(steps=2500, evaluate_every=500),
)
whisper = PartSource(
    path="frozen/teacher",
    source=str(WEIGHTS / "whisper-base"),
    take="encoder",
    expect=WhisperEncoderConfig(trim=True),
)
taught = spectral.replace(
    name="taught",
    teacher=CodecTeacherConfig(features=LayerOfPartConfig(part=whisper, layer=6)),
    train=TrainConfig(steps=1500, evaluate_every=500),
)
longer = spectral.replace(
    name="longer",
    start_from="spectral",
    train=TrainConfig(steps=6000, evaluate_every=1000),
    optimizer=spectral.optimizer.replace(learning_rate=1e-3, final_fraction=0.0),
)
judged = longer.replace(
    name="judged",
    judges=JudgesConfig(parts=(STFTDiscriminatorsConfig(n_ffts=(1024, 512, 256), filters=16),)),
    judge_optimizer=OptimizerConfig(learning_rate=2e-3, betas=(0.5, 0.9), schedule="constant"),
    losses=CodecLossConfig(spectral=15.0, waveform=1.5, commitment=3.75),
    train=TrainConfig(steps=1000, evaluate_every=500),
    optimizer=longer.optimizer.replace(learning_rate=5e-4),
)
stages = (spectral, transposed, taught, longer, judged)
config = CodecRunConfig(name="codec_small", codec="judged", corpus=corpus, stages=stages)
