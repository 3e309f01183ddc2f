"""Run by test_registration_pointcept.py on the real host: registration in every kind of process.

usage: python -m dos_plugin.cpu registration_checks.py CONFIG RUN SPUNET_RUN PROBE SCRATCH

CONFIG is a pretraining config, the RUNs are folders with a dumped config and its checkpoint, PROBE
is the config of a linear probe.

Prints one JSON object. Children get pickled objects only: they import nothing by themselves but
this module and what unpickling imports.
"""

import json
import pickle
import random
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch


def in_child(rank: int, config: object, path: str) -> None:
    """What a spawned child of the host's launcher does first: build the model of its config."""
    from pointcept.models.builder import build_model

    Path(path).write_text(type(build_model(config.model)).__name__)


def spawned(config: object, path: str) -> str:
    torch.multiprocessing.spawn(in_child, args=(config, path), nprocs=1)
    return Path(path).read_text()


def workers(config: object, method: str) -> list[str]:
    """Keys of a batch from a data-loader worker."""
    from pointcept.datasets import build_dataset
    from pointcept.datasets.utils import point_collate_fn

    loader = torch.utils.data.DataLoader(
        build_dataset(config.data.train),
        batch_size=2,
        num_workers=1,
        collate_fn=point_collate_fn,
        multiprocessing_context=method,
    )
    return sorted(next(iter(loader)))


SONATA = dict(
    head_in_channels=72,
    head_hidden_channels=16,
    head_embed_channels=8,
    head_num_prototypes=16,
)
SMALL = dict(
    enc_depths=(1, 1, 1, 1, 1),
    enc_channels=(6, 12, 24, 24, 24),
    enc_num_head=(1, 2, 4, 4, 4),
    enc_patch_size=(64, 64, 64, 64, 64),
)


def sonata_losses() -> list[float]:
    """Losses of two optimizer steps of Sonata's own config, made small."""
    from pointcept.datasets.transform import Compose
    from pointcept.datasets.utils import point_collate_fn
    from pointcept.models.builder import build_model
    from pointcept.utils.config import Config
    from pointcept.utils.optimizer import build_optimizer

    config = Config.fromfile("configs/sonata/pretrain-sonata-v1m1-0-base.py")
    config.model.update(SONATA)
    config.model.backbone.update(SMALL)
    np.random.seed(0)
    random.seed(0)
    torch.manual_seed(0)
    transform = Compose(config.data.train.datasets[0].transform)
    samples = []
    for number in range(2):
        scene = dict(
            coord=np.random.uniform(0, 3, (600, 3)).astype(np.float32),
            color=np.random.uniform(0, 255, (600, 3)).astype(np.float32),
            normal=np.tile(np.float32([0, 0, 1]), (600, 1)),
            name=f"scene{number}",
        )
        samples.append(transform(scene))
    batch = point_collate_fn(samples)
    model = build_model(config.model).train()
    optimizer = build_optimizer(config.optimizer, model, config.param_dicts)
    model.trainer = SimpleNamespace(
        cfg=SimpleNamespace(scheduler=SimpleNamespace(total_steps=4)),
        train_loader=[None] * 2,
        start_epoch=0,
        writer=None,
        comm_info={},
    )
    model.before_train()
    losses = []
    for step in range(2):
        model.trainer.comm_info["iter"] = step
        model.before_step()
        optimizer.zero_grad()
        loss = model(dict(batch))["loss"]
        loss.backward()
        optimizer.step()
        model.after_step()
        losses.append(float(loss))
    return losses


class Recorder(torch.nn.Module):
    """Passes ``load_state_dict`` on and remembers what it said; the host logs only half of it."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def load_state_dict(self, state, strict=True):
        self.said = self.model.load_state_dict(state, strict=strict)
        return self.said


def loading(probe: object, backbone: dict, weight: str) -> dict:
    """Load a pretrained backbone into a segmentor of the host through a hook of the host."""
    from pointcept.engines.hooks.builder import build_hooks
    from pointcept.models.builder import build_model

    model = dict(probe.model, type="DefaultSegmentorV2", backbone=backbone)
    if backbone["type"].startswith("SpUNet"):
        model["backbone_out_channels"] = backbone["channels"][-1]
    recorder = Recorder(build_model(model))
    names = dict(keywords="module.student.backbone", replacement="module.backbone")
    (hook,) = build_hooks([dict(type="CheckpointLoader", **names)])
    logger = SimpleNamespace(info=lambda text: None)
    hook.trainer = SimpleNamespace(
        cfg=SimpleNamespace(weight=weight, resume=False), model=recorder, logger=logger
    )
    hook.before_train()
    missing, unexpected = recorder.said
    saved = torch.load(weight, weights_only=False)["state_dict"]
    student = {
        k[len("student.backbone.") :]: v for k, v in saved.items() if "student.backbone" in k
    }
    loaded = recorder.model.backbone.state_dict()
    return dict(
        missing=missing,
        unexpected=[key for key in unexpected if key.startswith("backbone.")],
        equal=student.keys() == loaded.keys()
        and all(torch.equal(student[key], loaded[key]) for key in student),
        tensors=len(loaded),
    )


def main(config_path: str, run: str, spunet_run: str, probe_path: str, scratch: str) -> None:
    from pointcept.models.builder import MODELS
    from pointcept.utils.config import Config

    answer: dict = dict(sonata_before=sonata_losses(), known_before="DOS-v1m1" in MODELS)
    config = Config.fromfile(config_path)
    answer.update(known_after="DOS-v1m1" in MODELS, sonata_after=sonata_losses())
    dumped = Config.fromfile(f"{run}/config.py")
    answer["copied"] = pickle.loads(pickle.dumps(dumped)).pretty_text == dumped.pretty_text
    answer["fresh"] = spawned(config, f"{scratch}/fresh")
    answer["dumped"] = spawned(dumped, f"{scratch}/dumped")
    answer["workers"] = {method: workers(dumped, method) for method in ("fork", "spawn")}
    probe = Config.fromfile(probe_path)
    for folder in (run, spunet_run):
        backbone = Config.fromfile(f"{folder}/config.py").model.backbone
        answer[backbone.type] = loading(probe, backbone, f"{folder}/model/model_last.pth")
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
