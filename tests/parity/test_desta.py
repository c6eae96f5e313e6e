"""The connector of DeSTA2 and DeSTA2.5 against PyTorch, with Whisper's layers as each takes them, and their files."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from slm_jax.adapters.layerwise_qformer import LayerwiseQFormerConfig
from slm_jax.adapters.qformer import QFormerConfig
from slm_jax.assemblies.speech_aware_lm import SpeechAwareLMConfig
from slm_jax.core.trees import count_parameters, flatten_by_path
from slm_jax.core.types import Frames
from slm_jax.encoders.layer_states import LayerStatesConfig
from slm_jax.encoders.whisper import WhisperEncoderConfig
from slm_jax.interop.desta import abstract_trained, load_desta, named_arrays, save_desta
from slm_jax.interop.engine import MappingError
from slm_jax.interop.model import load
from slm_jax.nn.lora import LoRAConfig
from slm_jax.sequence_models.presets import llama
from tests.parity.test_adapters import redrawn

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TOLERANCE = 2e-5
WIDTH, LM_WIDTH, QUERIES, HEADS = 16, 12, 6, 4
CHOSEN = (1, 3)
WHISPER = transformers.WhisperConfig(
    d_model=WIDTH,
    encoder_layers=4,
    encoder_attention_heads=HEADS,
    encoder_ffn_dim=24,
    decoder_layers=1,
    decoder_attention_heads=HEADS,
    decoder_ffn_dim=24,
    max_source_positions=50,
    vocab_size=64,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
    decoder_start_token_id=3,
)
LORA = LoRAConfig(targets="lm/.*/attention/(query|key|value)", rank=2, alpha=2.0)


class Connector(torch.nn.Module):
    """Queries for each layer, one BERT encoder for all, weights over layers, norm and map.

    The trunk says of itself that it is a decoder and is given no mask, as in the released code.
    """

    def __init__(self, attention="eager", layers=len(CHOSEN)):
        super().__init__()
        drawn = (torch.nn.Parameter(torch.randn(1, QUERIES, WIDTH)) for _ in range(layers))
        self.layer_prompts = torch.nn.ParameterList(drawn)
        self.layer_weights = torch.nn.Parameter(torch.zeros(QUERIES, layers))
        config = transformers.BertConfig(
            hidden_size=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=HEADS,
            intermediate_size=24,
            is_decoder=True,
            add_cross_attention=True,
            attn_implementation=attention,
        )
        self.qformer = transformers.models.bert.modeling_bert.BertEncoder(config)
        self.proj = torch.nn.Sequential(torch.nn.LayerNorm(WIDTH), torch.nn.Linear(WIDTH, LM_WIDTH))

    def forward(self, states, seen=None):
        hidden = None if seen is None else torch.where(seen, 0.0, torch.finfo(torch.float32).min)[:, None, None, :]
        found = [
            self.qformer(
                prompts.expand(len(state), -1, -1), encoder_hidden_states=state, encoder_attention_mask=hidden
            ).last_hidden_state
            for prompts, state in zip(self.layer_prompts, states, strict=True)
        ]
        weights = self.layer_weights.softmax(-1).unsqueeze(-1)
        return self.proj((torch.stack(found, dim=2) * weights).sum(dim=2))


def drawn_connector(**kwargs):
    """With weights of layers that differ."""
    torch.manual_seed(3)
    module = redrawn(Connector(**kwargs))
    with torch.no_grad():
        module.layer_weights.copy_(torch.randn_like(module.layer_weights))
    return module


def system(chosen=CHOSEN, final_norm=False) -> SpeechAwareLMConfig:
    encoder = WhisperEncoderConfig(layers=4, width=WIDTH, heads=HEADS, hidden=24, max_frames=50)
    trunk = QFormerConfig(
        context_width=WIDTH, width=WIDTH, layers=2, heads=HEADS, hidden=24, query_norm=False, dropout=0.0
    )
    return SpeechAwareLMConfig(
        encoders=(LayerStatesConfig(encoder=encoder, chosen=chosen, final_norm=final_norm),),
        adapter=LayerwiseQFormerConfig(width=LM_WIDTH, layers=len(chosen), qformer=trunk, queries=QUERIES),
        lm=llama("7b", vocabulary=32, layers=2, width=LM_WIDTH, heads=2, kv_heads=2, hidden=16),
    )


@pytest.fixture(scope="module")
def connector():
    return drawn_connector()


@pytest.fixture(scope="module")
def file(connector, tmp_path_factory):
    """The file of DeSTA2, as its code saves it."""
    path = tmp_path_factory.mktemp("desta") / "qformer_connector.pth"
    torch.save(connector.state_dict(), path)
    return path


def test_all_queries_equal_the_reference_row_by_row_and_padded(connector, file):
    model = system()
    params = load_desta(file, model)["params"]["adapter"]
    assert count_parameters(params) == sum(weight.numel() for weight in connector.parameters())
    lengths = (23, 14)
    mask = np.arange(23) < np.array(lengths)[:, None]
    states = np.random.default_rng(0).standard_normal((len(CHOSEN), 2, 23, WIDTH)).astype(np.float32)
    frames = np.concatenate(list(np.where(mask[..., None], states, np.nan)), axis=-1)
    apply = jax.jit(model.adapter.make().apply)
    out = apply({"params": params}, Frames(jnp.asarray(frames), jnp.asarray(mask)))
    assert out.values.shape == (2, QUERIES, LM_WIDTH) and out.mask.all()
    with torch.no_grad():
        padded = connector(torch.from_numpy(states), torch.from_numpy(mask)).numpy()
        alone = [connector(torch.from_numpy(states[:, [r], :n])).numpy()[0] for r, n in enumerate(lengths)]
    assert padded.std() > 0.1
    np.testing.assert_allclose(out.values, padded, atol=TOLERANCE)
    np.testing.assert_allclose(out.values, np.stack(alone), atol=TOLERANCE)


def test_the_fused_attention_of_the_reference_is_causal_and_gives_other_vectors(connector):
    """Why "eager" is what counts: nobody should "mend" ours after the other one."""
    eager, fused = drawn_connector(), drawn_connector(attention="sdpa")
    for module in (eager, fused):
        module.load_state_dict(connector.state_dict())
    states = torch.randn(len(CHOSEN), 1, 9, WIDTH)
    with torch.no_grad():
        wanted, other = eager(states), fused(states)
        reach = {}
        for name, module in {"eager": eager, "sdpa": fused}.items():
            before = module(states)
            for prompts in module.layer_prompts:
                prompts[0, -1] += 1.0
            reach[name] = float((module(states) - before)[0, :-1].abs().max())
            for prompts in module.layer_prompts:
                prompts[0, -1] -= 1.0
    assert reach["eager"] > 1e-3 and reach["sdpa"] == 0.0, "only the eager form lets queries see later ones"
    assert (wanted - other).abs().max() > 1e-2


@pytest.mark.parametrize("final_norm", [True, False])
def test_layers_are_those_that_each_release_takes(final_norm, tmp_path):
    """DeSTA2: entries of the tuple of hidden states, the last behind the final norm. DeSTA2.5: what layers give."""
    module = redrawn(transformers.WhisperModel(WHISPER))
    module.save_pretrained(tmp_path)
    config, params = load(tmp_path)
    chosen = (0, 2, 4)
    encoder = LayerStatesConfig(encoder=config.encoder, chosen=chosen, final_norm=final_norm)
    samples = np.random.default_rng(1).standard_normal((1, 16_000)).astype(np.float32)
    out = jax.jit(encoder.make().apply)({"params": params["encoder"]}, jnp.asarray(samples))
    mel = np.asarray(config.encoder.mel.make()(samples))
    kept: dict = {}
    with torch.no_grad():
        features = torch.from_numpy(mel.transpose(0, 2, 1)[..., :100].copy())
        told = module.encoder(features, output_hidden_states=True).hidden_states
        hook = module.encoder.layers[-1].register_forward_hook(lambda _, __, given: kept.update(last=given))
        module.encoder(features)
        hook.remove()
    raw = kept["last"] if isinstance(kept["last"], torch.Tensor) else kept["last"][0]
    last = told[-1] if final_norm else raw
    wanted = np.concatenate([state.numpy() for state in (told[0], told[2], last)], axis=-1)
    assert out.values.shape == (1, 50, 3 * WIDTH) == (1, 50, encoder.width)
    np.testing.assert_allclose(out.values, wanted, atol=1e-4 * np.abs(wanted).max())
    assert np.abs(told[-1].numpy() - raw.numpy()).max() > 0.1, "nothing is compared"
    shapes = jax.eval_shape(encoder.make().init, jax.random.key(0), jnp.asarray(samples))["params"]
    assert set(flatten_by_path(meta.unbox(shapes))) == set(flatten_by_path(params["encoder"]))


@pytest.mark.parametrize("release", ["desta2", "desta2.5"])
def test_files_go_in_and_out(release, connector, file, tmp_path):
    model = system()
    variables = load_desta(file, model)
    path = save_desta(tmp_path / ("a.pth" if release == "desta2" else "model.safetensors"), variables, model, release)
    again = load_desta(path, model)
    for name, leaf in flatten_by_path(variables).items():
        np.testing.assert_array_equal(flatten_by_path(again)[name], leaf)
    names = dict(named_arrays(variables, model, release))
    prefix = "" if release == "desta2" else "perception.connector."
    assert names.keys() == {f"{prefix}{name}" for name in connector.state_dict()}
    for name, value in connector.state_dict().items():
        np.testing.assert_array_equal(names[f"{prefix}{name}"], value.numpy())
    other = drawn_connector()
    other.load_state_dict({name: torch.from_numpy(np.array(names[f"{prefix}{name}"])) for name in other.state_dict()})


def test_lora_and_the_names_of_its_trainer_are_read(file, tmp_path):
    """`model.` in front of everything, as its trainer saves, with LoRA on queries, keys and values of the LM."""
    model = system()
    shapes = abstract_trained(model, LORA)["lora"]
    generator = np.random.default_rng(2)
    lora = jax.tree.map(lambda leaf: generator.standard_normal(leaf.shape).astype(np.float32), shapes)
    variables = {**load_desta(file, model), "lora": lora}
    named = dict(named_arrays(variables, model, "desta2.5", LORA))
    assert "llm_model.model.layers.1.self_attn.k_proj.lora_A.default.weight" in named
    state = {f"model.{name}": torch.from_numpy(np.array(value)) for name, value in named.items()}
    torch.save({"state_dict": state}, tmp_path / "last.ckpt")
    again = load_desta(tmp_path / "last.ckpt", model, LORA)
    for name, leaf in flatten_by_path(variables).items():
        np.testing.assert_array_equal(flatten_by_path(again)[name], leaf)


def test_a_file_of_another_shape_is_named(file):
    with pytest.raises(MappingError, match=r"is no DeSTA connector of this shape"):
        load_desta(file, system(chosen=(1, 2, 3)))
