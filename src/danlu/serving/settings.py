"""How a server serves: options of `danlu serve` and `danlu.serve`."""

from __future__ import annotations

from pydantic import Field

from danlu.recipe import Options


class Settings(Options):
    """Options of a server; every bound stands here."""

    host: str = Field(
        "127.0.0.1",
        description="The address to listen on; another than this machine's own needs a token.",
    )
    port: int = Field(8000, ge=0, le=65535, description="The port; 0: any that is free.")
    token_file: str | None = Field(
        None, description="A file whose one line every request must bear as its token."
    )
    tls_certificate: str | None = Field(
        None, description="PEM file of the certificate chain; then HTTPS is spoken."
    )
    tls_key: str | None = Field(None, description="PEM file of the certificate's key.")
    allowed_hosts: list[str] = Field(
        [], description="Names this server may be called by, beside its address."
    )
    threads: int = Field(
        0, ge=0, le=1024, description="Threads of each worker; 0: all cores but one."
    )
    spare: bool = Field(
        True,
        description="Keep a process ready that takes the place of a worker of torch that dies.",
    )
    longest_wait: float = Field(
        0.3, gt=0, le=60, description="Seconds a request may be expected to wait; beyond it, 503."
    )
    queue: int = Field(
        10_000, ge=1, le=1_000_000, description="Requests that wait for one model, at most."
    )
    queue_bytes: int = Field(
        256 << 20, ge=1 << 20, le=1 << 40, description="Bytes of bodies held at a time, at most."
    )
    deadline: float = Field(
        30.0, gt=0, le=3600, description="Seconds after which a request is answered 504, at most."
    )
    text_deadline: float = Field(
        600.0, gt=0, le=86400, description="Seconds a text may take, at most."
    )
    most_rows: int = Field(4096, ge=1, le=1_000_000, description="Rows of a request, at most.")
    batch: int = Field(256, ge=1, le=65536, description="Rows answered together, at most.")
    most_body: int = Field(
        16 << 20, ge=1024, le=1 << 30, description="Bytes of a request's body, at most."
    )
    most_header: int = Field(
        32 << 10, ge=1024, le=1 << 20, description="Bytes of a request's head, at most."
    )
    header_seconds: float = Field(
        10.0, gt=0, le=600, description="Seconds that the head of a request may take to come."
    )
    body_seconds: float = Field(
        30.0, gt=0, le=3600, description="Seconds that a whole request may take to come."
    )
    idle_seconds: float = Field(
        60.0,
        gt=0,
        le=3600,
        description="Seconds that a connection may be idle between two requests.",
    )
    connections: int = Field(
        2048, ge=1, le=1_000_000, description="Connections at a time, at most."
    )
    drain_seconds: float = Field(
        30.0,
        ge=0,
        le=3600,
        description="Seconds that accepted requests get to be answered at the end.",
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
        description="Seconds a step may stand still (no CPU time) before it is called hung.",
    )
    longest_step: float = Field(
        120.0, gt=1, le=86400, description="Seconds a step may take at all."
    )
    opening: float = Field(120.0, gt=1, le=86400, description="Seconds a model may take to open.")
    slots: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="Texts written at a time by a language model; null: by its size.",
    )
