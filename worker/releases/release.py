"""What only workers know of a release: how it is put together of an encoder and an index."""

from typing import TYPE_CHECKING, Any

from shared.releases import Release

if TYPE_CHECKING:
    from worker.index.recipe import IndexRecipe


def recipe_of(release: Release) -> "IndexRecipe":
    """Return how the index of a release is built; exact where the manifest says nothing else."""
    from worker.index.recipe import IndexRecipe

    return IndexRecipe(**release.manifest.get("index", {}).get("recipe", {}))


def release_of(encoder_manifest: dict[str, Any], recipe: "IndexRecipe | None" = None, **described: Any) -> Release:
    """Return the release of an encoder and an index, by default the exact one; `described` is the manifest's rest."""
    encoder_id = encoder_manifest["id"]
    index_name, index = "flat", dict[str, Any](kind="flat")
    if recipe is not None and not recipe.is_exact:
        index_name, index = recipe.name, {"recipe": recipe.to_dict()}
    return Release(f"{encoder_id}.{index_name}", encoder_id, {"encoder": encoder_manifest, "index": index, **described})
