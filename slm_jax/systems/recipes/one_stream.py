"""What systems over one stream of text and units share: how a run is loaded, asked and judged."""

from slm_jax.core.errors import require
from slm_jax.core.messages import Conversation
from slm_jax.data.mixture import MixtureConfig
from slm_jax.serving.one_stream_speech_lm import Form, OneStreamDecoding, OneStreamSpeechLM
from slm_jax.systems.recipes.held_out_questions import held_out_questions
from slm_jax.training.gradient_stage import trained
from slm_jax.training.pre.durations import DurationStageConfig
from slm_jax.training.pre.one_stream_lm import OneStreamLMConfig
from slm_jax.training.pre.unit_vocoder import UnitVocoderStageConfig
from slm_jax.training.stages import RunConfig, StageContext
from slm_jax.training.token_stage import token_stage


class OneStreamRunConfig(RunConfig):
    """A run whose stage `lm_stage` is the language model and whose `vocoder_stage` says its units.

    `forms` and `scored`: see `serving.one_stream_speech_lm`. `asks`: what the system is tried on; None: openings of
    `prompt_s` seconds, to go on with.
    """

    lm_stage: str
    forms: tuple[Form, ...]
    scored: tuple[str, str] = ("{speech}", "{text}")
    vocoder_stage: str = "durations"
    decoding: OneStreamDecoding = OneStreamDecoding()
    asks: MixtureConfig | None = None
    prompt_s: float = 3.0

    def load(self, context: StageContext) -> OneStreamSpeechLM:
        """The trained system."""
        stage, folder = self.language_model, context.finished(self.lm_stage)
        model, params, stream = stage.finished(folder, context)
        vocoder = UnitVocoderStageConfig.of(context.finished(self.spoken_by))
        spoken = trained(context.finished(self.vocoder_stage))[1]
        return OneStreamSpeechLM(
            tokenizers=tuple(token_stage(context, one.stage).tokenizer(context) for one in stage.streams),
            stream=stream,
            lm=model,
            lm_params=params,
            forms=self.forms,
            scored=self.scored,
            vocoder=vocoder.vocoder(context).make(),
            vocoder_params=spoken["params"]["generator"],
            speakers=vocoder.speakers(context),
            decoding=self.decoding,
        )

    def prompts(self, context: StageContext, count: int, seconds: float | int | None = None) -> dict[str, Conversation]:
        if self.asks is not None:
            return held_out_questions(self.asks, context, count, self.corpus.rate_hz)
        return super().prompts(context, count, self.prompt_s if seconds is None else seconds)

    @property
    def spoken_by(self) -> str:
        """The stage that trained the generator of the voice."""
        stage = self.stage(self.vocoder_stage)
        return stage.vocoder if isinstance(stage, DurationStageConfig) else stage.name

    @property
    def language_model(self) -> OneStreamLMConfig:
        """The stage of the language model."""
        stage = self.stage(self.lm_stage)
        require(isinstance(stage, OneStreamLMConfig), "lm_stage", self.lm_stage, "is no stage over one stream")
        assert isinstance(stage, OneStreamLMConfig)  # for the type checker
        return stage
