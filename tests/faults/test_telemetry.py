"""No dependency tells its makers anything: no name looked up, no connection, nothing in the home folder.

`tests/faults/telemetry.py` runs every library; here are those that would report (the controls prove that the recorder
sees it), through danlu's own verbs.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import telemetry as recorder

from danlu.compat import telemetry


def test_nothing_is_looked_up_connected_to_or_written_home(tmp_path: Path) -> None:
    programs = recorder.cases(whole=False)
    control = {"control": "import openvino"} if importlib.util.find_spec("openvino") else {}
    found = recorder.record({**control, **programs}, tmp_path)
    if found is None:
        pytest.skip("this system allows no network namespace (CAP_SYS_ADMIN, or user namespaces)")
    if control:
        control_record = found.pop("control")
        assert control_record.names or control_record.home, "the recorder sees nothing"
    assert {name: each.output for name, each in found.items() if each.code} == {}
    seen = {name: (each.names, each.addresses, each.home) for name, each in found.items()}
    assert seen == dict.fromkeys(programs, ([], [], []))


def test_importing_danlu_turns_reports_off_and_keeps_what_the_user_set() -> None:
    """In a process of its own; `import danlu` imports none of the libraries."""
    program = (
        "import json, os, sys, danlu\n"
        "print(json.dumps([{k: os.environ.get(k) for k in json.loads(sys.argv[1])},"
        "sorted({m.partition('.')[0] for m in sys.modules if sys.modules[m] is not None})]))\n"
        "try: import openvino_telemetry\n"
        "except ImportError: print('missing')\n"
    )
    environment = {
        key: value for key, value in os.environ.items() if key not in telemetry.VARIABLES
    }
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(sorted(telemetry.VARIABLES))],
        env={**environment, "RAY_USAGE_STATS_ENABLED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    first, second = done.stdout.splitlines()
    variables, modules = json.loads(first)
    assert variables == {**telemetry.VARIABLES, "RAY_USAGE_STATS_ENABLED": "1"}
    assert not {"torch", "numpy", "onnxruntime", "openvino", "huggingface_hub", "ray"} & set(
        modules
    )
    assert second == "missing"
