"""Files that are written completely or not at all."""

import pytest

from dos_plugin.whole_file import write_whole


def test_a_file_is_complete_or_as_it_was(tmp_path):
    path = tmp_path / "config.py"
    path.write_text("old")

    def fails(file):
        file.write_text("ne")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(path, fails)
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1
    write_whole(path, lambda file: file.write_text("new"))
    assert path.read_text() == "new" and len(list(tmp_path.iterdir())) == 1
