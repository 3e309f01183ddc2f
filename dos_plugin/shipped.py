"""The configs that travel with the package, and what they are for, without running any of them."""

from __future__ import annotations

import ast
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

TASKS = {"pretrain": "pretraining", "semseg": "segmentation", "objdet": "detection"}
# Configs of other hosts, by folder: installed nowhere, their hosts read them where they are.
FOREIGN = {"detection": "MMDetection3D", "detection/openpcdet": "OpenPCDet"}
MODES = {"lin": "linear probe", "dec": "decoder probe", "ft": "fine-tuning", "sc": "from scratch"}
# Variants at the end of a name: what they say beyond the other columns.
VARIANTS = {
    "spunet": "",
    "pt-v3m1": "",
    "pt-v3m3": "not on the embedded host",
    "litept": "not on the embedded host",
    "1gpu": "one GPU",
    "nocolor": "no colour",
    "0p1pct": "0.1 % of labels",
    "1pct": "1 % of labels",
    "10pct": "10 % of labels",
    "20pct": "20 % of labels",
    "50pct": "50 % of labels",
    "frozen": "frozen",
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
        folder: its folder among the configs where another host than Pointcept reads it, else empty.
    """

    path: Path
    task: str
    dataset: str
    backbone: str
    summary: str
    folder: str = ""

    @property
    def name(self) -> str:
        """File name without ``.py``; that of another host's with its folder."""
        return f"{self.folder}/{self.path.name.removesuffix('.py')}".lstrip("/")

    @property
    def host(self) -> str:
        """The codebase that reads it."""
        return FOREIGN.get(self.folder, "Pointcept")

    @property
    def row(self) -> tuple[str, str, str, str, str]:
        """What the list shows of it."""
        return self.name, self.dataset, self.backbone, self.host, self.task


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
    """All shipped configs of Pointcept and the embedded host, by name."""
    return [describe(path) for path in sorted(configs_dir().glob("[!_]*.py"))]


def list_foreign_configs() -> list[ConfigFile]:
    """All shipped configs of other hosts."""
    return [
        describe(path, folder)
        for folder in FOREIGN
        for path in sorted((configs_dir() / folder).glob("[!_]*.*"))
    ]


def find_configs(words: list[str]) -> list[ConfigFile]:
    """Shipped configs whose name, data set, backbone, host or task contain every word, in any case.

    Raises:
        ValueError: if there is none; says what there is.
    """
    configs = list_configs() + list_foreign_configs()
    found = [
        config
        for config in configs
        if all(any(word.lower() in cell.lower() for cell in config.row) for word in words)
    ]
    if not found:
        there = {
            "data sets": {config.dataset for config in configs},
            "backbones": {config.backbone for config in configs},
            "hosts": {config.host for config in configs},
            "tasks": {part for config in configs for part in config.task.split(", ")},
        }
        lists = [f"{kind}: {', '.join(sorted(values))}" for kind, values in there.items()]
        raise ValueError(
            f"no config has {' and '.join(map(repr, words))} in its row; {'; '.join(lists)}"
        )
    return found


def config_path(name: str) -> Path:
    """Path of a shipped config.

    Args:
        name: file name with or without ``.py``, behind its folder if the list has one.

    Raises:
        ValueError: if there is none of that name; lists similar ones.
    """
    path = configs_dir() / (name if name.endswith(".yaml") else f"{name.removesuffix('.py')}.py")
    if not path.is_file():
        known = [config.name for config in find_configs([])]
        near = [other for other in known if name.removesuffix(".py") in other] or known
        raise ValueError(f"config {name!r}: not among the shipped ones, see {', '.join(near)}")
    return path


def describe(path: Path, folder: str = "") -> ConfigFile:
    """Read name, docstring and backbone of a config file, Python or YAML.

    Names follow the host: ``<task>-dos-v<i>m<j>-<number>-<dataset>[-<variant>][-<mode>].py``.
    """
    text = path.read_text(encoding="utf-8")
    task, *parts = path.stem.split("-")
    mode = MODES.get(parts[-1], "") if parts else ""
    dataset = "-".join(parts[3 : -1 if mode else None]) or "-"
    notes = [mode]
    for variant, note in VARIANTS.items():
        if dataset.endswith(f"-{variant}"):
            dataset = dataset.removesuffix(f"-{variant}")
            notes.append(note)
    label = ", ".join([TASKS.get(task, task), *filter(None, notes)])
    if path.suffix == ".py":
        tree = ast.parse(text)
        docstring = (ast.get_docstring(tree) or "").strip()
        backbone = _backbone(tree, path)
    else:  # comments on top, and no YAML library for a list
        docstring = re.sub(r"^# ?", "", text.partition("\n#\n")[0], flags=re.MULTILINE)
        named = re.search(r"^ +BACKBONE:\n +type: (\S+)", text, re.MULTILINE)
        backbone = named[1] if named else None
    summary = " ".join(docstring.split("\n\n")[0].split())
    return ConfigFile(path, label, dataset, backbone or "-", summary, folder)


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


def install_configs(checkout: str | os.PathLike, copy: bool = False) -> tuple[int, Path]:
    """Link the configs into ``configs/dos`` of a Pointcept checkout, but those of other hosts.

    Nothing there is ever overwritten.

    A file that is there already with the same content stays, a link that leads nowhere (to an
    environment that is gone) is replaced.

    Args:
        checkout: root of the host's checkout.
        copy: copy instead of linking: for a checkout that moves to another machine, or to edit.

    Returns:
        How many files were put there now, and the folder.

    Raises:
        FileNotFoundError: if ``checkout`` is none; names what is missing.
        FileExistsError: if other files are in the way; names them, and no file has been written.
    """
    root = Path(checkout)
    for part in ("tools/train.py", "configs"):
        if not (root / part).exists():
            raise FileNotFoundError(
                f"{root}: no checkout of the host there, it has no {part}; give the folder that "
                "holds tools, configs and the host's package"
            )
    source, folder = configs_dir(), root / "configs" / "dos"
    files = [*source.glob("[!_]*.py"), *source.glob("*/*.py")]
    files = [file for file in files if file.parent.name not in FOREIGN]
    pairs = [(file, folder / file.relative_to(source)) for file in sorted(files)]
    folders = sorted({target.parent for _, target in pairs})
    for parent in folders:
        if parent.exists() and not parent.is_dir():
            raise FileExistsError(f"{parent} is a file, expected a folder or nothing")
    pairs = [(file, target) for file, target in pairs if not _same(file, target)]
    in_the_way = [str(target) for _, target in pairs if target.exists()]
    if in_the_way:
        raise FileExistsError(
            f"other files are in the way, move or delete them: {', '.join(in_the_way)}"
        )
    for parent in folders:
        parent.mkdir(parents=True, exist_ok=True)
    for file, target in pairs:
        target.unlink(missing_ok=True)  # at most a link that leads nowhere
        if copy:
            shutil.copyfile(file, target)
        else:
            target.symlink_to(file)
    return len(pairs), folder


def _same(file: Path, target: Path) -> bool:
    return target.is_file() and target.read_bytes() == file.read_bytes()
