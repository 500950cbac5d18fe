"""The release that is served: made where there is none, found again without PyTorch, copied to where it is needed."""

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.errors import ReleaseNotFinished, ReleaseNotFound
from shared.releases import (
    Release,
    activate_unless_fitting,
    active_release,
    choose_release,
    find_release,
    register_release,
    registered_releases,
)
from shared.tables import ReleaseRow
from tests.shop import Shop, open_shop
from worker.encoder import EncoderUnavailable
from worker.releases import open_release, serving_release
from worker.releases.encoder_folders import local_folder
from worker.releases.first import generated_pixels

SERVE = """
import sys
from shared.catalogue import Catalogue
from shared.database import connect_database
from shared.settings import load_settings
from shared.store import Store
from worker.releases import open_release, serving_release
assert not {"numpy", "PIL", "openvino", "torch"} & set(sys.modules)
settings = load_settings()
store = Store(settings.store_url)
release = serving_release(Catalogue(connect_database(settings.database_url)), store, settings)
encoder = open_release(release, store, settings)
assert not {"torch", "timm", "nncf"} & set(sys.modules)
print(release.id, release.runtime, encoder.dim)
"""


NOBODYS = "an id that no encoder has"


def test_a_first_release_is_made_without_a_catalogue_and_says_what_it_was_measured_with(shop: Shop) -> None:
    release = shop.serve()
    assert active_release(shop.catalogue) == release
    assert release.id == f"{release.encoder_id}.flat"
    assert release.encoder_id == release.manifest["encoder"]["base_id"]
    assert release.runtime == "openvino"
    last = release.manifest["encoder"]["gate"]["tried"][-1]
    assert (last["runtime"], last["passed"]) == ("openvino", True)
    assert last["accuracy"]["mean_cosine"] > 0.9999
    assert release.manifest["built_from"]["images"] == 0
    assert "Not calibrated" in release.manifest["similar"]["how"]
    assert release.min_cosine == 0.995
    assert shop.serve() == release
    assert len(registered_releases(shop.catalogue)) == 1


def test_weights_of_somebody_elses_share_results_of_equal_embeddings_only(shop: Shop, tmp_path: Path) -> None:
    from worker.encoder.backbones import BACKBONES

    copy = tmp_path / "trained.pth"
    shutil.copy(BACKBONES["tf_efficientnet_lite0"].own_weights(), copy)
    shop.settings = shop.settings.model_copy(update={"encoder_weights_path": copy})
    assert shop.serve().min_cosine == 1.0


