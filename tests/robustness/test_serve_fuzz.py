"""Requests that nobody would write: invented from the server's own OpenAPI document, and bytes on the raw socket.

Whatever comes, the server answers below 500 (503 only while it ends), in OpenAI's shape, prints no traceback and lives.
More cases: `PADLITE_FUZZ_CASES=5000 pytest -m slow tests/robustness/test_serve_fuzz.py`.
"""

import http.client
import json
import os
import random
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings

from tests.served import Served, serving

CASES = int(os.environ.get("PADLITE_FUZZ_CASES", "1000"))
GOOD = {"model": "padlite-tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("fuzzed"), "--metrics", "--context-length", "256") as running:
        yield running
        assert running.process.poll() is None
        assert _ask(running, json.dumps(GOOD).encode())[0] == 200
    assert "Traceback" not in "".join(running.lines)
    assert "a bug in padlite" not in "".join(running.lines)


def _ask(served: Served, body: bytes) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    try:
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _invented(served: Served, cases: int) -> None:
    """Send *cases* requests that fit the OpenAPI document, each mostly wrong in some other way."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    connection.request("GET", "/openapi.json")
    schema = schemathesis.openapi.from_dict(json.loads(connection.getresponse().read()))
    connection.close()
    operations = [operation for result in schema.get_all_operations() if (operation := result.ok())]  # type: ignore[union-attr]
    assert len(operations) == 4
    for operation in operations:
        share = cases if operation.method == "post" else max(5, cases // 20)
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
            if mode is schemathesis.GenerationMode.NEGATIVE and operation.method == "get":
                continue

            @given(case=operation.as_strategy(generation_mode=mode))
            @settings(
                max_examples=share // 2 or 1, database=None, deadline=None, derandomize=True,
                suppress_health_check=list(HealthCheck),
                phases=[hypothesis.Phase.generate],
            )  # fmt: skip
            def check(case: Any) -> None:  # noqa: ANN401 — as schemathesis types it
                if isinstance(case.body, dict):
                    case.body.setdefault("max_tokens", 2)
                    if case.body.get("model") and random.random() < 0.5:
                        case.body["model"] = "padlite-tiny"
                response = case.call(base_url=served.url, timeout=30)
                assert response.status_code < 500, (response.status_code, response.text)
                if response.status_code >= 400:
                    assert set(response.json()["error"]) == {"message", "type", "param", "code"}

            check()


def test_invented_requests_are_answered_or_refused_in_the_right_shape(served: Served) -> None:
    _invented(served, 120)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_many_invented_requests_are_answered_or_refused_in_the_right_shape(served: Served) -> None:
    _invented(served, CASES)


def _mutated(rng: random.Random) -> bytes:
    """Return a request with something wrong with it."""
    body = json.dumps(GOOD).encode()
    length = b"Content-Length: %d\r\n\r\n" % len(body)
    whole = HEAD + length + body
    kind = rng.randrange(8)
    if kind == 0:
        return rng.randbytes(rng.randrange(1, 400))
    if kind == 1:
        return whole[: rng.randrange(1, len(whole))]
    if kind == 2:
        at = rng.randrange(len(whole))
        return whole[:at] + rng.randbytes(rng.randrange(1, 8)) + whole[at + rng.randrange(4) :]
    if kind == 3:
        return (
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + rng.choice([b"zz\r\n", b"5\r\nab", b"-1\r\n", b"0\r\n\r\n"])
        )
    if kind == 4:
        return HEAD + b"Content-Length: %d\r\n\r\n" % rng.choice([0, 1, 5, 10**6]) + body
    if kind == 5:
        return HEAD + HEAD + length + body
    if kind == 6:
        return whole * rng.randrange(2, 4)
    broken = bytearray(body)
    for _ in range(rng.randrange(1, 6)):
        broken[rng.randrange(len(broken))] = rng.randrange(256)
    return HEAD + b"Content-Length: %d\r\n\r\n" % len(broken) + bytes(broken)


def _bytes(served: Served, cases: int, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(cases):
        received = served.raw(_mutated(rng), within_s=0.15, half_close=rng.random() < 0.5)
        if received:
            assert received.startswith(b"HTTP/1.1 "), received[:100]
            status = int(received[9:12])
            assert status < 500, received[:500]


def test_bytes_that_are_no_request_do_no_harm(served: Served) -> None:
    _bytes(served, 100, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_many_bytes_that_are_no_request_do_no_harm(served: Served) -> None:
    _bytes(served, CASES, seed=2)
