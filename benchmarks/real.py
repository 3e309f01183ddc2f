"""DOS on real scans: SemanticKITTI's sequences, a place each, scored on places never trained on.

Pretrains, probes and fine-tunes through shipped configs, with the host's own
`SemanticKITTIDataset` and train script, on the embedded host or on Pointcept. Places are held out
in groups, `--held-out 08 02,05,07`: pretraining and labels come from the places outside of a
group, and each place of it is scored by itself. Place 08 is the official validation. Its ten
frames, as those of every place, are a second of driving. A data root of links gives the place that
is scored the number 08, so that the host's own splits hold for it.

    python benchmarks/real.py --data ~/.cache/dos-plugin/real --host pointcept
    python benchmarks/real.py --rows DOS "mask tokens, clustering" --held-out 08 02,05,07 00,04,10

All rows of frozen features have the demo's recipe (backbone, views, batch, voxels that are
distilled) and what a config of `configs/dos/ablation` or `sonata.py` changes of it. A probe has
four scans of each place, on either side. Sonata runs on Pointcept alone; its second row has DOS's
CPU time. mIoU is that over those of the 19 classes which the held-out place has. Training with
labels has crops of whole scans; the supervised row is the best epoch on another of the training
places, by its own head.

A run that is finished is kept, so the same command goes on. Steps are optimizer steps.
"""

import argparse
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
from recipe import HOOKS, model_of

