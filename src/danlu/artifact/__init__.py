"""What a training leaves behind, and its use.

The folder on disk, prediction, generation, the schema of a row, Hugging Face layouts."""
