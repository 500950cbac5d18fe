"""Packs a catalogue file and the images next to it into one ZIP, which is what the API takes."""

import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from client.catalogue import image_references, local_image, read_rows, relative_name


@contextmanager
def packed(
    file: Path, image_column: str | None, encoding: str, on_packed: Callable[[int], None] = lambda images: None
) -> Iterator[Path]:
    """Yield the file to upload: a temporary ZIP where rows name images by relative path, else the file itself.

    Args:
        file: the catalogue. A ZIP is taken as it is.
        image_column: column that names a row's images; None means the usual ones.
        encoding: text encoding of CSV and NDJSON.
        on_packed: called with the number of images packed so far.

    An image that is missing, or outside of the file's folder, is left out; the server then reports its row.
    """
    if not any(relative_name(reference) for reference in _references(file, image_column, encoding)):
        yield file
        return
    with tempfile.TemporaryDirectory(prefix="lookalike-import-") as folder:
        archive = Path(folder) / f"{file.stem}.zip"
        # Stored, not deflated: photos are compressed already.
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED, strict_timestamps=False) as packing:
            packing.write(file, file.name)
            names = {file.name}
            for reference in _references(file, image_column, encoding):
                name = relative_name(reference)
                image = local_image(file.parent, reference)
                if name is None or image is None or name in names:
                    continue
                packing.write(image, name)
                names.add(name)
                on_packed(len(names) - 1)
        yield archive


def _references(file: Path, image_column: str | None, encoding: str) -> Iterator[str]:
    for row in read_rows(file, encoding):
        yield from image_references(row, image_column)
