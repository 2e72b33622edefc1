"""The promise of the shelf transforms, over every part on it, every choice among its options and every kind it takes."""

from __future__ import annotations

import copy
import json
import types
import typing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from danlu import registry
from danlu.errors import DataError
from danlu.recipe import Options
from danlu.terms import MISSING_DATETIME, PADDING, Column, Kind

ROWS = 131
WORDS = ["ash", "oak", "yew", "elm", "fir", "larch of the north", "银杏", "(rare)"]


def column_of(
    kind: Kind, rows: int = ROWS, seed: int = 0, gaps: float = 0.2, constant: bool = False
) -> Column:
    """A column of random values, some missing; all rows alike where `constant`."""
    draw = np.random.default_rng(seed)
    lost = draw.random(rows) < gaps
    pick = np.zeros(rows, dtype=np.int64) if constant else draw.integers(0, 7, rows)
    if kind == "number":
        values = (
            np.full(rows, 3.7)
            if constant
            else np.exp(draw.normal(2, 3, rows)) * draw.choice([-1, 1], rows)
        )
        return Column("x", kind, np.where(lost, np.nan, values))
    if kind == "category":
        return Column("x", kind, np.where(lost, -1, pick).astype(np.int32), categories=tuple(WORDS))
    if kind == "boolean":
        return Column("x", kind, np.where(lost, -1, pick % 2).astype(np.int8))
    if kind == "datetime":
        moments = 10**15 + pick * 40 * 86_400_000_000 + pick * 3_723_000_001
        return Column("x", kind, np.where(lost, MISSING_DATETIME, moments).astype(np.int64))
    if kind == "text":
        texts = [
            ("" if gone else f"{WORDS[a]}, {WORDS[b]}!").encode()
            for gone, a, b in zip(lost, pick, np.roll(pick, 3))
        ]
        offsets = np.concatenate([[0], np.cumsum([len(text) for text in texts])]).astype(np.int64)
        return Column(
            "x", kind, np.frombuffer(b"".join(texts), dtype=np.uint8), offsets=offsets, missing=lost
        )
    if kind in ("sequence", "frames", "audio"):
        return _ragged(kind, lost, pick, draw, constant)
    images = np.full((rows, 5, 3, 3), 7) if constant else draw.integers(0, 256, (rows, 5, 3, 3))
    return Column("x", kind, images.astype(np.uint8))


def _ragged(
    kind: Kind, lost: np.ndarray, pick: np.ndarray, draw: np.random.Generator, constant: bool
) -> Column:
    """Rows of several lengths; a missing one has none."""
    sizes = np.where(lost, 0, 3 if constant else draw.integers(1, 6, len(lost))) * (
        400 if kind == "audio" else 1
    )
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    total = int(offsets[-1])
    if kind == "sequence":
        codes = np.repeat(pick, sizes) if constant else draw.integers(-1, len(WORDS), total)
        return Column(
            "x",
            kind,
            codes.astype(np.int32),
            categories=tuple(WORDS),
            offsets=offsets,
            missing=lost,
        )
    if kind == "frames":
        values = np.full((total, 3), 2.5) if constant else draw.normal(3, 100, (total, 3))
        return Column(
            "x",
            kind,
            values.astype(np.float32),
            offsets=offsets,
            missing=lost,
            names=("a", "b", "c"),
        )
    values = np.full(total, 900) if constant else draw.normal(0, 3000, total)
    return Column("x", kind, values.astype(np.int16), offsets=offsets, missing=lost, rate=8000)


def of_row(column: Column, row: int) -> bytes:
    """What one row holds."""
    if column.offsets is None:
        return column.values[row : row + 1].tobytes()
    return column.values[column.offsets[row] : column.offsets[row + 1]].tobytes()


