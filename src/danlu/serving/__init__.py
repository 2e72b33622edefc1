"""The artifact behind HTTP: one front process that speaks HTTP, and for each model a worker process that answers.

    server    `serve`: opens models, listens, drains at SIGTERM, swaps models at SIGHUP
    app       the routes; `predicting` is the quick one, `gate` stands before all of them
    workers   the Pool of worker processes: replaced when they die or hang, asked again what they held
    worker    a worker process: takes what lies in its inbox, answers as many rows at a time as pay
    models    what a worker opens: an artifact (torch) or an export (ONNX Runtime, without torch)

The front never parses a body: what is hostile in it meets a process that can be replaced.
"""
