"""The index of a release: built from stored embeddings by its recipe, refused below its recall, opened by workers."""

from pathlib import Path

import pytest

from shared.catalogue import Catalogue
from shared.errors import ReleaseNotBuilt
from shared.releases import Release, active_release, choose_release
from shared.settings import Settings
from tests.integration.test_approximate_bases import DIM, ENCODER, IMAGES, ITEMS, fill
from tests.integration.test_releases_build import COMMAND
from tests.shop import open_shop
from worker.index.approximate_index import ApproximateIndex
from worker.index.flat_index import FlatIndex
from worker.index.recipe import EXACT, IndexRecipe
from worker.live_index import LiveIndex
from worker.releases.indexes import build_index, local_snapshots
from worker.releases.release import recipe_of, release_of

pytestmark = pytest.mark.slow


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(encoder_cache_path=tmp_path / "encoders", index_kept_snapshots=1)


def release(recipe: IndexRecipe) -> Release:
    return release_of({"id": ENCODER, "dim": DIM, "files": {}}, recipe, similar={"min_cosine": 1.0})


def test_an_approximate_release_has_its_own_name_and_tells_what_was_measured(
    catalogue: Catalogue, settings: Settings
) -> None:
    fill(catalogue)
    made = release(IndexRecipe(0.9, factory="HNSW16_SQ8"))
    assert made.id == f"{ENCODER}.{recipe_of(made).name}" != f"{ENCODER}.flat"
    index = build_index(catalogue, settings, made, DIM)
    assert index["recipe"] == recipe_of(made).to_dict()
    assert index["measured"]["recall_at_10"] >= 0.9
    finished = Release(made.id, made.encoder_id, {**made.manifest, "index": index})
    choose_release(catalogue, finished)
    active = active_release(catalogue)
    assert active is not None
    assert recipe_of(active) == recipe_of(made)
    snapshots = local_snapshots(settings, active.encoder_id, DIM, recipe_of(active))
    live = LiveIndex(catalogue, FlatIndex(DIM), active.encoder_id, snapshots)
    live.refresh()
    assert (len(live), live.index.is_exact) == (ITEMS * IMAGES, False)


def test_releases_of_two_recipes_keep_their_indexes_apart_and_as_many_as_a_setting_says(
    catalogue: Catalogue, settings: Settings
) -> None:
    fill(catalogue)
    recipes = [IndexRecipe(0.9, factory="HNSW16_SQ8"), IndexRecipe(0.9, factory="IVF16,Flat")]
    for recipe in (*recipes, recipes[0]):
        build_index(catalogue, settings, release(recipe), DIM)
    for recipe in recipes:
        snapshots = local_snapshots(settings, ENCODER, DIM, recipe)
        newest = snapshots.newest()
        assert newest is not None
        assert isinstance(newest.index, ApproximateIndex)
        assert newest.described["factory"] == recipe.factory
        assert snapshots.newest_name() == newest.name
    built = settings.encoder_cache_path / "indexes" / ENCODER / recipes[0].name
    assert len(list(built.glob("[0-9]*"))) == 1
    assert local_snapshots(settings, ENCODER, DIM, EXACT).newest() is None


def test_an_exact_release_builds_nothing(catalogue: Catalogue, settings: Settings) -> None:
    fill(catalogue)
    for recipe in (EXACT, IndexRecipe(0.5, factory="Flat")):
        made = release(recipe)
        assert made.id == f"{ENCODER}.flat"
        assert build_index(catalogue, settings, made, DIM) == {"kind": "flat"}
    assert not (settings.encoder_cache_path / "indexes").exists()


@pytest.mark.parametrize(
    ("recipe", "remedy"),
    [
        (IndexRecipe(0.999, factory="IVF4,PQ1x4"), "--recall-target 0"),
        (IndexRecipe(0.9, 1000), "raise --memory-budget"),
        (IndexRecipe(0.9, factory="Nonsense"), "could not parse"),
    ],
    ids=["recall", "memory", "factory"],
)
def test_a_release_whose_index_is_not_what_was_asked_for_is_not_built(
    catalogue: Catalogue, settings: Settings, recipe: IndexRecipe, remedy: str
) -> None:
    fill(catalogue)
    with pytest.raises(ReleaseNotBuilt, match=remedy):
        build_index(catalogue, settings, release(recipe), DIM)
    assert local_snapshots(settings, ENCODER, DIM, recipe).newest() is None


def test_the_command_takes_a_recall_target_and_stays_exact_while_the_catalogue_is_small(tmp_path: Path) -> None:
    shop = open_shop(tmp_path)
    try:
        shop.fill(33)
        done = shop.run(*COMMAND, "--runtime", "openvino", "--recall-target", "0.95", "--memory-budget", "1000000")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "index: exact" in done.stdout
        active = active_release(shop.catalogue)
        assert active is not None
        assert recipe_of(active) == IndexRecipe(0.95, 1_000_000)
        assert active.manifest["index"]["kind"] == "flat"
        assert shop.serve() == active
        refused = shop.run(*COMMAND, "--recall-target", "2")
        assert refused.returncode == 2
        assert "--recall-target" in refused.stderr
    finally:
        shop.catalogue.engine.dispose()


def test_an_index_in_milvus_is_not_built_here(catalogue: Catalogue, settings: Settings) -> None:
    fill(catalogue)
    made = release(IndexRecipe(0.9))
    index = build_index(catalogue, settings.model_copy(update={"index_url": "http://milvus:19530"}), made, DIM)
    assert index == {"kind": "milvus", "recipe": recipe_of(made).to_dict()}
    assert not (settings.encoder_cache_path / "indexes").exists()
