"""Telling what kind of file a catalogue is."""

from pathlib import PurePosixPath
from typing import BinaryIO, Literal

from shared.errors import ImportEmpty, ImportFormatUnknown

Format = Literal["csv", "ndjson", "parquet", "zip"]

SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".parquet": "parquet",
}
HEAD_BYTES = 64 * 1024
_OWN_MAGIC: tuple[tuple[bytes, Format], ...] = (
    (b"PAR1", "parquet"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),  # a ZIP without members
)
_FOREIGN_MAGIC = (
    (b"\x1f\x8b", "a gzip file: unpack it first"),
    (b"BZh", "a bzip2 file: unpack it first"),
    (b"\xfd7zXZ\x00", "an xz file: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd file: unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: pack it as ZIP"),
    (b"Rar!", "a RAR archive: pack it as ZIP"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook: save it as CSV UTF-8"),
    (b"\xff\xd8\xff", "a JPEG photo: import a table that names the photos, or search with it"),
    (b"\x89PNG", "a PNG photo: import a table that names the photos, or search with it"),
    (b"%PDF", "a PDF document: export the table as CSV UTF-8"),
)
_WORKBOOKS = (".xlsx", ".xlsm", ".ods")
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_BEFORE_TEXT = b"\xef\xbb\xbf\xff\xfe\x00 \t\r\n"
_ACCEPTED = "Send CSV, NDJSON (one JSON object a line), Parquet, or a ZIP of one of these and its photos"


def detect_format(file: BinaryIO, name: str = "", stated: Format | None = None) -> Format:
    """Tell the format from the content; the name decides only where the content leaves it open.

    Args:
        file: seekable; left at its start.
        name: the file's name, perhaps with folders.
        stated: what the client says it is. CSV against NDJSON is the client's word; binary formats must match.

    Raises:
        ImportEmpty: if the file has no bytes.
        ImportFormatUnknown: if it is none of the formats, or not the stated one.
    """
    file.seek(0)
    head = file.read(HEAD_BYTES)
    file.seek(0)
    if not head:
        raise ImportEmpty("The catalogue file has no bytes. Was it written completely?")
    found = _binary_format(head, PurePosixPath(name).suffix.lower())
    if stated is None:
        return found or _text_format(head, name)
    if stated != found and (found is not None or stated in ("parquet", "zip")):
        raise ImportFormatUnknown(
            f"The file was said to be {stated}, but its content is {found or 'text'}. Correct format, or omit it."
        )
    return stated


def _binary_format(head: bytes, suffix: str) -> Format | None:
    if suffix in _WORKBOOKS and head.startswith(b"PK"):
        raise ImportFormatUnknown("The file is a workbook: save its sheet as CSV UTF-8 and send that.")
    for magic, found in _OWN_MAGIC:
        if head.startswith(magic):
            return found
    for magic, what in _FOREIGN_MAGIC:
        if head.startswith(magic):
            raise ImportFormatUnknown(f"The file looks like {what}.")
    return None


def _text_format(head: bytes, name: str) -> Format:
    named = SUFFIXES.get(PurePosixPath(name).suffix.lower())
    if named in ("csv", "ndjson"):
        return named
    if named == "parquet":
        raise ImportFormatUnknown(
            "The file is named .parquet, but its content isn't Parquet. Was it written completely?"
        )
    if b"\0" in head and not head.startswith(_UTF16_MARKS):
        raise ImportFormatUnknown(f"The file is binary, but neither Parquet nor ZIP. {_ACCEPTED}.")
    text = head.lstrip(_BEFORE_TEXT)
    if text.startswith(b"["):
        raise ImportFormatUnknown(
            "The file is a JSON array. Write one object a line, for example with: jq -c '.[]' in.json > out.ndjson"
        )
    return "ndjson" if text.startswith(b"{") else "csv"
