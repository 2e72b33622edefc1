"""A recipe's data, from files to batches.

Start with dataset.py: `prepare` does all of it, in this order. Which file answers which question:

    cache.py             Where is a table stored on disk, and when is a source read again?
    documents.py         How do the rows of a text become documents in pieces?
    splitting.py         What do the splits (random, stratified, ...) share?
    folds.py             How are rows cut into folds for cross-validation?
    checks.py            Which leaks, repeated rows and rare classes does danlu warn of?
    fingerprints.py      Which rows are equal?
    preprocessing.py     Which columns are inputs, and how do rows become a model's arrays?
    column_pipeline.py   Which transforms run over one column; how are they fitted and stored?
    matrix.py            How is a number column read as a matrix?
    examples.py          What is an example where it is not a row (windows, texts)?
    gather.py            How are the tensors of a batch gathered?
    batches.py           Which rows form batch n?
    new_recipe.py        How does `danlu new` draft a recipe from a data file?
"""
