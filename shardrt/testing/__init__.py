"""What tests of durable applications need: virtual time, faults, histories, a database server."""

from shardrt.testing.environment import Environment
from shardrt.testing.replaying import replay
from shardrt.testing.simulation import SimulationFailed, simulate
from shardrt.testing.virtual import Deadlock, run_virtual

__all__ = ["Deadlock", "Environment", "SimulationFailed", "replay", "run_virtual", "simulate"]
