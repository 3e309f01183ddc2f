"""Exported backbones: features, names and configs are those of the run; what cannot be, is said."""

import copy
import importlib

import pytest
import torch

pytest.importorskip("spconv")
pytest.importorskip("torch_pointcloud")

from dos_plugin.commands.export import export, write
from dos_plugin.method.matching import row_features
from dos_plugin.minihost.point import Point
from dos_plugin.probing.scans import ScanSource, extract
from dos_plugin.runs.checkpoint import META, read_checkpoint
from dos_plugin.runs.run import load_backbone, open_run
from dos_plugin.runs.torch_pointcloud import constructor, load, match_host, point_features
from tests.exported_runs import BACKBONES, make_run
from tests.small_backbones import cloud, collate
from tests.tiny_run import GRID, write_scans

CLOUDS = {
    "many patches": [cloud(700, 0)],
    "fewer points than a patch": [cloud(20, 1)],
    "two of different size": [cloud(90, 2), cloud(20, 3)],
    "largest cell of all ones": [cloud(500, 5, (32, 20, 6))],
    "whose second level has": [cloud(500, 5, (31, 20, 6))],
}


@pytest.fixture(scope="module", params=BACKBONES)
def run(request, tmp_path_factory):
    root = tmp_path_factory.mktemp(request.param)
    write_scans(root / "data", "train", 1)
    return make_run(root, BACKBONES[request.param])


def own_features(backbone, batch):
    feat, rows = row_features(backbone(Point(batch)), len(batch["feat"]), -1)
    return feat[rows]


def batch_of(*clouds):
    batch = collate(*clouds)
    return batch | dict(feat=batch["feat"][:, :2])


@pytest.mark.parametrize("branch", ["student", "teacher"])
def test_torch_pointcloud_gives_the_features_of_the_run(run, branch, tmp_path):
    write(export(run, "torch-pointcloud", branch), tmp_path / "file.pth")
    backbone, model = load_backbone(run, branch), load(tmp_path / "file.pth")
    for name, clouds in CLOUDS.items():
        batch = batch_of(*clouds)
        with torch.no_grad():
            expected = own_features(backbone, batch)
        assert expected.std(dim=0).max() > 0.01
        found = point_features(model, batch["feat"], batch["grid_coord"], Point(batch).batch)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4, msg=name)
    scan = ScanSource(run)[0]
    one_cloud = torch.zeros(len(scan.feat), dtype=torch.int64)
    found = point_features(model, scan.feat, scan.grid_coord, one_cloud)
    torch.testing.assert_close(found, extract(backbone, scan), rtol=0, atol=1e-4)


def test_the_lines_of_the_documentation_without_this_package(tmp_path):
    """Hilbert curves, clouds of whole patches on every level: the plain library is enough."""
    config = dict(BACKBONES["m2"], order=("hilbert", "hilbert-trans"), enc_patch_size=(4, 2, 1))
    write(export(make_run(tmp_path, config), "torch-pointcloud"), tmp_path / "file.pth")

    file = torch.load(tmp_path / "file.pth", weights_only=True)
    module, name = file["constructor"].rsplit(".", 1)
    model = getattr(importlib.import_module(module), name)(**file["kwargs"])
    model.load_state_dict(file["state_dict"])
    model.eval()

    batch = batch_of(cloud(700, 0))
    with torch.no_grad():
        found, _, _ = model(batch["feat"], batch["grid_coord"], Point(batch).batch)
        expected = match_host(copy.deepcopy(model))(
            batch["feat"], batch["grid_coord"], Point(batch).batch
        )
    torch.testing.assert_close(found, expected[0], rtol=0, atol=1e-4)
    backbone = load_backbone(open_run(tmp_path / "file.pth"))
    with torch.no_grad():
        torch.testing.assert_close(found, backbone(Point(batch)).feat, rtol=0, atol=1e-4)


def test_a_matched_model_stays_matched_when_copied_and_leaves_the_library_alone(tmp_path):
    from torch_pointcloud.models import point_transformer_v3 as library

    before = library.serialize
    write(export(make_run(tmp_path, BACKBONES["m1"]), "torch-pointcloud"), tmp_path / "f.pth")
    model = load(tmp_path / "f.pth")
    copied = copy.deepcopy(model)
    small, large = batch_of(cloud(20, 1)), batch_of(cloud(700, 0))
    for batch in (small, large, small):
        args = batch["feat"], batch["grid_coord"], Point(batch).batch
        torch.testing.assert_close(point_features(copied, *args), point_features(model, *args))
    assert library.serialize is before


