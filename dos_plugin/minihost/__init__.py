"""The embedded host: enough of Pointcept's contract to train ``configs/dos`` without Pointcept.

It runs the same config files, on a CPU or on CUDA, with mmengine's registries and config. Names,
arguments and results are the real host's; what is left out says so when it is asked for.
"""

import os

from mmengine.config import Config

from .backbones import BACKBONES
from .collate import collate_fn, point_collate_fn
from .config import OptionsAction as DictAction
from .config import load_config, setup_config
from .datasets import ConcatDataset, DefaultDataset
from .datasets_lidar import NuScenesDataset, SemanticKITTIDataset, WaymoDataset
from .datasets_scannet import ScanNet200Dataset, ScanNetDataset
from .hooks import (
    CheckpointLoader,
    CheckpointSaver,
    HookBase,
    InformationWriter,
    IterationTimer,
    ModelHook,
    SemSegEvaluator,
    WeightDecaySchedular,
)
from .losses import CrossEntropyLoss, LovaszLoss, build_criteria
from .modules import PointModel
from .point import Point
from .registry import (
    DATASETS,
    HOOKS,
    LOSSES,
    MODELS,
    MODULES,
    OPTIMIZERS,
    SCHEDULERS,
    TESTERS,
    TRAINERS,
    TRANSFORMS,
    build_dataset,
    build_model,
)
from .tester import TesterBase
from .trainer import Trainer
from .transforms import Compose

__all__ = [
    "DATASETS",
    "HOOKS",
    "LOSSES",
    "MODELS",
    "MODULES",
    "OPTIMIZERS",
    "SCHEDULERS",
    "TESTERS",
    "TRAINERS",
    "TRANSFORMS",
    "CheckpointLoader",
    "CheckpointSaver",
    "Compose",
    "ConcatDataset",
    "Config",
    "CrossEntropyLoss",
    "DefaultDataset",
    "DictAction",
    "HookBase",
    "InformationWriter",
    "IterationTimer",
    "LovaszLoss",
    "ModelHook",
    "NuScenesDataset",
    "Point",
    "PointModel",
    "ScanNet200Dataset",
    "ScanNetDataset",
    "SemSegEvaluator",
    "SemanticKITTIDataset",
    "TesterBase",
    "Trainer",
    "WaymoDataset",
    "WeightDecaySchedular",
    "build_criteria",
    "build_dataset",
    "build_model",
    "collate_fn",
    "load_config",
    "point_collate_fn",
    "setup_config",
]

# oneDNN keeps up to 1024 compiled kernels, one for each shape; no two point clouds have the same,
# and a process grew by gigabytes. Read when oneDNN is first used.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")

for _name, _backbone in BACKBONES.items():
    MODELS.register_module(name=_name, module=_backbone)
