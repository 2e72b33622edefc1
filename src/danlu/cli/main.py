"""The command line: one verb, one function of the door; no logic of its own. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from danlu.errors import DanluError
from danlu.system.signals import Interruption

app = typer.Typer(
    name="danlu",
    help="danlu: data and a recipe in; a trained, checked and provably resumable model out.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

INTERRUPTED = 130  # what typer makes of a KeyboardInterrupt


def _hold(context: typer.Context, option: typer.CallbackParam, value: str | None) -> str | None:
    """Keeps which key is given in the environment, where every reader finds it, in the processes
    that a verb starts too."""
    if value is not None:
        mine, other = ("KEY", "PASSPHRASE") if option.name == "key_file" else ("PASSPHRASE", "KEY")
        if context.params.get(f"{other.lower()}_file") is not None:
            raise DanluError(
                "a key file and a passphrase file are one too many.", hint="name one of them"
            )
        os.environ.pop(f"DANLU_{other}_FILE", None)
        os.environ[f"DANLU_{mine}_FILE"] = str(Path(value).absolute())
    return value


RecipeFile = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe file (YAML or JSON).", show_default=False)
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE ...]",
        help="Changes to the recipe: optimizer.learning_rate=0.01",
        show_default=False,
    ),
]
ArtifactFolder = Annotated[
    str,
    typer.Argument(
        metavar="ARTIFACT", help="An artifact folder, or the folder of its run.", show_default=False
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
KeyFile = Annotated[
    str | None,
    typer.Option(metavar="FILE", callback=_hold, help="The key of an artifact that is encrypted."),
]
PassphraseFile = Annotated[
    str | None, typer.Option(metavar="FILE", callback=_hold, help="The same, as a passphrase.")
]
AllowCode = Annotated[
    bool,
    typer.Option("--allow-code", help="Let model: {name: python} import and run code of yours."),
]


def _print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=1))


def _say(text: str = "") -> None:
    with contextlib.suppress(OSError):  # nobody reads it: no reason to call a finished work failed
        print(text, file=sys.stderr, flush=True)


_MOST_LINES = 25  # of a table by name; all of it is in --json


def _scores(scores: dict[str, Any], classes: Sequence[Any] = ()) -> str:
    """Scores a line each; a square table (a confusion matrix) with its classes, rows true and
    columns predicted."""
    plain = {name: value for name, value in scores.items() if name != "rows"}
    width = max((len(name) for name in plain), default=0)
    lines = []
    for name, value in plain.items():
        if isinstance(value, list) and value and all(isinstance(row, list) for row in value):
            lines += [
                f"  {name} (rows: true, columns: predicted)",
                *_matrix(value, [str(each) for each in classes]),
            ]
        elif (
            isinstance(value, dict)
            and value
            and all(isinstance(row, dict) for row in value.values())
        ):
            lines += [f"  {name}", *_by_name(value)]
        else:
            lines.append(f"  {name:<{width}}  {_number(value)}")
    return "\n".join(lines)


def _matrix(rows: list[list[int]], classes: list[str]) -> list[str]:
    if len(rows) > 30:
        return [f"    {len(rows)} classes: see --json"]
    names = classes if len(classes) == len(rows) else [str(number) for number in range(len(rows))]
    short = [name if len(name) <= 12 else name[:11] + "…" for name in names]
    width = max(len(f"{value:,}") for row in rows for value in row)
    width = max(width, *(len(name) for name in short)) if len(rows) <= 8 else max(width, 4)
    side = max(len(name) for name in short)
    head = "    " + " " * side + "".join(f"  {name[:width]:>{width}}" for name in short)
    return [
        head,
        *(
            "    " + f"{name:<{side}}" + "".join(f"  {value:>{width},}" for value in row)
            for name, row in zip(short, rows)
        ),
    ]


def _by_name(rows: dict[str, dict[str, Any]]) -> list[str]:
    """A line for each named row of numbers, under a head; of many rows some, the first and the last
    among them."""
    heads = list(next(iter(rows.values())))
    if len(rows) > _MOST_LINES:
        chosen = {
            round(place * (len(rows) - 1) / (_MOST_LINES - 1)) for place in range(_MOST_LINES)
        }
        rows = {name: row for place, (name, row) in enumerate(rows.items()) if place in chosen}
    cells = [
        ["", *heads],
        *([name, *(_number(row[head]) for head in heads)] for name, row in rows.items()),
    ]
    widths = [max(len(line[place]) for line in cells) for place in range(len(heads) + 1)]
    return [
        "    " + "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths)).rstrip()
        for line in cells
    ]


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return (
        f"{value:,}"
        if isinstance(value, int)
        else "not defined on these rows"
        if value is None
        else json.dumps(value, ensure_ascii=False)
    )


def _permit(allow_code: bool) -> None:
    if allow_code:
        from danlu.system.trust import allow_code as allow

        sys.path.insert(0, str(Path.cwd()))  # where the user's own package lies
        allow()


@app.command()
def new(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="A data file or folder.", show_default=False)
    ],
    target: Annotated[str | None, typer.Option(help="The column to predict.")] = None,
    task: Annotated[
        str | None, typer.Option(help="The task; inferred from the target when left out.")
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(help="The recipe file to write; default: beside you, named after the data."),
    ] = None,
    force: Annotated[bool, typer.Option(help="Replace a recipe that is there.")] = False,
) -> None:
    """Write a commented recipe for a data file, by looking at it."""
    from danlu import draft

    stem = Path(data.rstrip("/")).name.split(".")[0] or "recipe"
    path = Path(out or f"{stem}.yaml")
    if path.exists() and not force:
        raise DanluError(
            "there is already a file of this name.",
            where=str(path),
            hint="choose another --out, or add --force",
        )
    text = draft(data, target, task)
    path.write_text(text, encoding="utf-8")
    print(path)
    _say(f"Look it over, then: danlu train {shlex.quote(str(path))}")


@app.command()
def check(recipe: RecipeFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Check a recipe without reading any data; prints it with every default."""
    from danlu import read_recipe
    from danlu.recipe import as_plain, write_yaml

    found = read_recipe(recipe, overrides or ())
    beside = {"tune": found.tune, "compress": found.compress}
    checked = {
        **found.as_dict(),
        **{key: as_plain(each) for key, each in beside.items() if each is not None},
    }
    if as_json:
        _print_json(checked)
    else:
        print(write_yaml(checked), end="")
        _say(f"{recipe} is sound.")


