"""Optimizers and schedules from a config."""

from collections.abc import Iterable
from typing import Any, Literal

import jax.numpy as jnp
import optax

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.trees import map_by_path, matching

NAMES = ("adamw", "adam", "lion", "sgd", "adafactor")
SCHEDULES = ("constant", "cosine", "inverse_sqrt", "linear", "polynomial", "exponential")
NO_DECAY = r"(.*/)?((bias|scale|gain|embedding_bias)$|[^/]*(norm|ln_)[^/]*/)"
REST = ""
"""In place of a group's name: leaves that no group matches."""


class GroupConfig(Config):
    """Leaves of a player with settings of their own: those whose path (`params/depth/...`) `match` matches.

    The regular expression is held to the start of the path. None takes the optimizer's own value. The schedule is
    that of the optimizer, towards another rate.
    """

    name: str
    match: str
    learning_rate: float | None = None
    weight_decay: float | None = None

    def __post_init__(self) -> None:
        require(bool(self.name) and "/" not in self.name, "name", self.name, "a group needs one, without a slash")
        rate, decay = self.learning_rate, self.weight_decay
        require(rate is None or rate > 0, f"learning_rate of group {self.name!r}", rate, "must be None or above 0")
        require(
            decay is None or decay >= 0, f"weight_decay of group {self.name!r}", decay, "must be None or at least 0"
        )


