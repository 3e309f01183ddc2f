"""PretrainedLoader: weights for fine-tuning, loaded completely or not at all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from dos_plugin.hooks.watch import bare_model
from dos_plugin.host import HOST
from dos_plugin.messages import some
from dos_plugin.method.options import check_choice
from dos_plugin.models.backbone import BRANCHES, Branch
from dos_plugin.runs.checkpoint import Checkpoint, read_checkpoint

BACKBONE = "backbone."


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

    def __init__(self, branch: Branch = "student") -> None:
        super().__init__()
        check_choice("branch of PretrainedLoader", branch, BRANCHES)
        self.branch: Branch = branch

    def before_train(self) -> None:
        cfg, log = self.trainer.cfg, self.trainer.logger.info
        weight = None if cfg.weight in (None, "", "None") else cfg.weight  # --options weight=None
        if weight is None:
            if cfg.resume:
                raise ValueError("resume=True needs the run's checkpoint in weight, got none")
            log("weight is None: training starts from random weights")
            return
        model = bare_model(self.trainer)
        checkpoint = read_checkpoint(weight)
        own = model.state_dict(keep_vars=True)
        if cfg.resume:
            differing = sorted(own.keys() ^ checkpoint.state.keys())
            if differing:
                raise ValueError(
                    f"resume=True, but {weight} is not of a run of this config: "
                    f"{_counted(differing)} are not in both; to start from it, set resume=False"
                )
            host_loader = HOST.HOOKS.build(dict(type="CheckpointLoader"))
            host_loader.trainer = self.trainer
            host_loader.before_train()
            return
        fit = fit_state(own, checkpoint, self.branch)
        model.load_state_dict(fit.weight, strict=False)
        log(f"Loading weight at: {weight} ({fit.source})")
        log(f"Loaded {_counted(list(fit.weight))}")
        log(f"Missing, they keep random weights: {_counted(fit.missing)}")
        log(f"Unexpected, they are not used: {_counted(fit.unexpected)}")


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


def fit_state(own: Mapping[str, Any], checkpoint: Checkpoint, branch: Branch) -> Fit:
    """Decide what of a checkpoint goes into a model.

    A part of the backbone (stem, encoder, decoder) may be missing as a whole, and is then trained
    from random weights, or be too much as a whole. The tensors of a part that both have must agree.

    Args:
        own: State dict of the model, with parameters and not their data.
        checkpoint: Of a pretraining or a segmentation run, or an exported file.
        branch: Which network of a pretraining.

    Raises:
        ValueError: See :class:`PretrainedLoader`.
    """
    file = checkpoint.path
    if checkpoint.kind == "segmentation run":
        fit, found = Fit("segmentation run"), dict(checkpoint.state)
    elif checkpoint.kind == "other":
        tops = sorted({key.split(".")[0] for key in checkpoint.state})
        raise ValueError(
            f"weight: {file} holds no DOS model: expected keys student.backbone.*, "
            f"teacher.backbone.* or backbone.*, its keys start with {_counted(tops)}"
        )
    else:
        exported = checkpoint.kind == "exported"
        ours = "a DOS" if checkpoint.kind == "DOS pretraining" else "another"
        fit = Fit("exported backbone" if exported else f"{branch} of {ours} pretraining")
        wanted = checkpoint.branches[0] if exported else branch
        found = {BACKBONE + k: v for k, v in checkpoint.backbone(wanted).items()}
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
    wrong = "; ".join(f"{what}: {_counted(keys)}" for what, keys in faults.items() if keys)
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


def _counted(keys: Sequence[str]) -> str:
    """Count and first names."""
    return f"{len(keys)} ({some(keys, 4)})" if keys else "none"
