"""Keep Python's garbage collector off what cannot be garbage.

With TensorFlow, Keras and ``transformers`` loaded, a full collection walks over a million objects, nearly all of which
live as long as the process does.
"""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def paused_collection() -> Iterator[None]:
    """Make objects within a ``with`` block without collections, which would walk all that live again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextlib.contextmanager
def only_new_collected() -> Iterator[None]:
    """Let collections within a ``with`` block, which others ask for, pass over the objects that were there before."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
