"""Runs whose system hears and speaks at once."""

from slm_jax.evaluation.section import JudgeConfig
from slm_jax.judges.answers import AnswersJudge
from slm_jax.judges.frames import FramesJudge
from slm_jax.judges.latency import LatencyJudge
from slm_jax.judges.losses import LossesJudge
from slm_jax.judges.turns import TurnsJudge
from slm_jax.serving.duplex_speech_lm import DuplexDecoding, DuplexSpeechLM
from slm_jax.training.gradient_stage import trained
from slm_jax.training.kept import KeptSpeechConfig
from slm_jax.training.pre.codec_tokens import CodecTokensConfig
from slm_jax.training.pre.dialogue_lm import DialogueLMConfig
from slm_jax.training.stages import RunConfig, StageContext

TALK = ("question_answer", "dialogue")
"""Kinds of items of the world in which there are two."""


class DuplexRunConfig(RunConfig):
    """`lm`: the stage whose model talks; the codec is that of the stage whose codes it learnt."""

    lm: str = "lm"
    decoding: DuplexDecoding = DuplexDecoding()
    keeps: KeptSpeechConfig = KeptSpeechConfig(splits=("test",), kinds=("sentence", *TALK))
    judges: tuple[JudgeConfig, ...] = (
        AnswersJudge(kinds=TALK[:1]),
        TurnsJudge(),
        FramesJudge(),
        LatencyJudge(kinds=TALK[:1]),
        LossesJudge(),
    )

    def load(self, context: StageContext) -> DuplexSpeechLM:
        """The trained system."""
        folder = context.finished(self.lm)
        stage = DialogueLMConfig.of(folder)
        tokens = CodecTokensConfig.of(context.finished(stage.tokens))
        return DuplexSpeechLM(
            codec=tokens.tokenizer(context),
            lm=stage.model.make(),
            lm_params=trained(folder)[1]["params"],
            rows=stage.rows(tokens.spec(context), stage.sides[-1]),
            decoding=self.decoding,
            origin=stage.tokens,
        )
