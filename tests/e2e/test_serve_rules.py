"""The server on bad days: who may ask, what is refused, who leaves, and how it ends."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.served import Served, environment, serving

JSON = {"Content-Type": "application/json"}
JSON_BODY = b"Content-Type: application/json\r\nContent-Length: 100\r\nConnection: close\r\n\r\n{"  # and no more comes
HI = {"model": "padlite-tiny", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served"), "--metrics", "--allow-origin", "https://ok.example") as running:
        yield running


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory, random_base: Path) -> Iterator[Served]:
    """A model that ends no answer, one slot, and room for two that wait."""
    words = ("--model", str(random_base), "--context-length", "60000", "--parallel", "1", "--waiting", "2")
    with serving(tmp_path_factory.mktemp("endless"), *words, "--grace", "1") as running:
        yield running


def call(
    served: Served, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    data = response.read()
    connection.close()
    return response.status, data, {name.lower(): value for name, value in response.getheaders()}


def chat(served: Served, record: object, headers: dict[str, str] | None = None) -> tuple[int, dict[str, object]]:
    status, data, _ = call(
        served, "POST", "/v1/chat/completions", json.dumps(record).encode(), {**JSON, **(headers or {})}
    )
    return status, json.loads(data)


def error(data: bytes) -> dict[str, object]:
    """Return the error in *data*, which must have OpenAI's shape."""
    record = json.loads(data)
    assert set(record) == {"error"}
    assert set(record["error"]) == {"message", "type", "param", "code"}
    return dict(record["error"])


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil:8080", "", "[::1", "a b"])
def test_a_foreign_host_header_is_refused(served: Served, host: str) -> None:
    status, data, _ = call(served, "GET", "/v1/models", headers={"Host": host})
    assert (status, error(data)["code"]) == (403, "host_not_allowed")


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "127.0.0.1:8080", "[::1]:99", "LOCALHOST"])
def test_this_machines_own_names_are_answered(served: Served, host: str) -> None:
    assert call(served, "GET", "/v1/models", headers={"Host": host})[0] == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost.evil", "http://127.0.0.1:1"])
def test_pages_of_other_origins_are_refused(served: Served, origin: str) -> None:
    for method, path in (("GET", "/v1/models"), ("POST", "/v1/chat/completions"), ("OPTIONS", "/v1/chat/completions")):
        status, data, headers = call(served, method, path, b"{}", {**JSON, "Origin": origin})
        assert (status, error(data)["code"]) == (403, "origin_not_allowed")
        assert "access-control-allow-origin" not in headers


def test_an_origin_that_was_named_may_call_and_so_may_the_servers_own(served: Served) -> None:
    origin = {"Origin": "https://ok.example"}
    status, _, headers = call(served, "OPTIONS", "/v1/chat/completions", None, origin)
    assert (status, headers["access-control-allow-origin"]) == (204, "https://ok.example")
    status, _, headers = call(served, "POST", "/v1/chat/completions", json.dumps(HI).encode(), {**JSON, **origin})
    assert (status, headers["access-control-allow-origin"]) == (200, "https://ok.example")
    own = {"Origin": served.url, "Host": f"127.0.0.1:{served.port}"}
    assert call(served, "GET", "/v1/models", headers=own)[0] == 200


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"[1]", "invalid_json"),
        (b'{"model": NaN}', "invalid_json"),
        (b"\xff\xfe{}", "invalid_utf8"),
        (b'{"a":' + b"[" * 100_000, "invalid_json"),
        (b'{"seed": ' + b"9" * 10_000 + b"}", "invalid_json"),
        (b'{"model": "padlite-tiny", "messages": [], "\\ud800": 1}', "unknown_field"),
    ],
)
def test_bodies_that_are_no_request_are_refused(served: Served, body: bytes, code: str) -> None:
    status, data, _ = call(served, "POST", "/v1/chat/completions", body, JSON)
    assert (status, error(data)["code"]) == (400, code)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", 3), ("model", ""), ("messages", "Hi"), ("messages", {}), ("messages", ["Hi"]), ("temperature", "hot"),
        ("temperature", True), ("top_p", 1.5), ("max_tokens", 1.5), ("max_tokens", "3"), ("stop", 3), ("stop", [3]),
        ("stop", ["x"] * 17), ("seed", "x"), ("seed", 2**70), ("n", True), ("stream", "yes"), ("stream_options", []),
        ("logprobs", 1), ("frequency_penalty", 3), ("presence_penalty", []), ("logit_bias", []),
        ("logit_bias", {"1": 200}), ("response_format", "json"), ("response_format", {"type": "xml"}), ("padlite", []),
        ("padlite", {"weights": {"caring": "much"}}), ("padlite", {"profile": 3}), ("padlite", {"trace": 1}),
        ("padlite", {"strength": 1e9}), ("padlite", {"candidates": 0}),
    ],
)  # fmt: skip
def test_a_field_of_the_wrong_type_or_size_is_a_400_that_names_it(served: Served, field: str, value: object) -> None:
    status, told = chat(served, {**HI, field: value})
    assert status == 400
    assert field in str(told["error"]["param"])  # type: ignore[index]


