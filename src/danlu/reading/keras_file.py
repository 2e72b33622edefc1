"""A Keras 3 file (.keras): its architecture and weights, without running any code in it.

    config.json        the layers
    metadata.json      the version
    model.weights.h5   the weights

The file is a zip archive. It is read into memory only where the names, sizes and compression ratios
of its members are plausible. Its config is accepted only where every object in it is one of Keras'
own layers, by name: no Lambda, no class or function from elsewhere, no module to import, no file or
address to fetch. The weights are HDF5; they are checked before any number is read: no link out of
the file, no declared size larger than the file can hold."""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from danlu.errors import DataError, MissingExtra, PartError

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
LARGEST_CONFIG = 16 << 20  # bytes of a config.json
MOST_PACKED = 100  # largest ratio of a member's size to its compressed size
MOST_SPREAD = 20  # largest ratio of the arrays' bytes to the HDF5 file's (zeros compress well)
MOST_MEMBERS = 100_000  # groups and arrays of the HDF5 file
DEEPEST = 64  # levels of a config inside each other
_LARGEST_NUMBER = 2**31
_HINT = "save the network with keras.Model.save('FILE.keras')"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


MODELS = ("Functional", "Sequential", "Model")
LAYERS = _words(
    """
    Activation Add Attention AdditiveAttention AlphaDropout Average AveragePooling1D
    AveragePooling2D AveragePooling3D BatchNormalization Bidirectional CategoryEncoding
    Concatenate Conv1D Conv1DTranspose Conv2D Conv2DTranspose Conv3D Conv3DTranspose Cropping1D
    Cropping2D Cropping3D Dense DepthwiseConv1D DepthwiseConv2D Dot Dropout ELU EinsumDense
    Embedding Flatten GRU GRUCell GaussianDropout GaussianNoise GlobalAveragePooling1D
    GlobalAveragePooling2D GlobalAveragePooling3D GlobalMaxPooling1D GlobalMaxPooling2D
    GlobalMaxPooling3D GroupNormalization GroupQueryAttention Identity InputLayer LSTM LSTMCell
    LayerNormalization LeakyReLU Masking MaxPooling1D MaxPooling2D MaxPooling3D Maximum Minimum
    MultiHeadAttention Multiply Normalization PReLU Permute RMSNormalization RNN ReLU
    RepeatVector Rescaling Reshape SeparableConv1D SeparableConv2D SimpleRNN SimpleRNNCell
    Softmax SpatialDropout1D SpatialDropout2D SpatialDropout3D StackedRNNCells Subtract
    TimeDistributed UnitNormalization UpSampling1D UpSampling2D UpSampling3D ZeroPadding1D
    ZeroPadding2D ZeroPadding3D
    """
)
OPERATIONS = _words(
    """
    Absolute Add Any Concatenate Cos Divide Exp ExpandDims Log Max Maximum Mean Min Minimum
    Multiply Negative NotEqual Pad Power Reshape Sin Sqrt Square Squeeze Subtract Sum Take Tanh
    TrueDivide Where
    """
)
INITIALIZERS = _words(
    """
    Constant GlorotNormal GlorotUniform HeNormal HeUniform Identity LecunNormal LecunUniform
    Ones Orthogonal OrthogonalInitializer RandomNormal RandomUniform TruncatedNormal
    VarianceScaling Zeros
    """
)
REGULARIZERS = frozenset({"L1", "L2", "L1L2", "OrthogonalRegularizer"})
CONSTRAINTS = frozenset({"MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm"})
ACTIVATIONS = _words(
    """
    celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh
    leaky_relu linear log_sigmoid log_softmax mish relu relu6 selu sigmoid silu soft_shrink
    softmax softplus softsign sparse_plus sparse_sigmoid sparsemax squareplus swish tanh
    tanh_shrink threshold
    """
)
# Which objects a config may contain, by the module it says they come from. No module that a config
# names is imported.
ALLOWED: dict[str, frozenset[str]] = {
    "keras.layers": LAYERS,
    "keras": frozenset({*MODELS, "DTypePolicy"}),
    "keras.models": frozenset(MODELS),
    "keras.src.models.functional": frozenset(MODELS),
    "keras.src.models.sequential": frozenset(MODELS),
    "keras.src.models.model": frozenset(MODELS),
    "keras.dtype_policies": frozenset({"DTypePolicy"}),
    "keras.initializers": INITIALIZERS,
    "keras.regularizers": REGULARIZERS,
    "keras.constraints": CONSTRAINTS,
    "keras.src.ops.numpy": OPERATIONS,
    "keras.src.ops.core": frozenset({"Cast"}),
}
_NOT_KEPT = (
    "compile_config",
    "build_config",
    "registered_name",
    "shared_object_id",
)  # how the network was trained, and what the other keys say again
_ZEROS = {
    "module": "keras.initializers",
    "class_name": "Zeros",
    "config": {},
    "registered_name": None,
}


