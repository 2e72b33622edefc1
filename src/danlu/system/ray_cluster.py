"""A connection to a Ray cluster. Extra `ray`."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import Any

from danlu.errors import MissingExtra, RunError


class RayCluster:
    """A connection to the cluster at `address`; None: the one of RAY_ADDRESS, else a new one on
    this machine alone. A context manager.

    `required_by` says what needs the cluster, and `option` names the setting of its address: both
    appear in messages. While the context lasts, what Ray prints goes to stderr. Raises MissingExtra
    without the library, RunError where no cluster answers.
    """

    def __init__(
        self, address: str | None, required_by: str = "tune.on: ray", option: str = "tune.address"
    ) -> None:
        self.address = address
        self.required_by = required_by
        self.option = option

    def __enter__(self) -> RayCluster:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError:
            raise MissingExtra("Ray", "ray", self.required_by) from None
        options: dict[str, Any] = {} if self.address else {"include_dashboard": False}
        self.connected_here = not ray.is_initialized()
        try:
            if self.connected_here:
                ray.init(
                    address=self.address,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    **options,
                )
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0] if str(error) else repr(error)
            raise RunError(
                f"there is no Ray cluster at {self.address or 'this machine'}: {reason}",
                hint=f"start one by `ray start --head` and give its address as {self.option}; one "
                "that asks for a token wants RAY_AUTH_MODE and RAY_AUTH_TOKEN here as well",
            ) from None
        self.stdout_redirect = contextlib.redirect_stdout(sys.stderr)
        self.stdout_redirect.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        if self.connected_here:
            import ray

            ray.shutdown()
        self.stdout_redirect.__exit__(None, None, None)

    def __str__(self) -> str:
        import ray

        nodes = sum(node["Alive"] for node in ray.nodes())
        return f"a Ray cluster of {nodes} node{'s' if nodes > 1 else ''}"
