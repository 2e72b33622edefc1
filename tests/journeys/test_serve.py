"""`danlu serve` as a user meets it: a real server, real HTTP."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "faults"))

from running_servers import RunningServer, gone, image_model, people, same, serving, table_model

import danlu

for library in ("fastapi", "uvicorn", "httptools", "prometheus_client", "python_multipart"):
    pytest.importorskip(library, reason="pip install 'danlu[serve]'")
pytestmark = pytest.mark.timeout(1800)  # a worker imports torch for a minute on a busy machine
if sys.platform != "linux":
    pytest.skip("workers end with their parent by a call of Linux", allow_module_level=True)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return table_model(tmp_path_factory.mktemp("people")), image_model(
        tmp_path_factory.mktemp("digits")
    )


@pytest.fixture(scope="module")
def server(
    models: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    log = tmp_path_factory.mktemp("served") / "log"
    with serving(models, log, "--most-body", "100000", "--most-rows", "50") as found:
        yield found
        assert found.end() == 0


def test_rows_get_the_answers_of_the_artifact(
    server: RunningServer, models: tuple[Path, Path]
) -> None:
    rows = people(20)
    wanted = danlu.load(models[0]).predict(rows)
    answer = server.predict(rows)
    assert answer.status == 200
    assert answer.json["model"] == "people"
    assert all(map(same, answer.json["answers"], wanted))
    alone = [
        server.ask("POST", "/v1/models/people/predict", {"row": row}).json["answers"][0]
        for row in rows[:5]
    ]
    assert all(map(same, alone, wanted))


def test_csv_is_answered_like_the_file(
    server: RunningServer, models: tuple[Path, Path], tmp_path: Path
) -> None:
    rows = people(6)
    lines = [
        ",".join(rows[0]),
        *(
            ",".join(
                ""
                if value is None
                else str(value).lower()
                if value in (True, False)
                else str(value)
                for value in row.values()
            )
            for row in rows
        ),
    ]
    file = tmp_path / "people.csv"
    file.write_text("\n".join(lines) + "\n", "utf-8")
    answer = server.ask("POST", "/v1/predict", file.read_bytes(), {"Content-Type": "text/csv"})
    assert answer.status == 200
    assert all(map(same, answer.json["answers"], danlu.load(models[0]).predict(str(file))))


def test_a_picture_is_answered_however_it_is_sent(
    server: RunningServer, models: tuple[Path, Path]
) -> None:
    import io

    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (8, 8)).astype(np.uint8)
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "PNG")
    file = held.getvalue()
    wanted = danlu.load(models[1]).predict({"image": pixels[None, :, :, None]})[0]
    path, coded = "/v1/models/digits/predict", base64.b64encode(file).decode()
    form = (
        b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
        + file
        + b"\r\n--b--\r\n"
    )
    answers = [
        server.ask("POST", path, {"row": {"image": pixels.tolist()}}),
        server.ask("POST", path, {"row": {"image": coded}}),
        server.ask("POST", path, {"rows": [{"image": f"data:image/png;base64,{coded}"}]}),
        server.ask("POST", path, form, {"Content-Type": "multipart/form-data; boundary=b"}),
        server.ask("POST", path, file, {"Content-Type": "image/png"}),
    ]
    assert [answer.status for answer in answers] == [200] * 5
    assert all(same(answer.json["answers"][0], wanted) for answer in answers)


def test_a_path_is_not_opened(server: RunningServer, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("L", (8, 8)).save(tmp_path / "secret.png")
    answer = server.ask(
        "POST", "/v1/models/digits/predict", {"row": {"image": str(tmp_path / "secret.png")}}
    )
    assert (answer.status, answer.error["field"]) == (400, "image")


def test_models_say_what_they_are_and_their_examples_work(server: RunningServer) -> None:
    listed = server.ask("GET", "/v1/models").json
    assert listed["object"] == "list"
    assert [each["id"] for each in listed["data"]] == ["people", "digits"]
    for name in ("people", "digits"):
        told = server.ask("GET", f"/v1/models/{name}").json
        assert told["card"]["task"] == "classification"
        assert told["card"]["scores"]
        assert set(told["example"]) == {field["name"] for field in told["fields"]}
        assert (
            server.ask("POST", f"/v1/models/{name}/predict", {"row": told["example"]}).status == 200
        )
    assert server.ask("GET", "/v1/models/nobody").status == 404
    assert (
        server.ask("POST", "/v1/models/nobody/predict", {"row": {}}).error["hint"]
        == "models: people, digits"
    )


def test_openapi_describes_each_model_with_an_example_that_works(server: RunningServer) -> None:
    told = server.ask("GET", "/openapi.json").json
    for path in ("/v1/predict", "/v1/models/people/predict", "/v1/models/digits/predict"):
        content = told["paths"][path]["post"]["requestBody"]["content"]
        assert server.ask("POST", path, content["application/json"]["example"]).status == 200
    row = told["components"]["schemas"]["Row_of_people"]
    assert (
        row["properties"]["member"]["type"] == ["boolean", "null"]
        or row["properties"]["member"]["type"] == "boolean"
    )
    assert set(row["required"]) == {"age", "city", "member", "joined", "note"}


def test_probes_and_numbers(server: RunningServer) -> None:
    assert server.ask("GET", "/healthz").json == {"status": "ok"}
    assert server.ask("GET", "/readyz").json == {
        "status": "ready",
        "models": {"people": "ready", "digits": "ready"},
    }
    server.predict(people(3))
    lines = server.ask("GET", "/metrics").body.decode().splitlines()
    found = {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in lines
        if not line.startswith("#")
    }
    assert found['danlu_requests_total{model="people",status="200"}'] >= 1
    assert found['danlu_rows_total{model="people"}'] >= 3
    assert found['danlu_model_ready{model="digits"}'] == 1
    assert found['danlu_waiting_requests{model="people"}'] == 0


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/v1/predict", b"{", {}, 400),
        ("/v1/predict", b"x" * 100_001, {}, 413),
        ("/v1/predict", json.dumps({"rows": [{}] * 51}).encode(), {}, 413),
        ("/v1/predict", b"{}", {"Content-Type": "application/xml"}, 415),
        ("/v1/predict", b"{}", {"Content-Encoding": "gzip"}, 415),
        ("/v1/predict", b"{}", {"X-Deadline-Ms": "soon"}, 400),
        ("/v1/predict", b"{}", {"X-Deadline-Ms": "0"}, 400),
        ("/v1/predict", b"{}", {"Host": "evil.example"}, 421),
        ("/v1/predict", b"{}", {"Origin": "http://evil.example"}, 403),
        ("/v1/models/a/b/predict", b"{}", {}, 404),
        ("/v1/models/people/reload", b"{}", {}, 404),
        ("/nowhere", b"{}", {}, 404),
        ("/healthz", b"{}", {}, 405),
    ],
)
def test_what_cannot_be_answered_is_told_why(
    server: RunningServer, path: str, body: bytes, headers: dict[str, str], status: int
) -> None:
    answer = server.ask("POST", path, body, headers)
    assert answer.status == status
    assert answer.error["message"]
    assert answer.headers["content-type"] == "application/json"


def test_a_deadline_that_is_over_is_told(server: RunningServer) -> None:
    rows = [people(1)[0]] * 50
    found = {server.predict(rows, {"X-Deadline-Ms": "1"}).status for _ in range(3)}
    assert found <= {200, 504}
    assert server.predict(rows, {"X-Deadline-Ms": "60000"}).status == 200


def said(server: RunningServer, wire: bytes) -> bytes:
    """What comes back when bytes are sent as they are, until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port)) as end:
        end.sendall(wire)
        held = b""
        while data := end.recv(65536):
            held += data
    return held


