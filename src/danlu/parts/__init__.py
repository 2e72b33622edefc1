"""The shelves of training. Each folder is a shelf, each file on it a part that a recipe can name; files with a leading underscore are shared."""
