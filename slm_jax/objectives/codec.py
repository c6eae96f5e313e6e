"""The two players of codec training: a codec (spectra, waveform, codebooks, judges' opinions) and its judges.

Source: Défossez et al. 2022, section 3.4; Kumar et al. 2023, section 3.5; the balancer is the former's appendix A.2.

Batch keys: `samples [B, N]` (float, or int16), `sample_mask [B, N]`, and `example [B]`, by which the rows are told
apart that lend their vectors to codes nobody chose. The parts are `generator` and `discriminator`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from slm_jax.assemblies.codec import Codec, CodecConfig, Coded
from slm_jax.core.config import Config
from slm_jax.core.contracts import SHOWN, Loss, Term
from slm_jax.core.errors import require
from slm_jax.core.trees import matching, variables_of
from slm_jax.decoders.discriminators import Judgement
from slm_jax.decoders.spectral_discriminators import Judges
from slm_jax.objectives.taught import LESSON, Teacher
from slm_jax.objectives.vocoder import (
    OWNS_DISCRIMINATOR,
    fooling_loss,
    judging_loss,
    real_waveform_of,
    spectrum_of,
)
from slm_jax.quantizers.codebooks import COLLECTION

OWNS_CODEC = matching(f"params/(generator|{LESSON})/")
BALANCE = "balance"
"""The collection of how large the gradient of each loss was, in the mean of earlier steps."""
LEARNT = ("commitment", "codes", "first")
"""What losses look at of a quantizer, beside the waveform."""
BALANCED = ("spectral", "waveform", "adversarial", "features")
EPSILON = 1e-12


class CodecLossConfig(Config):
    """Weights of the losses. `resolutions`: (n_fft, hop, mels) of the spectra that are compared; 0 mels: every bin.

    `squared`: of each resolution the root mean square of the difference counts beside the mean absolute one, as much as
    it (EnCodec). `linear`: SoundStream's form instead: absolute differences of the mels themselves, summed over bands,
    and the length of the difference of their logarithms, which counts sqrt(n_fft / 2). `hinge`: judges are trained with
    hinges (EnCodec) instead of squares (DAC). `relative_features`: feature matching relative to the size of the real
    ones. `commitment`, `codes`: mean over books. `balance`: None, or the decay of the means by which weights of losses
    of the waveform say how much each contributes to its gradient.
    """

    resolutions: tuple[tuple[int, int, int], ...] = ((2048, 512, 80), (1024, 256, 80), (512, 128, 64), (256, 64, 32))
    spectral: float = 1.0
    squared: bool = False
    linear: bool = False
    waveform: float = 0.1
    adversarial: float = 1.0
    features: float = 2.0
    commitment: float = 0.25
    codes: float = 1.0
    hinge: bool = False
    relative_features: bool = True
    balance: float | None = None

    def __post_init__(self) -> None:
        require(len(self.resolutions) > 0, "resolutions", self.resolutions, "at least one")
        for n_fft, hop, _ in self.resolutions:
            require(0 < hop <= n_fft and (n_fft - hop) % 2 == 0, "resolutions", (n_fft, hop), "hop <= n_fft, both even")
        fits = self.balance is None or 0 <= self.balance < 1
        require(fits, "balance", self.balance, "must be None or in [0, 1)")
        require(not (self.linear and self.squared), "linear", self.linear, "squared is of the other form")


class CodecObjective:
    """What the codec minimises; owns `params/generator/`, and what a `teacher` has learnt from it, `params/lesson/`."""

    owns = staticmethod(OWNS_CODEC)

    def __init__(
        self, config: CodecLossConfig, codec: Codec, judges: Judges | None = None, teacher: Teacher | None = None
    ) -> None:
        self.config, self.codec, self.judges, self.teacher = config, codec, judges, teacher
        rate = codec.config.rate_hz
        self.spectra = [spectrum_of(n_fft, hop, mels, rate) for n_fft, hop, mels in config.resolutions]

    def __call__(self, variables: Any, batch: Any, rng: jax.Array, frozen: Any = None) -> Loss:
        c, mask = self.config, batch["sample_mask"]
        target, coded = real_waveform_of(batch), coded_of(self.codec, variables, batch, rng)
        made = coded.samples[:, : target.shape[1]]
        losses = self.of_waveform(variables, target, mask)
        rows = losses(made)
        counted = mask.sum(-1).astype(jnp.float32)
        weights = dict(zip(BALANCED, (c.spectral, c.waveform, c.adversarial, c.features), strict=True))
        balance = variables.get(BALANCE)
        terms = {}
        for name, value in rows.items():
            share = weights[name] if balance is None else weights[name] / jnp.maximum(_norm(balance, name), EPSILON)
            terms[name] = Term((value * counted).sum(), counted.sum(), jax.lax.stop_gradient(share))
        terms |= self._of_books(coded.quantized, coded.latents.mask)
        if self.teacher is not None:
            terms["taught"] = self.teacher.term(variables, frozen, batch, coded.quantized.first)
        stats = self._stats(coded.quantized.seen, losses, made, counted, balance)
        return Loss(terms, {name: (term.total, term.count) for name, term in terms.items()}, stats)

    def shows(self, variables: Any, batch: Any, rng: jax.Array, frozen: Any = None) -> tuple[Any, Any]:
        """What the codec makes of a batch, for its judges too."""
        coded = coded_of(self.codec, variables, batch, rng)
        return (coded.samples, *(getattr(coded.quantized, name) for name in LEARNT)), coded

    def of_waveform(
        self, variables: Any, target: Float[Array, "B N"], mask: Bool[Array, "B N"]
    ) -> Callable[[Float[Array, "B N"]], dict[str, Float[Array, "B"]]]:
        """The losses of a waveform, one for each row, that do not look at codebooks."""
        c = self.config
        judge = None
        if self.judges is not None:
            judge = partial(self.judges.apply, variables_of(variables, "discriminator"))
        of_real: Any = None if judge is None else jax.lax.stop_gradient(judge(target))

        def losses(made: Float[Array, "B N"]) -> dict[str, Float[Array, "B"]]:
            found = {"spectral": self.spectral(made, target, mask)}
            if c.waveform:
                found["waveform"] = _row_mean(jnp.abs(made - target), mask)
            if judge is not None:
                of_made = judge(made)
                found["adversarial"] = hinged_fooling(of_made) if c.hinge else fooling_loss(of_made) / len(of_made)
                found["features"] = matched_features(of_real, of_made, c.relative_features)
            return found

        return losses

    def spectral(
        self, made: Float[Array, "B N"], target: Float[Array, "B N"], mask: Bool[Array, "B N"]
    ) -> Float[Array, "B"]:
        """Difference of log spectra over the real part of each row, the mean over resolutions."""
        total: Any = 0.0
        for (n_fft, hop, _), spectrum in zip(self.config.resolutions, self.spectra, strict=True):
            found, wanted = spectrum(made), spectrum(target)
            real = mask[:, : found.shape[1] * hop : hop]
            if self.config.linear:
                total = total + _row_mean(of_mels_and_logs(found, wanted, n_fft), real)
                continue
            difference = found - wanted
            total = total + _row_mean(jnp.abs(difference).mean(-1), real)
            if self.config.squared:
                total = total + jnp.sqrt(_row_mean(jnp.square(difference).mean(-1), real) + EPSILON)
        return total / len(self.spectra)

    def _of_books(self, quantized: Any, mask: Bool[Array, "B T"]) -> dict[str, Term]:
        """Commitment, and for codebooks that a gradient moves their own loss: means over frames and used books."""
        c = self.config
        used = (mask[..., None] & quantized.used[:, None]).sum().astype(jnp.float32)
        terms = {}
        if c.commitment and quantized.commitment.shape[-1] and not _none(self.codec.config):
            terms["commitment"] = Term(_real(quantized.commitment, mask).sum(), used, c.commitment)
            if quantized.seen is None:
                terms["codes"] = Term(_real(quantized.codes, mask).sum(), used, c.codes)
        return terms

    def _stats(
        self, seen: Any, losses: Callable, made: jax.Array, counted: jax.Array, balance: Any
    ) -> dict[str, Any] | None:
        """Sums for the collections that are counted."""
        stats = {} if seen is None else {COLLECTION: seen}
        if balance is not None:
            stats[BALANCE] = gradient_squares(losses, made, counted)
        return stats or None


class JudgesObjective:
    """What the judges minimise; owns `params/discriminator/`."""

    owns = staticmethod(OWNS_DISCRIMINATOR)

    def __init__(self, config: CodecLossConfig, codec: Codec, judges: Judges) -> None:
        self.config, self.codec, self.judges = config, codec, judges

    def __call__(self, variables: Any, batch: Any, rng: jax.Array, frozen: Any = None) -> Loss:
        mask, target = batch["sample_mask"], real_waveform_of(batch)
        made = jax.lax.stop_gradient(coded_of(self.codec, variables, batch, rng).samples[:, : target.shape[1]])
        judge = partial(self.judges.apply, variables_of(variables, "discriminator"))
        of_real, of_made = judge(target), judge(made)
        rows = hinged_judging(of_real, of_made) if self.config.hinge else judging_loss(of_real, of_made) / len(of_real)
        counted = mask.sum(-1).astype(jnp.float32)
        term = Term((rows * counted).sum(), counted.sum())
        return Loss({"judging": term}, {"judging": (term.total, term.count)})


def coded_of(codec: Codec, variables: Any, batch: Any, rng: jax.Array) -> Coded:
    """What the codec makes of a batch in training, unless the batch has it already."""
    if SHOWN in batch:
        (samples, *learnt), coded = batch[SHOWN]
        quantized = coded.quantized._replace(**dict(zip(LEARNT, learnt, strict=True)))
        return coded._replace(samples=samples, quantized=quantized)
    generator, mask = variables_of(variables, "generator"), batch["sample_mask"]
    how = {"deterministic": False, "rngs": {"dropout": rng}}
    return codec.apply(generator, real_waveform_of(batch), mask, batch["example"], **how)


def moved(config: CodecConfig, losses: CodecLossConfig, variables: Any, stats: Any) -> dict[str, Any]:
    """The collections that are counted, after a step: codebooks that follow what chose them, sizes of gradients."""
    after = {}
    if COLLECTION in stats:
        books = variables[COLLECTION]["generator"]["quantizer"]
        after[COLLECTION] = {"generator": {"quantizer": config.quantizer.moved(books, stats[COLLECTION])}}
    if BALANCE in stats:
        assert losses.balance is not None  # for the type checker
        decay, old = losses.balance, variables[BALANCE]
        squares = {name: jnp.sqrt(total / jnp.maximum(rows, 1)) for name, (total, rows) in stats[BALANCE].items()}
        after[BALANCE] = {
            "sums": {name: decay * old["sums"][name] + (1 - decay) * squares[name] for name in squares},
            "weight": decay * old["weight"] + (1 - decay),
        }
    return after


def first_balance(losses: CodecLossConfig, judged: bool) -> dict[str, Any]:
    """The collection before the first step, when weights count as they are."""
    names = [name for name in (BALANCED if judged else BALANCED[:2]) if name != "waveform" or losses.waveform]
    return {"sums": {name: jnp.zeros(()) for name in names}, "weight": jnp.zeros(())}


def gradient_squares(losses: Callable, made: jax.Array, counted: jax.Array) -> dict[str, tuple[jax.Array, jax.Array]]:
    """(sum over rows of the squared length of each loss' gradient by the row's waveform, rows)."""
    rows, back = jax.vjp(losses, jax.lax.stop_gradient(made))
    found, real = {}, (counted > 0).astype(jnp.float32)
    for name in rows:
        only = {other: jnp.full_like(value, other == name) for other, value in rows.items()}
        found[name] = ((jnp.square(back(only)[0]).sum(-1) * real).sum(), real.sum())
    return found


def of_mels_and_logs(found: Float[Array, "B T M"], wanted: Float[Array, "B T M"], n_fft: int) -> Float[Array, "B T"]:
    """How far two log spectra lie apart, frame by frame, by themselves and by their logarithms (SoundStream)."""
    logs = jnp.sqrt(jnp.square(found - wanted).sum(-1) + EPSILON)
    return jnp.abs(jnp.exp(found) - jnp.exp(wanted)).sum(-1) + (n_fft / 2) ** 0.5 * logs


def hinged_fooling(of_made: list[Judgement]) -> Float[Array, "B"]:
    """Mean over judges of max(0, 1 - score)."""
    return jnp.stack([jax.nn.relu(1.0 - scores).mean(-1) for scores, _ in of_made]).mean(0)


def hinged_judging(of_real: list[Judgement], of_made: list[Judgement]) -> Float[Array, "B"]:
    """Mean over judges of max(0, 1 - score of the real) + max(0, 1 + score of the made)."""
    real = jnp.stack([jax.nn.relu(1.0 - scores).mean(-1) for scores, _ in of_real])
    return (real + jnp.stack([jax.nn.relu(1.0 + scores).mean(-1) for scores, _ in of_made])).mean(0)


def matched_features(of_real: list[Judgement], of_made: list[Judgement], relative: bool) -> Float[Array, "B"]:
    """Mean over judges and layers of absolute differences of features, relative to the size of the row's real ones."""
    total: Any = 0.0
    layers = 0
    for (_, real_layers), (_, made_layers) in zip(of_real, of_made, strict=True):
        for real, made in zip(real_layers, made_layers, strict=True):
            real, made = (x.astype(jnp.float32).reshape(len(x), -1) for x in (real, made))
            difference = jnp.abs(real - made).mean(-1)
            total = total + (difference / jnp.maximum(jnp.abs(real).mean(-1), EPSILON) if relative else difference)
            layers += 1
    return total / layers


def _norm(balance: Any, name: str) -> jax.Array:
    """Size of a loss' gradient in the mean of earlier steps; 1 before the first."""
    weight = balance["weight"]
    return jnp.where(weight > 0, balance["sums"][name] / jnp.where(weight > 0, weight, 1.0), 1.0)


def _none(config: CodecConfig) -> bool:
    """Whether there is nothing to commit to: rounding has no table."""
    return not hasattr(config.quantizer, "codebook") and not hasattr(config.quantizer, "parts")


def _real(values: Float[Array, "B T Q"], mask: Bool[Array, "B T"]) -> Float[Array, "B T Q"]:
    return jnp.where(mask[..., None], values, 0.0)


def _row_mean(values: Float[Array, "B T"], mask: Bool[Array, "B T"]) -> Float[Array, "B"]:
    """Mean over the real entries of each row, 0 for a row without any."""
    return jnp.where(mask, values, 0.0).sum(-1) / jnp.maximum(mask.sum(-1), 1)
