"""danlu serve: serve models over HTTP."""

from __future__ import annotations

from typing import Annotated

import typer

import danlu
from danlu.cli.options import with_key

verbs = typer.Typer()


@verbs.command()
@with_key
def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]MODEL ...",
            help="Artifacts, runs or exports; NAME: the model's name in requests.",
            show_default=False,
        ),
    ],
    host: Annotated[
        str,
        typer.Option(
            help="The address to listen on; one that other machines reach needs --token-file."
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0: any free port.")] = 8000,
    token_file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A file with the token that requests must bear."),
    ] = None,
    tls_certificate: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Certificate chain (PEM); turns on HTTPS."),
    ] = None,
    tls_key: Annotated[
        str | None, typer.Option(metavar="FILE", help="The certificate's key (PEM).")
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(help="A host name that requests may address; may be given several times."),
    ] = None,
    threads: Annotated[
        int, typer.Option(min=0, help="Threads of each model; 0: all cores but one.")
    ] = 0,
    longest_wait: Annotated[
        float,
        typer.Option(min=0.001, help="Seconds: a request expected to wait longer is answered 503."),
    ] = 0.3,
    deadline: Annotated[
        float, typer.Option(min=0.001, help="Seconds after which a request is answered 504.")
    ] = 30.0,
    most_rows: Annotated[int, typer.Option(min=1, help="The most rows of a request.")] = 4096,
    most_body: Annotated[
        int, typer.Option(min=1024, help="The most bytes of a request's body.")
    ] = 16 << 20,
    drain_seconds: Annotated[
        float,
        typer.Option(min=0, help="Seconds that accepted requests have to finish after SIGTERM."),
    ] = 30.0,
    on: Annotated[
        str | None, typer.Option(metavar="ray", help="Serve on a running Ray cluster.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="The cluster's address; default: RAY_ADDRESS, else this machine's."),
    ] = None,
    replicas: Annotated[
        str, typer.Option(metavar="N|LOW:HIGH", help="Replicas on the cluster: a number, or 1:4.")
    ] = "1",
) -> None:
    """Serve models over HTTP. SIGTERM finishes accepted requests and stops, SIGHUP reads the models
    again."""
    danlu.serve(
        models,
        host=host,
        port=port,
        token_file=token_file,
        tls_certificate=tls_certificate,
        tls_key=tls_key,
        allowed_hosts=allowed_host or [],
        threads=threads,
        longest_wait=longest_wait,
        deadline=deadline,
        most_rows=most_rows,
        most_body=most_body,
        drain_seconds=drain_seconds,
        on=on,
        address=address,
        replicas=replicas,
    )
