"""Exported backbones on either host: its features in torch-pointcloud, its loaders for the file.

Run on the embedded host by default, and on Pointcept by
``DOS_HOST=pointcept python -m dos_plugin.cpu -m pytest tests/contract/test_exported.py``.
"""

import pytest
import torch

import dos_plugin.register  # noqa: F401
from dos_plugin.commands.export import export, write
from dos_plugin.host import HOST
from dos_plugin.probing.scans import ScanSource, extract
from dos_plugin.runs.run import load_backbone, open_run
from dos_plugin.runs.torch_pointcloud import load, point_features
from tests.exported_runs import BACKBONES, make_run
from tests.segmentors import trainer
from tests.tiny_run import write_scans


@pytest.fixture(scope="module", params=["m1", "m1-decoder", "m2", "m2-decoder", "m2-rpe", "spunet"])
def run(request, tmp_path_factory):
    root = tmp_path_factory.mktemp(request.param)
    write_scans(root / "data", "train", 1)
    return make_run(root, BACKBONES[request.param])


def test_torch_pointcloud_gives_this_hosts_features(run, tmp_path):
    write(export(run, "torch-pointcloud"), tmp_path / "file.pth")
    scan = ScanSource(run)[0]
    one_cloud = torch.zeros(len(scan.feat), dtype=torch.int64)
    found = point_features(load(tmp_path / "file.pth"), scan.feat, scan.grid_coord, one_cloud)
    for source in (run, open_run(tmp_path / "file.pth")):
        expected = extract(load_backbone(source), scan)
        assert expected.std(dim=0).max() > 0.01
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@torch.no_grad()
def test_a_scan_has_the_same_features_each_time_or_the_file_says_that_it_has_not(run, tmp_path):
    """In eval mode, with other random numbers each time; clouds of many patches."""
    write(export(run, "pointcept"), tmp_path / "file.pth")
    source = open_run(tmp_path / "file.pth")
    config, scan = source.config.model.backbone, ScanSource(run)[0]
    assert config.get("shuffle_orders", False) is False
    assert ("shuffle_orders" in config) == config.type.startswith("PT-v3")

    def twice(backbone):
        return [torch.manual_seed(seed) and extract(backbone, scan) for seed in (0, 1)]

    ours = twice(load_backbone(source))
    assert torch.equal(*ours) and ours[0].std(dim=0).max() > 0.01
    plain = HOST.build_model(config).eval()  # as a config of the host builds it
    plain.load_state_dict(source.trained.backbone("student"))
    different = not torch.equal(*twice(plain))
    assert different == ("note" in source.trained.exported)
    for module in plain.modules():
        if isinstance(getattr(module, "shuffle_orders", None), bool):
            module.shuffle_orders = False
    assert torch.equal(*twice(plain))
    torch.testing.assert_close(twice(plain)[0], ours[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("hook", ["CheckpointLoader", "PretrainedLoader"])
def test_a_pointcept_file_loads_into_a_segmentor_without_keywords(run, hook, tmp_path):
    write(export(run, "pointcept", "teacher"), tmp_path / "file.pth")
    expected = torch.load(run.checkpoint)["state_dict"]
    backbone = dict(run.config.model.backbone)
    torch.manual_seed(1)
    channels = extract(load_backbone(run), ScanSource(run)[0]).shape[1]
    model = HOST.build_model(
        dict(
            type="DOS-Segmentor-v1m1",
            backbone=backbone,
            backbone_out_channels=channels,
            num_classes=3,
        )
    )
    built = HOST.HOOKS.build(dict(type=hook))
    built.trainer = trainer(model, str(tmp_path / "file.pth"))
    built.trainer.device = torch.device("cpu")
    built.before_train()
    loaded = {k: v for k, v in model.state_dict().items() if k.startswith("backbone.")}
    assert len(loaded) > 50
    for key, value in loaded.items():
        assert torch.equal(value, expected[f"module.teacher.{key}"]), key
