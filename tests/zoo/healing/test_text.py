"""A model's answers are sampled in batches, end where it ends them, and repeat with their seed."""

from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from .prompts import Conversation
from .text import written

ASKED: list[Conversation] = [[("user", text)] for text in ("one two three", "one", "four five", "six")]
ASKED.append([("user", "one"), ("assistant", "red"), ("user", "two")])


def test_texts_begin_with_their_conversation(base: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    done: list[int] = []
    texts = written(base, tokenizer, ASKED, 6, done.append)
    assert done == [len(ASKED)]
    assert tokenizer.decode(texts[0]).startswith("<user> one two three <assistant> ")
    assert tokenizer.decode(texts[4]).startswith("<user> one <assistant> red <end> <user> two <assistant> ")
    answers = [text[len(tokenizer.decode(text).partition("<assistant>")[0].split()) + 1 :] for text in texts[:4]]
    assert all(0 < len(answer) <= 6 for answer in answers)
    assert all(tokenizer.eos_token_id not in answer[:-1] for answer in answers)
    assert written(base, tokenizer, ASKED, 6, done.append) == texts
    assert written(base, tokenizer, ASKED, 6, done.append, seed=1) != texts
