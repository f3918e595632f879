"""Pure functions on tensors: color, maps, metrics, statistics."""
