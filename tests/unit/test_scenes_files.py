"""Synthetic streets on disk: layout, cache, interruptions, command line, pictures."""

import json
from zlib import crc32

import numpy as np
import pytest
from PIL import Image

from dos_plugin import cli
from dos_plugin.drawing.street import draw_scan
from dos_plugin.scenes import CLASS_NAMES, IGNORE, generate_scan, write_scenes
from dos_plugin.scenes import write as write_module
from dos_plugin.scenes.classes import CAR, FENCE, PALETTE


def tiny_scan(seed):
    """Stands in for the generator where only files matter."""
    rng = np.random.default_rng(seed)
    return {
        "coord": rng.random((5, 3), dtype=np.float32),
        "strength": rng.random((5, 1), dtype=np.float32),
        "segment": np.arange(5, dtype=np.int32) - 1,
        "instance": np.full(5, -1, np.int32),
        "boxes": np.zeros((0, 8), np.float32),
    }


@pytest.fixture
def tiny(monkeypatch):
    """Counts the scans made; ``fail_at`` makes the n-th one fail."""
    state = {"made": 0, "fail_at": None}

    def make(seed):
        state["made"] += 1
        if state["made"] == state["fail_at"]:
            raise KeyboardInterrupt
        return tiny_scan(seed)

    monkeypatch.setattr(write_module, "generate_scan", make)
    return state


def write(root, train=3, val=2, seed=0):
    return write_scenes(root, {"train": train, "val": val}, seed, workers=1, progress=False)


def content(root):
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): p.read_bytes() for p in files}


def test_scenes_that_agree_are_kept(tiny, tmp_path):
    first = write(tmp_path)
    before = content(tmp_path)
    assert tiny["made"] == 5
    assert write(tmp_path) == first and tiny["made"] == 5
    assert content(tmp_path) == before
    write(tmp_path, train=5)
    assert tiny["made"] == 7  # two more, the others stay
    write(tmp_path, train=3)
    assert tiny["made"] == 7 and content(tmp_path) == before


def test_a_lost_file_is_made_again(tiny, tmp_path):
    write(tmp_path)
    before = content(tmp_path)
    (tmp_path / "train/scene-00001/strength.npy").unlink()
    write(tmp_path)
    assert tiny["made"] == 6 and content(tmp_path) == before


@pytest.mark.parametrize("change", ["seed", "version"])
def test_scenes_of_other_settings_are_replaced(tiny, tmp_path, monkeypatch, change):
    write(tmp_path)
    before = content(tmp_path)
    if change == "version":
        monkeypatch.setattr(write_module, "VERSION", -1)
    write(tmp_path, seed=1 if change == "seed" else 0)
    assert tiny["made"] == 10
    same = content(tmp_path)["train/scene-00000/coord.npy"] == before["train/scene-00000/coord.npy"]
    assert same == (change == "version")


def test_an_interrupted_run_leaves_whole_scenes_and_goes_on(tiny, tmp_path):
    write(tmp_path / "through")
    tiny.update(made=0, fail_at=3)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "cut")
    scenes = sorted((tmp_path / "cut/train").iterdir())
    assert [s.name for s in scenes] == ["scene-00000", "scene-00001"]
    assert all(len(list(s.iterdir())) == 5 for s in scenes)
    tiny.update(made=0, fail_at=None)
    write(tmp_path / "cut")
    assert tiny["made"] == 3
    assert content(tmp_path / "cut") == content(tmp_path / "through")


def test_a_scene_whose_writing_fails_does_not_appear(tiny, tmp_path, monkeypatch):
    save = np.save

    def full(file, array):
        if file.name == "segment.npy":
            raise OSError("No space left on device")
        save(file, array)

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full)
        with pytest.raises(OSError, match="No space"):
            write(tmp_path)
    assert list((tmp_path / "train").iterdir()) == []
    leftover = tmp_path / ".incomplete/999999999-train-scene-00000"  # of a run that was killed
    leftover.mkdir(parents=True)
    write(tmp_path)
    assert not (tmp_path / ".incomplete").exists()


def test_folders_of_others_are_left_alone(tiny, tmp_path):
    mine = tmp_path / "train/scene-00000/coord.npy"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    with pytest.raises(ValueError, match="not written by this generator"):
        write(tmp_path)
    assert mine.read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed: -1"),
        ({"seed": 0.5}, "seed: 0.5"),
        ({"workers": 0}, "workers: 0"),
        ({"splits": {"train": -2}}, "train asks for -2"),
        ({"splits": {"../x": 1}}, "'../x'"),
    ],
)
def test_bad_arguments(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        write_scenes(tmp_path / "new", **arguments)
    assert not (tmp_path / "new").exists()


def test_a_broken_record_is_named(tmp_path):
    (tmp_path / "scenes.json").write_text("{")
    with pytest.raises(ValueError, match=r"scenes\.json: not valid JSON"):
        write(tmp_path)


def test_two_processes_write_what_one_does_and_count_it(tmp_path):
    record = write_scenes(tmp_path, {"val": 4}, seed=1, workers=2, progress=False)
    segments = []
    for index in range(4):
        scan = generate_scan([1, crc32(b"val"), index])
        for key, array in scan.items():
            written = np.load(tmp_path / f"val/scene-0000{index}/{key}.npy")
            assert np.array_equal(written, array) and written.dtype == array.dtype
        segments.append(scan["segment"])
    segment = np.concatenate(segments)
    assert record == json.loads((tmp_path / "scenes.json").read_text())
    assert record["seed"] == 1 and record["class_names"] == list(CLASS_NAMES)
    part = record["splits"]["val"]
    assert part["scenes"] == 4 and part["points"] == len(segment)
    assert part["class_points"]["car"] == (segment == CAR).sum()
    assert part["class_points"]["ignored"] == (segment == IGNORE).sum()


def test_command_line_and_picture(tiny, tmp_path, capsys):
    picture = tmp_path / "new/picture.png"
    argv = ["scenes", str(tmp_path / "s"), "--train", "2", "--val", "1", "--workers", "1"]
    assert cli.main([*argv, "--picture", str(picture)]) == 0
    assert "train: 2 scans, 10 points" in capsys.readouterr().out
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert cli.main([*argv, "--seed", "-3"]) == 2
    assert "seed: -3" in capsys.readouterr().err
    assert cli.main([*argv, "--picture-scene", "val/0"]) == 2
    assert "--picture-scene: needs --picture" in capsys.readouterr().err


def test_picture_shows_the_colours_of_classes(tmp_path):
    rng = np.random.default_rng(0)
    coord = np.concatenate([rng.uniform(5, 20, (4000, 1)), rng.uniform(-4, 4, (4000, 2))], axis=1)
    for label in (CAR, FENCE):
        path = draw_scan(coord, np.full(4000, label), tmp_path / f"new/{label}.png")
        with Image.open(path) as image:
            pixels = np.asarray(image)[50:600].reshape(-1, 3).astype(int)
        bright = pixels[pixels.max(1) > 0.8 * max(PALETTE[label])]
        # The renderer darkens edges and averages, which changes the brightness alone.
        hue = bright / bright.max(1, keepdims=True) - np.divide(PALETTE[label], max(PALETTE[label]))
        assert len(bright) > 1000 and (np.abs(hue).max(1) < 0.05).mean() > 0.8
    with pytest.raises(ValueError, match="colour: got 4000 for 3 points"):
        draw_scan(coord[:3], np.full(4000, CAR), tmp_path / "x.png")
