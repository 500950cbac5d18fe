"""From embeddings to nearest items. Light to import: FAISS is loaded with `flat_index` only.

vector_index.py      the interface of all indexes, and what vectors must be like
flat_index.py        the exact index, in memory or mapped from a file
segmented_index.py   an immutable base, and what changed since
shared_searches.py   searches of several threads as one
snapshot.py          bases on disk
"""

from worker.index.vector_index import Neighbours, ReadableIndex, VectorIndex, check_vectors

__all__ = ["Neighbours", "ReadableIndex", "VectorIndex", "check_vectors"]
