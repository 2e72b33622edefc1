"""Tables to arrays: what is an input, what is left out and why, and that nothing but the training rows is learnt from."""

from __future__ import annotations

import copy
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from danlu import registry
from danlu.data.preprocessing import Preprocessor
from danlu.errors import ArtifactError, DataError
from danlu.recipe import ColumnOptions, Data, Options, Part
from danlu.terms import MISSING_DATETIME, Column, Table
from make import part

ROWS = 203
BOTH = ("numbers", "categories")
NAN = float("nan")


class Nowhere(Options):
    """A source that these tests do not read."""


def data_of(**options: Any) -> Data:
    return Data(source=Part("csv", Nowhere()), target="label", **options)


def text_column(name: str, texts: list[str | None]) -> Column:
    pieces = [(each or "").encode() for each in texts]
    offsets = np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])]).astype(np.int64)
    missing = np.array([each is None for each in texts])
    return Column(
        name,
        "text",
        np.frombuffer(b"".join(pieces), dtype=np.uint8),
        offsets=offsets,
        missing=missing,
    )


def columns_of(rows: int = ROWS, seed: int = 0) -> dict[str, Column]:
    """One column of each kind, with gaps."""
    draw = np.random.default_rng(seed)
    lost = [draw.random(rows) < 0.1 for _ in range(4)]
    town = draw.integers(0, 6, rows)
    columns = [
        Column("age", "number", np.where(lost[0], NAN, draw.integers(17, 90, rows))),
        Column(
            "town",
            "category",
            np.where(lost[1], -1, town).astype(np.int32),
            categories=tuple("ABCDEF"),
        ),
        Column(
            "member", "boolean", np.where(lost[2], -1, draw.integers(0, 2, rows)).astype(np.int8)
        ),
        Column(
            "since",
            "datetime",
            np.where(lost[3], MISSING_DATETIME, draw.integers(10**14, 10**15, rows)),
        ),
        text_column(
            "note",
            [None if row % 9 == 0 else f"Note {row % 13} of 中文 {row % 5}" for row in range(rows)],
        ),
        Column("photo", "image", draw.integers(0, 256, (rows, 5, 3, 3)).astype(np.uint8)),
        Column(
            "spectrum",
            "number",
            draw.normal(0, 1, (rows, 7)).astype(np.float32),
            names=tuple("stuvwxy"),
        ),
        Column(
            "label",
            "category",
            draw.integers(0, 2, rows).astype(np.int32),
            categories=("no", "yes"),
        ),
    ]
    return {column.name: column for column in columns}


def table_of(*names: str, rows: int = ROWS, seed: int = 0, **more: Column) -> Table:
    """The named columns (all when none is named), those of `more`, and the label."""
    columns = columns_of(rows, seed)
    chosen = (
        {name: columns[name] for name in (names or columns) if name in columns}
        if names or not more
        else {}
    )
    return Table({**chosen, **more, "label": columns["label"]}, "made.csv")


def number(name: str, *values: float) -> Column:
    return Column(name, "number", np.array(values, dtype=np.float64))


def fit(
    table: Table, takes: tuple[str, ...] = BOTH, rows: np.ndarray | None = None, **options: Any
) -> Preprocessor:
    rows = np.arange(len(table), dtype=np.int64) if rows is None else rows
    return Preprocessor.fit(table, rows, data_of(**options), ["label"], takes)


def same_state(one: Preprocessor, other: Preprocessor) -> bool:
    (first, arrays), (second, others) = one.state(), other.state()
    return (
        json.dumps(first) == json.dumps(second)
        and list(arrays) == list(others)
        and all(arrays[key].tobytes() == others[key].tobytes() for key in arrays)
    )


