"""What the server costs, measured: `python -m tests.bench [--full] [NAME…]`, or `make bench` for all.

One module measures one benchmark and lists nothing of the others; `catalog` names them all. Each prints a table and
writes build/bench/NAME.json with every raw sample, and pictures where a curve says more.
"""
