"""Qwen-Audio in PyTorch with the names of the released files, as its code computes.

Encoder: mel features cut at twice the frames of the longest clip, frames behind a clip at zero and hidden, means of two
frames, norm, map, a vector before and one behind. Decoder: rotary halves, one map for query, key and value, `w2` as the
gate.
"""

import pytest

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional


class Attention(nn.Module):
    """The attention of openai/whisper: keys without a bias."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.query, self.value, self.out = (nn.Linear(width, width) for _ in range(3))
        self.key = nn.Linear(width, width, bias=False)

    def forward(self, x, seen):
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.query, self.key, self.value))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None, None])
        return self.out(y.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Pre-norm."""

    def __init__(self, width, heads):
        super().__init__()
        self.attn, self.attn_ln = Attention(width, heads), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.mlp_ln = nn.LayerNorm(width)

    def forward(self, x, seen):
        x = x + self.attn(self.attn_ln(x), seen)
        return x + self.mlp(self.mlp_ln(x))


class Audio(nn.Module):
    """`transformer.audio`."""

    def __init__(self, audio):
        super().__init__()
        width = audio["n_state"]
        self.conv1 = nn.Conv1d(audio["n_mels"], width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.register_buffer("positional_embedding", torch.randn(audio["n_ctx"], width))
        self.blocks = nn.ModuleList([Block(width, audio["n_head"]) for _ in range(audio["n_layer"])])
        self.ln_post, self.proj = nn.LayerNorm(width), nn.Linear(width, audio["output_dim"])
        self.audio_bos_eos_token = nn.Embedding(2, audio["output_dim"])

    def forward(self, mel, frames):
        """Mel features of whole windows and the frames of each clip to the vectors of each."""
        x = mel[:, :, : 2 * max(frames)]
        x = F.gelu(self.conv2(F.gelu(self.conv1(x)))).transpose(1, 2) + self.positional_embedding[: max(frames)]
        seen = torch.arange(max(frames)) < torch.tensor(frames)[:, None]
        x = x * seen[..., None]
        for block in self.blocks:
            x = block(x, seen)
        x = self.proj(self.ln_post(F.avg_pool1d(x.transpose(1, 2), 2, 2).transpose(1, 2)))
        first, last = self.audio_bos_eos_token.weight[:1], self.audio_bos_eos_token.weight[1:]
        return [torch.cat([first, row[: n // 2], last]) for row, n in zip(x, frames, strict=True)]


class Layer(nn.Module):
    """`transformer.h.{i}`."""

    def __init__(self, width, heads, hidden, epsilon):
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.RMSNorm(width, epsilon), nn.RMSNorm(width, epsilon)
        self.attn, self.mlp = nn.Module(), nn.Module()
        self.attn.c_attn, self.attn.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width, bias=False)
        self.mlp.w1, self.mlp.w2 = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.mlp.c_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x, angles):
        q, k, v = self.attn.c_attn(self.ln_1(x)).chunk(3, -1)
        q, k, v = (one.unflatten(-1, (self.heads, -1)).transpose(1, 2) for one in (q, k, v))
        y = F.scaled_dot_product_attention(rotated(q, angles), rotated(k, angles), v, is_causal=True)
        x = x + self.attn.c_proj(y.transpose(1, 2).flatten(2))
        z = self.ln_2(x)
        return x + self.mlp.c_proj(self.mlp.w1(z) * F.silu(self.mlp.w2(z)))


def rotated(x, angles):
    """Channel i turned with channel i + C/2."""
    first, second = x.chunk(2, -1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


class QwenAudio(nn.Module):
    """The whole, out of its `config.json`."""

    def __init__(self, hub):
        super().__init__()
        width, heads = hub["hidden_size"], hub["num_attention_heads"]
        layer = (width, heads, hub["intermediate_size"] // 2, hub["layer_norm_epsilon"])
        self.transformer = nn.Module()
        self.transformer.wte = nn.Embedding(hub["vocab_size"], width)
        self.transformer.h = nn.ModuleList([Layer(*layer) for _ in range(hub["num_hidden_layers"])])
        self.transformer.ln_f = nn.RMSNorm(width, hub["layer_norm_epsilon"])
        self.transformer.audio = Audio(hub["audio"])
        self.lm_head = nn.Linear(width, hub["vocab_size"], bias=False)
        channels = width // heads
        self.rates = hub["rotary_emb_base"] ** (-torch.arange(0, channels, 2) / channels)

    def forward(self, ids, start, speech):
        """Logits of one row `[S]` whose entries from `start` on are those of a clip."""
        x = self.transformer.wte(ids)
        x = torch.cat([x[:start], speech, x[start + len(speech) :]])[None]
        angles = torch.arange(len(ids))[:, None] * self.rates
        for layer in self.transformer.h:
            x = layer(x, angles)
        return self.lm_head(self.transformer.ln_f(x))[0]
