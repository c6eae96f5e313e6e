"""The engine: every fault of a checkpoint in one error, other spellings, tied weights, one layer at a time."""

import jax
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.interop.engine import (
    MappingError,
    export_params,
    export_shapes,
    import_params,
    pieces,
    recognised,
    resolve,
)
from slm_jax.interop.table import Rule, Table, norm, rule, weights
from slm_jax.interop.transforms import FLAT, SAME, Conv, Dense, Folded, Fused

LAYERS = 3
TABLE = Table(
    rules=(
        rule("embed.weight", "tokens/embedding"),
        *weights("layers.{i}.fc", "blocks/fc", Dense(), SAME),
        Rule(("layers.{i}.qk.weight",), ("blocks/q/kernel", "blocks/k/kernel"), Fused(Dense())),
        rule("layers.{i}.q.weight", "blocks/q/kernel", Dense()),
        rule("layers.{i}.k.weight", "blocks/k/kernel", Dense()),
        *weights("ups.{i}", "up_{i}", Conv(), SAME),
        Rule(("ups.{i}.weight_g", "ups.{i}.weight_v"), ("up_{i}/kernel",), Folded(Conv())),
        *norm("norm", "final_norm"),
        rule("extra.weight", "extra/kernel", optional=True),
    ),
    ignored=(r"layers\.\d+\.mask",),
    tied={"head.weight": "embed.weight"},
    renames=((r"^model\.", ""),),
)


def shaped(*shape):
    return jax.ShapeDtypeStruct(shape, np.float32)


TARGETS = {
    "tokens": {"embedding": shaped(11, 4)},
    "blocks": {
        "fc": {"kernel": shaped(LAYERS, 4, 5), "bias": shaped(LAYERS, 5)},
        "q": {"kernel": shaped(LAYERS, 4, 2, 3)},
        "k": {"kernel": shaped(LAYERS, 4, 1, 3)},
    },
    **{f"up_{i}": {"kernel": shaped(3, 4, 2), "bias": shaped(2)} for i in range(2)},
    "final_norm": {"scale": shaped(4), "bias": shaped(4)},
}


def sources(**changes):
    rng = np.random.default_rng(0)
    shapes = {"embed.weight": (11, 4), "norm.weight": (4,), "norm.bias": (4,)}
    for i in range(LAYERS):
        shapes |= {f"layers.{i}.fc.weight": (5, 4), f"layers.{i}.fc.bias": (5,), f"layers.{i}.qk.weight": (9, 4)}
    for i in range(2):
        shapes |= {f"ups.{i}.weight": (2, 4, 3), f"ups.{i}.bias": (2,)}
    found = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    found |= changes
    return {name: array for name, array in found.items() if array is not None}


def plan_for(arrays, **options):
    shapes = {name: array.shape for name, array in arrays.items()}
    return resolve(TABLE, shapes, TARGETS, {name: array.dtype.name for name, array in arrays.items()}, **options)


def imported(arrays):
    return import_params(plan_for(arrays), arrays.__getitem__)


def test_import_then_export_is_the_identity_and_its_shapes_are_foretold():
    arrays = sources()
    params = imported(arrays)
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda leaf: leaf.shape, TARGETS)
    written = dict(export_params(TABLE, params))
    assert written.keys() == arrays.keys()
    for name, array in written.items():
        np.testing.assert_array_equal(array, arrays[name])
    assert export_shapes(TABLE, TARGETS) == {name: array.shape for name, array in written.items()}
    assert list(export_shapes(TABLE, TARGETS)) == list(written)


def test_layers_are_stacked_in_order():
    arrays = sources()
    kernels = imported(arrays)["blocks"]["fc"]["kernel"]
    for i in range(LAYERS):
        np.testing.assert_array_equal(kernels[i], arrays[f"layers.{i}.fc.weight"].T)


def test_pieces_hold_one_layer_at_a_time():
    found = list(pieces(plan_for(arrays := sources()), arrays.__getitem__))
    assert max(piece.array.size for piece in found) == 11 * 4
    assert [(piece.path, piece.layer) for piece in found][1:4] == [("blocks/fc/kernel", i) for i in range(LAYERS)]


