"""A mixture of layers against the weighted layer sum of transformers, and over normalised layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.encoders.weighted_layers import WeightedLayersConfig
from slm_jax.interop.engine import import_params, resolve
from slm_jax.interop.family_ssl import WAV2VEC2

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TOLERANCE = 2e-5
SHAPE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": [8, 8],
    "conv_kernel": [10, 4],
    "conv_stride": [5, 4],
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 16,
    "use_weighted_layer_sum": True,
}


@pytest.fixture(params=[False, True], ids=["post-norm", "pre-norm"], scope="module")
def model(request):
    """A classifier whose layers count differently, with norms after each half of a layer or before it."""
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(**SHAPE, do_stable_layer_norm=request.param)
    model = transformers.Wav2Vec2ForSequenceClassification(config).eval()
    with torch.no_grad():
        model.layer_weights.copy_(torch.tensor([0.3, -1.0, 0.8]))
        for name, weight in model.named_parameters():
            if "layer_norm.weight" in name:
                weight.mul_(1 + 0.5 * torch.rand_like(weight))
    return model


def ours(model, samples, **settings):
    config = WAV2VEC2.read_config(model.wav2vec2.config.to_dict())
    weights = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    shapes = {name: value.shape for name, value in weights.items()}
    plan = resolve(WAV2VEC2.table(config, "transformers"), shapes, WAV2VEC2.abstract(config))
    encoder = jax.tree.map(jnp.asarray, import_params(plan, weights.__getitem__))
    params = {"encoder": encoder, "layer_weights": jnp.asarray(weights["layer_weights"])}
    mixture = WeightedLayersConfig(encoder=config, **settings).make()
    return jax.jit(lambda p, x: mixture.apply({"params": p}, x).values)(params, samples)


def test_the_sum_is_what_the_reference_projects(model):
    samples = np.random.default_rng(0).standard_normal((2, 800)).astype(np.float32)
    summed = []
    hook = model.projector.register_forward_hook(lambda _, inputs, __: summed.append(inputs[0]))
    with torch.no_grad():
        model(torch.from_numpy(samples))
    hook.remove()
    assert summed[0].std() > 0.1
    np.testing.assert_allclose(ours(model, samples), summed[0].numpy(), atol=TOLERANCE)


def test_normalised_layers_are_those_of_a_layer_norm_without_weights(model):
    samples = np.random.default_rng(1).standard_normal((1, 800)).astype(np.float32)
    with torch.no_grad():
        states = torch.stack(model.wav2vec2(torch.from_numpy(samples), output_hidden_states=True).hidden_states)
        states = torch.nn.functional.layer_norm(states, states.shape[-1:])
        wanted = (states * model.layer_weights.softmax(-1)[:, None, None, None]).sum(0)
    np.testing.assert_allclose(ours(model, samples, norm=True), wanted.numpy(), atol=TOLERANCE)
