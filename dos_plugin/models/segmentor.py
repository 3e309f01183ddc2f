"""DOS-Segmentor-v1m1: semantic segmentation on a backbone of which all or a part is frozen."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dos_plugin.host import HOST
from dos_plugin.method.matching import row_features
from dos_plugin.method.options import (
    MOST_CHANNELS,
    check_choice,
    check_component,
    check_configs,
    check_names,
    check_whole,
)
from dos_plugin.models.backbone import eval_under_autocast, keep_orders
from dos_plugin.models.batch import whole_batch
from dos_plugin.models.extent import long_clouds_named
from dos_plugin.models.inputs import check_in_channels
from dos_plugin.models.labels import check_data, count_labelled, ignored_label

# What the names of children of the host's backbones begin with on the way up; all others are the
# encoder.
DECODER = ("up", "dec", "final", "seg_head", "cls")
INPUTS = ("coord", "grid_coord", "feat", "offset", "grid_size")


class Segmentor(HOST.PointModel):  # type: ignore[name-defined, misc]
    """A backbone of the host and one linear layer: linear probe, decoder probe or fine-tuning.

    What is frozen stays as it is in every respect: no gradient, eval mode for ever (no drop path,
    no dropout, fixed normalisation statistics), and fixed orders of PTv3's curves, so that a cloud
    has the same features each time. State dict and results are those of the host's
    ``DefaultSegmentorV2``: its checkpoints load here and the other way round.

    Args:
        backbone: Config of a backbone of the host.
        backbone_out_channels: Channels of its features after up-casting.
        num_classes: Classes.
        criteria: Configs of the host's losses, all with the same ``ignore_index``.
        freeze_backbone: True: all of it (linear probe). ``"encoder"``: all but the decoder, which
            is trained (decoder probe). False: nothing (fine-tuning).
        up_cast_level: Pooling steps of an encoder's output to undo; coarser features are appended
            to finer ones. -1 undoes all, so that every voxel has its own features. With fewer,
            voxels that were pooled share a prediction.
        backbone_keys: What the backbone reads of a batch beyond ``coord``, ``grid_coord``,
            ``feat``, ``offset`` and ``grid_size``, such as ``("condition",)``.

    Raises:
        ValueError: If an option is out of range, or a backbone without decoder is to have its
            encoder frozen.
    """

    def __init__(
        self,
        backbone: dict,
        backbone_out_channels: int,
        num_classes: int,
        criteria: list[dict] | None = None,
        freeze_backbone: bool | Literal["encoder"] = False,
        up_cast_level: int = -1,
        backbone_keys: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        check_component("backbone", backbone)
        check_whole("backbone_out_channels", backbone_out_channels, 1, MOST_CHANNELS)
        check_whole("num_classes", num_classes, 1, MOST_CHANNELS)
        if criteria is not None:
            check_configs("criteria", criteria)
        check_choice("freeze_backbone", freeze_backbone, (True, False, "encoder"))
        check_whole("up_cast_level", up_cast_level, -1)
        if backbone_keys is not None:
            check_names("backbone_keys", backbone_keys)
        self.in_channels = backbone.get("in_channels")
        self.num_classes = num_classes
        self.ignore_index = ignored_label(criteria)
        self.backbone_out_channels = backbone_out_channels
        self.freeze_backbone = freeze_backbone
        self.up_cast_level = up_cast_level
        self.backbone_keys = tuple(backbone_keys or ())
        self.seg_head = nn.Linear(backbone_out_channels, num_classes)
        self.backbone = HOST.build_model(backbone)
        self.criteria = HOST.build_criteria(criteria)
        if freeze_backbone == "encoder" and not self._children(decoder=True):
            raise ValueError(
                f"freeze_backbone='encoder' needs a backbone with decoder, and {backbone['type']} "
                "has none here: set model.backbone.enc_mode=False, or freeze_backbone=True"
            )
        for module in self.frozen():
            module.requires_grad_(False)
            keep_orders(self.backbone, inside=module)
        self.train()

    def frozen(self) -> list[nn.Module]:
        """The frozen parts of the backbone."""
        if self.freeze_backbone == "encoder":
            return self._children(decoder=False)
        return [self.backbone] if self.freeze_backbone else []

    def _children(self, decoder: bool) -> list[nn.Module]:
        children = self.backbone.named_children()
        return [module for name, module in children if name.startswith(DECODER) == decoder]

    def train(self, mode: bool = True) -> "Segmentor":
        """Set the mode of what is trained; what is frozen stays in eval mode."""
        super().train(mode)
        for module in self.frozen() if mode else ():
            eval_under_autocast(module)
        return self

    def before_train(self) -> None:
        """Look at the data: width of the features, labels of some scans."""
        check_in_channels(self.in_channels, self.trainer.cfg)
        check_data(self.trainer.cfg, self.num_classes, self.ignore_index)

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Loss and logits of a batch.

        Args:
            batch: ``coord``, ``grid_coord``, ``feat`` (N, C), ``offset``, and ``segment`` (N,)
                unless it is a test; ``name`` of the scans is for messages.

        Returns:
            ``loss`` in training; ``loss`` and ``seg_logits`` (N, num_classes) in evaluation;
            ``seg_logits`` without ``segment``.

        Raises:
            ValueError: If ``in_channels`` or ``backbone_out_channels`` is not what there is, or
                ``segment`` has values that are neither a class nor ignored; or there are no losses.
        """
        width = batch["feat"].shape[1]
        if self.in_channels not in (None, width):
            raise ValueError(
                f"model.backbone.in_channels={self.in_channels}, but the batch has {width} "
                "columns: see feat_keys of Collect in data.train.transform (or val, test)"
            )
        inputs = {key: batch[key] for key in INPUTS if key in batch}
        inputs |= {key: whole_batch(batch, key) for key in self.backbone_keys}
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.freeze_backbone is not True):
            names = batch.get("name")
            with long_clouds_named(batch.get("grid_coord"), batch["offset"], names):
                output = self.backbone(inputs)
            feat, row_of_point = row_features(output, len(batch["feat"]), self.up_cast_level)
        if feat.shape[1] != self.backbone_out_channels:
            raise ValueError(
                f"model.backbone_out_channels={self.backbone_out_channels}, but the backbone's "
                f"features have {feat.shape[1]} channels with up_cast_level={self.up_cast_level}"
            )
        seg_logits = self.seg_head(feat)
        if len(feat) != len(row_of_point):
            seg_logits = seg_logits[row_of_point]
        if "segment" not in batch and not self.training:
            return dict(seg_logits=seg_logits)
        loss = self._loss(seg_logits, batch)
        return dict(loss=loss) if self.training else dict(loss=loss, seg_logits=seg_logits)

    def _loss(self, seg_logits: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """The losses; 0 where no point has a label, of which their mean would be NaN."""
        if not self.criteria.criteria:
            raise ValueError("model.criteria has no losses, expected configs of the host's")
        segment, names = batch["segment"], batch.get("name", ())
        labels = self.num_classes, self.ignore_index
        if count_labelled(segment, batch["offset"], *labels, names):
            return self.criteria(seg_logits, segment)
        return 0 * seg_logits.sum()
