"""Numbers for whoever watches the server, in Prometheus' text format. Counts; knows no texts and no persons."""

from collections import Counter
from collections.abc import Sequence

from padlite.session import Answer


class Metrics:
    """What was done since the server started."""

    def __init__(self) -> None:
        self.responses: Counter[int] = Counter()
        self.answers: int = 0
        self.cancelled: int = 0
        self.prompt_tokens: int = 0
        self.cached_tokens: int = 0
        self.completion_tokens: int = 0
        self.decoding_s: float = 0.0

    def answered(self, answers: Sequence[Answer]) -> None:
        """Count finished answers."""
        for answer in answers:
            self.answers += 1
            self.prompt_tokens += answer.usage.prompt_tokens
            self.cached_tokens += max(0, answer.usage.prompt_tokens - answer.usage.evaluated_tokens)
            self.completion_tokens += answer.usage.completion_tokens
            self.decoding_s += answer.timings.decode_s

    def text(self, *, running: int, waiting: int) -> str:
        """Return everything."""
        totals = {
            "answers": self.answers,
            "cancelled": self.cancelled,
            "prompt_tokens": self.prompt_tokens,
            "cached_prompt_tokens": self.cached_tokens,
            "completion_tokens": self.completion_tokens,
            "decoding_seconds": round(self.decoding_s, 3),
        }
        lines = ["# TYPE padlite_responses_total counter"]
        lines += [f'padlite_responses_total{{status="{code}"}} {n}' for code, n in sorted(self.responses.items())]
        for name, value in totals.items():
            lines += [f"# TYPE padlite_{name}_total counter", f"padlite_{name}_total {value}"]
        for name, value in {"running": running, "waiting": waiting}.items():
            lines += [f"# TYPE padlite_{name} gauge", f"padlite_{name} {value}"]
        return "\n".join(lines) + "\n"
