"""What LTU-AS trains, in PyTorch under its published names, around a LLaMA that `peft` adapts."""

import pytest

from slm_jax.interop.reference import draw_weights
from tests.parity.qwen_audio_twin import Block

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
nn = torch.nn


class TLTR(nn.Module):
    """`audio_encoder`: states [B, L, T, D] through a block over time, one over layers, to their mean over layers."""

    def __init__(self, width, heads):
        super().__init__()
        self.time_tr, self.layer_tr = Block(width, 1), Block(width, heads)

    def forward(self, states):
        batch, layers, length, width = states.shape
        x = states.flatten(0, 1)
        x = self.time_tr(x, torch.ones(x.shape[:2], dtype=torch.bool)).view(batch, layers, length, width)
        x = x.transpose(1, 2).flatten(0, 1)
        return self.layer_tr(x, torch.ones(x.shape[:2], dtype=torch.bool)).mean(1).view(batch, length, width)


class LTUAS(nn.Module):
    """A LLaMA with `model.audio_encoder` and `model.audio_proj`; speech stands before the words."""

    def __init__(self, llama, width, heads, rank, alpha):
        super().__init__()
        base = draw_weights(transformers.LlamaForCausalLM(transformers.LlamaConfig(**llama)), seed=3)
        self.before = {name: value.clone() for name, value in base.state_dict().items()}
        base.model.audio_encoder = draw_weights(TLTR(width, heads), seed=4)
        norm = nn.LayerNorm(width, elementwise_affine=False)
        base.model.audio_proj = draw_weights(nn.Sequential(norm, nn.Linear(width, llama["hidden_size"])), seed=5)
        targets = {"target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
        self.whole = peft.get_peft_model(base, peft.LoraConfig(r=rank, lora_alpha=alpha, **targets))
        generator = torch.Generator().manual_seed(6)
        with torch.no_grad():
            for name, weight in self.whole.named_parameters():
                if "lora_" in name:
                    weight.copy_(0.2 * torch.randn(weight.shape, generator=generator))
        self.whole.eval()

    def published(self):
        """The names of a released file."""
        kept = ("audio_encoder", "audio_proj", "lora_")
        return {n: v for n, v in self.whole.state_dict().items() if any(part in n for part in kept)}

    def forward(self, states, ids):
        model = self.whole.base_model.model
        speech = model.model.audio_proj(model.model.audio_encoder(states))
        return self.whole(inputs_embeds=torch.cat([speech, model.model.embed_tokens(ids)], 1)).logits
