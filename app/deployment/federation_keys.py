"""Keys of a deployed federation: an authority, the SuperLink's certificate, the clients' keys.

The formats are those that Flower's commands read: certificates and the server's key in PEM, the clients' keys
in OpenSSH's format on the curve P-384.
"""

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from app.client.encryption_key import make_key
from app.forgettings.signing_key import put, read_private
from strategies.core.errors import BadInput

AUTHORITY = "ca"
"""Name of the authority's files."""
SERVER = "server"
"""Name of the SuperLink's files."""
ENCRYPTION = "ckks.key"
"""Name of the key that all clients share and the SuperLink must not have."""
_LOOPBACK = ("127.0.0.1", "::1")
"""Where a SuperLink's ServerApps reach it when it listens on all addresses."""
_SHARED_MODE = 0o644
_SIGNS = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)
_BEGINS_EARLIER = datetime.timedelta(hours=1)  # The other machines' clocks may be behind.


@dataclass(frozen=True)
class FederationKeys:
    """The folder with the files, and those `made`, which were not there before.

    It holds ``ca.pem``, ``server.pem``, ``server.key`` and ``clients/<client-id>`` with ``.pub`` beside it;
    the authority's own ``ca.key`` is needed only for further certificates, and best kept elsewhere.
    """

    folder: Path
    made: Sequence[Path]


def make_keys(
    folder: Path, hosts: Sequence[str], clients: Sequence[str], days: int = 825, *, encryption: bool = False
) -> FederationKeys:
    """Make the missing keys of a federation; existing ones stay.

    `hosts` are the names and addresses by which the clients reach the SuperLink; its certificate also holds
    for loopback, which its own ServerApps use. Certificates are valid for `days`. With `encryption` the
    clients get a key to encrypt their updates with, ``clients/ckks.key``. Private keys get mode 600.

    Raises
    ------
    BadInput
        If there is no host, a client-id is no file name, or an existing file is damaged or readable to
        others.
    LetheError
        If the disk does not take them.
    """
    if not hosts:
        raise BadInput("--host: none given; name the SuperLink's host as its clients reach it")
    for client_id in clients:
        if not client_id or client_id != Path(client_id).name or client_id.startswith("."):
            raise BadInput(f"--client: given '{client_id}', expected a client-id that can name a file")
    made: list[Path] = []
    authority, authority_key = _authority(folder, days, made)
    _server(folder, hosts, days, authority, authority_key, made)
    for client_id in clients:
        _client(folder / "clients" / client_id, made)
    if encryption and make_key(path := folder / "clients" / ENCRYPTION):
        made.append(path)
    return FederationKeys(folder, made)


def _authority(
    folder: Path, days: int, made: list[Path]
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    path = folder / f"{AUTHORITY}.pem"
    key = _key_in(folder / f"{AUTHORITY}.key", made)
    if not path.exists():
        name = _name("Lethe federation")
        builder = (
            _certificate(name, name, key.public_key(), key.public_key(), days)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_SIGNS, critical=True)
        )
        _put(path, builder.sign(key, hashes.SHA384()).public_bytes(Encoding.PEM), made, _SHARED_MODE)
    certificate = _read_certificate(path)
    if certificate.public_key() != key.public_key():
        raise BadInput(f"{path}: not the certificate of {AUTHORITY}.key beside it")
    return certificate, key


def _server(
    folder: Path,
    hosts: Sequence[str],
    days: int,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    made: list[Path],
) -> None:
    key = _key_in(folder / f"{SERVER}.key", made)
    path = folder / f"{SERVER}.pem"
    if path.exists():
        _check_hosts(path, hosts)
        return
    names = [_host(host) for host in dict.fromkeys((*hosts, *_LOOPBACK))]
    builder = (
        _certificate(_name(hosts[0]), authority.subject, key.public_key(), authority_key.public_key(), days)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    )
    _put(path, builder.sign(authority_key, hashes.SHA384()).public_bytes(Encoding.PEM), made, _SHARED_MODE)


def _check_hosts(path: Path, hosts: Sequence[str]) -> None:
    held = _read_certificate(path).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if missing := [host for host in hosts if _host(host) not in held]:
        raise BadInput(f"{path}: made for other hosts than '{missing[0]}'; delete it to have it made anew")


def _client(path: Path, made: list[Path]) -> None:
    if not path.exists():
        key = ec.generate_private_key(ec.SECP384R1())
        _put(path, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()), made)
        public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        _put(path.with_name(f"{path.name}.pub"), public + b"\n", made, _SHARED_MODE)


def _key_in(path: Path, made: list[Path]) -> ec.EllipticCurvePrivateKey:
    if not path.exists():
        key = ec.generate_private_key(ec.SECP384R1())
        _put(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), made)
    try:
        found = load_pem_private_key(read_private(path), password=None)
    except (TypeError, ValueError):
        found = None
    if not isinstance(found, ec.EllipticCurvePrivateKey):
        raise BadInput(f"{path}: expected a private key on an elliptic curve, in PEM without a password")
    return found


def _read_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:
        raise BadInput(f"{path}: expected a certificate in PEM") from None


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    issuer_key: ec.EllipticCurvePublicKey,
    days: int,
) -> x509.CertificateBuilder:
    begins = datetime.datetime.now(datetime.UTC) - _BEGINS_EARLIER
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _put(path: Path, content: bytes, made: list[Path], mode: int | None = None) -> None:
    put(path, content)
    if mode is not None:
        path.chmod(mode)
    made.append(path)
