"""The real host's own scripts on a GPU (or, small, on a CPU): see run.py.

    python benchmarks/gpu/host_runs.py pretrain
    python benchmarks/gpu/host_runs.py resume
    python benchmarks/gpu/host_runs.py probe
    python benchmarks/gpu/host_runs.py test
    python benchmarks/gpu/host_runs.py real      # pretraining on the scenes in REAL_SCENES

`tools/train.py` and `tools/test.py`, unmodified, through `python -m dos_plugin.cpu`: DOS with
PT-v3m2 in the paper's widths (plain attention, patches of 128) on synthetic streets, 16 steps;
resumed half-way; a linear probe of its encoder, and its test. Results stay in DOS_GPU_WORK.
"""

import argparse
import os
import re
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the other benchmarks
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the tests

import torch

import common
from dos_plugin.cpu.checkout import run_on_host
from dos_plugin.runs.checkpoint import load_file
from dos_plugin.scenes import write_scenes
from dos_plugin.shipped import configs_dir
from tests.tiny_run import write_scans

WORK = Path(os.environ.get("DOS_GPU_WORK", "exp/dos-gpu")).absolute()
STEP = re.compile(r"Train: \[(\d+)/\d+\]\[(\d+)/\d+\].* loss: (\S+) same_view_loss")
RESULT = re.compile(r"Val result: mIoU/mAcc/allAcc ([\d.]+)/([\d.]+)/(\d\.\d+)")
HOOKS = """
hooks = [
    dict(type="ExactResume"),
    dict(type="CheckpointLoader"),
    dict(type="ModelHook"),
    dict(type="NonFiniteGuard"),
    dict(type="StepWeightDecay", base_value=0.04, final_value=0.2),
    dict(type="IterationTimer", warmup_iter=2),
    dict(type="InformationWriter"),
    dict(type="CheckpointSaver", save_freq={half}),
    dict(type="PrototypeMonitor"),
]
"""


