"""How the demo's adapters were trained: seeded tasks with checkable answers, one recipe each, held-out accuracy.

`python -m tests.zoo train all` trains, measures and writes every adapter under deploy/demo/adapters again.
"""
