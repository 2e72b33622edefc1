"""What a killed writer leaves: a staging folder of danlu's own form, with its mark, that nobody locks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_KILLED = """
import os, signal, sys
from pathlib import Path
from danlu.system.staging import staged
with staged(Path(sys.argv[1])) as staging:
    staging.write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def left_by_a_killed_writer(target: Path) -> Path:
    """Kill a process while it writes the file `target`; the staging folder that it leaves."""
    before = set(target.parent.iterdir())
    subprocess.run([sys.executable, "-c", _KILLED, str(target)], check=False)
    [left] = set(target.parent.iterdir()) - before
    return left
