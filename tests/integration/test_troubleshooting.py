"""Every message of docs/troubleshooting.md, provoked, in the words that stand there."""

import contextlib
import importlib
import json
import logging
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import types
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("spconv", reason="the embedded host needs the extra 'demo'")

from dos_plugin import cli, host, messages, register
from dos_plugin.cpu.checkout import find_pointcept
from dos_plugin.cpu.refused import Refused
from dos_plugin.hooks.feature_picture import FeaturePicture
from dos_plugin.hooks.limits import Alarm
from dos_plugin.hooks.monitor import PrototypeMonitor
from dos_plugin.hooks.online_probe import OnlineProbe
from dos_plugin.hooks.resume import PREVIOUS, ExactResume
from dos_plugin.minihost import Trainer, launch, load_config, setup_config
from dos_plugin.minihost.collate import point_collate_fn
from dos_plugin.minihost.config import config_text
from dos_plugin.minihost.optim import build_scheduler
from dos_plugin.models.batch import whole_batch
from dos_plugin.runs.run import open_run
from dos_plugin.shipped import config_path
from tests.batches import view_batch
from tests.contract import test_detection_native as detection
from tests.contract import test_extremes as extremes
from tests.contract import test_load as loading
from tests.contract import test_segmentor as segmentor
from tests.faults import runs
from tests.tiny_run import write_config, write_scans
from tests.toy_training import write_training
from tests.unit import test_hooks_guard as guard
from tests.unit import test_hooks_online_probe as online
from tests.unit.test_models_dos import build

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/troubleshooting.md"
HOST_SCRIPT = Path(__file__).with_name("troubleshooting_pointcept.py")

pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="needs the source tree")


def rows() -> list[str]:
    """The messages of the page: the first code of each row of its tables."""
    found = []
    for line in PAGE.read_text().splitlines():
        if line.startswith("|") and not re.match(r"\|( message \|| ---)", line):
            code = re.match(r"\| `([^`]+)`", line)
            assert code, f"a row without a message: {line}"
            found.append(code[1])
    return found


def pattern(message: str) -> str:
    """A message as a regular expression: ``…`` is any text, ``N`` any number."""
    parts = re.split(r"(…|\bN\b)", message)
    wild = {"…": ".+?", "N": r"(?:N|[\d.,]*\d)"}
    return "".join(wild.get(part, re.escape(part)) for part in parts)


CASES: dict[str, Callable] = {}


def says(message: str) -> Callable[[Callable], Callable]:
    """Marks what provokes a message of the page: it raises or returns it, or a log has it."""

    def enter(function: Callable) -> Callable:
        assert message not in CASES, message
        CASES[message] = function
        return function

    return enter


