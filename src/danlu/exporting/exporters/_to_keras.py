"""A network of danlu as a functional model of Keras 3: the same layers and weights.

Only Keras' own layers and operations are used, no Lambda, so that the file runs on each of its
backends. As Keras has it, images have their channels last, and kernels their outputs. Dropout
stays, for whoever trains the network further.

B batch, T places, H height, W width, C channels, D numbers at a place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from danlu.errors import PartError
from danlu.layers import pooling
from danlu.layers.keras.network import library
from danlu.layers.parametrization import Readout
from danlu.layers.recurrent import rnn, sequence_reader
from danlu.layers.tabular import merging
from danlu.layers.tabular.categories import CategoryEmbedding, CategoryTable, CategoryWeights
from danlu.layers.tabular.periodic import PeriodicEmbedding
from danlu.layers.text.embeddings import WordEmbedding
from danlu.layers.text.summary import TokenSummary
from danlu.layers.vision.pooling import ChannelsLast, MeanOfPixels
from danlu.layers.vision.residual import ResidualBlock
from danlu.terms import PADDING, InputSpec

# below every number of a network; danlu.reading.keras_file takes larger ones for a size gone wrong
_LOWEST = -2e9


def to_keras(
    module: nn.Module, inputs: Mapping[str, InputSpec], end: Callable[[Any, Any], Any]
) -> Any:
    """The Keras model of a network, with the same weights.

    It has one input for each of `inputs`, of the same name: numbers (B, F), categories int32 (B,
    C), image uint8 (B, H, W, C), tokens int32 (B, T), series (B, L, F). `end(keras, outputs)` makes
    answers of the network's outputs. Raises PartError naming a layer that Keras lacks."""
    return KerasTranslation(inputs).model(module, end)


