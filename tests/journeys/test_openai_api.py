"""Clients written for OpenAI's interface against a served gpt: the `openai` library and curl, unchanged."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import danlu

pytestmark = pytest.mark.timeout(1800)  # a worker imports torch for a minute on a busy machine
openai = pytest.importorskip("openai", reason="pip install 'danlu[dev]'")
for _name in ("fastapi", "uvicorn", "httptools", "prometheus_client"):
    pytest.importorskip(_name, reason="pip install 'danlu[serve]'")

POEM = "白日依山尽，黄河入海流。\n欲穷千里目，更上一层楼。\nAnd the moon was bright.\n\n"
POET = """
name: poet
task: {name: language_modeling, context: 48, samples: 0}
data: {source: {name: text, path: poem.txt}, transforms: {text: [{name: tokenize, kind: characters}]}}
model: {name: gpt, size: tiny, width: 32}
train: {steps: 160, batch_size: 16}
"""
TALKER = """
name: talker
task: {name: instruction_tuning, context: 64}
data: {source: {name: jsonl, path: talks.jsonl}, transforms: {text: [{name: tokenize, kind: bytes}]}}
model: {name: gpt, size: tiny, width: 32}
train: {steps: 120, batch_size: 16}
"""
HI = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("writers")
    rows = [{"prompt": "hi", "response": "你好！"}, {"prompt": "bye", "response": "再见。"}] * 60
    (folder / "talks.jsonl").write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8"
    )
    (folder / "poem.txt").write_text(POEM * 250, "utf-8")
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()):
        patch.chdir(folder)
        patch.setenv("DANLU_CACHE", str(folder / "cache"))
        for name, recipe in (("poet", POET), ("talker", TALKER)):
            (folder / f"{name}.yaml").write_text(recipe)
            danlu.train(f"{name}.yaml")
    return folder


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """(base address, process) of a server of both models."""
    command = [
        sys.executable,
        "-m",
        "danlu",
        "serve",
        "runs/poet",
        "runs/talker",
        "--port",
        "0",
        "--threads",
        "1",
    ]
    with (
        (home / "server.log").open("w") as log,
        subprocess.Popen(
            command, cwd=home, stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:"), (home / "server.log").read_text()
        try:
            yield f"{address}/v1", process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
    assert "Traceback" not in (home / "server.log").read_text()


@pytest.fixture
def client(server: tuple[str, Any]) -> Iterator[Any]:
    with openai.OpenAI(base_url=server[0], api_key="none", max_retries=0) as found:
        yield found


def test_models_are_listed(client: Any) -> None:
    assert sorted(model.id for model in client.models.list()) == ["poet", "talker"]
    assert client.models.retrieve("poet").object == "model"


def test_a_chat_is_answered(client: Any) -> None:
    answer = client.chat.completions.create(model="talker", messages=HI, temperature=0)
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == (
        "assistant",
        "你好！",
        "stop",
    )
    assert answer.usage.completion_tokens == 9  # bytes
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 9
    parts = [{"type": "text", "text": "by"}, {"type": "text", "text": "e"}]
    talk = [*HI, {"role": "assistant", "content": "你好！"}, {"role": "user", "content": parts}]
    assert (
        client.chat.completions.create(model="talker", messages=talk, temperature=0)
        .choices[0]
        .message.content
        == "再见。"
    )


def test_a_chat_streams_whole_characters_and_tells_the_usage(client: Any) -> None:
    stream = client.chat.completions.create(
        model="talker",
        messages=HI,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    first, *others, end, usage = list(stream)
    assert first.choices[0].delta.role == "assistant"
    assert [each.choices[0].delta.content for each in others] == ["你", "好", "！"]
    assert end.choices[0].finish_reason == "stop"
    assert (usage.choices, usage.usage.completion_tokens) == ([], 9)
    assert {each.id for each in others} == {first.id}


def test_a_completion_is_what_danlu_generate_writes(client: Any, home: Path) -> None:
    options: dict[str, Any] = {"max_tokens": 70, "temperature": 1.3, "top_p": 0.9, "seed": 7}
    (want,) = danlu.generate(home / "runs" / "poet", "白日", **options)
    answer = client.completions.create(model="poet", prompt="白日", **options)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == (want.text, "length")
    assert answer.usage.completion_tokens == want.tokens == 70
    pieces = [
        each.choices[0].text
        for each in client.completions.create(model="poet", prompt="白日", stream=True, **options)
    ]
    assert len(pieces) > 40
    assert "".join(pieces) == want.text


def test_several_texts_of_several_prompts(client: Any, home: Path) -> None:
    options: dict[str, Any] = {"max_tokens": 30, "temperature": 2.0, "seed": 3}
    answer = client.completions.create(
        model="poet", prompt=["And", "白日"], n=2, stop=["。", "!"], **options
    )
    want = [
        each.text
        for prompt in ("And", "白日")
        for each in danlu.generate(
            home / "runs" / "poet", [prompt] * 2, stop=["。", "!"], **options
        )
    ]
    assert [each.text for each in answer.choices] == want
    assert [each.index for each in answer.choices] == [0, 1, 2, 3]
    assert want[0] != want[1]


def test_without_a_seed_texts_differ(client: Any) -> None:
    texts = {
        client.completions.create(model="poet", prompt="And", max_tokens=30, temperature=2)
        .choices[0]
        .text
        for _ in range(3)
    }
    assert len(texts) > 1


def test_many_at_once_are_each_as_if_alone(client: Any, home: Path) -> None:
    prompts = ["白日", "And", "更上", "欲穷千里目，更", "m"] * 4
    found: dict[int, str] = {}

    def ask(number: int) -> None:
        answer = client.completions.create(
            model="poet",
            prompt=prompts[number],
            temperature=1.1,
            seed=number,
            max_tokens=20 + number,
        )
        found[number] = answer.choices[0].text

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(prompts))]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    for number in range(len(prompts)):
        (want,) = danlu.generate(
            home / "runs" / "poet",
            prompts[number],
            temperature=1.1,
            seed=number,
            max_tokens=20 + number,
        )
        assert found[number] == want.text


WRONG: list[tuple[dict[str, Any], int, str, str]] = [
    ({"model": "nobody"}, 404, "model", "there is no model"),
    ({"temperature": 9.0}, 400, "temperature", "less than or equal to 2"),
    ({"logprobs": 1}, 400, "logprobs", "this server does not support"),
    ({"logit_bias": {"5": 2}}, 400, "logit_bias", "does not support"),
    ({"frequency_penalty": 0.5}, 400, "frequency_penalty", "does not support"),
    ({"prompt": "a" * 49}, 400, "prompt", "the model sees 48"),
    ({"prompt": [1, 2]}, 400, "prompt.0", "valid string"),
    ({"prompt": []}, 400, "prompt", "at least 1"),
    ({"max_tokens": 0}, 400, "max_tokens", "greater than or equal to 1"),
    ({"max_tokens": 5000}, 400, "max_tokens", "more than the 4,096 allowed"),
    ({"max_tokens": 10**9}, 400, "max_tokens", "less than or equal to 1000000"),
    ({"n": 65}, 400, "n", "less than or equal to 64"),
    ({"prompt": ["a"] * 40, "n": 2}, 400, "n", "more than 64 texts"),
    ({"stop": [""]}, 400, "stop.0", "at least 1 character"),
    ({"stop": 5}, 400, "stop", "valid list"),
    ({"seed": 2**70}, 400, "seed", ""),
]


@pytest.mark.parametrize(("change", "status", "param", "said"), WRONG)
def test_a_wrong_request_is_refused_in_openais_form(
    client: Any, change: dict[str, Any], status: int, param: str, said: str
) -> None:
    asked = {"model": "poet", "prompt": "a", **change}
    for stream in (False, True):
        with pytest.raises(openai.APIStatusError) as found:
            client.completions.create(**asked, stream=stream)
        assert found.value.status_code == status
        assert found.value.body["param"] == param
        assert said in found.value.body["message"]
        assert found.value.body["type"] == "invalid_request_error"


def test_a_chat_that_cannot_be_is_refused(client: Any) -> None:
    for asked, said in (
        ({"model": "poet", "messages": HI}, "not tuned on conversations"),
        ({"messages": []}, "at least 1"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "no role this model knows"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}
                ]
            },
            "no text",
        ),
        ({"messages": [{"role": "user", "content": None}]}, "no text"),
        ({"messages": [{"role": "system", "content": "a"}]}, "no message but"),
        ({"messages": [{"role": "user", "content": "a" * 60}]}, "the model sees 64"),
        (
            {"messages": HI, "tools": [{"type": "function", "function": {"name": "f"}}]},
            "does not support tools",
        ),
        (
            {"messages": HI, "response_format": {"type": "json_object"}},
            "does not support response_format",
        ),
    ):
        with pytest.raises(openai.BadRequestError, match=said):
            client.chat.completions.create(**{"model": "talker", **asked})


def test_what_does_no_harm_is_passed_over(client: Any) -> None:
    answer = client.chat.completions.create(
        model="talker", messages=HI, temperature=0, user="me", store=False, metadata={"a": "b"}, logprobs=False, presence_penalty=0,
        frequency_penalty=0.0, n=1, service_tier="auto", response_format={"type": "text"}, parallel_tool_calls=True,
        extra_body={"unheard_of": [1], "top_k": 1},
    )  # fmt: skip
    assert answer.choices[0].message.content == "你好！"


def test_a_client_that_goes_away_frees_its_place(client: Any, server: tuple[str, Any]) -> None:
    stream = client.completions.create(
        model="poet", prompt="白日", stream=True, temperature=1, max_tokens=4096
    )
    next(iter(stream))
    stream.close()
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.2).completions.create(
            model="poet", prompt="白日", temperature=1, max_tokens=4096
        )
    import httpx2

    while True:  # until no text is being written any more
        told = httpx2.get(server[0].replace("/v1", "/metrics")).text
        waiting = [
            line
            for line in told.splitlines()
            if 'model="poet"' in line and "waiting" in line and not line.startswith("#")
        ]
        if waiting and all(line.rsplit(" ", 1)[1] in ("0", "0.0") for line in waiting):
            break
        time.sleep(0.05)


def workers(process: subprocess.Popen[str]) -> list[int]:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [
        int(each)
        for each in children
        if b"danlu.serving.worker.main" in Path(f"/proc/{each}/cmdline").read_bytes()
    ]


@pytest.mark.skipif(
    not Path("/proc/self/task").is_dir(), reason="Linux's /proc tells which processes are workers"
)
def test_a_text_goes_on_without_a_seam_where_its_worker_is_killed(
    client: Any, server: tuple[str, Any], home: Path
) -> None:
    options: dict[str, Any] = {"max_tokens": 300, "temperature": 1.2, "seed": 11}
    (want,) = danlu.generate(home / "runs" / "poet", "白日", **options)
    stream = client.completions.create(model="poet", prompt="白日", stream=True, **options)
    pieces = []
    for number, each in enumerate(stream):
        pieces.append(each.choices[0].text)
        if number == 30:
            for worker in workers(server[1]):
                os.kill(worker, signal.SIGKILL)
    assert "".join(pieces) == want.text


@pytest.mark.skipif(
    shutil.which("curl") is None, reason="curl is not installed (apt-get install curl)"
)
def test_curl_streams_events_and_reads_errors(server: tuple[str, Any]) -> None:
    def curl(path: str, body: str) -> str:
        command = [
            "curl",
            "-sN",
            "-H",
            "Content-Type: application/json",
            f"{server[0]}{path}",
            "-d",
            body,
        ]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    events = curl(
        "/completions",
        '{"model":"poet","prompt":"白日","temperature":0,"max_tokens":10,"stream":true}',
    ).split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    told = [json.loads(each.removeprefix("data: ")) for each in events[:-2]]
    assert "".join(each["choices"][0]["text"] for each in told) == "依山尽，黄河入海流。"
    assert told[-1]["choices"][0]["finish_reason"] == "length"
    whole = json.loads(
        curl(
            "/chat/completions",
            '{"model":"talker","messages":[{"role":"user","content":"bye"}],"temperature":0}',
        )
    )
    assert whole["choices"][0]["message"]["content"] == "再见。"
    for body in (
        "",
        "{",
        "[]",
        "null",
        '{"model":"poet","prompt":"a","temperature":NaN}',
        '{"prompt":"a\\ud800","model":"poet"}',
        "[" * 9999,
    ):
        assert json.loads(curl("/completions", body))["error"]["type"] == "invalid_request_error"