class Place:
    """What a case may use: an empty folder, pytest's fixtures, the real host's answers."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self.request = request
        self.path: Path = request.getfixturevalue("tmp_path")
        self.patch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
        self.log: pytest.LogCaptureFixture = request.getfixturevalue("caplog")
        self.capture: pytest.CaptureFixture = request.getfixturevalue("capfd")

    def screen(self) -> str:
        return "".join(self.capture.readouterr())

    def pointcept(self, name: str) -> str:
        return self.request.getfixturevalue("pointcept")[name]

    def resumed(self, last: bytes | None = None, **changes: object) -> str:
        """The log of a run that goes on from one that was stopped inside its first epoch."""
        config: Path = self.request.getfixturevalue("stopped")
        shutil.copytree(config.parent / "run", self.path / "run", dirs_exist_ok=True)
        weight = self.path / "run/model/model_last.pth"
        if last is not None:
            weight.write_bytes(last)
        self.patch.setitem(host.HOST.HOOKS.module_dict, "Signal", Signal)
        self.patch.syspath_prepend(str(ROOT / "tests"))
        again = dict(resume=True, weight=str(weight), save_path=str(self.path / "run"))
        return train(config, **{**again, **changes})


@pytest.fixture(scope="module")
def pointcept(tmp_path_factory) -> dict[str, str]:
    """What the real host says, all in one process."""
    if find_pointcept() is None:
        pytest.skip("no Pointcept checkout at POINTCEPT_ROOT or ~/.cache/dos-plugin/Pointcept")
    if torch.cuda.is_available():
        pytest.skip("written for a machine without CUDA")
    env = dict(os.environ, DOS_HOST="", PYTHONPATH=str(find_pointcept()))
    command = [sys.executable, str(HOST_SCRIPT), str(tmp_path_factory.mktemp("host"))]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(autouse=True)
def nothing_said_yet(monkeypatch):
    """Warnings are counted, and told less and less often."""
    monkeypatch.setattr(messages, "_counts", Counter())


def test_the_page_has_the_messages_that_are_provoked_here():
    page, cases = rows(), list(CASES)
    assert len(set(page)) == len(page)
    assert sorted(set(page) - set(cases)) == [], "rows that nothing here provokes"
    assert sorted(set(cases) - set(page)) == [], "provoked here, and no row of the page"


def test_what_stands_for_any_text():
    assert re.search(pattern("host '…' has N of N"), "the host 'a b' has 1 of 65,535 rows")
    assert not re.search(pattern("has N rows"), "has no rows")
    assert not re.search(pattern("NaN (N)"), "NaN (C)")


@pytest.mark.parametrize("message", CASES)
def test_a_message(message, request):
    place, said = Place(request), ""
    with warnings.catch_warnings(record=True) as warned, place.log.at_level(logging.WARNING):
        warnings.simplefilter("always")
        try:
            said = CASES[message](place) or ""
        except Exception as error:
            said = f"{type(error).__name__}: {error.args[0] if error.args else error}"
    lines = [said, place.log.text, *(str(warning.message) for warning in warned)]
    text = " ".join(" ".join(lines).split())
    assert re.search(pattern(message), text), text


# -- installation and host -----------------------------------------------------------------------


@says("No module named 'dos_plugin'")
def _(place):
    """An interpreter that is not the plugin's: with the host's path alone."""
    command = [sys.executable, "-S", "-c", "import dos_plugin"]
    env = dict(PYTHONPATH="./exp/dos/run/code")
    return subprocess.run(command, cwd=place.path, env=env, capture_output=True, text=True).stderr


@says("No module named '…'")
def _(place):
    said = place.pointcept("missing_package")
    if not said:
        pytest.skip("the host is installed completely here")
    return said


@says("needs the package '…', which the extra '…' brings")
def _(place):
    (place.path / "town.las").write_bytes(b"LASF")
    place.patch.setitem(sys.modules, "laspy", None)
    status = cli.main(["ingest", str(place.path / "town.las"), "--out", str(place.path / "out")])
    assert status == 2
    return place.screen()


@says("host package '…' not found")
def _(place):
    host.load("no_such_zoo")


@says("host '…' has no models.builder.MODELS; dos-plugin needs Pointcept v1.6.0 or newer")
def _(place):
    (place.path / "old_zoo").mkdir()
    (place.path / "old_zoo/__init__.py").touch()
    place.patch.syspath_prepend(str(place.path))
    host.load("old_zoo")


@says("'Height' in TRANSFORMS of host '…' is taken by …")
def _(place):
    place.patch.setitem(host.HOST.TRANSFORMS.module_dict, "Height", dict)
    register.register()


@says("… was called, but this machine lacks it and dos_plugin.cpu has no stand-in for it")
def _(place):
    Refused("pointops.ball_query", "use another hook")()


@says("Make sure flash_attn is installed.")
def _(place):
    return place.pointcept("flash")


@says("enable_flash=True needs the package flash_attn, which is not installed")
def _(place):
    place.patch.setattr("dos_plugin.minihost.backbones.attention.flash_attn", None)
    host.HOST.build_model(dict(extremes.BACKBONES["m2"], enable_flash=True))


@says("LitePT forward requires flash_attn")
def _(place):
    return place.pointcept("litept")


@says("'NoneType' object has no attribute 'nn'")
def _(place):
    return place.pointcept("ocnn") or pytest.skip("of Pointcept v1.6.0 alone, here is a newer one")


# -- config --------------------------------------------------------------------------------------


@says("'DOS-v1m1 is not in the models registry'")
def _(place):
    return place.pointcept("unknown_model")


@says("ImportError")
def _(place):
    said = place.pointcept("failed_import")
    assert said == "ImportError: "
    return said


@says("… is not in the … registry of the embedded host")
def _(place):
    host.HOST.build_model(dict(type="PT-v3m3"))


def options(place: Place, *, file: str = "", **changes: object) -> object:
    """The toy training's config with options; ``file`` is written behind it."""
    place.patch.syspath_prepend(str(ROOT / "tests"))
    path = write_training(place.path)
    path.write_text(path.read_text() + file)
    return load_config(str(path), changes)


