"""Reports of other libraries to their makers, turned off before these libraries are imported.

Each is asked in the way it documents: an environment variable, which child processes inherit, or,
where there is none, a module that it does without when it is missing. `import danlu` calls
`turn_off` first of all, so nothing that danlu imports later, no part of a user and no process that
danlu starts can be earlier. A variable that is already set stays as it is: that is the choice of
the user."""

from __future__ import annotations

import os
import sys

VARIABLES = {
    # for every library that follows https://donottrack.sh: huggingface_hub, hf-xet, ...
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub, hf-xet, transformers, datasets
    "DISABLE_TELEMETRY": "1",  # their older releases
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime, on Linux since 1.29
    "RAY_USAGE_STATS_ENABLED": "0",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
# OpenVINO and NNCF import this module to report with, and do without it where it is missing. It
# knows no variable: it reports until a file in the home folder forbids it.
MODULES = ("openvino_telemetry",)


def turn_off() -> None:
    """Turn the reports of all known libraries off, in this process and in those that it starts.

    >>> turn_off()
    >>> os.environ["ORT_DISABLE_TELEMETRY"]
    '1'
    """
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    for name in MODULES:
        # None makes an import raise ModuleNotFoundError
        sys.modules.setdefault(name, None)  # pyright: ignore[reportArgumentType]
