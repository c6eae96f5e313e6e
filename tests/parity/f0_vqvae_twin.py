"""A PyTorch twin of the F0 VQ-VAE under the released names, written from its shapes: one level, codes as a buffer."""

import pytest

torch = pytest.importorskip("torch")
nn = torch.nn


class Residual(nn.Module):
    """ReLU, dilated convolution, ReLU, convolution of one tap, beside what came in."""

    def __init__(self, width: int, inner: int, dilation: int, share: float) -> None:
        super().__init__()
        wide = nn.Conv1d(width, inner, 3, padding=dilation, dilation=dilation)
        self.model, self.share = nn.Sequential(nn.ReLU(), wide, nn.ReLU(), nn.Conv1d(inner, width, 1)), share

    def forward(self, x):
        return x + self.share * self.model(x)


class Residuals(nn.Module):
    def __init__(self, shape: dict, turned: bool) -> None:
        super().__init__()
        depth, cycle = shape["depth"], shape.get("dilation_cycle") or shape["depth"]
        dilations = [shape["dilation_growth_rate"] ** (place % cycle) for place in range(depth)]
        width, share = shape["width"], depth**-0.5 if shape.get("res_scale") else 1.0
        blocks = [Residual(width, int(width * shape["m_conv"]), dilation, share) for dilation in dilations]
        self.model = nn.Sequential(*(blocks[::-1] if turned else blocks))

    def forward(self, x):
        return self.model(x)


class Level(nn.Module):
    """The layers of one level, in the order of their names."""

    def __init__(self, *layers) -> None:
        super().__init__()
        self.model = nn.Sequential(*layers)


def strides_of(shape: dict) -> list[int]:
    (downs,), (strides,) = shape["downs_t"], shape["strides_t"]
    downs, strides = (one if isinstance(one, list) else [one] for one in (downs, strides))
    return [stride for stride, times in zip(strides, downs, strict=True) for _ in range(times)]


class Side(nn.Module):
    """Encoder, or decoder."""

    def __init__(self, shape: dict, inwards: bool) -> None:
        super().__init__()
        width, latent, strides = shape["width"], shape["output_emb_width"], strides_of(shape)
        layers = []
        for place, stride in enumerate(strides):
            taps = {"kernel_size": 2 * stride, "stride": stride, "padding": stride // 2}
            if inwards:
                given = shape["input_emb_width"] if place == 0 else width
                layers.append(nn.Sequential(nn.Conv1d(given, width, **taps), Residuals(shape, False)))
            else:
                made = latent if place == len(strides) - 1 else width
                turned = bool(shape.get("reverse_decoder_dilation"))
                layers.append(nn.Sequential(Residuals(shape, turned), nn.ConvTranspose1d(width, made, **taps)))
        edge = nn.Conv1d(width, latent, 3, padding=1) if inwards else nn.Conv1d(latent, width, 3, padding=1)
        self.level_blocks = nn.ModuleList([Level(*layers, edge) if inwards else Level(edge, *layers)])
        self.out = None if inwards else nn.Conv1d(latent, shape["input_emb_width"], 3, padding=1)

    def forward(self, x):
        x = self.level_blocks[0].model(x)
        return x if self.out is None else self.out(x)


class Book(nn.Module):
    def __init__(self, codes: int, width: int) -> None:
        super().__init__()
        self.register_buffer("k", torch.randn(codes, width))


class Books(nn.Module):
    def __init__(self, codes: int, width: int) -> None:
        super().__init__()
        self.level_blocks = nn.ModuleList([Book(codes, width)])


class F0VQVAE(nn.Module):
    """`[B, 2, P]` to codes `[B, P // hop]` and what they stand for `[B, 2, T hop]`."""

    def __init__(self, hub: dict) -> None:
        super().__init__()
        self.encoder, self.decoder = Side(hub["encoder_params"], True), Side(hub["decoder_params"], False)
        self.vq = Books(hub["vq_params"]["l_bins"], hub["vq_params"]["emb_width"])

    def forward(self, tracks):
        latents, entries = self.encoder(tracks), self.vq.level_blocks[0].k
        codes = torch.cdist(latents.transpose(1, 2), entries[None]).argmin(-1)
        return codes, self.decoder(entries[codes].transpose(1, 2)), latents
