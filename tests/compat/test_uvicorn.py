"""A server on uvicorn's private connections and one on its public options give the same answers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "faults"))

from running_servers import people, table_model

from danlu.compat import uvicorn

for library in ("fastapi", "uvicorn", "httptools", "prometheus_client", "python_multipart"):
    pytest.importorskip(library, reason="pip install 'danlu[serve]'")
if sys.platform != "linux":
    pytest.skip("workers end with their parent by a call of Linux", allow_module_level=True)

pytestmark = pytest.mark.timeout(1800)  # a worker imports torch for a minute on a busy machine

SERVE = "from danlu import serve; serve({path!r}, port=0, most_body=100_000, most_rows=50)"
# uvicorn as a later version might be, without the class that danlu derives from.
WITHOUT_PRIVATE_NAMES = (
    "import uvicorn.protocols.http.httptools_impl as private; del private.HttpToolsProtocol\n"
)
HEADERS = ("content-type", "retry-after", "www-authenticate", "allow", "cache-control")


def test_this_version_of_uvicorn_has_all_private_names() -> None:
    assert uvicorn.missing_names() == []


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return table_model(tmp_path_factory.mktemp("people"))


@contextmanager
def served(code: str) -> Iterator[int]:
    """The port of a server that runs, and that ends well at SIGTERM."""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline().rsplit(":", 1)[1])
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def requests() -> list[tuple[str, str, bytes | None, dict[str, str]]]:
    """(method, path, body, headers): answers, refusals of every kind, and other routes."""
    rows = json.dumps({"rows": people(20)}).encode()
    predict = "/v1/predict"
    return [
        ("POST", predict, rows, {}),
        ("POST", "/v1/models/people/predict", rows, {"Content-Type": "application/json"}),
        ("POST", predict, b"{", {}),
        ("POST", predict, None, {"Content-Length": "100001"}),
        ("POST", predict, json.dumps({"rows": [{}] * 51}).encode(), {}),
        ("POST", predict, b"{}", {"Content-Type": "application/xml"}),
        ("POST", predict, b"{}", {"Content-Encoding": "gzip"}),
        ("POST", predict, b"{}", {"X-Deadline-Ms": "soon"}),
        ("POST", predict, b"{}", {"Host": "evil.example"}),
        ("POST", predict, b"{}", {"Origin": "http://evil.example"}),
        ("POST", "/v1/models/nobody/predict", b"{}", {}),
        ("POST", "/v1/models/a/b/predict", b"{}", {}),
        ("POST", "/nowhere", b"{}", {}),
        ("PUT", "/healthz", b"{}", {}),
        ("GET", "/healthz", None, {}),
        ("GET", "/readyz", None, {}),
        ("GET", "/v1/models/people", None, {}),
        ("GET", "/openapi.json", None, {}),
        ("GET", "/", None, {}),
    ]


def answers(port: int) -> list[tuple[int, Any, dict[str, str | None]]]:
    """(status, body, headers that matter) of each request, on one connection while it lasts."""
    result = []
    connection = HTTPConnection("127.0.0.1", port)
    for method, path, body, headers in requests():
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        content: Any = response.read()
        if response.headers["content-type"] == "application/json":
            content = without_time(json.loads(content))
        kept = {name: response.headers[name] for name in HEADERS}
        result.append((response.status, content, kept))
        if response.will_close:
            connection.close()
    connection.close()
    return result


def without_time(value: Any) -> Any:
    return {key: item for key, item in value.items() if key != "created"}


def test_the_public_way_gives_the_answers_of_the_private_way(artifact: Path) -> None:
    code = SERVE.format(path=str(artifact))
    with served(code) as port:
        private = answers(port)
    with served(WITHOUT_PRIVATE_NAMES + code) as port:
        public = answers(port)
        metrics = HTTPConnection("127.0.0.1", port)
        metrics.request("GET", "/metrics")
        # Public uvicorn does not tell its connections: this server is on it.
        assert b"danlu_connections" not in metrics.getresponse().read()
        metrics.close()
    assert [status for status, _, _ in private] == [
        200, 200, 400, 413, 413, 415, 415, 400, 421, 403, 404, 404, 404, 405, 200, 200, 200, 200, 200,
    ]  # fmt: skip
    assert public == private
