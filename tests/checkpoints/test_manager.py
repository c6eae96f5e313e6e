"""Checkpoints: what goes in comes out, damage falls back, a full disk loses nothing."""

import os
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from slm_jax.checkpoints.integrity import find_damage
from slm_jax.checkpoints.manager import CheckpointError, Checkpoints, restore_params
from slm_jax.core.errors import UserError
from slm_jax.core.trees import flatten_by_path
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.parallel.sharding import replicated


def trees(step, size=64):
    params = {"a": {"kernel": jnp.arange(float(size)) + step}, "half": jnp.full((3,), step, jnp.bfloat16)}
    opt = optax.adam(1e-3).init(params)
    return {"params": params, "train": {"opt": opt, "key": jax.random.key(step), "step": jnp.asarray(step)}}


def abstract(step=0, size=64):
    sharding = replicated(MeshConfig().make())
    shapes = jax.eval_shape(lambda: trees(step, size))
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding), shapes)


def fill(folder, steps, keep=3, size=64):
    checkpoints = Checkpoints(folder, keep)
    for step in steps:
        checkpoints.save(step, trees(step, size), {"next": step}, {"hash": "abc"})
    checkpoints.close()
    return checkpoints


def same(first, second):
    one, two = flatten_by_path(first), flatten_by_path(second)
    assert one.keys() == two.keys()
    for path in one:
        a, b = one[path], two[path]
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert a.dtype == b.dtype, path
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), err_msg=path)


def test_the_newest_comes_back_whole_and_old_ones_go(tmp_path):
    checkpoints = fill(tmp_path, [1, 2, 30, 4_000], keep=2)
    assert checkpoints.steps() == [30, 4_000]
    assert all(find_damage(checkpoints.path(step)) is None for step in (30, 4_000))
    seen = []
    restored = Checkpoints(tmp_path).restore_latest(abstract(), lambda step, meta: seen.append((step, meta)))
    assert (restored.step, restored.data, restored.meta) == (4_000, {"next": 4_000}, {"hash": "abc"})
    assert seen == [(4_000, {"hash": "abc"})]
    same(restored.trees, trees(4_000))
    assert jax.tree.structure(restored.trees) == jax.tree.structure(trees(0))


def test_parameters_come_back_alone_without_a_template(tmp_path):
    fill(tmp_path, [1, 2])
    restored = restore_params(tmp_path)
    assert restored.step == 2
    same(restored.trees, {"params": trees(2)["params"]})
    with pytest.raises(UserError, match=r"item is 'ema': .*\['params', 'train'\]"):
        restore_params(tmp_path, item="ema")
    with pytest.raises(CheckpointError, match="holds no undamaged checkpoint"):
        restore_params(tmp_path / "empty")


def test_other_shapes_are_refused_with_both_shown(tmp_path):
    fill(tmp_path, [1])
    with pytest.raises(UserError, match=r"a/kernel: \[\[64\], 'float32'\] -> \[\[65\], 'float32'\]"):
        Checkpoints(tmp_path).restore_latest(abstract(size=65))
    with pytest.raises(UserError, match=r"no item 'trian'.*did you mean 'train'"):
        Checkpoints(tmp_path).restore_latest({"trian": abstract()["train"]})


def test_saving_is_safe_beside_a_donating_step(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=9)
    advance = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
    params = {"kernel": jnp.zeros(200_000)}
    for step in range(1, 6):
        params = advance(params)
        checkpoints.save(step, {"params": params}, {}, {})
    checkpoints.close()
    for step in range(1, 6):
        args = {"params": {"kernel": jax.ShapeDtypeStruct((200_000,), jnp.float32, sharding=None)}}
        args = jax.tree.map(lambda s: s.update(sharding=replicated(MeshConfig().make())), args)
        found = checkpoints._arrays(step, args)["params"]["kernel"]
        assert np.unique(np.asarray(found)).tolist() == [step]


def test_a_step_is_not_saved_twice_and_unfinished_ones_are_removed(tmp_path):
    fill(tmp_path, [1])
    leftover = tmp_path / "00000002.orbax-checkpoint-tmp"
    leftover.mkdir()
    before = os.stat(tmp_path / "00000001").st_mtime_ns
    checkpoints = fill(tmp_path, [1, 2])
    assert checkpoints.steps() == [1, 2]
    assert os.stat(tmp_path / "00000001").st_mtime_ns == before
    assert not leftover.exists()


def array_file(checkpoints, step, item):
    return max(checkpoints.path(step).glob(f"{item}/**/d/*"), key=lambda path: path.stat().st_size)


def test_damaged_ones_are_passed_over_in_order(tmp_path, caplog):
    checkpoints = fill(tmp_path, [1, 2, 3])
    victim = array_file(checkpoints, 3, "params")
    data = bytearray(victim.read_bytes())
    data[-1] ^= 4
    victim.write_bytes(data)
    array_file(checkpoints, 2, "train").unlink()
    assert restore_params(tmp_path).step == 1
    assert checkpoints.steps() == [1, 2, 3], "reading parameters changes nothing on disk"
    restored = checkpoints.restore_latest(abstract())
    assert restored.step == 1
    same(restored.trees, trees(1))
    assert "step 3" in caplog.text
    assert "step 2" in caplog.text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000001", "00000002.damaged", "00000003.damaged"]
    fill(tmp_path, [3])
    array_file(checkpoints, 3, "params").unlink()
    checkpoints.restore_latest(abstract())
    assert (tmp_path / "00000003.damaged1").is_dir()


def test_nothing_sound_is_nothing(tmp_path):
    assert Checkpoints(tmp_path).restore_latest(abstract()) is None
    checkpoints = fill(tmp_path, [1])
    (checkpoints.path(1) / "integrity.json").unlink()
    assert checkpoints.restore_latest(abstract()) is None
    assert (tmp_path / "00000001.damaged").is_dir()


def test_keep_is_checked(tmp_path):
    with pytest.raises(UserError, match="keep is 0"):
        Checkpoints(tmp_path, keep=0)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, timeout=10)
    except OSError as error:
        pytest.skip(f"no small disk could be mounted: {error}")
    if done.returncode:
        pytest.skip(f"no small disk could be mounted: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], timeout=10, check=True)


def save_and_wait(checkpoints, step, items):
    checkpoints.save(step, items, {}, {})
    checkpoints.wait()


def test_a_full_disk_is_one_clear_error_and_older_steps_stay(small_disk):
    checkpoints = Checkpoints(small_disk / "run")
    checkpoints.save(1, trees(1), {}, {})
    checkpoints.wait()
    noise = {"params": {"kernel": jax.random.normal(jax.random.key(0), (1_500_000,))}}
    with pytest.raises(CheckpointError, match=r"step 2 .*could not be written.*Last good checkpoint: step 1"):
        save_and_wait(checkpoints, 2, noise)
    assert checkpoints.steps() == [1]
    checkpoints.save(3, trees(3), {}, {})
    checkpoints.close()
    restored = Checkpoints(small_disk / "run").restore_latest(abstract())
    assert restored.step == 3
    same(restored.trees, trees(3))
