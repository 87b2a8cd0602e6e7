"""The site's certificate authority: keys, certificates, revocation list (CRL). Imports `cryptography`, an extra.

All keys are ECDSA P-256. The CRL is valid as long as the authority, because OpenSSL refuses every certificate once the
CRL has expired, and a site must not stop working because nobody renewed it.
"""

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from s2m3.schemas import extras
from s2m3.schemas.errors import S2M3Error

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ModuleNotFoundError:
    extras.require("secure", "a secured site")
    raise

__all__ = ["Authority", "Issued"]

_AUTHORITY_DAYS = 3650
#: Certificates are valid from this much before now, because the clocks of small devices may be late.
_BEFORE = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Issued:
    """A private key and its certificate, both PEM, with the certificate's serial number and expiry."""

    key: bytes
    certificate: bytes
    serial: int
    expires: datetime


class Authority:
    """A certificate authority that issues certificates and signs the revocation list.

    Args:
        key: The authority's private key, PEM, unencrypted.
        certificate: The authority's certificate, PEM.

    Raises:
        S2M3Error: The key is not an elliptic-curve key.
    """

    def __init__(self, key: bytes, certificate: bytes) -> None:
        private = serialization.load_pem_private_key(key, None)
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise S2M3Error("the authority's key is not an elliptic-curve key")
        self._key = private
        self._certificate = x509.load_pem_x509_certificate(certificate)

    @staticmethod
    def new(name: str) -> Issued:
        """Makes the key and self-signed certificate of a new authority, with `name` as its subject."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(name)
        builder = (
            _builder(subject, subject, key.public_key(), _AUTHORITY_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        )
        return _issued(key, builder.sign(key, hashes.SHA256()))

    def server(self, hosts: Iterable[str], days: int) -> Issued:
        """Issues the broker's certificate for its host names and addresses, of which the first is the subject."""
        names = list(hosts)
        found = x509.SubjectAlternativeName([_host(name) for name in names])
        return self._issue(names[0], days, ExtendedKeyUsageOID.SERVER_AUTH, found)

    def client(self, name: str, days: int) -> Issued:
        """Issues a client certificate, with the login's name as its subject."""
        return self._issue(name, days, ExtendedKeyUsageOID.CLIENT_AUTH, None)

    def _issue(
        self, name: str, days: int, use: x509.ObjectIdentifier, hosts: x509.SubjectAlternativeName | None
    ) -> Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = (
            _builder(_name(name), self._certificate.subject, key.public_key(), days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
            .add_extension(signer, critical=False)
        )
        if hosts is not None:
            builder = builder.add_extension(hosts, critical=False)
        return _issued(key, builder.sign(self._key, hashes.SHA256()))

    def revocations(self, revoked: Mapping[int, datetime]) -> bytes:
        """Returns the signed revocation list, PEM, for serial number -> time of revocation."""
        now = datetime.now(UTC)
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._certificate.subject)
            .last_update(now - _BEFORE)
            .next_update(self._certificate.not_valid_after_utc)
            .add_extension(signer, critical=False)
            .add_extension(x509.CRLNumber(int(now.timestamp() * 1000)), critical=False)
        )
        for serial, when in revoked.items():
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(when).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + min(-_BEFORE, timedelta(days=days) - _BEFORE))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _issued(key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> Issued:
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = certificate.public_bytes(serialization.Encoding.PEM)
    return Issued(secret, public, certificate.serial_number, certificate.not_valid_after_utc)
