"""Sources: where rows come from.

A part offers
  Config                               its options (a danlu.recipe.Options)
  build(config, columns) -> Table      reads everything. `columns` maps a column name to danlu.recipe.ColumnOptions (kind, on_error,
                                       use) where the recipe overrides inference; {} otherwise.
                                       Raises DataError naming file and row or column.
  files(config) -> list[Path]          the files that will be read, sorted by name, for the content hash; [] for what is bundled
                                       with an installed library (then `version(config) -> str` names the library and its version)
  SUFFIXES (optional)                  file name endings that mean this source when a recipe gives a bare path
  claims(folder) -> bool (optional)    whether a folder (a Path) that a recipe gives as a bare path means this source
  NAMES_IMAGES (optional)              True where a column may hold paths of images (kind: image), so that files(config) are not all it reads
Rows keep the order of the file. The same files always give the same table. Nothing is downloaded or executed.
Imports at the top of the file stay light (no torch, no pyarrow, no sklearn): a recipe is checked without them.
"""