@says("… a module of custom_imports cannot be imported")
def _(place):
    config = place.path / "config.py"
    config.write_text("custom_imports = dict(imports=['nowhere_to_be_found'])\n")
    open_run(config)


@says("option …=… does not fit …")
def _(place):
    options(place, **{"hooks.40.save_freq": 1})


@says("AssertionError")
def _(place):
    said = place.pointcept("default_setup")
    assert "in default_setup" in said
    return said


@says("epoch (N) must be a multiple of eval_epoch (N): set both")
def _(place):
    options(place, epoch=10, eval_epoch=4)


@says("batch_size (N) must be a multiple of the number of processes (N)")
def _(place):
    place.patch.setattr("dos_plugin.minihost.config.get_world_size", lambda: 2)
    setup_config(options(place, batch_size=3))


@says("persistent_workers option needs num_workers > 0")
def _(place):
    return place.pointcept("no_workers")


@says("OneCycleLR: float division by zero")
def _(place):
    return place.pointcept("short_warmup")


def schedule(**changes: object) -> None:
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    build_scheduler(dict(type="OneCycleLR", max_lr=0.1, total_steps=20) | changes, optimizer)


@says("pct_start (…) x total_steps (N) must not be 0, 1 or total_steps")
def _(place):
    schedule(pct_start=0.05)


@says("max_lr must have the same length as optimizer.param_groups")
def _(place):
    return place.pointcept("rates")


@says("max_lr has N values, but there are N parameter groups")
def _(place):
    schedule(max_lr=[0.1, 0.01])


@says("could not convert string to float: 'None'")
def _(place):
    return place.pointcept("none_is_text")


@says("local variable '…'")
def _(place):
    said = place.pointcept("mixed_views")
    assert said.startswith("UnboundLocalError")
    return said


@says("mix_prob=…: a batch with … cannot be mixed here, set mix_prob=0")
def _(place):
    views = dict(view1_coord=torch.rand(9, 3), view1_offset=torch.tensor([9]))
    point_collate_fn([views, views], mix_prob=1)


@says("unterminated string literal")
def _(place):
    return place.pointcept("config_not_written")


@says("the config cannot be written to config.py because of …")
def _(place):
    config_text(options(place, file="extra = print\n"))


@says("backbone.mask_token=… contradicts student_input=…")
def _(place):
    build(student_input="mask_token")


@says("hooks: ExactResume must stand first")
def _(place):
    hook, loader = ExactResume(), online.PretrainedLoader()
    hook.trainer = SimpleNamespace(hooks=[loader, hook], cfg=None)
    hook.before_train()


@says("hooks: PrototypeMonitor needs model.type='DOS-v1m1', got …")
def _(place):
    hook = PrototypeMonitor()
    hook.trainer = SimpleNamespace(model=torch.nn.Linear(2, 2))
    hook.before_train()


