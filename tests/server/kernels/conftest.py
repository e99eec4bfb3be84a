"""vLLM's own imports warn of deprecations: they are made here, once, so that tests may treat warnings as errors."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch._dynamo
    import torch._inductor.compile_fx  # noqa: F401  (vLLM's configuration imports it late)
    import vllm.config
    import vllm.lora.layers
    import vllm.platforms.cpu  # noqa: F401
