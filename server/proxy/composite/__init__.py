"""The composite model, which vLLM runs as one: a large model, and a small one twice."""
