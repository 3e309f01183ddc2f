"""PrototypeMonitor: whether a pretraining learns, in numbers and, where it collapses, in words."""

from collections.abc import Mapping

import torch

from dos_plugin.hooks.limits import Alarm, summary
from dos_plugin.hooks.watch import bare_model, is_main_process, open_wandb
from dos_plugin.host import HOST
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
from dos_plugin.method.logits import Logits
from dos_plugin.method.options import check_number, check_whole
from dos_plugin.method.zipf_sinkhorn import scaling_vectors
from dos_plugin.models.batch import Views
from dos_plugin.models.dos import DOS, Matched

# Of points x prototypes held at once: the student's activations fill a GPU already.
BLOCK_ELEMENTS = 2**21


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
        warmup: No warning in so many first optimizer steps, in which features are random.
        limits: Limits that are warned of, where they shall be others than
            :data:`dos_plugin.hooks.limits.LIMITS`, such as ``dict(feat_std=0.1)``.
        dead_below: A prototype is dead below this share of the prior's mass.
        duplicate_above: Prototypes are duplicates above this cosine.

    Raises:
        ValueError: If an option is out of range, there is no such limit, or the model is not DOS.
    """

    def __init__(
        self,
        interval: int = 50,
        warmup: int = 20,
        limits: Mapping[str, float] | None = None,
        dead_below: float = 0.01,
        duplicate_above: float = 0.95,
    ) -> None:
        super().__init__()
        check_whole("interval of PrototypeMonitor", interval)
        check_whole("warmup of PrototypeMonitor", warmup, 0)
        check_number("dead_below of PrototypeMonitor", dead_below, "[0, 1]")
        check_number("duplicate_above of PrototypeMonitor", duplicate_above, "[0, 1]")
        self.interval = interval
        self.warmup = warmup
        self.alarm = Alarm(limits)
        self.dead_below = dead_below
        self.duplicate_above = duplicate_above
        self.last_step: int | None = None  # optimizer steps before the latest measurement
        self.values: dict[str, float] = {}
        self.of_epoch: list[dict[str, float]] = []

    def before_train(self) -> None:
        model = bare_model(self.trainer)
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
        if not is_main_process():
            return
        step, last = self.model.step, self.last_step
        due = last is None or step - last >= self.interval
        last_batch = self.trainer.comm_info["iter"] + 1 == len(self.trainer.train_loader)
        if due or (last_batch and not self.of_epoch):
            self.model.observer = self.observe

    def observe(self, matched: Matched, views: Views) -> None:
        """Measure a batch; called by :class:`DOS` inside its forward pass."""
        if not (len(matched.student) and len(matched.same_view[0].student)):
            return
        try:
            with torch.no_grad(), torch.autocast(matched.student.device.type, enabled=False):
                self.values = self.measure(matched, views)
        except Exception as error:  # no memory left, say: that must not end the run
            self.trainer.logger.warning(f"PrototypeMonitor: nothing measured: {error}")
        self.last_step = self.model.step

    def measure(self, matched: Matched, views: Views) -> dict[str, float]:
        """All numbers of a batch with at least one matched row, by their names in the log."""
        student, teacher, same_view, cross_view = matched
        std, smallest_std = channel_std(teacher)
        values = {
            "feat_std": std,
            "feat_std_smallest": smallest_std,
            "rankme": rank_me(teacher),
            "same_matched": sum(len(pairs.student) for pairs in same_view) / len(student),
            "cross_matched": sum(len(pairs.student) for pairs in cross_view) / len(student),
            "visible": views.num_visible / len(views.clouds.visible),
        }
        if self.model.target == "regression":
            return values
        branch = self.model.teacher if "prototypes" in self.model.teacher else self.model.student
        prototypes = branch["prototypes"]()
        first_view = teacher[same_view[0].teacher]  # as in the first of the loss's four parts
        block_size = max(1, BLOCK_ELEMENTS // len(prototypes))
        logits = Logits(first_view, prototypes, self.model.teacher_temp, block_size)
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
            if self.model.sinkhorn.num_iters == 0:  # nothing asks for the prior then
                values.pop("prior_kl", None)
            for message in self.alarm.messages(values, step):
                self.trainer.logger.warning(message)

    def after_epoch(self) -> None:
        if self.of_epoch:
            line = summary(self.of_epoch, self.model.head_channels, self.model.num_prototypes)
            self.trainer.logger.info(line)


SCALARS = (
    "prior_kl", "effective_prototypes", "dead_prototypes", "duplicate_prototypes",
    "target_entropy", "feat_std", "feat_std_smallest", "rankme", "same_matched", "cross_matched",
    "visible",
)  # fmt: skip