def test_a_body_in_chunks_is_read_and_bounded(server: RunningServer) -> None:
    body = json.dumps({"row": people(1)[0]}).encode()
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = b"".join(b"%x\r\n%s\r\n" % (1, body[place : place + 1]) for place in range(len(body)))
    assert b"200 OK" in said(server, head + chunks + b"0\r\n\r\n")
    assert b"413" in said(server, head + b"186a1\r\n" + b"x" * 100_001 + b"\r\n0\r\n\r\n")


def test_requests_behind_each_other_on_one_connection_are_answered_in_order(
    server: RunningServer,
) -> None:
    rows = people(4)
    bodies = [json.dumps({"row": row}).encode() for row in rows]
    wire = b"".join(
        b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s"
        % (len(body), body)
        for body in bodies
    )
    wire += b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    held = said(server, wire)
    assert held.count(b"HTTP/1.1 200 OK") == 5
    answers = [
        json.loads(part.split(b"\r\n\r\n", 1)[1])["answers"][0]
        for part in held.split(b"HTTP/1.1 ")[1:5]
    ]
    assert all(map(same, answers, server.predict(rows).json["answers"]))


def test_a_head_without_end_and_one_that_is_none_are_refused(server: RunningServer) -> None:
    assert b"431" in said(
        server, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 40_000 + b"\r\n\r\n"
    )
    assert b"400" in said(server, b"\x00\x01\x02 nonsense\r\n\r\n")
    assert b"400" in said(
        server, b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n"
    )
    assert server.ready()


