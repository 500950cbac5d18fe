import io
import stat
import struct
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.errors import (
    ArchiveTooLarge,
    ArchiveUnsafe,
    BrokenImage,
    ImageMissing,
    ImageTooLarge,
    ImportFileBroken,
    ImportFormatUnknown,
    LookalikeError,
    PathRefused,
)
from worker.imports import archive_safety
from worker.imports.archive import Archive, open_archive
from worker.imports.catalogue import open_catalogue

# A busy machine is no failure.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

MIB = 1024 * 1024
TABLE = b"id,image\na,images/a.jpg\n"


def pack(members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content, method)
    return file.getvalue()


def unpack(content: bytes, max_unpacked_bytes: int = 8 * MIB, max_member_bytes: int = MIB) -> Archive:
    return open_archive(io.BytesIO(content), max_unpacked_bytes=max_unpacked_bytes, max_member_bytes=max_member_bytes)


def test_the_manifest_is_read_as_a_catalogue_of_its_own() -> None:
    with unpack(pack({"products.csv": TABLE, "images/a.jpg": b"photo"})) as archive, archive.open_manifest() as file:
        (row,) = open_catalogue(file, archive.manifest_name)
        assert row.item_id == "a"
        assert archive.read_member("images/a.jpg") == b"photo"


@pytest.mark.parametrize("name", ["images/a.jpg", "./images/a.jpg", "images//a.jpg", r"images\a.jpg"])
@pytest.mark.parametrize("folder", ["", "shop/", "./shop/2024/"])
@pytest.mark.parametrize("packed_as", ["images/a.jpg", r"images\a.jpg"])
def test_members_are_found_relative_to_the_manifests_folder(name: str, folder: str, packed_as: str) -> None:
    archive = unpack(pack({f"{folder}products.csv": TABLE, f"{folder}{packed_as}": b"photo", "images/a.jpg/b": b""}))
    assert archive.read_member(name) == b"photo"


def test_names_match_whether_their_accents_are_composed_or_not_and_marked_as_utf8_or_not() -> None:
    decomposed = "gro\u0308\u00dfe.jpg"
    content = pack({"products.csv": TABLE, decomposed: b"photo"})
    unmarked = content.replace(struct.pack("<HH", 20, 0x800), struct.pack("<HH", 20, 0))
    assert content != unmarked
    for packed in (content, unmarked):
        assert unpack(packed).read_member("gr\u00f6\u00dfe.jpg") == b"photo"


@pytest.mark.parametrize(
    "name",
    [
        "../a.jpg",
        "images/../../a.jpg",
        "/etc/passwd",
        r"..\a.jpg",
        r"C:\a.jpg",
        "C:/a.jpg",
        r"\\host\a.jpg",
        "../",
        "a/../b",
    ],
)
def test_a_name_that_leads_out_of_the_archive_makes_it_unsafe(name: str) -> None:
    with pytest.raises(ArchiveUnsafe, match="unsafe name"):
        unpack(pack({"products.csv": TABLE, name: b""}))


def test_a_nul_in_a_name_makes_it_unsafe() -> None:
    with pytest.raises(ArchiveUnsafe):
        unpack(pack({"products.csv": TABLE, "aXb.jpg": b""}).replace(b"aXb.jpg", b"a\0b.jpg"))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_a_link_or_device_makes_it_unsafe(kind: int) -> None:
    member = zipfile.ZipInfo("images/a.jpg")
    member.create_system = 3
    member.external_attr = (kind | 0o777) << 16
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(member, b"/etc/passwd")
    with pytest.raises(ArchiveUnsafe, match="link or device"):
        unpack(file.getvalue())


def test_an_encrypted_member_breaks_it() -> None:
    content = bytearray(pack({"products.csv": TABLE}))
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.find(signature) + at] |= 1
    with pytest.raises(ImportFileBroken, match="encrypted"):
        unpack(bytes(content))


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_method_that_takes_memory_without_limit_breaks_it(method: int) -> None:
    with pytest.raises(ImportFileBroken, match="Deflate"):
        unpack(pack({"products.csv": TABLE}, method))


