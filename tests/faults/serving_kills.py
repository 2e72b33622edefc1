"""A server under load that is stopped (30 SIGTERM), or whose worker is killed (30 kill -9).

    python tests/faults/serving_kills.py [--signals 30] [--kills 30]

Clients send requests without pause on open connections and check every answer. A request counts as
accepted if it was sent completely and not answered 503. After a SIGTERM at a random moment, every
accepted request must be answered before the server ends, with exit code 0. After a kill -9 of the
worker, no request may be lost or answered wrongly, and answers must come again within 5 seconds.
Prints a line for each stop or kill, and the worst case. The exit code is 1 if a rule was broken."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from running_servers import Load, gone, people, serving, table_model

BACK = 5.0  # seconds until answers come again


def predicted(artifact: Path, rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """What the artifact answers."""
    import danlu

    return danlu.load(artifact).predict(rows)


def drained(artifact: Path, folder: Path, wait: float, clients: int = 8) -> dict[str, float]:
    """One server ended by SIGTERM under load: what its clients saw."""
    rows = people(40)
    with (
        serving(artifact, folder / "log") as server,
        Load(server.port, rows, predicted(artifact, rows), clients) as load,
    ):
        server.until(lambda: load.count(200) > 20)
        time.sleep(wait)
        began = time.perf_counter()
        code = server.end()
        seconds = time.perf_counter() - began
        load.stop()
    return {
        "code": code, "lost": load.statuses["lost"], "wrong": len(load.wrong), "answered": load.statuses[200], "turned_away": load.statuses[503],
        "other": sum(count for status, count in load.statuses.items() if status not in (200, 503, "lost")), "seconds": seconds,
    }  # fmt: skip


def killed(
    artifact: Path,
    folder: Path,
    kills: int,
    seed: int = 0,
    number: int = signal.SIGKILL,
    clients: int = 8,
) -> dict[str, float]:
    """One server whose worker is killed `kills` times under load."""
    random, rows = np.random.default_rng(seed), people(40)
    back: list[float] = []
    with (
        serving(artifact, folder / "log") as server,
        Load(server.port, rows, predicted(artifact, rows), clients) as load,
    ):
        server.until(lambda: load.count(200) > 20)
        for _ in range(kills):
            time.sleep(float(random.uniform(0.2, 1.0)))
            before = load.count(200)
            server.until(lambda: server.worker() > 0)
            victim = server.worker()
            os.kill(victim, number)
            died = time.perf_counter()
            server.until(lambda: gone(victim))  # noqa: B023 - asked at once
            between = load.count(200)
            server.until(lambda: load.count(200) > between)  # noqa: B023
            back.append(time.perf_counter() - died)
            print(
                f"  {len(back)}: answers again after {back[-1]:.2f} s ({before} answered before)",
                file=sys.stderr,
            )
        load.stop()
        server.until(server.ready)
        code = server.end()
    return {
        "code": code, "kills": kills, "lost": load.statuses["lost"], "wrong": len(load.wrong), "answered": load.statuses[200],
        "turned_away": load.statuses[503], "other": sum(n for status, n in load.statuses.items() if status not in (200, 503, "lost")),
        "slowest": max(back, default=0.0),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--signals", type=int, default=30)
    parser.add_argument("--kills", type=int, default=30)
    options = parser.parse_args()
    random, broken = np.random.default_rng(0), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        artifact = table_model(folder)
        ends = []
        for each in range(options.signals):
            ends.append(drained(artifact, folder, float(random.uniform(0, 0.5))))
            print(f"  SIGTERM {each + 1}: {ends[-1]}", file=sys.stderr)
        bad = sum(bool(end["code"] or end["lost"] or end["wrong"] or end["other"]) for end in ends)
        broken += bad
        if ends:
            lost, wrong, answered, away = (
                sum(end[name] for end in ends)
                for name in ("lost", "wrong", "answered", "turned_away")
            )
            told = f"{answered:,.0f} answered, {away:,.0f} told 503"
            print(f"{len(ends)} SIGTERM: {lost:.0f} lost, {wrong:.0f} wrong; {told}; {bad} broken")
        if options.kills:
            found = killed(artifact, folder, options.kills)
            broken += bool(
                found["code"]
                or found["lost"]
                or found["wrong"]
                or found["other"]
                or found["slowest"] > BACK
            )
            print(
                f"{options.kills} kill -9: {found['lost']} lost, {found['wrong']} wrong, {found['other']} other errors, "
                f"{found['answered']:,} answered, {found['turned_away']:,} told 503, answers again after at most {found['slowest']:.2f} s"
            )
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
