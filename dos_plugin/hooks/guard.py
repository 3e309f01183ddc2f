"""NonFiniteGuard: steps with NaN or infinite gradients change nothing, and are told."""

import weakref
from typing import Any

import torch

from dos_plugin.hooks.watch import bare_model, is_main_process, world_size
from dos_plugin.host import HOST
from dos_plugin.messages import some, warn_counted
from dos_plugin.method.options import check_whole

ADVICE = (
    "look at these scenes (dos-plugin doctor --config), try a lower optimizer.lr with "
    "scheduler.max_lr, a smaller clip_grad, or amp_dtype='bfloat16' or enable_amp=False"
)


class NonFiniteGuard(HOST.HookBase):  # type: ignore[name-defined, misc]
    """Leaves out optimizer steps whose gradients are not finite; stands behind ``ModelHook``.

    Weights, optimizer state and running statistics stay as they were before the step; a teacher
    averages clean weights. Schedules count the step. Gradients are averaged over ranks, so all
    ranks leave out the same steps. The scenes of the step are named in the log, a counted warning;
    what is not finite does not enter the epoch's means.

    Args:
        stop_after: Steps in a row without a finite gradient that end the run. A float16 scaler
            that starts at 65,536 leaves out up to 16 by itself.

    Raises:
        ValueError: If the option is out of range.
        FloatingPointError: After so many steps in a row, in training.
    """

    def __init__(self, stop_after: int = 20) -> None:
        super().__init__()
        check_whole("stop_after of NonFiniteGuard", stop_after)
        self.stop_after = stop_after
        self.in_a_row = 0
        self.forget()

    def before_train(self) -> None:
        model = bare_model(self.trainer)
        self.buffers = [b for b in model.buffers() if b.is_floating_point()]
        self.kept = [b.clone() for b in self.buffers]
        guard = weakref.proxy(self)
        self.trainer.optimizer.register_step_pre_hook(lambda *_: guard.check_gradients())

    def before_step(self) -> None:
        """Note what a step may spoil: several batches make one where gradients accumulate."""
        if not self.accumulating():
            self.forget()
            if self.buffers:
                torch._foreach_copy_(self.kept, self.buffers)
        batch = self.trainer.comm_info["input_dict"]
        self.names += [str(name) for name in batch.get("name", [])]

    @torch.no_grad()
    def check_gradients(self) -> None:
        """Before the optimizer's step: without gradients it does nothing."""
        self.stepped = True
        parameters = [p for g in self.trainer.optimizer.param_groups for p in g["params"]]
        gradients = [p.grad for p in parameters if p.grad is not None]
        if gradients and not torch.stack(torch._foreach_norm(gradients)).isfinite().all():
            self.left_out = True
            for parameter in parameters:
                parameter.grad = None
            self.restore_buffers()  # now, before a teacher takes them over

    def after_step(self) -> None:
        trainer = self.trainer
        output = trainer.comm_info["model_output_dict"]
        finite = bool(torch.as_tensor(output["loss"]).isfinite())
        if not finite:
            trainer.comm_info["model_output_dict"] = {
                key: value for key, value in output.items() if torch.as_tensor(value).isfinite()
            }
        if self.accumulating():
            return
        if not self.stepped:  # a scaler has seen it first
            self.left_out = True
            self.restore_buffers()
        if not self.left_out:
            self.in_a_row = 0
            return
        self.in_a_row += 1
        finite, names = self.at_fault(finite)
        scenes = f"scenes {some(names)}" if names else "its scenes have no names"
        if is_main_process():
            what = "gradients of an optimizer step are" if finite else "loss of a batch is"
            warn_counted(
                "steps left out",
                f"NonFiniteGuard: the {what} not finite in epoch {trainer.epoch + 1}, batch "
                f"{trainer.comm_info['iter'] + 1}, the step is left out: {scenes}",
                trainer.logger,
            )
        if self.in_a_row >= self.stop_after:
            raise FloatingPointError(
                f"{self.in_a_row} steps in a row without finite gradients, the last of {scenes}: "
                f"{ADVICE}"
            )

    def at_fault(self, finite: bool) -> tuple[bool, list[str]]:
        """Whether the losses of all ranks are finite, and the scenes of those that are not.

        All ranks come here: they have left out the same step.
        """
        ranks: list[Any] = [(finite, self.names)]
        if (size := world_size()) > 1:
            ranks = [None] * size
            torch.distributed.all_gather_object(ranks, (finite, self.names))
        all_finite = all(finite for finite, _ in ranks)
        names = [name for finite, part in ranks if all_finite or not finite for name in part]
        return all_finite, names

    def forget(self) -> None:
        """A new step begins."""
        self.stepped = self.left_out = False
        self.names: list[str] = []

    def restore_buffers(self) -> None:
        if self.buffers:
            torch._foreach_copy_(self.buffers, self.kept)

    def accumulating(self) -> bool:
        """Whether gradients wait for more batches."""
        return bool(getattr(self.trainer, "_gradient_accumulation_counter", 0))
