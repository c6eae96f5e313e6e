"""WavLLM in PyTorch with the names of its released file, around the encoders of `transformers`.

LLaMA in Meta's layout: the two channels that are rotated together are neighbours. LoRA on all four projections, times
the factors of the prompt adapter, one vector for each row.
"""

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
nn, F = torch.nn, torch.nn.functional


def rotated(x):
    """[B, T, H, C], neighbouring channels as the two parts of a complex number."""
    channels = x.shape[-1]
    angles = torch.outer(torch.arange(x.shape[1]), 10_000.0 ** (-torch.arange(0, channels, 2) / channels))
    turned = torch.view_as_complex(x.unflatten(-1, (-1, 2))) * torch.polar(torch.ones_like(angles), angles)[:, None]
    return torch.view_as_real(turned).flatten(-2)


class Attention(nn.Module):
    """`layers.{i}.attention`; without factors LoRA is left out."""

    def __init__(self, width, heads, rank):
        super().__init__()
        self.heads = heads
        for name in ("wq", "wk", "wv", "wo"):
            setattr(self, name, nn.Linear(width, width, bias=False))
            setattr(self, f"{name}_lora_A", nn.Parameter(torch.zeros(width, rank)))
            setattr(self, f"{name}_lora_B", nn.Parameter(torch.zeros(rank, width)))

    def map(self, name, x, factors):
        y = getattr(self, name)(x)
        if factors is None:
            return y
        return y + x @ getattr(self, f"{name}_lora_A") @ getattr(self, f"{name}_lora_B") * factors[:, None]

    def forward(self, x, factors):
        q, k, v = (self.map(name, x, factors).unflatten(-1, (self.heads, -1)) for name in ("wq", "wk", "wv"))
        q, k, v = (y.transpose(1, 2) for y in (rotated(q), rotated(k), v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        return self.map("wo", y, factors)


class FeedForward(nn.Module):
    """`layers.{i}.feed_forward`."""

    def __init__(self, width, hidden):
        super().__init__()
        self.w1, self.w3 = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.w2 = nn.Linear(hidden, width, bias=False)

    def forward(self, x):
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Layer(nn.Module):
    """`layers.{i}`."""

    def __init__(self, width, heads, hidden, rank):
        super().__init__()
        self.attention, self.feed_forward = Attention(width, heads, rank), FeedForward(width, hidden)
        self.attention_norm, self.ffn_norm = (nn.RMSNorm(width, 1e-6) for _ in range(2))

    def forward(self, x, factors):
        x = x + self.attention(self.attention_norm(x), factors)
        return x + self.feed_forward(self.ffn_norm(x))


class Llama(nn.Module):
    """`gpt_model.model_llama`."""

    def __init__(self, vocabulary, layers, width, heads, hidden, rank, inner):
        super().__init__()
        self.tok_embeddings = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList([Layer(width, heads, hidden, rank) for _ in range(layers)])
        self.norm, self.output = nn.RMSNorm(width, 1e-6), nn.Linear(width, vocabulary, bias=False)
        self.scale_fc_1, self.scale_fc_2 = nn.Linear(width, inner), nn.Linear(inner, width)
        self.scale_weight_attention = nn.Linear(width, 1)

    def through(self, x, factors):
        for layer in self.layers:
            x = layer(x, factors)
        return x

    def factors(self, asked):
        scale = self.scale_fc_2(F.gelu(self.scale_fc_1(self.through(self.tok_embeddings(asked), None))))
        mean = (scale * F.softmax(self.scale_weight_attention(scale), 1)).sum(1)
        return torch.clamp(torch.relu(mean), max=3)

    def forward(self, x, factors):
        return self.output(self.norm(self.through(x, factors)))


class Bottleneck(nn.Module):
    """`adapter`."""

    def __init__(self, width, hidden):
        super().__init__()
        self.down_layer, self.up_layer = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.layer_norm = nn.LayerNorm(width)

    def forward(self, x):
        return x + self.layer_norm(self.up_layer(F.gelu(self.down_layer(x))))


class Stream(nn.Module):
    """`audio_encoder`, `wavlm_encoder`: an encoder and what follows it."""

    def __init__(self, encoder, width, inner, wide, bottleneck, out, states=None):
        super().__init__()
        self.model, self.subsample = encoder, nn.Module()
        convs = [nn.Conv1d(width, 2 * inner, 3, 2, 1), nn.Conv1d(inner, 2 * wide, 3, 2, 1)]
        self.subsample.conv_layers = nn.ModuleList(convs)
        self.adapter, self.projector = Bottleneck(wide, bottleneck), nn.Linear(wide, out)
        if states is not None:
            self.output_weights = nn.Parameter(torch.ones(states))

    def forward(self, frames):
        x = frames.transpose(1, 2)
        for conv in self.subsample.conv_layers:
            x = F.glu(conv(x), dim=1)
        return self.projector(self.adapter(x.transpose(1, 2)))


class WavLLM(nn.Module):
    """The whole; `audio_proj` is in the file and in no use."""

    def __init__(self, whisper, wavlm, llama):
        super().__init__()
        self.audio_encoder = Stream(whisper, whisper.config.d_model, 12, 14, 6, 10)
        states = wavlm.config.num_hidden_layers + 1
        self.wavlm_encoder = Stream(wavlm, wavlm.config.hidden_size, 5, 14, 6, 10, states)
        self.gpt_model = nn.Module()
        self.gpt_model.model_llama = llama
        width = llama.tok_embeddings.embedding_dim
        self.wavlm_audio_proj, self.audio_proj = nn.Linear(20, width), nn.Linear(10, width)

    def heard(self, mel, frames, samples):
        """Both streams of a clip side by side: of Whisper so many frames of the whole window that it heard."""
        first = self.audio_encoder(self.audio_encoder.model(mel).last_hidden_state[:, :frames])
        states = torch.stack(self.wavlm_encoder.model(samples, output_hidden_states=True).hidden_states)
        shares = F.softmax(self.wavlm_encoder.output_weights, 0)
        second = self.wavlm_encoder((states * shares[:, None, None, None]).sum(0))
        length = min(first.shape[1], second.shape[1])
        return torch.cat([first[:, :length], second[:, :length]], -1)

    def row(self, heard, left, right):
        words = self.gpt_model.model_llama.tok_embeddings
        return torch.cat([words(left), self.wavlm_audio_proj(heard), words(right)], 1)
