"""How the demo's small model was healed after losing most of its layers.

`python -m tests.zoo.healing` writes deploy/demo/small-model/healing.safetensors again.
"""
