"""A toy training that runs on both hosts: data, config, and a plugin module for custom_imports.

As a module of ``custom_imports`` it registers, in the active host, the model ``Toy-v1`` and the
hooks ``Recorder``, which writes the order of events to ``<save_path>/events.json``, and ``Losses``,
which adds a line for each batch to ``<save_path>/losses.jsonl``, so that killed runs leave theirs.
"""

import json
import time
from pathlib import Path

import numpy as np

CONFIG = """
custom_imports = dict(imports=["toy_training"], allow_failed_imports=False)
weight = None
resume = False
evaluate = False
seed = 3
save_path = {save_path!r}
num_worker = 1
batch_size = 2
gradient_accumulation_steps = 2
batch_size_val = None
batch_size_test = None
epoch = 4
eval_epoch = 2
clip_grad = 3.0
sync_bn = False
enable_amp = False
amp_dtype = "bfloat16"
empty_cache = False
empty_cache_per_epoch = False
find_unused_parameters = False
enable_wandb = False
mix_prob = 0
param_dicts = [dict(keyword="head", lr=0.005)]
model = dict(type="Toy-v1", channels=8)
optimizer = dict(type="AdamW", lr=0.01, weight_decay=0.04)
scheduler = dict(type="OneCycleLR", max_lr=[0.01, 0.005], pct_start=0.5, div_factor=10.0,
                 final_div_factor=100.0)
transform = [
    dict(type="CenterShift", apply_z=True),
    dict(type="RandomRotate", angle=[-1, 1], axis="z", center=[0, 0, 0], p=0.8),
    dict(type="RandomJitter", sigma=0.005, clip=0.02),
    dict(type="GridSample", grid_size=0.5, hash_type="fnv", mode="train", return_grid_coord=True),
    dict(type="ToTensor"),
    dict(type="Update", keys_dict=dict(grid_size=0.5)),
    dict(type="Collect", keys=("coord", "grid_coord", "grid_size", "name"),
         feat_keys=("coord", "strength")),
]
data = dict(train=dict(type="DefaultDataset", split="train", data_root={data_root!r},
                       transform=transform, test_mode=False, loop=1))
hooks = [
    dict(type="CheckpointLoader"),
    dict(type="ModelHook"),
    dict(type="WeightDecaySchedular", base_value=0.04, final_value=0.2),
    dict(type="IterationTimer", warmup_iter=1),
    dict(type="InformationWriter"),
    dict(type="CheckpointSaver", save_freq=1),
    dict(type="Recorder"),
]
train = dict(type="DefaultTrainer")
"""


def write_scene(folder: Path, points: int = 120, seed: int = 0, **arrays: np.ndarray) -> None:
    """Write coord.npy and strength.npy, or other arrays instead."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    scene = dict(
        coord=rng.uniform(-4, 4, (points, 3)).astype(np.float32),
        strength=rng.random((points, 1)).astype(np.float32),
    )
    for name, array in {**scene, **arrays}.items():
        np.save(folder / f"{name}.npy", array)


def write_training(folder: Path, scenes: int = 4) -> Path:
    """Write data and config below a folder; returns the config's path. Saves to folder/run."""
    for number in range(scenes):
        write_scene(folder / "data/train" / f"scene{number}", points=120 + number, seed=number)
    path = folder / "toy.py"
    text = CONFIG.format(save_path=str(folder / "run"), data_root=str(folder / "data"))
    path.write_text(text)
    return path