@pytest.fixture(scope="module")
def bomb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("bomb") / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("products.csv", TABLE)
        with archive.open("images/a.jpg", "w", force_zip64=True) as member:
            for _ in range(1024):
                member.write(bytes(MIB))
    yield path
    path.unlink()


class CountedFile(io.FileIO):
    """A file that knows how many bytes were read from it."""

    read_bytes = 0

    def read(self, size: int | None = -1) -> bytes:
        content = super().read(size) or b""
        self.read_bytes += len(content)
        return content


@pytest.mark.parametrize(("limit_bytes", "says"), [(1000 * MIB, "may to"), (8192 * MIB, "at most 100 times")])
def test_a_bomb_of_1_gb_is_refused_without_unpacking(bomb: Path, limit_bytes: int, says: str) -> None:
    with CountedFile(bomb) as file:
        with pytest.raises(ArchiveTooLarge, match=says):
            open_archive(file, max_unpacked_bytes=limit_bytes, max_member_bytes=MIB)
        assert file.read_bytes < 200_000, "only the directory is read"


def test_members_that_share_their_bytes_are_refused() -> None:
    content = bytearray(pack({"products.csv": TABLE, "a.jpg": b"a" * 1000, "b.jpg": b"b" * 1000}, zipfile.ZIP_STORED))
    _, second, third = (entry for entry in range(len(content)) if content[entry : entry + 4] == b"PK\x01\x02")
    content[third + 42 : third + 46] = content[second + 42 : second + 46]
    with pytest.raises(ArchiveTooLarge, match="overlap"):
        unpack(bytes(content))


def test_a_directory_that_takes_memory_without_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_safety, "MAX_DIRECTORY_BYTES", 1000)
    with pytest.raises(ArchiveTooLarge, match="directory"):
        unpack(pack({"products.csv": TABLE, **{f"{n}.jpg": b"" for n in range(50)}}))


def test_the_limit_of_the_directory_is_none_of_its_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_safety, "MAX_DIRECTORY_BYTES", 1000)
    archive = unpack(pack({"products.csv": TABLE, "a.jpg": bytes(5000)}, zipfile.ZIP_STORED))
    assert len(archive.read_member("a.jpg")) == 5000


def test_threads_share_an_archive() -> None:
    photos = {f"{n}.jpg": bytes([n]) * 50_000 for n in range(50)}
    with unpack(pack({"products.csv": TABLE, **photos})) as archive, ThreadPoolExecutor(8) as pool:
        assert list(pool.map(archive.read_member, photos)) == list(photos.values())


def test_a_member_beyond_its_limit_is_too_large_and_the_others_are_read() -> None:
    archive = unpack(
        pack({"products.csv": TABLE, "big.jpg": bytes(1001), "fits.jpg": bytes(1000)}), max_member_bytes=1000
    )
    with pytest.raises(ImageTooLarge, match=r"big\.jpg.*1,000 bytes"):
        archive.read_member("big.jpg")
    assert len(archive.read_member("fits.jpg")) == 1000