class KerasTranslation:
    """One translation. `weights` collects the weights of each new layer; they are set once all
    layers are built."""

    def __init__(self, inputs: Mapping[str, InputSpec]) -> None:
        self.keras = library()
        self.layers, self.ops = self.keras.layers, self.keras.ops
        self.described = dict(inputs)
        self.weights: list[tuple[Any, list[np.ndarray]]] = []
        self.count = 0
        self.keras_inputs = {name: self._input(name, spec) for name, spec in inputs.items()}

    def model(self, module: nn.Module, end: Callable[[Any, Any], Any]) -> Any:
        """The Keras model of a module; see `to_keras`."""
        with self.keras.device("cpu"):
            network_inputs = {
                name: self._network_input(name, spec) for name, spec in self.described.items()
            }
            outputs = end(self.keras, self.of(module, network_inputs))
            model = self.keras.Model([*self.keras_inputs.values()], outputs, name="danlu")
            for layer, arrays in self.weights:
                layer.set_weights(arrays)
        return model

    def _input(self, name: str, spec: InputSpec) -> Any:
        if spec.kind == "image":
            channels, height, width = spec.shape
            return self.keras.Input((height, width, channels), name=name, dtype="uint8")
        if spec.kind == "tokens":
            return self.keras.Input((None, *spec.shape[1:]), name=name, dtype="int32")
        if spec.kind == "frames":
            raise PartError(
                "a Keras file has no input that tells where a row of frames or recordings ends.",
                hint="--to onnx",
            )
        return self.keras.Input(
            spec.shape, name=name, dtype="int32" if spec.kind == "categories" else "float32"
        )

    def _network_input(self, name: str, spec: InputSpec) -> Any:
        """An input as the network reads it: pixels scaled."""
        if spec.kind != "image":
            return self.keras_inputs[name]
        mean, std = (
            np.broadcast_to(np.asarray(numbers, dtype=np.float64), spec.shape[:1])
            for numbers in (spec.mean, spec.std)
        )
        return self.layers.Rescaling(
            (1 / (255 * std)).tolist(), (-mean / std).tolist(), name=self._name("pixels")
        )(self.keras_inputs[name])

    def _name(self, kind: str) -> str:
        # Keras counts the operations of a process, and names them sum_2, tanh_3 and so on
        self.count += 1
        return f"danlu_{kind}_{self.count}"

    def with_weights(self, layer: Any, *arrays: Any) -> Any:
        """The layer, which will be given these weights."""
        self.weights.append((layer, [_numbers(array) for array in arrays]))
        return layer

    # --- layers by their kind

    def of(self, module: nn.Module, x: Any) -> Any:
        """The Keras output of a module for x, a Keras tensor or the inputs by name. Raises
        PartError for a layer that Keras lacks."""
        for kind, translate in _TRANSLATIONS.items():
            if type(module) is kind or (isinstance(module, kind) and kind in _ALSO_DERIVED):
                return translate(self, module, x)
        raise PartError(
            f"its layer {type(module).__name__} has no counterpart among the layers of Keras.",
            hint="--to onnx takes every network; --to keras takes linear, mlp, cnn and rnn",
        )

    def sequential(self, module: Any, x: Any) -> Any:
        for child in module:
            x = self.of(child, x)
        return x

    def take(self, module: Any, inputs: Mapping[str, Any]) -> Any:
        x = inputs[module.name]
        return x if module.body is None else self.of(module.body, x)

    def concatenate(self, module: Any, inputs: Any) -> Any:
        return self.layers.Concatenate(name=self._name("joined"))(
            [self.of(branch, inputs) for branch in module.branches]
        )

    def add(self, module: Any, inputs: Any) -> Any:
        return self.layers.Add(name=self._name("sum"))(
            [self.of(branch, inputs) for branch in module.branches]
        )

    def linear(self, module: Any, x: Any) -> Any:
        weight = module.weight * (module.multiplier if isinstance(module, Readout) else 1.0)
        arrays = [weight.t(), *([module.bias] if module.bias is not None else [])]
        dense = self.layers.Dense(
            module.out_features, use_bias=module.bias is not None, name=self._name("dense")
        )
        return self.with_weights(dense, *arrays)(x)

    def convolution(self, module: Any, x: Any) -> Any:
        (high, wide), (down, across) = module.kernel_size, module.padding
        if module.groups != 1 or module.dilation != (1, 1) or module.padding_mode != "zeros":
            raise PartError(
                "a convolution in groups or with holes has no counterpart here.", hint="--to onnx"
            )
        if down or across:
            x = self.layers.ZeroPadding2D(
                ((down, down), (across, across)),
                data_format="channels_last",
                name=self._name("padding"),
            )(x)
        arrays = [
            module.weight.permute(2, 3, 1, 0),
            *([module.bias] if module.bias is not None else []),
        ]
        layer = self.layers.Conv2D(
            module.out_channels,
            (high, wide),
            strides=module.stride,
            use_bias=module.bias is not None,
            data_format="channels_last",
            name=self._name("convolution"),
        )
        return self.with_weights(layer, *arrays)(x)

    def batch_norm(self, module: Any, x: Any) -> Any:
        layer = self.layers.BatchNormalization(
            epsilon=module.eps, momentum=1 - module.momentum, name=self._name("batch_norm")
        )
        return self.with_weights(
            layer, module.weight, module.bias, module.running_mean, module.running_var
        )(x)

    def layer_norm(self, module: Any, x: Any) -> Any:
        layer = self.layers.LayerNormalization(epsilon=module.eps, name=self._name("layer_norm"))
        return self.with_weights(layer, module.weight, module.bias)(x)

    def activation(self, module: nn.Module, x: Any) -> Any:
        kind = {nn.ReLU: "relu", nn.GELU: "gelu", nn.SiLU: "silu", nn.Tanh: "tanh"}[type(module)]
        return self.layers.Activation(kind, name=self._name(kind))(x)

    def dropout(self, module: Any, x: Any) -> Any:
        share = float(module.p)
        return self.layers.Dropout(share, name=self._name("dropout"))(x) if share else x

    def locked_dropout(self, module: Any, x: Any) -> Any:
        return (
            self.layers.SpatialDropout1D(module.share, name=self._name("dropout"))(x)
            if module.share
            else x
        )

    def flatten(self, module: Any, x: Any) -> Any:
        if len(x.shape) == 4:  # as channels first would be flattened
            x = self.layers.Permute((3, 1, 2), name=self._name("channels_first"))(x)
        return self.layers.Flatten(name=self._name("flat"))(x)

    def max_pool(self, module: Any, x: Any) -> Any:
        padding, size, stride = (
            setting if isinstance(setting, int) else setting[0]
            for setting in (module.padding, module.kernel_size, module.stride)
        )
        if padding:  # by what is never the largest, as 0 may be after GELU, SiLU or tanh
            x = self.ops.pad(
                x, [[0, 0], [padding, padding], [padding, padding], [0, 0]], constant_values=_LOWEST
            )
        return self.layers.MaxPooling2D(
            size, stride, data_format="channels_last", name=self._name("largest")
        )(x)

    def mean_pool(self, module: Any, x: Any) -> Any:
        size = module.kernel_size if isinstance(module.kernel_size, int) else module.kernel_size[0]
        return self.layers.AveragePooling2D(
            size, size, padding="same", data_format="channels_last", name=self._name("mean")
        )(x)

    def mean_of_pixels(self, module: Any, x: Any) -> Any:
        return self.layers.GlobalAveragePooling2D(
            data_format="channels_last", name=self._name("mean")
        )(x)

    def residual(self, module: Any, x: Any) -> Any:
        y = self.of(module.body, x)
        if module.branch != 1.0:
            y = self.layers.Rescaling(float(module.branch), name=self._name("branch"))(y)
        around = x if module.around is None else self.of(module.around, x)
        return self.of(module.activation, self.layers.Add(name=self._name("sum"))([y, around]))

    # --- categories and numbers

    def lookup(self, module: Any, codes: Any) -> Any:
        offsets = module.offsets.tolist()
        if any(offsets):
            codes = self.layers.Rescaling(
                1.0, [float(offset) for offset in offsets], name=self._name("codes")
            )(codes)
        table = module.table
        return self.with_weights(
            self.layers.Embedding(*table.shape, name=self._name("embedding")), table
        )(codes)

    def category_embedding(self, module: Any, codes: Any) -> Any:
        embedded, start, order = [], 0, module.order.tolist()
        for lookup, count in zip(module.lookups, module.counts):
            members = order[start : start + count]
            start += count
            some = codes if len(module.counts) == 1 else self.ops.take(codes, members, axis=1)
            embedded.append(self.layers.Flatten(name=self._name("flat"))(self.lookup(lookup, some)))
        return (
            embedded[0]
            if len(embedded) == 1
            else self.layers.Concatenate(name=self._name("joined"))(embedded)
        )

    def category_weights(self, module: Any, codes: Any) -> Any:
        total = self.ops.sum(self.lookup(module.lookup, codes), axis=1)
        if module.bias is None:
            return total
        return self.layers.Rescaling(1.0, _numbers(module.bias).tolist(), name=self._name("bias"))(
            total
        )

    def periodic(self, module: Any, x: Any) -> Any:
        features, frequencies = module.frequencies_FK.shape
        wide = module.weight_FKE.shape[2]
        angles = self.layers.EinsumDense(
            "bf,fk->bfk", (features, frequencies), name=self._name("angles")
        )
        angle = self.with_weights(angles, module.frequencies_FK * (2 * math.pi))(x)
        waves = self.layers.Concatenate(axis=2, name=self._name("waves"))(
            [self.ops.sin(angle), self.ops.cos(angle)]
        )
        layer = self.layers.EinsumDense(
            "bfk,fke->bfe",
            (features, wide),
            bias_axes="fe",
            activation="relu",
            name=self._name("periodic"),
        )
        embedded = self.with_weights(layer, module.weight_FKE, module.bias_F1E[:, 0])(waves)
        flat = self.layers.Flatten(name=self._name("flat"))(embedded)
        return self.layers.Concatenate(name=self._name("joined"))([x, flat])

    # --- texts and series

    def words(self, module: Any, tokens: Any) -> Any:
        parts = []
        for (first, count), table in zip(module.groups, module.tables):
            if count > 1:
                raise PartError(
                    "words that are read with their letters have no counterpart in Keras.",
                    hint="--to onnx",
                )
            codes = tokens if len(tokens.shape) == 2 else self.ops.take(tokens, first, axis=2)
            parts.append(
                self.with_weights(
                    self.layers.Embedding(*table.weight.shape, name=self._name("embedding")),
                    table.weight,
                )(codes)
            )
        return (
            parts[0]
            if len(parts) == 1
            else self.layers.Concatenate(name=self._name("joined"))(parts)
        )

    def inside(self, tokens: Any) -> Any:
        """Which places of tokens (B, T) or (B, T, D) are no padding, bool (B, T)."""
        words = tokens if len(tokens.shape) == 2 else self.ops.take(tokens, 0, axis=2)
        return self.ops.not_equal(words, PADDING)

    def summary(self, module: Any, tokens: Any) -> Any:
        inside = self.inside(tokens)
        words = self._kept(self.words(module.words, tokens), inside, 0.0)
        before, kernel = module.convolution.padding[0], module.convolution.weight
        padded = self.layers.ZeroPadding1D(before, name=self._name("padding"))(words)
        layer = self.layers.Conv1D(
            kernel.shape[0], kernel.shape[2], activation="relu", name=self._name("phrases")
        )
        phrases = self.with_weights(layer, kernel.permute(2, 1, 0), module.convolution.bias)(padded)
        poolings = [self.mean(None, words, inside), self.largest(None, phrases, inside)]
        return self.layers.Concatenate(name=self._name("joined"))(poolings)

    def reader(self, module: Any, inputs: Mapping[str, Any]) -> tuple[Any, Any]:
        """(the numbers at each place; which places are no padding, None where all are)."""
        first = module.names[0]
        inside = self.inside(inputs[first]) if self.described[first].kind == "tokens" else None
        bodies = [
            inputs[name] if isinstance(body, nn.Identity) else self.of(body, inputs[name])
            for name, body in zip(module.names, module.bodies)
        ]
        x = (
            bodies[0]
            if len(bodies) == 1
            else self.layers.Concatenate(name=self._name("joined"))(bodies)
        )
        return self.locked_dropout(module.dropout, x), inside

    def recurrent(self, module: Any, x: Any, inside: Any, *, last: bool) -> Any:
        """The states at every place, or with `last` those after the whole row."""
        for number, ahead in enumerate(module.forwards):
            x = self.locked_dropout(module.dropout, x) if number else x
            every = not (last and number == len(module.forwards) - 1)
            layer, arrays = self._cell(ahead, every)
            if module.backwards is not None:
                behind, more = self._cell(module.backwards[number], every, go_backwards=True)
                layer, arrays = (
                    self.layers.Bidirectional(
                        layer, backward_layer=behind, name=self._name("both_ways")
                    ),
                    [*arrays, *more],
                )
            self.with_weights(layer, *arrays)
            x = layer(x) if inside is None else layer(x, mask=inside)
        return x

    def _cell(self, module: Any, every: bool, **more: Any) -> tuple[Any, list[Any]]:
        hidden = module.hidden_size
        kinds = {nn.RNN: self.layers.SimpleRNN, nn.GRU: self.layers.GRU, nn.LSTM: self.layers.LSTM}
        layer = kinds[type(module)](
            hidden, return_sequences=every, name=self._name("states"), **more
        )
        into, again = module.weight_ih_l0, module.weight_hh_l0
        if isinstance(module, nn.GRU):  # Keras has the update gate first, and both biases
            into, again, first, second = (
                _gates(gates, hidden)
                for gates in (into, again, module.bias_ih_l0, module.bias_hh_l0)
            )
            return layer, [into.t(), again.t(), torch.stack([first, second])]
        return layer, [into.t(), again.t(), module.bias_ih_l0 + module.bias_hh_l0]

    def row_vector(self, module: Any, inputs: Mapping[str, Any]) -> Any:
        x, inside = self.reader(module.reader, inputs)
        states = self.recurrent(module.recurrent, x, inside, last=module.pooling is None)
        if module.pooling is None:
            return states
        ways = {
            pooling.MaxPooling: self.largest,
            pooling.MeanPooling: self.mean,
            pooling.AttentionPooling: self.attention,
        }
        return ways[type(module.pooling)](module.pooling, states, inside)

    def places(self, module: Any, inputs: Mapping[str, Any]) -> Any:
        if module.aside is not None or module.after is not None:
            raise PartError(
                "labels that depend on each other, or on other columns, have no counterpart here.",
                hint="--to onnx",
            )
        x, inside = self.reader(module.reader, inputs)
        return self.of(module.head, self.recurrent(module.recurrent, x, inside, last=False))

    def _kept(self, x: Any, inside: Any, else_: float) -> Any:
        return self.ops.where(self.ops.expand_dims(inside, 2), x, else_)

    def largest(self, module: Any, x: Any, inside: Any) -> Any:
        if inside is None:
            return self.ops.max(x, axis=1)
        maximum = self.ops.max(self._kept(x, inside, _LOWEST), axis=1)
        return self.ops.where(self.ops.any(inside, axis=1, keepdims=True), maximum, 0.0)

    def mean(self, module: Any, x: Any, inside: Any) -> Any:
        if inside is None:
            return self.ops.mean(x, axis=1)
        count = self.ops.maximum(
            self.ops.sum(self.ops.cast(inside, "float32"), axis=1, keepdims=True), 1.0
        )
        return self.ops.divide(self.ops.sum(self._kept(x, inside, 0.0), axis=1), count)

    def attention(self, module: Any, x: Any, inside: Any) -> Any:
        inner = self.layers.Activation("tanh", name=self._name("tanh"))(
            self.linear(module.inner, x)
        )
        score = self.linear(module.score, inner)
        if inside is not None:
            score = self._kept(score, inside, _LOWEST)
        weight = self.layers.Softmax(axis=1, name=self._name("attention"))(score)
        if inside is not None:
            x, weight = self._kept(x, inside, 0.0), self._kept(weight, inside, 0.0)
        return self.ops.sum(self.ops.multiply(x, weight), axis=1)

    def same(self, module: Any, x: Any) -> Any:
        return x