# -- data ----------------------------------------------------------------------------------------


@says("num_samples should be a positive integer value, but got num_samples=0")
def _(place):
    return place.pointcept("no_scans")


@says("data_root: there is no folder …")
def _(place):
    root = str(place.path / "nowhere")
    host.HOST.DATASETS.build(
        dict(type="DefaultDataset", split="train", data_root=root, transform=[])
    )


@says("batch key 'view1_…' is missing; add it to Collect")
def _(place):
    batch = view_batch()
    del batch["view1_point_id"]
    build()(batch)


@says("batch key '…' is missing, which model.backbone_keys asks for")
def _(place):
    build(backbone_keys=["condition"])(view_batch())


@says("batch key '…' holds …, expected the same for all scenes of a batch")
def _(place):
    whole_batch(dict(condition=["ScanNet", "nuScenes"]), "condition")


@says("TwoViews: view_transform made no 'grid_coord'")
def _(place):
    point_id, views = (host.HOST.TRANSFORMS.build(dict(type=t)) for t in ("PointId", "TwoViews"))
    views(point_id(extremes.scene(extremes.cloud(90))))


def far_batch(**point_id: object) -> dict:
    """A scene with a point 5 km away."""
    transform = extremes.pipeline(view_scale=(1.0, 1.0), **point_id)
    return extremes.collate_fn([transform(extremes.scene(extremes.FAR, "far"))])


@says("mat1 and mat2 shapes cannot be multiplied")
def _(place):
    return place.pointcept("other_features")


@says("feat needs shape (n, in_channels = N), got (N, N)")
def _(place):
    batch = extremes.collate_fn([extremes.pipeline()(extremes.scene(extremes.cloud(800)))])
    batch |= {f"{view}_feat": batch[f"{view}_feat"][:, :3] for view in ("view1", "view2")}
    extremes.model(**extremes.BACKBONES["m2"])(batch)


@says("model.backbone.in_channels=N, but feat_keys of … collect N columns")
def _(place):
    found = segmentor.scans(place.path, "train", a=[0])
    found["transform"] = [dict(type="Collect", keys=("coord",), feat_keys=("coord",))]
    model = segmentor.build("PT-v3m2")
    model.trainer = SimpleNamespace(cfg=dict(data=dict(train=found)))
    model.before_train()


@says("scene(s) … of a batch have fewer than N visible points in a view")
def _(place):
    build()(view_batch((200, 1)))


@says("scene(s) … of a batch hold NaN or infinite coordinates or features")
def _(place):
    batch = view_batch()
    batch["view1_feat"][3] = torch.nan
    build()(batch)


@says("scene(s) … of a batch are N voxels long, expected at most 65,535 along an axis")
def _(place):
    extremes.model(**extremes.BACKBONES["m2"])(far_batch())


@says("PointId: dropped N of N points of scene '…' with NaN or infinite values")
def _(place):
    coord = extremes.cloud(90)
    coord[3] = np.nan
    host.HOST.TRANSFORMS.build(dict(type="PointId"))(extremes.scene(coord))


@says("PointId: dropped N of N points of scene '…', N m long")
def _(place):
    far_batch(max_extent=2000)


@says("scan … has segment …, expected 0 to N")
def _(place):
    data = segmentor.batch() | dict(name=segmentor.NAMES)
    data["segment"][:3] = 255
    segmentor.build("PT-v3m2")(data)


@says("no point of … has a label: the loss of the batch is 0")
def _(place):
    data = segmentor.batch() | dict(name=segmentor.NAMES)
    segmentor.build("PT-v3m2")(data | dict(segment=torch.full_like(data["segment"], -1)))


# -- training ------------------------------------------------------------------------------------


@says("cuda is not available. Please check your installation.")
def _(place):
    return place.pointcept("several_processes")


@says("backbone_out_channels=N, but the backbone's features have N channels")
def _(place):
    build(backbone_out_channels=9)(view_batch())