def test_each_kind_of_column_becomes_what_a_model_takes() -> None:
    table = table_of()
    made = fit(table)
    arrays = made.apply(table)
    assert list(arrays) == list(made.inputs) == ["numbers", "categories", "image"]
    assert arrays["numbers"].dtype == np.float32 and arrays["numbers"].flags.c_contiguous
    assert (
        arrays["numbers"].shape == (ROWS, *made.inputs["numbers"].shape)
        and np.isfinite(arrays["numbers"]).all()
    )
    assert len(made.inputs["numbers"].names) == arrays["numbers"].shape[1]
    assert arrays["categories"].dtype == np.int64 and arrays["categories"].shape == (ROWS, 1)
    assert made.inputs["categories"].cardinalities == (7,) and made.inputs["categories"].names == (
        "town",
    )
    assert arrays["categories"].min() >= 0 and arrays["categories"].max() < 7
    assert arrays["image"].dtype == np.uint8 and made.inputs["image"].shape == (3, 5, 3)
    assert len(made.pixels["image"]["mean"]) == 3
    assert made.schema["photo"] == {"kind": "image", "shape": [5, 3, 3]}
    assert made.schema["spectrum"] == {"kind": "number", "width": 7, "names": list("stuvwxy")}
    assert made.schema["town"] == {"kind": "category", "categories": list("ABCDEF")}
    assert "label" not in made.schema


def test_numbers_are_standardised_by_the_training_rows() -> None:
    table = table_of("age")
    rows = np.arange(0, ROWS, 2)
    made = fit(table, rows=rows)
    age = table.columns["age"].values
    filled = np.where(np.isnan(age), np.nanmedian(age[rows]), age)
    expected = (filled - filled[rows].mean()) / filled[rows].std()
    np.testing.assert_allclose(made.apply(table)["numbers"][:, 0], expected, rtol=1e-6)  # float32
    assert made.inputs["numbers"].names == ("age", "age is missing")


def test_categories_become_numbers_where_the_model_takes_no_codes() -> None:
    made = fit(table_of("age", "town"), takes=("numbers",))
    assert list(made.inputs) == ["numbers"]
    assert [name for name in made.inputs["numbers"].names if name.startswith("town")] == [
        f"town={letter}" for letter in "ABCDEF"
    ]
    own = fit(
        table_of("town"),
        takes=("numbers",),
        transforms={"category": [part("transforms", "encode")]},
    )
    assert own.inputs["numbers"].names[0] == "town=(unknown)"


def test_a_chain_that_ends_in_words_is_encoded() -> None:
    made = fit(
        table_of("town"), transforms={"category": [part("transforms", "group_rare", minimum=30)]}
    )
    assert [step.name for step, _ in made.pipelines[0].steps] == ["group_rare", "encode"]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("takes", [BOTH, ("numbers",)])
def test_rows_outside_training_never_change_what_is_learnt(
    seed: int, takes: tuple[str, ...]
) -> None:
    """Every other row's values are replaced: by other values, gaps, and categories that training
    never saw, in another order."""
    table = table_of(seed=seed)
    draw = np.random.default_rng(seed)
    rows = np.sort(draw.choice(ROWS, 120, replace=False))
    others = np.setdiff1d(np.arange(ROWS), rows)
    changed = dict(table_of(seed=seed + 100).columns)
    for name, column in changed.items():
        if column.kind == "text":
            mine = [table.columns[name].text(row) for row in range(ROWS)]
            changed[name] = text_column(
                name, [each if row in rows else "entirely else" for row, each in enumerate(mine)]
            )
            continue
        values = column.values * 1000 if column.kind == "number" else column.values.copy()
        values[rows] = table.columns[name].values[rows]
        changed[name] = replace(column, values=values)
    town = changed["town"]
    values = np.where(town.values < 0, -1, 6 - town.values)
    values[others[:5]] = 0
    changed["town"] = replace(
        town, values=values.astype(np.int32), categories=("new", "F", "E", "D", "C", "B", "A")
    )
    assert same_state(fit(table, takes, rows), fit(Table(changed, "made.csv"), takes, rows))