def wide(rows: int = ROWS, seed: int = 0, gaps: float = 0.2, dtype: str = "float32") -> Column:
    """A number column of 19 features, one of them constant, one a flag, one always missing."""
    draw = np.random.default_rng(seed)
    values = draw.normal(5, 100, (rows, 19)) ** 3
    values[:, 4], values[:, 5] = 2.5, draw.integers(0, 2, rows)
    values[draw.random((rows, 19)) < gaps] = np.nan
    values[:, 6] = np.nan
    return Column(
        "x", "number", values.astype(dtype), names=tuple(f"f{place}" for place in range(19))
    )


def choices(config: type[Options]) -> list[dict[str, Any]]:
    """{} and every single choice of every option that is a choice, as far as the part accepts it
    alone."""
    found: list[dict[str, Any]] = [{}]
    for name, field in config.model_fields.items():
        members = (
            typing.get_args(field.annotation)
            if isinstance(field.annotation, types.UnionType)
            else (field.annotation,)
        )
        for member in members:
            if typing.get_origin(member) is typing.Literal:
                found += [{name: value} for value in typing.get_args(member)]
            elif member is bool:
                found += [{name: True}, {name: False}]
    accepted = []
    for options in found:
        try:
            config(**options)
        except ValidationError:
            continue
        accepted.append(options)
    return accepted


def cases() -> list[Any]:
    made = []
    for name in registry.names("transforms"):
        module = registry.take("transforms", name)
        for options in choices(module.Config):
            said = ",".join(f"{key}={value}" for key, value in options.items())
            made += [
                pytest.param(module, module.Config(**options), kind, id=f"{name}-{kind}-{said}")
                for kind in module.TAKES
            ]
    return made


def fitted(module: Any, config: Options, column: Column) -> dict[str, Any]:
    """The state, or the test skipped where this part refuses this kind with such an option (the
    median of words)."""
    try:
        return module.fit(config, column)
    except DataError as error:
        assert error.problem.where and error.problem.hint, (
            "a refusal names the column and the remedy"
        )
        pytest.skip(f"refused: {error.problem.message}")


def same_bytes(one: Column, other: Column) -> bool:
    return (
        one.kind == other.kind
        and one.values.dtype == other.values.dtype
        and one.values.shape == other.values.shape
        and one.values.tobytes() == other.values.tobytes()
        and one.names == other.names
        and one.categories == other.categories
    )


