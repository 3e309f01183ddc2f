"""Importing this module registers DOS in the active host, here and in spawned processes.

Configs name it in ``custom_imports``. A host that trains on several GPUs spawns children, which
import the host anew but never read the config file: they unpickle the config object. So config
objects are pickled with a reference to this module, and unpickling one registers the child, and
imports what else ``custom_imports`` names.
"""

import copyreg
import importlib
from typing import Any

from dos_plugin.detection.native.dataset import BoxDataset, NuScenesBoxDataset
from dos_plugin.detection.native.evaluator import DetectionEvaluator
from dos_plugin.detection.native.load import DetectionLoader
from dos_plugin.detection.native.model import CenterPoint
from dos_plugin.detection.native.tester import DetectionTester
from dos_plugin.detection.native.transforms import (
    BoxFlip,
    BoxRangeFilter,
    BoxRotate,
    BoxScale,
    BoxTranslate,
    RangeVoxels,
)
from dos_plugin.hooks.feature_picture import FeaturePicture
from dos_plugin.hooks.guard import NonFiniteGuard
from dos_plugin.hooks.load import PretrainedLoader
from dos_plugin.hooks.monitor import PrototypeMonitor
from dos_plugin.hooks.online_probe import OnlineProbe
from dos_plugin.hooks.resume import ExactResume
from dos_plugin.hooks.weight_decay import StepWeightDecay
from dos_plugin.host import HOST
from dos_plugin.method import ZipfSinkhorn
from dos_plugin.models.dos import DOS
from dos_plugin.models.segmentor import Segmentor
from dos_plugin.transforms.masking import BlockMask
from dos_plugin.transforms.views import Height, PointId, TwoViews

# What enters the host's registries, by registry and name.
COMPONENTS: dict[str, dict[str, type]] = {
    "MODELS": {
        "DOS-v1m1": DOS,
        "DOS-Segmentor-v1m1": Segmentor,
        "DOS-CenterPoint-v1m1": CenterPoint,
    },
    "MODULES": {"ZipfSinkhorn": ZipfSinkhorn},
    "TRANSFORMS": {
        "PointId": PointId,
        "TwoViews": TwoViews,
        "Height": Height,
        "BlockMask": BlockMask,
        "BoxRotate": BoxRotate,
        "BoxFlip": BoxFlip,
        "BoxScale": BoxScale,
        "BoxTranslate": BoxTranslate,
        "BoxRangeFilter": BoxRangeFilter,
        "RangeVoxels": RangeVoxels,
    },
    "DATASETS": {"DOS-BoxDataset": BoxDataset, "DOS-NuScenesBoxDataset": NuScenesBoxDataset},
    "HOOKS": {
        "ExactResume": ExactResume,
        "PretrainedLoader": PretrainedLoader,
        "NonFiniteGuard": NonFiniteGuard,
        "StepWeightDecay": StepWeightDecay,
        "PrototypeMonitor": PrototypeMonitor,
        "OnlineProbe": OnlineProbe,
        "FeaturePicture": FeaturePicture,
        "DetectionLoader": DetectionLoader,
        "DetectionEvaluator": DetectionEvaluator,
    },
    "TESTERS": {"DetectionTester": DetectionTester},
}


def register() -> None:
    """Enter all components into the host's registries; doing it again changes nothing.

    Raises:
        KeyError: If a name is taken by another class.
    """
    for registry_name, classes in COMPONENTS.items():
        registry = getattr(HOST, registry_name)
        for name, cls in classes.items():
            present = registry.module_dict.get(name)
            if present is None:
                registry.register_module(name)(cls)
            elif present is not cls:
                raise KeyError(
                    f"{name!r} in {registry_name} of host {HOST.name!r} is taken by "
                    f"{present.__module__}.{present.__qualname__}, cannot register "
                    f"{cls.__module__}.{cls.__qualname__}"
                )


def _rebuild_config(cls: Any, state: Any) -> Any:
    config = cls.__new__(cls)
    config.__setstate__(state)
    imports = config.get("custom_imports") or {}
    names = imports.get("imports") or []
    for name in [names] if isinstance(names, str) else names:
        try:
            importlib.import_module(name)
        except ImportError:  # the process that read the file has warned, where it is allowed
            if not imports.get("allow_failed_imports"):
                raise
    return config


def _reduce_config(config: Any) -> tuple:
    return _rebuild_config, (type(config), config.__getstate__())


register()
copyreg.pickle(HOST.Config, _reduce_config)
