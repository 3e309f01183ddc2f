"""mIoU of a segmentation run's own head on labelled scans, over the classes that they have.

The host's evaluators count a class that no scan has as 0; here it is no term of the mean, as in
`dos-plugin probe`. Voxels are scored, as there.

    python benchmarks/own_head.py exp/RUN/model/model_best.pth --data ROOT --split val
"""

import argparse
import json
from pathlib import Path

import torch

import dos_plugin.register  # noqa: F401
from dos_plugin.host import active_host
from dos_plugin.probing.probe import Scores, confusion_matrix, scores
from dos_plugin.probing.scans import ScanSource, class_names
from dos_plugin.runs.run import open_run


@torch.no_grad()
def score(checkpoint: Path, data: Path, split: str) -> tuple[Scores, list[str]]:
    """Scores of a checkpoint, and the names of the classes."""
    run = open_run(checkpoint)
    model = active_host().build_model(run.config.model)
    model.load_state_dict(run.trained.state)
    model.eval()
    names = class_names(run, data)
    confusion = torch.zeros(len(names), len(names), dtype=torch.int64)
    for scan in ScanSource(run, data, split):
        batch = dict(coord=scan.coord, grid_coord=scan.grid_coord, feat=scan.feat)
        batch["offset"] = torch.tensor([len(scan.coord)])
        predicted = model(batch)["seg_logits"].argmax(1)
        confusion += confusion_matrix(scan.segment, predicted, len(names))
    return scores(confusion), names


def main() -> None:
    """Score, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="data root")
    parser.add_argument("--split", default="val")
    parser.add_argument("--json", type=Path, required=True, help="file to write")
    args = parser.parse_args()
    found, names = score(args.checkpoint, args.data, args.split)
    iou = {
        name: None if value != value else value for name, value in zip(names, found.iou.tolist())
    }
    args.json.write_text(json.dumps(dict(miou=found.miou, iou=iou)) + "\n")
    print(f"{found.miou:.1f} mIoU over {sum(v is not None for v in iou.values())} classes")


if __name__ == "__main__":
    main()