@app.command()
def train(
    recipe: RecipeFile,
    overrides: Overrides = None,
    run: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="The run folder; default runs/<recipe name>."),
    ] = None,
    folds: Annotated[
        int | None, typer.Option(min=2, max=100, help="k-fold cross-validation with k folds.")
    ] = None,
    find_learning_rate: Annotated[
        bool, typer.Option("--find-learning-rate", help="Run the learning-rate range test instead.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress, only the result.")
    ] = False,
    as_json: AsJson = False,
    allow_code: AllowCode = False,
    key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Train a recipe. The same command goes on after a kill; a finished run says so."""
    _permit(allow_code)
    from danlu import read_recipe

    checked = read_recipe(recipe, overrides or ())
    if find_learning_rate:
        _find_learning_rate(checked, as_json)
        return
    home = Path(run) if run else Path("runs") / checked.name
    from danlu import train as train_recipe
    from danlu.training.loop import default_output

    output = "json" if as_json else "quiet" if quiet else default_output()
    count = folds or checked.train.folds
    if count:
        _cross_validate(checked, count, home, output, as_json)
        return
    finished = (home / "artifact" / "artifact.json").is_file()
    smaller: list[Any] = []
    artifact = train_recipe(checked, home, output=output, tell=smaller.append)
    if as_json:
        more = {"compressed": smaller[0].as_dict()} if smaller else {}
        _print_json(
            {
                "run": str(home),
                "artifact": str(artifact.path),
                "finished_before": finished,
                "scores": artifact.scores,
                **more,
            }
        )
        return
    for found in smaller:
        _tell_compressed(found, quiet, as_json)
        print()
    if finished:
        _say(
            f"This run has finished already; its scores are these. (To train anew: --run ANOTHER, or remove {home}.)"
        )
    split = "test" if "test" in artifact.scores else "validation"
    if split in artifact.scores:
        print(f"{split} scores ({artifact.scores[split]['rows']:,} rows)")
        print(_scores(artifact.scores[split], getattr(artifact.task, "classes", ())))
        guess = {
            name: value
            for name, value in artifact.scores.get("baseline", {}).items()
            if name != "split"
        }
        if guess:
            print(
                getattr(
                    artifact.task,
                    "guess",
                    "always the same answer, the best there is for the training rows",
                )
            )
            print(_scores(guess))
    else:
        print("there is no validation or test split, so there is no score.")
    if not quiet:
        place = shlex.quote(str(home))
        _say(
            f"\nArtifact: {artifact.path}\nNext:\n  danlu evaluate {place}\n  {_use(artifact, place)}\n  tensorboard --logdir {place}"
        )


_USES = {
    "language_modeling": "generate {} --prompt TEXT",
    "instruction_tuning": "chat {}",
    "image_generation": "generate {} --out grid.png",
}


def _use(artifact: Any, place: str) -> str:
    """The command by which an artifact of its task is used."""
    return "danlu " + _USES.get(artifact.recipe.task.name, "predict {} DATA").format(place)


def _find_learning_rate(recipe: Any, as_json: bool) -> None:
    from danlu import find_learning_rate as find

    found = find(recipe)
    if as_json:
        _print_json(found.as_dict())
        return
    lowest, highest = min(found.losses), min(max(found.losses), 4 * max(min(found.losses), 1e-12))
    for rate, loss in list(zip(found.rates, found.losses))[:: max(1, len(found.rates) // 30)]:
        share = (min(loss, highest) - lowest) / max(highest - lowest, 1e-12)
        print(f"{rate:10.2e}  {loss:10.4g}  {'#' * (1 + round(50 * share))}")
    print(f"suggestion: optimizer.learning_rate={found.suggestion:.2g}")


def _cross_validate(recipe: Any, count: int, home: Path, output: Any, as_json: bool) -> None:
    from danlu import cross_validate

    found = cross_validate(recipe, count, home, output=output)
    if as_json:
        _print_json({"run": str(home), **found})
        return
    print(f"validation scores over {count} folds (mean, standard deviation)")
    width = max(map(len, found["mean"]), default=0)
    print(
        "\n".join(
            f"  {name:<{width}}  {found['mean'][name]:.6g}  {found['std'][name]:.2g}"
            for name in found["mean"]
        )
    )


@app.command()
def tune(
    recipe: RecipeFile,
    overrides: Overrides = None,
    study: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="The study's folder; default studies/<recipe name>."),
    ] = None,
    at_width: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="WIDTH", help="Search on a copy whose model is so wide, under muP."
        ),
    ] = None,
    transfer: Annotated[
        bool,
        typer.Option(
            "--transfer",
            help="With --at-width: write wide.yaml, the recipe at its own width with what was found.",
        ),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress, only the result.")
    ] = False,
    as_json: AsJson = False,
    allow_code: AllowCode = False,
) -> None:
    """Search the options that the recipe's section tune names. The same command goes on after
    Ctrl-C or a kill."""
    _permit(allow_code)
    from danlu import read_recipe, tune_at_width
    from danlu import tune as search
    from danlu.training.loop import default_output

    if transfer and at_width is None:
        raise DanluError("--transfer needs the width to search at.", hint="add --at-width 128")
    checked = read_recipe(recipe, overrides or ())
    output = "json" if as_json else "quiet" if quiet else default_output()
    if at_width is None:
        found, wide = search(checked, study, output=output, plots=None), None
        plain = found.as_dict() if as_json else None
    else:
        moved = tune_at_width(checked, at_width, study, transfer=transfer, output=output, say=_say)
        found, wide = moved.study, moved.recipe
        plain = moved.as_dict() if as_json else None
    if plain is not None:
        _print_json(plain)
        return
    states = [record.state for record in found.trials]
    counts = ", ".join(
        f"{states.count(state):,} {state}"
        for state in ("complete", "pruned", "failed", "running")
        if state in states
    )
    print(f"{len(states):,} trials: {counts}")
    if found.best is None:
        raise DanluError(
            "no trial was completed.",
            where=str(found.folder),
            hint="look at the causes above, or in danlu tune ... --json",
        )
    told = {metric: score for (metric, _), score in zip(found.objectives, found.best.scores or ())}
    print(f"best: trial {found.best.number}")
    print(_scores({**told, **found.best.values}))
    if not quiet:
        _say(
            f"\nReport: {found.folder / 'report.html'}\nNext:\n  danlu train {shlex.quote(str(wide or found.recipe))}"
        )


@app.command()
def report(
    study: Annotated[
        str, typer.Argument(metavar="STUDY", help="The folder of a study.", show_default=False)
    ],
    storage: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Where its trials are stored, if a password is needed."),
    ] = None,
    plots: Annotated[
        bool | None,
        typer.Option(
            "--plots/--no-plots", help="Draw PNGs too; default: where matplotlib is installed."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the report of a study: one HTML page, tables as CSV and Parquet, plots. The study may
    be running."""
    from danlu import report as write_report

    written = write_report(study, storage=storage, plots=plots)
    _print_json([str(path) for path in written]) if as_json else print("\n".join(map(str, written)))