@dataclass(frozen=True)
class KerasFile:
    """What a .keras file holds.

    architecture   the checked config
    weights        the bytes of the HDF5 file, not checked yet (see check_weights)
    digest         the SHA-256 of both, hexadecimal"""

    architecture: dict[str, Any]
    weights: bytes
    digest: str


def read_keras_file(path: str | Path) -> KerasFile:
    """The file at `path`. Raises DataError where it is not a sound Keras 3 file, PartError for a
    layer that is not allowed."""
    where = str(path)
    try:
        whole = Path(path).stat().st_size
        with zipfile.ZipFile(path) as archive:
            members = _members(archive, whole, where)
            config, weights = archive.read(members[CONFIG]), archive.read(members[WEIGHTS])
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror or error}.", where=where, hint="name a .keras file"
        ) from None
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise DataError(f"this is no Keras 3 file: {error}.", where=where, hint=_HINT) from None
    architecture = checked_architecture(_parsed(config, where), where)
    return KerasFile(architecture, weights, hashlib.sha256(config + b"\0" + weights).hexdigest())


def _members(archive: zipfile.ZipFile, whole: int, where: str) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        if member.filename not in (CONFIG, METADATA, WEIGHTS):
            raise DataError(
                f"it holds {member.filename[:80]!r}, and danlu reads {CONFIG}, {METADATA} and "
                f"{WEIGHTS} alone.",
                where=where,
                hint="layers that keep files of their own (StringLookup, TextVectorization) stay "
                "outside: danlu prepares its columns itself",
            )
        if member.filename in members:
            raise DataError(f"it holds {member.filename} twice.", where=where, hint=_HINT)
        if (
            member.file_size > MOST_PACKED * max(member.compress_size, 1)
            or member.compress_size > whole
        ):
            raise DataError(
                f"{member.filename} says it unpacks to {member.file_size:,} bytes, which cannot "
                "be.",
                where=where,
                hint=_HINT,
            )
        members[member.filename] = member
    missing = [name for name in (CONFIG, WEIGHTS) if name not in members]
    if missing:
        raise DataError(
            f"it holds no {' and no '.join(missing)}, so it is no Keras 3 file.",
            where=where,
            hint=_HINT,
        )
    if members[CONFIG].file_size > LARGEST_CONFIG:
        raise DataError(
            f"its {CONFIG} of {members[CONFIG].file_size:,} bytes is too large.",
            where=where,
            hint=_HINT,
        )
    return members


def _parsed(config: bytes, where: str) -> Any:
    try:
        return json.loads(config)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"its {CONFIG} is no JSON: {type(error).__name__}.", where=where, hint=_HINT
        ) from None


# --- what it is built of --------------------------------------------------------------------------


def checked_architecture(architecture: object, where: str = "model.architecture") -> dict[str, Any]:
    """The config of a network as danlu builds it: only Keras' own layers, in float32, without
    initializers (the weights come from their file).

    Raises PartError naming what is not allowed: a Lambda, an object from elsewhere, another
    precision, an impossible size.

    >>> checked_architecture({"class_name": "Lambda"})
    Traceback (most recent call last):
    danlu.errors.PartError: model.architecture: it describes no functional or sequential model...
    """
    if not isinstance(architecture, dict) or architecture.get("class_name") not in MODELS:
        raise PartError("it describes no functional or sequential model.", where=where, hint=_HINT)
    network = _object(architecture, where, 0)
    if network["config"].get("layers") is None:
        raise PartError(
            "it is a model of a class of its own, and danlu builds functional and sequential ones.",
            where=where,
            hint="make it functional: keras.Model(inputs, outputs)",
        )
    return network


def _plain(value: Any, where: str, depth: int) -> Any:
    if depth > DEEPEST:
        raise PartError(
            f"its config goes more than {DEEPEST} levels deep.", where=where, hint=_HINT
        )
    if isinstance(value, dict):
        return (
            _object(value, where, depth) if "class_name" in value else _mapping(value, where, depth)
        )
    if isinstance(value, list | tuple):
        return [_plain(entry, where, depth + 1) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise PartError(f"its config holds {value}, which is no number.", where=where, hint=_HINT)
    if (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) >= _LARGEST_NUMBER
        and float(value).is_integer()
    ):
        raise PartError(
            f"its config holds {value:.6g}, which no size can be.", where=where, hint=_HINT
        )
    return value


