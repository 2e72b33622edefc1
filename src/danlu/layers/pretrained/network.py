"""Networks of the library transformers as torch modules with danlu's codes, places and pixels.

B batch, T places, S visible places, V codes, C channels, H height, W width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from danlu.errors import ArtifactError, MissingExtra, PartError
from danlu.layers.generation.kv_cache import Cache, Cached, NewPlaces
from danlu.terms import BEGINNING, END, PADDING

NEVER = -1e4  # the logit of a code that the checkpoint lacks
ONE_CHECKPOINT = "give the config.json and the weights of one checkpoint"


def library() -> Any:
    """The library transformers. Raises MissingExtra where it is not installed."""
    try:
        import transformers
    except ImportError:
        raise MissingExtra(
            "the library transformers", "huggingface", "a pretrained model"
        ) from None
    return transformers


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silences what transformers logs inside the `with`; danlu reports what a user must know."""
    logging = library().utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


class Pretrained(nn.Module):
    """The base class: `body` is the network of transformers, `labels` are the classes of its
    head."""

    def __init__(self, body: nn.Module, labels: Sequence[str]) -> None:
        super().__init__()
        self.body = body
        self.labels = tuple(labels)

    def load(
        self, weights: Mapping[str, Tensor], checkpoint_labels: Sequence[str], where: str
    ) -> list[str]:
        """Load the `weights` of a checkpoint; gives the names of the tensors that it lacks, which
        keep their random values.

        `checkpoint_labels` are the classes of the checkpoint. Its head is loaded only where it has
        the same classes, and its rows are reordered: an equal number of classes is not enough.
        Raises ArtifactError where no tensor fits, or one has another shape or entries that are no
        finite numbers; messages call the checkpoint `where`.
        """
        other, info = self._with(weights, where)
        mismatched = {str(mismatch[0]) for mismatch in info["mismatched_keys"]}
        refused = sorted(name for name in mismatched if not is_head(name))
        if refused:
            raise ArtifactError(
                f"the tensor {refused[0]} has another shape than its config.json says.",
                where=where,
                hint=ONE_CHECKPOINT,
            )
        missing = {*info["missing_keys"], *mismatched}
        heads = {
            name
            for name, parameter in self.body.named_parameters()
            if is_head(name) and len(parameter) == len(self.labels)
        }
        order = (
            [list(checkpoint_labels).index(name) for name in self.labels]
            if set(checkpoint_labels) == set(self.labels)
            else None
        )
        missing |= heads if order is None else set()
        own, loaded = self.body.state_dict(), other.state_dict()
        if not set(own) - missing:
            raise ArtifactError("none of its tensors is one of this network.", where=where)
        for name, tensor in own.items():
            if name not in missing:
                if not bool(loaded[name].isfinite().all()):
                    raise ArtifactError(
                        f"the tensor {name} has entries that are no finite numbers.",
                        where=where,
                        hint="download the checkpoint again",
                    )
                tensor.copy_(
                    loaded[name][order] if order is not None and name in heads else loaded[name]
                )
        return sorted(f"body.{name}" for name in missing if name in own)

    def _with(self, weights: Mapping[str, Tensor], where: str) -> tuple[nn.Module, dict[str, Any]]:
        """(the network with the weights of a checkpoint, what transformers says of the others)."""
        with quiet_transformers(), torch.random.fork_rng(devices=[]):
            try:
                # no folder: transformers would read other files of it, and follow their paths
                return type(self.body).from_pretrained(  # type: ignore[attr-defined]
                    None,
                    state_dict=dict(weights),
                    local_files_only=True,
                    use_safetensors=True,
                    trust_remote_code=False,
                    dtype=torch.float32,
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,
                    config=self.body.config,
                )
            except Exception as error:  # what weights can do to transformers has no list of types
                reason = str(error).strip().split("\n")[0][:300].rstrip(".")
                raise ArtifactError(
                    f"the checkpoint cannot be read: {reason}.", where=where, hint=ONE_CHECKPOINT
                ) from None


def is_head(name: str) -> bool:
    """Whether a parameter is of the last layer of a classifier.

    >>> is_head("classifier.weight"), is_head("encoder.weight")
    (True, False)
    """
    return name.split(".")[0] in ("classifier", "score")


