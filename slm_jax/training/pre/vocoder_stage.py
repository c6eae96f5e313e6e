"""What stages that train a vocoder share: its losses, its judges, who learns (Kong et al. 2020 for the judges)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from slm_jax.decoders.discriminators import Discriminators, DiscriminatorsConfig
from slm_jax.decoders.mel_vocoder import MelVocoder
from slm_jax.decoders.unit_vocoder import UnitVocoder
from slm_jax.objectives.vocoder import DiscriminatorObjective, GeneratorObjective, VocoderLossConfig
from slm_jax.training.gradient_stage import GradientStageConfig, Learner, without_warmup
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.step import Player


class VocoderStageConfig(GradientStageConfig):
    """Trains a vocoder by `losses`; adversarially where there are `discriminators`.

    `start_from`: an earlier stage of the same kind (spectral losses first, judges after).
    """

    losses: VocoderLossConfig = VocoderLossConfig()
    discriminators: DiscriminatorsConfig | None = None
    judge_optimizer: OptimizerConfig = OptimizerConfig(learning_rate=2e-4, betas=(0.8, 0.99))
    start_from: str | None = None

    def shortened(self) -> "VocoderStageConfig":
        short = super().shortened()
        assert isinstance(short, VocoderStageConfig)  # for the type checker
        return short.replace(judge_optimizer=without_warmup(self.judge_optimizer))

    def players(
        self, vocoder: UnitVocoder | MelVocoder, initialise: Callable[[jax.Array], Any], samples: int
    ) -> Learner:
        """How all begin, and who learns, from segments of so many samples."""
        judges = None if self.discriminators is None else self.discriminators.make()

        def start(key: jax.Array) -> dict[str, Any]:
            parts = {"generator": initialise(key)["params"]}
            if judges is not None:
                silence = jnp.zeros((1, samples))
                parts["discriminator"] = judges.init(jax.random.fold_in(key, 1), silence)["params"]
            return {"params": parts}

        return start, self._players(vocoder, judges)

    def _players(self, vocoder: UnitVocoder | MelVocoder, judges: Discriminators | None) -> list[Player]:
        generator = GeneratorObjective(self.losses, vocoder, judges)
        player = Player(
            name="generator",
            objective=generator,
            owns=generator.owns,
            optimizer=self.optimizer,
            shows=None if judges is None else generator.shows,
        )
        players = [player]
        if judges is not None:  # the judges move first, on what the generator made before this step
            judging = DiscriminatorObjective(vocoder, judges)
            judge = Player(name="judges", objective=judging, owns=judging.owns, optimizer=self.judge_optimizer)
            players.insert(0, judge)
        return players
