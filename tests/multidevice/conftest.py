"""The process with eight devices that all programs of this folder share."""

import pytest

from tests.multidevice.eight import Eight


@pytest.fixture(scope="session")
def eight(tmp_path_factory):
    """Carries out a program of this folder on eight devices: `eight("lora_meshes:main", "ddp, float")`."""
    process = Eight(tmp_path_factory.mktemp("eight") / "log")
    yield process
    process.close()
