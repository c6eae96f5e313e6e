"""BEATs in plain PyTorch under the published names of its weights: what ours is held to.

Written from the paper and the shapes of the published checkpoints. The filter bank is that of transformers.
"""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
audio_utils = pytest.importorskip("transformers.audio_utils")

nn, functional = torch.nn, torch.nn.functional

CFG = {
    "input_patch_size": 16,
    "embed_dim": 12,
    "encoder_layers": 3,
    "encoder_embed_dim": 24,
    "encoder_ffn_embed_dim": 40,
    "encoder_attention_heads": 3,
    "conv_pos": 8,
    "conv_pos_groups": 4,
    "num_buckets": 16,
    "max_distance": 30,
    "deep_norm": True,
    "relative_position_embedding": True,
    "gru_rel_pos": True,
}
PUBLISHED = CFG | {
    "embed_dim": 512,
    "encoder_layers": 12,
    "encoder_embed_dim": 768,
    "encoder_ffn_embed_dim": 3072,
    "encoder_attention_heads": 12,
    "conv_pos": 128,
    "conv_pos_groups": 16,
    "num_buckets": 320,
    "max_distance": 1280,
}


def fbank(samples: np.ndarray) -> np.ndarray:
    """Standardised Kaldi filter bank of one row."""
    filters = audio_utils.mel_filter_bank(257, 128, 20, 8000, 16_000, None, "kaldi", triangularize_in_mel_space=True)
    energies = audio_utils.spectrogram(
        samples.astype(np.float64) * 2**15,
        audio_utils.window_function(400, "povey", periodic=False),
        400,
        160,
        512,
        power=2.0,
        center=False,
        preemphasis=0.97,
        mel_filters=filters,
        log_mel="log",
        mel_floor=1.192092955078125e-07,
        remove_dc_offset=True,
    )
    return (energies.T.astype(np.float32) - 15.41663) / (2 * 6.55582)


class SelfAttention(nn.Module):
    def __init__(self, width, heads, table):
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))
        self.grep_linear = nn.Linear(width // heads, 8)
        self.grep_a = nn.Parameter(torch.ones(1, heads, 1, 1))
        self.relative_attention_bias = table
        self.heads = heads
        self.gate_reads_input = False

    def split(self, x):
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x, padding, buckets):
        q, k, v = (self.split(project(x)) for project in (self.q_proj, self.k_proj, self.v_proj))
        gated = self.split(x) if self.gate_reads_input else q
        first, second = torch.sigmoid(self.grep_linear(gated).unflatten(-1, (2, 4)).sum(-1)).chunk(2, -1)
        bias = self.relative_attention_bias(buckets).permute(2, 0, 1)
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + (first * (second * self.grep_a - 1) + 2) * bias
        scores = scores.masked_fill(padding[:, None, None], -math.inf)
        return self.out_proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class Layer(nn.Module):
    def __init__(self, cfg, table):
        super().__init__()
        width, hidden = cfg["encoder_embed_dim"], cfg["encoder_ffn_embed_dim"]
        self.self_attn = SelfAttention(width, cfg["encoder_attention_heads"], table)
        self.self_attn_layer_norm, self.final_layer_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.alpha = (2 * cfg["encoder_layers"]) ** 0.25

    def forward(self, x, padding, buckets):
        x = self.self_attn_layer_norm(self.alpha * x + self.self_attn(x, padding, buckets))
        return self.final_layer_norm(self.alpha * x + self.fc2(functional.gelu(self.fc1(x))))


class Encoder(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        width, kernel = cfg["encoder_embed_dim"], cfg["conv_pos"]
        conv = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=cfg["conv_pos_groups"])
        with pytest.warns(FutureWarning, match="weight_norm"):  # the old form, whose names the checkpoints have
            self.pos_conv = nn.ModuleList([nn.utils.weight_norm(conv, dim=2)])
        table = nn.Embedding(cfg["num_buckets"], cfg["encoder_attention_heads"])
        self.layers = nn.ModuleList(Layer(cfg, table) for _ in range(cfg["encoder_layers"]))
        self.layer_norm = nn.LayerNorm(width)
        self.buckets, self.reach = cfg["num_buckets"], cfg["max_distance"]

    def bucketed(self, length):
        offset = torch.arange(length)[None] - torch.arange(length)[:, None]
        side, exact = self.buckets // 2, self.buckets // 4
        growth = (offset.abs().clamp(min=1).float() / exact).log() / math.log(self.reach / exact)
        far = (exact + (growth * (side - exact)).long()).clamp(max=side - 1)
        return torch.where(offset.abs() < exact, offset.abs(), far) + side * (offset > 0)

    def forward(self, x, padding):
        x = x.masked_fill(padding[..., None], 0.0)
        near = functional.gelu(self.pos_conv[0](x.transpose(1, 2))[..., : x.shape[1]]).transpose(1, 2)
        states = [self.layer_norm(x + near)]
        buckets = self.bucketed(x.shape[1])
        for layer in self.layers:
            states.append(layer(states[-1], padding, buckets))
        return states


class BEATs(nn.Module):
    """Hidden states of `[B, N]` samples; `padding` marks samples that are not real."""

    def __init__(self, cfg, classes=None):
        super().__init__()
        size, width = cfg["input_patch_size"], cfg["embed_dim"]
        self.patch_embedding = nn.Conv2d(1, width, size, size, bias=False)
        self.layer_norm = nn.LayerNorm(width)
        self.post_extract_proj = nn.Linear(width, cfg["encoder_embed_dim"])
        self.encoder = Encoder(cfg)
        if classes:
            self.predictor = nn.Linear(cfg["encoder_embed_dim"], classes)

    def forward(self, samples, padding=None):
        frames = torch.from_numpy(np.stack([fbank(row) for row in samples]))
        features = self.patch_embedding(frames[:, None]).flatten(2).transpose(1, 2)
        padding = np.zeros(samples.shape, bool) if padding is None else padding
        for count in (frames.shape[1], features.shape[1]):
            padding = padding[:, : padding.shape[1] // count * count].reshape(len(padding), count, -1).all(-1)
        padding = torch.from_numpy(padding)
        return self.encoder(self.post_extract_proj(self.layer_norm(features)), padding), padding


def drawn(cfg: dict, seed: int = 0, classes: int | None = None) -> BEATs:
    """A model whose every weight is felt."""
    model = BEATs(cfg, classes).eval()
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("norm.weight"):
                weight.copy_(1 + 0.2 * torch.randn_like(weight))
            elif name.endswith(("weight_g", "grep_a")):
                weight.copy_(1 + 0.5 * torch.rand_like(weight))
            elif name.endswith("bias"):
                weight.copy_(0.1 * torch.randn_like(weight))
            else:
                inputs = 1 if "relative_attention_bias" in name else weight[0].numel()
                weight.copy_(torch.randn_like(weight) / inputs**0.5)
    return model
