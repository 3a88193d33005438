"""The engine as a pure state machine: no clock, no randomness, no I/O, no user code."""
