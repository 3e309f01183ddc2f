"""Colours of components that stay the same from picture to picture, and the pictures' files."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from dos_plugin.drawing.render import cameras, component_values, render, value_colours
from dos_plugin.drawing.sheet import save_gif, scan_sheet
from dos_plugin.hooks.feature_picture import FeaturePicture
from dos_plugin.host import active_host
from dos_plugin.runs.run import open_run
from tests.tiny_run import write_config, write_scans


@pytest.fixture
def feat():
    """Points whose features have three strong directions, and noise in many others."""
    rng = np.random.default_rng(0)
    strong = rng.normal(size=(900, 3)) * [3.0, 2.0, 1.5]
    return (strong @ rng.normal(size=(3, 24)) + 0.1 * rng.normal(size=(900, 24))).astype("f4")


def test_values_are_the_principal_components(feat):
    scaled = (feat - feat.mean(0)) / feat.std(0)
    expected = np.linalg.svd(scaled.astype(np.float64), full_matrices=False)[0][:, :3]
    found = component_values(feat)
    cosine = expected.T @ found / np.linalg.norm(found, axis=0)
    np.testing.assert_allclose(abs(cosine), np.eye(3), atol=1e-3)
    np.testing.assert_allclose(found.std(axis=0), 1, rtol=1e-3)


@pytest.mark.parametrize("change", ["signs", "order", "rotation"])
def test_colours_follow_those_of_the_picture_before(feat, change):
    before = component_values(feat)
    # The same points in other features: their components come in another order, with other signs.
    turned = {
        "signs": before * [-1, 1, -1],
        "order": before[:, [2, 0, 1]],
        "rotation": before @ np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0],
    }[change]
    after = turned * [3, 2, 1] @ np.random.default_rng(2).normal(size=(3, 16))
    free, found = component_values(after), component_values(after, before)

    def correlation(values):
        return [np.corrcoef(values[:, i], before[:, i])[0, 1] for i in range(3)]

    assert min(correlation(free)) < 0.9  # without the picture before, colours flip
    assert min(correlation(found)) > 0.98
    difference = value_colours(found).astype(int) - value_colours(before)
    assert abs(difference).mean() < 16


def test_turning_keeps_distances_between_points(feat):
    free, found = component_values(feat), component_values(feat, component_values(feat[::-1]))
    np.testing.assert_allclose(found @ found.T, free @ free.T, atol=1e-3)


def test_components_of_few_rows_are_those_of_all(feat):
    few, whole = component_values(feat, rows=450), component_values(feat)
    aligned = component_values(feat, whole, rows=450)
    assert few.shape == whole.shape == (900, 3)
    assert np.corrcoef(aligned.ravel(), whole.ravel())[0, 1] > 0.99


def test_collapsed_features_have_colours_too():
    values = component_values(np.ones((50, 8), dtype=np.float32))
    assert np.isfinite(values).all()
    assert len(np.unique(value_colours(values), axis=0)) == 1


def test_reference_of_other_points(feat):
    with pytest.raises(ValueError, match=r"reference: got \(5, 3\), expected \(900, 3\)"):
        component_values(feat, np.zeros((5, 3)))


@pytest.mark.parametrize("size", [4.0, 12.0, 60.0], ids=["room", "hall", "street"])
def test_cameras_see_the_whole_scan(size):
    rng = np.random.default_rng(0)
    coord = rng.uniform([-size / 2, -size / 2, 0], [size / 2, size / 2, 2], (5000, 3))
    coord += [0, 0, -1.8] if size > 25 else [30, -70, 5]  # rooms stand anywhere
    white = np.full((5000, 3), 255, dtype=np.uint8)
    above, beside = (render(coord, white, camera, 600, 600) for camera in cameras(coord))
    for image in (above, beside):  # it fills the picture
        seen = image.max(axis=2) > 100
        assert seen.any(axis=0).mean() > 0.6 and seen.any(axis=1).mean() > 0.35
    if size < 25:  # nothing is cut off
        for image in (above, beside):
            edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
            assert (edge.max(axis=1) > 100).mean() < 0.1


RED, BLUE = (255, 0, 0), (0, 0, 255)


def test_sheet_has_a_row_for_each_scan_and_animation_all_frames(tmp_path):
    coord = np.random.default_rng(0).uniform(-20, 20, (500, 3))
    colour = np.full((500, 3), 200, dtype=np.uint8)
    one = scan_sheet([coord], [colour], ["a"], "Epoch 1")
    two = scan_sheet([coord, coord], [colour, colour], ["a", "b"], "Epoch 1", "note")
    assert one.shape[1] == two.shape[1] and two.shape[0] > 1.8 * one.shape[0]
    other = scan_sheet([coord], [colour], ["a"], "Epoch 1234")
    assert not np.array_equal(one[:48, :760], other[:48, :760])  # the title is there
    named = scan_sheet([coord], [colour], ["a"], "Epoch 1", legend=[("a", RED), ("b", BLUE)])
    assert np.array_equal(named[: len(one)], one)
    line = named[len(one) :]
    assert (line == RED).all(2).any() and (line == BLUE).all(2).any()
    for index, image in enumerate((one, other)):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    save_gif([tmp_path / "0.png", tmp_path / "1.png"], tmp_path / "x.gif", width=300)
    with Image.open(tmp_path / "x.gif") as animation:
        assert animation.n_frames == 2 and animation.width == 300
        durations = []
        for frame in range(2):
            animation.seek(frame)
            durations.append(animation.info["duration"])
    assert durations[1] > durations[0]


# -- the hook ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    write_scans(root / "data", "train", 2)
    return open_run(write_config(root / "run", root / "data")).config


def attach(hook, config, folder, **changes):
    """A hook in a trainer that has what the hook asks for."""
    torch.manual_seed(0)
    cfg = type(config)({**config.to_dict(), "save_path": str(folder), **changes})
    hook.trainer = SimpleNamespace(
        cfg=cfg,
        hooks=[hook],
        model=active_host().build_model(cfg.model),
        logger=logging.getLogger("trainer"),
        writer=None,
        epoch=0,
        start_epoch=0,
        max_epoch=4,
    )
    return hook


def test_scans_of_the_training_where_there_are_none_for_validation(config, tmp_path):
    hook = attach(FeaturePicture(scans=[1, 0]), config, tmp_path)
    hook.before_train()
    assert [scan.name for scan in hook.scans] == ["scan-1", "scan-0"]
    assert list(tmp_path.iterdir()) == []  # nothing is written before all hooks are ready
    hook.before_epoch()
    with Image.open(tmp_path / "features/epoch_0000.png") as image:
        assert image.height > image.width / 2


def test_a_new_run_removes_pictures_of_an_earlier_one_and_a_resumed_run_keeps_them(
    config, tmp_path
):
    for resume, left in ((True, ["epoch_0000.png", "epoch_0003.png"]), (False, [])):
        (tmp_path / "features").mkdir(exist_ok=True)
        (tmp_path / "features.gif").touch()
        for epoch in (0, 3, 5):
            (tmp_path / f"features/epoch_{epoch:04d}.png").touch()
        hook = attach(FeaturePicture(every=2), config, tmp_path, resume=resume)
        hook.trainer.start_epoch = hook.trainer.epoch = 3
        hook.before_train()
        hook.before_epoch()
        assert [path.name for path in hook.pictures()] == left
        assert (tmp_path / "features.gif").exists() == resume


def test_without_pillow_it_says_so_once_and_is_off(config, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None)
    hook = attach(FeaturePicture(every=1), config, tmp_path)
    for moment in ("before_train", "before_epoch", "after_epoch", "after_train"):
        getattr(hook, moment)()
    assert [r.message for r in caplog.records] == [
        "FeaturePicture: no pictures, pip install pillow for them"
    ]
    assert list(tmp_path.iterdir()) == []


def test_features_that_are_no_numbers_leave_a_picture_out(config, tmp_path, caplog):
    hook = attach(FeaturePicture(every=1), config, tmp_path)
    hook.before_train()
    hook.before_epoch()
    for parameter in hook.trainer.model.student.parameters():
        parameter.data.fill_(torch.nan)
    hook.after_epoch()
    assert "no picture of epoch 1" in caplog.text
    assert [path.name for path in hook.pictures()] == ["epoch_0000.png"]


def test_a_damaged_file_of_colours_costs_no_picture(config, tmp_path):
    hook = attach(FeaturePicture(every=1), config, tmp_path)
    hook.before_train()
    hook.before_epoch()
    for content in (b"", (hook.folder / "colours.npy").read_bytes()[:-9]):
        (hook.folder / "colours.npy").write_bytes(content)
        hook.after_epoch()
        hook.trainer.epoch += 1
    assert len(hook.pictures()) == 3


def test_a_finished_run_that_is_resumed_only_makes_what_is_missing(config, tmp_path):
    hook = attach(FeaturePicture(every=1), config, tmp_path)
    hook.before_train()
    hook.before_epoch()
    again = attach(FeaturePicture(every=1), config, tmp_path, resume=True)
    again.before_train()
    again.after_train()
    assert (tmp_path / "features.gif").is_file()
    assert [path.name for path in again.pictures()] == ["epoch_0000.png"]
    again.trainer.start_epoch = again.trainer.max_epoch  # ended between checkpoint and picture
    for _ in range(2):
        again.after_train()
        assert [path.name for path in again.pictures()] == ["epoch_0000.png", "epoch_0004.png"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(every=0), "every of FeaturePicture must be a whole number of at least 1, got 0"),
        (dict(scans=()), "scans of FeaturePicture must name at least one scan"),
        (
            dict(scans=None),
            "scans of FeaturePicture must be a whole number of at least 0, got None",
        ),
        (dict(scans=(-1,)), "scans of FeaturePicture must be a whole number of at least 0, got -1"),
        (dict(branch="both"), "branch of FeaturePicture must be one of .*, got 'both'"),
        (dict(scans=2), "scans of FeaturePicture asks for number 2, .*train has 0 to 1"),
        (dict(split="test"), "split='test' of FeaturePicture: .*no file or folder"),
        (dict(data_root="/nowhere"), "data_root='/nowhere'.* of FeaturePicture: .*no such"),
    ],
)
def test_bad_options(config, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        attach(FeaturePicture(**options), config, tmp_path).before_train()
