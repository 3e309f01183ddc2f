"""Small runs of every backbone that can be exported, never trained."""

from pathlib import Path

import torch

from dos_plugin.runs.run import Run, active_host
from tests.small_backbones import SMALL, UNET
from tests.tiny_run import write_config

ORDERS = ("z", "hilbert-trans", "z-trans", "hilbert")
BACKBONES = {
    "m1": dict(SMALL, type="PT-v3m1", in_channels=2, order=ORDERS, enc_mode=True),
    "m1-decoder": dict(SMALL, type="PT-v3m1", in_channels=2, order=ORDERS),
    "m2": dict(SMALL, type="PT-v3m2", in_channels=2, order=ORDERS, enc_mode=True),
    "m2-decoder": dict(SMALL, type="PT-v3m2", in_channels=2, order="hilbert"),
    "m2-rpe": dict(SMALL, type="PT-v3m2", in_channels=2, enc_mode=True, enable_rpe=True),
    "m2-token": dict(SMALL, type="PT-v3m2", in_channels=2, enc_mode=True, mask_token=True),
    "spunet": dict(UNET, type="SpUNet-v1m1", in_channels=2),
}


def make_run(root: Path, backbone: dict, data: Path | None = None, **changes) -> Run:
    """A run with random weights and statistics, whose teacher is not its student."""
    config = active_host().Config.fromfile(str(write_config(root, data or root / "data")))
    model = {**config.model, "backbone": backbone, "up_cast_level": 0, **changes}
    if backbone["type"].startswith("SpUNet"):
        model["backbone_out_channels"] = backbone["channels"][-1]
    elif backbone.get("enc_mode"):
        model["backbone_out_channels"] = backbone["enc_channels"][-1]
    else:
        model["backbone_out_channels"] = backbone["dec_channels"][0]
    if backbone.get("mask_token"):
        model["student_input"] = "mask_token"
    config.model = model
    config.dump(str(root / "config.py"))
    torch.manual_seed(0)
    built = active_host().build_model(config.model)
    with torch.no_grad():
        for name, buffer in built.named_buffers():
            if buffer.is_floating_point():
                buffer.uniform_(*((-0.1, 0.1) if name.endswith("mean") else (0.5, 1.5)))
        for parameter in built.parameters():
            if parameter.ndim == 5:  # else little of the input gets through SpUNet
                parameter.mul_(5)
        for parameter in built.teacher.parameters():
            parameter.mul_(1.1)
    path = root / "model" / "model_last.pth"
    path.parent.mkdir(exist_ok=True)
    state = {f"module.{key}": value for key, value in built.state_dict().items()}
    torch.save(dict(epoch=3, state_dict=state, optimizer={}), path)
    return Run(config, root / "config.py", path)
