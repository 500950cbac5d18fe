"""Where the photos that rows name come from."""

import errno
import os
import posixpath
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from shared.errors import ImageMissing, ImageTooLarge, UrlRefused
from shared.image_metadata import without_metadata
from shared.paths import normalise_relative, resolve_below
from worker.imports.archive import Archive

# Given a URL, returns the bytes behind it, within limits of time, size and address.
Fetch = Callable[[str], bytes]

_HTTP = re.compile(r"https?://", re.IGNORECASE)
_OTHER_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://|data:", re.IGNORECASE)


class ImageSource(Protocol):
    """Reads the photos of one catalogue."""

    def read(self, reference: str) -> bytes:
        """Return the bytes that an http(s) URL or a relative path names. They may be no image.

        Raises:
            ImageMissing: there is no such file.
            ImageTooLarge: it has too many bytes.
            BrokenImage: it can't be unpacked, or is damaged.
            PathRefused: the path is absolute or leads out of the catalogue's folder.
            UrlRefused, ImageFetchFailed: the URL may not be called, or gives nothing.
        """


class WithoutMetadata:
    """The photos of another source, as they are kept: without what their files tell besides the picture."""

    def __init__(self, source: ImageSource) -> None:
        self._source = source

    def read(self, reference: str) -> bytes:
        """Read a photo; see ImageSource."""
        return without_metadata(self._source.read(reference))


class UrlImages:
    """Photos of a catalogue that came alone: URLs."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch

    def read(self, reference: str) -> bytes:
        """Fetch the URL; see ImageSource."""
        if is_url(reference):
            return self._fetch(reference)
        if _OTHER_SCHEME.match(reference):
            raise UrlRefused(f"The image {reference[:200]!r} is neither an http(s) URL nor a relative path.")
        return self._read_file(reference)

    def _read_file(self, path: str) -> bytes:
        raise ImageMissing(
            f"The image {path[:200]!r} is a path, but this catalogue came without photos. "
            "Send a ZIP of the table and its photos, or name them by http(s) URL."
        )


class ArchiveImages(UrlImages):
    """Photos of a catalogue in a ZIP: its members, and URLs."""

    def __init__(self, archive: Archive, fetch: Fetch) -> None:
        super().__init__(fetch)
        self._archive = archive

    def _read_file(self, path: str) -> bytes:
        return self._archive.read_member(path)


class FolderImages(UrlImages):
    """Photos of a catalogue on the server: files in and below its folder, and URLs."""

    def __init__(self, root: Path, folder: str, fetch: Fetch, max_bytes: int) -> None:
        """Args:
        root: the import root; links may lead anywhere in it, but not out of it.
        folder: the catalogue file's folder, relative to root; empty for root itself.
        fetch: for URLs.
        max_bytes: most bytes of one file.
        """
        super().__init__(fetch)
        self._root = root
        self._folder = folder
        self._max_bytes = max_bytes
        self._resolved: dict[str, str] = {}

    def _read_file(self, path: str) -> bytes:
        folder, _, name = posixpath.join(self._folder, normalise_relative(path)).rpartition("/")
        try:
            descriptor = self._open(folder, name)
            try:
                found = os.fstat(descriptor)
                if not stat.S_ISREG(found.st_mode):
                    raise FileNotFoundError("no such file")
                content = os.read(descriptor, min(found.st_size, self._max_bytes) + 1)
            finally:
                os.close(descriptor)
        except OSError as error:
            reason = error.strerror or error
            raise ImageMissing(
                f"The image {path[:200]!r} can't be read ({reason}). Paths begin at the table's folder."
            ) from None
        if len(content) > self._max_bytes:
            raise ImageTooLarge(
                f"The image {path[:200]!r} has more than {self._max_bytes:,} bytes. Send a smaller version."
            )
        return content

    def _open(self, folder: str, name: str) -> int:
        """Open a file below the root; a pipe too, but without waiting for who writes to it."""
        resolved = self._resolved.get(folder)
        if resolved is None:
            # Once for all files of a folder: to follow each path anew takes three times as long as to read its file.
            resolved = str(resolve_below(self._root, folder) if folder else self._root.resolve())
            self._resolved[folder] = resolved
        try:
            return os.open(f"{resolved}/{name}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
        return os.open(resolve_below(self._root, f"{folder}/{name}".lstrip("/")), os.O_RDONLY | os.O_NONBLOCK)


def is_url(reference: str) -> bool:
    """Tell whether a reference names a photo that must be fetched."""
    return _HTTP.match(reference) is not None