def test_a_row_served_alone_gives_the_bytes_it_gives_among_others() -> None:
    table = table_of()
    for takes in (BOTH, ("numbers",)):
        made = fit(table, takes)
        whole = made.apply(table)
        for row in (0, 9, 77, ROWS - 1):
            alone, taken = (
                made.apply(table, np.array([row])),
                made.apply(table.take(np.array([row]))),
            )
            for name in whole:
                assert (
                    whole[name][row : row + 1].tobytes()
                    == alone[name].tobytes()
                    == taken[name].tobytes()
                )


def test_rows_are_the_same_however_they_are_cut_into_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = table_of(rows=1203)
    made = fit(table)
    whole = made.apply(table)
    monkeypatch.setattr("danlu.data.preprocessing._BLOCK", 1)  # blocks of 256 rows
    again, some = made.apply(table), made.apply(table, np.arange(1202, -1, -1))
    for name in whole:
        assert whole[name].tobytes() == again[name].tobytes()
        np.testing.assert_array_equal(some[name], whole[name][::-1])


def test_images_pass_through_without_a_copy() -> None:
    table = table_of("photo")
    assert fit(table).apply(table)["image"] is table.columns["photo"].values
    assert fit(table, transforms={"image": []}).pixels == {"image": {"mean": [0.0], "std": [1.0]}}


def test_fit_and_apply_do_not_change_the_table() -> None:
    table = table_of()
    before = copy.deepcopy(dict(table.columns))
    fit(table).apply(table)
    for name, column in table.columns.items():
        assert (
            column.values.tobytes() == before[name].values.tobytes()
            and column.categories == before[name].categories
        )


# --- what is left out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "why"),
    [
        (
            Column("x", "number", np.full(ROWS, 3.5)),
            r"all 203 training rows hold the same value \(3.5\)",
        ),
        (
            Column("x", "number", np.full((ROWS, 3), 3.5)),
            "all 203 training rows hold the same numbers",
        ),
        (Column("x", "number", np.full(ROWS, NAN)), "none of the 203 training rows holds a value"),
        (Column("x", "boolean", np.zeros(ROWS, dtype=np.int8)), r"the same value \(False\)"),
        (
            Column("x", "category", np.zeros(ROWS, dtype=np.int32), categories=("a", "b")),
            r"the same value \('a'\)",
        ),
        (
            Column("x", "category", np.full(ROWS, -1, dtype=np.int32), categories=()),
            "none of the 203",
        ),
        (Column("x", "datetime", np.full(ROWS, MISSING_DATETIME)), "none of the 203"),
        (text_column("x", ["same"] * ROWS), r"the same value \('same'\)"),
        (
            Column(
                "x",
                "category",
                np.arange(ROWS, dtype=np.int32),
                categories=tuple(map(str, range(ROWS))),
            ),
            "203 of its 203 values are distinct, so it looks like an identifier",
        ),
        (text_column("x", [f"a8f-{row}" for row in range(ROWS)]), "looks like an identifier"),
    ],
)
def test_a_column_with_nothing_to_teach_is_left_out_and_told(column: Column, why: str) -> None:
    table = table_of("age", x=column)
    made = fit(table)
    assert list(made.schema) == ["age"]
    notice = next(notice for notice in made.notices if notice.startswith("column x is left out: "))
    assert re.search(why, notice), notice


def test_a_constant_with_gaps_is_kept_since_the_gaps_may_tell() -> None:
    gaps = np.where(np.arange(ROWS) % 3 == 0, NAN, 1.5)
    made = fit(table_of("age", x=Column("x", "number", gaps)))
    assert "x is missing" in made.inputs["numbers"].names


