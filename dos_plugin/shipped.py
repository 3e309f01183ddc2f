"""The configs that travel with the package, and what they are for, without running any of them."""

from __future__ import annotations

import argparse
import ast
from dataclasses import dataclass
from pathlib import Path

TASKS = {"pretrain": "pretraining", "semseg": "segmentation", "objdet": "detection"}
MODES = {"lin": "linear probe", "dec": "decoder probe", "ft": "fine-tuning", "sc": "from scratch"}
# Variants at the end of a name: what they say beyond the other columns.
VARIANTS = {
    "spunet": "",
    "pt-v3m1": "",
    "1gpu": "one GPU",
    "nocolor": "no colour",
    "0p1pct": "0.1 % of labels",
    "1pct": "1 % of labels",
    "10pct": "10 % of labels",
    "50pct": "50 % of labels",
}


@dataclass(frozen=True)
class ConfigFile:
    """A shipped config.

    Attributes:
        path: the file.
        task: what it trains.
        dataset: data set, the part of the name behind the number, without variant and mode.
        backbone: registry name of the backbone, "-" if the file does not say.
        summary: first line of its docstring, may be empty.
    """

    path: Path
    task: str
    dataset: str
    backbone: str
    summary: str

    @property
    def name(self) -> str:
        """File name without ``.py``."""
        return self.path.stem


def configs_dir() -> Path:
    """Folder of the configs: that of the checkout, else the one inside the installed package.

    Raises:
        FileNotFoundError: if neither is there (a broken installation).
    """
    package = Path(__file__).resolve().parent
    for folder in (package.parent / "configs" / "dos", package / "configs"):
        if any(folder.glob("*.py")):
            return folder
    raise FileNotFoundError(f"{package / 'configs'}: no configs there, is the package complete?")


def list_configs() -> list[ConfigFile]:
    """All shipped configs, by name."""
    return [describe(path) for path in sorted(configs_dir().glob("[!_]*.py"))]


def config_path(name: str) -> Path:
    """Path of a shipped config.

    Args:
        name: file name with or without ``.py``.

    Raises:
        ValueError: if there is none of that name; lists similar ones.
    """
    path = configs_dir() / f"{name.removesuffix('.py')}.py"
    if not path.is_file():
        known = [config.name for config in list_configs()]
        near = [other for other in known if name.removesuffix(".py") in other] or known
        raise ValueError(f"config {name!r}: not among the shipped ones, see {', '.join(near)}")
    return path


def describe(path: Path) -> ConfigFile:
    """Read name, docstring and backbone of a config file.

    Names follow the host: ``<task>-dos-v<i>m<j>-<number>-<dataset>[-<variant>][-<mode>].py``.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    task, *parts = path.stem.split("-")
    mode = MODES.get(parts[-1], "") if parts else ""
    dataset = "-".join(parts[3 : -1 if mode else None]) or "-"
    notes = [mode]
    for variant, note in VARIANTS.items():
        if dataset.endswith(f"-{variant}"):
            dataset = dataset.removesuffix(f"-{variant}")
            notes.append(note)
    label = ", ".join([TASKS.get(task, task), *filter(None, notes)])
    docstring = (ast.get_docstring(tree) or "").strip()
    summary = " ".join(docstring.split("\n\n")[0].split())
    return ConfigFile(path, label, dataset, _backbone(tree, path) or "-", summary)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``dos-plugin configs``."""
    parser.add_argument("--path", metavar="NAME", help="print the path of one config and stop")
    parser.add_argument(
        "--install", metavar="DIR", help="link all configs into configs/dos of a host checkout"
    )
    parser.add_argument("--copy", action="store_true", help="with --install: copy, do not link")


def run(args: argparse.Namespace) -> int:
    """Entry point of ``dos-plugin configs``."""
    if args.path:
        print(config_path(args.path))
        return 0
    if args.install:
        from dos_plugin.install import install_configs

        count, folder = install_configs(args.install, args.copy)
        print(f"{'copied' if args.copy else 'linked'} {count} files into {folder}")
        print("run one from there: sh scripts/train.sh -d dos -c CONFIG -n NAME -g GPUS")
        return 0
    if args.copy:
        raise ValueError("--copy needs --install DIR")
    rows = [("config", "dataset", "backbone", "task")]
    rows += [(c.name, c.dataset, c.backbone, c.task) for c in list_configs()]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    print(f"\nin {configs_dir()}; rows of the ablation in its folder ablation")
    return 0


def _backbone(tree: ast.Module, path: Path) -> str | None:
    """The type of ``backbone=dict(type=...)``, in the file or in one it inherits from."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "backbone":
            for option in getattr(node.value, "keywords", ()):
                if option.arg == "type" and isinstance(option.value, ast.Constant):
                    return str(option.value.value)
    for base in _bases(tree):
        file = path.parent / base
        if file.is_file() and (found := _backbone(ast.parse(file.read_text()), file)):
            return found
    return None


def _bases(tree: ast.Module) -> list[str]:
    """Files named by ``_base_``."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_base_":
            value = ast.literal_eval(node.value)
            return [value] if isinstance(value, str) else list(value)
    return []
