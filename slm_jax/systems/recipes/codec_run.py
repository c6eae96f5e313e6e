"""A run whose system is a codec: trained, judged, talked to by the verbs as any other."""

from slm_jax.evaluation.section import JudgeConfig
from slm_jax.judges.codec import CodecJudge
from slm_jax.judges.losses import LossesJudge
from slm_jax.serving.codec_system import CodecDecoding, CodecSystem
from slm_jax.training.run_codec import stage_codec
from slm_jax.training.stages import RunConfig, StageContext


class CodecRunConfig(RunConfig):
    """`codec`: the stage whose codec is the system."""

    codec: str = "codec"
    decoding: CodecDecoding = CodecDecoding()
    judges: tuple[JudgeConfig, ...] = (CodecJudge(), LossesJudge())

    def load(self, context: StageContext) -> CodecSystem:
        """The trained codec."""
        return CodecSystem(stage_codec(context.finished(self.codec)), self.decoding)
