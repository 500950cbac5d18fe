"""The store of images and uploaded files: an fsspec folder, local or remote, images by the hash of their bytes."""

import errno
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from shared.errors import StoreFull

UPLOAD_TIME = "%Y%m%dT%H%M%S"
# What a disk, a quota and a limit on the size of files answer when there is no room.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Store:
    """Files by key. A file is there whole or not at all: it is written aside, synced and renamed."""

    def __init__(self, url: str) -> None:
        self._fs, self._root = fsspec.core.url_to_fs(url, auto_mkdir=True)
        self._is_local = isinstance(self._fs, LocalFileSystem)

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"

    @staticmethod
    def image_key(sha256: str) -> str:
        """Return the key of an image; two levels of folders keep each folder small."""
        return f"images/{sha256[:2]}/{sha256[2:4]}/{sha256}"

    def put_images(self, images: Sequence[bytes]) -> list[str]:
        """Keep images and return their SHA-256; a known one is not written again.

        Several together cost half as much as one by one.

        Raises:
            StoreFull: if there is no room; nothing is left of what was not written whole.
        """
        hashes = [hashlib.sha256(data).hexdigest() for data in images]
        by_key = {self.image_key(sha256): data for sha256, data in zip(hashes, images, strict=True)}
        new = {self._path(key): data for key, data in by_key.items() if not self.exists(key)}
        with _named_if_full():
            if self._is_local:
                self._write_local(new)
            else:
                for path, data in new.items():
                    self._fs.pipe_file(path, data)
        return hashes

    def image(self, sha256: str) -> bytes:
        """Read an image.

        Raises:
            FileNotFoundError: if it is not in the store.
        """
        return cast(bytes, self._fs.cat_file(self._path(self.image_key(sha256))))

    def exists(self, key: str) -> bool:
        """Tell whether there is a file."""
        return bool(self._fs.exists(self._path(key)))

    def names(self, prefix: str) -> list[str]:
        """Return the names of the files and folders in a folder; none if there is no such folder."""
        if not self.exists(prefix):
            return []
        return [path.rstrip("/").rpartition("/")[2] for path in self._fs.ls(self._path(prefix), detail=False)]

    def open(self, key: str) -> BinaryIO:
        """Open a file for reading; it can seek."""
        return cast(BinaryIO, self._fs.open(self._path(key), "rb"))

    @contextmanager
    def writing(self, key: str) -> Iterator[BinaryIO]:
        """Write a file; it appears under its key when the block ends well, and not at all when it raises.

        Raises:
            StoreFull: if there is no room.
        """
        path = self._path(key)
        with _named_if_full(), self._writing_local(path) if self._is_local else self._writing_remote(path) as file:
            yield file

    @contextmanager
    def _writing_local(self, path: str) -> Iterator[BinaryIO]:
        aside = Path(f"{path}.{uuid.uuid4().hex}.part")
        changed = {aside.parent}
        try:
            with _create(aside, changed) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
            _sync_folders(changed)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise

    def _write_local(self, files: Mapping[str, bytes]) -> None:
        """Write whole files; all are synced when it returns."""
        asides = {path: Path(f"{path}.{uuid.uuid4().hex}.part") for path in files}
        changed = {aside.parent for aside in asides.values()}
        try:
            with ExitStack() as opened:
                written = []
                for path, data in files.items():
                    file = opened.enter_context(_create(asides[path], changed))
                    file.write(data)
                    file.flush()
                    written.append(file)
                # Not before all are written: the disk takes them together, and the folders after all renames.
                for file in written:
                    os.fsync(file.fileno())
            for path, aside in asides.items():
                aside.replace(path)
            _sync_folders(changed)
        except BaseException:
            for aside in asides.values():
                aside.unlink(missing_ok=True)
            raise

    @contextmanager
    def _writing_remote(self, path: str) -> Iterator[BinaryIO]:
        # fsspec would end the upload of a half-written file as if it were whole; one of a whole file is atomic.
        with tempfile.NamedTemporaryFile() as file:
            yield cast(BinaryIO, file)
            file.flush()
            self._fs.put_file(file.name, path)

    @staticmethod
    def new_upload_folder() -> str:
        """Return a prefix for what one request brings; it begins with the time, by which leftovers are found."""
        return f"uploads/{datetime.now(UTC).strftime(UPLOAD_TIME)}-{uuid.uuid4().hex}"

    def remove_old_uploads(self, before: datetime, needed: Collection[str]) -> int:
        """Remove uploads that came before a moment, but for the needed ones; returns how many.

        Args:
            before: when they came at the latest.
            needed: keys of files that jobs still name.
        """
        kept = {key.split("/")[1] for key in needed}
        old = [
            name
            for name in self.names("uploads")
            if name < before.astimezone(UTC).strftime(UPLOAD_TIME) and name not in kept
        ]
        for name in old:
            self.remove_tree(f"uploads/{name}")
        return len(old)

    def put_stream(self, key: str, stream: BinaryIO) -> None:
        """Keep everything that a stream still holds."""
        with self.writing(key) as file:
            shutil.copyfileobj(stream, file, length=1024 * 1024)

    def remove_tree(self, prefix: str) -> None:
        """Remove a file, or all files below a prefix, if there are any."""
        if self._fs.exists(self._path(prefix)):
            self._fs.rm(self._path(prefix), recursive=True)


@contextmanager
def _named_if_full() -> Iterator[None]:
    """Name the one failure of a disk that people can mend by themselves."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise StoreFull(
            f"The store takes no more files: {error.strerror}. Make room, then send the same again."
        ) from error


def _create(path: Path, changed: set[Path]) -> BinaryIO:
    """Create a file, and its folder if need be; fsspec would ask for the folder each time.

    Args:
        path: what to create.
        changed: takes the folders that hold a new folder then.
    """
    try:
        return path.open("xb")
    except FileNotFoundError:
        changed.update(folder.parent for folder in path.parents if not folder.exists())
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("xb")


def _sync_folders(folders: Iterable[Path]) -> None:
    """Have the disk remember what is in folders: the database may name a file there the moment after."""
    for folder in folders:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
