"""A pretrained Hugging Face checkpoint: BERT, GPT-2, Llama, T5, BART, Marian, ViT, ResNet.

family                        task
bert, roberta, distilbert     classification or regression of one text; token_classification;
                              masked_language_modeling
gpt2, llama                   language_modeling, then danlu generate; classification of one text
t5, bart, marian              sequence_to_sequence, with beam search
vit, deit, resnet, convnext   classification of images

`path` is a folder as save_pretrained writes it, or owner/name of a checkpoint that was downloaded
from the Hub before (download: true fetches it). Weights are read from safetensors only, and no code
of the checkpoint is executed. Texts are tokenized with the checkpoint's tokenizer.json, and images
are scaled as its preprocessor config says. A head for other classes than the checkpoint's is
initialised at random. The artifact contains everything: it no longer needs the folder. Section
finetune freezes layers, gives them different learning rates, or trains low-rank adapters (LoRA).
`weights` starts from a danlu artifact of such a model, for example after training on masked words.
Needs the library transformers: pip install 'danlu[huggingface]'.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from danlu import registry
from danlu.data import documents
from danlu.errors import ArtifactError, PartError
from danlu.reading import hugging_face
from danlu.recipe import Data, Options, Part
from danlu.system.atomic_files import read_checked_json
from danlu.system.trust import lookups_are_allowed, remote_is_allowed
from danlu.terms import END

if TYPE_CHECKING:
    from torch import nn

    from danlu.layers.pretrained.network import PretrainedText
    from danlu.terms import InputSpec, OutputSpec

TAKES = ("tokens", "image")
GIVES = ("row", "token")
DEFAULTS = {
    "optimizer": {"name": "adamw", "learning_rate": 5e-5, "weight_decay": 0.01},
    "schedule": {"name": "linear", "warmup": 0.1},
    "train.epochs": 3,
    "train.least_steps": 0,
    "train.batch_size": 16,
    "train.clip_norm": 1.0,
}
BOTH_WAYS = ("bert", "roberta", "distilbert")  # attention in both directions
CAUSAL = ("gpt2", "llama")
ANSWERING = ("t5", "bart", "marian")  # encoder and decoder
IMAGE = ("vit", "deit", "resnet", "convnext")
DECODER = "decoder"  # the input that holds the target tokens so far
_USUAL_LENGTH = 256  # most tokens per text by default
# the memory that a network may take for each byte of an artifact's weights, and beside
_PACKED, _BESIDE = 40, 1 << 30
_LEAST_PLACES = 4  # a beginning, a token, an end, and the end that a decoder writes


class Config(Options):
    """The checkpoint."""

    path: str | None = Field(
        None, description="The folder of the checkpoint, or owner/name on the Hugging Face Hub."
    )
    weights: str | None = Field(
        None,
        description="An artifact (or run) of a pretrained model that this one starts from, "
        "instead of path.",
    )
    download: bool = Field(
        False,
        description="Download a checkpoint from the Hub if it is not in the local cache; needs "
        "--allow-remote.",
    )
    architecture: dict[str, Any] | None = Field(
        None,
        description="The architecture, as an artifact stores it; null: read from the checkpoint.",
    )

    @field_validator("download")
    @classmethod
    def _download_is_permitted(cls, value: bool) -> bool:
        if value and not remote_is_allowed():
            raise ValueError(
                "must be permitted with --allow-remote (in Python: "
                "danlu.system.trust.allow_remote()), since it fetches files from the network"
            )
        return value


def adapt(config: Config, data: Data) -> Data:
    """The data section with the checkpoint's tokenizer for texts and its size for images."""
    architecture = _architecture(config)
    family = _family(architecture)
    if family in IMAGE:
        return _sized(architecture, data)
    if config.path is None and config.weights is None:
        return data
    path = config.weights or str(hugging_face.tokenizer_path(_folder(config)))
    framed = {
        "beginning": family not in ("gpt2", "t5", "marian"),
        "end": family in (*BOTH_WAYS, *ANSWERING),
    }
    borrowed = {"kind": "file", "tokenizer": path, **framed}

    def change(part: Part) -> Part:
        longest = min(_limit(architecture), part.options.max_length or _limit(architecture))  # type: ignore[attr-defined]
        return Part(
            part.name, type(part.options).model_validate({**borrowed, "max_length": longest})
        )

    texts = data.transforms.get("text")
    usual: dict[Any, list[Part]] = (
        {}
        if texts is not None
        else {"text": [_tokenize(borrowed, min(_limit(architecture), _USUAL_LENGTH))]}
    )
    if "sequence" not in data.transforms:
        usual["sequence"] = [
            Part(
                "word_pieces",
                registry.config("transforms", "word_pieces").model_validate({"tokenizer": path}),
            )
        ]
    data = documents.change_tokenize(data, change)
    return data.model_copy(update={"transforms": {**usual, **data.transforms}})


