"""Fewer and shorter looks for garbage.

Nearly everything a message makes is freed by reference counts. Python looks for cycles all the
same, each time a few hundred more objects were made than freed, which with a thousand messages
under way is all the time, and every look of the oldest generation goes through all modules, too.
"""

from __future__ import annotations

import gc

# Objects made and not freed before a look: short enough to be over within a millisecond or two.
YOUNG = 10_000
# Looks at the young before one at those that survived, and such before one at everything.
MIDDLE = 20
OLD = 50


def settle() -> None:
    """Take what is there at the start out of all later looks, and look less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