def test_half_a_character_in_a_message_is_answered_like_any_other(served: Served) -> None:
    body = b'{"model": "padlite-tiny", "messages": [{"role": "user", "content": "Hi \\ud800 \\u0000 there"}]}'
    assert call(served, "POST", "/v1/chat/completions", body, JSON)[0] == 200


def test_a_huge_body_is_refused_before_it_is_read_and_while(served: Served) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    told = served.raw(head + b"Content-Length: 99999999999\r\nConnection: close\r\n\r\n{")
    assert b" 413 " in told.split(b"\r\n")[0]
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    body = head + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + chunk * 100
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as connection:
        try:
            connection.sendall(body)
            received = connection.recv(65536)
        except (BrokenPipeError, ConnectionResetError):
            received = b""
    assert not received or b" 413 " in received.split(b"\r\n")[0]
    assert chat(served, HI)[0] == 200


def test_paths_methods_and_content_types_that_do_not_exist_have_the_same_shape_of_error(served: Served) -> None:
    for method, path, headers, status in (
        ("GET", "/v1/nothing", {}, 404),
        ("GET", "/index.html", {}, 404),
        ("GET", "/v1/models/nobody", {}, 404),
        ("DELETE", "/v1/models", {}, 405),
        ("GET", "/v1/chat/completions", {}, 405),
        ("POST", "/v1/chat/completions", {"Content-Type": "text/plain"}, 415),
        ("POST", "/v1/chat/completions", {}, 415),
    ):
        found, data, _ = call(served, method, path, b"{}" if method == "POST" else None, headers)
        assert found == status, path
        error(data)


def test_what_is_no_http_is_told_so_in_the_same_shape(served: Served) -> None:
    for data in (b"hello\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/9.9\r\n\r\n"):
        head, _, body = served.raw(data, within_s=10).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400")
        error(body)
    endless_header = b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 400_000
    assert b" 431 " in served.raw(endless_header, within_s=10).split(b"\r\n")[0]


def test_the_numbers_are_there_when_asked_for(served: Served) -> None:
    chat(served, HI)
    status, data, _ = call(served, "GET", "/metrics")
    assert status == 200
    values = dict(line.rsplit(" ", 1) for line in data.decode().splitlines() if not line.startswith("#"))
    assert int(values["padlite_answers_total"]) >= 1
    assert int(values["padlite_completion_tokens_total"]) >= 1
    assert values["padlite_running"] == "0"


def test_the_stream_is_exactly_what_the_standard_says(served: Served) -> None:
    record = json.dumps({**HI, "stream": True}).encode()
    status, data, headers = call(served, "POST", "/v1/chat/completions", record, JSON)
    assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    events = data.decode().split("\n\n")
    assert events.pop() == ""
    assert events.pop() == "data: [DONE]"
    records = [json.loads(event.removeprefix("data: ")) for event in events]
    deltas = [record["choices"][0]["delta"] for record in records]
    assert deltas[0]["role"] == "assistant"
    assert deltas[-1] == {}
    assert "".join(delta.get("content", "") for delta in deltas)


