"""`parity` says equal where it is so, and notices what is not: at the right place, in either precision."""

import dataclasses

import jax
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.trees import flatten_by_path
from slm_jax.interop.engine import nested
from slm_jax.interop.model import export
from slm_jax.interop.references import builders, reference_from_folder
from slm_jax.workbench import parity
from slm_jax.workbench.activations import in_dtype, runner
from slm_jax.workbench.parity import (
    cases_of,
    compare,
    compare_case,
    compare_families,
    compare_folder,
    judge,
    subject_of,
)

pytest.importorskip("torch")
pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def subject():
    from slm_jax.interop.reference_decoders import tiny_decoder

    return subject_of(tiny_decoder("gpt2", "tiny"))


@pytest.fixture(scope="module")
def run(subject):
    return runner(subject.config)


def moved(subject, path: str, by: float, index: tuple = ()):
    leaves = flatten_by_path(subject.params)
    leaf = np.array(leaves[path])
    leaf[index or tuple(size // 2 for size in leaf.shape)] += by
    return nested({**leaves, path: leaf})


def compared(subject, run, params, case=0):
    chosen = cases_of(subject, 0)[case]
    return compare_case(subject, chosen, run(params, chosen.inputs))


def test_every_case_of_a_decoder_passes_and_the_control_is_noticed(subject):
    found = list(compare(subject))
    assert [item.case for item in found] == [
        "tiny, plain",
        "tiny, right-padded",
        "tiny, left-padded",
        "tiny, batch against utterance",
        "tiny, negative control",
    ]
    layers = ["embeddings", "layer_1", "layer_2", "layer_3", "final_norm", "logits"]
    for item in found[:-1]:
        assert [row.layer for row in item.rows] == layers
        assert all(row.ok and row.max_abs <= 1e-5 and 0.1 <= row.ref_std <= 10 for row in item.rows)
    (control,) = found[-1].rows
    assert (control.layer, control.ok) == ("layer_2", True)
    assert control.max_abs > control.tolerance


@pytest.mark.parametrize(
    ("path", "index", "first"),
    [
        ("tokens/embedding", (slice(None), 0), "embeddings"),
        ("blocks/layers/attention/value/kernel", (0, 0, 0, 0), "layer_1"),
        ("blocks/layers/mlp/down/bias", (2, 5), "layer_3"),
        ("final_norm/scale", (3,), "final_norm"),
    ],
)
def test_the_first_difference_is_where_the_weight_is_used(subject, run, path, index, first):
    found = compared(subject, run, moved(subject, path, 0.05, index))
    assert found.first_difference is not None
    assert found.first_difference.layer == first


def test_every_weight_is_felt(subject, run):
    """Moved one by one; the key's bias alone is without effect, for it adds the same to all scores of a query."""
    leaves = flatten_by_path(subject.params)
    unfelt = [
        path
        for path, leaf in leaves.items()
        # a whole vector of a table, for an entry that no input looks up is not felt
        if compared(
            subject, run, moved(subject, path, 0.05, (slice(None),) if "embedding" in path else ())
        ).first_difference
        is None
    ]
    assert unfelt == ["blocks/layers/attention/key/bias"]


def test_padding_is_not_compared_but_what_stands_beside_it_is(subject, run):
    case = cases_of(subject, 0)[1]
    ours = run(subject.params, case.inputs)
    spoilt = {
        name: one._replace(values=np.where(one.real[..., None], one.values, np.nan)) for name, one in ours.items()
    }
    assert compare_case(subject, case, spoilt).first_difference is None
    unmasked = run(subject.params, {**case.inputs, "mask": np.ones_like(case.inputs["mask"])})
    left = cases_of(subject, 0)[2]  # a left-padded row read as if it were all real
    wrong = {name: one._replace(real=left.inputs["mask"]) for name, one in unmasked.items()}
    assert compare_case(subject, left, wrong).first_difference.layer == "embeddings"


def test_what_cannot_be_compared_fails_without_numbers(subject):
    reference, good = subject.reference, np.linspace(-1, 1, 12).reshape(6, 2)
    assert judge(reference, "c", "l", good, good, "float32").ok
    for ours in (np.where(good > 0.9, np.nan, good), good[:5]):
        row = judge(reference, "c", "l", ours, good, "float32")
        assert (row.ok, row.max_abs, row.max_rel) == (False, None, None)
    row = judge(reference, "c", "l", good, np.full_like(good, np.inf), "float32")
    assert (row.ok, row.ref_std) == (False, None)


def test_the_tolerance_is_that_of_the_promise(subject):
    good = 5.0 * np.linspace(-1, 1, 12)
    for by, ok in ((4.9e-4, True), (5.1e-4, False)):
        row = judge(subject.reference, "c", "l", good + by, good, "float32")
        assert row.ok is ok
        assert row.tolerance == pytest.approx(5e-4)
        assert row.max_abs == pytest.approx(by)


@pytest.mark.parametrize("factor", [0.01, 100.0])
def test_a_reference_too_quiet_or_too_loud_is_refused(subject, factor):
    values = factor * np.linspace(-1, 1, 12)
    with pytest.raises(UserError, match="another seed"):
        judge(subject.reference, "c", "l", values, values, "float32")
    real = dataclasses.replace(subject.reference, tiny=False)
    assert judge(real, "c", "l", values, values, "float32").ok


def test_float64_agrees_to_fifteen_digits_and_leaves_jax_as_it_was():
    found = list(compare_families(("qwen2",), 0, "float64"))
    assert all(row.ok for item in found for row in item.rows)
    rows = [row for item in found[:-1] for row in item.rows]
    assert max(row.max_rel for row in rows) < 1e-12
    assert found[0].ours["logits"].dtype == np.float64
    assert not jax.config.jax_enable_x64


def test_float64_tells_a_mistake_that_float32_hides(subject, run):
    """A wrong epsilon: within the tolerance of float32, far outside that of float64."""
    config = subject.config.replace(norm_epsilon=2e-5)
    case = cases_of(subject, 0)[0]
    assert compare_case(subject, case, runner(config)(subject.params, case.inputs)).first_difference is None
    from slm_jax.interop.reference_decoders import tiny_decoder

    with parity.precision("float64"):
        wide = subject_of(tiny_decoder("gpt2", "tiny", 0, "float64"), "float64")
        ours = runner(in_dtype(config, "float64"))(wide.params, case.inputs)
        assert compare_case(wide, case, ours).first_difference.layer == "layer_1"


def test_a_vocoder_passes_at_every_stage():
    found = list(compare(subject_of(builders()["hifigan"]["original-v3"](1, "float32")), 1))
    assert [row.layer for row in found[0].rows] == ["conv_pre", "stage_1", "stage_2", "wave"]
    assert all(row.ok for item in found for row in item.rows)
    assert found[-1].rows[0].layer == "stage_1"


def test_whisper_passes_in_encoder_and_decoder():
    found = list(compare(subject_of(builders()["whisper"]["tiny"](0, "float32"))))
    encoder = ["features", "positions", "encoder_layer_1", "encoder_layer_2", "encoder_layer_3", "encoder_norm"]
    decoder = ["embeddings", "decoder_layer_1", "decoder_layer_2", "decoder_norm", "logits"]
    assert [row.layer for row in found[0].rows] == [*encoder, *decoder]
    assert all(row.ok and row.max_rel < 1e-5 for item in found[:-1] for row in item.rows)
    assert (found[-1].rows[0].layer, found[-1].rows[0].ok) == ("decoder_layer_2", True)
    alone = found[-2].ours
    assert [len(alone[name]) for name in ("encoder_norm", "logits")] == [3 * 50, 17 + 9 + 2]


@pytest.mark.slow(seconds=60)
def test_a_folder_of_an_encoder_that_normalises_its_waveform(tmp_path):
    drawn = subject_of(builders()["hubert"]["large"](0, "float32"))
    export(drawn.config.replace(normalise_waveform=True), drawn.params, tmp_path / "tiny", family="hubert")
    found = list(compare_folder(tmp_path / "tiny", 0, "float32"))
    assert all(row.ok for item in found for row in item.rows)
    assert "499, 50, 49 frames" in found[1].case
    layers = ["features", "projection", "positions", "layer_1", "layer_2", "layer_3", "final_norm"]
    assert [row.layer for row in found[2].rows] == layers
    heard = features_of_reference(tmp_path / "tiny")
    told = tmp_path / "tiny" / "preprocessor_config.json"
    told.write_text(told.read_text().replace('"do_normalize": true', '"do_normalize": false'))
    assert np.abs(features_of_reference(tmp_path / "tiny") - heard).max() > 1e-2


def features_of_reference(folder):
    samples = 0.5 + np.random.default_rng(0).standard_normal((1, 4_000)).astype(np.float32)
    reference = reference_from_folder(folder, "hubert", "float32")
    return reference.run({"samples": samples, "mask": None})["features"]


def test_a_control_that_only_an_older_fault_would_notice_is_not_noticed(subject, run):
    """Everything from the first layer on is off already, so that the moved weight shows nowhere."""
    broken = dataclasses.replace(subject, params=moved(subject, "blocks/layers/attention/out/bias", 5.0, (0, 5)))
    *_, control = compare(broken)
    assert [row.ok for row in control.rows] == [False]


def test_saved_activations_are_those_that_were_compared(subject, run, tmp_path):
    found = compared(subject, run, subject.params)
    folder = found.save(tmp_path)
    assert folder == tmp_path / "gpt2" / "tiny_plain"
    ours, theirs = np.load(folder / "ours.npz"), np.load(folder / "reference.npz")
    assert list(ours) == list(theirs) == [row.layer for row in found.rows]
    for row in found.rows:
        assert np.abs(ours[row.layer] - theirs[row.layer]).max() == pytest.approx(row.max_abs)


@pytest.mark.slow(seconds=400)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_all_families_agree(dtype):
    found = list(compare_families((), 0, dtype))
    assert {item.family for item in found} == set(builders()) != set()
    assert [row for item in found for row in item.rows if not row.ok] == []
