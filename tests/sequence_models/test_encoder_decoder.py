import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError
from slm_jax.core.trees import flatten_by_path
from slm_jax.generation.decode import generate
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.nn.lora import LoRAConfig, lora_initialise, with_lora
from slm_jax.nn.relative_bias import RelativeBiasConfig
from slm_jax.sequence_models.decoder_config import DecoderConfig
from slm_jax.sequence_models.encoder_decoder import EncoderDecoderConfig
from slm_jax.sequence_models.t5 import t5, t5_v1_1
from tests.contracts.checks import assert_close, random_params

SMALL = {"vocabulary": 17, "layers": 1, "width": 8, "heads": 2, "head_width": 4, "hidden": 12}
SMALL |= {"relative_bias": RelativeBiasConfig(buckets=8, max_distance=5)}
CONFIG = t5_v1_1(**SMALL)
IDS = jax.random.randint(jax.random.key(1), (2, 6), 0, 17)
PARAMS = random_params(CONFIG.make(), jax.random.key(2), IDS, IDS)
BIAS = RelativeBiasConfig(buckets=8, max_distance=5, bidirectional=False)


def test_there_is_one_token_table_and_it_is_the_decoders():
    shapes = meta.unbox(jax.eval_shape(t5(**SMALL).make().init, jax.random.key(0), IDS, IDS))["params"]
    tables = [path for path, leaf in flatten_by_path(shapes).items() if 17 in leaf.shape]
    assert tables == ["decoder/tokens/embedding"]
    biases = [path for path in flatten_by_path(shapes) if "relative_bias" in path]
    assert biases == ["decoder/relative_bias/embedding", "encoder/relative_bias/embedding"]


def test_its_config_survives_json_and_old_files_of_decoders_load():
    assert from_json(CONFIG.to_json()) == CONFIG and CONFIG.vocabulary == 17 and CONFIG.width == 8
    decoder = DecoderConfig(vocabulary=5, layers=1, width=8, heads=2, hidden=8, positions="rope")
    fields = decoder.to_json()
    for name in ("relative_bias", "attention_scale", "causal", "head_scale"):
        del fields[name]
    assert from_json(fields) == decoder


def test_features_and_the_matrix_of_the_head_give_the_logits():
    config = t5(**SMALL)
    model, params = config.make(), random_params(config.make(), jax.random.key(2), IDS, IDS)
    features = model.apply({"params": params}, IDS, IDS, method="hidden")
    matrix = model.apply({"params": params}, method="head_matrix")
    logits = model.apply({"params": params}, IDS, IDS)
    assert_close(features @ matrix, logits, 1e-5)
    plain = config.replace(decoder=config.decoder.replace(head_scale=1.0)).make()
    assert_close(plain.apply({"params": params}, IDS, IDS) * 8**-0.5, logits, 1e-5)


def test_adapters_reach_both_stacks_by_path():
    lora = LoRAConfig(targets=r"(encoder|decoder)/.*/(attention|cross_attention)/query", rank=2)
    model = CONFIG.make()
    variables = meta.unbox(lora_initialise(lambda key: model.init(key, IDS, IDS), lora)(jax.random.key(0)))
    paths = {path.split("/default")[0] for path in flatten_by_path(variables["lora"])}
    assert paths == {
        "encoder/blocks/layers/attention/query",
        "decoder/blocks/layers/attention/query",
        "decoder/blocks/layers/cross_attention/query",
    }
    adapted = with_lora(model, lora)
    variables = {"params": PARAMS, "lora": jax.tree.map(jnp.ones_like, variables["lora"])}
    plain = model.apply({"params": PARAMS}, IDS, IDS)
    assert np.abs(np.asarray(adapted.apply(variables, IDS, IDS) - plain)).max() > 1e-2


def test_generation_runs_over_the_decoder_with_what_the_encoder_gives():
    """Greedy tokens are those that the whole model finds likeliest, given all before them; padded context says no."""
    mask = jnp.arange(6) < jnp.array([6, 3])[:, None]
    context = CONFIG.make().apply({"params": PARAMS}, IDS, mask, method="encode")
    prompt, settings = (np.zeros((2, 1), int), np.ones((2, 1), bool)), SamplingConfig(max_new=5, temperature=0.0)
    made = generate(CONFIG.decoder.make(), PARAMS["decoder"], *prompt, jax.random.key(0), settings, context=context)
    read = jnp.concatenate([jnp.zeros((2, 1), jnp.int32), made.ids[:, :-1]], 1)
    logits = CONFIG.make().apply({"params": PARAMS}, IDS, read, mask)
    np.testing.assert_array_equal(np.asarray(logits).argmax(-1), made.ids)


@pytest.mark.parametrize(
    "part, changes, message",
    [
        ("encoder", {"causal": True, "relative_bias": BIAS}, "encoder.causal"),
        ("encoder", {"tied_head": False}, "an encoder has no head"),
        ("encoder", {"vocabulary": 18}, "one table serves both"),
        ("decoder", {"context_width": None}, "decoder.context_width"),
        ("decoder", {"embed_scale": 2.0}, "encoder.embed_scale"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(part, changes, message):
    with pytest.raises(UserError, match=message):
        EncoderDecoderConfig(
            **{"encoder": CONFIG.encoder, "decoder": CONFIG.decoder, part: getattr(CONFIG, part).replace(**changes)}
        )


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"window": 4}, "window"),
        ({"relative_bias": BIAS.replace(bidirectional=True)}, "bidirectional"),
        ({"causal": False}, "bidirectional"),
        ({"causal": False, "relative_bias": None, "window": 4}, "window"),
    ],
)
def test_biases_and_windows_without_meaning_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        CONFIG.decoder.replace(**changes)


def test_an_encoder_has_no_state():
    with pytest.raises(UserError, match="reads whole rows"):
        CONFIG.encoder.make().initial_state(1, 4)
