"""Base class of models that want to follow the training as a hook."""

from torch import nn

from .hooks import HookBase


class PointModel(nn.Module, HookBase):
    """A model that :class:`~dos_plugin.minihost.hooks.ModelHook` passes the hook calls to."""
