"""A trained encoder becomes a release by one command."""

from pathlib import Path

import numpy as np
import pytest

from shared.releases import registered_releases
from tests.shop import Shop
from tests.small_shop import trained_lite0
from worker.encoder import read_manifest

pytestmark = pytest.mark.slow


def test_a_trained_encoder_becomes_a_release_beside_the_active_one(shop: Shop, tmp_path: Path) -> None:
    hashes = shop.fill(40)
    serving = shop.serve()
    vectors = np.random.default_rng(0).standard_normal((40, 1280)).astype("<f4")
    with shop.catalogue.change() as change:
        change.add_embeddings(serving.encoder_id, {of: row.tobytes() for of, row in zip(hashes, vectors, strict=True)})
    folder = trained_lite0(tmp_path)
    encoders = str(tmp_path / "encoders")
    build = ("-m", "worker.build_release", "--no-activate")
    done = shop.run(*build, LOOKALIKE_ENCODER_WEIGHTS_PATH=str(folder), LOOKALIKE_ENCODER_CACHE_PATH=encoders)
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = read_manifest(folder)
    new = [release for release in registered_releases(shop.catalogue) if release != serving]
    assert [release.manifest["encoder"]["base_id"] for release in new] == [manifest["id"]]
    assert new[0].manifest["encoder"]["trained"] == manifest["trained"]
    assert new[0].manifest["encoder"]["dim"] == 64
    assert shop.catalogue.images_to_embed(new[0].encoder_id, 1) == []
    assert shop.serve() == serving
    assert f"compared: with {serving.id}: " in done.stdout
    assert "Precision@5 of colour " in done.stdout
    command = f"python -m worker.build_release --use {new[0].id}"
    assert command in done.stdout
    used = shop.run(*command.split()[1:])  # the settings name the encoder of before
    assert used.returncode == 0, used.stderr
    assert shop.serve().id == new[0].id
