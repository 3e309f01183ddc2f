"""Processes started by an activated one: they get the stand-ins too.

Forked children inherit everything. Spawned ones and the fork server are fresh interpreters, which
would import the host without stand-ins.
"""

import multiprocessing
from multiprocessing import spawn

_ACTIVATE = "from dos_plugin.cpu import activate; activate(announce=False); "


def install() -> None:
    """Lets children that this process spawns activate before they import anything else."""
    original = spawn.get_command_line

    def get_command_line(**options: object) -> list[str]:
        command = original(**options)
        if "-c" in command:
            program = command.index("-c") + 1
            command[program] = _ACTIVATE + command[program]
        return command

    spawn.get_command_line = get_command_line
    multiprocessing.set_forkserver_preload(["dos_plugin.cpu.activated"])