def test_no_chunk_of_a_stream_holds_half_a_character(endless: Served) -> None:
    record = {**HI, "model": "base.gguf", "max_tokens": 300, "temperature": 2, "seed": 5}
    whole = chat(endless, record)[1]["choices"][0]["message"]["content"]  # type: ignore[index]
    _, data, _ = call(endless, "POST", "/v1/chat/completions", json.dumps({**record, "stream": True}).encode(), JSON)
    chunks = [json.loads(line[6:]) for line in data.splitlines() if line.startswith(b"data: {")]
    pieces = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
    assert "".join(pieces) == whole
    assert len(pieces) > 5
    assert [character for character in whole if ord(character) > 127 and character != "\ufffd"], (
        "no such character came"
    )


def _sent(served: Served, fields: dict[str, object] | None = None) -> socket.socket:
    """Ask for a streamed answer of the random model, and return the connection."""
    return served.ask({**HI, "model": "base.gguf", "stream": True, **(fields or {})})


def _stream(served: Served, fields: dict[str, object] | None = None) -> tuple[socket.socket, bytes]:
    """Begin a streamed answer that doesn't end; return the connection and its first bytes."""
    connection = _sent(served, fields)
    return connection, connection.recv(4096)


def _settles(served: Served, load: tuple[int, int]) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if served.load() == load:
            return True
        time.sleep(0.05)
    return False


def test_the_queue_has_an_end_tells_its_positions_and_forgets_who_leaves(endless: Served) -> None:
    first, begun = _stream(endless)
    assert begun.startswith(b"HTTP/1.1 200")
    waiting = [_sent(endless) for _ in range(2)]
    assert _settles(endless, (1, 2))
    status, told = chat(endless, {**HI, "model": "base.gguf"})
    assert status == 429
    assert told["error"]["code"] == "queue_full"  # type: ignore[index]
    positions = sorted(_until(connection, b"in the queue").split(b"position ")[1][:1] for connection in waiting)
    assert positions == [b"1", b"2"]
    waiting[0].close()
    assert _settles(endless, (1, 1))
    first.close()
    assert _settles(endless, (1, 0)), "the one that waited is being answered"
    waiting[1].close()
    assert _settles(endless, (0, 0))


def _until(connection: socket.socket, wanted: bytes) -> bytes:
    received = b""
    while wanted not in received:
        chunk = connection.recv(4096)
        assert chunk, received
        received += chunk
    return received


def test_a_client_that_leaves_ends_its_prefill_and_its_answer(endless: Served) -> None:
    for stream in (False, True):
        messages = [{"role": "user", "content": "a b c d " * 6000}]
        connection = _sent(endless, {"stream": stream, "messages": messages})
        assert _settles(endless, (1, 0))
        connection.close()
        assert _settles(endless, (0, 0))
    assert chat(endless, {**HI, "model": "base.gguf", "max_tokens": 3})[0] == 200


def test_a_client_that_reads_nothing_keeps_nobody_waiting(endless: Served) -> None:
    silent, _ = _stream(endless, {"max_tokens": 3000})
    assert chat(endless, {**HI, "model": "base.gguf", "max_tokens": 3})[0] == 200
    assert _settles(endless, (0, 0))
    silent.close()


