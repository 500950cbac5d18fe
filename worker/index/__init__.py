"""From embeddings to nearest items. Light to import: FAISS is loaded by the modules of indexes.

vector_index.py       the interface of all indexes, and what vectors must be like
flat_index.py         the exact index, in memory or mapped from a file
approximate_index.py  all other kinds: candidates from a structure, scores from stored vectors
structure.py          graph or lists of FAISS, over codes
projection.py         what lies before graph or lists, as one matrix
allowed_rows.py       what filters let through, remembered
faiss_calls.py        FAISS's methods for one query, without what its Python classes add
half_vectors.py       vectors in half precision, mapped from a file
arguments.py          what an index is built with, what a query is searched with, the way of a filter
kinds.py              the approximate kinds, with what they take
recipe.py             what an operator asks of an index
base_builder.py       the files of an approximate index, built by a recipe
tuning.py             query arguments that reach a recall, the fastest way of a filter
recall.py             recall and latency against exact search
segmented_index.py    an immutable base, and what changed since
shared_searches.py    searches of several threads as one
snapshot.py           bases on disk
"""

from worker.index.vector_index import Neighbours, ReadableIndex, VectorIndex, check_vectors

__all__ = ["Neighbours", "ReadableIndex", "VectorIndex", "check_vectors"]