def test_what_looks_like_an_identifier_is_kept_where_it_is_asked_for_or_is_prose() -> None:
    town = Column(
        "x", "category", np.arange(ROWS, dtype=np.int32), categories=tuple(map(str, range(ROWS)))
    )
    own = ColumnOptions(transforms=[part("transforms", "encode")])
    assert "x" in fit(table_of("age", x=town), columns={"x": own}).schema
    assert (
        "x"
        in fit(
            table_of("age", x=text_column("x", [f"row {row} is good" for row in range(ROWS)]))
        ).schema
    )
    assert (
        "x"
        in fit(table_of("age", x=text_column("x", [f"很好{row}" for row in range(ROWS)]))).schema
    )


def test_columns_that_the_recipe_drops_are_no_inputs() -> None:
    table = table_of("age", "town", "member")
    split = part("splits", "grouped", column="member")
    made = fit(table, columns={"town": ColumnOptions(use=False)}, split=split)
    assert list(made.schema) == ["age"]
    assert any(
        "town is left out: data.columns says use: false" in notice for notice in made.notices
    )
    assert any(
        "member is left out: the split grouped goes by it" in notice for notice in made.notices
    )


def test_a_model_of_images_alone_is_told_which_columns_it_leaves_out() -> None:
    made = fit(table_of("age", "photo"), takes=("image",))
    assert (
        list(made.inputs) == ["image"]
        and "age is left out: it holds number, and the model takes only image" in made.notices[0]
    )
    assert list(fit(table_of("age", "photo")).inputs) == ["numbers", "image"]


# --- what is refused ----------------------------------------------------------------------------------------------------


def test_nothing_left_to_learn_from_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"no column is left to learn from.*\n.*hold the same value"
    ):
        fit(table_of(x=Column("x", "number", np.ones(ROWS))))


def test_several_images_are_refused() -> None:
    with pytest.raises(DataError, match=r"2 image columns \(photo, x\).*\n.*x.use to false"):
        fit(table_of("photo", x=replace(columns_of()["photo"], name="x")))


def test_a_name_that_is_no_column_is_refused() -> None:
    with pytest.raises(DataError, match=r"data.columns names agee.*\n.*did you mean age"):
        fit(table_of("age"), columns={"agee": ColumnOptions(use=False)})


@pytest.mark.parametrize(
    ("name", "chain", "said"),
    [
        ("town", ["scale"], "scale takes number, and the column holds category at this point"),
        (
            "town",
            ["one_hot", "encode"],
            r"encode takes category, and the column holds number at this point \(it was category before\)",
        ),
        ("member", ["impute"], r"the transforms \[impute\] end in boolean.*\n.*boolean_to_number"),
        ("since", [], r"the transforms \[\] end in datetime.*\n.*date_parts"),
    ],
)
def test_a_chain_that_cannot_work_is_refused_by_the_columns_name(
    name: str, chain: list[str], said: str
) -> None:
    own = ColumnOptions(transforms=[part("transforms", each) for each in chain])
    with pytest.raises(DataError, match=rf"column {name}: .*{said}"):
        fit(table_of("age", name), columns={name: own})


@pytest.mark.parametrize("where", ["fit", "apply"])
def test_an_infinite_number_is_named_by_row_and_column(where: str) -> None:
    good, bad = number("x", *range(ROWS)), number("x", *range(ROWS - 1), -np.inf)
    with pytest.raises(DataError, match=r"made.csv row 203, column x: the value is infinite"):
        if where == "fit":
            fit(table_of("age", x=bad))
        else:
            fit(table_of("age", x=good)).apply(table_of("age", x=bad), np.array([3, ROWS - 1]))


def test_a_number_too_large_and_a_gap_that_stays_are_named_by_row_and_column() -> None:
    made = fit(
        table_of("age", "spectrum", x=number("x", *range(ROWS))),
        columns={"x": ColumnOptions(transforms=[])},
    )
    for value, said in (
        (1e300, "too large for a float32"),
        (NAN, "missing and its transforms leave it so"),
    ):
        values = list(range(ROWS))
        values[7] = value  # type: ignore[call-overload]
        with pytest.raises(DataError, match=f"made.csv row 8, column x: the value is {said}"):
            made.apply(table_of("age", "spectrum", x=number("x", *values)))


