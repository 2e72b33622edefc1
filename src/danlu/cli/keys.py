"""danlu encrypt, decrypt, sign and verify-signature: artifacts under lock and seal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import danlu
from danlu.cli.options import AsJson, KeyFile, PassphraseFile, with_key
from danlu.cli.output import print_json, print_note, print_result
from danlu.errors import DanluError

verbs = typer.Typer()

NewKey = Annotated[
    str | None,
    typer.Option(
        "--new-key", metavar="FILE", help="Write a new key to this file, and do nothing else."
    ),
]
NewFolder = Annotated[
    str | None,
    typer.Option(metavar="FOLDER", help="Write there, and leave the original unchanged."),
]
Folder = Annotated[
    str | None,
    typer.Argument(
        metavar="FOLDER", help="An artifact, its run, or an export.", show_default=False
    ),
]


@verbs.command()
def encrypt(
    folder: Folder = None,
    out: NewFolder = None,
    new_key: NewKey = None,
    key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Encrypt an artifact or export: AES-256-GCM, with a key file or a passphrase."""
    from danlu.system import encryption

    if new_key is not None:
        encryption.new_key(new_key)
        print_note(
            "Keep this file: without it nothing that it encrypts can be read, and whoever has it"
            " can read all of it."
        )
        print_result(Path(new_key))
        return
    encrypted = danlu.encrypt(
        _required(folder), out, key_file=key_file, passphrase_file=passphrase_file
    )
    if out is None:
        print_note(
            "note: the plain files were replaced, not wiped: a disk may keep their bytes until it"
            " needs the space."
        )
    checkpoints = encrypted.parent / "checkpoints"
    if checkpoints.is_dir():
        print_note(f"note: the checkpoints of this run are not encrypted: {checkpoints}")
    print_result(encrypted)


@verbs.command()
def decrypt(
    folder: Folder,
    out: NewFolder = None,
    key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Write an encrypted artifact or export in plain text again."""
    print_result(
        danlu.decrypt(_required(folder), out, key_file=key_file, passphrase_file=passphrase_file)
    )


@verbs.command()
@with_key
def sign(
    folder: Folder = None,
    signing_key: Annotated[
        str | None, typer.Option(metavar="FILE", help="Your private Ed25519 key (PEM).")
    ] = None,
    new_key: NewKey = None,
) -> None:
    """Sign an artifact or export: writes signature.json, over the contents of every file."""
    from danlu.system.signing import new_signing_key

    if new_key is not None:
        print_result(new_signing_key(new_key))
        return
    if signing_key is None:
        raise DanluError(
            "no key to sign with is given.",
            hint="--signing-key FILE; danlu sign --new-key FILE writes one, and FILE.pub",
        )
    print_result(danlu.sign(_required(folder), signing_key))


@verbs.command()
@with_key
def verify_signature(
    folder: Folder,
    public_key: Annotated[
        str,
        typer.Option(metavar="FILE", help="The public Ed25519 key (PEM) of the expected signer."),
    ],
    as_json: AsJson = False,
) -> None:
    """Check that every file of an artifact or export is what the owner of a key signed."""
    signed = danlu.verify_signature(_required(folder), public_key)
    if as_json:
        print_json({"folder": str(signed.folder), "signer": signed.signer, "files": signed.files})
    else:
        print_result(
            f"{signed.folder}: {signed.files} files are as key {signed.signer} signed them."
        )


def _required(folder: str | None) -> str:
    if folder is None:
        raise DanluError("no folder is given.", hint="name an artifact, its run, or an export")
    return folder
