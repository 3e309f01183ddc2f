"""Rows about the model: build it, and take one step on a made-up batch."""

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from dos_plugin.commands.doctor.rows import Row
from dos_plugin.host import HOST

OCNN = "Pointcept v1.6.0 runs its PTv3 only beside ocnn: pip install ocnn"


def step_rows(cfg: Any, samples: list[dict], num_gpus: int) -> Iterator[Row]:
    """Forward and backward of DOS or of a segmentor of the host; other models are only built.

    Args:
        cfg: The config.
        samples: What the training transforms make of some made-up scenes.
        num_gpus: Processes it shall run on.
    """
    cuda = torch.cuda.is_available()
    dtype = torch.float16 if cfg.get("amp_dtype") == "float16" else torch.bfloat16
    torch.manual_seed(0)
    start = time.time()
    try:
        model: Any = HOST.build_model(cfg.model)
        size = f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters"
        if not str(cfg.model.type).startswith(("DOS-", "Default")):
            yield Row("ok", "model", f"builds, {size}")
            return
        model.to("cuda" if cuda else "cpu").train()
        batch = {k: _to(v, cuda) for k, v in collate(samples).items()}
        with torch.autocast("cuda", dtype, enabled=cuda and bool(cfg.get("enable_amp"))):
            loss = model(batch)["loss"]
        loss.backward()
    except Exception as error:
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        yield Row("missing", "model", text, OCNN if "'nn'" in text else "correct the model")
        return
    seconds = time.time() - start
    yield Row(
        "ok", "model", f"{size}; one step on a made-up batch: loss {loss:.3f}, {seconds:.0f} s"
    )
    unused = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    if unused and not cfg.get("find_unused_parameters"):
        yield Row(
            "missing" if num_gpus > 1 else "warn",
            "unused",
            f"{len(unused)} parameters get no gradient ({unused[0]}, ...): several GPUs would stop",
            "remove what is unused from the model, or --options find_unused_parameters=True",
        )


def collate(samples: list[dict]) -> dict[str, Any]:
    """A batch as the host's collate function would make it of these samples."""
    batch: dict[str, Any] = {}
    for key in samples[0]:
        values = [sample[key] for sample in samples]
        if not isinstance(values[0], Tensor):
            numbers = isinstance(values[0], (int, float))
            batch[key] = torch.tensor(values, dtype=torch.float64) if numbers else values
        elif "offset" in key:
            batch[key] = torch.cat(values).cumsum(0)
        else:
            batch[key] = torch.cat(values)
    return batch


def _to(value: Any, cuda: bool) -> Any:
    return value.cuda() if cuda and isinstance(value, Tensor) else value
