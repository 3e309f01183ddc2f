"""A pretrained backbone with which features of own points take a few lines of Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from dos_plugin.encoder.features import Features
from dos_plugin.encoder.parts import ALIGNED, parts
from dos_plugin.encoder.scan import INPUTS, Input, Scan, from_arrays, read_scan
from dos_plugin.host import active_host
from dos_plugin.models.backbone import Branch
from dos_plugin.models.inputs import check_in_channels, feature_keys, grid_size
from dos_plugin.probing.scans import Scan as Voxels
from dos_plugin.probing.scans import as_scan, dataset_config, extract, scan_transform
from dos_plugin.runs.hub import find
from dos_plugin.runs.provenance import training_of
from dos_plugin.runs.run import Run, load_backbone, open_run
from dos_plugin.seeding import seeded

# Voxels encoded in one pass: more than a scan of one sensor has.
MAX_VOXELS = 200_000
# By so much a value may be beyond its range.
ROUNDING = 1e-3


def load(
    source: str | Path,
    branch: Branch | None = None,
    *,
    config: str | Path | None = None,
    device: str | torch.device | None = None,
    revision: str | None = None,
    max_voxels: int = MAX_VOXELS,
) -> Encoder:
    """Load a pretrained backbone.

    Args:
        source: a run's folder, a checkpoint in it, a file or folder of ``dos-plugin export``, or
            the name of a repository of the Hugging Face Hub (``owner/name``).
        branch: whose backbone, ``"student"``, ``"teacher"`` or ``"segmentor"``; None is the
            student's of a pretraining, else the only one.
        config: config file of the run, if it is not in the run's folder.
        device: where it runs; None is the GPU if there is one.
        revision: branch, tag or commit of a repository of the Hub.
        max_voxels: larger scans are encoded in parts, see :class:`Encoder`.

    Raises:
        FileNotFoundError: there is no such file, folder or repository, or the run has no
            checkpoint yet.
        ValueError: it holds no backbone known here, does not fit its config, or an argument is out
            of range.
        ModuleNotFoundError: a library is not installed, such as spconv.
    """
    import dos_plugin.register  # noqa: F401

    if max_voxels < 2:
        raise ValueError(f"max_voxels: {max_voxels}, expected 2 or more")
    run = open_run(find(source, revision), config)
    trained = run.trained
    trained.check_ours()
    chosen: Branch = branch or trained.branches[0]
    return Encoder(run, chosen, device, max_voxels)


class Encoder:
    """A frozen backbone, with all that its pretraining did to a scan in front of it.

    A call gives the features of a scan, those of all levels of an encoder together, or the output
    of a decoder. The same scan gives bitwise the same features at each call, in any company and in
    another process on the same machine; on a GPU up to rounding. No gradients are kept.

    Scans are encoded one at a time, since PTv3 cuts its patches to the smallest scan of a batch. A
    scan of more than ``max_voxels`` voxels is cut in parts, each encoded with its surroundings (32
    voxels), at most so many voxels at once: near the cuts features differ a little from those of
    the whole.

    Args:
        run: the run, or exported file.
        branch: whose backbone.
        device: where it runs; None is the GPU if there is one.
        max_voxels: voxels in a pass.

    Attributes:
        branch: whose backbone it is.
        backbone_type: its name in the host's registry.
        grid_size: edge of a voxel, metres.
        feat_keys: the input features in their order; ``height`` is z of the coordinates.
        inputs: what has to be given of each point, by name.
        training: what it was trained on.
        backbone: the frozen module.
        device: where it runs.
        max_voxels: voxels in a pass.
    """

    def __init__(
        self,
        run: Run,
        branch: Branch,
        device: str | torch.device | None = None,
        max_voxels: int = MAX_VOXELS,
    ) -> None:
        transform = dataset_config(run.config)["transform"]
        self.branch = branch
        self.feat_keys = feature_keys(transform)
        self.grid_size = grid_size(transform)
        known = (*INPUTS, "height")
        if unknown := [key for key in self.feat_keys if key not in known]:
            raise ValueError(
                f"{run.config_path}: the input feature {unknown[0]!r} is not known here, only "
                f"{', '.join(known)}"
            )
        self.inputs: dict[str, Input] = {
            key: INPUTS[key] for key in INPUTS if key == "coord" or key in self.feat_keys
        }
        backbone: Mapping[str, Any] = run.config["model"]["backbone"]
        check_in_channels(backbone.get("in_channels"), run.config)
        self.backbone = load_backbone(run, branch, device)
        self.device = next(self.backbone.parameters()).device
        self.max_voxels = max_voxels
        self.training = training_of(run)
        self._source = str(run.checkpoint)
        self.backbone_type = str(backbone["type"])
        steps = scan_transform(transform)
        for step in steps:
            if step["type"] == "PointId":
                step.pop("max_extent", None)  # every point of a scan gets features
        self._transform = active_host().Compose(steps)

    @cached_property
    def channels(self) -> int:
        """C, numbers of a feature."""
        coord = np.indices((4, 4, 4)).reshape(3, -1).T * self.grid_size
        given: dict[str, Any] = {
            key: np.zeros((64, INPUTS[key].columns)) for key in self.inputs if key != "coord"
        }
        return self(from_arrays(coord, **given)).per_voxel.shape[1]

    def read(
        self,
        path: str | Path,
        format: str | None = None,
        strength_field: str | None = None,
        strength_scale: float | None = None,
        columns: Sequence[str] | None = None,
        dtype: str | None = None,
    ) -> Scan:
        """A scan of a file, or of a scene folder in the host's layout.

        Args:
            path: a file of any format that ``dos-plugin ingest`` reads, or a folder with
                ``coord.npy``.
            format: of the file; None: by its suffix.
            strength_field: column of strengths; None looks for one.
            strength_scale: strengths are divided by it. None divides those of nuScenes by 255, as
                its data set does; of other files by 1 or 255, whichever brings all but 0.1 % to at
                most 1, and these count as 1, with a warning if any is above 1; those of a folder
                stay.
            columns: names of the columns of plain numbers (``.bin``, ``.npy``, ``.npz``), ``_`` for
                one to leave out; None: told apart.
            dtype: of the numbers in a ``.bin``, ``float32`` or ``float64``; None: told apart.

        Raises:
            OSError: there is no such file, or it cannot be read.
            ValueError: its content is bad, or it lacks an input of this encoder; names the file.
        """
        scan = read_scan(path, format, strength_field, strength_scale, columns, dtype)
        self._check(scan)
        return scan

    def scan(
        self,
        coord: Any,
        strength: Any = None,
        color: Any = None,
        normal: Any = None,
        segment: Any = None,
        name: str = "scan",
        strength_scale: float | None = None,
    ) -> Scan:
        """A scan of arrays or tensors.

        Args:
            coord: (N, 3) metres, z up, in the frame of the sensor as in pretraining.
            strength: (N,) or (N, 1), 0 to 1.
            color: (N, 3), 0 to 255.
            normal: (N, 3) unit vectors.
            segment: (N,) labels, which change no feature.
            name: what it is called in messages.
            strength_scale: strengths are divided by it, and may then be above 1.

        Raises:
            ValueError: an input of this encoder is missing, of another shape, out of range or not
                finite, or there is no point; names it.
        """
        scan = from_arrays(coord, strength, color, normal, segment, name, strength_scale)
        self._check(scan)
        return scan

    @overload
    def __call__(self, scans: Scan) -> Features: ...
    @overload
    def __call__(self, scans: Sequence[Scan]) -> list[Features]: ...

    def __call__(self, scans: Scan | Sequence[Scan]) -> Features | list[Features]:
        """The features of a scan, or of each of several.

        Raises:
            TypeError: it is no scan.
            ValueError: a scan lacks an input of this encoder.
        """
        if isinstance(scans, Scan):
            return self._encode(scans)
        if isinstance(scans, Sequence) and all(isinstance(scan, Scan) for scan in scans):
            return [self._encode(scan) for scan in scans]
        raise TypeError(
            f"got {type(scans).__name__}, expected a scan or a list of scans, which "
            "encoder.read(file) or encoder.scan(coord, ...) make"
        )

    def voxels(self, scan: Scan) -> Voxels:
        """What the backbone gets of a scan, as a probe reads it.

        Raises:
            ValueError: the scan lacks an input of this encoder.
        """
        self._check(scan)
        return self._voxels(scan)[0]

    def __repr__(self) -> str:
        columns = ", ".join(self.feat_keys)
        lines = [
            f"Encoder of {self._source}",
            f"  backbone    {self.backbone_type}, {self.branch}, on {self.device}",
            f"  trained on  {self.training}",
            *(
                f"  {'inputs' if not i else '':<10}  {key} {self.inputs[key]}"
                for i, key in enumerate(self.inputs)
            ),
            f"  it sees     {columns} of voxels of {self.grid_size:g} m",
            f"  features    {self.channels} channels",
        ]
        return "\n".join(lines)

    def _check(self, scan: Scan) -> None:
        """Look for all inputs and their ranges."""
        for key, wanted in self.inputs.items():
            values = getattr(scan, key)
            if values is None:
                given = ", ".join(name for name in INPUTS if getattr(scan, name) is not None)
                raise ValueError(
                    f"{scan.name}: has no {key}, an input of this encoder "
                    f"({', '.join(self.inputs)}); it has {given}. Give {key} {wanted}"
                )
            low, high = float(values.min()), float(values.max())
            if wanted.low - ROUNDING <= low and high <= wanted.high + ROUNDING:
                continue
            hint = ""
            if key == "strength" and low >= 0:
                if scan.strength_scale is not None:
                    continue  # the user's choice
                hint = f"; strength_scale={255 if high <= 255 else 65535} divides it, 1 leaves it"
            raise ValueError(
                f"{key} of {scan.name}: {low:g} to {high:g}, expected {wanted.low:g} to "
                f"{wanted.high:g} ({wanted.unit}) as in pretraining{hint}"
            )

    def _encode(self, scan: Scan) -> Features:
        self._check(scan)
        voxels, kept = self._voxels(scan)
        grid = voxels.grid_coord.numpy()
        feat: Tensor | None = None
        for rows, own in parts(grid, self.max_voxels):
            found = extract(self.backbone, _part(voxels, rows))
            if feat is None:
                feat = torch.empty(len(grid), found.shape[1])
            feat[rows[own]] = found[own]
        assert feat is not None
        return Features(
            scan=scan,
            per_voxel=feat,
            voxel_coord=torch.from_numpy(scan.coord[kept]),
            voxel=torch.from_numpy(voxels.inverse),
            grid_size=self.grid_size,
        )

    def _voxels(self, scan: Scan) -> tuple[Voxels, np.ndarray]:
        """What the backbone gets, and (V,) the point that stands for each voxel."""
        data: dict[str, Any] = {
            key: np.array(getattr(scan, key), dtype=np.float32) for key in self.inputs
        }
        data["segment"] = np.full(len(scan), -1, dtype=np.int32)
        data["row"] = np.arange(len(scan))
        data["index_valid_keys"] = list(data)
        data["name"] = scan.name
        with seeded(0):
            data = self._transform(data)
        return as_scan(data, self.feat_keys, self.grid_size, scan.name, scan.name), data["row"]


def _part(voxels: Voxels, rows: np.ndarray) -> Voxels:
    """Some voxels of a scan, their cells counted from 0."""
    if len(rows) == len(voxels.coord):
        return voxels
    grid = voxels.grid_coord[rows]
    grid = grid - grid.amin(dim=0) // ALIGNED * ALIGNED
    return replace(voxels, coord=voxels.coord[rows], grid_coord=grid, feat=voxels.feat[rows])
