"""Tiny random checkpoints in the layout of Hugging Face, each with a real tokenizer, and sentences to learn from."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def sentences(count: int = 120, seed: int = 0) -> list[dict[str, str]]:
    """Short reviews: what is said of the film tells the label."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        label = draw.choice(["bad", "good"])
        words = draw.choices(
            ["the", "film", "is", "a", "play", "and", "story"], k=draw.randint(3, 8)
        )
        words.insert(
            draw.randrange(len(words)),
            draw.choice({"good": ["great", "lovely"], "bad": ["awful", "dull"]}[label]),
        )
        rows.append({"text": " ".join(words), "label": label})
    return rows


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def word_pieces(folder: Path) -> int:
    """A WordPiece tokenizer as BERT's, its special tokens in places of their own; gives its
    size."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=90, special_tokens=["[unused0]", *SPECIAL], show_progress=False
    )
    made.train_from_iterator([row["text"] for row in sentences()], trainer)
    ids = [(name, made.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=ids
    )
    made.save(str(folder / "tokenizer.json"))
    return made.get_vocab_size()


def byte_pairs(folder: Path, special: list[str]) -> int:
    """A byte-level tokenizer as GPT-2's or Llama 3's; gives its size."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([row["text"] for row in sentences()], trainer)
    made.save(str(folder / "tokenizer.json"))
    return made.get_vocab_size()


def bert(folder: Path, labels: dict[int, str] | None = None) -> Path:
    """A BERT of two layers: for masked words, or with a head that tells `labels` apart."""
    import transformers

    folder.mkdir()
    size = word_pieces(folder)
    torch.manual_seed(1)
    config = transformers.BertConfig(
        vocab_size=size, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=40, pad_token_id=1, **({"id2label": labels} if labels else {}),
    )  # fmt: skip
    kind = transformers.BertForSequenceClassification if labels else transformers.BertForMaskedLM
    _shaken(kind(config)).save_pretrained(folder)
    return folder


def roberta(folder: Path, labels: dict[int, str] | None = None) -> Path:
    """Of two layers: for masked words, or with a head that tells `labels` apart; places are counted
    from its code of padding on."""
    import transformers

    folder.mkdir()
    size = byte_pairs(folder, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    torch.manual_seed(9)
    config = transformers.RobertaConfig(
        vocab_size=size, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=42, type_vocab_size=1, **({"id2label": labels} if labels else {}),
    )  # fmt: skip
    kind = (
        transformers.RobertaForSequenceClassification if labels else transformers.RobertaForMaskedLM
    )
    _shaken(kind(config)).save_pretrained(folder)
    return folder


def distilbert(folder: Path, labels: dict[int, str] | None = None) -> Path:
    """Of two layers: for masked words, or with a head that tells `labels` apart."""
    import transformers

    folder.mkdir()
    size = word_pieces(folder)
    torch.manual_seed(10)
    config = transformers.DistilBertConfig(
        vocab_size=size, dim=32, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=40, pad_token_id=1,
        **({"id2label": labels} if labels else {}),
    )  # fmt: skip
    kind = (
        transformers.DistilBertForSequenceClassification
        if labels
        else transformers.DistilBertForMaskedLM
    )
    _shaken(kind(config)).save_pretrained(folder)
    return folder


def gpt2(folder: Path) -> Path:
    import transformers

    folder.mkdir()
    size = byte_pairs(folder, ["<|endoftext|>"])
    torch.manual_seed(2)
    config = transformers.GPT2Config(
        vocab_size=size,
        n_positions=48,
        n_embd=32,
        n_layer=2,
        n_head=4,
        bos_token_id=0,
        eos_token_id=0,
    )
    _shaken(transformers.GPT2LMHeadModel(config)).save_pretrained(folder)
    return folder


def llama(folder: Path) -> Path:
    import transformers

    folder.mkdir()
    size = byte_pairs(folder, ["<unk>", "<s>", "</s>"])
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=size, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    _shaken(transformers.LlamaForCausalLM(config)).save_pretrained(folder)
    return folder


def t5(folder: Path) -> Path:
    import transformers

    folder.mkdir()
    size = byte_pairs(folder, ["<pad>", "</s>", "<unk>"])
    torch.manual_seed(6)
    config = transformers.T5Config(
        vocab_size=size,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
        feed_forward_proj="gated-gelu",
    )
    _shaken(transformers.T5ForConditionalGeneration(config)).save_pretrained(folder)
    return folder


def bart(folder: Path) -> Path:
    import transformers

    folder.mkdir()
    size = byte_pairs(folder, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    torch.manual_seed(7)
    config = transformers.BartConfig(
        vocab_size=size, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=64,
    )  # fmt: skip
    _shaken(transformers.BartForConditionalGeneration(config)).save_pretrained(folder)
    return folder


def marian(folder: Path) -> Path:
    import transformers

    folder.mkdir()
    size = byte_pairs(folder, ["</s>", "<unk>", "<pad>"])
    torch.manual_seed(8)
    config = transformers.MarianConfig(
        vocab_size=size, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=64, pad_token_id=2, eos_token_id=0, forced_eos_token_id=0,
        decoder_start_token_id=2, bos_token_id=None,
    )  # fmt: skip
    _shaken(transformers.MarianMTModel(config)).save_pretrained(folder)
    return folder


def vit(folder: Path) -> Path:
    import transformers

    torch.manual_seed(4)
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, image_size=16, patch_size=4,
        id2label={0: "red", 1: "green", 2: "blue"},
    )  # fmt: skip
    _shaken(transformers.ViTForImageClassification(config)).save_pretrained(folder)
    return _preprocessor(folder, {"height": 16, "width": 16})


def resnet(folder: Path) -> Path:
    import transformers

    torch.manual_seed(5)
    config = transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        layer_type="basic",
        id2label={0: "red", 1: "green", 2: "blue"},
    )
    _shaken(transformers.ResNetForImageClassification(config)).save_pretrained(folder)
    return _preprocessor(folder, {"shortest_edge": 16})


def deit(folder: Path) -> Path:
    import transformers

    torch.manual_seed(11)
    config = transformers.DeiTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, image_size=16, patch_size=4,
        id2label={0: "red", 1: "green", 2: "blue"},
    )  # fmt: skip
    _shaken(transformers.DeiTForImageClassification(config)).save_pretrained(folder)
    return _preprocessor(folder, {"height": 16, "width": 16})


def convnext(folder: Path) -> Path:
    import transformers

    torch.manual_seed(12)
    config = transformers.ConvNextConfig(
        hidden_sizes=[8, 16],
        depths=[1, 1],
        num_stages=2,
        patch_size=2,
        id2label={0: "red", 1: "green", 2: "blue"},
    )
    _shaken(transformers.ConvNextForImageClassification(config)).save_pretrained(folder)
    return _preprocessor(folder, {"shortest_edge": 16})


def _preprocessor(folder: Path, size: dict[str, int]) -> Path:
    said = {
        "size": size,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "do_normalize": True,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(said), encoding="utf-8")
    return folder


def _shaken(module: torch.nn.Module) -> torch.nn.Module:
    """Weights large enough that what is wrong shows."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return module
