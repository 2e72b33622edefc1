"""A language model from a text file to written text, as a user types it."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

RECIPE = """
task: {name: language_modeling, context: 32, sample_tokens: 20}
data:
  source: {name: text, path: poem.txt}
  transforms: {text: [{name: tokenize, kind: characters}]}
model: {name: gpt, size: tiny, width: 32}
train: {steps: 160, batch_size: 16, evaluate_every: 80}
"""
POEM = "白日依山尽，黄河入海流。\n欲穷千里目，更上一层楼。\nAnd the moon was bright.\n\n"
TALKS = """
task: {name: instruction_tuning, context: 64}
data:
  source: {name: jsonl, path: talks.jsonl}
  transforms: {text: [{name: tokenize, kind: bytes}]}
model: {name: gpt, size: tiny, width: 32}
train: {steps: 120, batch_size: 16, evaluate_every: 60}
"""


@dataclass
class Ended:
    """What a command left."""

    returncode: int
    stdout: str
    stderr: str


def danlu(*arguments: str, cwd: Path, stdin: str = "") -> Ended:
    """A command in this process: a start of Python takes longer than most of them."""
    from danlu.cli.app import main

    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(cwd):
        patch.setenv("DANLU_CACHE", str(cwd / "cache"))
        patch.setattr(sys, "argv", ["danlu", *arguments])
        patch.setattr(sys, "stdin", io.StringIO(stdin))
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
            except SystemExit as ended:
                code = int(ended.code or 0)
    return Ended(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run over a poem that stands there many times."""
    folder = tmp_path_factory.mktemp("poet")
    (folder / "poem.txt").write_text(POEM * 250, "utf-8")
    (folder / "poet.yaml").write_text(RECIPE)
    trained = danlu("train", "poet.yaml", cwd=folder)
    assert trained.returncode == 0, trained.stderr
    assert "bits_per_byte" in trained.stdout
    assert "text 1:" in trained.stderr
    return folder


