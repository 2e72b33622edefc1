"""Plain nn.Modules and tensor functions that parts share. A library, not a shelf: nothing here is found by name in a recipe."""
