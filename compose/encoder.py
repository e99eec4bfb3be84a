"""From examples to token ids, as the base model's tokenizer and chat template have them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from loraloom.compose.errors import InvalidExamples, InvalidSpec
from loraloom.compose.examples import Example, Turn
from loraloom.compose.scoring import Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Encoder:
    """Makes rows of examples.

    Attributes:
        context: tokens that the model can hold.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", ends: frozenset[int], chat: bool, context: int) -> None:
        """
        Args:
            tokenizer: of the base model.
            ends: ids that end a turn.
            chat: whether examples are written by the chat template, or as plain text.
            context: tokens that the model can hold.
        """
        self.context = context
        self._tokenizer = tokenizer
        self._ends = ends
        self._chat = chat
        self._end = self._end_of_turn()

    def within(self, context: int) -> "Encoder":
        """The same for a smaller context."""
        return Encoder(self._tokenizer, self._ends, self._chat, context)

    def row(self, example: Example, answer: str, shots: Sequence[Example] = ()) -> Row:
        """One answer to an example, after solved examples in the prompt if there are any.

        Raises:
            InvalidExamples: it is longer than the model's context, or has no tokens.
        """
        return self.rows(example, (answer,), shots)[0]

    def rows(self, example: Example, answers: Sequence[str], shots: Sequence[Example] = ()) -> tuple[Row, ...]:
        """Answers to an example as `row` has them; all share the token ids of one prompt. Raises as `row`."""
        prompt = tuple(self.prompt(example, shots))
        return tuple(self._row(example, prompt, answer) for answer in answers)

    def _row(self, example: Example, prompt: tuple[int, ...], answer: str) -> Row:
        tail = self._ids(answer, special=False)
        if not prompt or not tail:
            raise InvalidExamples(f"{example.prompt[:60]!r} has no tokens for this model")
        row = Row(prompt, (*tail, *self._end))
        if len(row) > self.context:
            raise InvalidExamples(
                f"the example {example.prompt[:60]!r} has {len(row)} tokens with its answer, and the model's context "
                f"is {self.context}: shorten it, or leave it out"
            )
        return row

    def prompt(self, example: Example, shots: Sequence[Example] = ()) -> list[int]:
        """Token ids of what comes before the answer."""
        if not self._chat:
            solved = "".join(f"{shot.prompt}{shot.answer}\n\n" for shot in shots)
            return self._ids(solved + example.prompt, special=True)
        turns = [turn for shot in shots for turn in (*_asked(shot), Turn("assistant", shot.answer))]
        said = _system([*shots, example])
        return self._ids(self._templated([*said, *turns, *_asked(example)], ask=True), special=False)

    def text(self, ids: Sequence[int]) -> str:
        """What token ids say."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def _templated(self, turns: Sequence[Turn], ask: bool) -> str:
        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        try:
            return str(self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask))
        except Exception as error:  # a template is a program of the model's author: it may raise anything
            raise InvalidExamples(f"the model's chat template refuses {turns[-1].content[:60]!r}: {error}") from error

    def _ids(self, text: str, special: bool) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=special).input_ids)

    def _end_of_turn(self) -> tuple[int, ...]:
        """What follows an answer where the model ends its turn."""
        if self._chat:
            asked = self._templated([Turn("user", "?")], ask=True)
            whole = self._templated([Turn("user", "?"), Turn("assistant", "!")], ask=False)
            after = self._ids(whole[len(asked) :], special=False)
            if ending := [each for each in after if each in self._ends]:
                return (ending[0],)
        end = self._tokenizer.eos_token_id
        return () if end is None else (int(end),)


def _asked(example: Example) -> list[Turn]:
    return [turn for turn in example.turns if turn.role != "system"]


def _system(examples: Sequence[Example]) -> tuple[Turn, ...]:
    """The system message, which templates take once, at the beginning."""
    said = [tuple(turn for turn in example.turns if turn.role == "system") for example in examples]
    if len(set(said)) > 1:
        raise InvalidExamples("the examples have different system messages, and a conversation has one")
    return said[0]


def encoder_of(base: str, template: str) -> Encoder:
    """The encoder of a base model, from its tokenizer and configuration alone.

    Args:
        base: folder or Hugging Face id.
        template: "auto", "chat" or "plain".

    Raises:
        InvalidSpec: they cannot be read; or there is no chat template where one is asked for.
    """
    from transformers import AutoConfig, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(base)
        config = AutoConfig.from_pretrained(base)
    except (OSError, ValueError, ImportError) as error:
        raise InvalidSpec(
            f"the tokenizer and configuration of the base model {base!r} cannot be read: {error}"
        ) from error
    has_template = bool(getattr(tokenizer, "chat_template", None))
    if template == "chat" and not has_template:
        raise InvalidSpec(f"the tokenizer of {base!r} has no chat template: use `template: plain`")
    context = getattr(config.get_text_config(), "max_position_embeddings", None) or 2**31
    return Encoder(tokenizer, _ends(base, tokenizer), has_template and template != "plain", int(context))


def _ends(base: str, tokenizer: "PreTrainedTokenizerBase") -> frozenset[int]:
    """The ids at which generation ends."""
    from transformers import GenerationConfig

    try:
        given = GenerationConfig.from_pretrained(base).eos_token_id
    except OSError:
        given = None
    ids = given if isinstance(given, list) else [given]
    return frozenset(int(each) for each in (*ids, tokenizer.eos_token_id) if each is not None)
