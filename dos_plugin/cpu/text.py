"""Stand-in for ``termcolor``: text without colours."""

__all__ = ["colored"]


def colored(text: object, *colour: object, **options: object) -> str:
    """Returns ``text`` unchanged; the host's log merely loses its colours."""
    return str(text)
