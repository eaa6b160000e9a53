"""Trains a small checkpoint on a few dialogues, in seconds: for demonstrations, where random weights would say nothing.

It learns the answers by heart and nothing else. Knows the checkpoint's folder (`padlite_export.random_checkpoint`).
"""

from collections.abc import Mapping
from pathlib import Path

import torch
import transformers

from padlite_training.chat_format import TURN_END, TURN_START

_STEPS = 120
_RATE = 3e-3


def train(folder: Path, answers: Mapping[str, str], *, seed: int = 0) -> float:
    """Teach the checkpoint in *folder* to give each of *answers* to its question; return the last loss in nats."""
    torch.manual_seed(seed)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).train()
    texts = [
        f"{TURN_START}user\n{question}{TURN_END}\n{TURN_START}assistant\n{answer}{TURN_END}\n"
        for question, answer in answers.items()
    ]
    read = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    longest = max(map(len, read))
    ids = torch.tensor([tokens + [0] * (longest - len(tokens)) for tokens in read])
    labels = torch.tensor([tokens + [-100] * (longest - len(tokens)) for tokens in read])
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE, weight_decay=0.0)
    loss = torch.zeros(())
    for _ in range(_STEPS):
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    return float(loss.detach())
