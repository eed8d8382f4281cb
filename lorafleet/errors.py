"""Errors that a person can act on: what is wrong, where, what was found, what is allowed, what to do next."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePath

# Prefixes that issuers of keys give to their secrets, so that leaks can be found; a value that starts like
# one is never shown, wherever it stands.
_SECRET_PREFIX = re.compile(
    r"(?:hf_|sk-|sk_|pk_|rk_|rpa_|ghp_|gho_|ghs_|github_pat_|glpat-|xox[abprs]-|AKIA|ASIA|AIza|ya29\.|eyJ|ak-|as-"
    r"|whsec_|npm_|pypi-|dop_v1_|-----BEGIN)"
)
# A long run of letters and digits, or a UUID, is a key more often than anything worth reading. Runs of hexadecimal
# digits are digests and commits here, and names have hyphens or dots in them.
_LONG_TOKEN = re.compile(
    r"(?<![A-Za-z0-9])(?=[A-Za-z]*[0-9])(?=[0-9]*[A-Za-z])(?![0-9A-Fa-f]+(?![A-Za-z0-9]))[A-Za-z0-9]{20,}"
    r"|(?<![0-9a-fA-F])[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
)
_SECRET_NAME = re.compile(
    r"(?i)token(?!s)|secret|passw|passphrase|credential|api[_-]?key|access[_-]?key|private[_-]?key|auth|bearer|(?:^|[_-])key$"
)
_USER_INFO = re.compile(r"://[^/\s]*@|[?&](?:token|key|sig|signature|access_token|X-Goog-Signature)=", re.IGNORECASE)
_HIDDEN = "(not shown: it may be a secret)"
_SHOWN_CHARACTERS = 80


class LorafleetError(Exception):
    """One mistake, in the words of the person who can mend it. `str()` of it is the whole message.

    Fields:
        what: the mistake in one sentence, without the place.
        where: `file:line`, or the stack's name where no file is known.
        target: name of the declared target that it is about, or None.
        field: dotted path in the declaration, such as `router.port`; empty for the declaration as a whole.
        found: the value that was found, already fit to be shown: build it with `shown`, never from a raw
            secret.
        allowed: what would have been right.
        next_action: what to do now.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        target: str | None = None,
        field: str = "",
        found: str = "",
        allowed: str = "",
        next_action: str = "",
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.target = target
        self.field = field
        self.found = found
        self.allowed = allowed
        self.next_action = next_action

    @property
    def errors(self) -> tuple[LorafleetError, ...]:
        """Each single mistake: this one, or all that a `DeclarationErrors` bundles."""
        return (self,)

    def __str__(self) -> str:
        place = ": ".join(part for part in (self.where, self.field) if part)
        about = f" (target {self.target})" if self.target and f"targets.{self.target}" not in self.field else ""
        lines = [f"{place}: {self.what}{about}" if place else f"{self.what}{about}"]
        for label, text in (("found", self.found), ("allowed", self.allowed), ("next", self.next_action)):
            if text:
                lines.append(f"  {label + ':':<8} {text}")
        return "\n".join(lines)


class DeclarationErrors(LorafleetError):  # noqa: N818 (it holds several)
    """Several mistakes of one declaration, so that they can be mended in one go."""

    def __init__(self, errors: Iterable[LorafleetError]) -> None:
        self._errors = tuple(errors)
        super().__init__(f"{len(self._errors)} mistakes in the declaration")

    @property
    def errors(self) -> tuple[LorafleetError, ...]:
        return self._errors

    def __str__(self) -> str:
        return "\n".join([f"{self.what}:", *(str(error) for error in self._errors)])


class Problem(Exception):  # noqa: N818 (not yet an error: it lacks its place)
    """A mistake found by code that does not know where in the declaration it stands (a file's reader, a
    parser).

    Whoever knows the place turns it into a `LorafleetError` (`lorafleet.origin.Report.problem`).
    """

    def __init__(self, what: str, *, found: str = "", allowed: str, next_action: str) -> None:
        super().__init__(what)
        self.what = what
        self.found = found
        self.allowed = allowed
        self.next_action = next_action


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name that `name` was most likely meant to be, or None when nothing is near.

    `max_model_len`, `MaxModelLen` and `max-model-len` are all taken for `maxModelLen`.
    """
    names = list(valid)
    plain = {re.sub(r"[^a-z0-9]", "", candidate.lower()): candidate for candidate in names}
    wanted = re.sub(r"[^a-z0-9]", "", name.lower())
    if wanted in plain:
        return plain[wanted]
    close = difflib.get_close_matches(wanted, list(plain), n=1, cutoff=0.6)
    return plain[close[0]] if close else None


def listed(names: Iterable[object], word: str = "or") -> str:
    """`a, b or c`."""
    parts = [str(name) for name in names]
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {word} {parts[-1]}" if parts else "nothing"


def looks_secret_name(key: str) -> bool:
    """Whether a key of this name is likely to hold a secret, so that its value must not be shown."""
    return bool(_SECRET_NAME.search(key))


def looks_secret(text: str) -> bool:
    """Whether a text looks like a key, a token or an address that carries one."""
    text = text.strip()
    if _SECRET_PREFIX.match(text) or _USER_INFO.search(text):
        return True
    return bool(_LONG_TOKEN.search(text))


def shown_key(key: object) -> str:
    """A key as it may be shown: cut when long, left out when it looks like a secret itself."""
    text = str(key)
    return _HIDDEN if looks_secret(text) else _cut(text)


def shown(value: object, *, key: str = "") -> str:
    """A value as it may stand in an error: short, on one line, never a secret.

    `key` is the name that the value stands under; a value under a name that sounds like a secret is not
    shown.
    """
    if looks_secret_name(key):
        return _HIDDEN
    match value:
        case None:
            return "nothing (null)"
        case bool():
            return f"{str(value).lower()} (a truth value)"
        case int():
            return (
                str(value) if abs(value) < 10**30 else f"a whole number of about {value.bit_length() * 3 // 10} digits"
            )
        case float():
            return f"{value!r} (a number with a fraction)"
        case str():
            return _HIDDEN if looks_secret(value) else f'"{_cut(value)}"'
        case Mapping():
            return "a mapping"
        case list() | tuple():
            return f"a list of {len(value)}"
    return f"a {type(value).__name__}"


def shown_path(path: PurePath | str) -> str:
    """A path as it may stand in an error: in full, unless a part of it looks like a secret."""
    parts = str(path).split("/")
    return "/".join(
        _HIDDEN if looks_secret(part) else "".join(c if c.isprintable() else "?" for c in part) for part in parts
    )


def _cut(text: str) -> str:
    """One printable line of at most `_SHOWN_CHARACTERS` characters."""
    line = "".join(character if character.isprintable() else "?" for character in text[: _SHOWN_CHARACTERS + 1])
    return line if len(text) <= _SHOWN_CHARACTERS else f"{line[:_SHOWN_CHARACTERS]}..."
