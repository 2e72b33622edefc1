"""What a task is: the class `Task`, and one class for each further thing that a task can do.

A task derives from `Task` and from the classes of what it can do; the rest of danlu asks
`isinstance(task, HidesInputs)` and calls the methods of that class. Every method is abstract or
final. An attribute without a value here is set by the task itself.

Shapes: B rows of a batch, N examples, T tokens, V variables of a series, H moments ahead, C classes
or labels, F frames."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Generic, Literal, Protocol, TypeAlias, TypeVar, final

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from danlu.data.examples import Examples, Field
    from danlu.data.preprocessing import Preprocessor
    from danlu.recipe import Data, Options, Part
    from danlu.terms import Batch, Column, InputSpec, OutputSpec, Sample, Table
    from danlu.tokenizing import Tokenizer

ClassValue = str | int | float | bool
Answer: TypeAlias = dict[str, object]  # the answer to one row: JSON values, "prediction" among them
ScoreOrder: TypeAlias = tuple[str, Literal["higher", "lower"]]
Encoded = TypeVar("Encoded")  # an encoded target: an array, Ragged rows, or one of them per target
PreparedInputs: TypeAlias = "Mapping[str, Field]"  # of all rows, by input name
RunNetwork: TypeAlias = "Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]"


class Task(ABC):
    """What a model is trained to answer.

    output        what the model must return. A task that learns it from its examples sets it anew
                  in `make_examples`
    target_names  the target columns, () where there are none
    score_order   (metric, "higher" or "lower"): the score that early stopping and the best
                  checkpoint go by, unless the recipe names another
    needs         columns that `make_examples` reads beside the inputs, also for rows to answer
    classes       the classes, labels or tags of an answer, in the order of the model's outputs; ()
                  where answers are not chosen from a set
    """

    output: OutputSpec
    target_names: tuple[str, ...]
    score_order: ScoreOrder
    needs: tuple[str, ...] = ()
    classes: tuple[ClassValue, ...] = ()

    # Whether the answer to a row depends on that row alone, one answer a row. A server puts
    # requests into one batch only then.
    rows_are_independent: ClassVar[bool] = True
    # The command that uses an artifact of this task, without "danlu"; {} is the artifact's path.
    usage: ClassVar[str] = "predict {} DATA"
    # What `baseline` compares with, printed above its scores.
    baseline_description: ClassVar[str] = (
        "always the same answer, the best there is for the training rows"
    )

    @final
    @property
    def examples_are_rows(self) -> bool:
        """Whether an example is a row of the table."""
        return not isinstance(self, CutsExamples) or self.keeps_rows

    @abstractmethod
    def state(self) -> Mapping[str, object]:
        """JSON values from which the part's `restore(config, state)` makes the same task."""

    @abstractmethod
    def describe(self) -> str:
        """One line for the report: "classification of income: 2 classes (no 76 %, yes 24 %)"."""


# --- answers


class AnswersOutputs(ABC):
    """A task whose answers follow from the model's outputs alone."""

    @abstractmethod
    def answers(self, outputs: Tensor) -> list[Answer]:
        """One answer per row of `outputs`, float32 (B, ...) on the CPU, shaped as `output` says.

        Each is {"prediction": value} and, for classes, {"probabilities": {class: p}}."""


class Responds(ABC):
    """A task whose answers need more of the model than its outputs, such as generated text."""

    @abstractmethod
    def respond(self, module: nn.Module, batch: Batch) -> list[Answer]:
        """One answer per row of the batch, each with "prediction". Used instead of `answers`."""


class CompletesAnswers(ABC):
    """A task whose answers also hold something of the raw rows, such as the words of a span."""

    @abstractmethod
    def complete_answers(
        self, answers: list[Answer], table: Table, examples: Sequence[int]
    ) -> list[Answer]:
        """The answers to `examples`, completed from the rows of `table`."""


class HasReferences(ABC):
    """A task whose right answers are texts, which metrics such as BLEU read."""

    @abstractmethod
    def references(self, batch: Batch) -> list[str]:
        """The right text of each row of the batch."""


class DrawsSamples(ABC):
    """A generative task that shows samples at each evaluation."""

    @abstractmethod
    def samples(self, module: nn.Module, seed: int) -> tuple[Sample, ...]:
        """A few texts or images, a function of the module's weights and of `seed` alone."""


class RewritesTexts(ABC):
    """A task whose model can write training texts for a student (distil.sequences).

    answer_column   the text column that holds what is to be written
    """

    answer_column: str

    @abstractmethod
    def rewrite(self, module: nn.Module, batch: Batch, column: Column) -> list[str | None]:
        """What the model writes in place of `column`, one text per row of the batch.

        None where it wrote nothing, or did not end before the most tokens were written."""


# --- targets and examples


