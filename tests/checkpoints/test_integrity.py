"""Seals: every kind of damage is named."""

import json

import pytest

from slm_jax.checkpoints.integrity import SEAL, file_hashes, find_damage, seal, write_json


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.bin").write_bytes(bytes(range(200)))
    (tmp_path / "b.txt").write_text("b")
    seal(tmp_path)
    return tmp_path


def test_a_sealed_folder_is_sound_and_volatile_files_do_not_count(folder):
    assert find_damage(folder) is None
    (folder / "_CHECKPOINT_METADATA").write_text("changed later")
    assert find_damage(folder) is None
    assert set(file_hashes(folder)) == {"sub/a.bin", "b.txt"}


def test_every_single_flipped_byte_is_seen(folder):
    victim = folder / "sub" / "a.bin"
    whole = victim.read_bytes()
    for place in (0, 99, 199):
        victim.write_bytes(whole[:place] + bytes([whole[place] ^ 128]) + whole[place + 1 :])
        assert "sub/a.bin" in find_damage(folder)
    victim.write_bytes(whole)
    assert find_damage(folder) is None


def test_missing_and_torn_files_are_named(folder):
    (folder / "b.txt").unlink()
    assert find_damage(folder) == "b.txt is missing"
    text = (folder / SEAL).read_text()
    for broken in (text[: len(text) // 2], "[]", json.dumps({"format": 1})):
        (folder / SEAL).write_text(broken)
        assert find_damage(folder) == f"{SEAL} cannot be read"
    (folder / SEAL).unlink()
    assert find_damage(folder) == f"{SEAL} is missing"


def test_json_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