def test_clients_that_stop_reading_or_sending_are_given_up(tmp_path: Path, random_base: Path) -> None:
    impatient = (
        "from padlite.server import app, running\n"
        "running.LONGEST_STALL_S = 0.3; running.HEADERS_WITHIN_S = app.LONGEST_READ_S = 1.0"
    )
    words = ("--model", str(random_base), "--context-length", "60000", "--metrics")
    with serving(tmp_path, *words, before=impatient) as served:
        asked = {**HI, "model": "base.gguf", "stream": True, "padlite": {"candidates": 500, "trace": True}}
        with served.ask(asked) as silent:
            assert silent.recv(10)
            assert _settles(served, (0, 0))
            assert b"padlite_cancelled_total 1" in call(served, "GET", "/metrics")[1]
        for begun in (b"POST /v1/chat", b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n" + JSON_BODY):
            head, _, body = served.raw(begun).partition(b"\r\n\r\n")
            assert b" 408 " in head.split(b"\r\n")[0]
            error(body)
        assert chat(served, {**HI, "model": "base.gguf", "max_tokens": 3})[0] == 200
        assert "Traceback" not in "".join(served.lines)


def test_a_key_is_needed_off_this_machine_and_then_for_everything_but_health(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "padlite", "serve", "--host", "0.0.0.0"]  # noqa: S104 — refused
    done = subprocess.run(words, env=environment(tmp_path), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "key" in done.stderr
    assert len(done.stderr.splitlines()) == 2
    key = tmp_path / "key"
    key.write_text("correct horse\n", encoding="utf-8")
    with serving(tmp_path, "--key-file", str(key)) as served:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic correct horse"}):
            status, data, _ = call(served, "GET", "/v1/models", headers=headers)
            assert (status, error(data)["code"]) == (401, "invalid_api_key")
        right = {"Authorization": "Bearer correct horse"}
        assert call(served, "GET", "/v1/models", headers=right)[0] == 200
        assert call(served, "GET", "/health")[0] == 200
        assert chat(served, HI, right)[0] == 200


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--model", "no-such-model"), 3, "no-such-model"),
        (("--model", "/no/such.gguf"), 3, "such.gguf"),
        (("--key-file", "/no/such/key"), 3, "key file"),
        (("--host", "256.1.1.1", "--key-file", "KEY"), 2, "256.1.1.1"),
        (("--port", "99999"), 2, "99999"),
        (("--context-length", "-1"), 2, "context_length"),
    ],
)
def test_what_cannot_be_served_ends_with_one_clear_line(
    tmp_path: Path, words: tuple[str, ...], code: int, says: str
) -> None:
    (tmp_path / "KEY").write_text("x", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "padlite", "serve", *words],
        env=environment(tmp_path), cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2


def test_a_port_in_use_is_said_with_another_one(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        words = [sys.executable, "-m", "padlite", "serve", "--port", str(port)]
        done = subprocess.run(words, env=environment(tmp_path), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert f"port {port} is in use" in done.stderr
    assert f"--port {port + 1}" in done.stderr


def test_a_broken_model_file_is_said_and_the_server_ends(tmp_path: Path) -> None:
    model = tmp_path / "broken.gguf"
    model.write_bytes(b"GGUF" + os.urandom(100))
    words = [sys.executable, "-m", "padlite", "serve", "--port", "0", "--model", str(model)]
    done = subprocess.run(words, env=environment(tmp_path), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 5
    assert "broken.gguf" in done.stderr
    assert "Traceback" not in done.stderr


def test_sigterm_lets_a_short_answer_finish_and_exits_with_0(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        answers: list[tuple[int, object]] = []
        record = {
            **HI,
            "n": 4,
            "max_tokens": 150,
            "temperature": 1,
            "messages": [{"role": "user", "content": "Tell me a story."}],
        }
        thread = threading.Thread(target=lambda: answers.append(chat(served, record)))
        thread.start()
        assert _settles(served, (1, 0))
        assert served.stop() == 0
        thread.join(20)
        assert [status for status, _ in answers] == [200]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_long_answer_is_told_that_the_server_stopped_and_the_exit_code_is_0(
    tmp_path: Path, random_base: Path, number: int
) -> None:
    words = ("--model", str(random_base), "--context-length", "60000", "--grace", "0.5")
    with serving(tmp_path, *words) as served:
        connection, received = _stream(served)
        served.process.send_signal(number)
        with connection:
            while chunk := connection.recv(65536):
                received += chunk
        assert b'"code": "stopping"' in received
        assert received.rstrip().endswith(b"0") or b"[DONE]" in received
        assert served.process.wait(20) == 0
        assert "Traceback" not in "".join(served.lines)


def test_two_servers_and_a_chat_share_one_home(tmp_path: Path) -> None:
    with serving(tmp_path) as one, serving(tmp_path) as two:
        words = [sys.executable, "-m", "padlite", "chat", "--threads", "1", "-p", "Hi"]
        done = subprocess.run(words, env=environment(tmp_path), capture_output=True, timeout=60, check=False)
        assert done.returncode == 0
        assert chat(one, HI)[1]["choices"] == chat(two, HI)[1]["choices"]
