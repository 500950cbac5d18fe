import io
import os
import zipfile
from pathlib import Path

import pytest

from shared.errors import ImageMissing, ImageTooLarge, PathRefused, UrlRefused
from worker.imports.archive import open_archive
from worker.imports.images import ArchiveImages, FolderImages, ImageSource, UrlImages


def fetch(url: str) -> bytes:
    return f"behind {url}".encode()


def in_folder(tmp_path: Path) -> ImageSource:
    (tmp_path / "shop" / "images").mkdir(parents=True)
    (tmp_path / "shop" / "images" / "a.jpg").write_bytes(b"photo")
    (tmp_path / "shop" / "big.jpg").write_bytes(bytes(101))
    return FolderImages(tmp_path, "shop", fetch, max_bytes=100)


def in_archive(_: Path) -> ImageSource:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in {"shop/a.csv": b"", "shop/images/a.jpg": b"photo", "shop/big.jpg": bytes(101)}.items():
            archive.writestr(name, content)
    return ArchiveImages(open_archive(file, max_unpacked_bytes=1000, max_member_bytes=100), fetch)


@pytest.fixture(params=[in_folder, in_archive])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> ImageSource:
    made: ImageSource = request.param(tmp_path)
    return made


def test_a_relative_path_is_read_from_the_catalogues_folder(source: ImageSource) -> None:
    assert source.read("images/a.jpg") == b"photo"
    assert source.read(r".\images\a.jpg") == b"photo"


@pytest.mark.parametrize(
    "url", ["http://shop.example/a.jpg", "https://shop.example/../a.jpg", "HTTPS://shop.example/a"]
)
def test_a_url_is_fetched_as_it_stands(source: ImageSource, url: str) -> None:
    assert source.read(url) == fetch(url)


@pytest.mark.parametrize("path", ["images/b.jpg", "images", "a.jpg", "images/a.jpg/b", "IMAGES/a.jpg", "x" * 3000])
def test_a_file_that_is_not_there_is_missing(source: ImageSource, path: str) -> None:
    with pytest.raises(ImageMissing, match=path[:100]):
        source.read(path)


def test_a_file_beyond_the_limit_is_too_large(source: ImageSource) -> None:
    with pytest.raises(ImageTooLarge, match=r"big\.jpg.*100 bytes"):
        source.read("big.jpg")


@pytest.mark.parametrize("path", ["../shop/images/a.jpg", "/etc/passwd", "images/../../x", r"C:\a.jpg", "a\0b", ""])
def test_a_path_out_of_the_folder_is_refused(source: ImageSource, path: str) -> None:
    with pytest.raises(PathRefused):
        source.read(path)


@pytest.mark.parametrize(
    "url", ["ftp://shop.example/a.jpg", "file:///etc/passwd", "data:image/png;base64,AAAA", "s3://b/a"]
)
def test_other_urls_are_refused(source: ImageSource, url: str) -> None:
    with pytest.raises(UrlRefused, match="http"):
        source.read(url)


def test_a_catalogue_that_came_alone_has_urls_only() -> None:
    images = UrlImages(fetch)
    assert images.read("http://shop.example/a.jpg") == b"behind http://shop.example/a.jpg"
    with pytest.raises(ImageMissing, match="ZIP"):
        images.read("images/a.jpg")


def test_links_may_lead_to_other_folders_of_the_import_root_but_not_out_of_it(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for folder in (root / "shop", root / "photos", tmp_path / "private"):
        folder.mkdir(parents=True)
        (folder / "a.jpg").write_bytes(b"photo")
    (root / "shop" / "images").symlink_to(root / "photos")
    (root / "shop" / "private").symlink_to(tmp_path / "private")
    images = FolderImages(root, "shop", fetch, max_bytes=100)
    assert images.read("images/a.jpg") == b"photo"
    with pytest.raises(PathRefused, match="symbolic link"):
        images.read("private/a.jpg")


def test_a_pipe_is_no_photo_and_blocks_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(ImageMissing):
        FolderImages(tmp_path, "", fetch, max_bytes=100).read("a.jpg")