def adapt_task(config: Config, task: Part) -> Part:
    """The task with the checkpoint's tokenizer for its targets."""
    if task.name != "sequence_to_sequence" or (config.path is None and config.weights is None):
        return task
    path = config.weights or str(hugging_face.tokenizer_path(_folder(config)))
    borrowed = {"kind": "file", "tokenizer": path, "vocabulary": None, "lower": False}
    return Part(task.name, task.options.model_copy(update=borrowed))


def build(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> nn.Module:
    """The network with random weights; `begin` loads those of the checkpoint. PartError where it
    cannot do what the task asks."""
    architecture = _architecture(config)
    family = _family(architecture)
    if family in IMAGE:
        return _image(config, architecture, inputs, output)
    return (
        _answering(config, architecture, inputs, output)
        if family in ANSWERING
        else _text(config, architecture, family, inputs, output)
    )


def begin(config: Config, module: nn.Module) -> tuple[str, str, tuple[str, ...]]:
    """Load the checkpoint's weights and token codes into the module; returns (SHA-256, notice,
    names of tensors that stay random)."""
    import torch

    from danlu.layers.pretrained.network import Pretrained, PretrainedText
    from danlu.tokenizing.tokenizer_file import FileTokenizer

    if config.path is None:
        raise PartError(
            "a pretrained model to train needs its weights.",
            hint="name the folder of the checkpoint: model.path",
        )
    assert isinstance(module, Pretrained)
    folder = _folder(config)
    digest = hugging_face.digest(folder)
    if isinstance(module, PretrainedText):
        codes = FileTokenizer.read(str(hugging_face.tokenizer_path(folder))).file_codes
        if len(codes) != len(module.file_codes):
            raise PartError(
                f"the checkpoint's tokenizer has {len(codes):,} codes, and the texts come in "
                f"{len(module.file_codes):,}.",
                hint="let a text column be read by tokenize alone; its tokenizer is then the "
                "checkpoint's",
            )
        if int(codes.max()) >= module.body.config.vocab_size:  # type: ignore[union-attr, operator]
            raise PartError(
                "the checkpoint's tokenizer has more codes than its network.",
                hint="give the tokenizer it was trained with",
            )
        if module.tells_codes and codes[END] < 0:
            raise PartError(
                "the checkpoint's tokenizer has no token that ends a text (</s>, <|endoftext|>, "
                "[SEP])."
            )
        module.read_with(torch.from_numpy(codes))
    weights = hugging_face.read_weights(folder)
    fresh = module.load(weights, _architecture(config)["labels"], str(folder))
    own = len(module.body.state_dict())
    notice = f"{own - len(fresh)} of {own} tensors of the model are those of {config.path}"
    return (
        digest,
        f"{notice}; initialized at random are {', '.join(fresh)}." if fresh else f"{notice}.",
        tuple(fresh),
    )


def settled(config: Config) -> Config:
    """The options with the architecture of the checkpoint instead of its path."""
    return Config(architecture=_architecture(config))  # type: ignore[call-arg]


def _architecture(config: Config) -> dict[str, Any]:
    if config.architecture is not None:
        return config.architecture
    if not lookups_are_allowed():
        raise PartError(
            "this artifact does not contain its network's architecture, and the checkpoint it "
            "names is not read."
        )
    if config.weights is not None:
        return _of_artifact(config.weights)
    if config.path is None:
        raise PartError(
            "the model pretrained needs a checkpoint.",
            hint="name its folder, or owner/name on the Hub: model.path",
        )
    return hugging_face.architecture(_folder(config))


def _folder(config: Config) -> Path:
    assert config.path is not None
    if not lookups_are_allowed():
        raise PartError(f"this artifact names a checkpoint ({config.path}), which is not read.")
    if config.download and not remote_is_allowed():  # the options may be older than the permission
        raise PartError(f"downloading {config.path} is not permitted.", hint="add --allow-remote")
    return hugging_face.locate(config.path, config.download)


def _of_artifact(path: str) -> dict[str, Any]:
    """The architecture that an artifact stores. ArtifactError where it stores none."""
    try:
        stored = read_checked_json(_manifest(path))["recipe"]["model"].get("architecture")
        if not isinstance(stored, dict):
            raise ValueError("its model is no pretrained one")
        return stored
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"this is no artifact to start from: {error}.",
            where=path,
            hint="name the run of a pretrained model",
        ) from None


