"""Who may call what: bearer tokens with roles, of which only hashes are kept.

A tokens file has one line for each token: its name, its role and the SHA-256 of the token in hex. What follows a `#` is
left out. A role may do what those before it may: read < write < operate.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from prediction_store import contents, durable, locks
from reranker.errors import TokensFileError
from schemas.errors import UsageError

ROLES: Final = ("read", "write", "operate")
PREFIX: Final = "shortlist_"
"""Tokens begin with it, so that one that has leaked into a repository is found by those who look for such."""
MAX_TOKEN_BYTES: Final = 256
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_EMPTY: Final = hashlib.sha256(b"").hexdigest()


class Token(NamedTuple):
    """One line of a tokens file."""

    name: str
    role: str
    digest: str
    """SHA-256 of the token, in hex."""


def hash_of(token: bytes) -> str:
    """What is kept of a token. Plain SHA-256 is enough: there are 256 random bits in each, so that none is guessed."""
    return hashlib.sha256(token).hexdigest()


def parse_tokens(text: str, path: Path) -> list[Token]:
    """The tokens of a file; raises TokensFileError for a line that is not one, and for the hash of nothing."""
    tokens: list[Token] = []
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.partition("#")[0].split()
        if not fields:
            continue
        where = f"{path}, line {number}"
        if len(fields) != 3:
            raise TokensFileError(f"{where}: found {len(fields)} fields, wanted name, role and SHA-256")
        token = Token(*fields)
        if not _NAME.fullmatch(token.name) or any(token.name == other.name for other in tokens):
            raise TokensFileError(f"{where}: the name is given before, or has other than letters, digits and . _ -")
        if token.role not in ROLES:
            raise TokensFileError(f"{where}: found role {token.role[:20]!r}, wanted {', '.join(ROLES)}")
        if not _HASH.fullmatch(token.digest) or token.digest == _EMPTY:
            raise TokensFileError(f"{where}: the third field is not the SHA-256 of a token, 64 hex digits")
        tokens.append(token)
    return tokens


def read_tokens(path: Path) -> list[Token]:
    """The tokens of a file; raises TokensFileError when it is not there, too, for then nobody could get in."""
    try:
        return parse_tokens(path.read_text(encoding="utf-8"), path)
    except FileNotFoundError as error:
        hint = "shortlist tokens new NAME --role read makes the first token, and the file"
        raise TokensFileError(f"the tokens file {path} is not there", hint=hint) from error
    except (OSError, UnicodeDecodeError) as error:
        raise TokensFileError(f"reading the tokens file {path}: {error}") from error


def add_token(path: Path, name: str, role: str) -> str:
    """Make a token, keep its hash in the file, which is made when it is not there; the token, never seen again."""
    token = PREFIX + secrets.token_urlsafe(32)
    made = Token(name, role, hash_of(token.encode()))
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name for a token: 1 to 64 letters, digits and . _ -, a letter or digit first")
    if role not in ROLES:
        raise UsageError(f"{role!r} is no role: wanted {', '.join(ROLES)}")

    def with_it(lines: list[str], tokens: list[Token]) -> list[str]:
        if any(name == other.name for other in tokens):
            raise UsageError(f"there is a token {name!r} already", hint=f"shortlist tokens revoke {name}")
        return [*lines, f"{made.name} {made.role} {made.digest}"]

    _change(path, with_it)
    return token


def revoke_token(path: Path, name: str) -> None:
    """Take a token out of the file; raises UsageError when there is none of that name."""

    def without_it(lines: list[str], tokens: list[Token]) -> list[str]:
        if all(name != other.name for other in tokens):
            raise UsageError(f"there is no token {name!r}", hint="shortlist tokens list")
        return [line for line in lines if line.partition("#")[0].split()[:1] != [name]]

    _change(path, without_it)


class Gatekeeper:
    """Finds the role of a request's token; sees a change of the file at the next request.

    A file that cannot be read, or holds what is no token, lets nobody in.
    """

    def __init__(self, path: Path, report: Callable[[str], None]) -> None:
        """`report` hears once of each reason why the file lets nobody in."""
        self._path = path
        self._report = report
        self._told = ""
        self._seen: tuple[int, int, int] | None = None
        self._tokens: tuple[tuple[bytes, str], ...] = ()
        self._look()

    def role_of(self, authorization: bytes) -> str | None:
        """The role of the token in an `Authorization` header; None: none, or not one that is known.

        Takes as long for a token that is nearly right as for any other.
        """
        self._look()
        scheme, _, token = authorization.partition(b" ")
        token = token.strip()
        if scheme.lower() != b"bearer" or not token or len(token) > MAX_TOKEN_BYTES:
            return None
        digest, role = hashlib.sha256(token).digest(), None
        for known, its_role in self._tokens:
            if hmac.compare_digest(known, digest):
                role = its_role
        return role

    def _look(self) -> None:
        try:
            facts = os.stat(self._path)  # noqa: PTH116 before each request: a microsecond, and not three
            # Not the time of modification, which `cp -p` brings along.
            seen = (facts.st_ino, facts.st_ctime_ns, facts.st_size)
        except OSError:
            seen = None
        if seen is not None and seen == self._seen:
            return
        self._tokens, self._seen = (), None  # looked at again at the next request, should it not be readable now
        try:
            self._tokens = tuple((bytes.fromhex(token.digest), token.role) for token in read_tokens(self._path))
            self._told, self._seen = "", seen
        except TokensFileError as error:
            if error.message != self._told:
                self._report(error.message)
            self._told = error.message


def _change(path: Path, change: Callable[[list[str], list[Token]], Sequence[str]]) -> None:
    """Write the file anew with its lines changed; comments stay.

    Raises DiskError, TokensFileError; UsageError while another does.
    """
    durable.make_folder(path.parent)
    lock = locks.lock(path.parent, exclusive=True)
    if lock is None:
        raise UsageError(f"someone else is changing {path}", hint="try again")
    try:
        try:
            text = contents.read_document(path).decode()
        except FileNotFoundError:
            text = ""
        except UnicodeDecodeError as error:
            raise TokensFileError(f"reading the tokens file {path}: {error}") from error
        lines = change(text.splitlines(), parse_tokens(text, path))
        durable.replace_document(path, "".join(f"{line}\n" for line in lines).encode())
    finally:
        locks.unlock(lock)
