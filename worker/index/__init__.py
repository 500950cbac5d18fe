"""From embeddings to nearest items. Light to import: FAISS is loaded with `flat_index` only.

vector_index.py   the interface of all indexes, and what vectors must be like
flat_index.py     the exact index
"""

from worker.index.vector_index import Neighbours, VectorIndex, check_vectors

__all__ = ["Neighbours", "VectorIndex", "check_vectors"]
