"""Malformed requests to a server: 20,000 of them, no answer 5xx, no process lost.

    python tests/faults/malformed_requests.py [--count 20000] [--seed 0]

Bodies are JSON that is cut off, has flipped bits, deep nesting, NaN, numbers of thousands of digits,
invalid UTF-8 or wrong types, and damaged CSV, forms and images. Framing is wrong too: bytes that
are not HTTP, wrong lengths, chunks without an end, headers that are too large, odd hosts and paths.
If schemathesis is installed (pip install schemathesis), it makes some of the requests from the
server's OpenAPI description. All requests are a function of the seed. The exit code is 1 if an
answer was 5xx, a process ended, or a traceback was logged."""

from __future__ import annotations

import argparse
import base64
import io
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from running_servers import RunningServer, image_model, people, serving, table_model

Wire = bytes
TRIES = 30  # of a request to a server that is full
PATHS = {"people": b"/v1/models/people/predict", "digits": b"/v1/models/digits/predict"}
STRANGE: list[Any] = [
    None, True, False, 0, -1, 1e308, -1e308, 5e-324, 2**63, -(2**63) - 1, 10**300, "", " ", "NaN", "inf", "\u0000", "\ud7ff\ue000",
    "\u202e", "é" * 1000, "1,234", "03/04/2011", "99999999-99-99", "0000-00-00", "2024-02-30", "2024-01-31T25:00:00", "1e999", [], {}, [[]],
    [None], [[None]], [1, [2]], {"a": {"b": []}}, "data:image/png;base64,AAAA", "../../etc/passwd", "/etc/passwd", "${jndi:ldap://x}", "{{7*7}}",
    "'; DROP TABLE", [0] * 64, [[0] * 8] * 8, [[300] * 8] * 8, [["0"] * 8] * 8, [[0.5] * 8] * 8, [[[0, 0, 0]] * 8] * 8,
]  # fmt: skip
SNIPPETS = [
    b"NaN", b"Infinity", b"-Infinity", b"9" * 5000, b"-" + b"9" * 4000, b"1e99999", b"0x10", b"01", b"[" * 5000, b'{"a":' * 300, b"\xff\xfe",
    b"\x00", b"\\ud800", b"\\u0000", b"//", b"/* */", b",", b"}", b"]", b'"', b"\xef\xbb\xbf", b"\r\n\r\n", b"null", b"'",
    b"\xed\xa0\x80", b"\xf4\x90\x80\x80",
]  # fmt: skip
KINDS = [
    b"application/json", b"application/json; charset=utf-16", b"text/csv", b"multipart/form-data; boundary=b", b"multipart/form-data", b"image/png",
    b"audio/wav", b"text/plain", b"application/xml", b"", b"\xff\xfe", b"application/json, text/csv", b"multipart/form-data; boundary=" + b"x" * 300,
]  # fmt: skip


