"""Every command of danlu that writes, one after the other in one process: python tests/faults/all_writers.py HOME

`prepare` lays out what they read. Before each command the process asks the system about the path
/danlu-writer/NAME, which marks the place in a log of its system calls. A verb or exporter that is
in neither table below is an error: whoever adds one says here how it writes, or that it does not."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from family_recipes import FAMILIES

MARK = "/danlu-writer/"
TABLE = {
    "task": "classification",
    "model": {"name": "mlp", "hidden": [4]},
    "data": {"source": "@rows.csv", "target": "y"},
    "train": {"steps": 4, "save_every": 1, "keep": 2, "threads": 1},
}
TUNE = {"space": {"optimizer.learning_rate": [0.01, 0.1]}, "trials": 2, "on": "one_by_one"}
# what each verb that writes is called with; @ stands for HOME
VERBS: Mapping[str, list[str]] = {
    "new": ["new @rows.csv --target y --out @new.yaml", "new @rows.csv --target y --out @new.yaml --force"],
    "train": [
        "train @table.json --run @runs/table --quiet",
        "train @language.json --run @runs/language --quiet",
        "train @images.json --run @runs/images --quiet",
    ],
    "tune": ["tune @tune.json --study @studies/one --quiet"],
    "report": ["report @studies/one --no-plots", "report @studies/one"],
    "compare": [
        "compare @table.json optimizer=sgd,adam --run @runs/comparison --rates 1 --seeds 2 --on one_by_one"
    ],
    "compress": [
        "compress @runs/table --with int8_weight_only:smallest=1 --out @small --quiet",
        "compress @runs/table --with prune:share=0.5,epochs=1 --out @small --quiet",
    ],
    "predict": [f"predict @runs/table @rows.csv --out @answers.{kind}" for kind in ("csv", "jsonl", "parquet")],
    "generate": ["generate @runs/images --count 1 --out @generated.png"],
    "encrypt": [
        "encrypt --new-key @keys/key",
        "encrypt @runs/table --key-file @keys/key --out @new/folder/encrypted",
        "encrypt @small --key-file @keys/key",
    ],
    "decrypt": ["decrypt @small --key-file @keys/key"],
    "sign": ["sign --new-key @keys/signer", "sign @small --signing-key @keys/signer", "sign @small --signing-key @keys/signer"],
}  # fmt: skip
WRITE_NOTHING = {
    "chat", "check", "doctor", "evaluate", "list", "schema", "serve", "show", "verify", "verify-signature",
}  # fmt: skip
COPIES = {"verify-resume": "it starts danlu train in a folder of its own"}
# the run that each exporter is given
EXPORTERS = {
    "gguf": "language", "huggingface": "language", "keras": "table", "onnx": "table", "openvino": "table",
    "safetensors": "table", "torch_export": "table",
}  # fmt: skip


def commands(exporters: bool = True) -> dict[str, str]:
    """The commands by name, in order. AssertionError where a verb or an exporter is missing."""
    from danlu import registry
    from danlu.cli.app import find_verbs

    verbs = {
        verb.name or verb.callback.__name__.replace("_", "-")
        for verb in find_verbs()
        if verb.callback is not None
    }
    unknown = verbs - {*VERBS, *WRITE_NOTHING, *COPIES, "export"}
    assert not unknown, f"say in all_writers.py what these verbs write: {sorted(unknown)}"
    missing = set(registry.names("exporters")) - set(EXPORTERS)
    assert not missing, f"say in all_writers.py how these exporters are called: {sorted(missing)}"
    found = {
        f"{verb} {number}": command
        for verb, lines in VERBS.items()
        for number, command in enumerate(lines, 1)
        if verb not in ("encrypt", "decrypt", "sign")
    }
    if exporters:
        found |= {
            f"export {name}": f"export @runs/{run} --to {name} --out @exports/{name}"
            for name, run in EXPORTERS.items()
        }
        found["export again"] = "export @runs/table --to safetensors --out @exports/safetensors"
    for verb in ("encrypt", "decrypt", "sign"):
        found |= {f"{verb} {number}": command for number, command in enumerate(VERBS[verb], 1)}
    return found


def prepare(home: Path) -> None:
    """Write what the commands read."""
    (home / "keys").mkdir(parents=True)
    lines = [f"{i % 7},{(i * i) % 11},{'yes' if i % 7 > 3 else 'no'}" for i in range(200)]
    (home / "rows.csv").write_text("a,b,y\n" + "\n".join(lines) + "\n")
    table = json.loads(json.dumps(TABLE).replace("@", f"{home}/"))
    (home / "table.json").write_text(json.dumps(table))
    (home / "tune.json").write_text(json.dumps({**table, "tune": TUNE}))
    for name, family in (("language", "language"), ("images", "gan")):
        folder = home / "data" / name
        folder.mkdir(parents=True)
        recipe = FAMILIES[family](folder)
        recipe["train"] |= {"steps": 2, "evaluate_every": 1, "save_every": 1}
        if name == "language":  # the tokenizer and network that every exporter can express
            recipe["data"]["transforms"] = {"text": [{"name": "tokenize", "kind": "bytes"}]}
            recipe["model"] |= {"qk_norm": False, "feed_forward": "swiglu"}
        (home / f"{name}.json").write_text(json.dumps(recipe))


def main(home: Path) -> int:
    """Run all commands; the exit code of the first that fails, else 0."""
    from danlu.cli.app import main as danlu

    for name, command in commands().items():
        with Path(os.devnull).open():  # whatever was open before is closed by now
            os.access(f"{MARK}{name}", os.F_OK)
        sys.argv = ["danlu", *command.replace("@", f"{home}/").split()]
        code: object = 0
        try:
            danlu()
        except SystemExit as ended:
            code = ended.code
        if code not in (0, None):
            print(f"{name} ended with {code}", file=sys.stderr)
            return 1
    os.access(f"{MARK}end", os.F_OK)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
