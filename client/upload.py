"""Bodies that are streamed from disk, so that a catalogue of any size needs no memory."""

import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO

CHUNK_BYTES = 256 * 1024


class MultipartFile:
    """multipart/form-data of some text fields and one file, sent chunk by chunk.

    `requests` takes its length from `__len__` and its content from `__iter__`.
    """

    def __init__(
        self, fields: Mapping[str, str], file: BinaryIO, name: str, on_sent: Callable[[int, int], None]
    ) -> None:
        """Prepare the body.

        Args:
            fields: text fields, by name.
            file: opened for reading in binary mode and seekable; sent as field `file`.
            name: file name that the server is told.
            on_sent: called with the bytes sent so far and the bytes in all, after each chunk.
        """
        boundary = secrets.token_hex(16)
        safe_name = name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
        head = "".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'
            for field, value in fields.items()
        )
        head += (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{safe_name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        self.content_type = f"multipart/form-data; boundary={boundary}"
        self._head = head.encode()
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self._file = file
        self._on_sent = on_sent
        self._length = len(self._head) + file.seek(0, 2) + len(self._tail)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(0)
        sent = 0
        for chunk in self._chunks():
            yield chunk
            sent += len(chunk)
            self._on_sent(sent, self._length)

    def _chunks(self) -> Iterator[bytes]:
        yield self._head
        while chunk := self._file.read(CHUNK_BYTES):
            yield chunk
        yield self._tail


class PlainFile:
    """A file as a body of its own, sent chunk by chunk; see MultipartFile."""

    def __init__(self, file: BinaryIO, on_sent: Callable[[int, int], None]) -> None:
        """Prepare the body.

        Args:
            file: opened for reading in binary mode and seekable.
            on_sent: called with the bytes sent so far and the bytes in all, after each chunk.
        """
        self._file = file
        self._on_sent = on_sent
        self._length = file.seek(0, 2)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(0)
        sent = 0
        while chunk := self._file.read(CHUNK_BYTES):
            yield chunk
            sent += len(chunk)
            self._on_sent(sent, self._length)