class OptimizerConfig(Config):
    """One optimizer with its schedule.

    The rate rises linearly from `learning_rate * start_fraction` over `warmup_steps`, stays for `hold_steps` and then
    follows `schedule` down to `learning_rate * final_fraction` at the last step (`constant` stays; `inverse_sqrt` falls
    with the root of the step and ignores `final_fraction`). fairseq's tri-stage schedule is `exponential` with all
    three. `weight_decay` is decoupled, multiplied by the rate, and spares the paths that the regular
    expression `no_decay` matches: biases and norms. `clip` bounds the global norm of the gradients of the player.
    `groups`: leaves with other rates or decays; a leaf belongs to the first one that matches it.
    """

    name: Literal["adamw", "adam", "lion", "sgd", "adafactor"] = "adamw"
    learning_rate: float = 3e-4
    schedule: Literal["constant", "cosine", "inverse_sqrt", "linear", "polynomial", "exponential"] = "cosine"
    warmup_steps: int = 0
    start_fraction: float = 0.0
    hold_steps: int = 0
    final_fraction: float = 0.0
    power: float = 2.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    momentum: float = 0.0
    weight_decay: float = 0.0
    no_decay: str = NO_DECAY
    clip: float | None = 1.0
    groups: tuple[GroupConfig, ...] = ()

    def __post_init__(self) -> None:
        require(self.name in NAMES, "optimizer.name", self.name, f"must be one of {NAMES}")
        require(self.schedule in SCHEDULES, "optimizer.schedule", self.schedule, f"must be one of {SCHEDULES}")
        require(self.learning_rate > 0, "optimizer.learning_rate", self.learning_rate, "must be above 0")
        for name in ("warmup_steps", "hold_steps"):
            require(getattr(self, name) >= 0, f"optimizer.{name}", getattr(self, name), "must be at least 0")
        for name in ("start_fraction", "final_fraction"):
            require(0 <= getattr(self, name) <= 1, f"optimizer.{name}", getattr(self, name), "must be in 0..1")
        require(all(0 <= b < 1 for b in self.betas), "optimizer.betas", self.betas, "each must be in [0, 1)")
        require(self.weight_decay >= 0, "optimizer.weight_decay", self.weight_decay, "must be at least 0")
        require(self.clip is None or self.clip > 0, "optimizer.clip", self.clip, "must be None or above 0")
        names = [group.name for group in self.groups]
        require(len(set(names)) == len(names), "optimizer.groups", names, "every group needs a name of its own")
        needs_floor = self.schedule == "exponential" and self.final_fraction == 0
        require(not needs_floor, "optimizer.final_fraction", 0, "must be above 0 for the exponential schedule")

    def schedule_for(self, total_steps: int) -> optax.Schedule:
        """Update number -> learning rate, for `total_steps` updates; a run shorter than its warm-up only rises."""
        peak, risen = self.learning_rate, self.warmup_steps
        falls = risen + self.hold_steps
        pieces = [self._falling(max(1, total_steps - falls))]
        if self.hold_steps:
            pieces.insert(0, optax.constant_schedule(peak))
        if risen:
            pieces.insert(0, optax.linear_schedule(peak * self.start_fraction, peak, risen))
        borders = [*([risen] if risen else []), *([falls] if self.hold_steps else [])]
        return optax.join_schedules(pieces, borders) if borders else pieces[0]

    def _falling(self, steps: int) -> optax.Schedule:
        peak, floor = self.learning_rate, self.learning_rate * self.final_fraction
        if self.schedule == "constant":
            return optax.constant_schedule(peak)
        if self.schedule == "cosine":
            return optax.cosine_decay_schedule(peak, steps, alpha=self.final_fraction)
        if self.schedule == "exponential":
            return optax.exponential_decay(peak, steps, self.final_fraction)
        if self.schedule == "inverse_sqrt":
            offset = max(self.warmup_steps, 1)
            # Joined schedules are also asked for updates before their own start, where the count is negative.
            return lambda count: peak * (offset / (jnp.maximum(count, 0) + offset)) ** 0.5
        power = 1.0 if self.schedule == "linear" else self.power
        return optax.polynomial_schedule(peak, floor, power, steps)

    def make(self, total_steps: int) -> optax.GradientTransformation:
        """Clip, optimizer, decay and rate as one transformation over the leaves a player owns."""
        parts = [] if self.clip is None else [optax.clip_by_global_norm(self.clip)]
        parts.append(self._direction())
        if not self.groups:
            return optax.chain(*parts, *self._move(total_steps))
        movers = {group.name: optax.chain(*self.of_group(group)._move(total_steps)) for group in self.groups}
        movers[REST] = optax.chain(*self._move(total_steps))
        return optax.chain(*parts, optax.multi_transform(movers, self._labels))

    def _labels(self, variables: Any) -> Any:
        return map_by_path(lambda path, _: self.group_of(path), variables)

    def of_group(self, group: GroupConfig) -> "OptimizerConfig":
        """The settings of a group."""
        given = {name: getattr(group, name) for name in ("learning_rate", "weight_decay")}
        return self.replace(groups=(), **{name: value for name, value in given.items() if value is not None})

    def group_of(self, path: str) -> str:
        """The name of the group that a leaf belongs to, `REST` where there is none."""
        return next((group.name for group in self.groups if matching(group.match)(path)), REST)

    def check_groups(self, paths: Iterable[str], player: str) -> None:
        """Raise `UserError` for a group that none of the leaves of `player` belongs to."""
        used = {self.group_of(path) for path in paths}
        for group in self.groups:
            rule = f"no leaf of player {player!r} is left for it"
            require(group.name in used, f"match of group {group.name!r}", group.match, rule)

    def rates(self, total_steps: int) -> dict[str, optax.Schedule]:
        """Schedules by the name under which they are logged."""
        groups = {f"learning_rate/{g.name}": self.of_group(g).schedule_for(total_steps) for g in self.groups}
        return {"learning_rate": self.schedule_for(total_steps), **groups}

    def _move(self, total_steps: int) -> list[optax.GradientTransformation]:
        """Decay and rate."""
        decay = [optax.add_decayed_weights(self.weight_decay, mask=self._decay_mask)] if self.weight_decay else []
        return [*decay, optax.scale_by_learning_rate(self.schedule_for(total_steps))]

    def _direction(self) -> optax.GradientTransformation:
        first, second = self.betas
        if self.name in ("adamw", "adam"):
            return optax.scale_by_adam(b1=first, b2=second, eps=self.eps)
        if self.name == "lion":
            return optax.scale_by_lion(b1=first, b2=second)
        if self.name == "sgd":
            return optax.trace(decay=self.momentum) if self.momentum else optax.identity()
        return optax.chain(optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0))

    def _decay_mask(self, params: Any) -> Any:
        spared = matching(self.no_decay)

        def decays(path: str, _: Any) -> bool:  # patterns from before paths began with a collection still hold
            return not (spared(path) or spared(path.partition("/")[2]))

        return map_by_path(decays, params)