def test_rows_to_predict_must_hold_the_columns_of_training() -> None:
    made = fit(table_of("age", "town", "photo", "spectrum"))
    columns = columns_of()
    with pytest.raises(
        DataError,
        match=r"the column age, an input of the model, is missing.*\n.*did you mean Age",
    ):
        made.apply(Table({"Age": columns["age"]}, "new.csv"))
    with pytest.raises(
        DataError,
        match=r"new.csv, column age: the column holds category here and held number in training",
    ):
        made.apply(Table({**columns, "age": replace(columns["town"], name="age")}, "new.csv"))
    with pytest.raises(
        DataError,
        match=r"column photo: the column holds image of 3x5x3 here and of 5x3x3 in training",
    ):
        made.apply(
            Table(
                {
                    **columns,
                    "photo": replace(
                        columns["photo"], values=columns["photo"].values.swapaxes(1, 2)
                    ),
                },
                "new.csv",
            )
        )
    with pytest.raises(
        DataError, match=r"holds number of single numbers here and of 7 in training"
    ):
        made.apply(
            Table({**columns, "spectrum": replace(columns["age"], name="spectrum")}, "new.csv")
        )


# --- what travels in an artifact ----------------------------------------------------------------------------------------


def stored(made: Preprocessor) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    state, arrays = made.state()
    return json.loads(json.dumps(state, allow_nan=False)), {
        name: array.copy() for name, array in arrays.items()
    }


@pytest.mark.parametrize("takes", [BOTH, ("numbers",)])
def test_what_is_restored_gives_the_same_bytes(takes: tuple[str, ...]) -> None:
    table = table_of()
    made = fit(table, takes)
    again = Preprocessor.restore(*stored(made))
    assert (again.inputs, again.schema, again.pixels, again.notices) == (
        made.inputs,
        made.schema,
        made.pixels,
        made.notices,
    )
    assert same_state(made, again)
    one, other = made.apply(table), again.apply(table)
    assert all(one[name].tobytes() == other[name].tobytes() for name in one)


NO_HOLES = ("category", "image", "sequence", "frames")  # kinds a chain may end in as they are


def ragged(count: int) -> dict[str, Column]:
    """A column of sequences, one of frames, one of recordings."""
    offsets = np.arange(count + 1, dtype=np.int64) * 3
    codes = np.arange(3 * count, dtype=np.int32) % 2
    frames = np.arange(6 * count, dtype=np.float32).reshape(-1, 2) % 7
    samples = (1000 * np.sin(np.arange(900 * count))).astype(np.int16)
    return {
        "words": Column("words", "sequence", codes, categories=("a", "b"), offsets=offsets),
        "frames": Column("frames", "frames", frames, offsets=offsets, names=("u", "v")),
        "sound": Column("sound", "audio", samples, offsets=offsets * 300, rate=8000),
    }