class Sizes:
    """Scenes, scenes a step and epochs of a training: 16 steps, 4 in a dry run."""

    def __init__(self, dry: bool) -> None:
        self.train, self.val = (4, 2) if dry else (24, 8)
        self.batch, self.epochs = (2, 2) if dry else (6, 4)
        self.half = self.epochs // 2
        self.steps = self.epochs * (self.train // self.batch)
        self.dry = dry


def streets(sizes: Sizes) -> Path:
    """Synthetic scans with labels; tiny ones in a dry run."""
    root = WORK / "streets"
    if sizes.dry and not root.is_dir():
        write_scans(root, "train", sizes.train)
        write_scans(root, "val", sizes.val)
    elif not sizes.dry:
        splits = {"train": sizes.train, "val": sizes.val}
        write_scenes(root, splits, workers=len(os.sched_getaffinity(0)), progress=False)
    return root


def write_configs(sizes: Sizes) -> tuple[Path, Path]:
    """The demo's pretraining and linear probe with the paper's backbone, head and voxels."""
    folder = WORK / "configs"
    pretrain, probe = folder / "pretrain.py", folder / "probe.py"
    if probe.is_file():
        return pretrain, probe
    shutil.copytree(configs_dir(), folder)
    paper = runpy.run_path(str(folder / "_base_/pt-v3m2.py"))["model"]
    backbone = {**paper["backbone"], "in_channels": 2, "enable_flash": False}
    stages = len(backbone["enc_depths"])
    backbone["enc_patch_size"] = (128,) * stages
    if sizes.dry:
        widths = dict(enc_depths=(1,) * stages, enc_channels=(16, 16, 32, 32, 48))
        backbone |= widths | dict(enc_num_head=(1, 1, 2, 2, 3))
    else:
        for name in ("pretrain-dos-v1m1-9-demo.py", "_base_/semseg-demo.py"):
            path = folder / name
            text = path.read_text()
            assert text.count("grid_size = 0.2  # metres") == 1, name
            path.write_text(text.replace("grid_size = 0.2  # metres", "grid_size = 0.05"))
    channels = backbone["enc_channels"]
    head = dict(hidden_channels=64, out_channels=32) if sizes.dry else paper["head"]
    model = dict(
        backbone=backbone,
        backbone_out_channels=sum(channels[2:]),
        up_cast_level=2,
        head=head,
        num_prototypes=32 if sizes.dry else paper["num_prototypes"],
    )
    amp = f"enable_amp = {not sizes.dry}\n"
    pretrain.write_text(
        f'_base_ = ["pretrain-dos-v1m1-9-demo.py"]\n{amp}model = {model!r}\n'
        + HOOKS.format(half=sizes.half)
    )
    probed = dict(backbone={**backbone, "enc_mode": True}, backbone_out_channels=sum(channels))
    probe.write_text(f'_base_ = ["semseg-dos-v1m1-9a-demo-lin.py"]\nmodel = {probed!r}\n')
    return pretrain, probe


def call(script: str, config: Path, folder: Path, *options: object) -> str:
    """Run a script of the host; the log it has left.

    Raises:
        RuntimeError: If it fails; with the end of its output.
    """
    words: list[object] = ["--num-gpus", 1, "--config-file", config]
    words += ["--options", f"save_path={folder}", *options]
    (folder / "model").mkdir(parents=True, exist_ok=True)
    done = run_on_host(f"tools/{script}.py", *map(str, words), env={"DOS_HOST": ""})
    if done.returncode:
        raise RuntimeError(f"tools/{script}.py left with {done.returncode}:\n{done.stderr[-2500:]}")
    return (folder / f"{script}.log").read_text()


def require(right: bool, what: str) -> None:
    """Raise RuntimeError unless something is as it should be."""
    if not right:
        raise RuntimeError(what)


def training_options(sizes: Sizes, data: Path) -> list[str]:
    """Options of a pretraining."""
    options = [f"batch_size={sizes.batch}", f"epoch={sizes.epochs}", f"eval_epoch={sizes.epochs}"]
    options += [f"data.train.data_root={data}", "scheduler.pct_start=0.5"]
    options += [f"data.train.transform.2.max_size={600 if sizes.dry else 65536}"]
    return [*options, f"num_worker={1 if sizes.dry else 12}"]


def judge(log: str, folder: Path, first: int, sizes: Sizes) -> dict[str, Any]:
    """What a pretraining's log and checkpoint say, from an epoch on."""
    found = STEP.findall(log)
    losses = [float(loss) for *_, loss in found]
    require(len(losses) > 0, "no step in the log")
    finite = all(torch.tensor(losses).isfinite())
    require(finite, f"losses are not finite: {losses}")
    require(int(found[0][0]) == first, f"first epoch {found[0][0]}, expected {first}")
    saved = load_file(folder / "model/model_last.pth")
    require(saved["epoch"] == sizes.epochs, f"checkpoint of epoch {saved['epoch']}")
    state = saved["state_dict"]
    pairs = [(k, k.replace("student.", "teacher.", 1)) for k in state if ".backbone." in k]
    pairs = [(s, t) for s, t in pairs if s.startswith("student.") and t in state]
    apart = sum(not torch.equal(state[s], state[t]) for s, t in pairs)
    require(apart > 0.5 * len(pairs), f"teacher and student differ in {apart} of {len(pairs)}")
    return dict(steps=len(losses), first_loss=losses[0], last_loss=losses[-1])


def pretrain(sizes: Sizes, data: Path | None = None, name: str = "pretrain") -> dict[str, Any]:
    """The whole pretraining; its wall time holds the start of the process."""
    config, _ = write_configs(sizes)
    folder = WORK / name
    log = call("train", config, folder, *training_options(sizes, data or streets(sizes)))
    return judge(log, folder, 1, sizes)


def resume(sizes: Sizes) -> dict[str, Any]:
    """From the checkpoint in the middle, with the config that the run has left."""
    first, folder = WORK / "pretrain", WORK / "resume"
    weight = first / f"model/epoch_{sizes.half}.pth"
    log = call("train", first / "config.py", folder, "resume=True", f"weight={weight}")
    return judge(log, folder, sizes.half + 1, sizes)


def probe(sizes: Sizes) -> dict[str, Any]:
    """The host's linear probe of the pretrained encoder."""
    _, config = write_configs(sizes)
    data = streets(sizes)
    options = [f"data.{split}.data_root={data}" for split in ("train", "val", "test")]
    options += [f"weight={WORK / 'pretrain/model/model_last.pth'}", "epoch=2", "eval_epoch=1"]
    options += [f"batch_size={sizes.batch}", "scheduler.pct_start=0.5"]
    log = call("train", config, WORK / "probe", *options)
    results = RESULT.findall(log)
    require(bool(results), "no validation in the log")
    require("they keep random weights: 2 " in log, "more than the head kept random weights")
    return dict(zip(("mIoU", "mAcc", "allAcc"), map(float, results[-1])))


def test(sizes: Sizes) -> dict[str, Any]:
    """The host's tester on the probe."""
    first = WORK / "probe"
    weight = f"weight={first / 'model/model_best.pth'}"
    log = call("test", first / "config.py", WORK / "tested", weight)
    results = RESULT.findall(log)
    require(len(results) == 1, f"{len(results)} results in the log, expected 1")
    return dict(zip(("mIoU", "mAcc", "allAcc"), map(float, results[0])))


def real(sizes: Sizes) -> dict[str, Any]:
    """The pretraining on real scans."""
    data = Path(os.environ["REAL_SCENES"])
    scenes = len(list((data / "train").iterdir()))
    sizes.train = sizes.batch = scenes
    sizes.epochs, sizes.half = 10, 5
    return pretrain(sizes, data, "real") | {"scenes": scenes}


PHASES = {"pretrain": pretrain, "resume": resume, "probe": probe, "test": test, "real": real}


def main() -> None:
    """Run, print, write."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("phase", choices=PHASES)
    options.add_argument("--dry", action="store_true", help="small, on a CPU")
    options.add_argument("--json", type=Path)
    args = options.parse_args()
    try:
        found = PHASES[args.phase](Sizes(args.dry))
    except RuntimeError as error:
        sys.exit(str(error))
    common.print_table([found])
    common.write_json(args.json, [], found)


if __name__ == "__main__":
    main()
