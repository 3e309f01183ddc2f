"""The config that training writes beside its checkpoints, read without a host."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def config_beside(checkpoint: str | Path) -> Path | None:
    """The config of the run of a checkpoint (``<run>/model/*.pth``), None if there is none."""
    folder = Path(checkpoint).absolute().parent
    found = [path / "config.py" for path in (folder.parent, folder)]
    path = next((path for path in found if path.is_file()), None)
    inside = path is not None and path.is_relative_to(Path.cwd())
    return path.relative_to(Path.cwd()) if path and inside else path


def read_literals(path: str | Path) -> dict[str, Any]:
    """The values of a config file of literals, as training dumps it; none of its code is run.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no Python, or holds anything but assignments of literals and
            ``dict(...)``; names the line.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such config file")
    try:
        statements = ast.parse(Path(path).read_text()).body
    except (SyntaxError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: is no Python file ({error})") from error
    values: dict[str, Any] = {}
    for statement in statements:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue  # the docstring
        try:
            target = statement.targets[0] if isinstance(statement, ast.Assign) else None
            if not isinstance(target, ast.Name):
                raise ValueError("expected an assignment")
            values[target.id] = _value(statement.value, values)  # type: ignore[attr-defined]
        except ValueError as error:
            raise ValueError(
                f"{path}, line {statement.lineno}: {error}; expected the config.py that training "
                "writes into its folder"
            ) from error
    if "_base_" in values:
        raise ValueError(f"{path}: builds on {values['_base_']}, expected a config without _base_")
    return values


def plain(value: Any) -> Any:
    """A config value as dicts, lists, tuples, numbers and strings of Python's own."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(item) for item in value)
    return value


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:
    """A literal, where names assigned before and ``dict(key=value)`` count as literals, too."""
    if isinstance(node, (ast.List, ast.Tuple)):
        items = [_value(item, names) for item in node.elts]
        return items if isinstance(node, ast.List) else tuple(items)
    if isinstance(node, ast.Dict) and None not in node.keys:
        keys = [_value(key, names) for key in node.keys if key is not None]
        return dict(zip(keys, (_value(value, names) for value in node.values)))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        if not node.args and all(word.arg for word in node.keywords):
            return {str(word.arg): _value(word.value, names) for word in node.keywords}
    if isinstance(node, ast.Name) and node.id in names:
        return names[node.id]
    return ast.literal_eval(node)
