"""Refuse to compute in a process that was forked from one in which TensorFlow runs.

TensorFlow computes on threads, and a fork has none of its parent's: code that waits for them waits for ever.
"""

import os
import sys

_forked = False


class ForkedProcessError(RuntimeError):
    """TensorFlow cannot run in this process, because it ran in the parent when this process was forked."""


def refuse_if_forked(what: str) -> None:
    """Raise an error in a process where TensorFlow would hang.

    Args:
        what: the thing that cannot be used here, such as ``"A pipeline"``.

    Raises:
        ForkedProcessError: with advice.
    """
    if _forked:
        raise ForkedProcessError(
            f"{what} cannot be used in this process: it was forked from one in which TensorFlow was running already, "
            'whose threads are not here. Start processes with multiprocessing.get_context("spawn"), or use TensorFlow '
            "in the forked processes only: load the model there, and nothing before the fork."
        )


def _note_fork() -> None:
    global _forked
    eager = sys.modules.get("tensorflow.python.eager.context")
    context = eager and eager.context_safe()
    # The handle is made with the threads, when TensorFlow first computes; importing it alone does no harm.
    _forked = _forked or (context is not None and context._context_handle is not None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)
