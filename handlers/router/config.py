"""The router file and the keys file, read and checked before anything is touched.

Their shape is the contract in `docs/architecture.md` ("Router file").
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard
from urllib.parse import urlsplit

from handlers.router.errors import RouterError
from handlers.router.fields import Fields, nearest, shown

# A model's name goes into URLs, map files and log lines; these characters are harmless in all of them.
_MODEL_NAME = r"[A-Za-z0-9][A-Za-z0-9._/@:-]{0,127}"
_MODEL_NAME_TEXT = "1 to 128 of letters, digits, . _ / @ : - and a letter or digit first"
_TARGET_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,47}"
_TARGET_NAME_TEXT = "1 to 48 of letters, digits, . _ - and a letter or digit first"
_HOST_NAME = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*"
)
_PATH = r"/[A-Za-z0-9._~/-]{0,127}"
# As _PATH, with the colon of Google's methods.
_FULL_PATH = r"/[A-Za-z0-9._~/:-]{0,511}"
_KEY = r"[\x21-\x7e]{1,4096}"
_HEADER = r"[A-Za-z][A-Za-z0-9-]{0,63}"
# What the router or the connection itself decides; a platform asks for its own headers beside these.
_OWN_HEADERS = {
    "authorization",
    "host",
    "content-length",
    "content-type",
    "connection",
    "transfer-encoding",
    "te",
    "upgrade",
}
_OWN_PREFIX = "x-lorafleet-"
_ABSOLUTE = r"/[^\x00-\x1f\x7f]+"


@dataclass(frozen=True)
class Address:
    """Where to listen: an IP address and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Model:
    """A public name that clients may ask for. Which content answers to it, the targets know."""

    name: str


@dataclass(frozen=True)
class Paths:
    """Of a platform that has paths of its own: for answers that come whole, and for those that come as a stream."""

    whole: str
    stream: str


@dataclass(frozen=True)
class Target:
    """One place that serves models. It gets at most `max_in_flight` requests at once; `max_queue` wait here."""

    name: str
    kind: str
    url: str
    host: str
    port: int
    tls: bool
    prefix: str
    """What stands before `/v1/...` in the paths of its requests: empty, or begins with a slash and ends with none."""
    models: tuple[str, ...]
    health_path: str | None
    """What is asked, without a key, whether it can take requests; None: nothing may be asked, it counts as up."""
    paths: Paths | None
    """Where requests go instead of their own path."""
    token: str | None
    """`google`: it asks for an access token of Google instead of a key, which the router gets by itself (tokens.py)."""
    status_path: str | None
    """What is asked for the state of its adapters; None: it must not be asked, that could wake a sleeping worker."""
    max_in_flight: int
    max_queue: int

    @property
    def address(self) -> str:
        """`HOST`, in brackets when it is an IPv6 address."""
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def authority(self) -> str:
        """What a request's Host header says."""
        default_port = self.port == (443 if self.tls else 80)
        return self.address if default_port else f"{self.address}:{self.port}"


@dataclass(frozen=True)
class Access:
    """What a target asks for: a Bearer key, and headers of its platform's own. All values are secret."""

    key: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def secrets(self) -> tuple[str, ...]:
        return tuple(value for value in (self.key, *self.headers.values()) if value is not None)


@dataclass(frozen=True)
class Limits:
    max_body_kib: int
    max_tokens: int
    queue_timeout_s: int
    response_timeout_s: int


@dataclass(frozen=True)
class RouterFile:
    """A checked router file. `digest` is the SHA-256, in hex, of its bytes."""

    listen: Address
    metrics: Address
    client_keys_sha256: tuple[str, ...]
    base_model: str
    models: tuple[Model, ...]
    targets: tuple[Target, ...]
    keys_file: Path | None
    limits: Limits
    run_dir: Path
    state_file: Path
    digest: str


def load(path: Path) -> RouterFile:
    """Reads and checks a router file. Raises RouterError."""
    return parse(read_bytes(path, "the router file"), str(path))