@says("up_cast_level=N, but the backbone's output has N pooling steps")
def _(place):
    build(up_cast_level=1)(view_batch())


def returned(change: Callable) -> None:
    """What DOS makes of another output of its backbone."""
    model = build()
    for branch in (model.teacher, model.student):
        forward = branch["backbone"].forward
        branch["backbone"].forward = lambda data, forward=forward: change(forward(data))
    model(view_batch())


@says("the backbone returned …, expected a tensor (N, C) or a point structure with 'feat'")
def _(place):
    returned(lambda feat: [feat])


@says("the backbone returned N rows at its finest level for N input points")
def _(place):
    returned(lambda feat: feat[:4])


@says("Expected to have finished reduction in the prior iteration")
def _(place):
    model = torch.nn.ModuleDict(dict(used=torch.nn.Linear(2, 1), unused=torch.nn.Linear(2, 1)))
    model.forward = lambda feat: model["used"](feat)
    store = torch.distributed.FileStore(str(place.path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        parallel = torch.nn.parallel.DistributedDataParallel(model)
        for _ in range(2):
            parallel(torch.ones(3, 2)).sum().backward()
    finally:
        torch.distributed.destroy_process_group()


def ranks_that(end: Callable, argument: int, place: Place) -> str:
    """The launcher with two ranks, of which the second ends."""
    fork = multiprocessing.get_context("fork")
    ranks = [fork.Process(target=signal.pause), fork.Process(target=end, args=(argument,))]

    def start_processes(*_: object, **__: object) -> SimpleNamespace:
        for rank in ranks:
            rank.start()
        return SimpleNamespace(processes=ranks)

    place.patch.setattr(launch.mp, "start_processes", start_processes)
    with pytest.raises(SystemExit):
        launch.launch(options(place), num_gpus=2)
    return place.screen()


@says("rank N was ended by SIGKILL (is there enough memory?); the other ranks are stopped")
def _(place):
    return ranks_that(signal.raise_signal, signal.SIGKILL, place)


@says("rank N ended with exit status N; the other ranks are stopped")
def _(place):
    return ranks_that(os._exit, 3, place)


@says("… not finite in epoch N, batch N, the step is left out: scenes …")
def _(place):
    guard.Training().batch(0, "loss")


@says("N steps in a row without finite gradients")
def _(place):
    training = guard.Training(stop_after=3)
    for number in range(3):
        training.batch(number, "loss")


@says("this run seems to collapse: …")
def _(place):
    alarm = Alarm()
    return "".join(m for step in (21, 22) for m in alarm.messages(dict(feat_std=0.1), step))


@says("SIGUSR1: stopped in epoch N after batch N of N, status 75")
def _(place):
    return (place.request.getfixturevalue("stopped").parent / "run/train.log").read_text()


# -- checkpoints ---------------------------------------------------------------------------------


def train(config: Path, **changes: object) -> str:
    """A training of the embedded host in this process; its log."""
    short = dict(epoch=2, eval_epoch=2, num_worker=0, gradient_accumulation_steps=1)
    cfg = setup_config(load_config(str(config), {**short, **changes}))
    handlers = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD)}
    with contextlib.suppress(SystemExit):
        Trainer(cfg).train()
    for number, handler in handlers.items():  # those of ExactResume stay after an error
        signal.signal(number, handler)
    return (Path(cfg.save_path) / "train.log").read_text()


class Signal(host.HOST.HookBase):
    """Asks for an end in the second batch, as a batch system does."""

    def after_step(self):
        if self.trainer.comm_info["iter"] == 1 and not self.trainer.cfg.resume:
            os.kill(os.getpid(), signal.SIGUSR1)


