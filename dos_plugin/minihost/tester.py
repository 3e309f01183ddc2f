"""What tests of a trained model have in common; ``python -m dos_plugin.minihost --test``."""

import logging
from pathlib import Path

from mmengine.config import Config
from torch import nn
from torch.utils.data import DataLoader

from . import log
from .checkpoint import check_fit, load_checkpoint, rename_keys
from .distributed import get_rank
from .registry import build_dataset, build_model
from .trainer import current_device, ordered_loader


class TesterBase:
    """Builds the model with its weights, and the loader of ``data.test``.

    Args:
        cfg: A config that went through ``load_config`` and ``setup_config``.
        model: Instead of the config's.
        test_loader: Instead of the config's.
        verbose: Whether the log has the config.

    Raises:
        KeyError: If the config lacks ``data.test``.
        ValueError: If ``weight`` is missing or does not fit the model completely.
    """

    def __init__(
        self,
        cfg: Config,
        model: nn.Module | None = None,
        test_loader: DataLoader | None = None,
        verbose: bool = False,
    ) -> None:
        log.start_buffer()
        self.cfg = cfg
        self.verbose = verbose
        self.device = current_device()
        self.logger = log.get_logger()
        self.logger.setLevel(logging.INFO if get_rank() == 0 else logging.ERROR)
        if verbose:
            self.logger.info(f"Config:\n{cfg.pretty_text}", extra=log.FILE_ONLY)
        self.model = self.build_model() if model is None else model
        self.test_loader = self.build_test_loader() if test_loader is None else test_loader
        if get_rank() == 0:
            folder = Path(cfg.save_path)
            folder.mkdir(parents=True, exist_ok=True)
            log.open_log_file(folder / "test.log", append=False)

    def build_model(self) -> nn.Module:
        """The model with all of its weights."""
        cfg = self.cfg
        if not cfg.weight:
            raise ValueError(f"weight: a test needs a checkpoint, got {cfg.weight!r}")
        model = build_model(cfg.model).to(self.device)
        state = load_checkpoint(cfg.weight, self.device)["state_dict"]
        state, meant = rename_keys(state, "module.", "module.", distributed=False)
        check_fit(model.state_dict(), state, meant, cfg.weight, strict=True)
        model.load_state_dict(state)
        self.logger.info(f"Loaded weight {cfg.weight!r} (all {len(state)} entries)")
        return model

    def build_test_loader(self) -> DataLoader:
        """Scans in order, each in one process."""
        if "test" not in self.cfg.data:
            raise KeyError("the config lacks data.test")
        dataset = build_dataset(self.cfg.data.test)
        return ordered_loader(self.cfg, dataset, self.cfg.batch_size_test_per_gpu, self.device)

    def test(self) -> None:
        """Run the test."""
        raise NotImplementedError
