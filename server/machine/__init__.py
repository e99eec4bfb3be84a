"""What there is to run on."""

from loraloom.server.machine.machine import EXPECTED, NO_ENGINE, TESTED, Machine, inspect, processor_flags

__all__ = ["EXPECTED", "NO_ENGINE", "TESTED", "Machine", "inspect", "processor_flags"]
