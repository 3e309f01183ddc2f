"""DOS-CenterPoint-v1m1: a detector on a DOS backbone, in the registries of the host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dos_plugin.detection.encoder import BEVEncoder
from dos_plugin.detection.grid import DetectionGrid
from dos_plugin.detection.native.head import CentreHead, Neck, peaks, weights_of
from dos_plugin.detection.native.losses import code_loss, gaussian_focal_loss
from dos_plugin.detection.native.nms import Kind, suppress
from dos_plugin.detection.native.targets import Plane, decode_code, make_targets, task_classes
from dos_plugin.detection.native.transforms import LEAVE_BOXES_BEHIND
from dos_plugin.host import HOST
from dos_plugin.models.inputs import check_in_channels, datasets, flat_steps


class CenterPoint(HOST.PointModel):  # type: ignore[name-defined, misc]
    """A backbone of the host, its features seen from above, and centre heads.

    After CenterPoint (arXiv 2006.11275), its first stage, with the encoder of a DOS pretraining in
    place of the sparse one. Losses, heads and what is decoded are in float32.

    Args:
        backbone: Config of a backbone of the host; of PTv3 with ``enc_mode=True``.
        grid: ``point_cloud_range``, ``grid_size``, ``stride`` and ``z_bins`` of
            :class:`~dos_plugin.detection.grid.DetectionGrid`; RangeVoxels has the first two, too.
        num_classes: Classes.
        tasks: Classes of each head, such as ``[[0], [1, 2]]``; None for one head. Classes of a
            head share their codes, so that two boxes in one cell are one.
        channels: Of the layer behind the backbone, of the neck and of the heads.
        neck_depth: Convolutions of each of the neck's two levels.
        velocity: Whether velocities are predicted; without they are NaN.
        freeze_backbone: Whether the backbone stays as it is.
        code_weight: Of the loss of the codes, beside that of the heat maps.
        code_weights: Of the ten numbers of a code.
        score: Lowest score of a box.
        max_boxes: Most boxes of a scan.
        nms: "circle" or "rotated", see :func:`~dos_plugin.detection.native.nms.suppress`.
        nms_limit: Metres or overlap, one for all classes or one a class.

    Raises:
        ValueError: If an option is out of range, such as a range that is no multiple of
            ``grid_size * stride``.
    """

    def __init__(
        self,
        backbone: Mapping[str, Any],
        grid: Mapping[str, Any],
        num_classes: int,
        tasks: Sequence[Sequence[int]] | None = None,
        channels: int = 64,
        neck_depth: int = 2,
        velocity: bool = True,
        freeze_backbone: bool = False,
        code_weight: float = 0.25,
        code_weights: Sequence[float] = (1, 1, 1, 1, 1, 1, 1, 1, 0.2, 0.2),
        score: float = 0.1,
        max_boxes: int = 500,
        nms: Kind = "circle",
        nms_limit: float | Sequence[float] = 1.0,
    ) -> None:
        super().__init__()
        limits = [nms_limit] * num_classes if isinstance(nms_limit, (int, float)) else nms_limit
        if len(limits) != num_classes:
            raise ValueError(f"nms_limit: expected one or {num_classes}, got {len(limits)}")
        if nms not in ("circle", "rotated"):
            raise ValueError(f"nms: expected circle or rotated, got {nms!r}")
        self.grid = DetectionGrid(**grid)
        self.num_classes = num_classes
        self.tasks = task_classes(num_classes, tasks)
        self.code_weight = code_weight
        self.code_weights = weights_of(code_weights, velocity)
        self.score, self.max_boxes = score, max_boxes
        self.nms: Kind = nms
        self.nms_limit = torch.tensor([float(limit) for limit in limits])
        self.in_channels = int(backbone["in_channels"])
        _, height, width = self.grid.bev_shape
        x, y = self.grid.point_cloud_range[:2]
        self.plane = Plane((x, y), self.grid.grid_size * self.grid.stride, (height, width))
        self.encoder = BEVEncoder(backbone, self.grid, channels, freeze=freeze_backbone)
        self.neck = Neck(self.encoder.out_channels, channels, neck_depth)
        self.heads = nn.ModuleList(
            CentreHead(self.neck.out_channels, len(task), velocity, channels) for task in self.tasks
        )

    def before_train(self) -> None:
        """Refuse what would move points without their boxes, or mix scans.

        Raises:
            ValueError: Naming the option.
        """
        config = self.trainer.cfg
        check_in_channels(self.in_channels, config)
        if config.get("mix_prob"):
            raise ValueError(f"mix_prob={config.mix_prob}: scans with boxes cannot be mixed, set 0")
        for _, place, dataset in datasets(config, ("train", "val")):
            for step in flat_steps(dataset.get("transform") or ()):
                if step.get("type") in LEAVE_BOXES_BEHIND:
                    raise ValueError(
                        f"{place}.transform: {step['type']} moves points and leaves their boxes "
                        "where they were; use BoxRotate, BoxFlip, BoxScale or BoxTranslate"
                    )

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Losses in training, boxes in evaluation.

        Args:
            batch: ``coord``, ``grid_coord``, ``feat``, ``offset`` of B scans; ``boxes`` (K, 9),
                ``box_labels`` (K,) and ``offset_box`` (B,) unless there are none to learn from.
                A box of label -1 is no target, and what is found in its place costs nothing.

        Returns:
            In training ``loss``, ``heat_loss`` and ``code_loss``. In evaluation ``boxes`` (M, 9),
            ``scores``, ``labels`` and ``batch`` (M,), best first in each scan, and ``loss`` if
            there are boxes in the batch.

        Raises:
            ValueError: If the batch does not fit the model.
        """
        offset = batch["offset"]
        scan = _scans(offset)
        self._check(batch)
        batch_size = len(offset)
        bev = self.encoder(batch["feat"], batch["grid_coord"], scan, batch_size)
        features = self.neck(bev)
        with torch.autocast(features.device.type, enabled=False):
            heads = [head(features.float()) for head in self.heads]
            result: dict[str, Any] = {}
            if self.training or "boxes" in batch:
                result = self._losses(heads, batch, batch_size)
            if self.training:
                return result
            found = [self._decode(heads, number) for number in range(batch_size)]
            boxes, scores, labels = (torch.cat(parts) for parts in zip(*found))
            counts = torch.tensor([len(part[0]) for part in found], device=boxes.device)
            which = torch.arange(batch_size, device=boxes.device).repeat_interleave(counts)
            return dict(boxes=boxes, scores=scores, labels=labels, batch=which, **result)

    def _check(self, batch: Mapping[str, Any]) -> None:
        """Voxels must be those of the model's grid."""
        if not len(batch["coord"]):
            return
        away = (batch["coord"] - self.grid.centres(batch["grid_coord"])).abs().max()
        if away > 0.501 * self.grid.grid_size + 1e-4:
            raise ValueError(
                f"grid_coord: a point lies {float(away):.3g} m from the middle of its voxel of "
                f"{self.grid.grid_size} m. Voxels must come from RangeVoxels with "
                f"point_cloud_range={self.grid.point_cloud_range} and "
                f"grid_size={self.grid.grid_size}, as model.grid has them, behind all transforms "
                "that move points"
            )

    def _losses(self, heads: list, batch: Mapping[str, Any], batch_size: int) -> dict[str, Tensor]:
        absent = [key for key in ("boxes", "box_labels", "offset_box") if key not in batch]
        if absent:
            raise ValueError(
                f"the batch lacks {', '.join(absent)}: Collect needs keys boxes and box_labels and "
                'offset_keys_dict=dict(offset="coord", offset_box="boxes")'
            )
        target = make_targets(
            batch["boxes"],
            batch["box_labels"],
            _scans(batch["offset_box"]),
            batch_size,
            self.num_classes,
            self.plane,
        )
        heat, code = [], []
        for task, (logits, codes) in zip(self.tasks, heads):
            heat.append(gaussian_focal_loss(logits, target.heat[:, task], target.ignored))
            own = torch.isin(target.label, target.label.new_tensor(task))
            place = target.batch[own], slice(None), target.row[own], target.col[own]
            code.append(code_loss(codes[place], target.code[own], self.code_weights))
        terms = dict(heat_loss=torch.stack(heat).sum(), code_loss=torch.stack(code).sum())
        return dict(loss=terms["heat_loss"] + self.code_weight * terms["code_loss"], **terms)

    def _decode(self, heads: list, number: int) -> tuple[Tensor, Tensor, Tensor]:
        boxes, scores, labels = [], [], []
        for task, (logits, codes) in zip(self.tasks, heads):
            best, label, row, col = peaks(logits[number], self.max_boxes, self.score)
            boxes.append(decode_code(codes[number, :, row, col].T, row, col, self.plane))
            scores.append(best)
            labels.append(label.new_tensor(task)[label])
        box, score, label = torch.cat(boxes), torch.cat(scores), torch.cat(labels)
        kept = suppress(box, score, label, self.nms, self.nms_limit, self.max_boxes)
        return box[kept], score[kept], label[kept]


def _scans(offset: Tensor) -> Tensor:
    """Scan of each row; scans may have none."""
    counts = offset.diff(prepend=offset.new_zeros(1))
    return torch.arange(len(offset), device=offset.device).repeat_interleave(counts)
