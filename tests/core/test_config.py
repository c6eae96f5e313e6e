import json

import pytest

from slm_jax.core import config as config_module
from slm_jax.core.config import Config, content_hash, diff, from_json, load_config_file
from slm_jax.core.errors import UserError


class InnerConfig(Config):
    width: int = 4
    rates: tuple[float, ...] = (0.5, 1.0)


class OuterConfig(Config):
    name: str
    inner: InnerConfig = InnerConfig()
    stages: tuple[Config, ...] = (InnerConfig(width=1), InnerConfig(width=2))
    note: str | None = None


def test_json_round_trip_keeps_types_and_tuples():
    config = OuterConfig(name="a", stages=(InnerConfig(width=9), InnerConfig(rates=())))
    text = json.dumps(config.to_json())
    assert from_json(json.loads(text)) == config


def test_equal_configs_have_equal_hashes_and_a_change_shows():
    config = OuterConfig(name="a")
    assert config.content_hash() == OuterConfig(name="a").content_hash()
    assert config.content_hash() != config.replace(note="x").content_hash()
    assert content_hash({"a": 1, "b": 2}) == content_hash({"b": 2, "a": 1})


class FreeConfig(Config):
    FREE = ("pace",)

    pace: int = 1
    parts: tuple[Config, ...] = ()


def test_free_fields_do_not_bind_at_any_depth():
    slow, fast = FreeConfig(pace=1), FreeConfig(pace=9)
    assert slow.binding_json() == fast.binding_json()
    assert slow.to_json() != fast.to_json()
    outer = OuterConfig(name="a", stages=(FreeConfig(parts=(slow,)),))
    assert outer.binding_json() == outer.replace(stages=(FreeConfig(parts=(fast,), pace=3),)).binding_json()
    assert "pace" not in json.dumps(outer.binding_json())
    assert outer.binding_json() != outer.replace(name="b").binding_json()


def test_diff_names_the_leaf():
    old = OuterConfig(name="a")
    new = old.replace(stages=(InnerConfig(width=1), InnerConfig(width=7)))
    assert diff(old, new) == ["stages.1.width: 2 -> 7"]


def test_diff_shows_a_stage_that_came():
    old, new = OuterConfig(name="a", stages=()), OuterConfig(name="a", stages=(InnerConfig(),))
    assert any(line.startswith("stages.0.width: (absent) -> 4") for line in diff(old, new))


def test_configs_are_frozen_and_keyword_only():
    with pytest.raises(AttributeError):
        InnerConfig().width = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        InnerConfig(3)  # type: ignore[misc]


def test_unknown_field_names_the_nearest():
    data = OuterConfig(name="a").to_json()
    data["inner"]["widht"] = data["inner"].pop("width")
    with pytest.raises(UserError, match=r"no field 'widht'.*'width'"):
        from_json(data)


@pytest.mark.parametrize("path", ["nowhere.Thing", "core.config.content_hash", "core.types.Frames", "os:system", ""])
def test_a_type_that_is_no_config_is_refused(path):
    with pytest.raises(UserError, match="not known"):
        from_json({"type": path})


def test_a_type_that_moved_still_loads(monkeypatch):
    here = f"{__name__}:InnerConfig"
    monkeypatch.setitem(config_module.RENAMED_TYPES, "old.place.Inner", here)
    assert from_json({"type": "old.place.Inner", "width": 5}) == InnerConfig(width=5)


def test_a_field_that_json_cannot_hold_is_refused():
    with pytest.raises(TypeError, match="set"):
        InnerConfig(rates={1.0}).to_json()  # type: ignore[arg-type]


def test_config_file_errors_name_the_file(tmp_path):
    (tmp_path / "good.py").write_text("from slm_jax.core.config import Config\nconfig = Config()\n")
    (tmp_path / "empty.py").write_text("x = 1\n")
    assert isinstance(load_config_file(tmp_path / "good.py"), Config)
    with pytest.raises(UserError, match=r"god\.py.*did you mean.*good\.py"):
        load_config_file(tmp_path / "god.py")
    with pytest.raises(UserError, match="must define `config`"):
        load_config_file(tmp_path / "empty.py")
    (tmp_path / "c.yaml").write_text("")
    with pytest.raises(UserError, match="Python file"):
        load_config_file(tmp_path / "c.yaml")


def test_every_renamed_type_leads_to_a_config_of_today():
    for old, new in config_module.RENAMED_TYPES.items():
        assert config_module.type_path(config_module._resolve(old)) == new
