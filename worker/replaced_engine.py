"""The memory of an engine that another one has replaced."""

import gc
from typing import TYPE_CHECKING
from weakref import ReferenceType

if TYPE_CHECKING:
    from worker.engine import Engine


def is_collected(replaced: "ReferenceType[Engine]") -> bool:
    """Free an engine that another one has replaced, and tell whether it is gone: not while a search works with it.

    An index and what belongs to it refer to each other, and it may be large. What is frozen is never collected, so
    nothing is frozen again before it is gone.
    """
    is_gone = replaced() is None  # before the collection, which then takes what only this engine held together
    gc.unfreeze()
    gc.collect()
    if is_gone:
        gc.freeze()
    return is_gone
