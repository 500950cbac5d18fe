"""Local folders of encoders: damaged, abandoned, on the disk before they count; and the first release's on a GPU."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from shared.releases import Release
from tests.shop import Shop, open_shop
from tests.tiny_encoder import OnGpu, pixels, tiny_encoder
from worker.encoder import Encoder, EncoderUnavailable, choose_runtime
from worker.encoder.torch_encoder import TorchEncoder
from worker.releases import open_release
from worker.releases.encoder_folders import adopt, keep_encoder, local_folder, making_folder
from worker.releases.release import release_of

DAY = 86_400


@pytest.fixture
def reference(tmp_path: Path) -> Iterator[TorchEncoder]:
    with tiny_encoder(tmp_path) as reference:
        yield reference


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = open_shop(tmp_path, encoder_cache_path=tmp_path / "encoders")
    yield shop
    shop.catalogue.engine.dispose()


@pytest.fixture
def release(shop: Shop, reference: Encoder) -> Release:
    """A release whose encoder is in the store and on this machine."""
    assert isinstance(reference, TorchEncoder)
    with making_folder(shop.settings) as folder:
        choice = choose_runtime(reference, folder, calibration=pixels(0), held_out=pixels(4), wanted="torch")
        keep_encoder(adopt(choice.folder, choice.manifest, shop.settings), choice.manifest, shop.store)
    return release_of(choice.manifest)


def local(shop: Shop, release: Release) -> Path:
    return local_folder(shop.settings, release.manifest["encoder"])


@pytest.mark.parametrize("name", ["weights.safetensors", "manifest.json"])
def test_a_damaged_local_folder_is_replaced_from_the_store(shop: Shop, release: Release, name: str) -> None:
    expected = open_release(release, shop.store, shop.settings).embed(pixels(2))
    (local(shop, release) / name).write_bytes(b"torn")
    assert np.array_equal(open_release(release, shop.store, shop.settings).embed(pixels(2)), expected)
    assert [path.name for path in local(shop, release).parent.iterdir()] == [local(shop, release).name]


def test_a_damaged_local_folder_stays_where_the_store_has_nothing_better(shop: Shop, release: Release) -> None:
    (local(shop, release) / "weights.safetensors").write_bytes(b"torn")
    [kept] = (shop.folder / "store" / "encoders").rglob("weights.safetensors")
    kept.unlink()
    with pytest.raises(EncoderUnavailable, match="Restore it from a backup of the store"):
        open_release(release, shop.store, shop.settings)
    assert (local(shop, release) / "weights.safetensors").read_bytes() == b"torn"


def test_an_encoder_is_on_the_disk_before_it_has_its_name(
    shop: Shop, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    fsync = os.fsync

    def noting(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    elsewhere = shop.settings.model_copy(update={"encoder_cache_path": shop.folder / "elsewhere"})
    open_release(release, shop.store, elsewhere)
    [aside] = {path.parent for path in synced if path.name == "manifest.json"}
    assert aside.name.startswith(".copy-")
    assert {aside, aside / "manifest.json", aside / "weights.safetensors"} <= set(synced)
    assert synced[-1] == aside


def test_a_new_encoder_is_on_the_disk_before_it_has_its_name(
    reference: TorchEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(Path(f"/proc/self/fd/{number}").readlink()))
    choice = choose_runtime(reference, tmp_path, calibration=pixels(0), held_out=pixels(4), wanted="torch")
    aside = synced[-1]
    assert aside.parent == tmp_path
    assert aside.name.startswith(f".{choice.manifest['id']}.")
    assert {aside / "manifest.json", aside / "weights.safetensors"} <= set(synced)


def test_what_killed_processes_left_goes_after_a_day(shop: Shop, release: Release) -> None:
    cache, encoder = shop.settings.encoder_cache_path, local(shop, release).parent
    for folder in (cache / ".new-old", cache / ".new-young", encoder / ".copy-old", encoder / ".copy-young"):
        folder.mkdir()
        (folder / "model.bin").write_bytes(b"part")
        age = DAY + 60 if folder.name.endswith("old") else DAY - 600
        os.utime(folder, (time.time() - age,) * 2)
    with making_folder(shop.settings):
        pass
    (local(shop, release) / "manifest.json").unlink()
    open_release(release, shop.store, shop.settings)
    assert [path.name for path in cache.glob(".new-*")] == [".new-young"]
    assert [path.name for path in encoder.glob(".copy-*")] == [".copy-young"]


@pytest.mark.parametrize(("wanted", "runtime"), [("auto", "openvino"), ("torch", "torch")])
def test_the_first_release_is_float32_on_a_gpu_too(
    shop: Shop, reference: TorchEncoder, monkeypatch: pytest.MonkeyPatch, wanted: str, runtime: str
) -> None:
    monkeypatch.setattr("worker.encoder.load_encoder", lambda *_: OnGpu(reference))
    shop.settings = shop.settings.model_copy(update={"encoder": "tiny", "encoder_runtime": wanted})
    first = shop.serve()
    assert (first.runtime, first.encoder_id) == (runtime, reference.id)
    assert "dtype" not in first.manifest["encoder"]
    assert shop.serve() == first
