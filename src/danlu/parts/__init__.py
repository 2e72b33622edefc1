"""The shelves of training: each folder is a shelf, each file on it a part that a recipe can name.

Files with a leading underscore are shared by the parts of their shelf."""
