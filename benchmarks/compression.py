"""Compressed forms of the model of recipes/fashion_mnist_cnn.yaml: scores, size, memory, latency.

    python benchmarks/compression.py                       trains the recipe first; about an hour of one core
    python benchmarks/compression.py --run RUN             an existing run of the recipe
    python benchmarks/compression.py --only int8_static    one form, or several
    python benchmarks/compression.py --json

`danlu compress` makes all forms from the same artifact. Each is scored on the 10,000 official test
images. Timings use one thread and alternate between the form and its artifact, so that both see the
same load of the machine."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from measuring import Neighbours, machine, machine_line, table

FORMS = {
    "int8_static": ["int8_static"],
    "quantization_aware": ["quantization_aware:epochs=1"],
    "pruned": ["prune:share=0.8,epochs=4"],
    "pruned_int8": ["prune:share=0.8,epochs=4", "int8_static"],
    "narrowed": ["prune:method=structured,share=0.5,epochs=4"],
    "distilled": ["distil:model.width=10,epochs=40,weight=0.7,temperature=2"],
    "distilled_int8": [
        "distil:model.width=16,epochs=24,weight=0.7,temperature=2",
        "int8_static:smallest=4096",
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument(
        "--run", default=None, help="a run of the recipe; without it the recipe is trained first"
    )
    parser.add_argument(
        "--only", default=",".join(FORMS), help="names of forms, separated by commas"
    )
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    neighbours = Neighbours()
    with tempfile.TemporaryDirectory() as home:
        artifact = trained(arguments.run, Path(home))
        forms = {
            name: measured(artifact, FORMS[name], Path(home) / name)
            for name in arguments.only.split(",")
        }
    machine_text = machine_line(machine(), neighbours.cores())
    if arguments.json:
        print(json.dumps({"machine": machine_text, "forms": forms}, indent=1))
    else:
        print(page(machine_text, forms))


def trained(run: str | None, home: Path) -> Any:
    """The artifact that all forms are made of."""
    import danlu

    if run is not None:
        return danlu.load(run)
    data = (
        Path(os.environ.get("DANLU_DATA", Path(__file__).parents[2] / "shared" / "data"))
        / "fashion_mnist"
    )
    recipe = Path(__file__).parents[1] / "recipes" / "fashion_mnist_cnn.yaml"
    return danlu.train(recipe, home / "run", {"data.source.path": str(data), "train.threads": 1})


def measured(artifact: Any, steps: list[str], out: Path) -> dict[str, Any]:
    """What danlu compress says of one form."""
    import danlu
    from danlu.errors import DanluError

    try:
        comparison = danlu.compress(artifact, steps, out).as_dict()
    except DanluError as error:
        return {"steps": steps, "error": str(error)}
    return {"steps": steps, **comparison}


def page(machine_text: str, forms: dict[str, Any]) -> str:
    """The table."""
    sound = {name: form for name, form in forms.items() if "error" not in form}
    lines = ["# Compressed forms of the Fashion-MNIST cnn", "", machine_text, ""]
    heads = [
        "form",
        "accuracy",
        "change",
        "MB on disk",
        "smaller",
        "ms at batch 1",
        "as fast",
        "ms at batch 64",
        "as fast",
    ]
    rows = []
    for name, form in sound.items():
        before, after = form["before"], form["after"]
        then, now = before["latency"], after["latency"]
        rows.append(
            [
                name, f"{after['scores']['accuracy']:.4f}", f"{-form['drop']:+.4f}", f"{after['size'] / 1e6:.3f}",
                f"{before['size'] / after['size']:.1f}x", f"{now[1] * 1e3:.2f}", f"{then[1] / now[1]:.2f}x", f"{now[64] * 1e3:.2f}",
                f"{then[64] / now[64]:.2f}x",
            ]
        )  # fmt: skip
    if sound:
        first = next(iter(sound.values()))["before"]
        then = first["latency"]
        rows.insert(
            0,
            [
                "float32",
                f"{first['scores']['accuracy']:.4f}",
                "",
                f"{first['size'] / 1e6:.3f}",
                "",
                f"{then[1] * 1e3:.2f}",
                "",
                f"{then[64] * 1e3:.2f}",
                "",
            ],
        )
    lines += [table(heads, rows), ""]
    lines += [f"- {name}: `{' then '.join(form['steps'])}`" for name, form in sound.items()]
    lines += [
        f"- {name}: refused: {form['error']}" for name, form in forms.items() if "error" in form
    ]
    lines += [
        "",
        "Each form is timed in turn with the artifact it was made of, one thread; ratios are of those pairs.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
