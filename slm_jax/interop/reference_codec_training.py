"""Adversarial training of EnCodec in PyTorch, for `bench`: the model of `transformers`, and what it leaves out.

It has no judges, no losses and no averages of codebooks. Those here are what one would write beside it: judges of
complex spectrograms, hinges, relative feature matching, log spectra, codes that follow what chose them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from slm_jax.interop.reference import Arrays, config_json, state_arrays
from slm_jax.interop.reference_bench import TorchJob, Way, as_array, as_tensor, counted, placed
from slm_jax.interop.reference_bench_codecs import drawn_codec, fitted

EPSILON, FLOOR = 1e-12, 1e-5
JUDGES_GAIN = 1.2


class JudgesShape(NamedTuple):
    """Windows in samples, channels, and how far apart the middle layers see."""

    n_ffts: Sequence[int]
    filters: int
    dilations: Sequence[int]


class LossShape(NamedTuple):
    """(n_fft, hop) of the spectra that are compared, the weight of every loss, decay and epsilon of the averages."""

    resolutions: Sequence[tuple[int, int]]
    weights: Mapping[str, float]
    decay: float
    epsilon: float


class Begun(NamedTuple):
    """How it starts: what `transformers` holds is in the job; codes [Q, K, D]; layers of each judge by name."""

    entries: np.ndarray
    judges: list[dict[str, dict[str, np.ndarray]]]


class CodecTorch:
    """A codec with its codebooks and judges, and one optimizer for each side."""

    def __init__(self, hub_config: Mapping[str, Any], judges: JudgesShape, losses: LossShape, samples: np.ndarray):
        import torch

        self.losses, model = losses, drawn_codec("encodec", hub_config)
        with torch.inference_mode(), fitted(model):
            model.encode(torch.from_numpy(samples[:, None]))
        self.weights = {name: value.copy() for name, value in state_arrays(model).items()}
        entries = np.stack([layer.codebook.embed.numpy() for layer in model.quantizer.layers])
        self.model, self.inputs = placed(model, "float32").train(), as_tensor(samples)
        self.entries, self.sums = as_tensor(entries.copy()), as_tensor(entries.copy())
        self.usage = torch.ones_like(self.entries[..., 0])
        self.judges = [placed(torch.nn.ModuleList(judge_layers(judges)), "float32") for _ in judges.n_ffts]
        self.n_ffts = judges.n_ffts
        self.begun = Begun(entries, [_layers_of(judge) for judge in self.judges])

    def step(self, optimizers: Sequence[Any]) -> Arrays:
        """Judges first, then the codec, on one making of the sound; gives both losses."""
        import torch

        judging, making = optimizers
        made, commitment, chosen = self.coded()
        judging.zero_grad(set_to_none=True)
        loss = self.judging(self.judged(self.inputs), self.judged(made.detach()))
        loss.backward()
        judging.step()
        making.zero_grad(set_to_none=True)
        with torch.no_grad():
            real = self.judged(self.inputs)
        total = self.of_codec(made, commitment, real)
        total.backward()
        making.step()
        self.follow(*chosen)
        return {"judges": as_array(loss), "codec": as_array(total)}

    def coded(self) -> tuple[Any, Any, tuple[Any, Any]]:
        """Sound, commitment, and (ids, vectors) of every book."""
        import torch

        latents = self.model.encoder(self.inputs[:, None]).transpose(1, 2)
        left, total, commitment, ids, vectors = latents, torch.zeros_like(latents), 0.0, [], []
        for entries in self.entries:
            flat = left.detach().reshape(-1, left.shape[-1])
            ids.append((entries.square().sum(-1) - 2 * flat @ entries.T).argmin(-1))
            vectors.append(flat)
            code = entries[ids[-1]].view_as(left)
            commitment = commitment + (left - code).square().mean() / len(self.entries)
            left, total = left - code, total + code
        passed = latents + (total - latents).detach()
        sound = self.model.decoder(passed.transpose(1, 2))[:, 0]
        return sound[:, : self.inputs.shape[1]], commitment, (torch.stack(ids), torch.stack(vectors))

    def follow(self, ids: Any, vectors: Any) -> None:
        """Move every code towards the mean of what chose it."""
        import torch

        decay, size = self.losses.decay, self.entries.shape[1]
        counts = torch.zeros_like(self.usage).scatter_add_(1, ids, torch.ones_like(vectors[..., 0]))
        places = ids[..., None].expand_as(vectors)
        sums = torch.zeros_like(self.sums).scatter_add_(1, places, vectors)
        self.usage = decay * self.usage + (1 - decay) * counts
        self.sums = decay * self.sums + (1 - decay) * sums
        total = self.usage.sum(-1, keepdim=True)
        smooth = (self.usage + self.losses.epsilon) / (total + size * self.losses.epsilon) * total
        self.entries = self.sums / smooth[..., None]

    def judged(self, samples: Any) -> list[tuple[Any, list[Any]]]:
        """(scores, features) of every judge."""
        import torch

        found = []
        for n_fft, layers in zip(self.n_ffts, self.judges, strict=True):
            window = torch.hann_window(n_fft, device=samples.device)
            made = torch.stft(samples, n_fft, n_fft // 4, window=window, center=False, return_complex=True)
            x = torch.view_as_real(made / window.square().sum().sqrt()).permute(0, 3, 2, 1)
            features = []
            *inner, last = layers
            for layer in inner:
                x = torch.nn.functional.leaky_relu(layer(x), 0.2)
                features.append(x)
            found.append((last(x), features))
        return found

    def judging(self, real: list[tuple[Any, list[Any]]], made: list[tuple[Any, list[Any]]]) -> Any:
        """What the judges minimise."""
        pairs = zip(real, made, strict=True)
        return sum((1 - r).relu().mean() + (1 + m).relu().mean() for (r, _), (m, _) in pairs) / len(made)

    def of_codec(self, made: Any, commitment: Any, real: list[tuple[Any, list[Any]]]) -> Any:
        """What the codec minimises."""
        judged, w = self.judged(made), self.losses.weights
        fooling = sum((1 - scores).relu().mean() for scores, _ in judged) / len(judged)
        terms = {
            "spectral": self.spectral(made),
            "waveform": (made - self.inputs).abs().mean(),
            "adversarial": fooling,
            "features": _matched(real, judged),
            "commitment": commitment,
        }
        return sum(w[name] * term for name, term in terms.items())

    def spectral(self, made: Any) -> Any:
        """Mean absolute and root mean square differences of log spectra."""
        total: Any = 0.0
        for n_fft, hop in self.losses.resolutions:
            difference = _log_spectrum(made, n_fft, hop) - _log_spectrum(self.inputs, n_fft, hop)
            total = total + difference.abs().mean()
            total = total + (difference.square().mean((1, 2)) + EPSILON).sqrt().mean()
        return total / len(self.losses.resolutions)


def training(
    hub_config: Mapping[str, Any],
    judges: JudgesShape,
    losses: LossShape,
    samples: np.ndarray,
    optimizer: Mapping[str, Any],
) -> tuple[TorchJob, Begun]:
    """One step of both sides on `samples` [B, N]; gives the two losses before it."""
    import torch

    codec = CodecTorch(hub_config, judges, losses, samples)
    sides = (
        [p for judge in codec.judges for p in judge.parameters()],
        [*codec.model.encoder.parameters(), *codec.model.decoder.parameters()],
    )
    optimizers = [torch.optim.Adam(side, fused=True, **optimizer) for side in sides]

    def once() -> None:
        made, commitment, _ = codec.coded()
        codec.judging(codec.judged(codec.inputs), codec.judged(made.detach())).backward()
        with torch.no_grad():
            real = codec.judged(codec.inputs)
        codec.of_codec(made, commitment, real).backward()

    flops = counted(once, gradients=True)
    ways: dict[str, Way] = {"eager": lambda: codec.step(optimizers)}
    return TorchJob("encodec", "transformers", config_json(codec.model), codec.weights, ways, flops), codec.begun


def judge_layers(shape: JudgesShape) -> list[Any]:
    """The convolutions of one judge, weights normed."""
    import torch
    from torch.nn.utils.parametrizations import weight_norm

    width = shape.filters
    sizes: list[tuple[int, int, tuple[int, int], tuple[int, int], tuple[int, int]]] = [
        (2, width, (3, 9), (1, 1), (1, 1))
    ]
    sizes += [(width, width, (3, 9), (1, 2), (dilation, 1)) for dilation in shape.dilations]
    sizes += [(width, width, (3, 3), (1, 1), (1, 1)), (width, 1, (3, 3), (1, 1), (1, 1))]
    layers = []
    for inwards, outwards, kernel, stride, dilation in sizes:
        padding = (dilation[0], kernel[1] // 2)
        layer = torch.nn.Conv2d(inwards, outwards, kernel, stride, padding, dilation)
        torch.nn.init.normal_(layer.weight, std=JUDGES_GAIN / (inwards * kernel[0] * kernel[1]) ** 0.5)
        layers.append(weight_norm(layer))
    return layers


def _layers_of(judge: Any) -> dict[str, dict[str, np.ndarray]]:
    """The weights of a judge under our names."""
    found = {}
    for index, layer in enumerate(judge):
        name = "conv_post" if index == len(judge) - 1 else f"Conv2d_{index}"
        normed = layer.parametrizations.weight
        found[name] = {
            "weight_g": as_array(normed.original0.permute(2, 3, 1, 0)).copy(),
            "weight_v": as_array(normed.original1.permute(2, 3, 1, 0)).copy(),
            "bias": as_array(layer.bias).copy(),
        }
    return found


def _matched(real: list[tuple[Any, list[Any]]], made: list[tuple[Any, list[Any]]]) -> Any:
    """Mean over judges and layers of the differences of features, relative to the real ones of each row."""
    total: Any = 0.0
    layers = [pair for (_, r), (_, m) in zip(real, made, strict=True) for pair in zip(r, m, strict=True)]
    for r, m in layers:
        size = r.abs().mean((1, 2, 3)).clamp(min=EPSILON)
        total = total + ((r - m).abs().mean((1, 2, 3)) / size).mean()
    return total / len(layers)


def _log_spectrum(samples: Any, n_fft: int, hop: int) -> Any:
    import torch

    side = (n_fft - hop) // 2
    padded = torch.nn.functional.pad(samples[:, None], (side, side), mode="reflect")[:, 0]
    window = torch.hann_window(n_fft, device=samples.device)
    made = torch.stft(padded, n_fft, hop, window=window, center=False, return_complex=True)
    return 0.5 * (made.real.square() + made.imag.square()).clamp(min=FLOOR**2).log()
