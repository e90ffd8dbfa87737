"""A database and a service for the tests, from streamapp's kit."""

from streamapp.testing.fixtures import (  # noqa: F401
    streamapp_database,
    streamapp_far_side,
    streamapp_server,
)
