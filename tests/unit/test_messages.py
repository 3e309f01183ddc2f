"""Errors, lists of names and warnings, in one line each."""

import logging

from dos_plugin import messages
from dos_plugin.messages import one_line, some, warn_counted


def test_one_line():
    assert one_line(ValueError("one\ntwo")) == "one"
    assert one_line(ValueError("\n  one  \n")) == "one"
    assert one_line(KeyError("no key")) == "no key"
    assert one_line(KeyError("model")) == "KeyError: model"  # a bare key says nothing
    assert one_line(RuntimeError("boom")) == "RuntimeError: boom"
    assert one_line(ZeroDivisionError()) == "ZeroDivisionError"
    worker = "Caught ValueError in DataLoader worker process 0.\nTraceback\nValueError: bad file"
    assert one_line(ValueError(worker)) == "ValueError: bad file"


def test_some():
    assert some(["a"]) == "a"
    assert some(["a", "b", "c"], limit=2) == "a, b and 1 more"
    assert some([]) == ""


def test_warnings_thin_out(monkeypatch, caplog):
    monkeypatch.setattr(messages, "_counts", type(messages._counts)())
    with caplog.at_level(logging.WARNING, "dos_plugin"):
        for _ in range(120):
            warn_counted("odd", "again")
        warn_counted("other", "once")
    numbers = [message.rpartition("no. ")[2] for message in caplog.messages]
    assert numbers == ["1]", "2]", "3]", "10]", "100]", "1]"]
