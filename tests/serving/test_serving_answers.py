"""What a worker answers is what the artifact predicts, whoever else asks at the same time."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="pip install 'danlu[serve]'")
sys.path.insert(0, str(Path(__file__).parent.parent / "faults"))

from running_servers import people, same, table_model

import danlu
from danlu.serving.protocol.messages import Unpacker
from danlu.serving.protocol.model_folder import locate
from danlu.serving.worker.models import open_model
from danlu.serving.worker.prediction_handler import PredictionHandler


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return table_model(tmp_path_factory.mktemp("people"))


@pytest.fixture(scope="module")
def predict(artifact: Path) -> Callable[[Any], list[dict[str, Any]]]:
    return danlu.load(artifact).predict


@pytest.fixture
def handler(artifact: Path) -> PredictionHandler:
    return PredictionHandler(open_model(artifact), max_rows=100, batch=16)


def asked(handler: PredictionHandler, requests: dict[int, Any]) -> dict[int, tuple[int, Any]]:
    """(status, body) by id of requests that come at one moment."""
    unpacker, found = Unpacker(), {}
    said: list[bytes] = []
    for id, body in requests.items():
        header = {
            "do": "answer",
            "id": id,
            "kind": "application/json",
            "before": time.monotonic() + 60,
        }
        said += handler.take(header, body if isinstance(body, bytes) else json.dumps(body).encode())
    while handler.busy:
        said += handler.step()
    for header, body in unpacker.feed(b"".join(said)):
        assert header["id"] not in found, "answered twice"
        found[header["id"]] = (header["status"], json.loads(body))
    return found


def test_requests_of_every_size_get_the_artifacts_answers(
    handler: PredictionHandler, predict: Any
) -> None:
    rows = people(70)
    requests = {
        1: {"rows": rows[:40]},
        2: {"row": rows[40]},
        3: {"rows": rows[41:44]},
        4: {"rows": rows[44:]},
    }
    found = asked(handler, requests)
    answers = [answer for id in requests for answer in found[id][1]["answers"]]
    assert {status for status, _ in found.values()} == {200}
    assert len(answers) == 70
    assert all(map(same, answers, predict(rows)))


def test_a_bad_request_spoils_nobody_elses(handler: PredictionHandler, predict: Any) -> None:
    rows = people(4)
    infinite = {
        **rows[1],
        "age": 1e300,
    }  # a number that no float32 holds: found when the rows are answered
    found = asked(
        handler,
        {1: {"row": rows[0]}, 2: {"rows": [rows[3], infinite]}, 3: {"row": rows[2]}, 4: b"{"},
    )
    assert [found[id][0] for id in (1, 2, 3, 4)] == [200, 400, 200, 400]
    assert found[2][1]["error"]["field"] == "age"
    assert found[2][1]["error"]["row"] == 2
    assert same(found[1][1]["answers"][0], predict([rows[0]])[0])
    assert same(found[3][1]["answers"][0], predict([rows[2]])[0])


def test_dates_are_not_read_by_what_others_write(handler: PredictionHandler, predict: Any) -> None:
    row = people(1)[0]
    american, european = {**row, "joined": "03/25/2011"}, {**row, "joined": "25/03/2011"}
    found = asked(handler, {1: {"row": american}, 2: {"row": european}, 3: {"row": row}})
    for id, given in ((1, american), (2, european), (3, row)):
        assert found[id][0] == 200
        assert same(found[id][1]["answers"][0], predict([given])[0])


def test_what_comes_too_late_is_not_answered(handler: PredictionHandler) -> None:
    header = {"do": "answer", "id": 1, "kind": "application/json", "before": time.monotonic() - 1}
    assert list(handler.take(header, json.dumps({"row": people(1)[0]}).encode())) == []
    assert not handler.busy


def test_a_cancelled_request_is_not_answered(handler: PredictionHandler) -> None:
    header = {"do": "answer", "id": 1, "kind": "application/json", "before": time.monotonic() + 60}
    assert list(handler.take(header, json.dumps({"row": people(1)[0]}).encode())) == []
    handler.cancel(1)
    assert not handler.busy


def test_the_model_tells_its_fields_with_an_example_that_works(handler: PredictionHandler) -> None:
    fields = handler.description["fields"]
    assert {field["name"]: field["kind"] for field in fields} == {
        "age": "number", "city": "category", "member": "boolean", "joined": "datetime", "note": "text",
    }  # fmt: skip
    example = {field["name"]: field["example"] for field in fields}
    assert asked(handler, {1: {"row": example}})[1][0] == 200
    assert handler.description["card"]["classes"] == ["high", "low"]


def test_a_run_an_artifact_and_its_manifest_are_found_and_others_are_named(
    artifact: Path, tmp_path: Path
) -> None:
    assert locate(artifact).folder == locate(artifact.parent).folder == artifact
    assert (locate(artifact).name, locate(artifact).form) == ("people", "torch")
    with pytest.raises(danlu.DanluError, match="neither an artifact nor an export"):
        locate(tmp_path)
    with pytest.raises(danlu.DanluError, match=r"did you mean .*artifact"):
        locate(artifact.with_name("artefact"))


def test_the_front_and_the_worker_of_an_export_import_no_torch() -> None:
    code = (
        "import sys, danlu.serving.worker.main, danlu.serving.worker.prediction_handler, danlu.serving.server, danlu.serving.http.app, danlu.serving.http.http_server, "
        "danlu.serving.pool.pool, danlu.exporting.loader\n"
        "print([name for name in ('torch', 'pyarrow', 'sklearn', 'pandas', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
