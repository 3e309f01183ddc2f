"""StepWeightDecay: the schedule of the weight decay, by optimizer steps."""

from dos_plugin.host import HOST
from dos_plugin.method import warmup_cosine
from dos_plugin.method.options import check_number


class StepWeightDecay(HOST.HookBase):  # type: ignore[name-defined, misc]
    """Cosine of the weight decay of all parameter groups over the run.

    The host's ``WeightDecaySchedular`` counts batches against a length in optimizer steps, so that
    with gradient accumulation its schedule is over early. TensorBoard: ``params/wd``.

    Args:
        base_value: Weight decay at the first step.
        final_value: Weight decay at the end.
    """

    def __init__(self, base_value: float = 0.04, final_value: float = 0.2) -> None:
        super().__init__()
        for name, value in dict(base_value=base_value, final_value=final_value).items():
            check_number(f"{name} of StepWeightDecay", value, "[0, inf)")
        self.base_value = base_value
        self.final_value = final_value

    def before_step(self) -> None:
        trainer = self.trainer
        step, total = trainer.scheduler.last_epoch, trainer.cfg.scheduler.total_steps
        value = warmup_cosine(step, total, self.base_value, self.final_value)
        for group in trainer.optimizer.param_groups:
            group["weight_decay"] = value
        if trainer.writer is not None:
            trainer.writer.add_scalar("params/wd", value, step)
