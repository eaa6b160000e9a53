"""A reward LM with another tokenizer than the base's: does it score as it must, and what does that cost?

    PADLITE_VOCABULARIES=DIR python benchmarks/bridge.py [--base llama-bpe] [--reward phi-3] [--steps 1000]

DIR holds llama.cpp's ggml-vocab-*.gguf (`benchmarks/real_vocabularies.py`). The base's tokenizer is llama.cpp's own;
the reward LM is one layer of random numbers over the other vocabulary, in ONNX Runtime. The text is this repository's
own documentation with other scripts, emoji and code in between. At each step there are ten candidates.

Compared on hard candidates (what comes, what came after the same token elsewhere, other beginnings of what comes, an
end token, random tokens): each with brute force, which tokenizes all the text with that candidate and evaluates all of
it, without any cache. Timed on likely ones (what comes, what came after the same token elsewhere, common tokens), in
turns with the path for equal tokenizers on the same graph; processor time of the one thread that does it all.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.bare_loop import silence
from benchmarks.real_vocabularies import REBUILT, VARIABLE, base_tokenizer, folder, rebuilt, vocabulary
from benchmarks.workloads import CANDIDATES, Json, print_result, say
from padlite.backends.llama import LlamaTokenizer
from padlite.backends.onnx_lm import OnnxLm
from padlite.backends.reward_tokenizer import RewardTokenizer
from padlite.bridge import BridgedReward
from padlite.prompt import prompt_tokens
from padlite.reward_lm import PROMPT, HeldText, asked
from padlite.scoring import pad_rewards
from padlite.seams import Dimension, FloatArray, Message, Step, TokenArray
from padlite.template import ChatTemplate
from tests import lms
from tests.vocabularies import whole_tokens

WIDTH = 32
TOLERANCE, BAR = 1e-3, 0.99
LOGITS = np.linspace(0, -3, CANDIDATES, dtype=np.float32)
SAID = [Message(role="user", content="Tell me about it.")]
OTHER_SCRIPTS = (
    "今日は良い天気ですね。東京へ行きたいです!이것은 한국어 문장입니다. Привет, как дела? "
    'naïve café — "quotes" \U0001f469\u200d\U0001f467 \U0001f937\U0001f3fd\nمرحبا بالعالم\n\n'
    "\tfor (int i = 0; i < 1234567; ++i) { x[i] += 2.5e-3; }   // don't, he'll\n"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Both sides of the bridge, and the text *ids* in the base's tokens."""

    base: LlamaTokenizer
    own: RewardTokenizer
    weights: lms.Weights
    ids: Sequence[int]

    @property
    def template(self) -> ChatTemplate:
        """The reward LM's: its end token after each message."""
        return ChatTemplate(
            "{% for m in messages %}{{ m.content }}{{ eos_token }}\n{% endfor %}", end=self.own.end_text
        )

    def reward(self, lm: OnnxLm) -> BridgedReward:
        """Return the reward at the beginning of an answer."""
        dimension = Dimension(name="preference")
        reward = BridgedReward(
            lm, self.base, self.template, own=self.own, dimension=dimension, preference="humor"
        )  # fmt: skip
        reward.begin(SAID, [0], lambda: False)
        return reward

    def step(self, at: int, candidates: Sequence[int]) -> Step:
        """Return the decision after *at* tokens."""
        return Step(
            context=[0, *self.ids[:at]], candidates=np.array(candidates, dtype=np.int64), base_logits=LOGITS,
            hidden=np.zeros(0, dtype=np.float32), weights=np.ones(1, dtype=np.float32),
        )  # fmt: skip

    def told(self) -> list[int]:
        """Return the reward LM's prompt."""
        return prompt_tokens(self.template, self.own, asked(SAID, PROMPT, "humor"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--base", default="llama-bpe")
    parser.add_argument("--reward", default="phi-3", choices=REBUILT)
    parser.add_argument("--steps", type=int, default=1000)
    options = parser.parse_args()
    found = folder()
    if found is None:
        parser.error(f"{VARIABLE} must name the folder with ggml-vocab-*.gguf")
    silence()
    tokenizer, end = rebuilt(vocabulary(found, options.reward))
    own = RewardTokenizer(tokenizer.to_str(), end_text=end)
    weights = lms.random_weights(-(-own.vocabulary_size // 8) * 8, WIDTH)
    with tempfile.TemporaryDirectory() as work, base_tokenizer(vocabulary(found, options.base)) as base:
        ids = base.encode(text(options.steps), special=False)[: options.steps + 1]
        pair = Pair(base=base, own=own, weights=weights, ids=ids)
        path = lms.write_lm(Path(work) / "reward.onnx", weights, normalized=True, context_length=4 * len(ids) + 512)
        with OnnxLm.open(path, device="cpu") as lm:
            result: dict[str, Json] = {"base": options.base, "reward": options.reward, "steps": len(ids) - 1}
            result |= timed(pair, lm)
            result |= compared(pair, lm.with_own_cache())
    for name, value in result.items():
        say(f"  {name.replace('_', ' ')}: {value}")
    print_result("bridge", result)
    equal = result["equal"]
    sys.exit(not isinstance(equal, float) or equal < BAR)


def text(tokens: int) -> str:
    """Return documentation with a stretch of other scripts and code after every tenth of it."""
    pages = sorted((Path(__file__).parents[1] / "docs").glob("*.md"))
    whole = "\n".join(page.read_text(encoding="utf-8") for page in pages)[: 4 * tokens]
    part = max(1, len(whole) // 10)
    return OTHER_SCRIPTS.join(whole[at : at + part] for at in range(0, len(whole), part))


def hard_candidates(ids: Sequence[int], base: LlamaTokenizer, *, seed: int = 0) -> list[list[int]]:
    """Return ten different candidates for each step of *ids*, what really comes first, and nonsense among them."""
    rng, followers = np.random.default_rng(seed), _followers(ids)
    ends = [token for token in range(base.vocabulary_size) if base.is_end(token)][:1]
    steps: list[list[int]] = []
    for at in range(1, len(ids)):
        coming = b"".join(map(base.piece, ids[at : at + 3])).decode(errors="replace")
        others = [base.encode(coming[:length], special=False) for length in range(1, min(8, len(coming)) + 1)]
        pool = [ids[at], *(each for each, _ in followers[ids[at - 1]].most_common(5))]
        pool += [each[0] for each in others if each][:3] + ends
        pool += rng.integers(0, base.vocabulary_size, CANDIDATES).tolist()
        steps.append(list(dict.fromkeys(pool))[:CANDIDATES])
    return steps


def likely_candidates(ids: Sequence[int]) -> list[list[int]]:
    """Return ten different candidates for each step: what comes, what came after the same token, common tokens."""
    followers, common = _followers(ids), [token for token, _ in Counter(ids).most_common(2 * CANDIDATES)]
    pools = (
        [right, *(each for each, _ in followers[left].most_common(CANDIDATES)), *common]
        for left, right in pairwise(ids)
    )
    return [list(dict.fromkeys(pool))[:CANDIDATES] for pool in pools]


def _followers(ids: Sequence[int]) -> dict[int, Counter[int]]:
    followers: dict[int, Counter[int]] = defaultdict(Counter)
    for left, right in pairwise(ids):
        followers[left][right] += 1
    return followers


def by_brute_force(pair: Pair, at: int, candidates: Sequence[int], lm: OnnxLm) -> FloatArray:
    """Return the features (k, 1) after *at* tokens by the rule alone: all text tokenized, all tokens evaluated anew."""
    before, told = b"".join(map(pair.base.piece, pair.ids[:at])), pair.told()
    now, end = whole_tokens(pair.own, before), pair.own.end(pair.template)
    if now is None:
        now = pair.own.continued(before.decode(errors="ignore"))
    chains: dict[int, list[int]] = {}
    for place, candidate in enumerate(candidates):
        piece = pair.base.piece(candidate)
        chain = whole_tokens(pair.own, before + piece) if piece else None
        if end is not None and not piece and pair.base.is_end(candidate):
            chain = [*now, end]
        if chain and chain != now:
            chains[place] = chain
    # Log p of tokens that all have in common is left out, nothing else.
    every = list(chains.values())
    shared = next((i for i, column in enumerate(zip(*every, strict=False)) if len(set(column)) > 1), 0)
    shared = shared or max(0, min(map(len, every), default=1) - 1)
    scores = [
        sum(_log_p([*told, *chain[:depth]], chain[depth], lm) for depth in range(shared, len(chain))) for chain in every
    ]
    features = np.zeros((len(candidates), 1), dtype=np.float32)
    places = list(chains)
    features[places] = pad_rewards(np.array(scores, dtype=np.float32), LOGITS[places])
    return features


def _log_p(tokens: Sequence[int], token: int, lm: OnnxLm) -> float:
    candidates: TokenArray = np.array([token], dtype=np.int64)
    return float(lm.scores(tokens, candidates, keep=0)[0])


def compared(pair: Pair, alone: OnnxLm) -> dict[str, Json]:
    """Return how many features are those of brute force; *alone* is evaluated without its cache."""
    lm = alone.with_own_cache()
    reward, chosen = pair.reward(lm), hard_candidates(pair.ids, pair.base)
    errors: list[FloatArray] = []
    judged = 0
    for at in range(1, len(pair.ids)):
        found = reward.features(pair.step(at, chosen[at - 1]))
        expected = by_brute_force(pair, at, chosen[at - 1], alone)
        errors.append(np.where(np.isfinite(found), np.abs(found - expected), np.float32(np.inf)))
        judged += int(np.count_nonzero(expected))
        if at % 100 == 0:
            say(f"  {at:,} steps compared")
    every = np.array(errors)
    return {
        "candidates": every.size,
        "judged": round(judged / every.size, 4),
        "equal": float(np.mean(every <= TOLERANCE)),
        "largest_error": float(every.max()),
        "evaluated_tokens_per_step_of_hard_candidates": round(lm.evaluated_tokens / len(errors), 2),
    }


def timed(pair: Pair, opened: OnnxLm) -> dict[str, Json]:
    """Return what a step costs on likely candidates, beside the path for equal tokenizers on the same graph."""
    lm, alone = opened.with_own_cache(), opened.with_own_cache()
    reward, held, chosen = pair.reward(lm), HeldText(alone), likely_candidates(pair.ids)
    reading = [*pair.told(), *pair.ids]
    reading = [token % opened.info.vocabulary_size for token in reading]
    begun = len(pair.told())
    bridge_s: list[float] = []
    equal_s: list[float] = []
    for at in range(1, len(pair.ids)):
        step = pair.step(at, chosen[at - 1])
        candidates = step.candidates % opened.info.vocabulary_size
        began = time.thread_time()
        reward.features(step)
        middle = time.thread_time()
        held.scores(reading[: begun + at], candidates, same=begun + at - 1, cancelled=lambda: False)
        bridge_s.append(middle - began)
        equal_s.append(time.thread_time() - middle)
        if at == 1:
            lm.evaluated_tokens = 0  # the prompt
    bridge_s, equal_s = bridge_s[1:], equal_s[1:]
    quarter = len(bridge_s) // 4
    second, last = bridge_s[quarter : 2 * quarter], bridge_s[-quarter:]
    return {
        "evaluated_tokens_per_step": round(lm.evaluated_tokens / len(bridge_s), 2),
        "step_cpu_ms": round(1000 * statistics.median(bridge_s), 3),
        "step_cpu_ms_with_equal_tokenizers": round(1000 * statistics.median(equal_s), 3),
        "last_quarter_to_second": round(statistics.median(last) / statistics.median(second), 2),
    }


if __name__ == "__main__":
    main()
