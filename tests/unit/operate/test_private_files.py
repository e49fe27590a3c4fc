"""Folders and secrets on disk that no other user of the machine can read."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.operate import private_files


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(autouse=True)
def permissive_umask() -> Iterator[None]:
    """The umask of a user whose new files anybody may read."""
    before = os.umask(0)
    yield
    os.umask(before)


def test_a_made_folder_is_closed_to_others(tmp_path: Path) -> None:
    """The mode does not depend on the umask."""
    private_files.make_private(tmp_path / "a" / "b")
    assert _mode(tmp_path / "a" / "b") == 0o700


def test_an_open_folder_is_closed(tmp_path: Path) -> None:
    """Data folders of earlier versions were open to all users."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o755)
    private_files.make_private(folder)
    assert _mode(folder) == 0o700


def test_folders_above_stay_as_they_are(tmp_path: Path) -> None:
    """Only the mode of the data folder changes."""
    tmp_path.chmod(0o750)
    private_files.make_private(tmp_path / "data")
    assert _mode(tmp_path) == 0o750


def test_a_secret_stays_the_same(tmp_path: Path) -> None:
    """Tokens stay valid after a restart."""
    path = tmp_path / "secret.txt"
    first = private_files.kept_secret(path)
    assert len(first) == 64
    assert private_files.kept_secret(path) == first


def test_a_secret_is_closed_to_others(tmp_path: Path) -> None:
    """Mode 0600, also for a file that was open before."""
    path = tmp_path / "secret.txt"
    private_files.kept_secret(path)
    assert _mode(path) == 0o600
    path.chmod(0o644)
    private_files.kept_secret(path)
    assert _mode(path) == 0o600


def test_an_empty_secret_file_is_replaced(tmp_path: Path) -> None:
    """A crash of an earlier version could leave the file empty."""
    path = tmp_path / "secret.txt"
    path.touch()
    assert len(private_files.kept_secret(path)) == 64
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret.txt"]


def test_a_link_in_the_place_of_a_secret_is_refused(tmp_path: Path) -> None:
    """A symbolic link could point to a value that somebody else chose."""
    (tmp_path / "theirs").write_text("known")
    (tmp_path / "secret.txt").symlink_to(tmp_path / "theirs")
    with pytest.raises(OSError, match=r"secret\.txt"):
        private_files.kept_secret(tmp_path / "secret.txt")


def test_concurrent_first_calls_get_one_secret(tmp_path: Path) -> None:
    """Processes that start together on one data folder accept each other's signatures."""
    path = tmp_path / "secret.txt"
    barrier = threading.Barrier(8)
    seen = []

    def begin() -> None:
        barrier.wait(10)
        seen.append(private_files.kept_secret(path))

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(seen) == 8
    assert len(set(seen)) == 1


def test_a_socket_is_in_the_data_folder(tmp_path: Path) -> None:
    """If the path is short and without special characters."""
    folder = Path("/tmp/data")
    assert private_files.socket_folder(folder, "redis.sock") == folder


@pytest.mark.parametrize("name", ["x" * 120, "a,b", "with space", "é"])
def test_an_unsuitable_path_gets_a_temporary_socket_folder(tmp_path: Path, name: str) -> None:
    """`sun_path` holds about 100 bytes, and a Postgres URL splits its hosts at commas."""
    folder = private_files.socket_folder(tmp_path / name, "redis.sock")
    try:
        assert folder.parent != tmp_path
        assert _mode(folder) == 0o700
        assert list(folder.iterdir()) == []
    finally:
        folder.rmdir()
