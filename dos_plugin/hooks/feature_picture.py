"""FeaturePicture: the features of a scan as colours, epoch by epoch."""

import importlib.util
import json
from pathlib import Path

import numpy as np

from dos_plugin.drawing.render import component_values, save_png, value_colours
from dos_plugin.drawing.sheet import save_gif, scan_sheet
from dos_plugin.hooks.online_probe import FILE as PROBE
from dos_plugin.hooks.watch import (
    FrozenCopy,
    check_after_loader,
    is_main_process,
)
from dos_plugin.host import HOST
from dos_plugin.method.options import check_choice, check_path, check_whole
from dos_plugin.models.backbone import BRANCHES, Branch
from dos_plugin.probing.scans import Scan, ScanSource, held_out_source
from dos_plugin.runs.run import Run
from dos_plugin.seeding import preserved_random
from dos_plugin.whole_file import write_whole

FOLDER, ANIMATION, COLOURS = "features", "features.gif", "colours.npy"


class FeaturePicture(HOST.HookBase):  # type: ignore[name-defined, misc]
    """Draws a scan by the first three principal components of its features, every few epochs.

    Writes ``features/epoch_0000.png`` before training (random weights, unless ``weight`` is set),
    one every ``every`` epochs and after the last one, and ``features.gif`` of all of them at the
    end; the pictures go to TensorBoard, too. The components are turned to look as in the picture
    before, so that a colour keeps its meaning as far as the features do. Needs no labels.

    The training is bitwise the same with and without the hook. With several ranks, rank 0 draws
    and the others wait at their next collective. Without Pillow nothing is drawn, which is said
    once.

    Args:
        every: Epochs from one picture to the next.
        scans: Numbers of the scans in the sorted split; one row of the picture each. Their
            components are computed together.
        data_root: Root of the data set; None is that of the training.
        split: Split of the scans; None is the one for validation where there is any, else that of
            the training.
        branch: ``"student"`` or ``"teacher"``.

    Raises:
        ValueError: If an option is out of range, the model is no pretraining, the scans cannot be
            read, or the hook stands at a wrong place in the list.
    """

    def __init__(
        self,
        every: int = 5,
        scans: int | list[int] | tuple[int, ...] = (0,),
        data_root: str | None = None,
        split: str | None = None,
        branch: Branch = "student",
    ) -> None:
        super().__init__()
        check_whole("every of FeaturePicture", every)
        check_choice("branch of FeaturePicture", branch, BRANCHES)
        for name, value in (("data_root", data_root), ("split", split)):
            if value is not None:
                check_path(f"{name} of FeaturePicture", value)
        self.numbers: list[int] = list(scans) if isinstance(scans, list | tuple) else [scans]
        if not self.numbers:
            raise ValueError(f"scans of FeaturePicture must name at least one scan, got {scans!r}")
        for number in self.numbers:
            check_whole("scans of FeaturePicture", number, 0)
        self.every = every
        self.data_root = data_root
        self.split = split
        self.branch: Branch = branch
        self.active = False

    def before_train(self) -> None:
        """Check everything that can be wrong and read the scans; nothing is written yet."""
        check_after_loader(self)
        if not is_main_process():
            return
        if importlib.util.find_spec("PIL") is None:
            self.trainer.logger.warning("FeaturePicture: no pictures, pip install pillow for them")
            return
        with preserved_random():
            self.frozen = FrozenCopy(self.trainer, self.branch)
            self.scans = self.read_scans()
        self.folder = Path(self.trainer.cfg.save_path) / FOLDER
        self.active = True

    def before_epoch(self) -> None:
        """Draw what the run starts from."""
        start = self.trainer.start_epoch
        if not self.active or self.trainer.epoch != start:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        resumed = self.trainer.cfg.resume
        for path in self.pictures():  # of an earlier run in this folder, or of epochs done again
            if not resumed or epoch_of(path) > start:
                path.unlink()
        if not resumed:
            (self.folder / COLOURS).unlink(missing_ok=True)
            (self.folder.parent / ANIMATION).unlink(missing_ok=True)
        if start % self.every == 0 and not self.path(start).exists():
            self.draw(start)

    def after_epoch(self) -> None:
        epoch = self.trainer.epoch + 1
        if self.active and (epoch % self.every == 0 or epoch == self.trainer.max_epoch):
            self.draw(epoch)

    def after_train(self) -> None:
        """Put all pictures into one animation, those of a resumed run's earlier epochs, too."""
        last = self.trainer.max_epoch
        # An interruption may have taken the last picture, and no epoch is left to train.
        if self.active and self.trainer.start_epoch == last and not self.path(last).exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            self.draw(last)
        if not (self.active and (found := self.pictures())):
            return
        path = self.folder.parent / ANIMATION
        try:
            save_gif(found, path)
        except Exception as error:
            self.trainer.logger.warning(f"FeaturePicture: no {ANIMATION}: {error}")
            return
        self.trainer.logger.info(f"Features of {len(found)} epochs as colours: {path}")

    def read_scans(self) -> list[Scan]:
        """The scans to draw; ValueError that names the option at fault."""
        cfg = self.trainer.cfg
        run = Run(cfg, Path(cfg.save_path) / "config.py", None)
        try:
            if self.split:
                source = ScanSource(run, self.data_root, self.split)
            else:
                source, _ = held_out_source(run, self.data_root)
            if max(self.numbers) >= len(source):
                raise ValueError(
                    f"scans of FeaturePicture asks for number {max(self.numbers)}, "
                    f"{source.place} has 0 to {len(source) - 1}"
                )
            return [source[number] for number in self.numbers]
        except Exception as error:  # the host's data sets raise whatever they like
            kind = "" if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: "
            raise ValueError(
                f"data_root={self.data_root!r}, split={self.split!r} of FeaturePicture: "
                f"{kind}{error}"
            ) from error

    def draw(self, epoch: int) -> None:
        """Draw the present features; a picture that fails ends no run."""
        try:
            with preserved_random():
                features = self.frozen.features()
                feats = [features(scan).numpy() for scan in self.scans]
            image = self.sheet(epoch, feats)
            write_whole(self.path(epoch), lambda file: save_png(image, file))
        except Exception as error:
            self.trainer.logger.warning(f"FeaturePicture: no picture of epoch {epoch}: {error}")
            return
        self.trainer.logger.info(f"Features of epoch {epoch} as colours: {self.path(epoch)}")
        if self.trainer.writer is not None:
            self.trainer.writer.add_image(FOLDER, image, epoch, dataformats="HWC")

    def sheet(self, epoch: int, feats: list[np.ndarray]) -> np.ndarray:
        """The picture, in colours like those of the one before; (H, W, 3) uint8."""
        joined = np.concatenate(feats)
        file = self.folder / COLOURS
        try:
            before = np.load(file)
        except (OSError, ValueError, EOFError):  # the first picture, or a damaged file
            before = None
        if before is not None and before.shape != (len(joined), 3):  # other scans since
            before = None
        values = component_values(joined, before)
        write_whole(file, lambda partial: np.save(partial, values))
        parts = np.split(value_colours(values), np.cumsum([len(feat) for feat in feats])[:-1])
        return scan_sheet(
            [scan.origin_coord for scan in self.scans],
            [colour[scan.inverse] for colour, scan in zip(parts, self.scans)],
            [scan.name for scan in self.scans],
            f"Epoch {epoch}: features of the {self.branch}, principal components as colours",
            self.note(epoch),
        )

    def note(self, epoch: int) -> str:
        """What OnlineProbe says about the epoch, if it stands before this hook."""
        try:
            entries = json.loads((Path(self.trainer.cfg.save_path) / PROBE).read_text())
            entry = next(entry for entry in entries if entry["epoch"] == epoch)
            return f"linear probe {entry['linear']['miou']:.1f} mIoU"
        except (OSError, ValueError, KeyError, TypeError, StopIteration):
            return ""

    def path(self, epoch: int) -> Path:
        """File of an epoch's picture."""
        return self.folder / f"epoch_{epoch:04d}.png"

    def pictures(self) -> list[Path]:
        """All pictures that are there, by epoch."""
        return sorted(self.folder.glob("epoch_[0-9]*.png"), key=epoch_of)


def epoch_of(path: Path) -> int:
    """Epoch of a picture's file name."""
    return int(path.stem.removeprefix("epoch_"))
