"""Artifacts and exports behind HTTP: one process speaks HTTP, and each model has a worker process.

    server     `serve`: opens models, listens, drains at SIGTERM, swaps models at SIGHUP
    on_ray     the same on a Ray cluster
    http/      connections, routes, tokens, descriptions
    page/      the page at /
    pool/      the worker processes: given requests, replaced when they die or hang
    worker/    a worker process: takes requests, answers as many rows at a time as is efficient
    text/      many texts at once from a language model
    protocol/  what all of them share: options, refusals, messages between processes

The HTTP process never parses a body: hostile bytes meet a worker, which can be replaced. Each
folder imports only those that stand below it here (text/ before worker/).
"""
