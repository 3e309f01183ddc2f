"""PretrainedLoader: weights for fine-tuning, loaded completely or not at all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from dos_plugin.host import HOST
from dos_plugin.runs.checkpoint import branch_state, read_state

BACKBONE = "backbone."
BRANCHES = ("student", "teacher")


class PretrainedLoader(HOST.HookBase):  # type: ignore[name-defined, misc]
    """Before training loads ``cfg.weight``; takes the place of the host's ``CheckpointLoader``.

    The file may be a DOS pretraining, of which the backbone is taken, or a segmentation run, of
    which everything is. With ``cfg.resume`` it hands over to the host's own loader, having checked
    that the file is of such a run. Without a weight it says that training starts from random
    weights; there is no other way for that to happen.

    Args:
        branch: Which network of a pretraining: ``"student"`` or ``"teacher"``.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is truncated or no checkpoint; holds no DOS model, or not this
            branch; if nothing of the backbone is in it, or tensors have other shapes, or a part
            of the backbone that it holds lacks tensors or has too many; if a part that it does
            not hold is frozen; or if ``resume`` is set and it is not of such a run.
    """

    def __init__(self, branch: str = "student") -> None:
        super().__init__()
        if branch not in BRANCHES:
            raise ValueError(f"branch must be one of {BRANCHES}, got {branch!r}")
        self.branch = branch

    def before_train(self) -> None:
        cfg, log = self.trainer.cfg, self.trainer.logger.info
        weight = None if cfg.weight in (None, "", "None") else cfg.weight  # --options weight=None
        if weight is None:
            if cfg.resume:
                raise ValueError("resume=True needs the run's checkpoint in weight, got none")
            log("weight is None: training starts from random weights")
            return
        model = self.trainer.model
        model = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
        state = read_state(weight)
        own = model.state_dict(keep_vars=True)
        if cfg.resume:
            differing = sorted(own.keys() ^ state.keys())
            if differing:
                raise ValueError(
                    f"resume=True, but {weight} is not of a run of this config: {_some(differing)} "
                    "are not in both; to start from it, set resume=False"
                )
            host_loader = HOST.HOOKS.build(dict(type="CheckpointLoader"))
            host_loader.trainer = self.trainer
            host_loader.before_train()
            return
        fit = fit_state(own, state, self.branch, weight)
        model.load_state_dict(fit.weight, strict=False)
        log(f"Loading weight at: {weight} ({fit.source})")
        log(f"Loaded {_some(list(fit.weight))}")
        log(f"Missing, they keep random weights: {_some(fit.missing)}")
        log(f"Unexpected, they are not used: {_some(fit.unexpected)}")


@dataclass
class Fit:
    """What of a checkpoint goes into a model.

    Attributes:
        source: what the checkpoint is.
        weight: tensors to load, by the model's names.
        missing: names of the model's tensors that stay as they are.
        unexpected: names in the checkpoint that the model has no use for.
    """

    source: str
    weight: dict[str, Tensor] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)


def fit_state(own: Mapping[str, Any], state: Mapping[str, Tensor], branch: str, file: Any) -> Fit:
    """Decide what of a checkpoint goes into a model.

    A part of the backbone (stem, encoder, decoder) may be missing as a whole, and is then trained
    from random weights, or be too much as a whole. The tensors of a part that both have must agree.

    Args:
        own: State dict of the model, with parameters and not their data.
        state: State dict of a pretraining or of a segmentation run, without ``module.``.
        branch: Which network of a pretraining.
        file: Name of the checkpoint for messages.

    Raises:
        ValueError: See :class:`PretrainedLoader`.
    """
    if any(key.startswith(tuple(f"{name}." for name in BRANCHES)) for key in state):
        fit = Fit(f"{branch} of a DOS pretraining")
        found = {BACKBONE + k: v for k, v in branch_state(state, branch, file).items()}
    elif any(key.startswith(BACKBONE) for key in state):
        fit = Fit("segmentation run")
        found = dict(state)
    else:
        tops = sorted({key.split(".")[0] for key in state})
        raise ValueError(
            f"weight: {file} holds no DOS model: expected keys student.backbone.*, "
            f"teacher.backbone.* or backbone.*, its keys start with {_some(tops)}"
        )
    names = [key for key in own if key.startswith(BACKBONE)]
    both = [key for key in names if key in found]
    parts, found_parts = ({_part(key) for key in keys} for keys in (names, found))
    missing = [key for key in names if key not in found]
    unexpected = [k for k in found if k.startswith(BACKBONE) and k not in own]
    faults = {
        "of another shape": [
            f"{key} {tuple(found[key].shape)}, model {tuple(own[key].shape)}"
            for key in both
            if found[key].shape != own[key].shape
        ],
        "missing in a part that it holds": [k for k in missing if _part(k) in found_parts],
        # a pretraining with mask tokens has this one more
        "not in the model": [
            k for k in unexpected if _part(k) in parts and not k.endswith(".mask_token")
        ],
        "missing, and frozen in the model": [
            k for k in missing if isinstance(own[k], nn.Parameter) and not own[k].requires_grad
        ],
    }
    if not both:
        faults = {"nothing of model.backbone is in it; the model has": names} | faults
    wrong = "; ".join(f"{what}: {_some(keys)}" for what, keys in faults.items() if keys)
    if wrong or not both:
        raise ValueError(
            f"weight: {file} ({fit.source}) does not fit model.backbone: {wrong}. Type, widths, "
            "depths and in_channels of model.backbone must be those of the checkpoint's config"
        )
    for key, value in own.items():
        if key in found and found[key].shape == value.shape:
            fit.weight[key] = found[key]
        else:  # beside the backbone, as the head of other classes
            fit.missing.append(key)
    fit.unexpected = [key for key in found if key not in fit.weight]
    return fit


def _part(key: str) -> str:
    return ".".join(key.split(".")[:2])


def _some(keys: Sequence[str], limit: int = 4) -> str:
    """Count and first names."""
    more = ", ..." if len(keys) > limit else ""
    return f"{len(keys)} ({', '.join(keys[:limit])}{more})" if keys else "none"