def _manifest(path: str) -> Path:
    """The artifact.json of an artifact or finished run. Raises ArtifactError."""
    for folder in (Path(path), Path(path) / "artifact"):
        if (folder / "artifact.json").is_file():
            return folder / "artifact.json"
    raise ArtifactError(
        "this is no artifact to start from: there is no artifact or finished run.",
        where=path,
        hint="name the run of a pretrained model",
    )


def _family(architecture: Mapping[str, Any]) -> str:
    family = str(architecture["config"].get("model_type"))
    if family not in (*BOTH_WAYS, *CAUSAL, *ANSWERING, *IMAGE):
        families = ", ".join((*BOTH_WAYS, *CAUSAL, *ANSWERING, *IMAGE))
        raise PartError(
            f"the checkpoint is of the family {family}, which danlu does not know.",
            hint=f"it knows {families}",
        )
    return family


def _limit(architecture: Mapping[str, Any]) -> int:
    """The largest number of positions that the network can read. PartError where it can read no
    text."""
    config = architecture["config"]
    places = int(
        config.get("max_position_embeddings")
        or config.get("n_positions")
        or {"llama": 2048, "gpt2": 1024, "t5": 1 << 20, "bart": 1024}.get(config["model_type"], 512)
    )
    if config["model_type"] == "roberta":  # positions are counted from its code of padding on
        padding = config.get("pad_token_id", 1)
        if padding is None:
            raise PartError(
                "the checkpoint's config names no pad_token_id, which a roberta needs.",
                hint="give the config.json that save_pretrained wrote",
            )
        places -= int(padding) + 1
    if places < _LEAST_PLACES:
        raise PartError(
            f"the checkpoint reads at most {max(places, 0):,} positions "
            "(max_position_embeddings), which is no text.",
            hint="give the config.json that save_pretrained wrote",
        )
    return places


def _tokenize(borrowed: Mapping[str, Any], longest: int) -> Part:
    return Part(
        "tokenize",
        registry.config("transforms", "tokenize").model_validate(
            {**borrowed, "max_length": longest}
        ),
    )


def _sized(architecture: Mapping[str, Any], data: Data) -> Data:
    """The data section with images of a folder resized to the checkpoint's size."""
    size = _size(architecture)
    options = data.source.options
    if size is None or data.source.name != "images" or dict(options).get("size") is not None:
        return data
    source = Part("images", options.model_copy(update={"size": list(size)}))
    return data.model_copy(update={"source": source})


def _size(architecture: Mapping[str, Any]) -> tuple[int, int] | None:
    """(height, width) of images that the network needs, or was trained with; None where unknown."""
    fixed = architecture["config"].get("image_size")
    if isinstance(fixed, int):
        return fixed, fixed
    size = (architecture.get("pixels") or {}).get("size") if fixed is None else fixed
    return (int(size[0]), int(size[1])) if size else None


def _body(
    config: Config, architecture: Mapping[str, Any], kind: str, output: OutputSpec
) -> nn.Module:
    """The network from the library transformers, with an output of this size."""
    from danlu.parts.models._pretrained_body import StoredWeights, build_body

    where, stored = "model.architecture", None
    if config.architecture is None and config.weights is not None:
        where = config.weights
        size = (_manifest(where).parent / "weights.safetensors").stat().st_size
        stored = StoredWeights(where, _PACKED * size + _BESIDE, {})
    elif config.architecture is None:
        folder = _folder(config)
        where = str(folder / "config.json")
        stored = StoredWeights.of(hugging_face.stored_tensors(folder), str(folder))
    return build_body(architecture["config"], kind, output, where, stored)


def _image(
    config: Config,
    architecture: Mapping[str, Any],
    inputs: Mapping[str, InputSpec],
    output: OutputSpec,
) -> nn.Module:
    from danlu.layers.pretrained.network import PretrainedImage

    if set(inputs) != {"image"} or output.per != "row":
        raise PartError(
            f"this checkpoint ({_family(architecture)}) answers one image, and the inputs are "
            f"{', '.join(inputs)}.",
            hint="leave other columns out (data.columns.NAME.use: false), or take a checkpoint "
            "of texts",
        )
    ours = inputs["image"]
    channels = int(architecture["config"].get("num_channels", 3))
    if ours.shape[0] not in (1, channels):
        raise PartError(
            f"the checkpoint sees {channels} channels, and the images have {ours.shape[0]}."
        )
    pixels = architecture.get("pixels") or {"mean": [0.5], "std": [0.5]}
    theirs = pixels["mean"], pixels["std"]
    for key, numbers in (("image_mean", theirs[0]), ("image_std", theirs[1])):
        if len(numbers) not in (1, channels):
            raise PartError(
                f"the checkpoint's {key} has {len(numbers)} numbers, and its network sees "
                f"{channels} channels (num_channels).",
                hint="give the preprocessor_config.json and the config.json of one checkpoint",
            )
    size = _size(architecture)
    return PretrainedImage(
        _body(config, architecture, "ImageClassification", output),
        output.names,
        (ours.mean, ours.std),
        theirs,
        channels,
        size,
    )


