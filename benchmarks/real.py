"""DOS on real scans: SemanticKITTI's sequences, a place each, scored on a place never trained on.

Pretrains, probes and fine-tunes through shipped configs (`configs/dos/ablation` and the demo's
fine-tuning), with the host's own `SemanticKITTIDataset` and train script, on the embedded host or
on Pointcept. The held-out sequence takes the number 08 in a data root of links, so that the host's
own splits hold for it; pretraining and labels come from the others alone. Place 08 is the official
validation. Its ten frames, as those of every place, are a second of driving.

    python benchmarks/real.py --data ~/.cache/dos-plugin/real --host pointcept
    python benchmarks/real.py --rows DOS "mask tokens, clustering" --places 00 02 05 07 08

A run that is finished is kept, so the same command goes on. Steps are optimizer steps. A probe has
four scans of each training place. Sonata runs on Pointcept alone; its second row has DOS's CPU
time. mIoU is that over those of the 19 classes which the held-out place has. Fine-tuning and
training with labels have whole scans; the supervised row is the best epoch on another of the
training places, by its own head.
"""

import json
import math
import runpy
import statistics
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import common
from comparison import CONFIGS, PROBED_AS
from dos_plugin.commands.split import KITTI_TRAIN, write_split
from dos_plugin.runs.training import digest, read_notes, write_notes
from recipe import CONFIG as DEMO
from recipe import HOOKS

OFFICIAL = "08"
PLACES = sorted((*KITTI_TRAIN, OFFICIAL))
ABLATION = common.ROOT / "configs/dos/ablation"
# Rows of frozen features: config of the pretraining.
PRETRAININGS = {
    "DOS": CONFIGS["DOS"],
    "Sonata, equal steps": CONFIGS["Sonata"],
    "Sonata, equal time": CONFIGS["Sonata"],
    "mask tokens, clustering": ABLATION / "component-0-mask-token.py",
    "+ jitter": ABLATION / "component-1-jitter.py",
    "observable points, clustering": ABLATION / "component-2-observable.py",
    "feature regression": ABLATION / "component-3-regression.py",
    "softmap, alpha 0": ABLATION / "component-4-softmap.py",
    "alpha 2": ABLATION / "zipf-alpha-2p0.py",
    "alpha 3": ABLATION / "zipf-alpha-3p0.py",
}
# The demo's own recipe, of which those above are an earlier form in less time a step: factor of the
# steps, and what is changed of it. Its hooks that draw and probe are left out.
WIDE = dict(
    backbone=dict(enc_channels=(64, 128, 256, 384), enc_num_head=(4, 8, 16, 24)),
    backbone_out_channels=832,
)
RECIPES: dict[str, tuple[float, dict[str, Any]]] = {
    "the demo's recipe": (1, {}),
    "the demo's recipe, views of 8,000 points": (1 / 2, dict(max_size=8000)),
    "the demo's recipe, 2 x as wide": (1, dict(model=WIDE)),
}
# Rows of the learning curve: factor of the steps; number of unlabelled scans at equal steps.
STEPS = {"1/8 of the steps": 1 / 8, "1/2 of the steps": 1 / 2, "2 x the steps": 2}
SCANS = {"10 scans": 10, "all scans of three data sets": None}
# Rows of training with labels: share of the labelled scans.
FEW = {"1 % of the labels": 0.01, "10 % of the labels": 0.1, "100 % of the labels": 1.0}
STARTS = ("DOS", "random weights")
SUPERVISED = "supervised"
ROWS = (*PRETRAININGS, *RECIPES, *STEPS, *SCANS, *FEW, SUPERVISED)
CLASSES = (
    "car, bicycle, motorcycle, truck, other-vehicle, person, bicyclist, motorcyclist, road, "
    "parking, sidewalk, other-ground, building, fence, vegetation, trunk, terrain, pole, "
    "traffic-sign"
).split(", ")


