"""Learning rates by depth, where MMEngine makes the optimizer."""

from __future__ import annotations

from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from dos_plugin.detection.encoder import BEVEncoder
from dos_plugin.detection.rates import layer_scales


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class DOSOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """The host's, with one more entry in ``paramwise_cfg``.

    ``layer_decay``: factor of the learning rate from a layer of the DOS backbone to the one before
    it; the detector around it keeps the rate of the optimizer.

    Raises:
        ValueError: Without ``layer_decay``, or where the model has no ``DOSMiddleEncoder``.
    """

    paramwise_cfg: dict[str, Any] | None

    def __call__(self, model: nn.Module) -> OptimWrapper:
        options: dict[str, Any] = dict(self.paramwise_cfg or {})
        if "layer_decay" not in options:
            raise ValueError(
                "optim_wrapper.paramwise_cfg: DOSOptimWrapperConstructor expects layer_decay in "
                f"it, got {sorted(options)}"
            )
        decay = options.pop("layer_decay")
        keys: dict[str, dict[str, float]] = {}
        for name, module in model.named_modules():
            if isinstance(module, BEVEncoder):
                scales = layer_scales((key for key, _ in module.backbone.named_parameters()), decay)
                name = name.removeprefix("module.")
                keys |= {f"{name}.backbone.{k}": dict(lr_mult=s) for k, s in scales.items()}
        if not keys:
            raise ValueError(
                f"optim_wrapper.constructor: {type(model).__name__} has no DOSMiddleEncoder, whose "
                "layers DOSOptimWrapperConstructor is for"
            )
        self.paramwise_cfg = {**options, "custom_keys": {**options.get("custom_keys", {}), **keys}}
        return super().__call__(model)
