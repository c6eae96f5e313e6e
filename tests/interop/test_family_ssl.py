"""What a config.json of an encoder becomes, what it may not say, and the names of both spellings."""

import json

import jax
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.encoders import ssl_presets
from slm_jax.encoders.positional_conv import PositionalConvConfig
from slm_jax.encoders.ssl import SSLEncoderConfig
from slm_jax.interop.engine import MappingError, export_params, export_shapes, import_params, resolve
from slm_jax.interop.families import FAMILIES, family_for, family_of
from slm_jax.interop.model import export, load
from slm_jax.nn.relative_bias import RelativeBiasConfig

TINY = SSLEncoderConfig(
    conv_layers=((5, 4, 3), (7, 2, 2)),
    position=PositionalConvConfig(kernel=6, groups=3),
    layers=2,
    width=12,
    heads=3,
    hidden=11,
    activation_dropout=0.1,
    layer_drop=0.05,
)
LARGE = TINY.replace(conv_bias=True, extractor_norm="layer", pre_norm=True, layers=1, normalise_waveform=True)
BIASED = RelativeBiasConfig(buckets=16, max_distance=9)
CASES = {
    "hubert": TINY.replace(feature_norm=False),
    "wav2vec2": LARGE,
    "wavlm": TINY.replace(relative_bias=BIASED, mask_embedding=False),
}


def drawn(config: SSLEncoderConfig) -> dict:
    """Parameters that are all different."""
    rng = np.random.default_rng(0)
    abstract = FAMILIES["hubert"].abstract(config)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), abstract)


def same(one: dict, other: dict) -> None:
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("spelling", ["transformers", "fairseq"])
@pytest.mark.parametrize("name", CASES)
def test_export_and_import_are_inverse(name, spelling, tmp_path):
    config, params = CASES[name], drawn(CASES[name])
    export(config, params, tmp_path / "first", spelling, family=name)
    read_config, read_params = load(tmp_path / "first")
    assert read_config == config
    same(read_params, params)


def test_a_published_config_becomes_the_preset():
    """What the hub's folder of HuBERT-base holds beside defaults, old fields included."""
    published = {
        "model_type": "hubert",
        "architectures": ["HubertModel"],
        "activation_dropout": 0.1,
        "apply_spec_augment": True,
        "attention_dropout": 0.1,
        "conv_bias": False,
        "conv_dim": [512] * 7,
        "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
        "conv_stride": [5, 2, 2, 2, 2, 2, 2],
        "ctc_loss_reduction": "sum",
        "do_stable_layer_norm": False,
        "feat_extract_activation": "gelu",
        "feat_extract_norm": "group",
        "feat_proj_dropout": 0.1,
        "final_dropout": 0.1,
        "gradient_checkpointing": False,
        "hidden_act": "gelu",
        "hidden_dropout": 0.1,
        "layer_norm_eps": 1e-05,
        "layerdrop": 0.1,
        "mask_time_prob": 0.05,
        "num_conv_pos_embedding_groups": 16,
        "num_conv_pos_embeddings": 128,
        "num_feat_extract_layers": 7,
        "tokenizer_class": "Wav2Vec2CTCTokenizer",
        "transformers_version": "4.10.0.dev0",
        "vocab_size": 32,
    }
    config = family_of(published).read_config(published)
    training = {"feature_gradient": 0.1, "layer_drop": 0.05, "activation_dropout": 0.0, "feature_dropout": 0.0}
    assert config.replace(**training) == ssl_presets.hubert_base()


def test_the_waveform_is_normalised_when_the_preprocessor_says_so(tmp_path):
    for normalise in (False, True):
        folder = tmp_path / str(normalise)
        config = TINY.replace(normalise_waveform=normalise)
        export(config, drawn(config), folder)
        assert json.loads((folder / "preprocessor_config.json").read_text())["do_normalize"] is normalise
        assert "preprocessor_config" not in json.loads((folder / "config.json").read_text())
        assert load(folder)[0].normalise_waveform is normalise
    (folder / "preprocessor_config.json").unlink()
    assert not load(folder)[0].normalise_waveform


def test_everything_unsupported_is_named_at_once():
    wrong = {
        "model_type": "wav2vec2",
        "hidden_act": "relu",
        "layer_norm_eps": 1e-6,
        "add_adapter": True,
        "adapter_attn_dim": 16,
        "conv_stride": [5, 2],
        "feat_extract_norm": "batch",
        "something_new": 1,
        "preprocessor_config": {"sampling_rate": 8000, "do_normalize": "yes", "n_mels": 80},
    }
    with pytest.raises(UserError) as error:
        FAMILIES["wav2vec2"].read_config(wrong)
    for name in (*wrong.keys() - {"model_type", "preprocessor_config", "conv_stride"}, "conv_dim"):
        assert f"{name} is " in str(error.value)
    for name in wrong["preprocessor_config"]:
        assert f"preprocessor_config.{name} is " in str(error.value)


def test_a_batch_norm_in_front_of_the_positions_is_refused():
    with pytest.raises(UserError, match="conv_pos_batch_norm is True"):
        FAMILIES["hubert"].read_config({"model_type": "hubert", "conv_pos_batch_norm": True})


def test_what_no_family_can_say_is_refused():
    with pytest.raises(UserError, match="front_end: log_mel -> waveform"):
        family_for(ssl_presets.log_mel_tiny())
    with pytest.raises(UserError, match="feature_norm: False -> True"):
        FAMILIES["wavlm"].write_config(TINY.replace(feature_norm=False, relative_bias=BIASED))
    with pytest.raises(UserError, match="relative_bias"):
        FAMILIES["hubert"].write_config(TINY.replace(relative_bias=BIASED))


