"""Real things to test with: a tiny seeded Llama, adapters that peft made for it, and an S3 server."""

import os
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

MakeAdapter = Callable[..., Path]


def _save_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=96, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    tokenizer.train_from_iterator(["select the date from the table where the name is known"] * 4, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(folder)


def _save_llama(folder: Path, **fields: Any) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        **{"tie_word_embeddings": True, **fields},
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    _save_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer Llama of 32 dimensions with grouped-query attention and tied embeddings, with its tokenizer."""
    return _save_llama(tmp_path_factory.mktemp("base") / "tiny-llama")


@pytest.fixture(scope="session")
def biased_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with biases in its attention and an output layer of its own."""
    folder = tmp_path_factory.mktemp("base") / "biased-llama"
    return _save_llama(folder, attention_bias=True, tie_word_embeddings=False)


@pytest.fixture
def make_adapter(tiny_base: Path, tmp_path: Path) -> MakeAdapter:
    """A callable `make_adapter(name="sql", seed=0, dtype="float32", model=tiny_base, **LoraConfig fields) -> folder`.

    The adapter is saved by peft, with random A and B, so that it changes every target module.
    """

    def make(name: str = "sql", seed: int = 0, dtype: str = "float32", model: Path = tiny_base, **fields: Any) -> Path:
        import torch
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        defaults = {"task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}
        config = LoraConfig(**{**defaults, **fields})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peft_model = get_peft_model(AutoModelForCausalLM.from_pretrained(model), config)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for key, parameter in peft_model.named_parameters():
                if "lora_" in key:
                    parameter.normal_(std=0.1, generator=generator)
        folder = tmp_path / "given" / name
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peft_model.to(getattr(torch, dtype)).save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The address of an S3 server of our own, which boto and s3fs find through the environment."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_SESSION_TOKEN": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }
    before = {key: os.environ.get(key) for key in environment}
    os.environ.update(environment)
    yield environment["AWS_ENDPOINT_URL"]
    server.stop()
    for key, value in before.items():
        if value is None:
            del os.environ[key]
        else:
            os.environ[key] = value


@pytest.fixture
def s3_url(s3_endpoint: str) -> str:
    """The URL of a fresh and empty bucket, such as `s3://loraloom-1f0c…`."""
    import boto3

    bucket = f"loraloom-{uuid.uuid4().hex}"
    boto3.client("s3", endpoint_url=s3_endpoint).create_bucket(Bucket=bucket)
    return f"s3://{bucket}"
