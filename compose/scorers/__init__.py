"""Two ways to score a population of weightings: a private copy of the model, and a running server."""
