"""Networks of pretrained checkpoints."""
