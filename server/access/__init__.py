"""Who asks, and what they may: keys, roles, and the names that each key sees."""