class EncodesTargets(ABC, Generic[Encoded]):
    """A task whose examples are the rows of the table, each with a target that is encoded."""

    @abstractmethod
    def encode(self, targets: Mapping[str, Column]) -> Encoded:
        """The target columns of N rows as numpy arrays.

        int64 (N,) class numbers, float32 (N, size) numbers or 0/1 labels; for several tasks a dict
        of such arrays by target name. Raises DataError that names column and value for a class
        that no training row has, and one with the number of rows for a missing target."""

    @abstractmethod
    def baseline(self, train_target: Encoded, target: Encoded) -> dict[str, float]:
        """Scores by metric name, on `target`, of the best constant answer to `train_target`. {}
        where there are no rows."""


class CutsExamples(ABC):
    """A task that makes its own examples: windows of a text or series, texts beside translations.

    keeps_rows   whether its examples are still the rows of the table
    """

    keeps_rows: ClassVar[bool] = False

    @abstractmethod
    def make_examples(
        self,
        arrays: PreparedInputs,
        specs: Mapping[str, InputSpec],
        targets: Mapping[str, Column],
        splits: dict[str, np.ndarray],
        table: Table,
        answering: bool = False,
    ) -> Examples:
        """The examples of a table.

        arrays      the prepared inputs of all rows, by input name
        specs       the InputSpec of each of them
        targets     the target columns by name, {} where the rows have none
        splits      rows by split, int64; {"data": all rows} for a file to score or to answer
        answering   whether the examples are to be answered (the last window of a series); they then
                    have no target

        Raises DataError that names the row which cannot be used."""

    @abstractmethod
    def baseline(self, examples: Examples, split: str) -> dict[str, float]:
        """Scores by metric name, on a split, of an answer that needs no model. {} where there is
        none."""


class HidesInputs(ABC):
    """A task that hides or changes part of each batch, also in evaluation (masked tokens)."""

    @abstractmethod
    def corrupt(self, batch: Batch, seed: int) -> Batch:
        """The batch as the model sees it, with its target.

        A function of `seed` and of each row's number (batch.rows), however rows are batched."""


class Calibrates(ABC):
    """A task that learns something from the trained model, such as a threshold."""

    @abstractmethod
    def calibrate(self, pairs: Iterable[tuple[Tensor, Batch]]) -> None:
        """Learn from (outputs, batch) of the validation examples, or of the training examples
        where there are none. Called once, when training ends, before anything is scored."""


class ReadsPreprocessing(ABC):
    """A task that uses something of the fitted preprocessing, such as its tokenizer."""

    @abstractmethod
    def attach(self, preprocessor: Preprocessor) -> None:
        """Take what the task needs. Called before `make_examples`, and after a task is restored."""


# --- what the outputs mean: one class for most of the values of a part's ASKS


class WeighsClasses(ABC):
    """A task with classes whose training rows (or words) were counted.

    class_counts   how many of them have each class
    """

    class_counts: tuple[int, ...]

    @abstractmethod
    def class_weights(self, chosen: str | Mapping[str, float] | None) -> list[float] | None:
        """One weight per class.

        "balanced" gives rows / (classes * rows of the class), a mapping gives weights by name and 1
        to all others, None gives None. Raises DataError for a name that is no class."""


class HasProbabilities(ABC):
    """A task that decides rows by probabilities."""

    @abstractmethod
    def probabilities(self, outputs: Tensor) -> Tensor:
        """The probability of each class or label, float64 (N, C), of logits (N, C)."""

    @abstractmethod
    def predicted(self, outputs: Tensor) -> Tensor:
        """The number of each row's class, int64 (N,), or which labels it has, bool (N, C)."""


class ClassifiesRows(Task, WeighsClasses, HasProbabilities):
    """A task of ASKS = "classes": one class for each row.

    positive_class   the number of the class that binary precision, recall and F1 count
    """

    positive_class: int


class LabelsRows(Task, HasProbabilities):
    """A task of ASKS = "labels": any number of labels for each row."""

    @abstractmethod
    def positive_weights(
        self, chosen: str | float | Mapping[str, float] | None
    ) -> list[float] | None:
        """One weight of "yes" per label.

        "balanced" gives rows without it / rows with it, a number the same to all, a mapping weights
        by name and 1 to all others, None gives None. Raises DataError for a name that is no
        label."""


class HasUnits(Task):
    """A task of numbers that are scaled for the model: back to the units of the data."""

    @abstractmethod
    def to_units(self, outputs: Tensor) -> Tensor:
        """Outputs or encoded targets (..., size) in the units of the data, float64."""

    @abstractmethod
    def in_units(self, differences: Tensor) -> Tensor:
        """Differences of outputs and encoded targets in the units of the data, float64."""

    @abstractmethod
    def in_deviations(self, differences: Tensor) -> Tensor:
        """Differences of outputs and encoded targets in standard deviations of the training rows,
        float64."""