def test_processes_that_start_together_find_one_release_and_need_no_torch(shop: Shop) -> None:
    made = shop.serve()  # by this process, for the machine
    other = open_shop(shop.folder / "other")
    running = [subprocess.Popen(**other.command("-c", SERVE), stdout=subprocess.PIPE) for _ in range(3)]
    answers = {process.communicate(timeout=100)[0] for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    assert answers == {f"{made.id} openvino 1280\n"}
    with Session(other.catalogue.engine) as session:
        assert session.scalar(select(func.count()).select_from(ReleaseRow)) == 1


def test_a_release_of_the_version_before_is_made_anew_and_nothing_is_embedded_again(shop: Shop) -> None:
    made = shop.serve()
    old = {"encoder": {"id": made.encoder_id, "dim": 1280, "transform": {}}, "index": {"kind": "flat"}}
    older = open_shop(shop.folder / "older")
    [sha256] = older.fill(1)
    with older.catalogue.change() as change:
        change.activate(made.id, made.encoder_id, old)
        change.add_embeddings(made.encoder_id, {sha256: bytes(5120)})
    release = older.serve()
    assert (release.id, release.runtime) == (made.id, "openvino")
    assert active_release(older.catalogue) == release
    assert older.catalogue.images_to_embed(release.encoder_id, 10) == []


def test_going_back_to_an_encoder_takes_its_newest_finished_release(shop: Shop) -> None:
    first = shop.serve()
    draft = shop.interrupted_build()
    finished = Release("built.flat", draft.encoder_id, {**draft.manifest, "similar": {"min_cosine": 0.97}})
    activate_unless_fitting(shop.catalogue, finished, NOBODYS)
    assert shop.serve() == finished
    activate_unless_fitting(shop.catalogue, of_another_encoder(finished), NOBODYS)
    assert shop.serve() == finished != first
    assert active_release(shop.catalogue) == finished


def test_a_release_that_an_operator_chose_serves_whatever_encoder_the_settings_name(shop: Shop) -> None:
    first = shop.serve()
    chosen = choose_release(shop.catalogue, of_another_encoder(first))
    assert shop.serve() == active_release(shop.catalogue) == chosen
    gone = shop.settings.model_copy(update={"encoder_weights_path": shop.folder / "missing.pth"})
    assert serving_release(shop.catalogue, shop.store, gone) == chosen
    assert choose_release(shop.catalogue, first).is_chosen
    assert shop.serve().id == first.id


def test_a_release_that_an_operator_chose_stays_chosen_when_it_is_built_again(shop: Shop) -> None:
    first = shop.serve()
    choose_release(shop.catalogue, first)
    register_release(shop.catalogue, replace(first, manifest={**first.manifest, "similar": {"min_cosine": 0.97}}))
    again = active_release(shop.catalogue)
    assert again is not None
    assert (again.min_cosine, again.is_chosen) == (0.97, True)


def test_a_release_that_is_not_built_to_its_end_can_not_be_chosen(shop: Shop) -> None:
    first = shop.serve()
    draft = shop.interrupted_build()
    with pytest.raises(ReleaseNotFinished, match="Build it again"):
        choose_release(shop.catalogue, draft)
    assert active_release(shop.catalogue) == first
    with pytest.raises(ReleaseNotFound):
        find_release(shop.catalogue, "nothing")
    assert find_release(shop.catalogue, draft.id) == draft


def of_another_encoder(release: Release) -> Release:
    encoder = {**release.manifest["encoder"], "base_id": "resnet50-0123456789"}
    return Release("strange.flat", "strange", {**release.manifest, "encoder": encoder})


def test_a_machine_without_the_encoder_copies_it_from_the_store(shop: Shop, tmp_path: Path) -> None:
    release = shop.serve()
    here = open_release(release, shop.store, shop.settings)
    elsewhere = shop.settings.model_copy(update={"encoder_cache_path": tmp_path / "empty"})
    there = open_release(release, shop.store, elsewhere)
    pixels = generated_pixels(3, 224)
    assert there.id == here.id == release.encoder_id
    assert np.allclose(there.embed(pixels), here.embed(pixels), atol=1e-5)
    assert [path.name for path in local_folder(elsewhere, release.manifest["encoder"]).parent.iterdir()] == [
        local_folder(elsewhere, release.manifest["encoder"]).name
    ]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [Path.unlink, cut, flip])
def test_a_damaged_copy_in_the_store_is_never_opened(
    shop: Shop, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    release = shop.serve()
    [network] = (shop.folder / "store" / "encoders").rglob("model.bin")
    damage(network)
    elsewhere = shop.settings.model_copy(update={"encoder_cache_path": tmp_path / "empty"})
    with pytest.raises(EncoderUnavailable, match=r"model\.bin is not what the release was built with"):
        open_release(release, shop.store, elsewhere)
    assert not list((tmp_path / "empty" / release.encoder_id).iterdir())


def test_generated_pictures_are_many_and_the_same_each_time() -> None:
    first, again = generated_pixels(8, 64), generated_pixels(8, 64)
    assert first.dtype == np.uint8
    assert first.shape == (8, 64, 64, 3)
    assert np.array_equal(first, again)
    assert len(np.unique(first.reshape(8, -1), axis=0)) == 8
    assert first.std() > 30
