"""danlu's own models as checkpoints of Hugging Face, and back.

    # a gpt with the parts of a Llama, or an encoder with those of a BERT
    files = danlu.write_hugging_face(danlu.load("runs/book"), "llama")
    transformers.AutoModelForCausalLM.from_pretrained("llama")
    # a Llama as danlu's gpt, a BERT as its encoder; token codes are those of its tokenizer.json
    module = danlu.read_hugging_face("llama")

Both directions keep logits and token codes. A checkpoint of another family is trained by the model
`pretrained`, which uses the network of the library transformers as it is."""

from __future__ import annotations

from danlu.artifact.hugging_face.folder import files_of, read_hugging_face, write_hugging_face

read, write = read_hugging_face, write_hugging_face  # their names before danlu offered them itself

__all__ = ["files_of", "read", "read_hugging_face", "write", "write_hugging_face"]