def test_every_transform_can_be_stored() -> None:
    columns, label = columns_of(), columns_of()["label"]
    columns |= ragged(len(label))
    ends = {"boolean": "boolean_to_number", "datetime": "date_parts"}
    for name in registry.names("transforms"):
        module = registry.take("transforms", name)
        for kind in module.TAKES:
            column = next(replace(each, name="x") for each in columns.values() if each.kind == kind)
            becomes = module.apply(
                module.Config(), module.fit(module.Config(), column), column
            ).kind
            chain = [
                name,
                *([ends[becomes]] if becomes in ends else []),
                *([] if becomes in NO_HOLES else ["impute"]),
            ]
            own = ColumnOptions(transforms=[part("transforms", each) for each in chain])
            takes = ("numbers", "categories", "tokens", "frames")
            made = fit(
                Table({"x": column, "label": label}, "made.csv"), columns={"x": own}, takes=takes
            )
            assert same_state(made, Preprocessor.restore(*stored(made)))


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside plain data, the containers too."""
    found = [path] if path else []
    inside = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, each in inside:
        found += leaves(each, (*path, key))
    return found


@pytest.mark.parametrize("wrong", ["gone", None, -7, "word", [[1]], {"a": 1}])
def test_a_damaged_state_is_refused_or_harmless_and_never_a_traceback(wrong: Any) -> None:
    table = table_of(rows=40)
    made = fit(table, transforms={"text": [part("transforms", "hash_words", features=5)]})
    state, arrays = stored(made)
    whole = made.apply(table)
    for path in leaves(state):
        damaged = copy.deepcopy(state)
        inside: Any = damaged
        for key in path[:-1]:
            inside = inside[key]
        if wrong == "gone":
            del inside[path[-1]]
        else:
            inside[path[-1]] = wrong
        try:
            restored = Preprocessor.restore(damaged, arrays)
        except ArtifactError:
            continue
        assert {name: each.shape for name, each in restored.inputs.items()} == {
            name: each.shape for name, each in made.inputs.items()
        }, path
        try:
            result = restored.apply(table)
        except DataError:
            continue
        assert {name: each.shape for name, each in result.items()} == {
            name: each.shape for name, each in whole.items()
        }, path


def test_damaged_arrays_are_refused() -> None:
    state, arrays = stored(fit(table_of()))
    for name, array in arrays.items():
        for damaged in (
            array[:0],
            array[None],
            array.astype(np.float16),
            array.astype("S8"),
            np.full_like(array, 1) * np.inf,
        ):
            with pytest.raises(ArtifactError, match=r"cannot be read"):
                Preprocessor.restore(state, {**arrays, name: damaged})
        with pytest.raises(ArtifactError):
            Preprocessor.restore(
                state, {key: value for key, value in arrays.items() if key != name}
            )
    with pytest.raises(ArtifactError):
        Preprocessor.restore({}, {})


# --- real tables --------------------------------------------------------------------------------------------------------

SHARED = Path(os.environ.get("DANLU_DATA", Path(__file__).parents[3] / "shared" / "data"))
ADULT = [
    "age",
    "workclass",
    "fnlwgt",
    "education",
    "education_num",
    "marital",
    "occupation",
    "relationship",
    "race",
    "sex",
    "gain",
    "loss",
    "hours",
    "country",
    "label",
]


def adult() -> Table:
    """The training file of Adult, read with pyarrow."""
    import pyarrow as pa
    from pyarrow import csv

    path = SHARED / "adult" / "adult.data"
    if not path.is_file():
        pytest.skip(f"needs {path} (set DANLU_DATA)")
    read = csv.read_csv(
        path,
        read_options=csv.ReadOptions(column_names=ADULT),
        convert_options=csv.ConvertOptions(null_values=[" ?"], strings_can_be_null=True),
    )
    columns = {}
    for name in ADULT:
        cells = read[name].combine_chunks()
        if pa.types.is_string(cells.type):
            coded = cells.dictionary_encode()
            codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
            columns[name] = Column(
                name,
                "category",
                codes,
                categories=tuple(word.strip() for word in coded.dictionary.to_pylist()),
            )
        else:
            columns[name] = Column(
                name, "number", cells.cast("float64").to_numpy(zero_copy_only=False)
            )
    return Table(columns, "adult.data")


def test_adult_is_fitted_and_applied() -> None:
    table = adult()
    made = fit(table, rows=np.arange(0, len(table), 2))
    arrays = made.apply(table)
    assert arrays["numbers"].shape == (32561, 6) and arrays["categories"].shape == (32561, 8)
    assert (arrays["categories"].max(axis=0) < made.inputs["categories"].cardinalities).all()
