"""Sources: where rows come from.

A part offers
  Config       its options, a danlu.recipe.Options
  build(config, columns) -> Table         reads everything
  files(config) -> list[Path]             the files that `build` reads
  SUFFIXES, claims, version, NAMES_IMAGES (optional)
               see danlu.parts.sources._base.Source, which says what each is

Rows keep the order of the file, and the same files always give the same table. Nothing is
downloaded or executed. Imports at the top of the file stay light (no torch, pyarrow or sklearn): a
recipe is checked without them.
"""