def read_bytes(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RouterError(
            f"{path}: {what} cannot be read: {error.strerror}", "give the path of a readable file"
        ) from None


def parse_json(content: bytes, source: str) -> Any:
    """JSON in which no object says a key twice (the later one would silently win)."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise RouterError(f"{source}: the key {shown(key)} stands twice in one object", f"correct {source}")
            found[key] = value
        return found

    try:
        return json.loads(content, object_pairs_hook=unique)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        # The parser's own words for a JSON error hold a place, never content.
        place = f"{error.msg} (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else "bad text"
        raise RouterError(f"{source}: is not JSON: {place}", f"correct {source} and try again") from None


def state_file_of(content: bytes) -> Path | None:
    """Where a router file that may be wrong elsewhere wants its state file: its error is told there."""
    try:
        value = json.loads(content)["stateFile"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return Path(value) if isinstance(value, str) and re.fullmatch(_ABSOLUTE, value) else None


def parse(content: bytes, source: str) -> RouterFile:
    """Checks the bytes of a router file; `source` is its name in errors. Raises RouterError."""
    keys = ["version", "listen", "metrics", "clientKeysSha256", "baseModel", "models", "targets", "keysFile"]
    top = Fields(parse_json(content, source), source, "", [*keys, "limits", "runDir", "stateFile"])
    top.integer("version", 1, 1)
    listen = _address(top, "listen")
    metrics = _address(top, "metrics")
    if not ipaddress.ip_address(metrics.host).is_loopback:
        raise top.fail("metrics.host", f"is {shown(metrics.host)}; allowed: a loopback address: metrics ask for no key")
    if metrics.port == listen.port:
        raise top.fail("metrics.port", f"is {metrics.port}, which is also listen.port; they must differ")
    models = _models(top)
    names = [model.name for model in models]
    base_model = top.text("baseModel", _MODEL_NAME, _MODEL_NAME_TEXT)
    if base_model not in names:
        raise top.fail("baseModel", f"is {shown(base_model)}, not one of models{nearest(base_model, names)}")
    targets = _targets(top, names)
    keys_file = top.text_or_none("keysFile", _ABSOLUTE, "an absolute path")
    return RouterFile(
        listen=listen,
        metrics=metrics,
        client_keys_sha256=top.texts("clientKeysSha256", r"[0-9a-f]{64}", "64 lower-case hex digits (a SHA-256)"),
        base_model=base_model,
        models=models,
        targets=targets,
        keys_file=None if keys_file is None else Path(keys_file),
        limits=_limits(top),
        run_dir=Path(top.text("runDir", _ABSOLUTE, "an absolute path")),
        state_file=Path(top.text("stateFile", _ABSOLUTE, "an absolute path")),
        digest=hashlib.sha256(content).hexdigest(),
    )


def _address(top: Fields, key: str) -> Address:
    fields = Fields(top.raw(key), top.source, top.at(key), ["host", "port"])
    host = fields.raw("host")
    try:
        ipaddress.ip_address(host if isinstance(host, str) else "")
    except ValueError:
        raise fields.fail("host", f"is {shown(host)}; allowed: an IP address such as 127.0.0.1") from None
    return Address(host, fields.integer("port", 1, 65535))


def _models(top: Fields) -> tuple[Model, ...]:
    models: list[Model] = []
    for index, value in enumerate(top.items("models")):
        fields = Fields(value, top.source, f"models[{index}]", ["name"])
        name = fields.text("name", _MODEL_NAME, _MODEL_NAME_TEXT)
        if any(model.name == name for model in models):
            raise fields.fail("name", f"is {shown(name)}, which another model has; names must differ")
        models.append(Model(name))
    return tuple(models)


def _targets(top: Fields, names: list[str]) -> tuple[Target, ...]:
    targets: list[Target] = []
    for index, value in enumerate(top.items("targets")):
        target = _target(Fields(value, top.source, f"targets[{index}]", _TARGET_KEYS), names)
        if any(other.name == target.name for other in targets):
            raise top.fail(f"targets[{index}].name", f"is {shown(target.name)}, which another target has")
        targets.append(target)
    for index, name in enumerate(names):
        if not any(name in target.models for target in targets):
            raise top.fail(
                f"models[{index}].name",
                f"is {shown(name)}, which no target serves; add it to a target's models",
            )
    return tuple(targets)


_TARGET_KEYS = ["name", "kind", "url", "models", "healthPath", "statusPath", "paths", "token"]
_TARGET_KEYS += ["maxInFlight", "maxQueue"]


def _target(fields: Fields, names: list[str]) -> Target:
    models = fields.texts("models", _MODEL_NAME, _MODEL_NAME_TEXT)
    for index, model in enumerate(models):
        if model not in names:
            raise fields.fail(f"models[{index}]", f"is {shown(model)}, not one of models{nearest(model, names)}")
    url = fields.raw("url")
    host, port, tls, prefix = _split_url(fields, url)
    return Target(
        name=fields.text("name", _TARGET_NAME, _TARGET_NAME_TEXT),
        kind=fields.text("kind", r"[a-z][a-z0-9-]{0,31}", "lower-case letters, digits and -"),
        url=url,
        host=host,
        port=port,
        tls=tls,
        prefix=prefix,
        models=models,
        health_path=fields.text_or_none("healthPath", _PATH, "a path such as /ready"),
        status_path=fields.text_if_any("statusPath", _PATH, "a path such as /lorafleet/state"),
        paths=_paths(fields),
        token=fields.text_if_any("token", "google", '"google"'),
        max_in_flight=fields.integer("maxInFlight", 1, 1000),
        max_queue=fields.integer("maxQueue", 0, 1000),
    )


def _paths(fields: Fields) -> Paths | None:
    if fields.if_any("paths") is None:
        return None
    inner = Fields(fields.raw("paths"), fields.source, fields.at("paths"), ["whole", "stream"])
    allowed = "a path such as /v1/endpoints/5:rawPredict"
    return Paths(inner.text("whole", _FULL_PATH, allowed), inner.text("stream", _FULL_PATH, allowed))


def _split_url(fields: Fields, url: object) -> tuple[str, int, bool, str]:
    wrong = fields.fail(
        "url", f"is {shown(url)}; allowed: http://HOST:PORT or https://HOST[:PORT], and what stands before /v1 in paths"
    )
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
        port = parts.port
    except ValueError:
        raise wrong from None
    host = parts.hostname
    prefix = parts.path.rstrip("/")
    plain = not parts.query and not parts.fragment and parts.username is None
    plain = plain and (not prefix or re.fullmatch(_PATH, prefix) is not None)
    if parts.scheme not in ("http", "https") or not host or not plain or port == 0:
        raise wrong
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if _HOST_NAME.fullmatch(host) is None:
            raise wrong from None
    if prefix.endswith("/v1"):
        raise fields.fail("url", f"is {shown(url)}; leave /v1 out: the router puts it there")
    tls = parts.scheme == "https"
    return host, port or (443 if tls else 80), tls, prefix


def _limits(top: Fields) -> Limits:
    keys = ["maxBodyKib", "maxTokens", "queueTimeoutS", "responseTimeoutS"]
    fields = Fields(top.raw("limits"), top.source, "limits", keys)
    return Limits(
        max_body_kib=fields.integer("maxBodyKib", 1, 4096),
        max_tokens=fields.integer("maxTokens", 1, 1_000_000),
        queue_timeout_s=fields.integer("queueTimeoutS", 1, 600),
        response_timeout_s=fields.integer("responseTimeoutS", 1, 3600),
    )


def load_access(router: RouterFile) -> dict[str, Access]:
    """What targets ask for, by the target's name. Raises RouterError, which never holds a key."""
    path = router.keys_file
    if path is None:
        return {}
    content = read_bytes(path, "keysFile")
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise RouterError(f"{path}: keysFile can be read by others than its owner", f"chmod 600 {path}")
    value = parse_json(content, str(path))
    next_step = (
        f'write {path} as {{target name: key, or {{"key": key or null, "headers": {{name: value}}}}}} and try again'
    )
    if not isinstance(value, dict):
        raise RouterError(f"{path}: keysFile is not a JSON object of target name to key", next_step)
    known = [target.name for target in router.targets]
    found: dict[str, Access] = {}
    for name, given in value.items():
        if name not in known:
            raise RouterError(f"{path}: {shown(name)} is not a target{nearest(name, known)}", next_step)
        try:
            found[name] = _access(given)
        except ValueError as error:
            raise RouterError(f"{path}: {error} of {shown(name)} {_WRONG_ACCESS[str(error)]}", next_step) from None
    return found


# A space or line end would change a map file's or a header's meaning.
_WRONG_ACCESS = {
    "the key": "is not 1 to 4096 visible ASCII characters without spaces",
    "the entry": "is neither a key nor an object with `key` and `headers` alone",
    "a header's name": "is not one that a platform may ask for: letters, digits, -, and none that the router sets",
    "a header's value": "is not 1 to 4096 visible ASCII characters without spaces",
}


def _access(given: object) -> Access:
    """Raises ValueError with what is wrong, a key of `_WRONG_ACCESS`."""
    if not isinstance(given, dict):
        if not _is_secret(given):
            raise ValueError("the key")
        return Access(given)
    headers = given.get("headers", {})
    if set(given) - {"key", "headers"} or not isinstance(headers, dict):
        raise ValueError("the entry")
    key = given.get("key")
    if key is not None and not _is_secret(key):
        raise ValueError("the key")
    for name, value in headers.items():
        own = name.lower() in _OWN_HEADERS or name.lower().startswith(_OWN_PREFIX)
        if own or re.fullmatch(_HEADER, name) is None:
            raise ValueError("a header's name")
        if not _is_secret(value):
            raise ValueError("a header's value")
    return Access(key, {name.lower(): value for name, value in headers.items()})


def _is_secret(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and re.fullmatch(_KEY, value) is not None
