"""HuBERT's pre-training and a vocoder with its judges train under fsdp, and with tensor beside it, as on one device."""

import pytest


@pytest.mark.slow(seconds=100)
@pytest.mark.parametrize("stage", ["hubert", "vocoder"])
def test_a_stage_over_eight_devices_equals_one(stage, eight):
    found = eight("stage_meshes:main", stage)
    assert list(found) == [f"{stage}, fsdp", f"{stage}, fsdp+tensor"]
    for case in found.values():
        assert case["finite"]
        assert case["spread"] > case["of"] / 2, "most weights lie in parts"
        assert {path: apart for path, apart in case["apart"].items() if apart > 1e-5} == {}


@pytest.mark.slow(seconds=60)
def test_both_players_of_a_codec_with_its_codebooks_over_eight_devices_and_in_two_parts_equal_one(eight):
    found = eight("stage_meshes:main", "codec")
    assert list(found) == ["codec, fsdp", "codec, fsdp+tensor", "codec, two micro-batches"]
    for case in found.values():
        assert case["finite"] and any(path.startswith("codebooks/") for path in case["apart"])
        assert {path: apart for path, apart in case["apart"].items() if apart > 1e-5} == {}
