"""What a stand-in cannot do: importing it is fine, calling it is a clear error."""

from types import ModuleType
from typing import NoReturn


class Refused:
    """A name of an absent package: its attributes are refused names too, a call raises.

    Args:
        name: dotted name as the user would write it.
        advice: what to do instead; ends the error message.
    """

    def __init__(self, name: str, advice: str) -> None:
        self._name = name
        self._advice = advice

    def __call__(self, *args: object, **kwargs: object) -> NoReturn:
        """Raises NotImplementedError naming the operator and what to do."""
        raise NotImplementedError(
            f"{self._name} was called, but this machine lacks it and dos_plugin.cpu has no "
            f"stand-in for it: {self._advice}"
        )

    def __getattr__(self, name: str) -> "Refused":
        if name.startswith("__"):
            raise AttributeError(f"{self._name}.{name} does not exist in this CPU stand-in")
        return Refused(f"{self._name}.{name}", self._advice)

    def __repr__(self) -> str:
        return f"<{self._name}, refused by dos_plugin.cpu>"


class StandInModule(ModuleType):
    """A module made up by dos_plugin.cpu: names it was not given are ``Refused``."""

    advice = ""

    def __getattr__(self, name: str) -> Refused:
        if name.startswith("__"):
            raise AttributeError(f"{self.__name__}.{name} does not exist in this CPU stand-in")
        return Refused(f"{self.__name__}.{name}", self.advice)
