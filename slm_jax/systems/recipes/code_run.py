"""Runs whose system is a language model of a codec's codes, alone or with what is said in them."""

from slm_jax.evaluation.section import JudgeConfig
from slm_jax.judges.codes import CodesJudge
from slm_jax.judges.generation import GenerationJudge
from slm_jax.judges.losses import LossesJudge
from slm_jax.judges.text_codes import TextCodesJudge
from slm_jax.serving.code_speech_lm import CodeDecoding, CodeSpeechLM
from slm_jax.serving.text_code_speech_lm import TextCodeDecoding, TextCodeSpeechLM
from slm_jax.training.gradient_stage import trained
from slm_jax.training.pre.code_lm import CodeLMConfig
from slm_jax.training.pre.codec_tokens import CodecTokensConfig
from slm_jax.training.pre.text_code_lm import TextCodeLMConfig
from slm_jax.training.stages import RunConfig, StageContext


class CodeRunConfig(RunConfig):
    """`lm`: the stage whose model speaks; the codec is that of the stage whose codes it learnt.

    `prompt_s`: seconds of speech that are continued.
    """

    lm: str = "lm"
    prompt_s: float = 3.0
    decoding: CodeDecoding = CodeDecoding()
    judges: tuple[JudgeConfig, ...] = (CodesJudge(), GenerationJudge(), LossesJudge())

    def load(self, context: StageContext) -> CodeSpeechLM:
        """The trained system."""
        folder = context.finished(self.lm)
        stage = CodeLMConfig.of(folder)
        codes = CodecTokensConfig.of(context.finished(stage.tokens))
        return CodeSpeechLM(
            codec=codes.tokenizer(context),
            lm=stage.model.make(),
            lm_params=trained(folder)[1]["params"],
            scheme=stage.scheme,
            decoding=self.decoding,
            prompt_s=self.prompt_s,
            origin=stage.tokens,
        )


class TextCodeRunConfig(RunConfig):
    """The same with text: `lm` is a `TextCodeLMConfig`."""

    lm: str = "lm"
    prompt_s: float = 3.0
    decoding: TextCodeDecoding = TextCodeDecoding()
    judges: tuple[JudgeConfig, ...] = (TextCodesJudge(), LossesJudge())

    def load(self, context: StageContext) -> TextCodeSpeechLM:
        """The trained system."""
        folder = context.finished(self.lm)
        stage = TextCodeLMConfig.of(folder)
        codec = CodecTokensConfig.of(context.finished(stage.tokens)).tokenizer(context)
        return TextCodeSpeechLM(
            codec=codec,
            lm=stage.model.make(),
            lm_params=trained(folder)[1]["params"],
            rows=stage.rows(codec.spec),
            decoding=self.decoding,
            prompt_s=self.prompt_s,
            origin=stage.tokens,
        )
