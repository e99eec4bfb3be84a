"""The secret of a key: `ll_<id>_<secret>`, shown once, and kept as a hash.

The id is public: it finds the key, and tells which key a leaked text belongs to. The secret has 256 random bits.

What is kept is SHA-256 of a salt and the secret. A slow hash, as for passwords, would gain nothing: it makes each guess
expensive where few guesses are enough, and among 2^256 secrets no number of guesses is. It would cost every request,
though, and give whoever sends wrong keys a way to keep the server busy.
"""

import hashlib
import hmac
import re
import secrets
import string
from dataclasses import dataclass, field

PREFIX = "ll_"
"""What every key begins with, so that scanners for secrets find one."""

_ID_LENGTH = 12
_SECRET_LENGTH = 43
"""62 letters and digits to the power of 43 is more than 2^256."""

_ID_LETTERS = string.digits + string.ascii_lowercase
_SECRET_LETTERS = string.digits + string.ascii_letters
_TOKEN = re.compile(rf"{PREFIX}([0-9a-z]{{{_ID_LENGTH}}})_([0-9A-Za-z]{{{_SECRET_LENGTH}}})")
_SALT_BYTES = 16


@dataclass(frozen=True, slots=True)
class Token:
    """A key as its holder has it.

    Attributes:
        id: public; no other key has it.
        secret: what only its holder knows. It is in no `repr`.
    """

    id: str
    secret: str = field(repr=False)

    @classmethod
    def new(cls) -> "Token":
        """A random one."""
        id = "".join(secrets.choice(_ID_LETTERS) for _ in range(_ID_LENGTH))
        return cls(id, "".join(secrets.choice(_SECRET_LETTERS) for _ in range(_SECRET_LENGTH)))

    @classmethod
    def parse(cls, text: str) -> "Token | None":
        """The token of this text; None if it does not look like one."""
        match = _TOKEN.fullmatch(text)
        return cls(match[1], match[2]) if match else None

    @property
    def text(self) -> str:
        """All of it, to be shown to its holder once and never again."""
        return f"{PREFIX}{self.id}_{self.secret}"


@dataclass(frozen=True, slots=True)
class Stored:
    """What is kept of one secret of a key.

    Attributes:
        id: the public part.
        salt, digest: as hex; in no `repr`.
        until: UTC, ISO 8601, after which a later secret has replaced it; None for the latest.
        over: it was replaced at once, whatever a clock says.
    """

    id: str
    salt: str = field(repr=False)
    digest: str = field(repr=False)
    until: str | None = None
    over: bool = False

    @classmethod
    def of(cls, token: Token) -> "Stored":
        """What to keep of a token, with a salt of its own."""
        salt = secrets.token_bytes(_SALT_BYTES)
        return cls(token.id, salt.hex(), _digest(salt, token.secret).hex())

    def check(self) -> "Check":
        """The comparison with what somebody sends; raises `ValueError` where salt or digest is no hex."""
        return Check(bytes.fromhex(self.salt), bytes.fromhex(self.digest))


@dataclass(frozen=True, slots=True)
class Check:
    """Compares a secret with a hash, in a time that tells nothing about either."""

    salt: bytes = field(repr=False)
    digest: bytes = field(repr=False)

    def passes(self, secret: str) -> bool:
        """Whether it is the secret of this hash."""
        return hmac.compare_digest(_digest(self.salt, secret), self.digest)


NOBODY = Check(secrets.token_bytes(_SALT_BYTES), secrets.token_bytes(32))
"""What an unknown id is compared with, so that it takes as long as a known one; nobody has its secret."""


def _digest(salt: bytes, secret: str) -> bytes:
    return hashlib.sha256(salt + secret.encode()).digest()
