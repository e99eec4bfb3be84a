"""How the demo's small model was healed after losing most of its layers.

`python -m tests.zoo.healing` writes deploy/demo/small-model/healing.safetensors anew. It comes out as another file of
the same kind: the one that is there was made by the same stages, with another schedule of the learning rate and other
seeds of the text. The small model's adapters belong to the file, and have to be trained again after it.
"""
