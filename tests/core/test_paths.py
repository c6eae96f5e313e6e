"""Paths here and in a store: the same functions, the same promises."""

import contextlib
import importlib.util
from pathlib import Path

import pytest
from etils import epath

from slm_jax.core import paths
from slm_jax.core.errors import UserError
from slm_jax.core.paths import (
    absolute,
    as_path,
    beside,
    copy_file,
    entries,
    file_size,
    files_below,
    is_local,
    local_copy,
    lock_file,
    move_into_place,
    remove_tree,
    uri,
    write_whole,
)
from tests.core import memory_scheme


@pytest.fixture(params=["here", "store"])
def folder(request, tmp_path):
    """A folder here, and one in a store."""
    memory_scheme.clear()
    return tmp_path / "folder" if request.param == "here" else as_path("memory://bucket/folder")


def test_a_scheme_makes_the_difference():
    assert as_path("runs/a") == Path("runs/a")
    assert as_path("file:///some/a") == Path("/some/a")
    assert is_local(as_path("/some/a:/b"))
    for text in ("memory://bucket/a/b", Path("memory://bucket/a/b"), epath.Path("memory://bucket/a/b")):
        remote = as_path(text)  # pathlib turns the two slashes into one
        assert not is_local(remote)
        assert (str(remote), str(remote / "c"), remote.name) == ("memory://bucket/a/b", "memory://bucket/a/b/c", "b")
        assert absolute(text) == remote
        assert uri(remote) == "memory://bucket/a/b"
    assert as_path(epath.Path("/some/a")) == Path("/some/a")
    assert isinstance(as_path(epath.Path("/some/a")), Path)
    assert uri(Path("/some/a")) == "file:///some/a"
    assert absolute("a") == Path.cwd() / "a"


def test_what_cannot_be_reached_is_named(monkeypatch):
    with pytest.raises(UserError, match=r"'ftp://host/a': its scheme must be one of file://, gs://"):
        as_path("ftp://host/a")
    find = importlib.util.find_spec
    monkeypatch.setattr(paths.importlib.util, "find_spec", lambda name: None if name == "gcsfs" else find(name))
    with pytest.raises(UserError, match=r"'gs://bucket/run': needs the package gcsfs"):
        as_path(Path("gs://bucket/run"))


def test_files_are_listed_copied_measured_and_removed(folder, tmp_path):
    assert (entries(folder), files_below(folder), file_size(folder / "a")) == ([], [], None)
    source = tmp_path / "source"
    source.write_bytes(b"12345")
    copy_file(source, folder / "sub" / "b")
    copy_file(source, folder / "a")
    write_whole(folder / "c.json", "{}")
    write_whole(folder / "c.json", "{ }")
    names = [path.relative_to(folder).as_posix() for path in files_below(folder)]
    assert names == ["a", "c.json", "sub/b"]
    assert (file_size(folder / "a"), (folder / "c.json").read_text()) == (5, "{ }")
    remove_tree(folder / "sub")
    assert sorted(path.name for path in entries(folder)) == ["a", "c.json"]
    remove_tree(folder)
    remove_tree(folder)
    assert entries(folder) == []


def test_a_folder_comes_whole_and_takes_the_place_of_another(folder):
    for generation in ("first", "second"):
        with beside(folder) as writing:
            assert list(writing.iterdir()) == []
            (writing / "sub").mkdir()
            (writing / "sub" / generation).write_text("x")
            (writing / "index").write_text(generation)
            move_into_place(writing, folder, "index")
        names = [path.relative_to(folder).as_posix() for path in files_below(folder)]
        assert names == ["index", f"sub/{generation}"]
    assert not writing.exists()


def test_in_a_store_the_file_that_counts_comes_last(tmp_path, monkeypatch):
    memory_scheme.clear()
    folder = as_path("memory://bucket/table")
    (tmp_path / "index").write_text("1")
    (tmp_path / "z").write_text("2")
    move_into_place(tmp_path, folder, "index")

    def cut(source, target):
        assert entries(folder) == [], "the old index went first"
        raise ConnectionError("lost")

    monkeypatch.setattr(paths, "copy_file", cut)
    with pytest.raises(ConnectionError):
        move_into_place(tmp_path, folder, "index")
    assert not (folder / "index").exists()


def test_a_failed_block_leaves_nothing(folder):
    with contextlib.suppress(OSError), beside(folder) as writing:
        (writing / "a").write_text("x")
        raise OSError("no space")
    assert not writing.exists()
    assert entries(folder) == []


def test_copies_of_a_store_are_kept_by_key(tmp_path, monkeypatch):
    memory_scheme.clear()
    monkeypatch.setenv("SLM_JAX_CACHE", str(tmp_path / "cache"))
    remote = as_path("memory://bucket/a.bin")
    write_whole(remote, "one")
    first = local_copy(remote, "k1")
    assert first.read_text() == "one"
    write_whole(remote, "two")
    assert local_copy(remote, "k1").read_text() == "one"
    assert local_copy(remote, "k2").read_text() == "two"
    assert local_copy(first, "any") is first
    assert sorted(path.name for path in files_below(tmp_path / "cache")) == ["a.bin", "a.bin"]


def test_a_lock_is_a_file_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("SLM_JAX_CACHE", str(tmp_path / "cache"))
    assert lock_file(tmp_path) == tmp_path / "lock"
    one, other = (lock_file(as_path(f"memory://bucket/{name}")) for name in "ab")
    assert one != other
    assert one.parent.is_dir()
    assert one == lock_file(as_path("memory://bucket/a"))
