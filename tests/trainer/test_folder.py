from pathlib import Path

import pytest

from trainer.folder import write_folder


def test_the_old_folder_stays_until_the_new_one_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Between the two renames there is a moment in which neither has it."""
    folder = tmp_path / "teacher"
    write_folder(lambda new: (new / "weights").write_text("old"), folder)
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_folder(lambda new: (new / "weights").write_text("new"), folder)
    monkeypatch.setattr(Path, "rename", rename)
    assert [path.name for path in tmp_path.iterdir()] == ["teacher"]
    assert (folder / "weights").read_text() == "old"
    write_folder(lambda new: (new / "weights").write_text("new"), folder)
    assert (folder / "weights").read_text() == "new"