def _numbers(value: Any) -> np.ndarray:
    if isinstance(value, Tensor):
        return np.ascontiguousarray(value.detach().to("cpu", torch.float32).numpy())
    return np.asarray(value, dtype=np.float32)


def _gates(weight: Any, hidden: int) -> Tensor:
    """torch's gates (reset, update, new) in the order of Keras (update, reset, new)."""
    reset, update, new = weight.split(hidden)
    return torch.cat([update, reset, new])


_TRANSLATIONS: dict[type, Callable[..., Any]] = {
    nn.Sequential: KerasTranslation.sequential,
    merging.TakeInput: KerasTranslation.take,
    merging.Concatenate: KerasTranslation.concatenate,
    merging.Add: KerasTranslation.add,
    nn.Linear: KerasTranslation.linear,
    Readout: KerasTranslation.linear,
    nn.Conv2d: KerasTranslation.convolution,
    nn.BatchNorm1d: KerasTranslation.batch_norm,
    nn.BatchNorm2d: KerasTranslation.batch_norm,
    nn.LayerNorm: KerasTranslation.layer_norm,
    nn.ReLU: KerasTranslation.activation,
    nn.GELU: KerasTranslation.activation,
    nn.SiLU: KerasTranslation.activation,
    nn.Tanh: KerasTranslation.activation,
    nn.Dropout: KerasTranslation.dropout,
    nn.Flatten: KerasTranslation.flatten,
    nn.MaxPool2d: KerasTranslation.max_pool,
    nn.AvgPool2d: KerasTranslation.mean_pool,
    nn.Identity: KerasTranslation.same,
    ChannelsLast: KerasTranslation.same,
    MeanOfPixels: KerasTranslation.mean_of_pixels,
    ResidualBlock: KerasTranslation.residual,
    CategoryTable: KerasTranslation.lookup,
    CategoryEmbedding: KerasTranslation.category_embedding,
    CategoryWeights: KerasTranslation.category_weights,
    PeriodicEmbedding: KerasTranslation.periodic,
    TokenSummary: KerasTranslation.summary,
    WordEmbedding: KerasTranslation.words,
    rnn.LockedDropout: KerasTranslation.locked_dropout,
    sequence_reader.RowVector: KerasTranslation.row_vector,
    sequence_reader.PlaceOutputs: KerasTranslation.places,
    sequence_reader.GeneratingPlaceOutputs: KerasTranslation.places,
}
# kinds whose derivates (batch normalization of one row, dropout with masks of our own) compute the
# same in evaluation
_ALSO_DERIVED = (nn.BatchNorm1d, nn.BatchNorm2d, nn.Dropout)
