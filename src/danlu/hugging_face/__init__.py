"""danlu's own models in the layout of Hugging Face, and back.

    files = hugging_face.write(artifact, "folder")      a gpt of Llama's parts: config.json, model.safetensors, tokenizer.json, ...
    transformers.AutoModelForCausalLM.from_pretrained("folder")
    module = hugging_face.read("folder")                a Llama checkpoint as danlu's gpt, its codes those of the file

`write` gives equal logits and equal codes. Other checkpoints are used as they are by the model pretrained.
"""

from __future__ import annotations

from danlu.hugging_face.folder import read, write

__all__ = ["read", "write"]