class PredictsNumbers(HasUnits):
    """A task of ASKS = "numbers": one or several numbers for each row."""

    @abstractmethod
    def standardised(self, outputs: Tensor) -> Tensor:
        """Outputs or encoded targets (N, size) as deviations from the training rows' mean, in
        their standard deviations, float64."""


class PredictsSteps(HasUnits):
    """A task of ASKS = "steps": numbers for moments of a series.

    variables      the names of the V variables
    quantiles      the quantiles that the outputs hold for each variable; () for one number
    naive_errors   per variable, the mean absolute error of the seasonal naive forecast on the
                   training rows, in their standard deviations
    """

    variables: tuple[str, ...]
    quantiles: tuple[float, ...] = ()
    naive_errors: list[float]

    @abstractmethod
    def point_forecast(self, outputs: Tensor) -> Tensor:
        """The forecast itself (B, H, V) of outputs (B, H, size): the median of quantiles."""


class ScoresAnomalies(PredictsSteps):
    """A task that gives each moment a score; an anomaly is a moment whose score passes a threshold.

    threshold   None before it is learnt
    """

    threshold: float | None

    @abstractmethod
    def anomaly_scores(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The score of each row, float64 (B,), 0 or more; 1 is the usual error."""


class CombinesTasks(Task):
    """A task of ASKS = "several": several tasks whose outputs stand side by side.

    tasks     the task of each target name
    parts     the recipe's part of each
    slices    which columns of the outputs belong to each
    weights   the weight of each in the loss
    """

    tasks: dict[str, RowTask[np.ndarray]]
    parts: dict[str, Part]
    slices: dict[str, slice]
    weights: dict[str, float]

    @abstractmethod
    def outputs_of(self, name: str, outputs: Tensor) -> Tensor:
        """The columns (N, its size) of the outputs that belong to target `name`."""


class GeneratesImages(Task):
    """A task of ASKS = "samples": images like those of the data.

    image         the InputSpec of the images
    class_names   the classes that can be asked for, as text
    """

    image: InputSpec
    class_names: tuple[str, ...]

    @abstractmethod
    def class_number(self, value: object) -> int:
        """The number of a class. Raises DataError where there is no such class."""

    @abstractmethod
    def pixels(self, outputs: Tensor) -> np.ndarray:
        """Outputs (N, channels, height, width) as uint8 (N, height, width, channels)."""


# --- text


class ReadsRunningText(Task):
    """A task over tokens of a running text.

    context     the most tokens that the model sees at once
    tokenizer   what turns text into tokens and back; None before `attach`
    """

    context: int
    tokenizer: Tokenizer | None

    @property
    @abstractmethod
    def token_bytes(self) -> list[int] | None:
        """The bytes of UTF-8 that each code of the vocabulary writes, None where codes have no text
        of their own."""


class ContinuesText(ReadsRunningText):
    """A task whose outputs at a place are logits of the next token, so that text can be
    generated."""


class Converses(ContinuesText):
    """A task trained on conversations.

    system   the system message that every conversation begins with, or None
    """

    system: str | None

    @abstractmethod
    def prompt(self, messages: Sequence[tuple[str, str]]) -> list[int]:
        """The tokens that ask for the assistant's next turn after messages (role, content)."""


# --- exports, which run without torch


class Exportable(ABC):
    """A task whose answers can be made outside of danlu; it must be restorable without torch."""

    @abstractmethod
    def finish(
        self, module: nn.Module, inputs: Mapping[str, Tensor], outputs: Tensor
    ) -> dict[str, Tensor]:
        """The outputs as named tensors that answers are made of: probabilities, numbers in units of
        the data. Traced into the export, so tensor operations alone."""


class AnswersFromArrays(Exportable):
    """An exportable task that makes its answers of one run of the network."""

    @abstractmethod
    def answers_from_arrays(
        self, arrays: Mapping[str, np.ndarray], beside: Mapping[str, np.ndarray]
    ) -> list[Answer]:
        """The answers, of what `finish` gave, as numpy arrays by name.

        `beside` holds the other arrays of the examples, and as NAME_sizes the lengths of rows of
        tokens or frames."""


class RowTask(Task, AnswersOutputs, EncodesTargets[Encoded], AnswersFromArrays):
    """A task of rows: their targets are encoded, and answers follow from outputs. What multi_task
    combines."""


class WritesTokenByToken(Exportable):
    """An exportable task whose answers take one run of the network per token."""

    @abstractmethod
    def write(self, run: RunNetwork, inputs: Mapping[str, np.ndarray]) -> list[Answer]:
        """The answers to `inputs`; run(inputs) gives what `finish` gave, by name."""


class ScalesDifferences(ABC):
    """An exportable task whose finished arrays are not all of the size of 1."""

    @abstractmethod
    def difference_scales(self) -> dict[str, np.ndarray]:
        """By name of a finished array, what a difference is divided by before the export is
        compared with its artifact."""


class ImageGenerator(Protocol):
    """What a task that generates images asks of its model."""

    latent: int  # numbers of noise per image

    def imagine(self, inputs: Mapping[str, Tensor], noise: Tensor) -> Tensor:
        """Images (B, channels, height, width) of noise (B, latent)."""
        ...

    def noise_of(self, rows: Tensor) -> Tensor:
        """The noise (B, latent) of row numbers (B,)."""
        ...


class ExportsGenerator(AnswersFromArrays):
    """A generative task: its export takes noise in place of a row, and rows only ask for it."""

    @abstractmethod
    def generator_inputs(self, module: nn.Module) -> dict[str, InputSpec]:
        """The inputs of the exported generator by name."""

    @abstractmethod
    def generate(self, module: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        """The generator's outputs for such inputs."""

    @abstractmethod
    def example_inputs(self, module: nn.Module, count: int) -> dict[str, np.ndarray]:
        """Such inputs of `count` examples, on which the export is compared with its artifact."""

    @abstractmethod
    def row_schema(self) -> dict[str, dict[str, object]]:
        """The columns of a row that asks, by name, each as a column schema with its "kind"."""

    @abstractmethod
    def inputs_from_rows(self, table: Table, latent: int) -> dict[str, np.ndarray]:
        """The inputs for the rows of a table; `latent` is the width of the noise. Raises DataError
        for a class that there is not."""


@dataclass(frozen=True)
class AnswerLayer:
    """A layer that turns outputs into finished answers.

    activation   "softmax" or "sigmoid" over logits, or "rescale": outputs * scale + offset
    scale        one number per output, for "rescale"
    offset       likewise
    """

    activation: Literal["softmax", "sigmoid", "rescale"]
    scale: tuple[float, ...] = ()
    offset: tuple[float, ...] = ()


class EndsInLayer(ABC):
    """A task whose `finish` is one layer that every framework has, for exports without a graph of
    torch's."""

    @abstractmethod
    def answer_layer(self) -> AnswerLayer:
        """The layer."""


@dataclass(frozen=True)
class TaskFacts:
    """What a task part says of itself; `danlu.registry.task_facts(name)` reads it.

    Each field is a module-level name of the part's file. The optional functions are None where the
    file has none.
    """

    # What outputs and encoded target are; losses and metrics whose FITS has it fit the task.
    #   classes    logits (N, C), int64 (N,) class numbers
    #   labels     logits (N, C), float32 (N, C) of 0 and 1
    #   numbers    float32 (N, size), the same
    #   several    the outputs of several tasks side by side, a dict by target name
    #   tokens     logits (N, T, C), int64 (N, T), IGNORED where a place does not count
    #   steps      float32 (N, H, size), the same, NaN where a moment does not count
    #   spelling   logits (N, F, characters) and int64 (N, S) with 0 after the end (CTC)
    #   pixels     float32 (N, channels, height, width), the same
    #   samples    what a generator makes, beside batch.inputs (GAN)
    asks: str = field(metadata={"name": "ASKS"})

    # (fewest, most) target columns; most None: no limit.
    targets: tuple[int, int | None] = field(default=(1, 1), metadata={"name": "TARGETS"})

    # Whether target columns are inputs as well (forecasting: their past).
    targets_are_inputs: bool = field(default=False, metadata={"name": "INPUTS_TOO"})

    # The kinds of prepared input that `make_examples` reads; None: those that the model takes.
    reads: tuple[str, ...] | None = field(default=None, metadata={"name": "READS"})

    # Which step of danlu.training.step performs an update.
    step: Literal["supervised", "adversarial"] = field(
        default="supervised", metadata={"name": "STEP"}
    )

    # The losses and metrics that fit; () in the file: those whose FITS has `asks`.
    losses: tuple[str, ...] = field(default=(), metadata={"name": "LOSSES"})
    metrics: tuple[str, ...] = field(default=(), metadata={"name": "METRICS"})

    # adapt(config, data) -> Data: the recipe's data section as the task needs it (a running text
    # is tokenized whole).
    adapt: Callable[[Options, Data], Data] | None = None

    # recast(config, table) -> Table: the table in the rows that the task works on (a text in
    # pieces, a series in the order of time), before it is split; sets Table.continues.
    recast: Callable[[Options, Table], Table] | None = None


# By a task part's ASKS, the class that its task must derive from; losses and metrics rely on it.
REQUIRED_BY_ASKS: dict[str, type] = {
    "classes": ClassifiesRows,
    "labels": LabelsRows,
    "numbers": PredictsNumbers,
    "steps": PredictsSteps,
    "several": CombinesTasks,
    "samples": GeneratesImages,
    "spelling": HasReferences,
}
