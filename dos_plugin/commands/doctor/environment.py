"""Rows about Python and the packages of this environment."""

import importlib.util
import platform
import re
from collections.abc import Iterator
from importlib import metadata

from dos_plugin.commands.doctor.rows import Row


def environment_rows(real_host: bool) -> Iterator[Row]:
    """Rows about this environment.

    Args:
        real_host: Pointcept or a fork is the active host; the embedded host needs less.
    """
    yield Row("ok", "python", platform.python_version())
    try:
        import torch
    except Exception as error:  # whatever a broken installation raises
        yield Row("missing", "torch", f"{type(error).__name__}: {error}", "pip install torch")
        return
    yield Row("ok", "torch", torch.__version__)
    cuda = torch.cuda.is_available()
    if cuda:
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        yield Row("ok", "CUDA", f"{torch.version.cuda}: {len(names)} x {names[0]}")
    elif real_host:
        yield Row(
            "warn",
            "CUDA",
            "none: the host's scripts run only through the CPU runner, for small trials",
            "python -m dos_plugin.cpu tools/train.py ...",
        )
    else:
        yield Row("ok", "CUDA", "none: the embedded host trains on the CPU, for small trials")
    yield spconv_row(installed_spconv(), torch.version.cuda, cuda)
    yield _flash_row(cuda)
    yield _scatter_row(cuda, real_host)


def installed_spconv() -> dict[str, str]:
    """Distributions that bring spconv, with their versions: one of each CUDA version, or CPU."""
    found = {}
    for distribution in metadata.distributions():
        name = (distribution.metadata["Name"] or "").lower()
        if re.fullmatch(r"spconv(-cu\d+)?", name):
            found[name] = distribution.version
    return found


def spconv_row(installed: dict[str, str], torch_cuda: str | None, cuda: bool) -> Row:
    """Whether the flavour of spconv fits torch.

    Args:
        installed: version of each installed distribution of spconv.
        torch_cuda: CUDA version torch was built for, None for a CPU build.
        cuda: a CUDA device is at hand.
    """
    wanted = f"spconv-cu{torch_cuda.split('.')[0]}0" if torch_cuda and cuda else "spconv"
    install = f"pip install {wanted}"
    if torch_cuda and cuda and int(torch_cuda.split(".")[0]) not in (11, 12):
        install = "install a torch built for CUDA 12, then: pip install spconv-cu120"
    if not installed:
        return Row("missing", "spconv", "not installed; PTv3 and SpUNet need it", install)
    found = ", ".join(f"{name} {version}" for name, version in sorted(installed.items()))
    replace = f"pip uninstall -y {' '.join(sorted(installed))} && {install}"
    if len(installed) > 1:
        return Row("warn", "spconv", f"{found}: several flavours overwrite each other", replace)
    (name,) = installed
    flavour = re.search(r"cu(\d+)", name)
    if not cuda:
        note = " (CPU)" if flavour is None else ", a CUDA flavour on a machine without CUDA"
        return Row("ok" if flavour is None else "warn", "spconv", found + note)
    if flavour is None:
        return Row("missing", "spconv", f"{found}: a CPU flavour, but torch uses CUDA", replace)
    if torch_cuda and flavour[1][:2] != torch_cuda.split(".")[0]:
        return Row(
            "missing",
            "spconv",
            f"{found} is for CUDA {flavour[1][:2]}, torch for CUDA {torch_cuda}",
            replace,
        )
    return Row("ok", "spconv", f"{found}, fits CUDA {torch_cuda}")


def _flash_row(cuda: bool) -> Row:
    if importlib.util.find_spec("flash_attn") is None:
        found = "not installed; only backbones with enable_flash=True need it"
        mend = "pip install flash-attn --no-build-isolation" if cuda else ""
        return Row("warn" if cuda else "ok", "flash-attn", found, mend)
    return Row("ok", "flash-attn", _version("flash_attn"))


def _scatter_row(cuda: bool, real_host: bool) -> Row:
    if not real_host:
        return Row("ok", "torch-scatter", "not needed by the embedded host")
    if importlib.util.find_spec("torch_scatter") is not None:
        return Row("ok", "torch-scatter", _version("torch_scatter"))
    if cuda:
        install = "pip install torch-scatter --no-build-isolation"
        return Row("missing", "torch-scatter", "not installed; the host imports it", install)
    return Row("ok", "torch-scatter", "not installed; the CPU runner stands in for it")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "installed, version unknown"
