"""TLS in process: a certificate and its key from files, followed when the files change.

New connections get the new pair; those that stand keep theirs and notice nothing. Which pair a
connection gets is decided within its handshake, so a reload is one assignment: no connection ever
meets a certificate without its key. A pair that cannot be used is told once, and the old one stays.
"""

import asyncio
import contextlib
import datetime
import signal
import ssl
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import structlog
from cryptography import x509

from registry.core.errors import OperationFailed

LOOK_EVERY_S = 2.0
_EXPIRES_SOON = datetime.timedelta(days=14)

log = structlog.get_logger()

_Stamp = tuple[tuple[int, int, int] | None, ...]


class _Encrypted(Exception):
    """The key wants a passphrase."""


class Certificates:
    """The pair that new connections are served with."""

    def __init__(self, certificate: str, key: str = "") -> None:
        """Load a PEM chain, the server's own certificate first, and its key.

        Without `key` the key is in the certificate's file.

        Raises:
            OperationFailed: the files cannot be used; the message says which and why.
        """
        self._certificate = Path(certificate)
        self._key = Path(key or certificate)
        self._seen = self._stamp()
        self._changing: _Stamp | None = None
        self._asked = asyncio.Event()
        self.context = self._current = self._load()
        self.context.sni_callback = self._choose

    async def watch(self) -> None:
        """Load the pair again when its files change, and at once on SIGHUP; runs until cancelled.

        A change counts when the next look finds nothing new: whoever replaces two files needs a
        moment between them.
        """
        with self._hangups():
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_EVERY_S):
                        await self._asked.wait()
                stamp = await asyncio.to_thread(self._stamp)
                if self._asked.is_set() or (stamp != self._seen and stamp == self._changing):
                    self._asked.clear()
                    self._seen = stamp
                    await self._reload()
                self._changing = stamp

    async def _reload(self) -> None:
        try:
            self._current = await asyncio.to_thread(self._load)
        except OperationFailed as error:
            log.error("tls_reload_failed", reason=str(error), effect="the old certificate stays")

    def _choose(self, connection: ssl.SSLObject, name: str | None, asked: ssl.SSLContext) -> None:
        """Called in each handshake, also of clients that name no host."""
        if self._current is not asked:
            connection.context = self._current

    def _load(self) -> ssl.SSLContext:
        leaf = self._leaf()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self._certificate, self._key, _no_passphrase)
            mode = self._key.stat().st_mode
        except _Encrypted as error:
            raise OperationFailed(
                f"the key file {self._key} is encrypted; give one without a passphrase"
            ) from error
        except ssl.SSLError as error:
            raise OperationFailed(self._refusal(error)) from error
        except OSError as error:
            raise OperationFailed(f"cannot read {self._key}: {error.strerror}") from error
        if mode & stat.S_IROTH:
            log.warning("tls_key_readable_by_everybody", file=str(self._key), advice="chmod 640")
        self._tell(leaf)
        return context

    def _leaf(self) -> x509.Certificate:
        """The server's own certificate, only to speak of it."""
        try:
            return x509.load_pem_x509_certificates(self._certificate.read_bytes())[0]
        except OSError as error:
            raise OperationFailed(f"cannot read {self._certificate}: {error.strerror}") from error
        except ValueError as error:
            raise OperationFailed(
                f"the certificate file {self._certificate} holds no PEM certificate"
            ) from error

    def _refusal(self, error: ssl.SSLError) -> str:
        if error.reason == "KEY_VALUES_MISMATCH":
            return f"the key in {self._key} is not that of the certificate in {self._certificate}"
        reason = "the key file holds no private key in PEM"
        if error.reason:
            reason = error.reason.replace("_", " ").lower()
        return f"cannot use the certificate {self._certificate} with key {self._key}: {reason}"

    def _tell(self, leaf: x509.Certificate) -> None:
        now = datetime.datetime.now(datetime.UTC)
        expires = leaf.not_valid_after_utc
        tell = log.warning if expires - now < _EXPIRES_SOON else log.info
        event = "tls_certificate_expired" if expires < now else "tls_certificate_loaded"
        tell(event, file=str(self._certificate), expires=expires.isoformat())

    def _stamp(self) -> _Stamp:
        """What changes when the files do."""
        return tuple(_stamp_of(file) for file in (self._certificate, self._key))

    @contextlib.contextmanager
    def _hangups(self) -> Iterator[None]:
        """SIGHUP asks for a reload, where signals can be had."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._asked.set)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGHUP)


def certificates(certificate: str, key: str) -> Certificates | None:
    """The pair that two settings name; None without any: the service speaks plain HTTP.

    Raises:
        OperationFailed: the files cannot be used, or there is a key alone.
    """
    if not certificate and key:
        raise OperationFailed("REGISTRY_TLS_KEY is set and REGISTRY_TLS_CERT is not; give both")
    return Certificates(certificate, key) if certificate else None


def _no_passphrase() -> str:
    """Called by OpenSSL, which would else ask on the terminal."""
    raise _Encrypted


def _stamp_of(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()  # of what a link points to: renewal tools set a link anew
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_ino, found.st_size)
