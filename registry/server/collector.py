"""Python's cyclic garbage collector, set so that it never holds up the event loop for long.

What is there once the server has started lives as long as it does, so it is not looked at again.
By default everything is looked at whenever a quarter has been added: with a thousand requests that
wait that took 0.2 to 0.5 s each time, during which nobody was answered. Most objects go by their
reference counts; cycles of requests are young when they are garbage, and those generations stay
small.
"""

import gc

_YOUNG = 2_000
_YOUNG_ROUNDS = 10
_MIDDLE_ROUNDS = 100


def settle() -> None:
    """Take all that is there for permanent. Called once, when the server is about to listen."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _YOUNG_ROUNDS, _MIDDLE_ROUNDS)
