"""Backbones of the active host as they stand beside a training: frozen, the same each time."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dos_plugin.host import active_host
from dos_plugin.messages import some

# Whose backbone: a network of a pretraining, or that of a segmentor.
Branch = Literal["student", "teacher", "segmentor"]
# Those of a pretraining.
BRANCHES: tuple[Branch, ...] = ("student", "teacher")

# Backbones of the host that order points along curves, by what their names begin with.
SERIALIZED = ("PT-v3", "LitePT")

# The first layer of a backbone, whose last dimension counts the input channels, and whose it is.
STEMS = {
    "embedding.stem.conv.weight": "PT-v3m1",
    "embedding.stem.linear.weight": "PT-v3m2",
    "conv_input.0.weight": "SpUNet-v1m1",
}


def build_backbone(
    config: Any, branch: Branch = "student", device: str | torch.device | None = None
) -> nn.Module:
    """The backbone of a config, without drop path and shuffled orders, to run on a device.

    Raises:
        ValueError: if the config has no ``model.backbone``.
    """
    model = config.get("model") or {}
    if not isinstance(model.get("backbone"), Mapping):
        raise ValueError(
            "model.backbone: missing in the config, expected that of a DOS pretraining or of a "
            "segmentation run"
        )
    backbone = runnable(model["backbone"], device)
    if branch == "teacher":
        backbone.update(model.get("teacher_custom") or {})
    if "drop_path" in backbone or str(backbone["type"]).startswith(SERIALIZED):
        backbone["drop_path"] = 0.0
    return keep_orders(active_host().build_model(backbone))


def keep_orders(backbone: nn.Module, inside: nn.Module | None = None) -> nn.Module:
    """Let PTv3 or LitePT order a cloud the same way each time; returns the backbone.

    They permute their curves in eval mode too, at the input and (whatever the option says) at every
    pooling, so that two passes give two results.

    Args:
        backbone: the backbone, of which the input's order is kept.
        inside: the part of which the poolings' orders are kept, too; None is all of it.
    """
    for module in (backbone, *(backbone if inside is None else inside).modules()):
        if isinstance(getattr(module, "shuffle_orders", None), bool):
            module.shuffle_orders = False  # type: ignore[assignment]
    return backbone


def kept_orders(backbone: Mapping[str, Any]) -> dict[str, Any]:
    """A backbone's config that keeps the order of its input, as far as a config can say so."""
    has = "shuffle_orders" in backbone or str(backbone.get("type")).startswith(SERIALIZED)
    return {**backbone, **({"shuffle_orders": False} if has else {})}


def shuffles_at_poolings(backbone: Mapping[str, Any]) -> bool:
    """Whether the host's model of a config permutes curves in eval mode whatever its options say.

    PTv3 and LitePT do so at every pooling, where they have several curves: no option reaches them.
    """
    order = backbone.get("order", ("z", "z-trans"))
    several = not isinstance(order, str) and len(order) > 1
    return str(backbone.get("type")).startswith(SERIALIZED) and several


def runnable(
    backbone: Mapping[str, Any], device: str | torch.device | None = None
) -> dict[str, Any]:
    """A backbone's config as a device can run it: flash attention only where there is any.

    LitePT has no option for it, and says so itself where there is none. The weights do not depend
    on it, and the features only by rounding: flash is in half precision. The device is the GPU if
    there is one, unless it is given.
    """
    backbone = dict(backbone)
    gpu = torch.cuda.is_available() and torch.device(device or "cuda").type == "cuda"
    flash = gpu and importlib.util.find_spec("flash_attn") is not None
    if str(backbone.get("type")).startswith("PT-v3") and not flash:
        backbone["enable_flash"] = False
    return backbone


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict and accept no difference.

    Raises:
        ValueError: naming missing, unexpected and differently shaped entries.
    """
    own = module.state_dict()
    missing = sorted(own.keys() - state.keys())
    unexpected = sorted(state.keys() - own.keys())
    shapes = [
        f"{key} {tuple(state[key].shape)} for {tuple(own[key].shape)}"
        for key in sorted(own.keys() & state.keys())
        if state[key].shape != own[key].shape
    ]
    parts = (("missing", missing), ("unexpected", unexpected), ("other shape", shapes))
    faults = [f"{len(keys)} {what}: {some(keys)}" for what, keys in parts if keys]
    if faults:
        raise ValueError(f"{source}: does not fit {type(module).__name__}; {'; '.join(faults)}")
    module.load_state_dict(state)


def eval_under_autocast(module: nn.Module) -> None:
    """Eval mode for a part of a model that trains in mixed precision.

    Sparse convolutions of spconv cast what they get as autocast says in training mode alone; in
    eval mode they run in float32, which is slow, or find no kernel for what others have cast. They
    have no state that training changes, so they are left in training mode.
    """
    module.eval()
    conv = sys.modules.get("spconv.pytorch.conv")  # if there is one, its backbone imported it
    if conv is not None:
        for part in module.modules():
            if isinstance(part, conv.SparseConvolution):
                part.training = True


def frozen(module: nn.Module) -> nn.Module:
    """The module in eval mode, without gradients."""
    return module.eval().requires_grad_(False)