class Requests:
    """Malformed requests, each a function of the seed and its number."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rows = people(20)
        random = np.random.default_rng(seed)
        self.pictures = [random.integers(0, 17, (8, 8)).tolist() for _ in range(5)]
        self.ways: list[Callable[[np.random.Generator], Wire]] = [
            self.typed, self.typed, self.pixels, self.cut, self.mutated, self.mutated, self.snippet, self.snippet, self.csv, self.form, self.file,
            self.kind, self.framed, self.chunked, self.headed, self.noise, self.routed,
        ]  # fmt: skip

    def make(self, number: int) -> Wire:
        random = np.random.default_rng([self.seed, number])
        return self.ways[number % len(self.ways)](random)

    # --- bodies

    def typed(self, random: np.random.Generator) -> Wire:
        """A sound request in which a value is of another kind."""
        row = dict(self._pick(random, self.rows))
        for _ in range(random.integers(1, 3)):
            row[str(random.choice(list(row)))] = self._pick(random, STRANGE)
        if random.random() < 0.3:
            row.pop(str(random.choice(list(row))))
        body: Any = (
            {"rows": [self._pick(random, self.rows), row]}
            if random.random() < 0.5
            else {"row": row}
        )
        if random.random() < 0.15:
            body = self._pick(
                random,
                [
                    body.get("rows", row),
                    {"rows": row},
                    {"row": [row]},
                    {"rows": [row] * 5000},
                    {"row": None},
                    row,
                ],
            )
        return post("people", json.dumps(body).encode())

    def pixels(self, random: np.random.Generator) -> Wire:
        """A picture that is none, or not of numbers."""
        picture: Any = [list(row) for row in self._pick(random, self.pictures)]
        way = random.integers(5)
        if way == 0:
            picture[random.integers(8)][random.integers(8)] = self._pick(random, STRANGE)
        elif way == 1:
            picture[random.integers(8)] = self._pick(random, STRANGE)
        elif way == 2:
            picture = self._pick(random, STRANGE)
        elif way == 3:
            picture = base64.b64encode(self._damaged(random, png(random))).decode()
        else:
            picture = base64.b64encode(random.bytes(int(random.integers(0, 200)))).decode()[
                : random.integers(0, 260)
            ]
        return post("digits", json.dumps({"row": {"image": picture}}).encode())

    def cut(self, random: np.random.Generator) -> Wire:
        body = self._sound(random)
        return post("people", body[: random.integers(len(body))])

    def mutated(self, random: np.random.Generator) -> Wire:
        return post(*self._either(random, lambda body: self._damaged(random, body)))

    def snippet(self, random: np.random.Generator) -> Wire:
        def insert(body: bytes) -> bytes:
            place = int(random.integers(len(body)))
            end = place + int(random.integers(0, 12))
            return body[:place] + self._pick(random, SNIPPETS) + body[end:]

        return post(*self._either(random, insert))

    def csv(self, random: np.random.Generator) -> Wire:
        lines = [
            ",".join(self.rows[0]),
            *(",".join(map(str, row.values())) for row in self.rows[:3]),
        ]
        return post("people", self._damaged(random, "\n".join(lines).encode()), b"text/csv")

    def form(self, random: np.random.Generator) -> Wire:
        parts = b"".join(
            b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
            % (name.encode(), str(value).encode())
            for name, value in self.rows[0].items()
        )
        return post(
            "people",
            self._damaged(random, parts + b"--b--\r\n"),
            b"multipart/form-data; boundary=b",
        )

    def file(self, random: np.random.Generator) -> Wire:
        data = self._damaged(random, png(random))
        if random.random() < 0.5:
            return post("digits", data, b"image/png")
        part = (
            b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
            + data
            + b"\r\n--b--\r\n"
        )
        return post("digits", part, b"multipart/form-data; boundary=b")

    def kind(self, random: np.random.Generator) -> Wire:
        return post("people", self._sound(random), self._pick(random, KINDS))

    # --- framing

    def framed(self, random: np.random.Generator) -> Wire:
        """A length that lies, or is none."""
        body = self._sound(random)
        lengths = [
            b"0",
            b"-1",
            b"+5",
            b"1e3",
            b"0x10",
            b" 7 ",
            b"",
            b"99999999999999999999",
            b"7, 7",
            b"17000000",
            b"%d" % (len(body) + 50),
            b"3",
        ]
        told = self._pick(random, lengths)
        twice = b"Content-Length: 5\r\n" if random.random() < 0.2 else b""
        return b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %s\r\n%s\r\n%s" % (
            told,
            twice,
            body,
        )

    def chunked(self, random: np.random.Generator) -> Wire:
        """Chunks whose sizes lie or that do not end."""
        body, made = self._sound(random), b""
        while body:
            size = int(random.integers(1, 40))
            told = self._pick(
                random,
                [b"%x" % min(size, len(body))] * 12
                + [b"%x" % (size + 1), b"zz", b"-1", b"f" * 17, b"", b"5;ext=" + b"a" * 50],
            )
            made += told + b"\r\n" + body[:size] + b"\r\n"
            body = body[size:]
        end = self._pick(
            random, [b"0\r\n\r\n", b"0\r\n\r\n", b"0\r\nTrailer: x\r\n\r\n", b"", b"0"]
        )
        both = b"Content-Length: 10\r\n" if random.random() < 0.2 else b""
        return (
            b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\n%sTransfer-Encoding: chunked\r\n\r\n%s%s"
            % (both, made, end)
        )

    def headed(self, random: np.random.Generator) -> Wire:
        """Headers of all kinds."""
        headers = [
            b"X-Deadline-Ms: soon", b"X-Deadline-Ms: -1", b"X-Deadline-Ms: " + b"9" * 40, b"X-Deadline-Ms: \xd9\xa3", b"Content-Encoding: gzip",
            b"Host: evil", b"Host: [::1", b"Origin: null", b"Origin: http://evil", b"Authorization: Bearer \xff",
            b"Expect: 100-continue", b"Expect: nonsense",
            b"Connection: upgrade\r\nUpgrade: websocket", b"Connection: upgrade\r\nUpgrade: h2c", b"Upgrade: h2c",
            b"X: " + b"y" * 40_000, b"\xff: 1",
            b"No colon", b": nothing", b"X\x00Y: 1", b"Range: bytes=0-", b"\r\n".join(b"H%d: 1" % number for number in range(500)),
        ]  # fmt: skip
        body = self._sound(random)
        head = (
            b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\n%s\r\nContent-Length: %d\r\n\r\n"
            % (
                self._pick(random, headers),
                len(body),
            )
        )
        return head + body

    def noise(self, random: np.random.Generator) -> Wire:
        """Bytes that are no HTTP, or HTTP with bytes changed."""
        if random.random() < 0.4:
            starts = [
                b"",
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                b"\x16\x03\x01",
                b"GET ",
                b"POST /v1/predict HTTP/9.9\r\n\r\n",
                b"GET / HTTP/1.0\r\n",
            ]
            return self._pick(random, starts) + random.bytes(int(random.integers(0, 300)))
        return self._damaged(random, post("people", self._sound(random)))

    def routed(self, random: np.random.Generator) -> Wire:
        """Paths and methods of all kinds."""
        paths = [
            b"/", b"//", b"/v1/models/", b"/v1/models/%00", b"/v1/models/../../etc/passwd", b"/v1/models/%2e%2e%2f/predict", b"/v1/predict/", b"/%ff",
            b"/v1/models/people", b"/v1/models/\xc3\xa9", b"/metrics?x=" + b"a" * 5000, b"/openapi.json", b"/readyz", b"*", b"http://evil/v1/predict",
            b"/v1/models/people/reload", b"/v1/completions", b"/v1/chat/completions", b"/page/x/../../y", b"/v1/predict#x", b"/v1/predict?x", b"?",
        ]  # fmt: skip
        methods = [
            b"GET",
            b"POST",
            b"PUT",
            b"DELETE",
            b"HEAD",
            b"OPTIONS",
            b"TRACE",
            b"CONNECT",
            b"PATCH",
            b"get",
            b"BREW",
            b"PROPFIND",
        ]
        body = self._sound(random) if random.random() < 0.5 else b""
        length = b"Content-Length: %d\r\n" % len(body) if body else b""
        return b"%s %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n%s" % (
            self._pick(random, methods),
            self._pick(random, paths),
            length,
            body,
        )

    # --- pieces

    def _sound(self, random: np.random.Generator) -> bytes:
        return json.dumps({"rows": [self._pick(random, self.rows)]}).encode()

    def _either(
        self, random: np.random.Generator, change: Callable[[bytes], bytes]
    ) -> tuple[str, bytes]:
        if random.random() < 0.7:
            return "people", change(self._sound(random))
        return "digits", change(
            json.dumps({"row": {"image": self._pick(random, self.pictures)}}).encode()
        )

    def _damaged(self, random: np.random.Generator, data: bytes) -> bytes:
        """Some bytes changed, taken out, put in or doubled."""
        made = bytearray(data)
        for _ in range(random.integers(1, 6)):
            place, way = int(random.integers(max(len(made), 1))), random.integers(5)
            if way == 0 and made:
                made[place] ^= 1 << int(random.integers(8))
            elif way == 1:
                made[place:place] = random.bytes(int(random.integers(1, 9)))
            elif way == 2:
                del made[place : place + int(random.integers(1, 30))]
            elif way == 3:
                made[place:place] = made[place : place + 50]
            elif made:
                made[place] = int(random.choice(list(b'{}[]",:\\0-.eE\x00\xff\r\n')))
        return bytes(made)

    @staticmethod
    def _pick(random: np.random.Generator, choices: Sequence[Any]) -> Any:
        return choices[int(random.integers(len(choices)))]


def png(random: np.random.Generator) -> bytes:
    from PIL import Image

    held = io.BytesIO()
    Image.fromarray(random.integers(0, 256, (8, 8)).astype(np.uint8)).save(
        held, str(random.choice(["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"]))
    )
    return held.getvalue()


def post(model: str, body: bytes, kind: bytes = b"application/json") -> Wire:
    head = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
    return head % (PATHS[model], kind, len(body)) + body


def exchange(port: int, wire: Wire, patience: float = 0.4) -> tuple[list[int], float]:
    """(the statuses that come back for some bytes, the seconds of a Retry-After or 0); no statuses
    where the server only closes.

    A request that is whole is answered. Of any other the server may wait for more: where nothing
    comes for `patience` seconds the client says that there is no more."""
    from danlu.serving.http.fast_path import plain_request_size

    is_whole = plain_request_size(wire, len(wire)) == len(wire)
    is_whole &= not wire.startswith(b"HEAD")  # its answer declares a body that it does not have
    held = b""
    with socket.create_connection(("127.0.0.1", port)) as end:
        try:
            end.sendall(wire)
            end.settimeout(None if is_whole else patience)
            while not whole(held):
                try:
                    data = end.recv(65536)
                except TimeoutError:
                    end.shutdown(socket.SHUT_WR)
                    end.settimeout(None)
                    continue
                if not data:
                    break
                held += data
        except ConnectionError:  # it closed before it had read everything
            pass
    statuses = [int(status) for status in re.findall(rb"(?:^|(?<=[\n}]))HTTP/1\.1 (\d\d\d)", held)]
    retry = re.search(rb"(?m)^retry-after: (\d+)", held)
    return statuses, float(retry[1]) if retry else 0.0


def whole(held: bytes) -> bool:
    """Whether one answer has come to its end."""
    head, end, body = held.partition(b"\r\n\r\n")
    size = re.search(rb"content-length: (\d+)", head)
    return bool(end) and size is not None and len(body) >= int(size[1])


def schemathesis(server: RunningServer, count: int) -> tuple[int, str]:
    """(cases, what failed) of a run of schemathesis over the server's own description."""
    program = shutil.which("schemathesis") or str(Path(sys.executable).with_name("schemathesis"))
    if not Path(program).exists():
        print("schemathesis is left out: pip install schemathesis", file=sys.stderr)
        return 0, ""
    described = server.ask("GET", "/openapi.json").json
    for path in described["paths"].values():
        path.get("post", {}).pop(
            "parameters", None
        )  # who wants an answer within a millisecond is rightly told 504
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "openapi.json").write_text(json.dumps(described), "utf-8")
        options = [
            "--checks",
            "not_a_server_error",
            "--max-examples",
            str(count),
            "--generation-deterministic",
            "--no-color",
        ]
        command = [
            program,
            "run",
            "openapi.json",
            "--url",
            f"http://127.0.0.1:{server.port}",
            *options,
        ]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    cases = re.search(r"([\d,]+) generated", done.stdout)
    return int(
        cases[1].replace(",", "")
    ) if cases else 0, "" if done.returncode == 0 else done.stdout[-6000:] + done.stderr[-1000:]


