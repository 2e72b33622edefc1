"""Plain nn.Modules that model families share. A library, not a shelf: nothing here is found by name in a recipe."""
