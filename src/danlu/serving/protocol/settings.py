"""The options of a server: those of `danlu serve` and `danlu.serve`."""

from __future__ import annotations

from pydantic import Field

from danlu.recipe import Options


class Settings(Options):
    """Options of a server. Every limit of it is one of these.

    >>> Settings(port=0, threads=2).threads
    2
    """

    host: str = Field(
        "127.0.0.1",
        description="The address to listen on. One that other machines reach needs a token.",
    )
    port: int = Field(8000, ge=0, le=65535, description="The port; 0: any free one.")
    token_file: str | None = Field(
        None,
        description="A file that holds the token, one line; every request must carry the token.",
    )
    tls_certificate: str | None = Field(
        None, description="PEM file of the certificate chain; the server then speaks HTTPS."
    )
    tls_key: str | None = Field(None, description="PEM file of the certificate's key.")
    allowed_hosts: list[str] = Field(
        [], description="Host names that requests may use, beside the server's address."
    )
    threads: int = Field(
        0, ge=0, le=1024, description="Threads of each worker; 0: all cores but one."
    )
    spare: bool = Field(
        True,
        description="Keep a process ready that replaces a worker of torch that dies.",
    )
    longest_wait: float = Field(
        0.3,
        gt=0,
        le=60,
        description="Refuse a request (503) that would wait longer than so many seconds.",
    )
    queue: int = Field(
        10_000, ge=1, le=1_000_000, description="Most requests that may wait for one model."
    )
    queue_bytes: int = Field(
        256 << 20, ge=1 << 20, le=1 << 40, description="Most bytes of bodies in memory at a time."
    )
    deadline: float = Field(
        30.0, gt=0, le=3600, description="Seconds after which a request is answered 504."
    )
    text_deadline: float = Field(
        600.0, gt=0, le=86400, description="Seconds that writing a text may take."
    )
    most_rows: int = Field(4096, ge=1, le=1_000_000, description="Most rows of one request.")
    batch: int = Field(256, ge=1, le=65536, description="Most rows answered together.")
    most_body: int = Field(
        16 << 20, ge=1024, le=1 << 30, description="Most bytes of a request's body."
    )
    most_header: int = Field(
        32 << 10, ge=1024, le=1 << 20, description="Most bytes of a request's headers."
    )
    header_seconds: float = Field(
        10.0, gt=0, le=600, description="Seconds in which the headers of a request must arrive."
    )
    body_seconds: float = Field(
        30.0, gt=0, le=3600, description="Seconds in which a whole request must arrive."
    )
    idle_seconds: float = Field(
        60.0,
        gt=0,
        le=3600,
        description="Seconds that a connection may be idle between two requests.",
    )
    connections: int = Field(2048, ge=1, le=1_000_000, description="Most connections at a time.")
    drain_seconds: float = Field(
        30.0,
        ge=0,
        le=3600,
        description="Seconds that accepted requests get to be answered when the server ends.",
    )
    silence: float = Field(
        4.0,
        gt=1,
        le=600,
        description="Seconds without a sign of life after which a worker is replaced.",
    )
    idle_step: float = Field(
        20.0,
        gt=1,
        le=3600,
        description="Seconds that a step may use no processor time before its worker is replaced.",
    )
    longest_step: float = Field(
        120.0,
        gt=1,
        le=86400,
        description="Seconds that one step may take before its worker is replaced.",
    )
    opening: float = Field(
        120.0, gt=1, le=86400, description="Seconds that opening a model may take."
    )
    slots: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="Texts that a language model writes at a time; null: by its size.",
    )
