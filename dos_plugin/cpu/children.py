"""Processes started by this one: a module is imported there before anything else.

Forked children inherit everything. Spawned ones and the fork server are fresh interpreters, which
would import the host without stand-ins, or without what was registered.
"""

import multiprocessing
from multiprocessing import spawn

_modules: list[str] = []


def install(module: str) -> None:
    """Lets children that this process spawns import a module first, in the order of the calls."""
    if not _modules:
        original = spawn.get_command_line

        def get_command_line(**options: object) -> list[str]:
            command = original(**options)
            if "-c" in command:
                program = command.index("-c") + 1
                command[program] = f"import {', '.join(_modules)}; {command[program]}"
            return command

        spawn.get_command_line = get_command_line
    if module not in _modules:
        _modules.append(module)
    multiprocessing.set_forkserver_preload(list(_modules))
