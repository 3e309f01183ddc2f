"""Names for export: renamed backbones fit torch-pointcloud's models and compute the same."""

import pytest
import torch

pytest.importorskip("spconv")
pytest.importorskip("torch_pointcloud")

from dos_plugin.minihost.backbones.naming import to_torch_pointcloud
from dos_plugin.minihost.point import Point
from tests.small_backbones import PTV3, SMALL, build, cloud, collate


@pytest.mark.parametrize("kind", PTV3)
def test_renamed_ptv3_fits_the_librarys_models(kind):
    from torch_pointcloud.models.point_transformer_v3 import PointTransformerV3Segmentation

    m2 = kind == "PT-v3m2"
    library = PointTransformerV3Segmentation(
        in_channels=4,
        num_classes=0,
        serialization_orders=("hilbert",),
        strides=SMALL["stride"],
        encoder_depths=SMALL["enc_depths"],
        encoder_channels=SMALL["enc_channels"],
        encoder_num_heads=SMALL["enc_num_head"],
        encoder_patch_size=SMALL["enc_patch_size"],
        decoder_depths=SMALL["dec_depths"][::-1],
        decoder_channels=SMALL["dec_channels"][::-1],
        decoder_num_heads=SMALL["dec_num_head"][::-1],
        decoder_patch_size=SMALL["dec_patch_size"][::-1],
        use_flash_attn=False,
        pooling="grid" if m2 else "serialized",
        stem_type="linear" if m2 else "sparse_conv",
        norm="layer_norm" if m2 else "batch_norm",
        norm_kwargs=dict(mode="node") if m2 else dict(eps=1e-3, momentum=0.01),
    )
    library.load_state_dict(to_torch_pointcloud(build(kind).state_dict()), strict=True)


def test_one_renamed_stage_computes_what_the_library_does():
    from torch_pointcloud.models.point_transformer_v3 import PointTransformerV3Encoder

    one = {k: v[:1] for k, v in SMALL.items() if k.startswith("enc_")}
    ours = build("PT-v3m2", order="hilbert", stride=(), enc_mode=True, **one).eval()
    library = PointTransformerV3Encoder(
        4, ("hilbert",), False, (), *(one[k] for k in ("enc_depths", "enc_channels")),
        one["enc_num_head"], one["enc_patch_size"], norm="layer_norm",
        norm_kwargs=dict(mode="node"), pooling="grid", stem_type="linear", use_flash_attn=False,
    ).eval()  # fmt: skip
    state = to_torch_pointcloud(ours.state_dict())
    library.load_state_dict({k.removeprefix("encoder."): v for k, v in state.items()})
    # Whole patches: where they are not, the library pads differently from the real host.
    batch = collate(cloud(64, 0), cloud(96, 1))
    expected, _, _ = library(batch["feat"], batch["grid_coord"], Point(batch).batch)
    torch.testing.assert_close(ours(batch).feat, expected, rtol=1e-4, atol=1e-5)


def test_renamed_spunet_fits_the_librarys_model():
    from torch_pointcloud.models.spunet import SparseUNetSegmentation

    ours = build("SpUNet-v1m1", num_classes=3).eval()
    library = SparseUNetSegmentation(
        4,
        3,
        stem_channels=8,
        encoder_channels=(8, 16),
        decoder_channels=(16, 12),
        encoder_depths=(1, 1),
        decoder_depths=(1, 1),
        norm_kwargs=dict(eps=1e-3, momentum=0.01),
    ).eval()
    library.load_state_dict(to_torch_pointcloud(ours.state_dict()), strict=True)
    batch = collate(cloud(64, 0), cloud(96, 1))
    expected = library(batch["feat"], batch["grid_coord"], Point(batch).batch)
    torch.testing.assert_close(ours(batch), expected)


def test_layer_scale_has_no_library_name():
    with pytest.raises(ValueError, match="layer scale"):
        to_torch_pointcloud(build("PT-v3m2", layer_scale=0.1).state_dict())
