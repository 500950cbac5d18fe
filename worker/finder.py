"""From an embedding to hits: the index of one release, filters, groups. No cache of answers is asked or filled."""

from collections.abc import Mapping
from typing import Any

from shared.catalogue import Catalogue
from shared.filters import check_field
from shared.schemas import DUPLICATES
from worker.groups import ByAttribute, ByLikeness, Grouping, nearest_in_groups
from worker.index.vector_index import Vectors
from worker.item_index import ItemIndex
from worker.steps import Steps


class Finder:
    """Finds hits. Threads share it."""

    def __init__(self, catalogue: Catalogue, live_index: ItemIndex[Any], min_cosine: float) -> None:
        """Args:
        catalogue: items and attributes.
        live_index: what is searched.
        min_cosine: from which two embeddings count as nearly the same.
        """
        self._catalogue = catalogue
        self._live_index = live_index
        self._min_cosine = min_cosine

    def find(
        self,
        embeddings: Vectors,
        without: str | None,
        asked: Mapping[str, Any],
        steps: Steps,
        again: bool = True,
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Return the hits as JSON values, or no hits and the reason.

        Args:
            embeddings: float32 (n, dim), L2 norm 1: images of one thing.
            without: an item to leave out.
            asked: as `asked_of` returns it.
            steps: times the steps.
            again: whether to search once more where the catalogue has changed meanwhile.

        Raises:
            InvalidRequest: if the filter or the group is not one that the catalogue knows.
        """
        allowed, min_score = self._live_index.allowed(asked["filter"]), asked["min_score"]
        if asked.get("group_by") is None:
            nearest = self._live_index.nearest_items(embeddings, asked["k"], allowed, without)
        else:
            nearest = self._nearest_in_groups(embeddings, without, asked, allowed)
        steps.lap("search")
        if not nearest:
            if len(self._live_index) == 0:
                return [], "catalogue_empty"
            return [], "no_similar_item" if allowed is None else "no_item_matches_filter"
        kept = nearest if min_score is None else [(row, score) for row, score in nearest if score >= min_score]
        if not kept:
            return [], "all_below_min_score"
        told = self._live_index.hits([row for row, _ in kept])
        if again and len(told) < len(kept):
            # An image was replaced, or its item deleted, since the refresh: what is there instead is found as well.
            self._live_index.refresh()
            return self.find(embeddings, without, asked, steps, again=False)
        hits: list[dict[str, Any]] = []
        for row, score in kept:
            if row in told:  # an item may be deleted between search and reading
                item, link = told[row]
                hits.append(
                    {
                        "rank": len(hits) + 1,
                        "item_id": item.item_id,
                        "score": round(score, 6),
                        "title": item.title,
                        "attributes": item.attributes,
                        "image_url": link,
                    }
                )
        steps.lap("hits")
        return hits, None if hits else "no_similar_item"

    def _nearest_in_groups(
        self, embeddings: Vectors, without: str | None, asked: Mapping[str, Any], allowed: Any
    ) -> list[tuple[int, float]]:
        def search(depth: int, among: Any) -> list[tuple[int, float]]:
            return self._live_index.nearest_items(embeddings, depth, among, without)

        return nearest_in_groups(search, self._live_index, self._grouping(asked["group_by"]), asked, allowed)

    def _grouping(self, name: str) -> Grouping[Any]:
        if name == DUPLICATES:
            return ByLikeness(self._min_cosine, self._live_index)
        types = self._catalogue.attribute_types()
        check_field(name, types)
        return ByAttribute(name, types[name], self._live_index)