FAIRSEQ_NAMES = """
mask_emb  layer_norm.weight  layer_norm.bias  post_extract_proj.weight  post_extract_proj.bias
feature_extractor.conv_layers.0.0.weight  feature_extractor.conv_layers.1.0.weight
feature_extractor.conv_layers.0.2.weight  feature_extractor.conv_layers.0.2.bias
encoder.pos_conv.0.bias  encoder.pos_conv.0.weight_g  encoder.pos_conv.0.weight_v
encoder.layer_norm.weight  encoder.layer_norm.bias
"""
FAIRSEQ_LAYER = """
self_attn.k_proj  self_attn.v_proj  self_attn.q_proj  self_attn.out_proj  self_attn_layer_norm  fc1  fc2
final_layer_norm
"""


def test_fairseq_names_are_those_of_its_checkpoints():
    layers = [f"encoder.layers.{i}.{n}.{k}" for i in (0, 1) for n in FAIRSEQ_LAYER.split() for k in ("weight", "bias")]
    shapes = export_shapes(FAMILIES["hubert"].table(TINY, "fairseq"), FAMILIES["hubert"].abstract(TINY))
    assert set(shapes) == {*FAIRSEQ_NAMES.split(), *layers}
    assert shapes["encoder.pos_conv.0.weight_g"] == (1, 1, 6)
    assert shapes["encoder.pos_conv.0.weight_v"] == (12, 4, 6)
    deep = export_shapes(FAMILIES["hubert"].table(LARGE, "fairseq"), FAMILIES["hubert"].abstract(LARGE))
    assert {"feature_extractor.conv_layers.1.2.1.weight", "feature_extractor.conv_layers.1.0.bias"} <= set(deep)
    biased = TINY.replace(relative_bias=BIASED)
    gated = export_shapes(FAMILIES["wavlm"].table(biased, "fairseq"), FAMILIES["wavlm"].abstract(biased))
    added = {f"encoder.layers.{i}.self_attn.{n}" for i in (0, 1) for n in ("grep_a", "grep_linear.weight")}
    added |= {f"encoder.layers.{i}.self_attn.grep_linear.bias" for i in (0, 1)}
    assert set(gated) - set(shapes) == added | {"encoder.layers.0.self_attn.relative_attention_bias.weight"}


HEADS = {
    "transformers": (
        "hubert.",
        {"lm_head.weight": (32, 12), "lm_head.bias": (32,), "quantizer.codevectors": (1, 4, 3)},
    ),
    "fairseq": ("w2v_encoder.w2v_model.", {"label_embs_concat": (50, 6), "final_proj.weight": (6, 12)}),
}


@pytest.mark.parametrize("spelling", HEADS)
def test_heads_and_their_prefixes_are_left_aside(spelling):
    family, params = FAMILIES["hubert"], drawn(TINY)
    table, (prefix, heads) = family.table(TINY, spelling), HEADS[spelling]
    arrays = {prefix + name: array for name, array in export_params(table, params)}
    arrays |= {name: np.zeros(shape, np.float32) for name, shape in heads.items()}
    plan = resolve(table, {name: array.shape for name, array in arrays.items()}, family.abstract(TINY))
    same(import_params(plan, arrays.__getitem__), params)
    with pytest.raises(MappingError, match=r"source 'encoder.layers.2.fc9' has no rule"):
        resolve(table, {"encoder.layers.2.fc9": (1,), **{n: a.shape for n, a in arrays.items()}}, family.abstract(TINY))


@pytest.mark.parametrize("spelling", ["transformers", "fairseq"])
def test_every_spelling_of_weight_norm_is_read(spelling):
    """PyTorch's old and new names give the same parameters; a folded weight gives the same kernel."""
    family, params = FAMILIES["hubert"], drawn(TINY)
    table, abstract = family.table(TINY, spelling), family.abstract(TINY)
    arrays = dict(export_params(table, params))
    old, new = ("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1")
    length, direction = (next(n for n in arrays if n.endswith((o, p))) for o, p in zip(old, new, strict=True))
    stem = length.removesuffix(f".{old[0]}").removesuffix(f".{new[0]}")
    g, v = arrays.pop(length), arrays.pop(direction)

    def read(more: dict) -> dict:
        given = arrays | more
        plan = resolve(table, {name: array.shape for name, array in given.items()}, abstract)
        return import_params(plan, given.__getitem__)

    for names in (old, new):
        same(read({f"{stem}.{names[0]}": g, f"{stem}.{names[1]}": v}), params)
    weight = g * v / np.sqrt(np.square(v).sum((0, 1), keepdims=True))
    conv = read({f"{stem}.weight": weight})["position"]["conv"]
    kernel = conv["weight_g"] * conv["weight_v"] / np.sqrt(np.square(conv["weight_v"]).sum((1, 2), keepdims=True))
    np.testing.assert_allclose(kernel, weight.transpose(2, 1, 0), rtol=1e-5)


def test_a_mask_embedding_that_is_there_without_need_is_left_aside():
    """Fine-tuned models often keep the vector though their config masks nothing."""
    family, bare = FAMILIES["hubert"], TINY.replace(mask_embedding=False)
    arrays = dict(export_params(family.table(TINY, "transformers"), drawn(TINY)))
    plan = resolve(family.table(bare, "transformers"), {n: a.shape for n, a in arrays.items()}, family.abstract(bare))
    assert "mask_embedding" not in import_params(plan, arrays.__getitem__)
    assert not family.read_config({"model_type": "hubert", "mask_time_prob": 0.0}).mask_embedding
    assert family.read_config({"model_type": "hubert", "mask_time_prob": 0}).mask_embedding is False