def register() -> None:
    """Enter model and hook into the active host."""
    import torch
    from torch import nn

    from dos_plugin.hooks.watch import rank
    from dos_plugin.host import HOST

    if "Toy-v1" in HOST.MODELS.module_dict:
        return

    @HOST.MODELS.register_module("Toy-v1")
    class Toy(HOST.PointModel):
        """Random on purpose: dropout and a random number in the loss.

        Args:
            ballast: numbers of a buffer, so that writing a checkpoint takes its time.
            poison: batches, counted from 0, whose loss is not a number.
            poisoned: the rank where that is so.
        """

        def __init__(
            self, channels: int, ballast: int = 0, poison: tuple = (), poisoned: int = 0
        ) -> None:
            super().__init__()
            if ballast:
                self.register_buffer("ballast", torch.zeros(ballast))
            self.poison, self.seen = poison if rank() == poisoned else (), 0
            self.body = nn.Sequential(nn.Linear(4, channels), nn.ReLU(), nn.Dropout(0.5))
            self.head = nn.Linear(channels, 1)
            self.calls = []

        def before_train(self):
            self.calls.append("before_train")

        def after_step(self):
            self.calls.append("after_step")

        def forward(self, batch):
            if not torch.isfinite(batch["feat"]).all():
                raise ValueError("feat is not finite")
            height = self.head(self.body(batch["feat"])).float()
            noise = 0.1 * torch.rand((), device=height.device)
            error = (height - batch["coord"][:, 2:]).square().mean()
            if self.seen in self.poison:
                error = error * torch.nan
            self.seen += 1
            return dict(loss=error + noise, error=error.detach())

    @HOST.HOOKS.register_module("Recorder")
    class Recorder(HOST.HookBase):
        """Notes every event with what the trainer shows at that moment."""

        def note(self, event: str, **facts) -> None:
            self.events.append(dict(event=event, **facts))

        def before_train(self):
            trainer = self.trainer
            self.events = []
            groups = [len(group["params"]) for group in trainer.optimizer.param_groups]
            self.note(
                "before_train",
                start_epoch=trainer.start_epoch,
                max_epoch=trainer.max_epoch,
                batches=len(trainer.train_loader),
                samples=len(trainer.train_loader.dataset),
                total_steps=trainer.cfg.scheduler.total_steps,
                groups=groups,
                has_scaler=trainer.scaler is not None,
                has_val_loader=trainer.val_loader is not None,
            )

        def before_epoch(self):
            trainer = self.trainer
            self.note("before_epoch", epoch=trainer.epoch, training=trainer.model.training)

        def before_step(self):
            batch = self.trainer.comm_info["input_dict"]
            self.note(
                "before_step",
                iter=self.trainer.comm_info["iter"],
                keys=sorted(batch),
                names=batch["name"],
                weight=self.weight(),
                decay=self.trainer.optimizer.param_groups[1]["weight_decay"],
            )

        def after_step(self):
            output = self.trainer.comm_info["model_output_dict"]
            self.note(
                "after_step",
                iter=self.trainer.comm_info["iter"],
                output=sorted(output),
                loss=output["loss"].item(),
                average=self.trainer.storage.history("loss").avg,
                weight=self.weight(),
                lr=[group["lr"] for group in self.trainer.optimizer.param_groups],
            )

        def after_epoch(self):
            self.note("after_epoch", epoch=self.trainer.epoch)

        def after_train(self):
            calls = self.trainer.model.calls
            self.note("after_train", calls=calls)
            path = Path(self.trainer.cfg.save_path) / "events.json"
            path.write_text(json.dumps(self.events))

        def weight(self) -> float:
            return weight_sum(self.trainer)

    def weight_sum(trainer) -> float:
        return getattr(trainer.model, "module", trainer.model).head.weight.sum().item()

    @HOST.HOOKS.register_module("Losses")
    class Losses(HOST.HookBase):
        """A line for each batch: place, scenes, exact loss, learning rate and weight decay.

        Args:
            pause: seconds to wait after each batch, so that a kill finds a run under way.
        """

        def __init__(self, pause: float = 0) -> None:
            self.pause = pause

        def after_step(self):
            trainer = self.trainer
            group = trainer.optimizer.param_groups[0]
            output = trainer.comm_info["model_output_dict"]
            line = dict(
                place=[trainer.epoch, trainer.comm_info["iter"]],
                names=sorted(trainer.comm_info["input_dict"]["name"]),
                loss=output["loss"].item().hex() if "loss" in output else None,
                lr=group["lr"],
                decay=group["weight_decay"],
                weight=weight_sum(trainer),
            )
            name = f"losses{rank() or ''}.jsonl"
            with (Path(trainer.cfg.save_path) / name).open("a") as file:
                file.write(json.dumps(line) + "\n")
            time.sleep(self.pause)


register()
