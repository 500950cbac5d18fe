"""A ZIP of a catalogue and its photos, opened without trusting it: nothing is unpacked before all of it was judged."""

import struct
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import BinaryIO, Self

from shared.errors import BrokenImage, ImageMissing, ImageTooLarge, ImportFileBroken, ImportFormatUnknown
from shared.paths import normalise_relative
from worker.imports.archive_safety import DirectoryGuard, composed, is_hidden, refuse_bombs, safe_name
from worker.imports.formats import SUFFIXES

_COPY_BYTES = 1024 * 1024
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError, OverflowError)


class Archive:
    """An opened ZIP: one manifest (the table), and members that are found relative to its folder.

    Threads may share it.

    Attributes:
        manifest_name: path of the manifest in the ZIP.
    """

    def __init__(
        self,
        opened: zipfile.ZipFile,
        file: DirectoryGuard,
        members: dict[str, zipfile.ZipInfo],
        max_member_bytes: int,
    ) -> None:
        self._zip = opened
        self._file = file
        self._members = members
        self._max_member_bytes = max_member_bytes
        self.manifest_name = _find_manifest(members)
        self._folder = PurePosixPath(self.manifest_name).parent
        self._lock = threading.Lock()  # ZipFile counts its open members without one

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the ZIP; the file itself is the caller's to close."""
        self._zip.close()

    def attach(self, file: BinaryIO) -> None:
        """Read from another opening of the same file from now on."""
        self._file.attach(file)

    def open_manifest(self) -> BinaryIO:
        """Return the unpacked manifest: a temporary file, seekable, which is gone when it is closed.

        Raises:
            ImportFileBroken: if it is damaged.
        """
        unpacked = tempfile.TemporaryFile()  # noqa: SIM115  # the caller closes it
        try:
            with self._lock, self._zip.open(self._members[self.manifest_name]) as packed:
                while chunk := packed.read(_COPY_BYTES):
                    unpacked.write(chunk)
        except _ZIP_ERRORS as error:
            unpacked.close()
            raise ImportFileBroken(f"{self.manifest_name!r} in the ZIP is damaged: {error}. Pack it anew.") from None
        unpacked.seek(0)
        return unpacked

    def read_member(self, name: str) -> bytes:
        """Return the bytes of a member.

        Args:
            name: path relative to the manifest's folder.

        Raises:
            ImageMissing: if there is no such member.
            ImageTooLarge: if it has more bytes than one member may have.
            BrokenImage: if it is damaged.
            PathRefused: if the path is absolute or leads out of the folder.
        """
        path = str(self._folder / composed(normalise_relative(name)))
        member = self._members.get(path)
        if member is None:
            raise ImageMissing(
                f"The ZIP has no {path[:200]!r}. Paths begin at the table's folder; case and spelling must match."
            )
        try:
            # Not the declared size: that is the packer's word.
            with self._lock, self._zip.open(member) as packed:
                content = packed.read(self._max_member_bytes + 1)
        except _ZIP_ERRORS as error:
            raise BrokenImage(f"{path[:200]!r} in the ZIP is damaged: {error}. Pack it anew.") from None
        if len(content) > self._max_member_bytes:
            raise ImageTooLarge(
                f"{path[:200]!r} in the ZIP has more than {self._max_member_bytes:,} bytes. Pack a smaller version."
            )
        return content


def open_archive(file: BinaryIO, *, max_unpacked_bytes: int, max_member_bytes: int) -> Archive:
    """Judge all of the ZIP's directory and open it; nothing is unpacked yet.

    Hidden files and __MACOSX are as if they weren't there.

    Args:
        file: seekable; stays open as long as the archive is used.
        max_unpacked_bytes: most bytes that all members together may have.
        max_member_bytes: most bytes of one photo.

    Raises:
        ImportFileBroken: it is no ZIP, damaged, encrypted, or packed with an unusual method.
        ArchiveUnsafe: a member's name leads out of the archive, or it is a link.
        ArchiveTooLarge: it would unpack to more than it may, or is built to.
        ImportFormatUnknown: it doesn't hold exactly one table in its uppermost folder with one.
    """
    guard = DirectoryGuard(file)
    try:
        opened = zipfile.ZipFile(guard)  # it reads, seeks and tells: zipfile needs no more
    except _ZIP_ERRORS as error:
        raise ImportFileBroken(f"The ZIP can't be read: {error}. Was it written and sent completely?") from None
    guard.limit_bytes = None
    infos = opened.infolist()
    refuse_bombs(infos, opened.start_dir, max_unpacked_bytes)
    members = {name: info for info in infos if (name := safe_name(info)) and not info.is_dir()}
    shown = {name: info for name, info in members.items() if not is_hidden(name)}
    return Archive(opened, guard, shown, max_member_bytes)


class LastArchive:
    """Remembers the archive that was read last: each chunk of an import reads from the same one.

    Only the directory, judged and parsed, is remembered; the file is opened for each use, so that none is held open,
    and none is missed when it is gone. An archive in use belongs to who took it: threads never share one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: tuple[Hashable, Archive] | None = None

    @contextmanager
    def opened(self, identity: Hashable, file: BinaryIO, open_new: Callable[[BinaryIO], Archive]) -> Iterator[Archive]:
        """Give the archive that `file` holds, which `open_new` opens unless it is the last one.

        Args:
            identity: equal for two files only if they have the same bytes.
            file: open as long as the block.
            open_new: judges and opens the archive.
        """
        with self._lock:
            known, self._known = self._known, None
        if known is not None and known[0] == identity:
            archive = known[1]
            archive.attach(file)
        else:
            archive = open_new(file)
        yield archive
        with self._lock:
            self._known = (identity, archive)


def _find_manifest(names: Iterable[str]) -> str:
    tables = [name for name in names if PurePosixPath(name).suffix.lower() in SUFFIXES]
    if not tables:
        raise ImportFormatUnknown(f"The ZIP holds no table. Add one whose name ends with {', '.join(SUFFIXES)}.")
    depth = min(name.count("/") for name in tables)
    uppermost = sorted(name for name in tables if name.count("/") == depth)
    if len(uppermost) > 1:
        raise ImportFormatUnknown(
            f"The ZIP holds several tables: {', '.join(map(repr, uppermost[:10]))}. Leave all but one out."
        )
    return uppermost[0]
