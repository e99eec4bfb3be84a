"""Who comes in next: limits of each key, and an admission queue that is fair between keys."""
