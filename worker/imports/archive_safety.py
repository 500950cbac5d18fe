"""What a ZIP must not be: a bomb, a link, a way out of its own folder. Judged by its directory alone."""

import stat
import unicodedata
import zipfile
from itertools import pairwise
from typing import BinaryIO

from shared.errors import ArchiveTooLarge, ArchiveUnsafe, ImportFileBroken, PathRefused
from shared.paths import normalise_relative

MAX_DIRECTORY_BYTES = 128 * 1024 * 1024  # zipfile makes some 700 bytes of every 80 of it
# Photos hardly shrink and tables shrink 5 to 20 fold; a bomb of zeros shrinks 1,000 fold.
MAX_RATIO = 100
RATIO_FREE_BYTES = 10 * 1024 * 1024
_LOCAL_HEADER_BYTES = 30
_ENCRYPTED, _UTF8_NAME = 0x1, 0x800
# The others need up to 4 GB of memory for one member (LZMA), or aren't known to zipfile (Deflate64).
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class DirectoryGuard:
    """A file that refuses reads whose length a ZIP dictates: that of its directory, which zipfile reads at once."""

    def __init__(self, file: BinaryIO) -> None:
        self.limit_bytes: int | None = MAX_DIRECTORY_BYTES
        self.attach(file)

    def attach(self, file: BinaryIO) -> None:
        """Go on with another opening of the same file."""
        self._read = file.read
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        """Read as the file does."""
        if self.limit_bytes is not None and size > self.limit_bytes:
            raise ArchiveTooLarge("The ZIP's directory alone is too large. Send the catalogue in parts.")
        return self._read(size)


def refuse_bombs(infos: list[zipfile.ZipInfo], end: int, max_unpacked_bytes: int) -> None:
    """Refuse members that are packed far more tightly than photos and tables are.

    Args:
        infos: all members.
        end: where they end and the directory begins.
        max_unpacked_bytes: most bytes that all together may have.

    Raises:
        ArchiveTooLarge: by the declared sizes, which zipfile holds members to; or where members overlap.
        ImportFileBroken: a member lies before the file's first byte.
    """
    total = sum(info.file_size for info in infos)
    if total > max_unpacked_bytes:
        raise ArchiveTooLarge(
            f"The ZIP would unpack to {total:,} bytes; it may to {max_unpacked_bytes:,}. Send it in parts."
        )
    for info in infos:
        if info.file_size > RATIO_FREE_BYTES and info.file_size > MAX_RATIO * info.compress_size:
            raise ArchiveTooLarge(
                f"{info.filename[:200]!r} would unpack from {info.compress_size:,} to {info.file_size:,} bytes; "
                f"at most {MAX_RATIO} times as many are unpacked. Leave it out."
            )
    # Members that share their bytes unpack to far more than the file has, without a suspicious ratio.
    starts = sorted((info.header_offset, info.compress_size) for info in infos)
    for (start, size), (following, _) in pairwise([*starts, (end, 0)]):
        if start < 0:
            raise ImportFileBroken("The ZIP lacks its beginning. Was it written and sent completely?")
        if start + _LOCAL_HEADER_BYTES + size > following:
            raise ArchiveTooLarge("Members of the ZIP overlap, so that it would unpack to far more. Pack it anew.")


def safe_name(info: zipfile.ZipInfo) -> str | None:
    """Return the member's path in the archive; None for the archive's own folder.

    Raises:
        ArchiveUnsafe: the path leads out of the archive, or the member is a link or device.
        ImportFileBroken: it is encrypted, or packed with an unusual method.
    """
    raw = info.orig_filename
    if not info.flag_bits & _UTF8_NAME:
        raw = _as_utf8(raw)
    if info.is_dir() and raw in ("./", ".\\"):
        return None
    try:
        name = normalise_relative(raw)
    except PathRefused as error:
        raise ArchiveUnsafe(f"The ZIP has a member with an unsafe name. {error.detail}") from None
    mode = info.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ArchiveUnsafe(f"{name[:200]!r} in the ZIP is a link or device, not a file. Pack the file itself.")
    if info.flag_bits & _ENCRYPTED:
        raise ImportFileBroken(f"{name[:200]!r} in the ZIP is encrypted. Pack it without a password.")
    if info.compress_type not in _METHODS:
        raise ImportFileBroken(f"{name[:200]!r} in the ZIP is packed with an unusual method. Use Deflate, or none.")
    return composed(name)


def _as_utf8(name: str) -> str:
    # zipfile reads an unmarked name as cp437, but macOS writes UTF-8 unmarked
    try:
        return name.encode("cp437").decode()
    except UnicodeError:
        return name


def composed(name: str) -> str:
    """Return the name as tables write it: é as one character, where macOS packs two."""
    return unicodedata.normalize("NFC", name)


def is_hidden(name: str) -> bool:
    """Whether it is one of the files that systems add and people don't see."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))