@app.command()
def compare(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="RECIPE... [KEY=A,B,...] [KEY=VALUE ...]",
            help="Recipes, and what is compared: optimizer=sgd,adam,muon; KEY=VALUE changes all of them.",
            show_default=False,
        ),
    ],
    run: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER", help="The comparison's folder; default runs/compare-<recipe name>."
        ),
    ] = None,
    rates: Annotated[
        int,
        typer.Option(
            min=1, max=100, help="Learning rates tried for each; 1: no search, each takes its own."
        ),
    ] = 7,
    seeds: Annotated[
        int, typer.Option(min=1, max=1000, help="Trainings that are compared, of each.")
    ] = 5,
    metric: Annotated[
        str | None,
        typer.Option(help="The validation score compared; default: the one that decides."),
    ] = None,
    target: Annotated[
        float | None,
        typer.Option(
            help="The score that steps and seconds are counted to; default: what the weakest comes to."
        ),
    ] = None,
    confidence: Annotated[
        float, typer.Option(min=0.5, max=0.999, help="Of the intervals around means.")
    ] = 0.95,
    on: Annotated[
        str, typer.Option(help="auto, vectorised (many trainings as one program) or one_by_one.")
    ] = "auto",
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress, only the result.")
    ] = False,
    as_json: AsJson = False,
    allow_code: AllowCode = False,
) -> None:
    """Train contestants alike, each at its own learning rate, over several seeds. The same command
    goes on after a kill."""
    _permit(allow_code)
    from danlu import compare as contest
    from danlu.comparison import split_words

    if on not in ("auto", "vectorised", "one_by_one"):
        raise DanluError(f"--on must be auto, vectorised or one_by_one, and is {on!r}.")
    recipes, among, overrides = split_words(words)
    say = (lambda text: None) if quiet else _say
    found = contest(
        recipes,
        among,
        overrides,
        run=run,
        rates=rates,
        seeds=seeds,
        metric=metric,
        target=target,
        confidence=confidence,
        on=on,
        say=say,
    )
    if as_json:
        _print_json(found.as_dict())
        return
    heads, rows = found.table()
    widths = [max(len(line[place]) for line in [heads, *rows]) for place in range(len(heads))]
    for line in [heads, *rows]:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths)).rstrip())
    if not quiet:
        _say(f"\n{found.sentence()}\nCurves: {found.folder / 'curves.svg'}")


