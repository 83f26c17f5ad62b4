"""Rows for catalog tests, made from short words."""

from registry.core.digest import Digest
from registry.core.names import RepositoryName
from registry.ports.catalog import Blob, Manifest, Reference, Repository, Tag, Transaction

FAR = 1 << 62


def digest(word: str) -> Digest:
    return Digest.of(word.encode())


def manifest(
    word: str,
    blobs: tuple[str, ...] = (),
    children: tuple[str, ...] = (),
    subject: str | None = None,
    card: str | None = None,
) -> Manifest:
    """The manifest whose body is `word`."""
    references = [Reference(digest(blob), "application/x-blob", len(blob)) for blob in blobs]
    references += [Reference(digest(c), "application/x-manifest", len(c), False) for c in children]
    return Manifest(
        digest(word),
        "application/x-manifest",
        word.encode(),
        tuple(references),
        config=digest(blobs[0]) if blobs else None,
        subject=digest(subject) if subject else None,
        artifact_type="application/x-thing" if subject else None,
        annotations='{"a":"b"}' if subject else None,
        card=card,
    )


def put_blob(tx: Transaction, word: str, now: int = 1) -> Blob:
    return tx.put_blob(digest(word), len(word), f"key of {word}", now)


def push(tx: Transaction, path: str, blobs: tuple[str, ...] = (), now: int = 1) -> Repository:
    """A repository with blobs linked to it, as uploads leave them."""
    repository = tx.put_repository(RepositoryName(path))
    for word in blobs:
        put_blob(tx, word, now)
        tx.link_blob(repository.id, digest(word), FAR)
    return repository


def put_model(tx: Transaction, path: str, tag: str, word: str = "m", now: int = 1) -> Tag:
    """A model with a config and weights of its own."""
    blobs = (f"config of {word}", f"weights of {word}")
    repository = push(tx, path, blobs, now)
    tx.put_manifest(repository.id, manifest(word, blobs, card=f'{{"of":"{word}"}}'), now)
    return tx.put_tag(repository.id, tag, digest(word), now)