def test_the_poem_is_learnt_and_a_single_prompt_is_gone_on_with(home: Path) -> None:
    found = danlu(
        "generate",
        "runs/poet",
        "--prompt",
        "白日依山",
        "--temperature",
        "0",
        "--max-tokens",
        "20",
        cwd=home,
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("白日依山尽，黄河入海流。\n欲穷千里目")


def test_texts_written_at_evaluations_are_kept(home: Path) -> None:
    kept = sorted(path.name for path in (home / "runs" / "poet" / "samples").iterdir())
    assert kept == ["00000080.txt", "00000160.txt"]


def test_the_same_seed_writes_the_same_text_and_another_does_not(home: Path) -> None:
    words = (
        "generate",
        "runs/poet",
        "--prompt",
        "And",
        "--temperature",
        "3",
        "--max-tokens",
        "40",
        "--seed",
    )
    first, again, other = (danlu(*words, seed, cwd=home).stdout for seed in ("1", "1", "2"))
    assert first == again != other


def test_many_prompts_become_json(home: Path) -> None:
    (home / "prompts.txt").write_text("白日\n\nAnd the moon\n", "utf-8")
    words = ("--temperature", "0", "--max-tokens", "50", "--stop", "。", "--stop", "\\n", "--json")
    found = danlu("generate", "runs/poet", "--prompts", "prompts.txt", *words, cwd=home)
    texts = json.loads(found.stdout)
    assert [each["prompt"] for each in texts] == ["白日", "And the moon"]
    assert texts[0]["text"] == "依山尽，黄河入海流"
    assert texts[1]["text"] == " was bright."
    assert [each["ended"] for each in texts] == ["stop", "stop"]


def test_prompts_come_through_a_pipe_and_unknown_characters_are_told(home: Path) -> None:
    found = danlu(
        "generate", "runs/poet", "--prompts", "-", "--max-tokens", "3", cwd=home, stdin="Ω!\n"
    )
    assert found.returncode == 0
    assert "2 tokens of the prompt" in found.stderr


def test_a_wrong_use_says_what_is_wrong(home: Path) -> None:
    for words, said in (
        (("chat", "runs/poet"), "not trained on conversations"),
        (("generate", "runs/poet", "--prompts", "gone.txt"), "gone.txt: cannot be read"),
        (("generate", "runs/poet", "--top-p", "0"), "top_p"),
        (("generate", "runs/nobody"), "no such artifact"),
    ):
        found = danlu(*words, cwd=home)
        assert found.returncode in (2, 4), words
        assert said in found.stderr
        assert "Traceback" not in found.stderr


def test_predict_and_evaluate_work_on_running_text(home: Path) -> None:
    found = danlu(
        "predict", "runs/poet", "-", cwd=home, stdin='{"text": "白日依山尽，"}\n{"text": "欲穷"}\n'
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("黄河入海流。")
    (home / "other.txt").write_text(POEM * 3, "utf-8")
    scored = danlu("evaluate", "runs/poet", "other.txt", "--json", cwd=home)
    assert scored.returncode == 0, scored.stderr
    scores = json.loads(scored.stdout)["scores"]
    assert 0 < scores["bits_per_byte"] < 2


def test_the_python_door_streams(home: Path) -> None:
    import danlu as door
    from danlu.artifact.generation import stream

    artifact = door.load(home / "runs" / "poet")
    (text,) = door.generate(artifact, "欲穷", temperature=0, max_tokens=9)
    pieces = list(stream(artifact, ["欲穷", "And"], temperature=0, max_tokens=9))
    assert "".join(piece for row, piece in pieces if row == 0) == text.text == "千里目，更上一层楼"
    with pytest.raises(door.DanluError, match="temprature"):
        door.generate(artifact, "a", temprature=1)


def test_a_conversation_is_learnt_and_held(tmp_path: Path) -> None:
    rows = [{"prompt": "hi", "response": "你好！"}, {"prompt": "bye", "response": "再见。"}] * 60
    (tmp_path / "talks.jsonl").write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8"
    )
    (tmp_path / "talks.yaml").write_text(TALKS)
    trained = danlu("train", "talks.yaml", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    spoken = danlu(
        "chat", "runs/talks", "--temperature", "0", cwd=tmp_path, stdin="hi\n/new\n\nbye\n"
    )
    assert spoken.returncode == 0, spoken.stderr
    assert spoken.stdout == "你好！\n再见。\n"
    asked = danlu("generate", "runs/talks", "--prompt", "bye", "--temperature", "0", cwd=tmp_path)
    assert asked.stdout == "再见。\n"
    answered = danlu(
        "predict", "runs/talks", "-", "--json", cwd=tmp_path, stdin='{"prompt": "hi"}\n'
    )
    assert [json.loads(line)["prediction"] for line in answered.stdout.splitlines()] == ["你好！"]


BASED = """
task: {name: instruction_tuning, context: 64}
data: {source: {name: jsonl, path: talks.jsonl}}
model: {name: gpt, size: tiny, width: 32, weights: runs/poet}
train: {steps: 4, batch_size: 16}
"""


def test_a_model_goes_on_from_another_with_its_weights_and_its_tokenizer(home: Path) -> None:
    rows = [{"prompt": "白日", "response": "依山尽"}, {"prompt": "moon", "response": "bright"}] * 20
    (home / "talks.jsonl").write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8"
    )
    (home / "based.yaml").write_text(BASED)
    trained = danlu("train", "based.yaml", "optimizer.learning_rate=1e-9", cwd=home)
    assert trained.returncode == 0, trained.stderr
    assert "tensors of the model are from runs/poet" in trained.stderr
    import danlu as door

    base, tuned = (door.load(home / "runs" / name) for name in ("poet", "based"))
    for name, each in base.module.state_dict().items():
        # four updates of next to nothing
        assert (each - tuned.module.state_dict()[name]).abs().max() < 1e-6
    assert (
        tuned.preprocessor.pipelines[0].steps[0][1]["tokenizer"]
        == base.preprocessor.pipelines[0].steps[0][1]["tokenizer"]
    )


def test_a_run_goes_on_with_no_other_weights_than_it_began_with(home: Path) -> None:
    (home / "talks.jsonl").write_text(
        '{"prompt": "a", "response": "b"}\n{"prompt": "c", "response": "d"}\n' * 15, "utf-8"
    )
    (home / "based.yaml").write_text(BASED)
    begun = danlu("train", "based.yaml", "--run", "begun", cwd=home)
    assert begun.returncode == 0, begun.stderr
    (home / "begun" / "artifact").rename(home / "finished")
    trained = danlu(
        "train", "poet.yaml", "train.seed=7", "train.steps=3", "--run", "other", cwd=home
    )
    assert trained.returncode == 0, trained.stderr
    found = danlu("train", "based.yaml", "model.weights=other", "--run", "begun", cwd=home)
    assert found.returncode == 2
    assert "holds other weights" in found.stderr
    again = danlu("train", "based.yaml", "--run", "begun", cwd=home)
    assert again.returncode == 0, again.stderr
    for name in ("weights.safetensors",):
        assert (home / "begun" / "artifact" / name).read_bytes() == (
            home / "finished" / name
        ).read_bytes()


def test_weights_that_fit_nowhere_are_refused(home: Path) -> None:
    (home / "talks.jsonl").write_text(
        '{"prompt": "a", "response": "b"}\n{"prompt": "c", "response": "d"}\n' * 15, "utf-8"
    )
    (home / "based.yaml").write_text(BASED)
    found = danlu("train", "based.yaml", "model.width=48", "--run", "wide", cwd=home)
    assert found.returncode == 4
    assert "none of its" in found.stderr
    found = danlu("train", "based.yaml", "model.weights=nowhere", "--run", "nowhere", cwd=home)
    assert found.returncode == 4
    assert "no artifact" in found.stderr


MASKED = """
task: {name: masked_language_modeling, context: 32}
data:
  source: {name: text, path: poem.txt}
  transforms: {text: [{name: tokenize, kind: characters}]}
model: {name: encoder, size: tiny, width: 32, dropout: 0}
train: {steps: 20, batch_size: 16}
"""
LABELLED = """
task: classification
data: {source: {name: csv, path: labelled.csv}, target: label, columns: {text: {kind: text}}}
model: {name: encoder, size: tiny, width: 32, weights: runs/masked}
train: {steps: 3, batch_size: 16}
"""


def test_an_encoder_learnt_on_hidden_words_starts_a_classifier(home: Path) -> None:
    (home / "masked.yaml").write_text(MASKED)
    (home / "labelled.yaml").write_text(LABELLED)
    rows = [
        f"{'白日依山尽' if number % 2 else 'the moon'} {number},{'yn'[number % 2]}"
        for number in range(60)
    ]
    (home / "labelled.csv").write_text("text,label\n" + "\n".join(rows) + "\n", "utf-8")
    assert danlu("train", "masked.yaml", cwd=home).returncode == 0
    filled = danlu(
        "predict", "runs/masked", "-", "--json", cwd=home, stdin='{"text": "白日[MASK]山尽"}\n'
    )
    answer = json.loads(filled.stdout)
    assert answer["prediction"].startswith("白日")
    assert len(answer["masked"]) == 1
    trained = danlu("train", "labelled.yaml", cwd=home)
    assert trained.returncode == 0, trained.stderr
    told = next(
        line
        for line in trained.stderr.splitlines()
        if "tensors of the model are from runs/masked" in line
    )
    assert "initialized at random are" in told
    taken, _, whole, *_ = told.removeprefix("note: ").split()
    assert int(whole) - int(taken) == 2  # the weights and biases of the head


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that was barely tuned on conversations: it never ends what it says."""
    folder = tmp_path_factory.mktemp("talker")
    rows = [{"prompt": f"say {number}", "response": "la " * 40} for number in range(40)]
    (folder / "talks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (folder / "talks.yaml").write_text(TALKS)
    trained = danlu(
        "train",
        "talks.yaml",
        "train.steps=45",
        "train.batch_size=6",
        "task.context=160",
        cwd=folder,
    )
    assert trained.returncode == 0, trained.stderr
    return folder


def test_ctrl_c_ends_an_answer_and_then_the_conversation_kindly(talker: Path) -> None:
    command = [
        sys.executable,
        "-u",
        "-m",
        "danlu",
        "chat",
        "runs/talks",
        "--max-tokens",
        "1000000",
        "--temperature",
        "0",
    ]
    with subprocess.Popen(
        command,
        cwd=talker,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("say something\n")
        process.stdin.flush()
        assert process.stdout.read(12) == "la la la la "
        process.send_signal(signal.SIGINT)  # the answer ends, the conversation goes on
        process.stdin.write("say 3\n")
        process.stdin.flush()
        while process.stdout.read(1) != "\n":
            pass
        assert process.stdout.read(9) == "la la la "
        process.send_signal(signal.SIGINT)
        while process.stdout.read(1) != "\n":
            pass
        process.send_signal(signal.SIGINT)  # nothing is being said: the conversation ends
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "Traceback" not in said
