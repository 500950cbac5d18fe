"""Many images kept together: as safe as one by one."""

import hashlib
import os
from pathlib import Path

import pytest

from shared.store import Store

PHOTOS = [bytes([number]) * (100_000 + number) for number in range(8)]


def images_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("url", ["{folder}", "memory://{folder}"])
def test_images_are_kept_each_under_its_hash(tmp_path: Path, url: str) -> None:
    store = Store(url.format(folder=tmp_path))
    store.put_images(PHOTOS[:1])
    hashes = store.put_images([*PHOTOS, PHOTOS[3]])
    assert hashes == [hashlib.sha256(photo).hexdigest() for photo in [*PHOTOS, PHOTOS[3]]]
    assert [store.image(sha256) for sha256 in hashes] == [*PHOTOS, PHOTOS[3]]
    assert store.put_images([]) == []


def test_images_appear_once_all_are_on_the_disk_and_their_folders_are_synced_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[Path, int]] = []  # what was synced, and how many images could be seen then
    fsync = os.fsync

    def record(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append((path, sum(not image.name.endswith(".part") for image in images_in(tmp_path))))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    Store(str(tmp_path)).put_images(PHOTOS)
    count = len(PHOTOS)
    folders = {folder for path in images_in(tmp_path) for folder in path.parents if folder.is_relative_to(tmp_path)}
    assert [seen for _, seen in synced] == [0] * count + [count] * len(folders)
    assert {path for path, _ in synced[count:]} == folders, "those that hold new folders as well"
    synced.clear()
    with Store(str(tmp_path)).writing("uploads/a/catalogue.csv") as file:
        file.write(b"id")
    new = tmp_path / "uploads"
    assert {path for path, _ in synced[1:]} == {tmp_path, new, new / "a"}


def test_when_one_image_can_not_be_written_nothing_half_done_is_left(tmp_path: Path) -> None:
    blocked = tmp_path / Store.image_key(hashlib.sha256(PHOTOS[5]).hexdigest()).rpartition("/")[0]
    blocked.parent.mkdir(parents=True)
    blocked.touch()  # a file where the folder must be
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        Store(str(tmp_path)).put_images(PHOTOS)
    assert images_in(tmp_path) == [blocked]