def test_two_servers_of_one_port_and_bad_options_are_told(
    server: RunningServer, models: tuple[Path, Path], tmp_path: Path
) -> None:
    def told(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "danlu", "serve", *arguments],
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stdout) in ((2, ""), (4, ""))
        assert "Traceback" not in done.stderr
        return done.stderr

    people_model = str(models[0])
    assert "cannot listen" in told(people_model, "--port", str(server.port))
    assert "two models are called people" in told(people_model, people_model)
    assert "a token is needed" in told(people_model, "--host", "0.0.0.0", "--port", "0")
    assert "no such artifact" in told(str(tmp_path / "nothing"))
    short = tmp_path / "token"
    short.write_text("short")
    short.chmod(0o600)
    assert "at least 16" in told(people_model, "--token-file", str(short))
    short.write_text("a" * 40)
    short.chmod(0o644)
    assert "others may read" in told(people_model, "--token-file", str(short))


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate and its key."""
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        "key.pem",
        "-out",
        "cert.pem",
        "-days",
        "2",
    ]
    try:
        subprocess.run(
            [*command, "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
            cwd=folder,
            capture_output=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("openssl is not there: apt-get install openssl")
    return folder / "cert.pem", folder / "key.pem"


def test_a_token_and_tls_guard_a_server_that_is_read_anew_by_its_operator(
    models: tuple[Path, Path], tmp_path: Path
) -> None:
    cert, key = certificate(tmp_path)
    token = tmp_path / "token"
    token.write_text("0123456789abcdef0123\n")
    token.chmod(0o600)
    with serving(
        f"mine={models[0]}",
        tmp_path / "log",
        "--token-file",
        str(token),
        "--tls-certificate",
        str(cert),
        "--tls-key",
        str(key),
    ) as server:
        context = ssl.create_default_context(cafile=str(cert))

        def ask(method: str, path: str, given: str | None = "0123456789abcdef0123") -> int:
            from http.client import HTTPSConnection

            connection = HTTPSConnection("localhost", server.port, context=context)
            body = json.dumps({"row": people(1)[0]}) if method == "POST" else None
            connection.request(
                method, path, body, {"Authorization": f"Bearer {given}"} if given else {}
            )
            answer = connection.getresponse()
            answer.read()
            connection.close()
            return answer.status

        assert [
            ask("POST", "/v1/predict"),
            ask("GET", "/v1/models"),
            ask("POST", "/v1/models/mine/predict"),
        ] == [200, 200, 200]
        assert [
            ask("POST", "/v1/predict", wrong) for wrong in (None, "", "0123456789abcdef0124", "é")
        ] == [401] * 4
        assert [
            ask("GET", path, None)
            for path in ("/healthz", "/readyz", "/metrics", "/v1/models", "/openapi.json")
        ] == [
            200,
            200,
            401,
            401,
            401,
        ]
        assert [
            ask("POST", "/v1/models/mine/reload"),
            ask("POST", "/v1/models/mine/reload", None),
        ] == [200, 401]
        assert server.end() == 0


def test_an_export_is_served_without_torch(tmp_path: Path, models: tuple[Path, Path]) -> None:
    for library in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(library, reason="pip install 'danlu[onnx]'")
    artifact = danlu.load(models[1])
    danlu.export(artifact, "onnx", tmp_path / "export")
    pixels = np.random.default_rng(0).integers(0, 17, (5, 8, 8)).astype(np.uint8)
    with serving(tmp_path / "export", tmp_path / "log") as server:
        answer = server.ask(
            "POST", "/v1/predict", {"rows": [{"image": each.tolist()} for each in pixels]}
        )
        assert answer.status == 200
        assert all(
            map(same, answer.json["answers"], artifact.predict({"image": pixels[..., None]}))
        )
        processes = [server.process.pid, *server.workers()]
        assert not [pid for pid in processes if "libtorch" in Path(f"/proc/{pid}/maps").read_text()]
        card = server.ask("GET", "/v1/models/digits").json["card"]
        assert (card["form"], card["task"], card["targets"]) == (
            "export",
            "classification",
            ["label"],
        )
        assert card["classes"] == list(artifact.task.classes)


def test_two_signals_end_at_once(models: tuple[Path, Path], tmp_path: Path) -> None:
    with serving(models[0], tmp_path / "log", silence=600) as server:
        worker = server.worker()
        os.kill(worker, signal.SIGSTOP)  # so that what is accepted cannot be answered
        with socket.create_connection(("127.0.0.1", server.port)) as end:
            body = json.dumps({"row": people(1)[0]}).encode()
            end.sendall(
                b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s"
                % (len(body), body)
            )
            server.until(lambda: server.number("danlu_waiting_requests") == 1)
            server.signal(signal.SIGTERM)
            server.until(lambda: server.ask("GET", "/readyz").json["status"] == "draining")
            server.signal(signal.SIGTERM)
            assert server.process.wait() == 128 + signal.SIGTERM
        while not gone(worker):  # the worker does not outlive its server
            time.sleep(0.02)
