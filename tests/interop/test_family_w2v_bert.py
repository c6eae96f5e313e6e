"""What of a w2v-BERT's config is read, and what is refused in one line."""

import pytest

from slm_jax.core.errors import UserError
from slm_jax.encoders.w2v_bert import w2v_bert_2, w2v_bert_audiolm, w2v_bert_tiny
from slm_jax.interop.families import FAMILIES, family_for

FAMILY = FAMILIES["wav2vec2-bert"]
HUB = {"model_type": "wav2vec2-bert"}


@pytest.mark.parametrize("config", [w2v_bert_2(), w2v_bert_audiolm(), w2v_bert_tiny()])
def test_presets_travel(config):
    assert family_for(config) is FAMILY
    assert FAMILY.read_config(FAMILY.write_config(config)) == config


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("position_embeddings_type", "relative", "only 'relative_key' is supported"),
        ("position_embeddings_type", "rotary", "only 'relative_key' is supported"),
        ("position_embeddings_type", None, "only 'relative_key' is supported"),
        ("add_adapter", True, "only False or None is supported"),
        ("feature_projection_input_dim", 161, "must be 2 frames of 80 bands"),
        ("preprocessor_config", {"dither": 1}, "is not supported"),
    ],
)
def test_what_we_cannot_honour_is_named(field, value, rule):
    with pytest.raises(UserError, match=f"{field}.* is .*{rule}") as caught:
        FAMILY.read_config({**HUB, field: value})
    assert len(str(caught.value).splitlines()) == 1


def test_a_stack_that_does_not_make_the_channels_is_refused():
    with pytest.raises(UserError, match="feature_projection_input_dim is 160: must be 3 frames of 80 bands"):
        FAMILY.read_config({**HUB, "preprocessor_config": {"stride": 3}})


def test_the_file_beside_it_says_how_frames_are_stacked():
    hub = {**HUB, "feature_projection_input_dim": 92, "preprocessor_config": {"num_mel_bins": 23, "stride": 4}}
    config = FAMILY.read_config(hub)
    assert (config.mels, config.stacked, config.hop) == (23, 4, 640)
