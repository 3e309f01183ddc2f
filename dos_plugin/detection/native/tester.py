"""DetectionTester: the host's test stage for a detector."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dos_plugin.detection.native.scoring import detect, score, write
from dos_plugin.host import HOST


class DetectionTester(HOST.TesterBase):  # type: ignore[name-defined, misc]
    """Runs ``data.test`` with the weights of ``weight``, for ``tools/test.py`` of the host.

    Writes ``result/result.json`` with the figures, unless no scan has a box, as in the test split
    of nuScenes, and ``result/submission.json`` if it is asked for.

    Args:
        cfg: The host's config.
        ranges: Metres around the vehicle by class; None for those of nuScenes.
        submission: Whether the file for nuScenes' devkit and server is written.
        **kwargs: As for the host's testers.

    Raises:
        KeyError: If a batch lacks what is needed.
        ValueError: If ``data.test`` has no scan.
    """

    def __init__(
        self,
        cfg: Any,
        ranges: Mapping[str, float] | None = None,
        submission: bool = False,
        **kwargs: Any,
    ) -> None:
        self.ranges = dict(ranges) if ranges is not None else None
        self.submission = submission
        super().__init__(cfg, **kwargs)

    def test(self) -> None:
        """Run, report and write."""
        names = list(self.cfg.data.names)
        self.logger.info(">>>>>>>>>>>>>>>> Start Evaluation >>>>>>>>>>>>>>>>")
        found = detect(self.model, self.test_loader, "data.test")
        scores = None
        if any(len(scan.boxes) for scan in found.labelled):
            scores = score(found, names, self.ranges, self.logger)
        else:
            self.logger.info(f"{len(found.tokens)} scans without a labelled box: nothing to score")
        folder = Path(self.cfg.save_path) / "result"
        write(folder, found, names, scores, self.submission)
        self.logger.info(f"Written to {folder}")
        self.logger.info("<<<<<<<<<<<<<<<<< End Evaluation <<<<<<<<<<<<<<<<<")

    @staticmethod
    def collate_fn(batch: list[dict]) -> dict:
        """As in training."""
        return HOST.collate_fn(batch)
