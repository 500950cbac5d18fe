"""Where the photos that rows name come from."""

import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from shared.errors import ImageMissing, ImageTooLarge, UrlRefused
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
            BrokenImage: it can't be unpacked.
            PathRefused: the path is absolute or leads out of the catalogue's folder.
            UrlRefused, ImageFetchFailed: the URL may not be called, or gives nothing.
        """


class UrlImages:
    """Photos of a catalogue that came alone: URLs."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch

    def read(self, reference: str) -> bytes:
        """Fetch the URL; see ImageSource."""
        if _HTTP.match(reference):
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

    def _read_file(self, path: str) -> bytes:
        file = resolve_below(self._root, posixpath.join(self._folder, normalise_relative(path)))
        try:
            if not file.is_file():  # neither a folder nor a pipe, which would block
                raise FileNotFoundError("no such file")
            with file.open("rb") as opened:
                content = opened.read(self._max_bytes + 1)
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
