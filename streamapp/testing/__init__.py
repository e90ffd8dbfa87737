"""A kit for those who write handlers and actions in packages of their own.

``Kit`` takes what is under test and runs it

- by itself: ``route``, ``plan``, ``forward``, ``backward``; no service, no database;
- on the real journal: ``run``; ``streamapp.testing.fixtures`` has a PostgreSQL for it;
- with a kill at each point at which a worker may die: ``run_with_kills``.

``FarSide`` is a service to be called meanwhile, which keeps keys and notices what is done twice.
Needs ``streamapp[testing]``.
"""

from streamapp.testing.far_side import FarSide, far_side
from streamapp.testing.kit import Kit, message
from streamapp.testing.outcome import Outcome

__all__ = ["FarSide", "Kit", "Outcome", "far_side", "message"]
