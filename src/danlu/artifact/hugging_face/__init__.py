"""danlu's own models in the layout of Hugging Face, and back.

    # write: a gpt of Llama's parts, or an encoder of BERT's
    files = hugging_face.write(artifact, "folder")
    transformers.AutoModelForCausalLM.from_pretrained("folder")
    # read: a Llama checkpoint as danlu's gpt, a BERT as its encoder; codes are those of the file
    module = hugging_face.read("folder")

`write` gives equal logits and equal codes. Other checkpoints are used as they are by the model
pretrained."""

from __future__ import annotations

from danlu.artifact.hugging_face.folder import files_of, read, write

__all__ = ["files_of", "read", "write"]
