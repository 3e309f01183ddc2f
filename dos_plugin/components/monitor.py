"""PrototypeMonitor: whether a pretraining learns, in numbers and, where it collapses, in words."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dos_plugin.host import HOST
from dos_plugin.method.blocks import Logits
from dos_plugin.method.health import (
    assigned_mass,
    assignment_entropy,
    channel_std,
    dead_prototypes,
    duplicate_prototypes,
    effective_number,
    kl_divergence,
    rank_me,
    softmap_entropy,
)
from dos_plugin.method.zipf_sinkhorn import scaling_vectors

from .batch import Views
from .model import DOS
from .watch import open_wandb


class PrototypeMonitor(HOST.HookBase):  # type: ignore[name-defined, misc]
    """Measures what the loss does not say, and warns when the features collapse.

    Measures on the batch that is being trained on, at the first step, then every ``interval``
    optimizer steps and at least once an epoch. It only reads: the training is bitwise the same with
    and without it, and steps that are not measured cost nothing. Needs ``DOS-v1m1`` as model.

    With several ranks, rank 0 measures its own part of the batch and the others do nothing: its
    Sinkhorn scaling is of its own points, so there is no collective. Scope ``"cloud"``
    is measured over all scenes of the rank at once.

    Writes TensorBoard scalars ``monitor/*`` over optimizer steps (and the same to W&B where a
    run is active), and a line an epoch to the log. docs/monitoring.md explains the numbers.

    Args:
        interval: Optimizer steps from one measurement to the next.
        dead_below: A prototype is dead below this share of the prior's mass.
        duplicate_above: Prototypes are duplicates above this cosine.
        warmup: No warning in so many first optimizer steps, in which features are random.
        min_feat_std: Warn below this standard deviation of the features, times sqrt(D).
        min_rank: Warn below this effective rank of the features (RankMe).
        max_target_entropy: Warn above this entropy of the teacher's targets, between 0 and 1.
        max_prior_kl: Warn above this divergence of the assigned mass from the prior, nats.
        max_dead: Warn above this share of dead prototypes.
        max_duplicate: Warn above this share of duplicate prototypes.

    Raises:
        ValueError: If ``interval`` is less than 1 or the model is not DOS.
    """

    def __init__(
        self,
        interval: int = 50,
        dead_below: float = 0.01,
        duplicate_above: float = 0.95,
        warmup: int = 20,
        min_feat_std: float = 0.1,
        min_rank: float = 2.0,
        max_target_entropy: float = 0.999,
        max_prior_kl: float = 2.0,
        max_dead: float = 0.5,
        max_duplicate: float = 0.5,
    ) -> None:
        super().__init__()
        if interval < 1:
            raise ValueError(f"interval must be at least 1, got {interval}")
        self.interval = interval
        self.dead_below = dead_below
        self.duplicate_above = duplicate_above
        self.warmup = warmup
        self.limits = [
            Limit(
                "feat_std",
                "below",
                min_feat_std,
                "min_feat_std",
                "all features are nearly the same",
                _SLOWER,
            ),
            Limit(
                "rankme",
                "below",
                min_rank,
                "min_rank",
                "the features fill next to no dimension",
                _SLOWER,
            ),
            Limit(
                "target_entropy",
                "above",
                max_target_entropy,
                "max_target_entropy",
                "the teacher's targets are the same at all points",
                _SLOWER,
            ),
            Limit(
                "prior_kl",
                "above",
                max_prior_kl,
                "max_prior_kl",
                "few prototypes take all points",
                _SINKHORN,
            ),
            Limit(
                "dead_share",
                "above",
                max_dead,
                "max_dead",
                "most prototypes are used by no point",
                _SINKHORN,
            ),
            Limit(
                "duplicate_share",
                "above",
                max_duplicate,
                "max_duplicate",
                "most prototypes are copies of others",
                _SLOWER,
            ),
        ]
        self.warned: set[str] = set()
        self.last_step: int | None = None  # optimizer steps before the latest measurement
        self.values: dict[str, float] = {}
        self.of_epoch: list[dict[str, float]] = []

    def before_train(self) -> None:
        model = self.trainer.model
        model = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
        if not isinstance(model, DOS):
            raise ValueError(
                f"hooks: PrototypeMonitor needs model.type='DOS-v1m1', got {type(model).__name__}; "
                "remove the hook"
            )
        self.model = model
        if (run := open_wandb(self.trainer)) is not None:
            run.define_metric("monitor/step")
            run.define_metric("monitor/*", step_metric="monitor/step")

    def before_epoch(self) -> None:
        self.of_epoch = []

    def before_step(self) -> None:
        if not _is_main_process():
            return
        step, last = self.model.step, self.last_step
        due = last is None or step - last >= self.interval
        last_batch = self.trainer.comm_info["iter"] + 1 == len(self.trainer.train_loader)
        if due or (last_batch and not self.of_epoch):
            self.model.observer = self.observe

    def observe(
        self,
        student: Tensor,
        teacher: Tensor,
        same_view: Sequence,
        cross_view: Sequence,
        views: Views,
    ) -> None:
        """Measure a batch; called by :class:`DOS` inside its forward pass."""
        if len(student) and len(same_view[0][0]):
            with torch.no_grad(), torch.autocast(student.device.type, enabled=False):
                self.values = self.measure(student, teacher, same_view, cross_view, views)
            self.last_step = self.model.step

    def measure(
        self,
        student: Tensor,
        teacher: Tensor,
        same_view: Sequence,
        cross_view: Sequence,
        views: Views,
    ) -> dict[str, float]:
        """All numbers of a batch with at least one matched row, by their names in the log."""
        mean_std, smallest_std = channel_std(teacher)
        values = {
            "feat_std": mean_std,
            "feat_std_smallest": smallest_std,
            "rankme": rank_me(teacher),
            "same_matched": sum(len(rows) for rows, _, _ in same_view) / len(student),
            "cross_matched": sum(len(rows) for rows, _, _ in cross_view) / len(student),
            "visible": views.num_visible / len(views.clouds.visible),
        }
        if self.model.target == "regression":
            return values
        branch = self.model.teacher if "prototypes" in self.model.teacher else self.model.student
        prototypes = branch["prototypes"]()
        first_view = teacher[same_view[0][1]]  # as in the first of the loss's four parts
        logits = Logits(first_view, prototypes, self.model.teacher_temp, self.model.block_size)
        sinkhorn, clustering = self.model.sinkhorn, self.model.target == "clustering"
        prior = sinkhorn.prior(len(prototypes), prototypes.device)
        # Clusters are what the rows become after the last column scaling: an iteration further.
        num_iters = sinkhorn.num_iters + clustering
        scaling = scaling_vectors(logits, prior, num_iters, across_ranks=False)
        mass = assigned_mass(logits, scaling)
        dead = dead_prototypes(mass, prior, self.dead_below)
        duplicate = duplicate_prototypes(prototypes, self.duplicate_above)
        entropy = (
            assignment_entropy(logits, scaling.bias)
            if clustering
            else softmap_entropy(logits, scaling)
        )
        return values | {
            "prior_kl": kl_divergence(mass, prior),
            "effective_prototypes": effective_number(mass),
            "effective_prototypes_of_prior": effective_number(prior),
            "dead_prototypes": dead,
            "dead_share": dead / len(prototypes),
            "duplicate_prototypes": duplicate,
            "duplicate_share": duplicate / len(prototypes),
            "target_entropy": entropy,
        }

    def after_step(self) -> None:
        self.model.observer = None
        if not self.values:
            return
        values, self.values = self.values, {}
        step = self.last_step or 0
        if step > 0:  # before it there are random features, no epoch's
            self.of_epoch.append(values)
        scalars = {f"monitor/{name}": values[name] for name in SCALARS if name in values}
        if self.trainer.writer is not None:
            for tag, value in scalars.items():
                self.trainer.writer.add_scalar(tag, value, step)
        if (run := open_wandb(self.trainer)) is not None:
            run.log({"monitor/step": step, **scalars}, step=run.run.step)
        if step > self.warmup:
            self.warn(values, step)

    def warn(self, values: Mapping[str, float], step: int) -> None:
        """Warn of every limit that is passed, once until it is kept again."""
        for limit in self.limits:
            value = values.get(limit.name)
            if value is None or not limit.passed_by(value):
                self.warned.discard(limit.name)
            elif limit.name not in self.warned:
                self.warned.add(limit.name)
                self.trainer.logger.warning(limit.message(value, step))

    def after_epoch(self) -> None:
        if self.of_epoch:
            self.trainer.logger.info(summary(self.of_epoch, self.model))


_SLOWER = (
    "Try a lower optimizer.lr (and scheduler.max_lr), model.momentum_base nearer to 1, "
    "teacher temperatures that are not above 0.07"
)
_SINKHORN = (
    "Try model.sinkhorn with num_iters=3, a smaller alpha, a lower optimizer.lr, or fewer "
    "model.num_prototypes"
)
SCALARS = (
    "prior_kl", "effective_prototypes", "dead_prototypes", "duplicate_prototypes",
    "target_entropy", "feat_std", "feat_std_smallest", "rankme", "same_matched", "cross_matched",
    "visible",
)  # fmt: skip


class Limit(NamedTuple):
    """What a number must not pass.

    Attributes:
        name: of the number.
        side: ``"below"`` or ``"above"``: where it must not be.
        value: the limit.
        option: option of the hook that sets it.
        meaning: what is wrong when it is passed.
        advice: what to try then.
    """

    name: str
    side: str
    value: float
    option: str
    meaning: str
    advice: str

    def passed_by(self, value: float) -> bool:
        """Whether a value is beyond the limit, or no number."""
        if math.isnan(value):
            return True
        return value < self.value if self.side == "below" else value > self.value

    def message(self, value: float, step: int) -> str:
        """The warning."""
        return (
            f"DOS: this run seems to collapse: {self.meaning}: {self.name} {value:.4g} is "
            f"{self.side} {self.value:g} at step {step} ({self.option} of PrototypeMonitor). "
            f"{self.advice}. See docs/monitoring.md"
        )


def summary(measured: Sequence[Mapping[str, float]], model: DOS) -> str:
    """One line about an epoch: means of its measurements, with healthy values beside them."""
    mean = {key: sum(m[key] for m in measured) / len(measured) for key in measured[0]}
    parts = [
        f"feature std {mean['feat_std']:.2f} (even: 1, collapsed: 0)",
        f"RankMe {mean['rankme']:.1f} of {model.head_channels}",
    ]
    if "prior_kl" in mean:
        count = model.num_prototypes
        parts += [
            f"target entropy {mean['target_entropy']:.3f} (collapsed: 1)",
            f"KL to prior {mean['prior_kl']:.3f} (kept: 0)",
            f"effective prototypes {mean['effective_prototypes']:.1f} "
            f"(prior: {mean['effective_prototypes_of_prior']:.1f})",
            f"dead {mean['dead_prototypes']:.0f} and duplicate {mean['duplicate_prototypes']:.0f} "
            f"of {count}",
        ]
    parts += [
        f"matched {mean['same_matched']:.0%} in the same view, {mean['cross_matched']:.0%} across",
        f"visible {mean['visible']:.0%}",
    ]
    return "Monitor: " + ", ".join(parts)


def _is_main_process() -> bool:
    dist = torch.distributed
    return not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0