def test_a_member_that_unpacks_to_more_than_it_declares_is_broken() -> None:
    content = bytearray(pack({"products.csv": TABLE, "a.jpg": bytes(100_000)}))
    entry = content.rfind(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = struct.pack("<I", 10)
    archive = unpack(bytes(content))
    with pytest.raises(BrokenImage):
        archive.read_member("a.jpg")


def test_a_missing_member_is_named_with_the_path_that_was_looked_for() -> None:
    archive = unpack(pack({"shop/products.csv": TABLE, "images/a.jpg": b"photo"}))
    with pytest.raises(ImageMissing, match=r"shop/images/a\.jpg"):
        archive.read_member("images/a.jpg")


@pytest.mark.parametrize("name", ["../products.csv", "/shop/products.csv", ""])
def test_a_reference_cannot_leave_the_manifests_folder(name: str) -> None:
    with pytest.raises(PathRefused):
        unpack(pack({"shop/products.csv": TABLE})).read_member(name)


def test_a_damaged_member_is_broken() -> None:
    content = pack({"products.csv": TABLE, "a.jpg": b"photo" * 10}, zipfile.ZIP_STORED).replace(
        b"photophoto", b"photoPhoto"
    )
    with pytest.raises(BrokenImage, match="damaged"):
        unpack(content).read_member("a.jpg")
    content = pack({"products.csv": TABLE}, zipfile.ZIP_STORED).replace(b"id,image", b"ID,image")
    with pytest.raises(ImportFileBroken, match="damaged"):
        unpack(content).open_manifest()


@pytest.mark.parametrize("content", [b"", b"id,image\n", b"PK\x03\x04", pack({"products.csv": TABLE})[:-30]])
def test_what_is_no_zip_is_broken(content: bytes) -> None:
    with pytest.raises(ImportFileBroken):
        unpack(content)


def test_a_zip_without_its_first_bytes_is_broken() -> None:
    with pytest.raises(ImportFileBroken, match="beginning"):
        unpack(pack({"products.csv": TABLE})[5:])


def test_hidden_files_and_those_of_macos_are_not_there() -> None:
    hidden = {"__MACOSX/._products.csv": b"", ".cache/old.csv": b"", "._products.csv": b"", "images/.a.jpg": b"x"}
    archive = unpack(pack({"products.csv": TABLE, **hidden}))
    assert archive.manifest_name == "products.csv"
    with pytest.raises(ImageMissing):
        archive.read_member("images/.a.jpg")


@pytest.mark.parametrize("name", ["a.csv", "a.CSV", "a.tsv", "a.ndjson", "a.jsonl", "a.parquet"])
def test_the_uppermost_table_is_the_manifest(name: str) -> None:
    archive = unpack(pack({"shop/": b"", f"shop/{name}": TABLE, "shop/old/b.csv": TABLE, "readme.txt": b""}))
    assert archive.manifest_name == f"shop/{name}"


def test_several_tables_at_one_depth_are_listed() -> None:
    with pytest.raises(ImportFormatUnknown, match=r"'a\.csv', 'b\.ndjson'"):
        unpack(pack({"b.ndjson": b"", "a.csv": TABLE, "shop/c.csv": TABLE}))


def test_no_table_is_named_too() -> None:
    with pytest.raises(ImportFormatUnknown, match=r"\.parquet"):
        unpack(pack({"images/a.jpg": b""}))


def test_a_zip_in_the_zip_is_no_catalogue() -> None:
    archive = unpack(pack({"products.csv": pack({"products.csv": TABLE})}))
    with archive.open_manifest() as file, pytest.raises(ImportFormatUnknown, match="a ZIP itself"):
        open_catalogue(file, archive.manifest_name)


SMALL = pack({"shop/products.csv": TABLE, "shop/images/a.jpg": b"photo" * 50})


@patient
@given(st.dictionaries(st.integers(0, len(SMALL) - 1), st.integers(0, 255), max_size=4), st.integers(0, len(SMALL)))
def test_a_damaged_zip_is_named_or_harmless(damage: dict[int, int], cut: int) -> None:
    content = bytearray(SMALL)
    for position, byte in damage.items():
        content[position] = byte
    with suppress(LookalikeError), unpack(bytes(content[: cut or None])) as archive:
        archive.open_manifest().close()
        archive.read_member("images/a.jpg")


@pytest.mark.parametrize("position", range(len(SMALL) - 22, len(SMALL)))
def test_a_damaged_end_of_a_file_on_disk_is_named_or_harmless(tmp_path: Path, position: int) -> None:
    content = bytearray(SMALL)
    content[position] ^= 0xFF
    path = tmp_path / "damaged.zip"
    path.write_bytes(content)
    with path.open("rb") as file, suppress(ImportFileBroken, ArchiveTooLarge, ImportFormatUnknown):
        open_archive(file, max_unpacked_bytes=MIB, max_member_bytes=MIB).close()
