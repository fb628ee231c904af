"""app/deployment/federation_keys.py: files that Flower's commands take, with the right modes, made once."""

import stat
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from app.deployment.federation_keys import make_keys
from strategies.core.errors import BadInput

HOSTS = ("superlink.example.org", "127.0.0.1")


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_a_client_that_trusts_the_authority_trusts_the_superlink(tmp_path: Path) -> None:
    """Checked by the rules of the web, under the host's name; under another it is refused."""
    make_keys(tmp_path, HOSTS, ())
    trusted = PolicyBuilder().store(Store([certificate(tmp_path / "ca.pem")]))
    chain = trusted.build_server_verifier(x509.DNSName(HOSTS[0])).verify(
        certificate(tmp_path / "server.pem"), []
    )
    assert len(chain) == 2
    with pytest.raises(VerificationError):
        trusted.build_server_verifier(x509.DNSName("elsewhere.org")).verify(
            certificate(tmp_path / "server.pem"), []
        )


def test_the_superlink_s_own_server_apps_trust_it(tmp_path: Path) -> None:
    """They reach it by loopback, whatever its name."""
    make_keys(tmp_path, ["superlink.example.org"], ())
    trusted = PolicyBuilder().store(Store([certificate(tmp_path / "ca.pem")]))
    for address in ("127.0.0.1", "::1"):
        verifier = trusted.build_server_verifier(x509.IPAddress(ip_address(address)))
        assert verifier.verify(certificate(tmp_path / "server.pem"), [])


def test_clients_keys_are_what_supernodes_read(tmp_path: Path) -> None:
    """OpenSSH, P-384, one's public half beside it; every client has its own."""
    make_keys(tmp_path, HOSTS, ("a", "b"))
    keys = [load_ssh_private_key((tmp_path / "clients" / name).read_bytes(), None) for name in ("a", "b")]
    for name, key in zip(("a", "b"), keys, strict=True):
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        assert isinstance(key.curve, ec.SECP384R1)
        public = load_ssh_public_key((tmp_path / "clients" / f"{name}.pub").read_bytes())
        assert public == key.public_key()
    assert keys[0].public_key() != keys[1].public_key()


def test_private_keys_are_the_owners_alone(tmp_path: Path) -> None:
    folder = make_keys(tmp_path / "keys", HOSTS, ("a",)).folder
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in folder.rglob("*") if p.is_file()}
    assert modes == {
        "ca.key": 0o600,
        "server.key": 0o600,
        "a": 0o600,
        "ca.pem": 0o644,
        "server.pem": 0o644,
        "a.pub": 0o644,
    }


def test_what_is_there_stays_and_what_is_missing_is_made(tmp_path: Path) -> None:
    """A client that joins later gets a key; nobody else's changes."""
    first = make_keys(tmp_path, HOSTS, ("a",))
    before = {path: path.read_bytes() for path in first.made}
    second = make_keys(tmp_path, HOSTS, ("a", "b"))
    assert {path.name for path in second.made} == {"b", "b.pub"}
    assert {path: path.read_bytes() for path in first.made} == before
    assert make_keys(tmp_path, HOSTS, ("a", "b")).made == []


def test_other_hosts_damage_and_open_keys_are_refused(tmp_path: Path) -> None:
    make_keys(tmp_path, HOSTS, ())
    with pytest.raises(BadInput, match=r"server\.pem: made for other hosts than 'other'; delete it"):
        make_keys(tmp_path, ["other"], ())
    (tmp_path / "ca.key").chmod(0o644)
    with pytest.raises(BadInput, match="others may read the key"):
        make_keys(tmp_path, HOSTS, ())
    (tmp_path / "ca.key").chmod(0o600)
    (tmp_path / "ca.key").write_text("no key")
    with pytest.raises(BadInput, match="expected a private key on an elliptic curve"):
        make_keys(tmp_path, HOSTS, ())


def test_a_foreign_authority_is_noticed(tmp_path: Path) -> None:
    make_keys(tmp_path / "one", HOSTS, ())
    make_keys(tmp_path / "two", HOSTS, ())
    (tmp_path / "one" / "ca.pem").write_bytes((tmp_path / "two" / "ca.pem").read_bytes())
    with pytest.raises(BadInput, match=r"ca\.pem: not the certificate of ca\.key"):
        make_keys(tmp_path / "one", HOSTS, ())


@pytest.mark.parametrize("client_id", ["../a", "a/b", ".hidden", ""])
def test_a_client_id_that_cannot_name_a_file_is_refused(tmp_path: Path, client_id: str) -> None:
    with pytest.raises(BadInput, match="expected a client-id that can name a file"):
        make_keys(tmp_path, HOSTS, (client_id,))
    assert not any(tmp_path.iterdir())


def test_a_superlink_needs_a_host(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="name the SuperLink's host"):
        make_keys(tmp_path, (), ("a",))
