"""From a conversation to the token ids of its prompt.

Scaffolding of the template is tokenized with control tokens recognized, what people wrote without: a message that
contains ``<|im_end|>`` reaches the model as those characters. Answers keep the ids they were generated with, so that
the next prompt begins with exactly what the model's cache holds. Knows the tokenizer only through its protocol.
"""

from collections.abc import Sequence

from padlite.seams import PromptTokenizer
from padlite.template import ChatTemplate, Message, Segment


def prompt_tokens(template: ChatTemplate, tokenizer: PromptTokenizer, messages: Sequence[Message]) -> list[int]:
    """Return the ids of *messages* rendered by *template*, up to where the answer begins."""
    ids: list[int] = []
    for run in _runs(template.render(messages), messages):
        if isinstance(run, tuple):
            ids.extend(run)
        else:
            ids.extend(_encode(run, tokenizer))
    if tokenizer.beginning is not None and ids[:1] != [tokenizer.beginning]:
        ids.insert(0, tokenizer.beginning)
    return ids


def _runs(segments: Sequence[Segment], messages: Sequence[Message]) -> list[tuple[int, ...] | list[Segment]]:
    """Cut *segments* where an answer stands whose ids are known; what lies between is tokenized as one text."""
    runs: list[tuple[int, ...] | list[Segment]] = []
    between: list[Segment] = []
    for segment in segments:
        known = () if segment.message is None or segment.message < 0 else messages[segment.message].tokens
        if known:
            runs += [between, known]
            between = []
        else:
            between.append(segment)
    return [*runs, between]


def _encode(segments: Sequence[Segment], tokenizer: PromptTokenizer) -> list[int]:
    """Return the ids of consecutive *segments*.

    As one text, which is what the model was trained on, unless somebody's words contain the text of a control token:
    then each segment by itself, the words without control tokens.
    """
    words = "\n".join(segment.text for segment in segments if segment.message is not None)
    if not any(control in words for control in tokenizer.control_texts):
        return tokenizer.encode("".join(segment.text for segment in segments), special=True)
    return [token for segment in segments for token in tokenizer.encode(segment.text, special=segment.message is None)]