def _answering(
    config: Config,
    architecture: Mapping[str, Any],
    inputs: Mapping[str, InputSpec],
    output: OutputSpec,
) -> PretrainedText:
    """An encoder-decoder network: it reads one text and writes another."""
    from danlu.parts.models._pretrained_seq2seq import PretrainedSeq2Seq, opening_of

    family = _family(architecture)
    sources = {name: spec for name, spec in inputs.items() if name != DECODER}
    if DECODER not in inputs or not output.causal:
        raise PartError(
            f"a checkpoint of {family} reads one text and writes another, and this task asks for "
            "something else.",
            hint="choose task: sequence_to_sequence, or another checkpoint",
        )
    name, tokens = _only(family, sources)
    size = inputs[DECODER].cardinalities[0]
    if len(tokens.cardinalities) != 1 or tokens.cardinalities[0] != size:
        raise PartError(
            f"a checkpoint of {family} reads and writes one vocabulary; here the source has "
            f"{tokens.cardinalities[0]:,} codes and the "
            f"target {size:,}.",
            hint="let the text column be read by tokenize alone; its tokenizer is then the "
            "checkpoint's",
        )
    body = _body(config, architecture, "Seq2SeqLM", output)
    return PretrainedSeq2Seq(
        body,
        name,
        DECODER,
        size,
        opening=opening_of(architecture["config"]),
        limit=_limit(architecture),
    )


def _text(
    config: Config,
    architecture: Mapping[str, Any],
    family: str,
    inputs: Mapping[str, InputSpec],
    output: OutputSpec,
) -> nn.Module:
    from danlu.layers.pretrained.network import PretrainedTagger, PretrainedText, PretrainedWriter

    if DECODER in inputs:
        raise PartError(
            f"a checkpoint of {family} writes no text of another.",
            hint=f"take one of {', '.join(ANSWERING)}",
        )
    name, tokens = _only(family, inputs)
    size = tokens.cardinalities[0]
    tells_codes = output.per == "token" and not output.names and output.size == size
    tags = output.per == "token" and not tells_codes
    if tags != (len(tokens.cardinalities) > 1) or (tags and family in CAUSAL):
        raise PartError(
            f"a checkpoint of {family} cannot do what this task asks with texts in this form.",
            hint="an answer a word takes one of bert, roberta or distilbert, and a column of "
            "words; else a text is read by tokenize",
        )
    if tells_codes and output.causal != (family in CAUSAL):
        other = "one of gpt2 or llama" if output.causal else "one of bert, roberta or distilbert"
        raise PartError(
            f"a checkpoint of {family} cannot do what this task asks.", hint=f"take {other}"
        )
    limit = _limit(architecture)
    if tells_codes and tokens.shape[0] > limit:
        raise PartError(
            f"the checkpoint reads at most {limit:,} positions, and task.context is "
            f"{tokens.shape[0]:,}.",
            hint=f"set task.context to {limit}",
        )
    kind = "TokenClassification" if tags else "SequenceClassification"
    kind = kind if not tells_codes else "CausalLM" if output.causal else "MaskedLM"
    wrapper = (
        PretrainedTagger
        if tags
        else PretrainedWriter
        if tells_codes and output.causal
        else PretrainedText
    )
    body = _body(config, architecture, kind, output)
    labels = () if tells_codes else output.names
    return wrapper(
        body,
        name,
        size,
        labels,
        per=output.per,
        causal=family in CAUSAL,
        tells_codes=tells_codes,
        limit=limit,
    )


def _only(family: str, inputs: Mapping[str, InputSpec]) -> tuple[str, InputSpec]:
    """(name, spec) of the only input, a text."""
    if len(inputs) == 1:
        name, only = next(iter(inputs.items()))
        if only.kind == "tokens" and (len(only.cardinalities) == 1 or set(only.names) == {"piece"}):
            return name, only
    listing = ", ".join(f"{name} ({spec.kind})" for name, spec in inputs.items())
    raise PartError(
        f"this checkpoint ({family}) reads one text, and the inputs are {listing}.",
        hint="leave other columns out: data.columns.NAME.use: false",
    )
