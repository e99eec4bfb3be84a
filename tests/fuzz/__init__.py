"""Random and mutated input for everything that reads what strangers write: `make fuzz`."""
