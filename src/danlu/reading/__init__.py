"""Bytes and raw values to typed columns: a library for sources, prediction and `danlu new`.

Which file answers which question:

    columns.py          How do the rows of a prediction become the columns a model was trained on?
    inference.py        What kind is a column (number, category, date-time, text), and why?
    without_pyarrow.py  How are rows of known kinds read where pyarrow is not installed?
    number_formats.py   Is "1.234,5" a number, and which?
    date_formats.py     Is "03/04/2011" a date, and which?
    word_lists.py       How does a text, or a list of words, become a sequence column?
    nested_lists.py     How do lists of lists of numbers become a frames column?
    image_files.py      How does an image file become pixels, safely?
    image_checks.py     What may an image file cost to decode?
    audio_files.py      How does a recording become samples at one rate?
    decoded_size.py     How many bytes may a file decode to?
    files.py            Is a file there, readable, compressed? Which files does a pattern name?
    multi_file.py       How do several files become one table?
    class_folders.py    How do folders name the classes and splits of their files?
    charsets.py         Which character encoding is a file in?
    lines.py            How is a text in memory cut into lines?
    text_blocks.py      How is a text file larger than memory read?
    growing_array.py    Where is an array larger than memory collected?
    arrow.py            How are pyarrow's functions called, and masks of rows made?
    hugging_face.py     What does the folder of a Hugging Face checkpoint hold?
    hugging_face_config.py  Which values may a checkpoint's config.json have?
    safetensors_header.py   Which tensors does a safetensors file hold?
    foreign_folder.py   How is a file of a folder opened that somebody else wrote?
    keras_file.py       What does a .keras file hold, and is it safe?
"""