def same_state(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return list(one) == list(other) and all(
        value.tobytes() == other[key].tobytes()
        if isinstance(value, np.ndarray)
        else value == other[key]
        for key, value in one.items()
    )


@pytest.mark.parametrize(("module", "config", "kind"), cases())
def test_a_state_is_json_and_finite_arrays(module: Any, config: Options, kind: Kind) -> None:
    state = fitted(module, config, column_of(kind))
    plain = {key: value for key, value in state.items() if not isinstance(value, np.ndarray)}
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    for value in state.values():
        assert not isinstance(value, np.ndarray) or (
            value.dtype.kind in "iuf" and np.isfinite(value).all()
        )


@pytest.mark.parametrize(("module", "config", "kind"), cases())
def test_the_result_has_a_row_for_each_row_and_is_a_proper_column(
    module: Any, config: Options, kind: Kind
) -> None:
    column = column_of(kind)
    result = module.apply(config, fitted(module, config, column), column)
    assert len(result) == ROWS and result.name == "x"
    if result.kind == "number":
        assert result.values.dtype in (np.float32, np.float64) and result.values.ndim <= 2
        assert len(result.names) in (0, 1 if result.values.ndim == 1 else result.values.shape[1])
        assert len(set(result.names)) == len(result.names)
    if result.kind == "category":
        assert result.values.dtype == np.int32
        assert result.values.min() >= -1 and result.values.max() < len(result.categories)
        assert len(set(result.categories)) == len(result.categories)
    if result.kind == "sequence":
        codes = result.values.reshape(len(result.values), -1)
        assert result.values.dtype.kind in "iu" and codes.shape[1] == len(result.cardinalities)
        assert (codes >= 0).all() and (codes < result.cardinalities).all()
        assert (codes[:, 0] != PADDING).all(), "padding stands only after a row's end"
    if result.kind == "frames":
        assert result.values.dtype == np.float32 and np.isfinite(result.values).all()
    if result.offsets is not None:
        assert len(result.offsets) == ROWS + 1 and result.offsets[-1] == len(result.values)


@pytest.mark.parametrize(("module", "config", "kind"), cases())
def test_neither_fit_nor_apply_changes_what_it_is_given(
    module: Any, config: Options, kind: Kind
) -> None:
    column = column_of(kind)
    before = copy.deepcopy(column)
    state = fitted(module, config, column)
    kept = copy.deepcopy(state)
    module.apply(config, state, column)
    assert same_bytes(column, before) and same_state(state, kept)


@pytest.mark.parametrize(("module", "config", "kind"), cases())
def test_a_row_alone_gives_the_bytes_it_gives_among_others(
    module: Any, config: Options, kind: Kind
) -> None:
    column = column_of(kind)
    state = fitted(module, config, column)
    whole = module.apply(config, state, column)
    for row in (0, 1, 64, ROWS - 1):
        alone = module.apply(config, state, column.take(np.array([row])))
        assert of_row(alone, 0) == of_row(whole, row)
    some = np.array([77, 3, 130, 3, 18])
    few = module.apply(config, state, column.take(some))
    assert [of_row(few, place) for place in range(len(some))] == [
        of_row(whole, row) for row in some
    ]


@pytest.mark.parametrize(("module", "config", "kind"), cases())
def test_the_same_rows_give_the_same_state(module: Any, config: Options, kind: Kind) -> None:
    column = column_of(kind)
    assert same_state(fitted(module, config, column), fitted(module, config, copy.deepcopy(column)))


@pytest.mark.parametrize("rows", [1, 2, 7])
@pytest.mark.parametrize(("module", "config", "kind"), cases())
def test_few_rows_and_columns_without_spread_are_fitted(
    module: Any, config: Options, kind: Kind, rows: int
) -> None:
    for column in (column_of(kind, rows, gaps=0), column_of(kind, rows, gaps=0, constant=True)):
        result = module.apply(config, fitted(module, config, column), column)
        assert len(result) == rows
        assert result.kind != "number" or np.isfinite(result.values).all()


@pytest.mark.parametrize(("module", "config", "kind"), cases())
def test_a_column_without_a_value_is_fitted_and_takes_values_later(
    module: Any, config: Options, kind: Kind
) -> None:
    state = fitted(module, config, column_of(kind, gaps=1.1))
    for column in (column_of(kind, gaps=1.1), column_of(kind, 9, seed=5)):
        assert len(module.apply(config, state, column)) == len(column)


@pytest.mark.parametrize(("module", "config", "kind"), cases())
def test_values_that_training_never_saw_are_allowed(
    module: Any, config: Options, kind: Kind
) -> None:
    state = fitted(module, config, column_of(kind, gaps=0, constant=True))
    result = module.apply(config, state, column_of(kind, 33, seed=9))
    assert len(result) == 33
    assert result.kind != "number" or not np.isinf(result.values).any()


@pytest.mark.parametrize(
    ("module", "config", "kind"), [case for case in cases() if case.values[2] == "category"]
)
def test_a_category_is_known_by_its_text_whatever_its_code(
    module: Any, config: Options, kind: Kind
) -> None:
    column = column_of(kind, gaps=0.1)
    order = np.random.default_rng(3).permutation(len(WORDS))
    code = np.append(np.argsort(order), -1).astype(np.int32)
    renamed = replace(
        column,
        values=code[column.values],
        categories=(*(WORDS[place] for place in order), "never seen"),
    )
    state = fitted(module, config, column)
    assert same_state(state, fitted(module, config, renamed))
    one, other = (module.apply(config, state, each) for each in (column, renamed))
    if one.kind == "category":
        assert [one.python_value(row) for row in range(ROWS)] == [
            other.python_value(row) for row in range(ROWS)
        ]
    else:
        assert same_bytes(one, other)


@pytest.mark.parametrize(
    ("module", "config", "kind"), [case for case in cases() if case.values[2] == "number"]
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_each_feature_of_a_wide_column_is_treated_as_a_column_of_its_own(
    module: Any, config: Options, kind: Kind, dtype: str
) -> None:
    if set(module.apply(config, fitted(module, config, column_of(kind)), column_of(kind)).names) - {
        "",
        "x",
    }:
        pytest.skip("one number becomes several features, each with a name of its own")
    column = wide(dtype=dtype)
    state = fitted(module, config, column)
    result = module.apply(config, state, column)
    assert result.values.shape[0] == ROWS and len(result.names) == result.values.shape[1]
    for place in (0, 3, 4, 5, 6, 18):
        single = Column(f"f{place}", "number", np.ascontiguousarray(column.values[:, place]))
        alone = module.apply(config, fitted(module, config, single), single).values.reshape(
            ROWS, -1
        )[:, 0]
        np.testing.assert_array_equal(alone, result.values[:, result.names.index(f"f{place}")])


def test_the_shelf_holds_what_a_chain_can_end_with() -> None:
    ends = set()
    for name in registry.names("transforms"):
        module = registry.take("transforms", name)
        for kind in module.TAKES:
            column = column_of(kind, gaps=0)
            ends.add(
                (
                    kind,
                    module.apply(module.Config(), module.fit(module.Config(), column), column).kind,
                )
            )
    for kind in ("boolean", "datetime", "text", "category"):
        assert (kind, "number") in ends, kind
    assert {("category", "category"), ("image", "image"), ("number", "number")} <= ends
    assert {("text", "sequence"), ("sequence", "sequence"), ("audio", "frames")} <= ends


# --- what each part gives -----------------------------------------------------------------------------------------------


def run(name: str, column: Column, other: Column | None = None, **options: Any) -> Column:
    """`other` (or the column itself) after the transform was fitted to `column`."""
    module = registry.take("transforms", name)
    config = module.Config(**options)
    return module.apply(config, module.fit(config, column), column if other is None else other)


def number(*values: float, name: str = "x") -> Column:
    return Column(name, "number", np.array(values, dtype=np.float64))


def words(*values: str | None, categories: tuple[str, ...] = ()) -> Column:
    known = categories or tuple(dict.fromkeys(value for value in values if value is not None))
    return Column(
        "x",
        "category",
        np.array([-1 if v is None else known.index(v) for v in values], dtype=np.int32),
        categories=known,
    )


def text(*values: str) -> Column:
    data = [value.encode() for value in values]
    offsets = np.concatenate([[0], np.cumsum([len(each) for each in data])]).astype(np.int64)
    return Column("x", "text", np.frombuffer(b"".join(data), dtype=np.uint8), offsets=offsets)


def moments(*values: str) -> Column:
    return Column("x", "datetime", np.array(values, dtype="M8[us]").astype(np.int64))


NAN = float("nan")


@pytest.mark.parametrize(
    ("strategy", "fill"), [("mean", 4.0), ("median", 2.5), ("most_frequent", 2.0), ("auto", 2.5)]
)
def test_impute_fills_gaps_of_numbers(strategy: str, fill: float) -> None:
    result = run("impute", number(2, NAN, 3, 2, 9), strategy=strategy, indicator=False)
    assert result.values.tolist() == [2, fill, 3, 2, 9]


def test_impute_tells_of_gaps_only_where_training_had_some() -> None:
    told = run("impute", number(2, NAN, 3))
    assert told.names == ("x", "x is missing") and told.values[:, 1].tolist() == [0, 1, 0]
    assert run("impute", number(2, 5, 3), number(NAN, 1)).values.tolist() == [3, 1]
    assert run("impute", number(2, 5, 3), indicator=True).names == ("x", "x is missing")


def test_impute_tells_once_of_features_that_are_missing_together() -> None:
    values = np.array([[1, 2, 3], [NAN, NAN, 4], [5, 6, NAN]])
    result = run("impute", Column("x", "number", values, names=("a", "b", "c")))
    assert result.names == ("a", "b", "c", "a is missing", "c is missing")
    dates = run("impute", run("date_parts", moments("2024-01-31", "NaT", "2023-05-01")))
    assert [name for name in dates.names if "missing" in name] == ["x is missing"]


def test_impute_fills_categories_booleans_and_dates() -> None:
    assert run("impute", words("b", "a", None, "b")).python_value(2) == "b"
    assert (
        run("impute", words("b", "a", None), strategy="constant", value="none given").python_value(
            2
        )
        == "none given"
    )
    assert run(
        "impute", Column("x", "boolean", np.array([1, -1, 1, 0], dtype=np.int8))
    ).values.tolist() == [1, 1, 1, 0]
    dates = moments("2024-01-01", "NaT", "2024-01-03", "2024-01-09")
    assert run("impute", dates).python_value(1) == "2024-01-03T00:00:00.000000"
    assert (
        run("impute", dates, strategy="constant", value="2020-02-29").python_value(1)
        == "2020-02-29T00:00:00.000000"
    )


@pytest.mark.parametrize(
    ("column", "options"),
    [
        (words("a", None), {"strategy": "median"}),
        (number(1, NAN), {"strategy": "constant", "value": "none"}),
        (moments("2024-01-01"), {"strategy": "constant", "value": "soon"}),
        (
            Column("x", "boolean", np.array([1], dtype=np.int8)),
            {"strategy": "constant", "value": 3.0},
        ),
    ],
)
def test_impute_refuses_what_cannot_fill_the_column(
    column: Column, options: dict[str, Any]
) -> None:
    with pytest.raises(DataError, match="column x"):
        run("impute", column, **options)


def test_scale_agrees_with_scikit_learn() -> None:
    from sklearn import preprocessing

    values = np.exp(np.random.default_rng(1).normal(0, 2, 500))
    peers = {
        "standard": preprocessing.StandardScaler(),
        "min_max": preprocessing.MinMaxScaler(),
        "robust": preprocessing.RobustScaler(),
    }
    for by, peer in peers.items():
        expected = peer.fit_transform(values[:, None])[:, 0]
        # 1e-12: the same formula in float64, sums in another order
        np.testing.assert_allclose(
            run("scale", number(*values), by=by).values, expected, rtol=1e-12, atol=1e-12
        )
    uniform = preprocessing.QuantileTransformer(n_quantiles=100).fit_transform(values[:, None])[
        :, 0
    ]
    ours = run(
        "scale", number(*values), by="quantile", distribution="uniform", quantiles=100
    ).values
    np.testing.assert_allclose(
        ours, uniform, atol=1e-9
    )  # 1e-9: knots are interpolated in another order


def test_the_quantile_scale_makes_any_shape_normal() -> None:
    values = np.exp(np.random.default_rng(1).normal(0, 4, 5001))
    result = run("scale", number(*values), number(*values, -1e30, 1e30), by="quantile").values
    assert (
        abs(result[:-2].mean()) < 0.01 and abs(result[:-2].std() - 1) < 0.02
    )  # 1,000 knots stand for 5,001 rows
    assert result[-2] == result[:-2].min() and result[-1] == result[:-2].max()
    assert (np.argsort(result[:-2], kind="stable") == np.argsort(values, kind="stable")).all()


def test_the_quantile_scale_puts_a_value_of_many_rows_in_the_middle_of_their_ranks() -> None:
    result = run("scale", number(0, *[1.0] * 8, 2), by="quantile", distribution="uniform")
    np.testing.assert_allclose(result.values[[0, 1, 9]], [0, 0.5, 1], rtol=1e-12)


def test_scale_survives_huge_values_and_leaves_flags_alone() -> None:
    huge = run("scale", number(1e200, 2e200, 3e200)).values
    np.testing.assert_allclose(huge, [-np.sqrt(1.5), 0, np.sqrt(1.5)], rtol=1e-12)
    flags = number(*([0.0] * 99), 1.0)
    assert run("scale", flags).values.max() == 1
    assert run("scale", flags, keep_flags=False).values.max() > 9
    assert run("scale", number(0.1, 0.1, 0.1), number(0.1, 0.3)).values.tolist() == [
        0,
        pytest.approx(0.2),
    ]


def test_clip_outliers_draws_values_in() -> None:
    column = number(*range(101), NAN)
    result = run("clip_outliers", column, lower=0.1, upper=0.95).values
    assert (np.nanmin(result), np.nanmax(result), np.isnan(result).sum()) == (10, 95, 1)
    assert (
        run("clip_outliers", number(1, 2, 3, 4, 1000), by="interquartile_range").values.max() == 7
    )
    assert run("clip_outliers", number(0, 0, 0, 0, 9), by="interquartile_range").values.max() == 9


def test_log_draws_long_tails_together_and_leaves_even_features_alone() -> None:
    tail = [1.0] * 50 + [1e6, -3.0]
    np.testing.assert_allclose(
        run("log", number(*tail)).values[-2:], [np.log(1e6 + 1), -np.log(4)], rtol=1e-15
    )
    assert run("log", number(*range(50))).values.tolist() == list(range(50))
    assert run("log", number(*range(50)), when="always").values[49] == np.log1p(49)


def test_group_rare_keeps_what_is_seen_often_enough() -> None:
    column = words(*["a"] * 5, *["b"] * 2, "c", None)
    result = run("group_rare", column, words("a", "b", "c", "new", None), minimum=3)
    assert [result.python_value(row) for row in range(5)] == [
        "a",
        "(rare)",
        "(rare)",
        "(rare)",
        None,
    ]
    none_rare = run("group_rare", words(*["a"] * 5, *["b"] * 5), words("a", "new"), minimum=3)
    assert [none_rare.python_value(row) for row in range(2)] == ["a", None]
    clash = run("group_rare", words(*["(rare)"] * 5, "b"), minimum=3)
    assert [clash.python_value(row) for row in (0, 5)] == ["(rare)", "((rare))"]


def test_encode_gives_zero_to_the_unknown_and_the_missing() -> None:
    result = run("encode", words("b", "a", "b"), words("new", "a", None, "b"))
    assert result.values.tolist() == [0, 1, 0, 2] and result.categories == ("(unknown)", "a", "b")


def test_one_hot_gives_nothing_to_the_unknown_and_the_missing() -> None:
    result = run("one_hot", words("b", "a", "b"), words("new", "a", None, "b"))
    assert result.values.tolist() == [[0, 0], [1, 0], [0, 0], [0, 1]] and result.names == (
        "x=a",
        "x=b",
    )
    assert run("one_hot", words("c", "b", "a", "c", "b"), maximum=2).names == ("x=b", "x=c")


def test_ordinal_goes_by_the_order_given() -> None:
    column = words("large", "small", None)
    result = run(
        "ordinal", column, words("small", "large", None, "huge"), order=["small", "medium", "large"]
    )
    np.testing.assert_array_equal(result.values, [0, 2, NAN, NAN])
    with pytest.raises(DataError, match="'large' is not in the order"):
        run("ordinal", column, order=["small"])


def test_boolean_to_number_keeps_gaps() -> None:
    column = Column("x", "boolean", np.array([1, 0, -1], dtype=np.int8))
    np.testing.assert_array_equal(run("boolean_to_number", column).values, [1, 0, NAN])


def test_date_parts_agree_with_the_calendar() -> None:
    import datetime

    draw = np.random.default_rng(0)
    seconds = draw.integers(-2_000_000_000, 4_000_000_000, 300)
    column = Column("x", "datetime", seconds * 1_000_000)
    parts = ["year", "month", "day", "day_of_year", "weekday", "hour", "minute", "second"]
    result = run("date_parts", column, parts=parts, cyclic=False).values
    for row, second in enumerate(seconds):
        moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=int(second))
        day = moment.timetuple()
        wanted = [
            day.tm_year,
            day.tm_mon,
            day.tm_mday,
            day.tm_yday,
            day.tm_wday,
            day.tm_hour,
            day.tm_min,
            day.tm_sec,
        ]
        assert result[row].tolist() == wanted


def test_date_parts_put_december_beside_january() -> None:
    column = moments("2023-12-15", "2024-01-15", "2024-06-15", "NaT")
    result = run("date_parts", column, parts=["month", "hour"])
    assert result.names == ("x month sine", "x month cosine")  # the hour is the same everywhere
    near, far = (
        np.linalg.norm(result.values[0] - result.values[1]),
        np.linalg.norm(result.values[0] - result.values[2]),
    )
    assert near < 0.6 and far > 1.9 and np.isnan(result.values[3]).all()


def test_hash_words_is_blind_to_case_and_punctuation_but_not_to_words() -> None:
    result = run(
        "hash_words",
        text(
            "The cat sat.", "the CAT, sat", "the cat sat down", "", "!?", "Straße ÉTÉ", "straße été"
        ),
    ).values
    assert result[0].tolist() == result[1].tolist() and result[0].tolist() != result[2].tolist()
    assert not result[3].any() and not result[4].any()
    assert result[5].tolist() == result[6].tolist() and result[5].any()
    np.testing.assert_allclose(
        np.linalg.norm(result[[0, 2, 5]], axis=1), 1, rtol=1e-6
    )  # float32 rounding


def test_hash_words_counts_words_and_pairs_within_a_row_only() -> None:
    result = run("hash_words", text("a b", "c", "a", "b", "c"), features=65536).values
    assert [np.count_nonzero(row) for row in result] == [3, 1, 1, 1, 1]
    assert set(np.flatnonzero(result[2])) | set(np.flatnonzero(result[3])) < set(
        np.flatnonzero(result[0])
    )


def test_hash_words_takes_chinese_character_by_character() -> None:
    result = run(
        "hash_words", text("味道很好", "味道不好", "服务很差", "味道很好"), features=65536
    ).values
    assert np.count_nonzero(result[0]) == 7  # four characters, three pairs
    assert result[0] @ result[1] > result[0] @ result[2] > 0
    assert result[0].tolist() == result[3].tolist()
    smiles = run("hash_words", text("好😀", "好", "𠀀"), features=65536).values
    assert [np.count_nonzero(row) for row in smiles] == [3, 1, 1]


def test_hash_words_by_characters_sees_through_misspellings() -> None:
    result = run(
        "hash_words", text("elephant", "elefant", "zoo"), by="characters", shortest=2, longest=3
    ).values
    assert result[0] @ result[1] > 0.3 > abs(result[0] @ result[2])


def test_hash_words_is_the_same_however_the_text_is_cut_into_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = registry.take("transforms", "hash_words")
    column = text(*[f"row {place} 中文 {'x' * (place % 50)}" for place in range(200)])
    whole = module.apply(module.Config(), {}, column).values
    monkeypatch.setattr(module, "_BLOCK", 97)
    assert module.apply(module.Config(), {}, column).values.tobytes() == whole.tobytes()


def test_scale_pixels_learns_exact_means_and_deviations_of_each_channel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = registry.take("transforms", "scale_pixels")
    column = column_of("image", rows=57)
    column.values[..., 2] = 255
    monkeypatch.setattr(module, "_BLOCK", 131)  # several blocks, an odd number of pixels each
    pixels = module.fit(module.Config(), column)["pixels"]
    shades = column.values.reshape(-1, 3) / 255
    np.testing.assert_allclose(
        pixels["mean"], shades.mean(axis=0), rtol=1e-12
    )  # float64 sums in another order
    np.testing.assert_allclose(pixels["std"][:2], shades.std(axis=0)[:2], rtol=1e-12)
    assert pixels["std"][2] == 1
    assert module.apply(module.Config(), {"pixels": pixels}, column) is column
