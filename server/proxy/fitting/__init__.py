"""Whether a small model can steer a large one, and what it would cost, without loading anything."""