class PretrainedText(Pretrained):
    """tokens_BT int64 -> logits: (B, classes); (B, T, classes); or (B, T, V) where it tells danlu's
    own codes (`tells_codes`).

    `file_codes` int64 (V,): the checkpoint's own code of each of danlu's, -1 where it has none;
    `substitute` stands for those. `limit` is how many places the network reaches. A causal network
    reads END at the beginning of a row as its own beginning of a text."""

    file_codes: Tensor
    substitute: Tensor

    def __init__(
        self,
        body: nn.Module,
        name: str,
        size: int,
        labels: Sequence[str],
        *,
        per: str,
        causal: bool,
        tells_codes: bool,
        limit: int,
    ) -> None:
        super().__init__(body, labels)
        self.name, self.per, self.causal, self.tells_codes, self.limit = (
            name,
            per,
            causal,
            tells_codes,
            limit,
        )
        self.register_buffer("file_codes", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("substitute", torch.zeros(1, dtype=torch.int64))

    def read_with(self, file_codes: Tensor) -> None:
        """Use the codes of a tokenizer: int64 (V,), the checkpoint's code of each of danlu's."""
        self.file_codes.copy_(file_codes)
        padding_codes = [int(file_codes[code]) for code in (END, PADDING) if file_codes[code] >= 0]
        self.substitute.fill_(padding_codes[0] if padding_codes else 0)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        tokens_BT = inputs[self.name]
        places = tokens_BT.shape[1]
        tokens_BT = self._within_limit(tokens_BT)
        mask_BT = tokens_BT != PADDING
        first_T = torch.arange(tokens_BT.shape[1], device=tokens_BT.device) == 0
        mask_BT = (
            mask_BT | first_T
        )  # a row of padding keeps a place: attention to nothing has no value
        ids_BT = self._ids(tokens_BT, first_T)
        if self.causal and self.per == "row":
            return self._of_last(ids_BT, mask_BT)
        logits = self.body(input_ids=ids_BT, attention_mask=mask_BT.long()).logits.float()
        if self.per == "row":
            return logits
        logits = self._in_codes(logits) if self.tells_codes else logits
        return functional.pad(logits[:, :places], (0, 0, 0, max(places - logits.shape[1], 0)))

    def _of_last(self, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """The head applied to the last token of each row, as transformers does."""
        x_BTD = self.body.base_model(
            input_ids=ids_BT, attention_mask=mask_BT.long()
        ).last_hidden_state  # type: ignore[operator, union-attr]
        last_B = mask_BT.sum(dim=1) - 1
        return self.body.score(x_BTD[torch.arange(len(x_BTD), device=x_BTD.device), last_B]).float()  # type: ignore[operator]

    def _within_limit(self, tokens_BT: Tensor) -> Tensor:
        if tokens_BT.shape[1] == 0:
            return functional.pad(tokens_BT, (0, 1))
        if tokens_BT.shape[1] <= self.limit:
            return tokens_BT
        if bool((tokens_BT[:, self.limit :] != PADDING).any()):
            raise PartError(
                f"the pretrained network reaches {self.limit:,} places, and a text has "
                f"{tokens_BT.shape[1]:,}.",
                hint="shorten the text (max_length of the transform tokenize, or the task's "
                "context)",
            )
        return tokens_BT[:, : self.limit]

    def _ids(self, tokens_BT: Tensor, first: Tensor) -> Tensor:
        """The checkpoint's codes of danlu's tokens; `first` marks the first place of a row."""
        table_V = torch.where(self.file_codes >= 0, self.file_codes, self.substitute)
        if self.causal and self.per == "token":
            tokens_BT = torch.where(first & (tokens_BT == END), BEGINNING, tokens_BT)
        return table_V[tokens_BT]

    def _in_codes(self, logits_BTV: Tensor) -> Tensor:
        """Logits of the checkpoint's codes, reordered to danlu's codes."""
        return logits_BTV[..., self.file_codes.clamp(min=0)].masked_fill(self.file_codes < 0, NEVER)


class PretrainedTagger(PretrainedText):
    """tokens_BTD int64, the D pieces of each of T words -> logits (B, T, classes), those of a
    word's first piece.

    The network reads the pieces of a row one after another, between its beginning and its end.
    """

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        tokens = inputs[self.name]
        pieces_BP = tokens.flatten(1)
        there_BP = pieces_BP != PADDING
        place_BP = there_BP.cumsum(1)  # of each piece in its row; the beginning stands at 0
        counts_B1 = there_BP.sum(1, keepdim=True)
        longest = int(counts_B1.max()) + 2
        if longest > self.limit:
            raise PartError(
                f"the pretrained network reaches {self.limit:,} places, and a sentence has "
                f"{longest:,} pieces.",
                hint="cut long sentences in the data",
            )
        codes_BL = pieces_BP.new_full(
            (len(pieces_BP), longest + 1), PADDING
        )  # the last place takes what is padding
        codes_BL.scatter_(1, torch.where(there_BP, place_BP, longest), pieces_BP)
        codes_BL = codes_BL[:, :longest].scatter(1, counts_B1 + 1, END)
        codes_BL[:, 0] = BEGINNING
        mask_BL = torch.arange(longest, device=tokens.device) <= counts_B1 + 1
        logits_BLS = self.body(
            input_ids=self._ids(codes_BL, mask_BL), attention_mask=mask_BL.long()
        ).logits.float()
        first_BT = place_BP.reshape(*tokens.shape[:2], -1)[:, :, 0] if tokens.shape[1] else place_BP
        return logits_BLS.gather(1, first_BT[:, :, None].expand(-1, -1, logits_BLS.shape[2]))


class PretrainedWriter(PretrainedText, Cached):
    """A causal network that predicts the next code and generates text with a cache."""

    def cache(self, batch: int, length: int) -> Cache:
        """An empty cache for `batch` rows with room for `length` tokens each."""
        return Cache(batch, length, self.body.config.num_hidden_layers)  # type: ignore[union-attr, arg-type]

    def extend(
        self, tokens_BT: Tensor, cache: Cache, sizes_B: Tensor | Sequence[int] | None = None
    ) -> Tensor:
        """Append tokens to the cache and give their logits_BTV; see Cached."""
        places = cache.places(tokens_BT.shape[1], tokens_BT.device)
        if cache.longest + (tokens_BT.shape[1] if sizes_B is None else 0) > self.limit:
            raise PartError(
                f"the pretrained network reaches {self.limit:,} places, and a text is longer.",
                hint="lower task.context",
            )
        visible_B1TS = (
            torch.arange(places.end, device=tokens_BT.device) <= places.positions[..., None]
        ).unsqueeze(1)
        logits_BTV = self.body(
            input_ids=self._ids(tokens_BT, places.positions == 0),
            position_ids=places.positions.clamp(max=self.limit - 1),  # beyond stands padding
            attention_mask=visible_B1TS,
            past_key_values=CacheAdapter(cache, places),
            use_cache=True,
        ).logits.float()
        cache.advance(tokens_BT.shape[1], sizes_B)
        return self._in_codes(logits_BTV)


class CacheAdapter:
    """danlu's Cache with the interface of transformers' own."""

    is_compileable = False

    def __init__(self, cache: Cache, places: NewPlaces) -> None:
        self.kept, self.places = cache, places

    def update(
        self, keys: Tensor, values: Tensor, layer_idx: int, *others: Any, **named: Any
    ) -> tuple[Tensor, Tensor]:
        """Store the keys and values of new places; gives those of all places."""
        return self.kept.write(layer_idx, self.places, keys, values)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """How many places the cache held before."""
        return self.places.end - self.places.positions.shape[1]


class PretrainedImage(Pretrained):
    """image_BCHW -> logits (B, classes). Images come as danlu scales them, and are brought to the
    scale and size of the checkpoint.

    `ours` and `theirs` are (mean, std) by channel of pixel / 255; `size` (height, width), None
    where any will do."""

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        body: nn.Module,
        labels: Sequence[str],
        ours: tuple[Sequence[float], Sequence[float]],
        theirs: tuple[Sequence[float], Sequence[float]],
        channels: int,
        size: tuple[int, int] | None,
    ) -> None:
        super().__init__(body, labels)
        (mean, std), (mean_there, std_there) = (
            [
                torch.tensor(
                    list(numbers) * (channels if len(numbers) == 1 else 1), dtype=torch.float64
                )
                for numbers in pair
            ]
            for pair in (ours, theirs)
        )
        self.channels, self.size = channels, size
        self.register_buffer("scale", (std / std_there).float()[:, None, None], persistent=False)
        self.register_buffer(
            "shift", ((mean - mean_there) / std_there).float()[:, None, None], persistent=False
        )

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        x_BCHW = inputs["image"]
        if self.size is not None and x_BCHW.shape[2:] != self.size:
            x_BCHW = functional.interpolate(
                x_BCHW, self.size, mode="bilinear", align_corners=False, antialias=True
            )
        x_BCHW = x_BCHW.expand(-1, self.channels, -1, -1) if x_BCHW.shape[1] == 1 else x_BCHW
        return self.body(pixel_values=x_BCHW * self.scale + self.shift).logits.float()
