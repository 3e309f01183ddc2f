"""mIoU of a checkpoint's frozen features, or of its own head, by place.

Each place is a data root whose validation scans are of that place alone. The linear probe is that
of `dos-plugin probe`, over three seeds; its training scans are read once for all places. The mean
is over the classes that a place has, where the host's evaluators count one that no scan has as 0.
Voxels are scored.

    python benchmarks/by_place.py exp/RUN/model/model_last.pth ROOT ROOT --json scores.json
    python benchmarks/by_place.py exp/RUN/model/model_best.pth ROOT --sources own-head --json FILE
"""

import argparse
import json
from pathlib import Path

import torch

import dos_plugin.register  # noqa: F401
from dos_plugin.host import active_host
from dos_plugin.probing.compare import KEPT_TRAIN, KEPT_VAL, average, feature_function, gather
from dos_plugin.probing.probe import Scores, confusion_matrix, linear_probe, scores
from dos_plugin.probing.scans import Scan, ScanSource, class_names, count_classes
from dos_plugin.runs.run import Run, open_run

SEEDS = 3
OWN_HEAD = "own-head"


@torch.no_grad()
def by_own_head(run: Run, val: list[list[Scan]], classes: int) -> list[list[Scores]]:
    """Scores of a segmentation model's own predictions, one a place."""
    model = active_host().build_model(run.config.model)
    model.load_state_dict(run.trained.state)
    model.eval()
    found = []
    for scans in val:
        confusion = torch.zeros(classes, classes, dtype=torch.int64)
        for scan in scans:
            batch = dict(coord=scan.coord, grid_coord=scan.grid_coord, feat=scan.feat)
            batch["offset"] = torch.tensor([len(scan.coord)])
            predicted = model(batch)["seg_logits"].argmax(1)
            confusion += confusion_matrix(scan.segment, predicted, classes)
        found.append([scores(confusion)])
    return found


def by_probe(
    run: Run, source: str, train: list[Scan], val: list[list[Scan]], classes: int
) -> list[list[Scores]]:
    """Scores of linear probes of frozen features, for each place one a seed."""
    features = feature_function(run, source)
    learned = gather(features, train, KEPT_TRAIN)
    places = [gather(features, scans, KEPT_VAL) for scans in val]
    return [[linear_probe(learned, place, classes, s) for s in range(SEEDS)] for place in places]


def main() -> None:
    """Score and write: source -> a list with an entry for each place."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("places", type=Path, nargs="+", metavar="ROOT", help="a data root each")
    parser.add_argument("--config", type=Path, help="of another run, to build the backbone from")
    parser.add_argument("--sources", nargs="+", default=["student"], help=f"or {OWN_HEAD}")
    parser.add_argument("--train-scans", type=int, default=40, help="of the first place's root")
    parser.add_argument("--val-scans", type=int, help="of each place; default all")
    parser.add_argument("--json", type=Path, required=True, help="file to write")
    args = parser.parse_args()
    run = open_run(args.checkpoint, args.config)
    val = [list(ScanSource(run, root, "val", args.val_scans)) for root in args.places]
    train: list[Scan] = []
    if set(args.sources) != {OWN_HEAD}:
        train = list(ScanSource(run, args.places[0], "train", args.train_scans))
    names = class_names(run, args.places[0])
    classes = count_classes([*train, *(scan for scans in val for scan in scans)], names)
    result = {}
    for source in args.sources:
        if source == OWN_HEAD:
            found = by_own_head(run, val, classes)
        else:
            found = by_probe(run, source, train, val, classes)
        result[source] = [average(place, names) for place in found]
        print(source, " ".join(f"{place['miou']:.1f}" for place in result[source]))
    args.json.write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
