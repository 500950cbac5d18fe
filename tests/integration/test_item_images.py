"""Images as web returns them: those of earlier versions are in the store with their camera data."""

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageOps

from shared.catalogue import Catalogue
from shared.catalogue_change import ImageRef, ItemChange
from shared.database import connect_database
from shared.migrations import upgrade
from shared.store import Store
from tests.camera import SECRET, taken
from tests.conftest import make_settings
from tests.servers import RedisProcess
from web.app import create_app

PHOTO = taken(Image.new("RGB", (40, 30), "teal"), "JPEG")


@pytest.fixture(params=[False, True], ids=["removed", "kept"])
def keeps_metadata(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def client(redis_server: RedisProcess, tmp_path: Path, keeps_metadata: bool) -> Any:
    settings = make_settings(redis_server, tmp_path, keep_image_metadata=keeps_metadata)
    database = connect_database(settings.database_url)
    upgrade(database)
    [sha256] = Store(settings.store_url).put_images([PHOTO])
    with Catalogue(database).change() as change:
        change.put([ItemChange("old", "", {}, [ImageRef(sha256, "image/jpeg")])])
    database.dispose()
    return create_app(settings).test_client()


def test_an_image_that_was_stored_with_its_place_is_returned_without(client: Any, keeps_metadata: bool) -> None:
    answer = client.get("/v1/items/old/image")
    assert (answer.status_code, answer.content_type) == (200, "image/jpeg")
    assert SECRET in PHOTO
    assert (SECRET in answer.data) is keeps_metadata
    upright = [ImageOps.exif_transpose(Image.open(io.BytesIO(data))) for data in (answer.data, PHOTO)]
    assert upright[0].size == (30, 40)
    assert upright[0].tobytes() == upright[1].tobytes()
