"""Recipes that are written to take long: what checking each costs, and how the cost grows.

python tests/faults/slow_recipes.py                    a table: kinds of recipes, sizes, CPU seconds
python tests/faults/slow_recipes.py --limit [KIND ..]  100 KB of each kind through the command line;
                                                       exits with 1 where one takes more than
                                                       2 s of CPU or 200 MB

Every recipe of at most 100 KB is checked or refused within these limits, whatever it holds.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

HEAD = (
    "task: classification\nmodel: mlp\ndata: {source: {name: sklearn, set: iris}, target: target}\n"
)
OPEN = "task: classification\nmodel: mlp\ndata:\n  source: {name: sklearn, set: iris}\n"
SECONDS, MEGABYTES = 2.0, 200

Recipe = tuple[str, list[str]]  # the text of the file, and overrides of the command line


def times(size: int, entry: Callable[[int], str], between: str = "") -> str:
    """Entry 0, 1, 2, ... until they have `size` letters together."""
    entries: list[str] = []
    length = 0
    while length < size:
        entries.append(entry(len(entries)))
        length += len(entries[-1]) + len(between)
    return between.join(entries)


def nested(size: int) -> str:
    return "[" * (size // 2) + "]" * (size // 2)


def conditions(size: int) -> str:
    return "  space:\n" + times(
        size,
        lambda n: (
            f"    regularization.l{n}: {{choices: [1, 2], when: {{regularization.l{n - 1}: 1}}}}\n"
            if n
            else "    regularization.l0: [1, 2]\n"
        ),
    )


def binary(size: int) -> str:
    """Pairs of choices, the last of which takes part beside one value of every other."""
    names = [
        "data.duplicates", "data.missing_rows", "data.missing_target", "data.checks", "train.on_nan",
        "train.precision", "model.activation", "regularization.l1", "regularization.l2",
        "train.keep", "train.clip_norm", "train.micro_batch", "train.report_every", "train.save_every",
    ]  # fmt: skip
    pairs = dict.fromkeys(names[7:], "[1, 2]") | {
        "data.duplicates": "[keep, drop]",
        "data.missing_rows": "[keep, drop]",
        "data.missing_target": "[error, drop]",
        "data.checks": "[warn, error]",
        "train.on_nan": "[stop, skip]",
        "train.precision": "[auto, float32]",
        "model.activation": "[relu, gelu]",
    }
    wanted = ", ".join(f"{name}: {pairs[name].strip('[]').split(', ')[1]}" for name in pairs)
    lines = "".join(f"    {name}: {pair}\n" for name, pair in pairs.items())
    last = times(size // 2, lambda n: f"{n + 1}", ", ")
    return f"  space:\n{lines}    train.seed: {{choices: [{last}], when: {{{wanted}}}}}\n"


def tune(rest: str, sampler: str = "bayesian") -> str:
    return f"{HEAD}tune:\n  sampler: {sampler}\n{rest}"


def aliased(size: int, entry: str) -> str:
    """A text of half the size, and aliases of it up to the other half."""
    return f"{HEAD}finetune:\n  freeze: [&a '{'x' * (size // 2)}', " + "*a, " * (size // 8) + "]\n"


def letters(size: int) -> str:
    return "".join(random.Random(size).choices("abcdefgh_", k=size))


KINDS: dict[str, Callable[[int], str]] = {
    # texts where something else belongs, long names
    "digits as text": lambda n: f'{HEAD}train: {{steps: "{"9" * n}x"}}\n',
    "digits": lambda n: f"{HEAD}train: {{steps: {'9' * n}}}\n",
    "float digits": lambda n: f"{HEAD}train: {{steps: 0.{'9' * n}e5}}\n",
    "commas as text": lambda n: f'{HEAD}train: {{steps: "{",_" * (n // 2)}."}}\n',
    "long key": lambda n: f"{HEAD}? {letters(n)}\n: 1\n",
    "long option": lambda n: f"{HEAD}train:\n  ? {letters(n)}\n  : 1\n",
    "long part": lambda n: f"{HEAD}optimizer: {letters(n)}\n",
    "long choice": lambda n: f"{HEAD}train: {{precision: {letters(n)}}}\n",
    "long pattern": lambda n: f"{HEAD}train: {{device: {'cuda:' + '1' * n}x}}\n",
    "long source": lambda n: f"task: classification\nmodel: mlp\ndata: {letters(n)}\n",
    "long path": lambda n: f"{OPEN}  target: t\n  split: {'/'.join(letters(n))}\n",
    "long name": lambda n: f"{HEAD}name: {letters(n)}\n",
    "long column, many options": lambda n: (
        f"{OPEN}  target: t\n  columns:\n    ? {letters(n // 2)}\n    :\n"
        + times(n // 2, lambda k: f"      o{k}: 1\n")
    ),
    "NUL bytes": lambda n: f'{HEAD}name: "{chr(92) + "0"}{"a" * n}"\n',
    "escapes": lambda n: f'{HEAD}name: "{(chr(92) + "e") * (n // 2)}"\n',
    # many of something
    "unknown keys": lambda n: HEAD + times(n, lambda k: f"learning_ratee{k}: 1\n"),
    "short unknown keys": lambda n: HEAD + times(n, lambda k: f"k{k}: 1\n"),
    "unknown options": lambda n: HEAD + "train:\n" + times(n, lambda k: f"  stepz{k}: 1\n"),
    "unknown options of a model": lambda n: (
        "task: classification\ndata: {source: {name: sklearn, set: iris}, target: target}\n"
        "model:\n  name: mlp\n" + times(n, lambda k: f"  hiddenn{k}: 1\n")
    ),
    "keys of a nameless part": lambda n: (
        HEAD.replace("model: mlp\n", "model:\n") + times(n, lambda k: f"  nam{k}: mlp\n")
    ).replace("data: {source: {name: sklearn, set: iris}, target: target}\n", "", 1),
    "unknown metrics": lambda n: f"{HEAD}metrics: [{times(n, lambda k: f'acc{k}', ', ')}]\n",
    "metrics": lambda n: f"{HEAD}metrics: [{times(n, lambda k: 'accuracy', ', ')}]\n",
    "metrics as mappings": lambda n: f"{HEAD}metrics: [{times(n, lambda k: '{name: f1}', ', ')}]\n",
    "augmentations": lambda n: f"{OPEN}  target: t\n  augmentations: [{times(n, lambda k: 'flip', ',')}]\n",
    "watchers": lambda n: f"{HEAD}watchers: [{times(n, lambda k: 'jsonl', ', ')}]\n",
    "compressors": lambda n: f"{HEAD}compress: [{times(n, lambda k: 'prune', ', ')}]\n",
    "columns": lambda n: f"{OPEN}  target: t\n  columns:\n" + times(n, lambda k: f"    c{k}: number\n"),
    "columns in braces": lambda n: (
        f"{OPEN}  target: t\n  columns: {{" + times(n, lambda k: f"c{k}: drop", ", ") + "}\n"
    ),
    "wrong columns": lambda n: f"{OPEN}  target: t\n  columns:\n" + times(n, lambda k: f"    c{k}: numbr\n"),
    "columns of unknown options": lambda n: (
        f"{OPEN}  target: t\n  columns:\n" + times(n, lambda k: f"    c{k}: {{kin: 1}}\n")
    ),
    "columns with transforms": lambda n: (
        f"{OPEN}  target: t\n  columns:\n"
        + times(n, lambda k: f"    c{k}: {{transforms: [standard]}}\n")
    ),
    "targets": lambda n: f"{OPEN}  target: [{times(n, lambda k: f't{k}', ', ')}]\n",
    "kinds": lambda n: f"{OPEN}  target: t\n  transforms: {{{times(n, lambda k: f'k{k}: []', ', ')}}}\n",
    "hidden layers": lambda n: HEAD.replace("mlp", f"{{name: mlp, hidden: [{times(n, lambda k: '1', ',')}]}}"),
    "wrong hidden layers": lambda n: HEAD.replace(
        "mlp", f"{{name: mlp, hidden: [{times(n, lambda k: 'a', ',')}]}}"
    ),
    "frozen parameters": lambda n: f"{HEAD}finetune: {{freeze: [{times(n, lambda k: '1', ',')}]}}\n",
    "rates": lambda n: f"{HEAD}finetune: {{rates: {{{times(n, lambda k: f'k{k}: a', ', ')}}}}}\n",
    "objectives": lambda n: tune(
        f"  objectives: [{times(n, lambda k: '{metric: a}', ', ')}]\n  space: {{train.seed: [1, 2]}}\n"
    ),
    "wrong everywhere": lambda n: (
        f"{HEAD}train:\n" + times(n // 2, lambda k: f"  step{k}: a\n") + "tune:\n  space:\n"
        "    train.seed: [" + times(n // 2, lambda k: f"{k}", ", ") + "]\n"
    ),
    "some wrong, many choices": lambda n: (
        f"{HEAD}train:\n" + times(2000, lambda k: f"  stepz{k}: a\n") + "tune:\n  space:\n"
        "    train.seed: [" + times(min(n, 4000), lambda k: f"{k}", ", ") + "]\n"
    ),
    # YAML
    "nested lists": lambda n: f"{HEAD}name: {nested(n)}\n",
    "nested maps": lambda n: f"{HEAD}name: " + "{a: " * (n // 5) + "}" * (n // 5) + "\n",
    "nested keys": lambda n: f"{HEAD}? " * (n // 80) + "? " * (n // 2) + "a\n",
    "dashes": lambda n: f"{HEAD}name:\n" + "- " * (n // 2) + "a\n",
    "wide nested lists": lambda n: f"{HEAD}name: [" + times(n, lambda k: "[[[[[[[[]]]]]]]]", ",") + "]\n",
    "numbers": lambda n: f"{HEAD}name: [{'1,' * (n // 2)}]\n",
    "empty maps": lambda n: f"{HEAD}name: [{'{},' * (n // 3)}]\n",
    "sets": lambda n: f"{HEAD}name: {{{times(n, lambda k: f'k{k}', ', ')}}}\n",
    "equal keys": lambda n: HEAD + "a: 1\n" * (n // 5),
    "equal long keys": lambda n: HEAD + times(n, lambda k: f'? {"a" * 2000}\n: 1\n'),
    "anchors": lambda n: f"{HEAD}name: [{times(n, lambda k: f'&a{k} 1', ', ')}]\n",
    "aliases": lambda n: f"{HEAD}name: [&a 1, {'*a, ' * (n // 4)}]\n",
    "aliases of a long text": lambda n: aliased(n, ""),
    "aliases of a long key": lambda n: (
        f"{HEAD}finetune:\n  rates: &r {{? {'x' * (n // 2)} : 1}}\n"
        "regularization: [" + "*r, " * (n // 8) + "]\n"
    ),
    "alias bomb": lambda n: (
        f"{HEAD}a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1]\n"
        + times(n, lambda k: f"a{k + 1}: &a{k + 1} [{', '.join([f'*a{k}'] * 8)}]\n")
    ),
    "alias of itself": lambda n: f"{HEAD}name: &a [{'*a, ' * (n // 4)}]\n",
    "tags": lambda n: f"{HEAD}name: [{'!!int 1, ' * (n // 9)}]\n",
    "wrong tags": lambda n: f"{HEAD}name: [{'!!python/object:os.system 1, ' * (n // 29)}]\n",
    "directives": lambda n: times(n, lambda k: f"%TAG !t{k}! tag:a,2000:\n") + "---\n" + HEAD,
    "long version": lambda n: f"%YAML {'1' * n}.1\n---\n{HEAD}",
    "documents": lambda n: HEAD + "---\na: 1\n" * (n // 9),
    "merge keys": lambda n: HEAD + times(n, lambda k: f"k{k}: {{<<: {{a: 1}}}}\n"),
    "comments": lambda n: "# a\n" * (n // 4) + HEAD,
    "blank lines": lambda n: "\n" * n + HEAD,
    "one long line": lambda n: f"{HEAD}name: {'a ' * (n // 2)}\n",
    "folded lines": lambda n: f"{HEAD}name: >\n" + "  a\n" * (n // 4),
    "tabs in JSON": lambda n: '{"a": [' + "1,\t" * (n // 3) + "1]}",
    "deep JSON": lambda n: '{"a": ' + "[\t" * (n // 2),
    "code points beyond": lambda n: f'{HEAD}name: "{chr(92)}U7fffffff{"a" * n}"\n',
    "emoji": lambda n: f"{HEAD}name: {chr(0x1F600) * (n // 4)}\n",
    # the search space
    "choices": lambda n: tune(f"  space: {{train.seed: [{times(n, str, ', ')}]}}\n"),
    "a thousand choices": lambda n: tune(
        f"  space: {{train.seed: [{', '.join(map(str, range(min(n // 6, 990))))}]}}\n"
    ),
    "equal choices": lambda n: tune(f"  space: {{train.seed: [{times(n, lambda k: '1', ', ')}]}}\n"),
    "wrong choices": lambda n: tune(
        f"  space: {{train.seed: [{', '.join(f'a{k}' for k in range(min(n // 6, 990)))}]}}\n"
    ),
    "choices of parts": lambda n: tune(
        f"  space: {{optimizer: [{', '.join(f'opt{k}' for k in range(min(n // 8, 990)))}]}}\n"
    ),
    "large choices": lambda n: tune(
        "  space: {model.hidden: ["
        + ", ".join(f"[{k}, {'1, ' * (n // 40)}]" for k in range(1, 14))
        + "]}\n"
    ),
    "dimensions": lambda n: tune("  space:\n" + times(n, lambda k: f"    train.k{k}: [1, 2]\n")),
    "wrong dimensions": lambda n: tune("  space:\n" + times(n, lambda k: f"    k{k}: [1, 2]\n")),
    "conditions": lambda n: tune(conditions(n)),
    "200 conditions": lambda n: tune(conditions(min(n, 13_000))),
    "conditions in a circle": lambda n: tune(
        "  space:\n"
        + times(min(n, 12_000), lambda k: f"    train.k{k}: {{choices: [1], when: {{train.k{k + 1}: 1}}}}\n")
        + "    train.k0: {choices: [1], when: {train.k1: 1}}\n"
    ),
    "a condition of many values": lambda n: tune(
        f"  space:\n    train.keep: [{times(n // 2, str, ', ')}]\n"
        f"    train.seed: {{choices: [1], when: {{train.keep: [{times(n // 2, lambda k: str(-k), ', ')}]}}}}\n"
    ),
    "many conditions": lambda n: tune(
        "  space:\n    train.seed: {choices: [1], when: {"
        + times(n, lambda k: f"train.k{k}: 1", ", ")
        + "}}\n"
    ),
    "pairs of choices": lambda n: tune(binary(min(n, 1000))),
    "pairs on a grid": lambda n: tune(binary(min(n, 1000)), "grid"),
    "fine steps": lambda n: tune(
        "  space: {regularization.l1: {low: 0, high: 4503599627370496, step: 1}}\n", "grid"
    ),
    "finest steps": lambda n: tune(
        "  space: {regularization.l1: {low: 0, high: 1, step: 1.0e-300}}\n", "grid"
    ),
    "numbers beyond floats": lambda n: tune(
        f"  space: {{regularization.l1: {{low: 1{'0' * 390}, high: 2{'0' * 390}}}, "
        f"train.seed: [1{'0' * 390}, 2{'0' * 390}]}}\n"
    ),
    "unknown keys of a range": lambda n: tune(
        "  space: {train.seed: {low: 0, high: 1, " + times(n, lambda k: f"hihg{k}: 1", ", ") + "}}\n"
    ),
    "dotted": lambda n: tune(f"  space:\n    ? train{'.a' * (n // 2)}\n    : [1, 2]\n"),
    "columns and a space": lambda n: (
        f"{OPEN}  target: t\n  columns:\n"
        + times(n - 3000, lambda k: f"    c{k}: number\n")
        + f"tune: {{space: {{train.seed: [{times(2500, str, ', ')}]}}}}\n"
    ),
    "columns that are searched": lambda n: (
        f"{OPEN}  target: t\n  columns:\n"
        + times(n - 3000, lambda k: f"    c{k}: number\n")
        + f"tune: {{space: {{data.columns.c1: [{times(2500, str, ', ')}]}}}}\n"
    ),
}  # fmt: skip

# On the command line: overrides of HEAD.
OVERRIDES: dict[str, Callable[[int], list[str]]] = {
    "override of digits": lambda n: [f'train.steps="{"9" * n}x"'],
    "override of a list": lambda n: [f"model.hidden=[{'1,' * (n // 2)}]"],
    "override with a long name": lambda n: [f"{letters(n)}=1"],
    "override with dots": lambda n: [f"train{'.a' * (n // 2)}=1"],
    "override nested": lambda n: [f"name={nested(n)}"],
    "override of choices": lambda n: [f"tune.space.train.seed=[{times(n, str, ',')}]"],
    "overrides": lambda n: times(n, lambda k: f"train.k{k}=1", " ").split(),
    "a thousand overrides": lambda n: [f"data.columns.c{k}=number" for k in range(min(n // 30, 1000))],
    "wrong overrides": lambda n: times(min(n, 9000), lambda k: f"train.k{k}", " ").split(),
    "overrides of one another": lambda n: times(min(n, 9000), lambda k: "data.columns.a=number", " ").split(),
}  # fmt: skip


def recipes(size: int) -> Iterator[tuple[str, Recipe]]:
    """(kind, a recipe of about `size` bytes) of every kind."""
    for kind, text in KINDS.items():
        yield kind, (text(size - len(HEAD) - 100), [])
    for kind, overrides in OVERRIDES.items():
        yield kind, (HEAD, overrides(size - 100))


def check(path: Path, recipe: Recipe) -> None:
    """Check a recipe in this process as `danlu check` does, printed with every default."""
    import danlu
    from danlu.errors import RecipeError
    from danlu.recipe import write_yaml

    text, overrides = recipe
    path.write_text(text, encoding="utf-8")
    try:
        write_yaml(danlu.read_recipe(path, overrides).as_dict())
    except RecipeError as error:
        assert len(str(error)) < 500_000, "a message for a person"


def seconds(path: Path, recipe: Recipe) -> float:
    """CPU seconds of `check`."""
    before = time.process_time()
    check(path, recipe)
    return time.process_time() - before


_MEASURE = """
import os, sys
child = os.posix_spawn(
    sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, 2, 1)]
)
_, status, usage = os.wait4(child, 0)
print([os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, usage.ru_maxrss])
"""


def cost_of_command(path: Path, recipe: Recipe) -> tuple[int, float, float, str]:
    """(exit code, CPU seconds, MB, the end of what it printed) of `danlu check`."""
    text, overrides = recipe
    path.write_text(text, encoding="utf-8")
    output = path.with_suffix(".out")
    command = [sys.executable, "-m", "danlu", "check", str(path), *overrides]
    # A process inherits the peak of memory of the one that starts it, so a small one does that.
    with output.open("wb") as file:
        started = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _MEASURE, *command],
            stdout=subprocess.PIPE,
            stderr=file,
            check=True,
        )
    code, cpu, kilobytes = json.loads(started.stdout)
    end = output.read_bytes()[-2000:].decode("utf-8", "replace")
    return code, cpu, kilobytes / 1024, end


def _table(folder: Path) -> None:
    sizes = [12_000, 25_000, 50_000, 100_000]
    print(f"{'CPU seconds':32}" + "".join(f"{size // 1000:>7} KB" for size in sizes))
    by_kind: dict[str, list[float]] = {}
    for size in sizes:
        for kind, recipe in recipes(size):
            by_kind.setdefault(kind, []).append(seconds(folder / "recipe.yaml", recipe))
    for kind, row in by_kind.items():
        print(f"{kind:32}" + "".join(f"{cpu:10.2f}" for cpu in row))


def _limit(folder: Path, wanted: list[str]) -> int:
    worst = 0
    for kind, recipe in recipes(100_000):
        if wanted and kind not in wanted:
            continue
        code, cpu, megabytes, end = cost_of_command(folder / "recipe.yaml", recipe)
        bad = code not in (0, 2) or "Traceback" in end or cpu > SECONDS or megabytes > MEGABYTES
        worst |= bad
        first = end.strip().splitlines()[-1][:60] if end.strip() else ""
        print(
            f"{'BAD' if bad else 'ok':4}{kind:32}{code:3} {cpu:6.2f} s {megabytes:6.0f} MB  {first}"
        )
    return int(worst)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        if "--limit" in sys.argv:
            sys.exit(_limit(Path(home), [word for word in sys.argv[1:] if word != "--limit"]))
        _table(Path(home))