def test_all_faults_are_listed_at_once():
    arrays = sources(
        **{
            "layers.1.fc.weight": np.zeros((5, 6), np.float32),
            "layers.2.fc.bias": None,
            "layer.2.fc.bias": np.zeros(5, np.float32),
            "norm.bias": np.zeros(4, np.int64),
            "layers.3.fc.bias": np.zeros(5, np.float32),
            "ups.1.weight": None,
        }
    )
    with pytest.raises(MappingError) as error:
        plan_for(arrays)
    assert error.value.faults == (
        "source 'layer.2.fc.bias' has no rule (did you mean 'layers.2.fc.bias'?)",
        "source 'layers.3.fc.bias' has no rule (did you mean 'layers.2.fc.bias'?)",
        "target 'blocks/fc/bias, layer 2' is left unfilled: no source 'layers.2.fc.bias'",
        "target 'up_1/kernel' is left unfilled: no source 'ups.1.weight'",
        "source 'layers.1.fc.weight' has shape [5, 6], 'blocks/fc/kernel' needs [5, 4]",
        "source 'norm.bias' holds int64, 'final_norm/bias' needs float32",
    )
    assert "6 faults" in str(error.value)


def test_a_target_that_no_rule_knows_is_a_fault():
    shapes = {name: array.shape for name, array in sources().items()}
    with pytest.raises(MappingError, match="target 'odd/kernel' has no rule"):
        resolve(TABLE, shapes, TARGETS | {"odd": {"kernel": shaped(2)}})


def test_other_spellings_of_a_weight_are_read():
    whole = sources()
    rng = np.random.default_rng(1)
    split = dict(whole)
    for i in range(LAYERS):
        fused = split.pop(f"layers.{i}.qk.weight")
        split |= {f"layers.{i}.q.weight": fused[:6], f"layers.{i}.k.weight": fused[6:]}
    jax.tree.map(np.testing.assert_array_equal, imported(split), imported(whole))
    normed = dict(whole)
    direction = normed.pop("ups.0.weight")
    normed |= {"ups.0.weight_v": direction, "ups.0.weight_g": rng.normal(size=(2, 1, 1)).astype(np.float32)}
    kernel = imported(normed)["up_0"]["kernel"]
    np.testing.assert_allclose(np.linalg.norm(kernel, axis=(0, 1)), np.abs(normed["ups.0.weight_g"]).ravel(), rtol=1e-5)


def test_two_spellings_at_once_are_refused():
    arrays = sources()
    arrays["layers.0.q.weight"] = arrays["layers.0.qk.weight"][:6]
    with pytest.raises(MappingError, match=r"'layers\.0\.q\.weight' has no rule"):
        imported(arrays)


def test_prefixes_ignored_and_optional_sources():
    arrays = {f"model.{name}": array for name, array in sources().items()}
    arrays |= {"layers.0.mask": np.zeros(3, np.float32), "extra.weight": np.zeros((2, 2), np.float32)}
    jax.tree.map(np.testing.assert_array_equal, imported(arrays), imported(sources()))
    with pytest.raises(MappingError, match=r"are both 'norm\.bias'"):
        imported(arrays | {"norm.bias": np.zeros(4, np.float32)})


def test_tied_weights_may_be_absent_equal_or_alone_but_not_different():
    arrays = sources()
    wanted = imported(arrays)["tokens"]["embedding"]
    copied = imported(arrays | {"head.weight": wanted})["tokens"]["embedding"]
    alone = imported(sources(**{"embed.weight": None, "head.weight": wanted}))["tokens"]["embedding"]
    np.testing.assert_array_equal(copied, wanted)
    np.testing.assert_array_equal(alone, wanted)
    with pytest.raises(UserError, match=r"'head\.weight' should be a copy of 'embed\.weight'"):
        imported(arrays | {"head.weight": wanted + 1})


def test_export_refuses_leaves_that_it_cannot_write():
    with pytest.raises(MappingError, match="nothing in the table writes 'odd'"):
        export_shapes(TABLE, TARGETS | {"odd": shaped(2)})


def test_the_spelling_with_the_most_known_names_is_told():
    other = Table((*weights("blocks.{i}.dense", "blocks/fc", Dense(), FLAT),))
    assert recognised(TABLE, sources()) == len(sources())
    assert recognised(other, sources()) == 0


def test_the_import_is_a_copy_in_the_dtype_of_the_model():
    arrays = {name: array.astype(np.float16) for name, array in sources().items()}
    params = imported(arrays)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}
    assert not np.shares_memory(imported(sources_ := sources())["final_norm"]["scale"], sources_["norm.weight"])
