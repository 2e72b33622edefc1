"""The command line: each verb is a file here and calls one function of `danlu`.

`app` finds the verbs, `options` declares the options that several verbs share, `render` turns
results into text, `output` prints."""
