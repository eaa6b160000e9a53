"""The base model in PyTorch: Llama's architecture, laid out so that its weights go into a GGUF as they are.

Shapes: B rows, T tokens, V vocabulary, d width, H heads. The rotary embedding turns neighbouring pairs of numbers, as
ggml does for the architecture `llama`, so query and key weights need no permutation. Input and output share one table.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from padlite_training.recipe import ModelShape


def rotary_table(shape: ModelShape, length: int) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of every position's angles, each (length, head width / 2)."""
    half = shape.width // shape.heads // 2
    rates = shape.rope_theta ** (-torch.arange(half, dtype=torch.float32) / half)
    angles = torch.arange(length, dtype=torch.float32)[:, None] * rates
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Return *x* (B, H, T, w) with each pair of neighbouring numbers turned by its position's angle."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cosine - odd * sine, even * sine + odd * cosine), dim=-1).flatten(-2)


class Block(nn.Module):
    """One layer: attention and a gated feed-forward part, each behind an RMS norm and added to its input."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.attention_norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        self.query = nn.Linear(shape.width, shape.width, bias=False)
        self.key = nn.Linear(shape.width, shape.width, bias=False)
        self.value = nn.Linear(shape.width, shape.width, bias=False)
        self.output = nn.Linear(shape.width, shape.width, bias=False)
        self.feed_norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        self.gate = nn.Linear(shape.width, shape.feed_forward, bias=False)
        self.up = nn.Linear(shape.width, shape.feed_forward, bias=False)
        self.down = nn.Linear(shape.feed_forward, shape.width, bias=False)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor, mask: Tensor | None) -> Tensor:
        """Return the layer's output, (B, T, d)."""
        rows, length, width = x.shape
        normed = self.attention_norm(x)
        split = (rows, length, self.heads, width // self.heads)
        query = rotate(self.query(normed).view(split).transpose(1, 2), cosine, sine)
        key = rotate(self.key(normed).view(split).transpose(1, 2), cosine, sine)
        value = self.value(normed).view(split).transpose(1, 2)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None)
        x = x + self.output(mixed.transpose(1, 2).reshape(rows, length, width))
        normed = self.feed_norm(x)
        return x + self.down(functional.silu(self.gate(normed)) * self.up(normed))


class LlamaForTraining(nn.Module):
    """A small Llama with tied input and output tables."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        self.table = nn.Embedding(shape.vocabulary, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.turn = 2 * shape.layers // 3
        self.norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        cosine, sine = rotary_table(shape, shape.context_length)
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                residual = name.endswith(("output.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 / ((2 * shape.layers) ** 0.5 if residual else 1))

    def states(self, tokens: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the last hidden states after the final norm, and those of `midway`, both (B, T, d)."""
        midway = self._through(self.blocks[: self.turn], self.table(tokens), mask)
        return self.norm(self._through(self.blocks[self.turn :], midway, mask)), self._sized(midway)

    def midway(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the hidden states two thirds of the way, of size one, (B, T, d), for *tokens* (B, T)."""
        return self._sized(self._through(self.blocks[: self.turn], self.table(tokens), mask))

    def hidden(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the last hidden states after the final norm, (B, T, d), for *tokens* (B, T)."""
        return self.states(tokens, mask)[0]

    def _through(self, blocks: Iterable[nn.Module], x: Tensor, mask: Tensor | None) -> Tensor:
        length = x.shape[1]
        cosine, sine = self.get_buffer("cosine")[:length], self.get_buffer("sine")[:length]
        for block in blocks:
            x = block(x, cosine, sine, mask)
        return x

    def _sized(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, (self.shape.width,), eps=self.shape.norm_epsilon)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the logits, (B, T, V); *mask* (B, 1, T, T) is added to the attention scores, None for causal."""
        return functional.linear(self.hidden(tokens, mask), self.table.weight)


def parameter_count(model: nn.Module) -> int:
    """Return the number of weights of *model*."""
    return sum(parameter.numel() for parameter in model.parameters())


@torch.no_grad()
def greedy_answer(model: LlamaForTraining, prompt: list[int], *, end: int, limit: int) -> list[int]:
    """Return the greedy continuation of *prompt* up to the token *end*, without a cache: for looking, not for use."""
    tokens, answer = list(prompt), []
    for _ in range(limit):
        row = torch.tensor([tokens[-model.shape.context_length :]], device=model.table.weight.device)
        logits = model(row)[0, -1]
        token = int(logits.argmax())
        if token == end:
            break
        tokens.append(token)
        answer.append(token)
    return answer