@app.command()
def compress(
    artifact: ArtifactFolder,
    steps: Annotated[
        list[str],
        typer.Option(
            "--with",
            metavar="NAME[:KEY=VALUE,...]",
            help="A compressor and its options, as prune:share=0.8,epochs=2; may be given several times, in order. Or a YAML file.",
            show_default=False,
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Where the result is written; default: beside the artifact, NAME-compressed.",
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="The most that the deciding score may lose, in its own units; else nothing is kept.",
        ),
    ] = None,
    score: Annotated[
        str | None,
        typer.Option(help="The score that decides; default: the first metric of the recipe."),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress, only the result.")
    ] = False,
    as_json: AsJson = False,
    allow_code: AllowCode = False,
    key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Make an artifact smaller or faster, and measure on its test split what that costs."""
    _permit(allow_code)
    from danlu import compress as make_smaller
    from danlu.training.loop import default_output

    output = "json" if as_json else "quiet" if quiet else default_output()
    found = make_smaller(artifact, steps, out, max_drop=max_drop, score=score, output=output)
    _tell_compressed(found, quiet, as_json)


def _tell_compressed(found: Any, quiet: bool, as_json: bool) -> None:
    """What became of an artifact, as a table."""
    if as_json:
        _print_json(found.as_dict())
        return
    rows = found.table()
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    print(
        f"{found.split} split ({found.rows:,} rows), {found.threads} thread{'s' if found.threads > 1 else ''}"
    )
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths)).rstrip())
    if not quiet:
        for each in found.notes:
            _say(each)
        _say(f"\nArtifact: {found.artifact.path}")


@app.command()
def evaluate(
    artifact: ArtifactFolder,
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="[DATA]", help="A data file with the target; default: the run's own test split."
        ),
    ] = None,
    split: Annotated[
        str, typer.Option(help="Which split of its own data: train, validation or test.")
    ] = "test",
    as_json: AsJson = False,
    allow_code: AllowCode = False,
    key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Score an artifact on its own test split, or on a data file."""
    _permit(allow_code)
    from danlu import evaluate as evaluate_artifact
    from danlu import load
    from danlu.training.evaluation import as_plain_scores

    if split not in ("train", "validation", "test"):
        raise DanluError(f"--split must be train, validation or test, and is {split!r}.")
    model = load(artifact)
    scores = evaluate_artifact(model, data, split)
    if as_json:
        _print_json({"split": scores.split, "rows": scores.rows, "scores": as_plain_scores(scores)})
    else:
        print(f"{data or scores.split + ' split'} ({scores.rows:,} rows)")
        print(_scores(as_plain_scores(scores), getattr(model.task, "classes", ())))


@app.command()
def predict(
    artifact: ArtifactFolder,
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="A data file or folder; - reads JSON lines from stdin.",
            show_default=False,
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write the answers to a .csv, .jsonl or .parquet file."),
    ] = None,
    as_json: AsJson = False,
    allow_code: AllowCode = False,
    key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Answer every row of a data file."""
    _permit(allow_code)
    from danlu import load
    from danlu.cli.answer_files import read_lines, write_answers

    model = load(artifact)
    answers = model.predict(read_lines(sys.stdin) if data == "-" else data)
    if out:
        write_answers(Path(out), answers)
        _say(f"{len(answers):,} answers written to {out}")
    elif as_json:
        for answer in answers:
            print(json.dumps(answer, ensure_ascii=False))
    else:
        for answer in answers:
            value = answer["prediction"]
            shown = answer.get("probabilities", {})
            sure = (
                ""
                if isinstance(value, list | dict) or value not in shown
                else f"  {shown[value]:.4f}"
            )
            print(
                f"{value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}{sure}"
            )


@app.command()
def export(
    artifact: ArtifactFolder,
    to: Annotated[str, typer.Option(help="The exporter: onnx, ... (danlu list exporters).")],
    options: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE ...]", help="Options of the exporter.", show_default=False
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Where it goes; default: beside the artifact."),
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option(
            metavar="DATA", help="A data file for the proof; default: the run's own test split."
        ),
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(min=0, help="Largest difference allowed; default 1e-4.")
    ] = None,
    as_json: AsJson = False,
    allow_code: AllowCode = False,
    key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Write an artifact in another runtime's form, compared with it on held-out rows before it is
    released."""
    _permit(allow_code)
    from danlu import export as export_artifact
    from danlu.exporting.card import proof_in_words

    made = export_artifact(artifact, to, out, rows, tolerance=tolerance, options=options or ())
    if as_json:
        _print_json(
            {"folder": str(made.path), "files": made.about["files"], "proof": made.about["proof"]}
        )
    else:
        print(made.path)
        _say(proof_in_words(made.about["proof"]))


@app.command()
def verify(
    folder: Annotated[
        str,
        typer.Argument(
            metavar="EXPORT", help="The folder that danlu export wrote.", show_default=False
        ),
    ],
    against: Annotated[
        str,
        typer.Option(
            metavar="ARTIFACT", help="The artifact it came from, or the folder of its run."
        ),
    ],
    rows: Annotated[
        str | None,
        typer.Option(
            metavar="DATA", help="A data file to compare on; default: the run's own test split."
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(min=0, help="Largest difference allowed; default: that of its own proof."),
    ] = None,
    as_json: AsJson = False,
    allow_code: AllowCode = False,
    key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Compare an export with the artifact it came from, anew."""
    _permit(allow_code)
    from danlu import verify as verify_export
    from danlu.exporting.card import proof_in_words

    proof = verify_export(folder, against, rows, tolerance=tolerance).as_dict()
    if as_json:
        _print_json(proof)
    else:
        print(proof_in_words(proof))


MaxTokens = Annotated[int, typer.Option(min=1, help="Tokens of a text at most.")]
Temperature = Annotated[
    float,
    typer.Option(min=0, help="Below 1 likelier tokens come more often; 0: always the likeliest."),
]
TopK = Annotated[int | None, typer.Option(min=1, help="Only the k likeliest tokens.")]
TopP = Annotated[
    float,
    typer.Option(
        min=0, max=1, help="Only the likeliest tokens that together have this probability."
    ),
]
MinP = Annotated[
    float,
    typer.Option(min=0, max=1, help="Only tokens at least this share as likely as the likeliest."),
]
RepetitionPenalty = Annotated[
    float, typer.Option(min=0, help="Above 1 tokens that stand there already come less often.")
]
Stop = Annotated[
    list[str] | None,
    typer.Option(
        help="A text ends before the first of these (\\n: a new line); may be given several times."
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Another seed, other texts.")]


@app.command()
def generate(
    artifact: ArtifactFolder,
    prompt: Annotated[
        list[str] | None, typer.Option(help="What a text begins with; may be given several times.")
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A file with one prompt a line; - reads stdin."),
    ] = None,
    max_tokens: MaxTokens = 256,
    temperature: Temperature = 0.8,
    top_k: TopK = None,
    top_p: TopP = 1.0,
    min_p: MinP = 0.0,
    repetition_penalty: RepetitionPenalty = 1.0,
    stop: Stop = None,
    count: Annotated[
        int,
        typer.Option(
            min=1, max=100_000, help="Images to make, of each class where there are classes."
        ),
    ] = 16,
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", help="A class to make images of; may be given several times."),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="The PNG file that images are written to, side by side."),
    ] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
    key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Write texts with a language model, shown as they are written; or make images with a
    generator, as one PNG file."""
    from danlu import load
    from danlu.artifact.generate_images import can_generate_images
    from danlu.artifact.generation import TextGenerator, read_prompts

    model = load(artifact)
    if can_generate_images(model):
        _draw(model, count, classes, Path(out or "generated.png"), seed, as_json)
        return
    given = [*(prompt or ()), *(read_prompts(prompts) if prompts else ())]
    asked = given or [""]
    writer = TextGenerator(
        model, max_tokens=max_tokens, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p,
        repetition_penalty=repetition_penalty, stop=[each.replace("\\n", "\n") for each in stop or ()], seed=seed,
    )  # fmt: skip
    alone = len(asked) == 1 and not as_json
    if alone and writer.continues_prompt:
        print(asked[0], end="", flush=True)
    for _, piece in writer.write(asked):
        if alone:
            print(piece, end="", flush=True)
    if alone:
        print()
    for text in writer.texts:
        if text.unknown:
            _say(
                f"note: {text.unknown} tokens of the prompt {text.prompt[:40]!r} are none that the model has ever seen."
            )
    if as_json:
        _print_json([text.as_dict() for text in writer.texts])
    elif not alone:
        print(
            "\n----\n".join(
                (text.prompt if writer.continues_prompt else "") + text.text
                for text in writer.texts
            )
        )


def _draw(
    model: Any, count: int, classes: list[str] | None, out: Path, seed: int, as_json: bool
) -> None:
    """Images as one picture: a row for each class."""
    from danlu import picture
    from danlu.system.atomic_files import replace_file
    from danlu.system.image_grid import encode_png, image_grid

    made = picture(model, count, classes, seed)
    try:
        replace_file(out, encode_png(image_grid(made, count if model.task.classes else None)))
    except OSError as error:
        raise DanluError(f"cannot be written: {error.strerror or error}.", where=str(out)) from None
    if as_json:
        _print_json(
            {"out": str(out), "images": len(made), "classes": classes or list(model.task.classes)}
        )
    else:
        print(out)


@app.command()
def chat(
    artifact: ArtifactFolder,
    system: Annotated[
        str | None, typer.Option(help="What the model is told before the conversation.")
    ] = None,
    max_tokens: MaxTokens = 256,
    temperature: Temperature = 0.7,
    top_k: TopK = None,
    top_p: TopP = 1.0,
    min_p: MinP = 0.0,
    repetition_penalty: RepetitionPenalty = 1.0,
    seed: Seed = 0,
    key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Talk to a model that was tuned on conversations."""
    from danlu.artifact.generation import Chat

    talk = Chat(
        artifact, system, max_tokens=max_tokens, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p,
        repetition_penalty=repetition_penalty, seed=seed,
    )  # fmt: skip
    _say(
        "A line asks; /new begins anew; Ctrl-C stops an answer; Ctrl-D (or Ctrl-C at the prompt) ends."
    )
    with Interruption() as interruption:
        try:
            _converse(talk, interruption)
        except (EOFError, KeyboardInterrupt):
            if interruption.name not in ("", "SIGINT"):
                raise
            print()


def _converse(talk: Any, interruption: Interruption) -> None:
    """Answer line after line, to the end of the input."""
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    while True:
        said = input("> ") if terminal else sys.stdin.readline()
        if not terminal and not said:
            return
        if said.strip() == "/new":
            talk.restart()
        elif said.strip():
            try:
                for piece in talk.answer(said.strip()):
                    print(piece, end="", flush=True)
            except KeyboardInterrupt:
                if interruption.name != "SIGINT":
                    raise
                interruption.exit_code = 0  # the next Ctrl-C is a first one again
            print()


@app.command()
def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]MODEL ...",
            help="Artifacts, runs or exports; NAME: what to call it.",
            show_default=False,
        ),
    ],
    host: Annotated[
        str, typer.Option(help="The address; another than this machine's own needs --token-file.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port; 0: any that is free.")
    ] = 8000,
    token_file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A file with the token that requests must bear."),
    ] = None,
    tls_certificate: Annotated[
        str | None, typer.Option(metavar="FILE", help="Certificate chain (PEM); then HTTPS.")
    ] = None,
    tls_key: Annotated[
        str | None, typer.Option(metavar="FILE", help="The certificate's key (PEM).")
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(help="A name the server may be called by; several may be given."),
    ] = None,
    threads: Annotated[
        int, typer.Option(min=0, help="Threads of each model; 0: all cores but one.")
    ] = 0,
    longest_wait: Annotated[
        float, typer.Option(min=0.001, help="Seconds a request may be expected to wait, else 503.")
    ] = 0.3,
    deadline: Annotated[
        float, typer.Option(min=0.001, help="Seconds after which a request is answered 504.")
    ] = 30.0,
    most_rows: Annotated[int, typer.Option(min=1, help="Rows of a request.")] = 4096,
    most_body: Annotated[int, typer.Option(min=1024, help="Bytes of a request's body.")] = 16 << 20,
    drain_seconds: Annotated[
        float, typer.Option(min=0, help="Seconds that accepted requests get at SIGTERM.")
    ] = 30.0,
    on: Annotated[
        str | None, typer.Option(metavar="ray", help="Serve on a Ray cluster that runs already.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="The cluster's address; default: RAY_ADDRESS, else this machine's."),
    ] = None,
    replicas: Annotated[
        str, typer.Option(metavar="N|LOW:HIGH", help="Replicas on the cluster: a number, or 1:4.")
    ] = "1",
    key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Serve models over HTTP. SIGTERM drains, SIGHUP reads the models anew."""
    from danlu import serve as serve_models

    serve_models(
        models, host=host, port=port, token_file=token_file, tls_certificate=tls_certificate, tls_key=tls_key,
        allowed_hosts=allowed_host or [], threads=threads, longest_wait=longest_wait, deadline=deadline, most_rows=most_rows,
        most_body=most_body, drain_seconds=drain_seconds, on=on, address=address, replicas=replicas,
    )  # fmt: skip


NewKey = Annotated[
    str | None,
    typer.Option(
        "--new-key", metavar="FILE", help="Write a new key to this file, and do nothing else."
    ),
]
NewFolder = Annotated[
    str | None,
    typer.Option(metavar="FOLDER", help="Write there, and leave what there is as it is."),
]
Folder = Annotated[
    str | None,
    typer.Argument(
        metavar="FOLDER", help="An artifact, its run, or an export.", show_default=False
    ),
]


@app.command()
def encrypt(
    folder: Folder = None,
    out: NewFolder = None,
    new_key: NewKey = None,
    key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Encrypt an artifact or export: AES-256-GCM, with a key file or a passphrase."""
    from danlu import encrypt
    from danlu.system import encryption

    if new_key is not None:
        encryption.new_key(new_key)
        _say("Whoever loses this file loses what it encrypts; whoever has it can read it.")
        print(new_key)
        return
    found = encrypt(_given(folder), out, key_file=key_file, passphrase_file=passphrase_file)
    if out is None:
        _say(
            "note: the plain files were replaced, not wiped: a disk may keep their bytes until it needs the room."
        )
    if (found.parent / "checkpoints").is_dir():
        _say(
            f"note: the checkpoints of this run lie beside it in plain text: {found.parent / 'checkpoints'}"
        )
    print(found)


@app.command()
def decrypt(
    folder: Folder,
    out: NewFolder = None,
    key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Write an encrypted artifact or export in plain text again."""
    from danlu import decrypt

    print(decrypt(_given(folder), out, key_file=key_file, passphrase_file=passphrase_file))


@app.command()
def sign(
    folder: Folder = None,
    signing_key: Annotated[
        str | None, typer.Option(metavar="FILE", help="Your private Ed25519 key (PEM).")
    ] = None,
    new_key: NewKey = None,
    key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Sign an artifact or export: signature.json, over what every file holds."""
    from danlu import sign
    from danlu.system.signing import new_signing_key

    if new_key is not None:
        print(new_signing_key(new_key))
        return
    if signing_key is None:
        raise DanluError(
            "there is no key to sign with.",
            hint="--signing-key FILE; danlu sign --new-key FILE writes one, and FILE.pub",
        )
    print(sign(_given(folder), signing_key))


@app.command("verify-signature")
def verify_signature(
    folder: Folder,
    public_key: Annotated[
        str,
        typer.Option(
            metavar="FILE", help="The public Ed25519 key (PEM) of who should have signed."
        ),
    ],
    key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Check that an artifact or export is, file by file, what the owner of a key signed."""
    from danlu import verify_signature

    found = verify_signature(_given(folder), public_key)
    if as_json:
        _print_json({"folder": str(found.folder), "signer": found.signer, "files": found.files})
    else:
        print(f"{found.folder}: {found.files} files are as key {found.signer} signed them.")


def _given(folder: str | None) -> str:
    if folder is None:
        raise DanluError("there is no folder.", hint="name an artifact, its run, or an export")
    return folder


@app.command("verify-resume")
def verify_resume(
    recipe: RecipeFile,
    overrides: Overrides = None,
    kills: Annotated[
        int, typer.Option(min=1, max=1000, help="How many times the run is killed.")
    ] = 5,
    seed: Annotated[int, typer.Option(help="Seed of the moments of death.")] = 0,
    as_json: AsJson = False,
    allow_code: AllowCode = False,
) -> None:
    """Prove on your own recipe that a killed run ends in the same bytes as one never killed."""
    _permit(allow_code)
    from danlu import verify_resume as verify

    found = verify(recipe, overrides or (), kills=kills, seed=seed, say=_say)
    if as_json:
        _print_json(found.as_dict())
    else:
        print(found.sentence())
    if not found.equal:
        raise typer.Exit(1)


@app.command("list")
def list_parts(
    shelf: Annotated[
        str | None,
        typer.Argument(metavar="[SHELF]", help="A shelf; without it, all shelves are listed."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the parts of a shelf."""
    from danlu import registry as shelves

    if shelf is None:
        found = {name: shelves.names(name) for name in shelves.shelves()}
        _print_json(found) if as_json else print(
            "\n".join(f"{name}: {', '.join(parts)}" for name, parts in found.items())
        )
        return
    parts = {name: shelves.summary(shelf, name) for name in shelves.names(shelf)}
    width = max((len(name) for name in parts), default=0)
    _print_json(parts) if as_json else print(
        "\n".join(f"{name:<{width}}  {text}" for name, text in parts.items())
    )


@app.command()
def show(
    part: Annotated[
        str,
        typer.Argument(metavar="PART", help="A part, as NAME or SHELF/NAME.", show_default=False),
    ],
) -> None:
    """Show what a part does and every option it has."""
    from danlu import registry as shelves
    from danlu.errors import did_you_mean

    found = shelves.find(part)
    if not found:
        everything = [name for each in shelves.shelves() for name in shelves.names(each)]
        raise DanluError(
            f"there is no part {part!r}.",
            hint=did_you_mean(part.rpartition("/")[2], everything) or "danlu list",
        )
    print("\n\n".join(shelves.describe(shelf, name) for shelf, name in found))


@app.command()
def schema() -> None:
    """Print a JSON Schema of recipes, for completion in editors."""
    from danlu import recipe_schema

    _print_json(recipe_schema())


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Say what this machine has: cores, memory, instruction sets, GPU, versions."""
    from danlu.system import machine

    found = machine.examine()
    if as_json:
        _print_json(found)
        return
    for name, value in found.items():
        print(
            f"{name}: {', '.join(f'{key} {each}' for key, each in value.items()) if isinstance(value, dict) else value}"
        )


def main() -> None:
    """The entry point: runs a verb and turns every DanluError, and every signal that asks to stop,
    into one message and its exit code."""
    # Read by OpenMP when torch is imported, so not in placement: threads that wait for each other
    # sleep instead of spinning, else a machine that has other work to do makes two threads six
    # times as slow as one. The bits are the same.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    interruption = Interruption()
    try:
        with interruption:
            app(standalone_mode=True)
    except DanluError as error:
        _say(str(error))
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, SystemExit) as ended:
        if isinstance(ended, SystemExit) and ended.code != INTERRUPTED:
            raise
        _say(
            f"{interruption.name or 'interrupted'}: stopped."
        )  # by which signal, typer does not know
        sys.exit(interruption.exit_code or INTERRUPTED)
    except BrokenPipeError:  # `danlu predict ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except MemoryError:
        _say(
            "out of memory: this does not fit into this machine.\nhint: lower train.batch_size or train.micro_batch, or use less data"
        )
        sys.exit(2)
    except OSError as error:
        _say(f"{error.filename or 'the system'}: {error.strerror or error}")
        sys.exit(2)


if __name__ == "__main__":
    main()
