"""Whether each clip of a stage is encoded once, and what frozen encoders make of it then."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax

from slm_jax.assemblies.speech_aware_lm import SpeechAwareLM, encoder_name
from slm_jax.checkpoints.lazy import load_part
from slm_jax.core.config import content_hash
from slm_jax.core.errors import require
from slm_jax.core.paths import AnyPath
from slm_jax.nn.lora import LoRAModel
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.parallel.sharding import shardings_for, unbox
from slm_jax.training.part_record import Parts
from slm_jax.training.post.clip_features import Clips, with_features
from slm_jax.training.post.speech_rows import TaskItems
from slm_jax.training.stages import StageContext

CACHE_BYTES = 20e9
"""Features up to so many bytes are kept where that is cheaper."""


@dataclasses.dataclass(frozen=True)
class KeptFeatures:
    """Tables of features for stage `stage`, below `tables`, where stages with the same clips and encoders share them.

    `frozen`: names of the parts that are not trained. `born`: shapes of all variables, LoRA too.
    """

    stage: str
    model: SpeechAwareLM | LoRAModel
    frozen: frozenset[str]
    born: Any
    mesh: MeshConfig
    tables: AnyPath

    def wanted(self, asked: bool | None, items: int, drawn: int, seconds: float, context: StageContext) -> bool:
        """Whether features are kept, which the log says with the reason.

        `asked`: whether they are to be (None: where that is cheaper). `items`: how many there are, of at most so many
        `seconds`; `drawn`: rows of all steps. Raises `UserError` where they are to be kept and cannot.
        """
        reason = self.why_not
        require(asked is not True or reason is None, "cache", asked, f"features are not kept: {reason}")
        if reason is not None:
            context.say(f"stage {self.stage}: clips are encoded whenever they are drawn, since {reason}")
        if asked is False or reason is not None:
            return False
        config = self.model.config
        counts = config.frame_counts(round(seconds * context.corpus.rate_hz))
        size = 4.0 * items * sum(frames * each.width for frames, each in zip(counts, config.encoders, strict=True))
        cheaper = drawn > items and size <= CACHE_BYTES
        if asked or cheaper:
            context.say(
                f"stage {self.stage}: features of {items} items are kept (at most {size / 1e9:.2f} GB), since "
                f"{drawn} are drawn and the encoder is frozen"
            )
        return bool(asked or cheaper)

    @property
    def why_not(self) -> str | None:
        """Why what encoders make of a clip cannot be kept; None where it can."""
        for name in self._encoders:
            if name not in self.frozen:
                return f"the {name} is trained"
            if name in self.born.get("lora", {}):
                return f"LoRA changes the {name}"
        return "there are several processes" if jax.process_count() > 1 else None

    @property
    def _encoders(self) -> list[str]:
        return [encoder_name(place) for place in range(len(self.model.config.encoders))]

    def beside(self, found: Sequence[TaskItems], parts: Parts, context: StageContext) -> list[TaskItems]:
        """The items with what the encoders make of their clips, from tables that are written unless they are there.

        Tasks that hear the same clips share a table, and so do stages.
        """
        boxed = {name: parts.frozen["frozen"][name] for name in self._encoders}
        encoders = load_part(unbox(boxed), shardings_for(boxed, self.mesh.make(), self.mesh.rules))
        plain = self.model.model if isinstance(self.model, LoRAModel) else self.model
        name, made, by = f"{self.stage} features", list[TaskItems](), self._made_by(parts)
        for source, example in found:
            clips = Clips(source, example)
            table = self.tables / content_hash([clips.signature, by])[:16]
            joined = with_features(clips, plain, encoders, table, name, context.progress)
            frames = plain.config.frame_counts(example.clip)
            made.append((joined, dataclasses.replace(example, frames=frames)))
        return made

    def _made_by(self, parts: Parts) -> Any:
        """What tells features from others: configs and weights of the encoders."""
        own = [source for source in parts.sources if source.path.split("/", 1)[-1] in self._encoders]
        weights = [[parts.hashes[source.path], source.dtype] for source in own]
        return [[encoder.to_json() for encoder in self.model.config.encoders], weights]