def leave(status: int) -> None:
    """In the place of ``os._exit``; the timer of the hook's grace, a thread, comes too late."""
    if threading.current_thread() is threading.main_thread():
        raise SystemExit(status)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    """The config of a run that got SIGUSR1 inside its first epoch and stopped."""
    path = write_training(tmp_path_factory.mktemp("stopped"), scenes=6)
    with path.open("a") as file:
        file.write(runs.HOOKS.format(save_steps=100, pause=0))
        file.write('hooks.insert(4, dict(type="Signal"))\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(host.HOST.HOOKS.module_dict, "Signal", Signal)
        patch.setattr("os._exit", leave)  # else pytest would end
        patch.setattr("logging.shutdown", lambda: None)
        patch.syspath_prepend(str(ROOT / "tests"))
        train(path)
    return path


@says("Weights only load failed")
def _(place):
    return place.pointcept("weights_only")


@says("No weight found at: …")
def _(place):
    return place.pointcept("weight_not_found")


@says("Missing keys: [")
def _(place):
    return place.pointcept("names_do_not_match")


@says("weight: … does not fit model.backbone: …")
def _(place):
    weight = loading.write(place.path / "last.pth", loading.pretraining("PT-v3m1"))
    loading.load(loading.build("PT-v3m2"), weight)


@says("…/model_last.pth: …: going on from …, the one before it")
def _(place):
    """With a flipped bit in a tensor: between them nothing counts."""
    last = place.request.getfixturevalue("stopped").parent / "run/model/model_last.pth"
    folder = place.path / "run/model"
    folder.mkdir(parents=True)
    content = bytearray(last.read_bytes())
    with zipfile.ZipFile(last) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
        content[content.index(archive.read(largest)) + 8] ^= 1
    (folder / PREVIOUS).write_bytes(last.read_bytes())
    return place.resumed(last=bytes(content))


@says("cannot resume inside an epoch from …: it has …=N, this run N")
def _(place):
    return place.resumed(batch_size=1)


@says("Tried to step N times. The specified number of total steps is N")
def _(place):
    return place.pointcept("longer_run")


@says("cannot resume from …: its run has N optimizer steps, this one N")
def _(place):
    return place.resumed(epoch=4, eval_epoch=4)


# -- probe and report ----------------------------------------------------------------------------


def attach(place: Place, hook: object, *, labels: bool = True, **around: object) -> object:
    """A hook in a trainer of a tiny run."""
    for split in ("train", "val"):
        write_scans(place.path / "data", split, 1, labels=labels)
    config = open_run(write_config(place.path / "run", place.path / "data")).config
    return online.attach(hook, config, place.path / "run", **around)


@says("…: no scans there, expected the layout of …")
def _(place):
    return place.pointcept("no_scans_for_a_probe")


@says("split '…': there is no sample folder in …")
def _(place):
    hook = attach(place, OnlineProbe(train_split="few.json", **online.SMALL))
    (place.path / "data/few.json").write_text("[]")
    hook.before_train()


@says("OnlineProbe: … have no labels, a probe needs segment.npy with classes from 0")
def _(place):
    attach(place, OnlineProbe(**online.SMALL), labels=False).before_train()


@says("OnlineProbe stands before …, move it to the end of the list")
def _(place):
    attach(place, OnlineProbe(), after=[online.PretrainedLoader()]).before_train()


@says("save_best of OnlineProbe copies what CheckpointSaver writes: put the hook after")
def _(place):
    attach(place, OnlineProbe(save_best=True)).before_train()


@says("No probe while training: …")
def _(place):
    attach(place, OnlineProbe(required=False, **online.SMALL), labels=False).before_train()


def spoiled(hook: object) -> None:
    """The end of an epoch whose features are NaN."""
    hook.before_train()
    hook.before_epoch()
    for parameter in hook.trainer.model.student.parameters():
        parameter.data.fill_(torch.nan)
    hook.after_epoch()


@says("OnlineProbe: no probe of epoch N: …")
def _(place):
    spoiled(attach(place, OnlineProbe(every=1, **online.SMALL)))


@says("FeaturePicture: no picture of epoch N: …")
def _(place):
    spoiled(attach(place, FeaturePicture(every=1)))


@says("…: nothing of a run there, expected config.py")
def _(place):
    assert cli.main(["report", str(place.path)]) == 2
    return place.screen()


# -- detection -----------------------------------------------------------------------------------


@says("needs MMDetection3D 1.4, and … is not there")
def _(place):
    package = "dos_plugin.detection.mmdet3d"
    for name in (package, f"{package}.preprocessor"):
        place.patch.delitem(sys.modules, name, raising=False)
    for name in {"mmdet3d", *(m for m in sys.modules if m.startswith("mmdet3d."))}:
        place.patch.setitem(sys.modules, name, None)
    importlib.import_module(package)


@says("mmcv is there without its compiled operators (mmcv-lite)")
def _(place):
    package = "dos_plugin.detection.mmdet3d"

    def without(name: str) -> None:
        raise ModuleNotFoundError("No module named 'mmcv._ext'", name="mmcv._ext")

    encoder = types.ModuleType("encoder")
    encoder.__getattr__ = without
    place.patch.delitem(sys.modules, package, raising=False)
    place.patch.setitem(sys.modules, f"{package}.encoder", encoder)
    importlib.import_module(package)


@says("strength_scale=…: strength of … goes from … to …, expected 0 to 1 as in the pretraining")
def _(place):
    root = detection.write_streets(place.path, dict(train=1))
    file = root / "train/scene-0/strength.npy"
    np.save(file, 255 * np.load(file))
    detection.dataset(root)[0]


@says(
    "point_cloud_range: … holds … cells of grid_size * stride = …, expected a whole number of them"
)
def _(place):
    detection.model(grid=dict(detection.GRID, point_cloud_range=(-12.5, *detection.RANGE[1:])))


@says("grid_coord: a point lies … m from the middle of its voxel of … m")
def _(place):
    batch = detection.batch_of(detection.write_streets(place.path, dict(train=2)))
    cells = batch["grid_coord"]
    detection.model()(dict(batch, grid_coord=cells - cells.min(0).values))


@says("….transform: RandomRotate moves points and leaves their boxes where they were")
def _(place):
    net = detection.model()
    config = host.HOST.Config.fromfile(str(config_path(detection.NAME)))
    config.data.train.transform[0].type = "RandomRotate"
    net.trainer = SimpleNamespace(cfg=config)
    net.before_train()


@says("the batch lacks boxes, …: Collect needs keys boxes and box_labels")
def _(place):
    batch = detection.batch_of(detection.write_streets(place.path, dict(train=2)))
    detection.model()({key: value for key, value in batch.items() if "box" not in key})


def pretrained(place: Place, transform: object = detection.PRETRAINING) -> Path:
    """A checkpoint with a student's PT-v3m2 and the config beside it."""
    backbone = host.HOST.build_model(detection.BACKBONES["PT-v3m2"])
    state = {f"student.backbone.{k}": v for k, v in backbone.state_dict().items()}
    torch.save(dict(epoch=1, state_dict=state), place.path / "dos.pth")
    config = f"data = {dict(train=dict(transform=transform))}"
    (place.path / "config.py").write_text(config)
    return place.path / "dos.pth"


@says("… does not fit …: N of N entries match")
def _(place):
    detection.load(detection.model("SpUNet-v1m1"), pretrained(place))


@says("features: the detector has …, the pretraining in … strength, …")
def _(place):
    grid_sample, collect = detection.PRETRAINING
    other = dict(collect, view1_feat_keys=("view1_strength", "view1_coord"))
    detection.load(detection.model(), pretrained(place, [grid_sample, other]))


@says("grid_size: the detector has voxels of … m, the pretraining in … had … m")
def _(place):
    grid_sample, collect = detection.PRETRAINING
    other = dict(grid_sample, grid_size=0.05)
    detection.load(detection.model(), pretrained(place, [other, collect]))
