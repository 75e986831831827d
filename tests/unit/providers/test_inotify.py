"""The kernel's notices: what counts as a change of a file, and what as one of folders."""

import asyncio
from pathlib import Path

import pytest

from pilothouse.providers.inotify import Inotify


async def told(notices: Inotify) -> frozenset[str] | None:
    """Return the next notice."""
    return await asyncio.wait_for(notices.changed(), 5)


async def test_a_file_is_told_of_when_it_is_whole(tmp_path: Path) -> None:
    """Not when it is created, but when its writer closes it or renames it into place."""
    with Inotify() as notices:
        assert notices.follow([str(tmp_path)])
        assert not notices.follow([str(tmp_path)]), "it is followed already"
        with (tmp_path / "a.yaml").open("w") as file:
            file.write("half")
            file.flush()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(notices.changed(), 0.1)
        assert await told(notices) == {f"{tmp_path}/a.yaml"}
        (tmp_path / "a.yaml").rename(tmp_path / "b.yaml")
        assert await told(notices) == {f"{tmp_path}/a.yaml", f"{tmp_path}/b.yaml"}
        (tmp_path / "c.yaml").symlink_to(tmp_path / "b.yaml")
        assert await told(notices) == {f"{tmp_path}/c.yaml"}
        (tmp_path / "c.yaml").unlink()
        assert await told(notices) == {f"{tmp_path}/c.yaml"}


async def test_changes_close_together_are_told_together(tmp_path: Path) -> None:
    """One notice for all files of one moment."""
    paths = [tmp_path / f"{index}.yaml" for index in range(50)]
    with Inotify() as notices:
        notices.follow([str(tmp_path)])
        for path in paths:
            path.write_text("whole")
        assert await told(notices) == {str(path) for path in paths}


async def test_folders_mean_look_everywhere(tmp_path: Path) -> None:
    """A new, a moved and a removed folder; and the followed folder itself."""
    root = tmp_path / "root"
    root.mkdir()
    with Inotify() as notices:
        notices.follow([str(root), str(tmp_path / "absent")])
        (root / "sub").mkdir()
        assert await told(notices) is None
        (root / "sub").rmdir()
        assert await told(notices) is None
        root.rmdir()
        assert await told(notices) is None
        root.mkdir()
        assert notices.follow([str(root)]), "the folder of the same name is another one"


async def test_a_folder_reached_by_two_paths_is_told_of_by_both(tmp_path: Path) -> None:
    """A link to a folder is the same folder to the kernel."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with Inotify() as notices:
        notices.follow([str(tmp_path / "real"), str(tmp_path / "link")])
        (tmp_path / "real" / "a.yaml").write_text("whole")
        assert await told(notices) == {f"{tmp_path}/real/a.yaml", f"{tmp_path}/link/a.yaml"}