OFFICIAL = "08"
PLACES = sorted((*KITTI_TRAIN, OFFICIAL))
SCANS_A_PLACE = 10
PROBED = 4  # of them, on either side of a probe: neighbours show the same
ABLATION = common.ROOT / "configs/dos/ablation"
SEGMENTATION = common.ROOT / "configs/dos/_base_/semseg-demo.py"
BATCH_SIZE = 4  # scans a step of a pretraining, as in the demo
# Rows of frozen features: config of the pretraining.
PRETRAININGS = {
    "DOS": DEMO,
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
CHANNELS = (32, 64, 128, 192)  # of the demo's stages
# Rows of DOS with other views: factor of the steps, points of a view.
VIEWS = {"DOS, views of 1,500": (1, 1500), "DOS, views of 8,000": (1 / 2, 8000)}
# Rows of the learning curve: factor of the steps; number of unlabelled scans at equal steps.
STEPS = {"1/8 of the steps": 1 / 8, "1/2 of the steps": 1 / 2, "2 x the steps": 2}
SCANS = {"10 scans": 10, "all scans of three data sets": None}
# Rows of training with labels: share of the labelled scans.
FEW = {"1 % of the labels": 0.01, "10 % of the labels": 0.1, "100 % of the labels": 1.0}
STARTS = ("DOS", "random weights")
SUPERVISED = "supervised"
ROWS = (*PRETRAININGS, *VIEWS, *STEPS, *SCANS, *FEW, SUPERVISED)
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
        group: places that are held out.
        seed: of the trainings; it chooses the scans of the smaller parts, too.
    """

    args: Any
    group: tuple[str, ...]
    seed: int

    @property
    def scans(self) -> int:
        """To train on."""
        return SCANS_A_PLACE * (len(PLACES) - len(self.group))

    @property
    def model(self) -> dict[str, Any]:
        """Options of all rows: the ablation's configs and Sonata's distil coarser voxels."""
        return model_of(*self.args.channels)

    def root(self, val: str) -> Path:
        """A data root of links: sequence 08 is ``val``; the group and ``val`` are in no other."""
        out = self.args.out / "places" / f"{'-'.join(self.group)}-scored-{val}"
        train = [place for place in PLACES if place not in {*self.group, val}]
        numbers = {place: place for place in train if place != OFFICIAL}
        if OFFICIAL in train:
            numbers[next(n for n in KITTI_TRAIN if n not in numbers)] = OFFICIAL
        numbers[OFFICIAL] = val
        for number in PLACES:
            folder = out / "dataset/sequences" / number
            if number not in numbers:
                (folder / "velodyne").mkdir(parents=True, exist_ok=True)
            elif not folder.exists():
                folder.parent.mkdir(parents=True, exist_ok=True)
                source = self.args.data / "semantic_kitti/dataset/sequences" / numbers[number]
                folder.symlink_to(source, target_is_directory=True)
        return out

    def part(self, share: float) -> Path:
        """A data root with a share of the scans to train on."""
        root = self.root(self.group[0])
        if share == 1:
            return root
        out = self.args.out / "parts" / f"{'-'.join(self.group)}-{share:g}-seed{self.seed}"
        return write_split(root, share, self.seed, out).out

    def folder(self, name: str) -> Path:
        """Of a run."""
        plain = "".join(c if c.isalnum() else "-" for c in name)
        width, group = "-".join(map(str, self.args.channels)), "-".join(self.group)
        out = self.args.out / self.args.host / width / f"without-{group}"
        return out / plain / f"seed-{self.seed}"

    def run(self, name: str, config: Path, changes: Mapping[str, Any], judge: str) -> dict:
        """Train, and judge on each place of the group, unless that has happened.

        Args:
            name: of the run.
            config: shipped config.
            changes: what a config of ours changes of it.
            judge: sources of a probe, or by the model's own head: ``last`` or ``best`` weights.

        Returns:
            source (``student``, ``random``, ``raw``) or ``own-head`` -> place -> ``miou``,
            percent, and ``iou`` by class; ``seconds`` of the training.
        """
        folder = self.folder(name)
        changes = dict(changes, seed=self.seed, save_path=str(folder))
        settings = digest([DEMO.read_text(), config.read_text(), changes])
        result = folder / "result.json"
        found = read_notes(result)
        if found.get("settings") != settings:
            folder.mkdir(parents=True, exist_ok=True)
            ours = folder / "ours.py"
            lines = [f"_base_ = [{str(config)!r}]", *(f"{k} = {v!r}" for k, v in changes.items())]
            ours.write_text("\n".join(lines) + "\n")
            words = [common.TRAIN, "--config-file", str(ours)]
            seconds = common.run_on_host(self.args.host, words, folder / "train.out")
            found = dict(settings=settings, seconds=seconds)
            write_notes(result, found)
        if found.get("judged") == judge:
            return found
        found |= self.judge(folder, config, judge) | dict(judged=judge)
        write_notes(result, found)
        told = []
        for source, scores in found.items():
            if isinstance(scores, dict):
                told.append(" ".join([source, *(f"{scores[p]['miou']:.1f}" for p in self.group)]))
        print(
            f"without {' '.join(self.group)}, seed {self.seed}, {name}: {'; '.join(told)}",
            flush=True,
        )
        return found

    def judge(self, folder: Path, config: Path, judge: str) -> dict[str, dict]:
        """Source -> place -> ``miou`` and ``iou``."""
        scored = folder / "scores.json"
        words = [str(common.ROOT / "benchmarks/by_place.py")]
        if judge in ("last", "best"):
            words += [str(folder / "model" / f"model_{judge}.pth"), "--sources", "own-head"]
        else:
            words += [str(folder / "model/model_last.pth"), "--sources", *judge.split()]
            words += ["--train-scans", str(PROBED * self.scans // SCANS_A_PLACE)]
            words += ["--config", str(self.probed_as(folder, config))]
        words += ["--val-scans", str(PROBED), "--json", str(scored), "--"]
        words += [str(self.root(place)) for place in self.group]
        common.run_on_host(self.args.host, words, folder / "judge.out")
        return {
            source: dict(zip(self.group, scores))
            for source, scores in json.loads(scored.read_text()).items()
        }

    def probed_as(self, folder: Path, config: Path) -> Path:
        """The config that a probe builds a backbone from, and reads SemanticKITTI's scans by."""
        base = PROBED_AS["Sonata"] if config == CONFIGS["Sonata"] else folder / "config.py"
        data = dict(train=dict(type="SemanticKITTIDataset", split="train"), names=CLASSES)
        ours = folder / "probed_as.py"
        ours.write_text(f"_base_ = [{str(base)!r}]\ndata = {data!r}\nmodel = {self.model!r}\n")
        return ours

    def pretrain(
        self,
        row: str,
        steps: float,
        root: Path | None = None,
        scans: int | None = None,
        config: Path = DEMO,
        max_size: int | None = None,
    ) -> dict:
        """Pretrain by the demo's recipe on the scans of a data root, and probe."""
        root, scans = root or self.root(self.group[0]), scans or self.scans
        epoch = max(1, round(steps * BATCH_SIZE / scans))
        model, transform = in_the_demo(config, max_size, self.model)
        train: dict[str, Any] = dict(data_root=str(root), transform=transform)
        if (root / "dataset").is_dir():
            train |= dict(type="SemanticKITTIDataset", split="train")
        changes = dict(epoch=epoch, eval_epoch=epoch, batch_size=BATCH_SIZE, hooks=HOOKS)
        changes |= dict(data=dict(train=train, names=CLASSES), model=model)
        judge = "student random raw" if row == "DOS" else "student"
        found = self.run(row, config, changes, judge)
        return found | dict(steps=epoch * scans // BATCH_SIZE)

    def segment(self, row: str, weight: Path | None, root: Path, **more: Any) -> dict:
        """Fine-tune on crops of scans, from a checkpoint or from random weights."""
        kitti: dict[str, Any] = dict(type="SemanticKITTIDataset", data_root=str(root))
        val = dict(kitti, data_root=str(more.pop("val", self.root(self.group[0]))))
        transform = runpy.run_path(str(SEGMENTATION))["data"]["train"]["transform"]
        after = next(i for i, t in enumerate(transform) if t["type"] == "GridSample") + 1
        transform.insert(after, dict(type="SphereCrop", point_max=self.args.crop, mode="random"))
        data = dict(num_classes=len(CLASSES), names=CLASSES, val=val, test=val)
        data["train"] = dict(kitti, transform=transform)
        widths = self.args.channels[:-1]
        decoder = dict(
            dec_depths=[1] * len(widths),
            dec_channels=widths,
            dec_num_head=[width // 16 for width in widths],
            dec_patch_size=[128] * len(widths),
        )
        model = dict(num_classes=len(CLASSES), backbone_out_channels=widths[0])
        model["backbone"] = self.model["backbone"] | decoder
        changes: dict[str, Any] = dict(data=data, batch_size=BATCH_SIZE)
        changes |= dict(weight=weight and str(weight), model=model)
        if weight is None:  # all at one rate: nothing is there to be kept
            changes |= dict(param_dicts=[], scheduler=dict(max_lr=0.003))
        judge = more.pop("judge", "last")
        return self.run(row, CONFIGS["supervised"], changes | more, judge)


def in_the_demo(
    config: Path, max_size: int | None, model: dict[str, Any]
) -> tuple[dict[str, Any], list[dict]]:
    """What gives a config the demo's recipe: options of the model, and the transforms.

    Args:
        config: the demo's, one of the ablation's, or Sonata's.
        max_size: of the views, points; None for the demo's.
        model: options of all rows.
    """
    demo = runpy.run_path(str(DEMO))
    transform, views = demo["transform"], demo["transform"][2]  # TwoViews
    views["max_size"] = max_size or views["max_size"]
    if config != CONFIGS["Sonata"]:
        return model, transform
    transform = runpy.run_path(str(config))["data"]["train"]["transform"]
    # Sonata makes its voxels in the model.
    augment = [t for t in views["view_transform"] if t["type"] != "GridSample"]
    generator = next(t for t in transform if t["type"] == "MultiViewGenerator")
    generator |= dict(global_transform=augment, local_transform=augment, max_size=views["max_size"])
    out_channels = model.pop("backbone_out_channels")
    return dict(model, head_in_channels=out_channels), transform


def rows_of(bench: Bench) -> dict[str, dict]:
    """All rows of a group and a seed that were asked for: place -> scores, seconds."""
    args, wanted = bench.args, bench.args.rows
    dos = bench.pretrain("DOS", args.steps)
    weight = bench.folder("DOS") / "model/model_last.pth"
    table = {"raw inputs": dict(student=dos["raw"])}
    table |= {"random weights": dict(student=dos["random"]), "DOS": dos}
    for row, config in PRETRAININGS.items():
        if row not in wanted or row == "DOS":
            continue
        steps = args.steps
        if row == "Sonata, equal time":
            equal = table.get("Sonata, equal steps")
            if equal is None:
                sys.exit("--rows: 'Sonata, equal time' needs 'Sonata, equal steps'")
            an_epoch = equal["seconds"] / equal["steps"] * bench.scans / BATCH_SIZE
            steps = math.ceil(dos["seconds"] / an_epoch) * bench.scans / BATCH_SIZE
        table[row] = bench.pretrain(row, steps, config=config)
    for row, (factor, size) in VIEWS.items():
        if row in wanted:
            table[row] = bench.pretrain(row, args.steps * factor, max_size=size)
    for row, factor in STEPS.items():
        if row in wanted:
            table[row] = bench.pretrain(row, args.steps * factor)
    for row, number in SCANS.items():
        if row in wanted:
            root = bench.part(number / bench.scans) if number else joint(args, bench.group)
            count = number or len(list((root / "train").iterdir()))
            table[row] = bench.pretrain(row, args.steps, root, count)
    for row, share in FEW.items():
        if row not in wanted:
            continue
        scans = max(1, round(share * bench.scans))
        epoch = max(1, round(args.label_steps * BATCH_SIZE / scans))
        for start in STARTS:
            name = f"{row}, {start}"
            start_weight = weight if start == "DOS" else None
            table[name] = bench.segment(
                name, start_weight, bench.part(share), epoch=epoch, eval_epoch=1
            )
    if SUPERVISED in wanted:
        stop = next(p for p in reversed(KITTI_TRAIN) if p not in bench.group)
        root = bench.root(stop)
        epoch = args.supervised_epochs
        table[SUPERVISED] = bench.segment(
            SUPERVISED, None, root, val=root, epoch=epoch, eval_epoch=epoch, judge="best"
        )
    return table


def joint(args: Any, group: Sequence[str]) -> Path:
    """Unlabelled scans of SemanticKITTI without some places, of two KITTI drives, of nuScenes."""
    out = (args.out / "joint" / "-".join(group)).resolve()
    if out.is_dir():
        return out
    sequences = args.data / "semantic_kitti/dataset/sequences"
    sources = [
        [str(sequences / other / "velodyne") for other in PLACES if other not in group],
        [str(args.data / "kitti_raw")],
        [str(args.data / "nuscenes/samples/LIDAR_TOP")],
    ]
    partial = out.with_name(out.name + ".partial")
    for source in sources:
        words = ["-m", "dos_plugin.cli", "ingest", *source, "--out", str(partial)]
        common.run_on_host("embedded", words, args.out / "ingest.out")
    partial.rename(out)
    return out


def show(tables: Mapping[tuple[str, ...], Sequence[Mapping[str, dict]]]) -> list[dict[str, Any]]:
    """Rows for printing: mIoU by place, a number a seed; mean over places, std over them."""
    names = list(dict.fromkeys(name for t in tables.values() for seed in t for name in seed))
    lines = []
    for name in names:
        line: dict[str, Any] = {"row": name}
        means, seconds = [], []
        for group, seeds in tables.items():
            runs = [seed[name] for seed in seeds if name in seed]
            seconds += [run["seconds"] for run in runs if "seconds" in run]
            for place in group:
                scores = [run.get("student") or run["own-head"] for run in runs]
                values = [score[place]["miou"] for score in scores]
                means.append(statistics.mean(values))
                line[f"place {place}"] = " ".join(f"{value:.1f}" for value in values)
        line["mean"] = statistics.mean(means)
        line["std over places"] = statistics.stdev(means) if len(means) > 1 else None
        line["seconds"] = statistics.mean(seconds) if seconds else None
        lines.append(line)
    return lines


def draw(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A bar for each row, places and seeds as dots."""
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
        axes.set_axisbelow(True)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("mIoU of held-out places, percent")
        figure.savefig(path, dpi=150)
        plt.close(figure)


def group_of(text: str) -> tuple[str, ...]:
    """Places from a word of the command line."""
    group = tuple(text.split(","))
    if not set(group) < set(PLACES) or len(set(group)) < len(group):
        raise argparse.ArgumentTypeError(f"{text!r}: places are {', '.join(PLACES)}")
    return group


def main() -> None:
    """Run, print, write."""
    options = common.parser(__doc__)
    add = options.add_argument
    add("--data", type=Path, default=Path("~/.cache/dos-plugin/real"), help="default %(default)s")
    add("--out", type=Path, default=Path("exp/real"), help="default %(default)s")
    add("--host", choices=common.HOSTS, default="embedded", help="default %(default)s")
    add("--rows", nargs="+", choices=ROWS, default=ROWS, metavar="ROW", help="; ".join(ROWS))
    add(
        "--held-out",
        nargs="+",
        type=group_of,
        default=[(OFFICIAL,)],
        metavar="PLACES",
        help="places with commas: held out together; one after another otherwise; default 08",
    )
    add("--seeds", type=int, nargs="+", default=[0])
    add(
        "--channels",
        type=int,
        nargs="+",
        default=CHANNELS,
        help="of the backbone's stages; default %(default)s",
    )
    add("--steps", type=int, default=300, help="of a pretraining; default %(default)s")
    add("--label-steps", type=int, default=200, help="of a fine-tuning; default %(default)s")
    add("--supervised-epochs", type=int, default=40, help="default %(default)s")
    add(
        "--crop",
        type=int,
        default=4000,
        help="points to train on with labels; default %(default)s",
    )
    add("--jobs", type=int, default=1, help="groups and seeds at a time")
    args = options.parse_args()
    args.out, args.data = args.out.absolute(), args.data.expanduser().absolute()
    if not (args.data / "semantic_kitti/dataset/sequences").is_dir():
        sys.exit(f"--data: no semantic_kitti/dataset/sequences in {args.data}")
    places = [place for group in args.held_out for place in group]
    if len(set(places)) < len(places):
        sys.exit(f"--held-out: a place is named twice in {' '.join(places)}")
    if args.host == "embedded":
        args.rows = [row for row in args.rows if not row.startswith("Sonata")]
    benches = [Bench(args, group, seed) for group in args.held_out for seed in args.seeds]
    tables: dict[tuple[str, ...], list[dict[str, dict]]] = {g: [] for g in args.held_out}
    with ThreadPoolExecutor(args.jobs) as pool:
        for bench, table in zip(benches, pool.map(rows_of, benches)):
            tables[bench.group].append(table)
    for group, seeds in tables.items():
        for place in group:
            iou = seeds[0]["DOS"]["student"][place]["iou"]
            has = [name for name, value in iou.items() if value is not None]
            print(f"place {place} has {len(has)} of 19 classes: {', '.join(has)}")
    lines = show(tables)
    common.print_table(lines)
    draw(lines, args.out / "real.png")
    common.write_json(args.json, lines, {})


if __name__ == "__main__":
    main()
