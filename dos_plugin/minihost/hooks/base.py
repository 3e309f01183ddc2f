"""What a hook is, and the hook that makes the model one."""

import weakref
from typing import Any

from ..distributed import get_world_size
from ..registry import HOOKS


class HookBase:
    """Six moments of a training; ``trainer`` is a weak proxy, set before the first of them."""

    trainer: Any = None

    def before_train(self) -> None:
        pass

    def before_epoch(self) -> None:
        pass

    def before_step(self) -> None:
        pass

    def after_step(self) -> None:
        pass

    def after_epoch(self) -> None:
        pass

    def after_train(self) -> None:
        pass


def build_hooks(cfg: list[dict]) -> list[HookBase]:
    """Build hooks in the order in which they will be called."""
    hooks = [HOOKS.build(item) for item in cfg]
    for hook in hooks:
        if not isinstance(hook, HookBase):
            raise TypeError(f"hooks: {type(hook).__name__} does not derive from HookBase")
    return hooks


@HOOKS.register_module()
class ModelHook(HookBase):
    """Passes all moments on to the model, if that is a :class:`HookBase` itself."""

    def before_train(self) -> None:
        model = self.trainer.model
        if get_world_size() > 1:
            model = model.module
        self.model: Any = HookBase()
        if isinstance(model, HookBase):
            self.model = weakref.proxy(model)
        self.model.trainer = self.trainer
        self.model.before_train()

    def before_epoch(self) -> None:
        self.model.before_epoch()

    def before_step(self) -> None:
        self.model.before_step()

    def after_step(self) -> None:
        self.model.after_step()

    def after_epoch(self) -> None:
        self.model.after_epoch()

    def after_train(self) -> None:
        self.model.after_train()