def test_and_back_to_the_names_of_the_host(run, tmp_path):
    original = run.trained.backbone("student")
    write(export(run, "torch-pointcloud"), tmp_path / "there.pth")
    back = export(open_run(tmp_path / "there.pth"), "pointcept")
    token = original.pop("embedding.mask_token", None)
    assert list(back["state_dict"]) == [f"backbone.{key}" for key in original]
    for key, value in original.items():
        assert torch.equal(back["state_dict"][f"backbone.{key}"], value), key
    assert back[META]["branch"] == "student" and back[META]["epoch"] == 3
    assert back[META]["kind"] == "DOS pretraining"
    assert back["config"].get("mask_token", False) is False
    assert (token is None) == (not read_checkpoint(tmp_path / "there.pth").exported["left_out"])


def test_a_pointcept_file_stands_for_the_run(run, tmp_path):
    write(export(run, "pointcept", "teacher"), tmp_path / "file.pth")
    content = torch.load(tmp_path / "file.pth", weights_only=True)
    orders = {} if content["config"]["type"] == "SpUNet-v1m1" else dict(shuffle_orders=False)
    assert content["config"] == dict(run.config.model.backbone) | orders
    meta = content[META]
    assert meta["feat_keys"] == ("strength", "height") and meta["in_channels"] == 2
    assert meta["grid_size"] == GRID and meta["branch"] == "teacher"
    assert str(run.config_path.parent) not in str({k: v for k, v in content.items() if k == META})
    found = open_run(tmp_path / "file.pth")
    root = run.config.data.train.data_root
    scan, same = ScanSource(run)[0], ScanSource(found, root, "train")[0]
    torch.testing.assert_close(same.feat, scan.feat, rtol=0, atol=0)
    expected = extract(load_backbone(run, "teacher"), scan)
    torch.testing.assert_close(
        extract(load_backbone(found, "teacher"), same), expected, rtol=0, atol=0
    )


def test_a_teachers_own_options_are_in_its_config(tmp_path):
    run = make_run(tmp_path, BACKBONES["m2"], teacher_custom=dict(drop_path=0.0, qk_scale=0.5))
    assert export(run, "pointcept", "student")["config"].get("qk_scale") is None
    assert export(run, "torch-pointcloud", "teacher")["kwargs"]["qk_scale"] == 0.5


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(type="PT-v3m3"), "type: PT-v3m3 cannot be converted"),
        (dict(layer_scale=0.1), "layer_scale=0.1: torch-pointcloud has no such option"),
        (dict(pre_norm=False), "pre_norm=False: torch-pointcloud has no such option"),
        (dict(novelty=1), "PT-v3m2 has no option 'novelty'"),
    ],
)
def test_what_the_library_lacks_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        constructor({**BACKBONES["m2"], **change})


def test_other_refusals(tmp_path):
    with pytest.raises(ValueError, match="enc_mode=True: torch-pointcloud has no SpUNet"):
        constructor(dict(BACKBONES["spunet"], enc_mode=True))
    with pytest.raises(ValueError, match="pdnorm_bn=True"):
        constructor(dict(BACKBONES["m1"], pdnorm_bn=True))
    run = make_run(tmp_path / "run", BACKBONES["m2"])
    with pytest.raises(ValueError, match="to: got 'onnx', expected one of pointcept"):
        export(run, "onnx")
    write(export(run, "pointcept", "student"), tmp_path / "student.pth")
    exported = open_run(tmp_path / "student.pth")
    with pytest.raises(ValueError, match="holds no 'teacher' backbone .*it has: student"):
        export(exported, "torch-pointcloud", "teacher")
    with pytest.raises(ValueError, match=r"is no file of dos-plugin export --to torch-pointcloud"):
        load(tmp_path / "student.pth")
    run.config.model["backbone"]["enc_channels"] = (16, 24, 48)
    with pytest.raises(ValueError, match=r"does not fit PointTransformerV3m2; .*other shape"):
        export(run, "pointcept")
    other = tmp_path / "other.pth"
    torch.save(dict(state_dict={"resnet.conv1.weight": torch.zeros(2)}), other)
    with pytest.raises(ValueError, match="holds no DOS model, its keys start with resnet.conv1"):
        export(open_run(other, run.config_path), "pointcept")
