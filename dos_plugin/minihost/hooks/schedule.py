"""Hook that moves the weight decay."""

from ..optim import cosine
from ..registry import HOOKS
from .base import HookBase


@HOOKS.register_module()
class WeightDecaySchedular(HookBase):
    """Cosine of the weight decay of all parameter groups, from ``base_value`` to ``final_value``.

    As on the real host it counts batches, while its length is in optimizer steps: with gradient
    accumulation it is over after 1 / gradient_accumulation_steps of the run. TensorBoard:
    ``params/wd``.
    """

    def __init__(self, base_value: float = 0.04, final_value: float = 0.2) -> None:
        self.base_value = base_value
        self.final_value = final_value
        self.iter = 0

    def before_train(self) -> None:
        self.iter = self.trainer.start_epoch * len(self.trainer.train_loader)

    def before_step(self) -> None:
        total = self.trainer.cfg.scheduler.total_steps
        value = cosine(self.iter, total, self.base_value, self.final_value)
        self.iter += 1
        for group in self.trainer.optimizer.param_groups:
            group["weight_decay"] = value
        if self.trainer.writer is not None:
            self.trainer.writer.add_scalar("params/wd", value, self.iter)
