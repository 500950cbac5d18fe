"""From embeddings to nearest items: the interface of all indexes, and the exact one."""

from worker.index.flat_index import FlatIndex
from worker.index.vector_index import Neighbours, VectorIndex

__all__ = ["FlatIndex", "Neighbours", "VectorIndex"]
