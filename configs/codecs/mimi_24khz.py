"""Mimi at 24 kHz, 12.5 frames a second, one semantic book and 31 acoustic ones, of which Moshi uses seven.

Source     Défossez et al. 2024, "Moshi", section 3.3: no loss of spectra or of the waveform, judges and features alone;
           the first book is taught by WavLM large (`frozen/teacher`, read from the hub or from a folder), eight of its
           frames for each of the book's
Command    python -m slm_jax train configs/codecs/mimi_24khz.py --workdir W --corpus.path MANIFEST.jsonl
Hardware   not said; planned for TPUs in experiments/tpu_plans, not yet run at this size
Differs    the judges, EnCodec's, its balancer, the equal weights of their two losses, the teacher's weight, the
           constant rate, and that every row uses a random number of the acoustic books, are an interpretation
"""

from slm_jax.assemblies.codec_presets import mimi
from slm_jax.core.part_source import PartSource
from slm_jax.data.corpus import ManifestConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.decoders.spectral_discriminators import JudgesConfig, STFTDiscriminatorsConfig
from slm_jax.encoders.ssl_presets import wavlm_large
from slm_jax.objectives.codec import CodecLossConfig
from slm_jax.quantizers.parallel import ParallelVQConfig
from slm_jax.systems.recipes.codec_run import CodecRunConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import GroupConfig, OptimizerConfig
from slm_jax.training.pre.codec import CodecStageConfig
from slm_jax.training.pre.codec_teacher import CodecTeacherConfig
from slm_jax.training.pre.frame_units import LayerOfPartConfig

model = mimi()
semantic, acoustic = model.quantizer.parts
transformers = GroupConfig(name="transformers", match=r"params/generator/(en|de)coder_context/", weight_decay=0.05)
optimizer = OptimizerConfig(learning_rate=8e-4, schedule="constant", betas=(0.5, 0.9), clip=None)
wavlm = PartSource(path="frozen/teacher", source="hub:microsoft/wavlm-large", expect=wavlm_large())
codec = CodecStageConfig(
    name="codec",
    model=model.replace(quantizer=ParallelVQConfig(parts=(semantic, acoustic.replace(dropout=1.0))), unquantized=0.5),
    segment_s=12.0,
    losses=CodecLossConfig(
        resolutions=((1024, 256, 64),),
        spectral=0.0,
        waveform=0.0,
        adversarial=4.0,
        features=4.0,
        commitment=1.0,
        hinge=True,
        balance=0.999,
    ),
    judges=JudgesConfig(parts=(STFTDiscriminatorsConfig(),)),
    teacher=CodecTeacherConfig(features=LayerOfPartConfig(part=wavlm, layer=24), span=2),
    train=TrainConfig(steps=4_000_000, ema_decay=0.99),
    batches=PipelineConfig(batch=128),
    optimizer=optimizer.replace(groups=(transformers,)),
    judge_optimizer=optimizer,
)
config = CodecRunConfig(
    name="mimi_24khz",
    corpus=ManifestConfig(path="data/speech/manifest.jsonl", rate_hz=24_000),
    stages=(codec,),
)
