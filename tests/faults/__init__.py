"""Faults of every kind under load: what clients see, how long it lasts, and whether anything is lost."""
