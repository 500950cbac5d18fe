"""What the demo decides by itself: which photo, which folder, whether to import again, which port."""

import base64
import os
import socket
import stat
import zipfile
from pathlib import Path

import pytest

from demo.photo import NoPhoto, photo_of_catalogue
from demo.ports import first_free_port, free_port, is_free
from demo.state import CatalogueState, catalogue_folder, webhook_secret


def _catalogue(folder: Path, rows: str, name: str = "products.csv") -> Path:
    for image in ("1.jpg", "2.jpg", "3.jpg"):
        (folder / image).write_bytes(image.encode())
    (folder / name).write_text(rows)
    return folder / name


def test_the_first_test_row_of_a_split_is_searched_with(tmp_path: Path) -> None:
    catalogue = _catalogue(tmp_path, "id,image,split\na,1.jpg,train\nb,2.jpg,test\nc,3.jpg,test\n")
    assert photo_of_catalogue(catalogue).content == b"2.jpg"


def test_without_a_split_it_is_the_last_row_that_names_an_image(tmp_path: Path) -> None:
    catalogue = _catalogue(tmp_path, "id,image\na,1.jpg\nb,3.jpg|2.jpg\nc,\n")
    assert photo_of_catalogue(catalogue).content == b"3.jpg"


def test_another_image_takes_the_place_of_a_missing_one(tmp_path: Path) -> None:
    catalogue = _catalogue(tmp_path, "id,image,split\na,1.jpg,train\nb,gone.jpg,test\n")
    assert photo_of_catalogue(catalogue).content == b"1.jpg"


def test_an_image_by_url_is_left_to_the_server(tmp_path: Path) -> None:
    photo = photo_of_catalogue(_catalogue(tmp_path, "id,image\na,https://example.com/1.jpg\n"))
    assert (photo.name, photo.content) == ("https://example.com/1.jpg", b"")


def test_a_zip_is_looked_into(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "shop.zip", "w") as archive:
        archive.writestr("shop/products.csv", "id,image\na,./images/1.jpg\n")
        archive.writestr("shop/images/1.jpg", b"from the zip")
    assert photo_of_catalogue(tmp_path / "shop.zip").content == b"from the zip"


@pytest.mark.parametrize("rows", ["id,image\n", "id,image\na,gone.jpg\n", "id\na\n"])
def test_a_catalogue_without_images_is_refused(tmp_path: Path, rows: str) -> None:
    with pytest.raises(NoPhoto, match=r"products\.csv names no image"):
        photo_of_catalogue(_catalogue(tmp_path, rows))


def test_only_the_same_file_in_the_same_database_counts_as_imported(tmp_path: Path) -> None:
    catalogue = _catalogue(tmp_path, "id,image\na,1.jpg\n")
    state = CatalogueState(tmp_path, "own")
    assert not state.was_imported(catalogue)
    state.remember_import(catalogue)
    assert CatalogueState(tmp_path, "own").was_imported(catalogue)
    assert not CatalogueState(tmp_path, "postgresql://elsewhere").was_imported(catalogue)
    os.utime(catalogue, ns=(1, 1))
    assert not state.was_imported(catalogue)
    (tmp_path / "imported.json").write_text("{")
    assert not state.was_imported(catalogue)


def test_each_catalogue_has_a_folder_of_its_own_that_people_recognise(tmp_path: Path) -> None:
    first = catalogue_folder(tmp_path, tmp_path / "fashion" / "products.csv")
    assert first == catalogue_folder(tmp_path, tmp_path / "street" / ".." / "fashion" / "products.csv")
    assert first.name.startswith("fashion-products-")
    assert first != catalogue_folder(tmp_path, tmp_path / "other" / "fashion" / "products.csv")


def test_the_webhook_secret_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "new folder" / "secret"
    secret = webhook_secret(file)
    assert secret == webhook_secret(file)
    assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 24
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert secret != webhook_secret(tmp_path / "another")


def test_a_taken_port_is_passed_over() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port()))
        taken.listen()
        port = taken.getsockname()[1]
        assert not is_free(port)
        assert first_free_port(port) > port
