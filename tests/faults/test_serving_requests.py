"""Malformed requests: a few hundred of what malformed_requests.py sends by the thousand."""

from __future__ import annotations

from pathlib import Path

import pytest
from malformed_requests import ask
from running_servers import image_model, table_model

for library in ("fastapi", "uvicorn", "httptools", "prometheus_client", "python_multipart"):
    pytest.importorskip(library, reason="pip install 'danlu[serve]'")


@pytest.mark.timeout(1800)
def test_no_malformed_request_is_answered_5xx_or_ends_a_process(tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    found = ask(
        [table_model(tmp_path), image_model(tmp_path / "digits")],
        tmp_path,
        count=340,
        seed=7,
        generated=0,
    )
    assert found["bad"] == []
    assert found["code"] == 0
    assert found["same_worker"]
    assert not found["traceback"], found["log"]
    assert {200, 400, 413} <= set(found["statuses"])
