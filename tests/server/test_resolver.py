"""vLLM's resolver interface, answered from the leases."""

import warnings
from pathlib import Path

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # vLLM's own imports warn of deprecations
    from vllm.lora.resolver import LoRAResolver, LoRAResolverRegistry

    from loraloom.server.resolver import LeaseResolver


async def test_a_leased_adapter_is_found_by_its_canonical_name() -> None:
    held = {"sql@4": Path("/store/blobs/0123")}
    resolver = LeaseResolver(held.get)
    request = await resolver.resolve_lora("tiny", "sql@4")
    assert request is not None
    assert (request.lora_name, request.lora_path) == ("sql@4", "/store/blobs/0123")
    assert request.lora_int_id > 0
    assert not request.load_inplace


async def test_any_other_name_is_unknown() -> None:
    resolver = LeaseResolver({"sql@4": Path("/x")}.get)
    for name in ("sql", "sql@3", "../../etc", ""):
        assert await resolver.resolve_lora("tiny", name) is None


def test_vllm_takes_it() -> None:
    resolver = LeaseResolver(lambda name: None)
    assert isinstance(resolver, LoRAResolver)
    LoRAResolverRegistry.register_resolver("loraloom-test", resolver)
    try:
        assert LoRAResolverRegistry.get_resolver("loraloom-test") is resolver
    finally:
        del LoRAResolverRegistry.resolvers["loraloom-test"]
