"""What a recipe may only name with the caller's permission: what lies outside its own run.

Whoever wrote the recipe chose the address; whoever runs it may not have read it. So an address is
refused wherever a recipe is read, `danlu check` included, until the caller permits it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from danlu.recipe.database_address import lies_inside, parse_address
from danlu.recipe.resolve import Resolver
from danlu.recipe.sections import Tune

PERMIT = (
    "if you trust it, add --allow-remote (in Python: danlu.system.trust.allow_remote()), every "
    "time the recipe is used"
)


def note_addresses(checking: Resolver, sections: Mapping[str, Any]) -> None:
    """Note addresses of other processes and machines that the caller has not permitted."""
    tune = sections.get("tune")
    if not isinstance(tune, Tune) or checking.catalogue.remote_is_allowed():
        return
    for option, message in (
        ("address", "" if ("tune", "address") in checking.wrong else cluster_elsewhere(tune)),
        ("storage", "" if ("tune", "storage") in checking.wrong else server_elsewhere(tune)),
    ):
        if message:
            checking.add(("tune", option), message, PERMIT)


def cluster_elsewhere(tune: Tune) -> str:
    """What is to be said of a Ray cluster that is not started for this search alone; "" where there
    is none."""
    if tune.address in (None, "local"):
        return ""
    return (
        f"tune.address names a Ray cluster ({tune.address}): whoever answers there can run code on "
        "this machine, so it needs your permission."
    )


def server_elsewhere(tune: Tune) -> str:
    """What is to be said of a database server; "" where there is none."""
    address = None if tune.storage is None else parse_address(tune.storage)
    if address is None or address.file is not None:
        return ""
    return f"tune.storage names a database server ({address}), so it needs your permission."


def file_elsewhere(tune: Tune, study: Path) -> str:
    """What is to be said of an SQLite database outside the study's folder, links followed; "" for
    one inside it, and for a server."""
    file = study / "study.sqlite" if tune.storage is None else parse_address(tune.storage).file
    if file is None or lies_inside(file, study):
        return ""
    return (
        f"the study's database {file} is outside of the study's folder {study}, so it needs your "
        "permission."
    )
