"""Learning weightings of adapters from a few examples, without gradients, as durable offline jobs."""
