"""A speech-aware stage learns on eight devices what it learns on one, however its weights and frozen parts lie."""

import numpy as np
import pytest

from tests.multidevice.speech_aware_meshes import main
from tests.training.small_answers import write_parts


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("speech_aware")
    write_parts(place / "parts")
    return place


@pytest.fixture(scope="module")
def alone(folder):
    return main(str(folder), "one", "heard")


@pytest.mark.parametrize(("mesh", "kept"), [("ddp", "heard"), ("fsdp", "kept"), ("fsdp+tensor", "heard")])
def test_eight_devices_learn_what_one_does(mesh, kept, folder, alone, eight):
    found = eight("speech_aware_meshes:main", str(folder), mesh, kept)
    assert found.keys() == alone.keys()
    for path, leaf in alone.items():
        np.testing.assert_allclose(found[path], leaf, atol=1e-5, err_msg=path)


def test_something_is_learnt(folder, alone):
    assert max(np.abs(leaf).max() for path, leaf in alone.items() if path.endswith("/b")) > 1e-3, "LoRA has moved"
