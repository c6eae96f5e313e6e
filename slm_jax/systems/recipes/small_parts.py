"""Parts that tiny twins train themselves in minutes, where published systems take what others trained.

For each a stage of its own: an encoder that knows letters (in the place of Whisper's), one that knows acoustic units
(in that of self-supervised ones), and a text LM over bytes.
"""

from slm_jax.assemblies.phonetic_tokenizer import MFCCFeaturesConfig
from slm_jax.data.corpus import WorldConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.encoders.ssl import SSLEncoderConfig
from slm_jax.encoders.ssl_presets import log_mel_tiny
from slm_jax.encoders.ssl_pretraining import HubertPretrainingConfig
from slm_jax.objectives.masked_prediction import MaskedPredictionConfig
from slm_jax.quantizers.kmeans import KMeansConfig
from slm_jax.quantizers.postprocess import PostprocessConfig
from slm_jax.sequence_models.decoder_config import DecoderConfig
from slm_jax.text.marked_tokens import SpecialsConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import GroupConfig, OptimizerConfig
from slm_jax.training.pre.ctc import CTCStageConfig, Heard
from slm_jax.training.pre.frame_units import FrameUnitsConfig
from slm_jax.training.pre.masked_prediction import MaskedPredictionStageConfig
from slm_jax.training.pre.text_lm import TextLMConfig
from slm_jax.training.stages import StageConfig

UNKNOWN_SPEAKERS = WorldConfig(speakers=48, split_by="speaker", test_share=0.1, dev_share=0.05)
"""A world whose speakers are heard in one split only; how many hours of what is for the run to say."""
LETTERS, UNITS, LM = "letters", "units", "lm"
"""Names of the stages."""


def t5_rates(learning_rate: float, queries: float, warmup_steps: int) -> OptimizerConfig:
    """The optimizer of a small LM of T5's form that is born here, with rates of their own for distances and `queries`.

    Adam moves a weight by its rate at most in each step. Where a word stands T5 knows by a bias alone, which has to
    grow to several units. Its scores have no 1/sqrt(channels of a head): what would be divided there, the queries have
    in them, so that a seventh of the rate moves the scores as much.
    """
    return OptimizerConfig(
        learning_rate=learning_rate,
        warmup_steps=warmup_steps,
        betas=(0.9, 0.98),
        weight_decay=0.01,
        groups=(
            GroupConfig(name="distances", match=".*relative_bias", learning_rate=0.05, weight_decay=0.0),
            GroupConfig(name="queries", match=".*attention/query/", learning_rate=queries),
        ),
    )


def letters_encoder(encoder: Heard = log_mel_tiny(), steps: int = 1500) -> CTCStageConfig:
    """An encoder of 2 M parameters that CTC taught the letters of what is said."""
    return CTCStageConfig(
        name=LETTERS,
        encoder=encoder,
        longest_s=6.0,
        longest_text=96,
        train=TrainConfig(steps=steps),
        batches=PipelineConfig(batch=8),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=100, weight_decay=0.01),
    )


def units_encoder(
    encoder: SSLEncoderConfig = log_mel_tiny(), steps: int = 360, clusters: int = 100
) -> tuple[StageConfig, ...]:
    """An encoder of 2 M parameters that predicts clusters of MFCC where it hears nothing (HuBERT's first iteration)."""
    mfcc = FrameUnitsConfig(
        name="mfcc",
        features=MFCCFeaturesConfig(),
        kmeans=KMeansConfig(clusters=clusters, iterations=30),
        postprocess=PostprocessConfig(normalise="standardise"),
    )
    hubert = MaskedPredictionStageConfig(
        name=UNITS,
        targets="mfcc",
        model=HubertPretrainingConfig(encoder=encoder, classes=clusters, head="linear"),
        mask_share=0.65,
        objective=MaskedPredictionConfig(unmasked_weight=0.3),
        train=TrainConfig(steps=steps),
        batches=PipelineConfig(batch=4),
        optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=50, betas=(0.9, 0.98), weight_decay=0.01),
    )
    return mfcc, hubert


def text_lm(
    model: DecoderConfig,
    kinds: tuple[str, ...],
    tokens: SpecialsConfig = SpecialsConfig(),
    begin: str = "<s>",
    end: str = "</s>",
    steps: int = 400,
) -> TextLMConfig:
    """`model` over what is said in items of these kinds, between two special tokens."""
    return TextLMConfig(
        name=LM,
        model=model,
        tokens=tokens,
        kinds=kinds,
        begin=begin,
        end=end,
        train=TrainConfig(steps=steps),
        batches=PipelineConfig(batch=8),
        optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=40, betas=(0.9, 0.98), weight_decay=0.01),
    )
