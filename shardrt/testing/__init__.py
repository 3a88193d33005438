"""What tests of durable applications need: virtual time, crashes, a database server."""

from shardrt.testing.environment import Environment
from shardrt.testing.virtual import Deadlock, run_virtual

__all__ = ["Deadlock", "Environment", "run_virtual"]