def _object(value: dict[str, Any], where: str, depth: int) -> dict[str, Any]:
    name, module = value["class_name"], value.get("module")
    inner = value.get("config")
    if name == "__keras_tensor__":  # where an argument of a layer comes from
        return {"class_name": name, "config": _mapping(inner or {}, where, depth + 1)}
    if not isinstance(module, str) or name not in ALLOWED.get(module, ()):
        raise PartError(
            f"it holds {str(name)[:60]!r} of {str(module)[:60]!r}, which danlu does not let in: "
            "only Keras' own layers are, and no Lambda.",
            where=where,
            hint="build the network of standard layers (Dense, Conv2D, LSTM, ...) and save it "
            "again",
        )
    if not isinstance(inner, dict):
        raise PartError(f"its {name} has no config.", where=where, hint=_HINT)
    if name == "DTypePolicy" and inner.get("name") != "float32":
        raise PartError(
            f"a layer computes in {str(inner.get('name'))[:40]}, and danlu's own train.precision "
            "decides that.",
            where=where,
            hint="save the network under keras.config.set_dtype_policy('float32')",
        )
    if name == "Normalization" and inner.get("mean") is None:
        raise PartError(
            "its Normalization was adapted to data, and keeps what it learnt outside of its "
            "variables.",
            where=where,
            hint="make it of the numbers: keras.layers.Normalization(mean=..., variance=...); or "
            "leave it out, danlu scales its columns itself",
        )
    rest = {
        key: entry
        for key, entry in value.items()
        if key not in (*_NOT_KEPT, "class_name", "module", "config")
    }
    clean = {
        "module": module,
        "class_name": name,
        "config": _mapping(inner, where, depth + 1),
        "registered_name": None,
    }
    return {**clean, **_mapping(rest, where, depth + 1)}


def _mapping(value: Any, where: str, depth: int) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise PartError(
            "its config holds a value where a mapping belongs.", where=where, hint=_HINT
        )
    clean = {}
    for key, entry in value.items():
        if isinstance(entry, str) and "activation" in str(key) and entry not in ACTIVATIONS:
            raise PartError(
                f"it names the activation {entry[:60]!r}, which is none of Keras'.",
                where=where,
                hint=_HINT,
            )
        if (
            key == "dtype"
            and isinstance(entry, str)
            and entry not in ("float32", "int32", "int64", "uint8", "bool")
        ):
            raise PartError(
                f"it computes in {entry[:40]}, and danlu's own train.precision decides that.",
                where=where,
                hint=_HINT,
            )
        if str(key).endswith("_initializer"):  # the weights come from their file
            clean[str(key)] = None if entry is None else dict(_ZEROS)
            continue
        clean[str(key)] = _plain(entry, where, depth + 1)
    return clean


def objects_in(architecture: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every layer and every other object of a checked architecture, the outermost first.

    >>> dense = {"class_name": "Dense", "config": {}}
    >>> model = {"class_name": "Sequential", "config": {"layers": [dense]}}
    >>> [found["class_name"] for found in objects_in(model)]
    ['Sequential', 'Dense']
    """
    stack: list[Any] = [architecture]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            if "class_name" in value and value["class_name"] != "__keras_tensor__":
                yield value
            stack.extend(reversed(list(value.values())))
        elif isinstance(value, list):
            stack.extend(reversed(value))


# --- the weights ----------------------------------------------------------------------------------


def check_weights(weights: bytes, where: str) -> None:
    """Raises DataError where the bytes of an HDF5 file contain a link to another file, arrays
    larger than they can hold, or anything but numbers. MissingExtra without the library h5py."""
    try:
        import h5py
    except ImportError:
        raise MissingExtra("the library h5py", "keras", "a Keras file") from None
    try:
        with h5py.File(io.BytesIO(weights), "r") as file:
            _look_through(h5py, file, len(weights))
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError) as error:
        cause = str(error).split("\n")[0][:200]
        raise DataError(f"its {WEIGHTS} is not sound: {cause}.", where=where, hint=_HINT) from None


def _look_through(h5py: Any, file: Any, size: int) -> None:
    total, count, groups = 0, 0, [file]
    seen = {file.id.__hash__()}
    while groups:
        group = groups.pop()
        for name in group:
            count += 1
            if count > MOST_MEMBERS:
                raise ValueError(f"it has more than {MOST_MEMBERS:,} members")
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"{name} is a link to elsewhere")
            member = group[name]
            if isinstance(member, h5py.Group):
                key = h5py.h5o.get_info(member.id).addr
                if key not in seen:
                    seen.add(key)
                    groups.append(member)
                continue
            if not isinstance(member, h5py.Dataset) or member.dtype.kind not in "fiub":
                raise ValueError(f"{name} holds no numbers")
            if member.external or member.is_virtual:
                raise ValueError(f"{name} keeps its numbers in another file")
            total += member.dtype.itemsize * math.prod(member.shape)
            if total > MOST_SPREAD * size:
                raise ValueError(
                    f"its arrays say they hold {total:,} bytes, and the file has {size:,}"
                )