@dataclass(frozen=True)
class Bench:
    """What all runs share.

    Attributes:
        args: command line.
        place: held out.
        seed: of the trainings; it chooses the scans of the smaller parts, too.
    """

    args: Any
    place: str
    seed: int

    def root(self, val: str, unused: str | None = None) -> Path:
        """A data root of links in which sequence 08 is ``val``; the place not used is empty."""
        out = self.args.out / "places" / "-".join(filter(None, (val, unused and f"no{unused}")))
        sequences = out / "dataset/sequences"
        for place in PLACES:
            folder = sequences / (OFFICIAL if place == val else val if place == OFFICIAL else place)
            if folder.exists():
                continue
            sequences.mkdir(parents=True, exist_ok=True)
            if place == unused:
                (folder / "velodyne").mkdir(parents=True)
            else:
                source = self.args.data / "semantic_kitti/dataset/sequences" / place
                folder.symlink_to(source, target_is_directory=True)
        return out

    def part(self, share: float) -> Path:
        """A data root with a share of the scans to train on."""
        if share == 1:
            return self.root(self.place)
        out = self.args.out / "parts" / f"{self.place}-{share:g}-seed{self.seed}"
        return write_split(self.root(self.place), share, self.seed, out).out

    def folder(self, name: str) -> Path:
        """Of a run."""
        plain = "".join(c if c.isalnum() else "-" for c in name)
        return self.args.out / self.args.host / f"place-{self.place}" / plain / f"seed-{self.seed}"

    def run(self, name: str, config: Path, changes: Mapping[str, Any], judge: str) -> dict:
        """Train and judge, unless that has happened.

        Args:
            name: of the run.
            config: shipped config.
            changes: what a config of ours changes of it.
            judge: ``probe``: frozen features; ``head``: the last weights by their own head;
                ``best``: those of the best epoch.

        Returns:
            ``miou`` percent, ``iou`` by class, ``seconds`` of the training, ``steps``; of DOS also
            ``random`` and ``raw``, entries like this one.
        """
        folder = self.folder(name)
        changes = dict(changes, seed=self.seed, save_path=str(folder))
        settings = digest([str(config.relative_to(common.ROOT)), changes, judge])
        found = read_notes(folder / "result.json")
        if found.get("settings") == settings:
            return found
        folder.mkdir(parents=True, exist_ok=True)
        ours = folder / "ours.py"
        lines = [f"_base_ = [{str(config)!r}]", *(f"{k} = {v!r}" for k, v in changes.items())]
        ours.write_text("\n".join(lines) + "\n")
        words = [common.TRAIN, "--config-file", str(ours)]
        seconds = common.run_on_host(self.args.host, words, folder / "train.out")
        scored = folder / "scores.json"
        if judge == "probe":
            words = ["-m", "dos_plugin.cli", "probe", str(folder / "model/model_last.pth")]
            if config == CONFIGS["Sonata"]:
                words += ["--config", str(self.probed_as(folder, changes))]
            sources = ["student"]
            if name == "DOS" or name in RECIPES:  # others have the first one's backbone
                sources += ["random", "raw"]
            words += ["--no-knn", "--sources", *sources, "--train-scans", "40"]
            words += ["--val-scans", "10", "--data", str(self.root(self.place))]
            common.run_on_host(
                self.args.host, [*words, "--json", str(scored)], folder / "probe.out"
            )
            by_source = json.loads(scored.read_text())["probe"]
            found = by_source["student"] | {k: by_source[k] for k in sources[1:]}
        else:
            weights = folder / "model" / f"model_{'best' if judge == 'best' else 'last'}.pth"
            words = [str(common.ROOT / "benchmarks/own_head.py"), str(weights)]
            words += ["--data", str(self.root(self.place)), "--json", str(scored)]
            common.run_on_host(self.args.host, words, folder / "head.out")
            found = json.loads(scored.read_text())
        found |= dict(settings=settings, seconds=seconds)
        write_notes(folder / "result.json", found)
        print(f"{self.place}, seed {self.seed}, {name}: {found['miou']:.1f}", flush=True)
        return found

    def probed_as(self, folder: Path, changes: Mapping[str, Any]) -> Path:
        """The config that a probe builds Sonata's backbone from."""
        ours = folder / "probed_as.py"
        lines = [f"_base_ = [{str(PROBED_AS['Sonata'])!r}]", f"data = {changes['data']!r}"]
        ours.write_text("\n".join(lines) + "\n")
        return ours

    def pretrain(
        self, row: str, config: Path, steps: float, root: Path, scans: int, **more: Any
    ) -> dict:
        """Pretrain on the scans of a data root, and probe."""
        batch_size = more.get("batch_size", self.args.batch_size)
        epoch = max(1, round(steps * batch_size / scans))
        train: dict[str, Any] = dict(data_root=str(root))
        if (root / "dataset").is_dir():
            train |= dict(type="SemanticKITTIDataset", split="train")
        if size := more.pop("max_size", None):
            train["transform"] = runpy.run_path(str(config))["transform"]
            train["transform"][2] |= dict(max_size=size)  # of TwoViews
        changes = dict(epoch=epoch, eval_epoch=epoch, batch_size=batch_size)
        changes |= dict(data=dict(train=train, names=CLASSES)) | more
        return self.run(row, config, changes, "probe") | dict(steps=epoch * scans // batch_size)

    def segment(self, row: str, weight: Path | None, root: Path, **more: Any) -> dict:
        """Fine-tune, from a checkpoint or from random weights."""
        kitti: dict[str, Any] = dict(type="SemanticKITTIDataset", data_root=str(root))
        val = dict(kitti, data_root=str(more.pop("val", self.root(self.place))))
        data = dict(num_classes=len(CLASSES), names=CLASSES, train=kitti, val=val, test=val)
        changes: dict[str, Any] = dict(data=data, batch_size=self.args.batch_size)
        changes |= dict(weight=weight and str(weight), model=dict(num_classes=len(CLASSES)))
        if weight is None:  # all at one rate: nothing is there to be kept
            changes |= dict(param_dicts=[], scheduler=dict(max_lr=0.003))
        judge = more.pop("judge", "head")
        return self.run(row, CONFIGS["supervised"], changes | more, judge)


def rows_of(bench: Bench) -> dict[str, dict]:
    """All rows of a place and a seed that were asked for."""
    args, wanted = bench.args, bench.args.rows
    scans = 10 * len(KITTI_TRAIN)
    everything = bench.root(bench.place)
    dos = bench.pretrain("DOS", PRETRAININGS["DOS"], args.steps, everything, scans)
    weight = bench.folder("DOS") / "model/model_last.pth"
    table = {"raw inputs": dos.pop("raw"), "random weights": dos.pop("random"), "DOS": dos}
    for row, config in PRETRAININGS.items():
        if row not in wanted or row == "DOS":
            continue
        steps = args.steps
        if row == "Sonata, equal time":
            equal = table.get("Sonata, equal steps")
            if equal is None:
                sys.exit("--rows: 'Sonata, equal time' needs 'Sonata, equal steps'")
            epochs = math.ceil(
                args.steps * args.batch_size / scans * dos["seconds"] / equal["seconds"]
            )
            steps = epochs * scans / args.batch_size
        table[row] = bench.pretrain(row, config, steps, everything, scans)
    for row, (factor, more) in RECIPES.items():
        if row in wanted:
            more = dict(more, batch_size=4, hooks=HOOKS)
            found = bench.pretrain(row, DEMO, args.steps * factor, everything, scans, **more)
            table[f"{row}: random weights"], table[row] = found.pop("random"), found
    for row, factor in STEPS.items():
        if row in wanted:
            steps = args.steps * factor
            table[row] = bench.pretrain(row, PRETRAININGS["DOS"], steps, everything, scans)
    for row, number in SCANS.items():
        if row in wanted:
            root = bench.part(number / scans) if number else joint(args, bench.place)
            count = number or len(list((root / "train").iterdir()))
            table[row] = bench.pretrain(row, PRETRAININGS["DOS"], args.steps, root, count)
    for row, share in FEW.items():
        if row not in wanted:
            continue
        epoch = max(1, round(args.label_steps * args.batch_size / (share * scans)))
        for start in STARTS:
            name = f"{row}, {start}"
            start_weight = weight if start == "DOS" else None
            table[name] = bench.segment(
                name, start_weight, bench.part(share), epoch=epoch, eval_epoch=1
            )
    if SUPERVISED in wanted:
        stop = next(p for p in reversed(KITTI_TRAIN) if p != bench.place)
        root = bench.root(stop, bench.place)
        epoch = args.supervised_epochs
        table[SUPERVISED] = bench.segment(
            SUPERVISED, None, root, val=root, epoch=epoch, eval_epoch=epoch, judge="best"
        )
    return table


def joint(args: Any, place: str) -> Path:
    """Unlabelled scans of SemanticKITTI without a place, of two KITTI drives and of nuScenes."""
    out = (args.out / "joint" / place).resolve()
    if out.is_dir():
        return out
    sequences = args.data / "semantic_kitti/dataset/sequences"
    sources = [
        [str(sequences / other / "velodyne") for other in PLACES if other != place],
        [str(args.data / "kitti_raw")],
        [str(args.data / "nuscenes/samples/LIDAR_TOP")],
    ]
    partial = out.with_name(out.name + ".partial")
    for source in sources:
        words = ["-m", "dos_plugin.cli", "ingest", *source, "--out", str(partial)]
        common.run_on_host("embedded", words, args.out / "ingest.out")
    partial.rename(out)
    return out


def show(tables: Mapping[str, Sequence[Mapping[str, dict]]]) -> list[dict[str, Any]]:
    """Rows for printing: mIoU by place, means over the seeds, and over places."""
    names = list(dict.fromkeys(name for t in tables.values() for seed in t for name in seed))
    lines = []
    for name in names:
        line: dict[str, Any] = {"row": name}
        means = []
        for place, seeds in tables.items():
            values = [seed[name]["miou"] for seed in seeds]
            means.append(statistics.mean(values))
            line[f"place {place}"] = " ".join(f"{value:.1f}" for value in values)
        line["mean"] = statistics.mean(means)
        line["std over places"] = statistics.stdev(means) if len(means) > 1 else None
        runs = [seed[name] for seeds in tables.values() for seed in seeds]
        trained = [run["seconds"] for run in runs if "seconds" in run]
        line["seconds"] = statistics.mean(trained) if trained else None
        lines.append(line)
    return lines


def draw(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A bar for each row, places as dots."""
    from matplotlib import pyplot as plt

    from dos_plugin.drawing.charts import BLUE, GREY, STYLE

    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7, 0.32 * len(lines) + 0.9), layout="constrained")
        for height, line in enumerate(reversed(lines)):
            colour = BLUE if line["row"].startswith("DOS") else GREY
            axes.barh(height, line["mean"], color=colour, height=0.6)
            for key, cell in line.items():
                if key.startswith("place "):
                    values = np.array(cell.split(), float)
                    axes.plot(values, np.full(len(values), height), "k.", markersize=4)
        axes.set_yticks(range(len(lines)), [line["row"] for line in reversed(lines)])
        axes.set_xlabel("mIoU of held-out places, percent")
        figure.savefig(path, dpi=150)
        plt.close(figure)


def main() -> None:
    """Run, print, write."""
    options = common.parser(__doc__)
    add = options.add_argument
    add("--data", type=Path, default=Path("~/.cache/dos-plugin/real"), help="default %(default)s")
    add("--out", type=Path, default=Path("exp/real"), help="default %(default)s")
    add("--host", choices=common.HOSTS, default="embedded", help="default %(default)s")
    add("--rows", nargs="+", choices=ROWS, default=ROWS, metavar="ROW", help="; ".join(ROWS))
    add("--places", nargs="+", choices=PLACES, default=[OFFICIAL], help="held out, one at a time")
    add("--seeds", type=int, nargs="+", default=[0])
    add("--steps", type=int, default=500, help="of a pretraining; default %(default)s")
    add("--batch-size", type=int, default=2, help="scans a step; default %(default)s")
    add("--label-steps", type=int, default=150, help="of a fine-tuning; default %(default)s")
    add("--supervised-epochs", type=int, default=10, help="default %(default)s")
    add("--jobs", type=int, default=1, help="places and seeds at a time")
    args = options.parse_args()
    args.out, args.data = args.out.absolute(), args.data.expanduser().absolute()
    if not (args.data / "semantic_kitti/dataset/sequences").is_dir():
        sys.exit(f"--data: no semantic_kitti/dataset/sequences in {args.data}")
    if args.host == "embedded":
        args.rows = [row for row in args.rows if not row.startswith("Sonata")]
    benches = [Bench(args, place, seed) for place in args.places for seed in args.seeds]
    tables: dict[str, list[dict[str, dict]]] = {place: [] for place in args.places}
    with ThreadPoolExecutor(args.jobs) as pool:
        for bench, table in zip(benches, pool.map(rows_of, benches)):
            tables[bench.place].append(table)
    for place, seeds in tables.items():
        occurring = [name for name, value in seeds[0]["DOS"]["iou"].items() if value is not None]
        print(f"place {place} has {len(occurring)} of 19 classes: {', '.join(occurring)}")
    lines = show(tables)
    common.print_table(lines)
    draw(lines, args.out / "real.png")
    common.write_json(args.json, lines, {})


if __name__ == "__main__":
    main()
