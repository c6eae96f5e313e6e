"""Logs beside a store: sent when they changed, taken up again by the next process."""

from slm_jax.core import mirror as module
from slm_jax.core.mirror import Mirror
from slm_jax.core.paths import as_path, entries
from tests.core import memory_scheme


def test_here_it_is_the_folder_itself(tmp_path):
    with Mirror(tmp_path, ("log",)) as mirror:
        assert mirror.path == tmp_path
        (tmp_path / "log").write_text("x")
        mirror.sync()
    assert (tmp_path / "log").read_text() == "x"


def test_a_store_gets_what_changed_and_the_next_process_goes_on(monkeypatch):
    memory_scheme.clear()
    folder = as_path("memory://bucket/run")
    with Mirror(folder, ("log",)) as mirror:
        (mirror.path / "log").write_text("1\n")
        (mirror.path / "sub").mkdir()
        (mirror.path / "sub" / "events").write_text("e")
        mirror.sync()
        assert entries(folder) == [], "not so soon"
        monkeypatch.setattr(module, "EVERY_S", 0.0)
        mirror.sync()
        assert (folder / "log").read_text() == "1\n"
        sent = []
        monkeypatch.setattr(module, "copy_file", lambda source, target: sent.append(source.name))
        mirror.sync()
        assert sent == []
        with (mirror.path / "log").open("a") as file:
            file.write("2\n")
        mirror.sync()
        assert sent == ["log"]
        monkeypatch.undo()
    gone = mirror.path
    assert not gone.exists()
    assert (folder / "sub" / "events").read_text() == "e"
    with Mirror(folder, ("log", "never")) as mirror:
        assert sorted(path.name for path in mirror.path.iterdir()) == ["log"]
        (mirror.path / "log").write_text("3\n")
    assert (folder / "log").read_text() == "3\n"


def test_a_host_that_writes_nothing_sends_nothing():
    memory_scheme.clear()
    with Mirror(as_path("memory://bucket/run"), (), active=False) as mirror:
        (mirror.path / "log").write_text("x")
    assert entries(as_path("memory://bucket/run")) == []
