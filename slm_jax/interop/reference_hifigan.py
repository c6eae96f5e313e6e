"""HiFi-GAN written out in PyTorch under the names of published files, for which `transformers` has no class.

Sources: Kong et al. 2020 (the generator), Polyak et al. 2021 and Lee et al. 2022 (on units, with durations).
"""

import warnings
from collections.abc import Mapping
from typing import Any


def original_generator(hub_config: Mapping[str, Any], inputs: int | None = None, normed: bool = True) -> Any:
    """HiFi-GAN's generator under the names of the published checkpoints (Kong et al. 2020): [B, D, T] -> [B, 1, N].

    `inputs`: width of what it reads, `num_mels` unless given. `normed`: with weight norm (`weight_g`, `weight_v`).
    """
    import torch
    from torch.nn.functional import leaky_relu

    rates, kernels = hub_config["upsample_rates"], hub_config["upsample_kernel_sizes"]
    blocks = tuple(zip(hub_config["resblock_kernel_sizes"], hub_config["resblock_dilation_sizes"], strict=True))
    width = hub_config["upsample_initial_channel"]

    def wrap(layer: Any) -> Any:
        with warnings.catch_warnings():  # the deprecated form is the one whose names published files have
            warnings.simplefilter("ignore", FutureWarning)
            return torch.nn.utils.weight_norm(layer) if normed else layer

    def conv(inputs: int, outputs: int, kernel: int, dilation: int = 1) -> Any:
        pads = dilation * (kernel - 1) // 2
        return wrap(torch.nn.Conv1d(inputs, outputs, kernel, dilation=dilation, padding=pads))

    class Block(torch.nn.Module):
        def __init__(self, width: int, kernel: int, dilations: list[int]) -> None:
            super().__init__()
            dilated = torch.nn.ModuleList([conv(width, width, kernel, dilation) for dilation in dilations])
            if str(hub_config["resblock"]) == "2":
                self.convs = dilated
            else:
                self.convs1 = dilated
                self.convs2 = torch.nn.ModuleList([conv(width, width, kernel) for _ in dilations])

        def forward(self, x: Any) -> Any:
            if hasattr(self, "convs"):
                for layer in self.convs:
                    x = x + layer(leaky_relu(x, 0.1))
                return x
            for first, second in zip(self.convs1, self.convs2, strict=True):
                x = x + second(leaky_relu(first(leaky_relu(x, 0.1)), 0.1))
            return x

    class Generator(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            widths = [width // 2**stage for stage in range(len(rates) + 1)]
            self.conv_pre = conv(hub_config["num_mels"] if inputs is None else inputs, width, 7)
            self.ups = torch.nn.ModuleList(
                wrap(torch.nn.ConvTranspose1d(a, b, kernel, rate, (kernel - rate) // 2))
                for a, b, kernel, rate in zip(widths, widths[1:], kernels, rates, strict=False)
            )
            self.resblocks = torch.nn.ModuleList(Block(w, *block) for w in widths[1:] for block in blocks)
            self.conv_post = conv(widths[-1], 1, 7)

        def forward(self, x: Any) -> Any:
            x = self.conv_pre(x)
            for stage, up in enumerate(self.ups):
                x = up(leaky_relu(x, 0.1))
                mine = self.resblocks[stage * len(blocks) : (stage + 1) * len(blocks)]
                x = sum(block(x) for block in mine) / len(blocks)
            return torch.tanh(self.conv_post(leaky_relu(x)))

    return Generator()


def unit_generator(hub_config: Mapping[str, Any]) -> Any:
    """The generator with what fairseq's CodeHiFiGAN has in front of it: `dict`, `spkr`, `dur_predictor`.

    Its `forward` is the generator's; `features` makes what that reads out of the units of one row.
    """
    import torch

    width = hub_config["embedding_dim"]
    model = original_generator(hub_config, inputs=hub_config["model_in_dim"])
    model.dict = torch.nn.Embedding(hub_config["num_embeddings"], width)
    if hub_config.get("multispkr"):
        model.spkr = torch.nn.Embedding(hub_config["num_speakers"], width)
    if "dur_predictor_params" in hub_config:
        model.dur_predictor = duration_predictor(width, hub_config["dur_predictor_params"]["var_pred_hidden_dim"])
    return model


def features(model: Any, units: Any, speaker: Any, log_f0: Any) -> Any:
    """[1, T] units -> [1, D, frames]: each unit as long as predicted, then F0, then the speaker."""
    import torch

    x = model.dict(units)
    if hasattr(model, "dur_predictor"):
        frames = torch.clamp(torch.round(torch.expm1(model.dur_predictor(x))).long(), min=1)
        x = torch.repeat_interleave(x, frames[0], dim=1)
    parts = [x] if log_f0 is None else [x, log_f0[..., None].to(x.dtype)]
    if hasattr(model, "spkr"):
        parts.append(model.spkr(speaker)[:, None].expand(-1, x.shape[1], -1))
    return torch.cat(parts, dim=-1).transpose(1, 2)


def duration_predictor(width: int, hidden: int) -> Any:
    """[B, T, D] -> ln(frames + 1) [B, T]: two convolutions, each with a rectifier and a layer norm."""
    import torch

    class Predictor(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = torch.nn.Sequential(torch.nn.Conv1d(width, hidden, 3, padding=1), torch.nn.ReLU())
            self.ln1 = torch.nn.LayerNorm(hidden)
            self.conv2 = torch.nn.Sequential(torch.nn.Conv1d(hidden, hidden, 3, padding=1), torch.nn.ReLU())
            self.ln2 = torch.nn.LayerNorm(hidden)
            self.proj = torch.nn.Linear(hidden, 1)

        def forward(self, x: Any) -> Any:
            x = self.ln1(self.conv1(x.transpose(1, 2)).transpose(1, 2))
            x = self.ln2(self.conv2(x.transpose(1, 2)).transpose(1, 2))
            return self.proj(x)[..., 0]

    return Predictor()