def one(port: int, requests: Requests, number: int) -> tuple[int, Wire, list[int]]:
    """A request, and how it was answered. 503 with Retry-After is a right answer of a server that
    is full: then the client waits, and asks again."""
    wire = requests.make(number)
    for _ in range(TRIES):
        statuses, retry = exchange(port, wire)
        if 503 not in statuses or not retry:
            break
        time.sleep(retry)
    return number, wire, statuses


def ask(
    artifacts: Sequence[Path], folder: Path, count: int, seed: int, generated: int
) -> dict[str, Any]:
    """Ask a server `count` malformed requests, and as many examples a route from schemathesis as
    `generated` says."""
    requests, statuses, bad = Requests(seed), Counter[int](), []
    with serving(
        artifacts, folder / "log", "--longest-wait", "60"
    ) as server:  # 503 is for a server that is full; this one is not
        before = server.worker()
        with ThreadPoolExecutor(8) as pool:
            for number, wire, found in pool.map(
                lambda number: one(server.port, requests, number), range(count)
            ):
                statuses.update(found or [0])
                if any(status >= 500 for status in found):
                    bad.append((number, found, wire[:300]))
                    print(f"request {number} was answered {found}: {wire[:300]!r}", file=sys.stderr)
                if number % 1000 == 999:
                    print(f"  {number + 1:,}: {dict(statuses)}", file=sys.stderr)
        cases, failed = schemathesis(server, generated) if generated else (0, "")
        assert server.predict(people(1)).status == 200
        same_worker = server.worker() == before
        code = server.end()
        log = server.log.read_text("utf-8")
    return {
        "statuses": dict(statuses), "bad": bad, "cases": cases, "failed": failed, "same_worker": same_worker, "code": code,
        "traceback": "Traceback" in log, "log": log,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--generated", type=int, default=100, help="Examples of schemathesis for each route."
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "digits").mkdir()
        found = ask(
            [table_model(folder), image_model(folder / "digits")],
            folder,
            options.count,
            options.seed,
            options.generated,
        )
    print(
        f"{options.count:,} malformed requests, {found['cases']:,} of schemathesis; answers by status (0: closed): {found['statuses']}"
    )
    print(
        f"5xx: {len(found['bad'])}; worker lived: {found['same_worker']}; exit code {found['code']}; traceback logged: {found['traceback']}"
    )
    if found["failed"]:
        print(found["failed"])
    if found["traceback"] or not found["same_worker"]:
        print(found["log"][-5000:])
    return int(
        bool(
            found["bad"]
            or found["failed"]
            or not found["same_worker"]
            or found["code"]
            or found["traceback"]
        )
    )


if __name__ == "__main__":
    sys.exit(main())
