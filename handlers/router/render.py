"""The router file as HAProxy's configuration and the files that it refers to. Pure: same input, same text.

The way of a request: frontend `api` (key, caps, model) -> backend `model_NAME` (counts per model, chooses a
target) -> a unix socket -> backend `target_NAME` (health, capacity, queue) -> the target. The socket between makes
one count of requests in flight and one queue per target, whichever model asks, while HAProxy counts each model for
itself. Tiers of targets can stand between the two backends later without a change to either.

Relative paths: files are found beside haproxy.cfg (`default-path config`), sockets in the working folder (runDir),
which keeps their names short (the system allows about 100 characters).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from handlers.router import answers, names, render_target, rules
from handlers.router.config import Access, Model, RouterFile, Target

CONFIG_FILE = "haproxy.cfg"
ADMIN_SOCKET = "admin.sock"
FLEET_SOCKET = "fleet.sock"
SERVER_STATES = "servers.state"

HEADERS_KIB = 16
_BUFFER_MARGIN_KIB = 64  # headers, HAProxy's own room for rewriting (maxrewrite) and its notes about each block
_KEEP_ALIVE_S = 20  # more than common clients keep an idle connection, so that they close first
_SESSION = "^[ -~]{1,128}$"  # characters of ASCII that can be printed

_LOG_FIELDS = {
    "time": '"%[date,utime(%Y-%m-%dT%H:%M:%SZ)]"',
    "requestId": '"%[var(txn.request_id)]"',
    "method": '"%[var(txn.method),json(utf8s)]"',
    "path": '"%[var(txn.path),bytes(0,128),json(utf8s)]"',
    "model": '"%[var(txn.model),bytes(0,128),json(utf8s)]"',
    "target": '"%s"',
    "status": "%ST",
    "firstByteMs": "%Tr",
    "totalMs": "%Ta",
    "bytesIn": "%U",
    "bytesOut": "%B",
    "retries": '"%rc"',
    "end": '"%ts"',
}
"""A log line's fields. `end` is HAProxy's termination state ("--": all well); a time of -1 was not reached."""


def render(router: RouterFile, access: Mapping[str, Access], max_connections: int = 4000) -> dict[str, str]:
    """File name (in the folder of haproxy.cfg) -> text. All are for the owner's eyes only (mode 0600).

    `max_connections` is HAProxy's maxconn: each takes two file descriptors.
    """
    sections = [
        _global(router, max_connections),
        _defaults(router),
        _metrics(router),
        _fleet_metrics(),
        _api(router),
        _models(router),
        *(_model_backend(router, model) for model in router.models),
    ]
    for target in router.targets:
        sections.append(render_target.hop(target))
        sections.append(render_target.backend(router, target, access.get(target.name, Access())))
    if any(render_target.needs_dns(target) for target in router.targets):
        sections.insert(2, ["resolvers system", "parse-resolv-conf"])
    files = {
        CONFIG_FILE: "# Written by the router from its router file; the next reload writes it anew.\n\n"
        + "\n\n".join("\n  ".join(section) for section in sections)
        + "\n",
        "client-keys.txt": _lines(router.client_keys_sha256),
        "model-backends.map": _lines(f"{m.name} {names.model_backend(m.name)}" for m in router.models),
        rules.TARGET_KEYS: _lines(f"{name} {one.key}" for name, one in sorted(access.items()) if one.key is not None),
        rules.TARGET_HEADERS: _lines(
            f"{name}/{header} {value}"
            for name, one in sorted(access.items())
            for header, value in sorted(one.headers.items())
        ),
        "models.json": answers.model_list(router),
    }
    for index, model in enumerate(router.models):
        files[_card_file(model)] = answers.model_card(router, index)
    for answer in answers.FROM_HAPROXY:
        files[f"{answer.status}.http"] = answers.raw_http(answer)
    return files


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _card_file(model: Model) -> str:
    return f"{names.model_backend(model.name)}.json"


def _whole_answer_s(router: RouterFile) -> int:
    """Seconds within which a request has its first byte or an error, whatever happens behind."""
    tries = min(3, len(router.targets)) + 1
    connect_s = rules.FAR_CONNECT_TIMEOUT_S if any(target.tls for target in router.targets) else rules.CONNECT_TIMEOUT_S
    return router.limits.response_timeout_s + tries * (router.limits.queue_timeout_s + connect_s) + 5


def _global(router: RouterFile, max_connections: int) -> list[str]:
    body_kib = router.limits.max_body_kib
    return [
        "global",
        "default-path config",
        # One thread: counts and queues are exact, and one carries some 10,000 requests a second.
        "nbthread 1",
        f"maxconn {max_connections}",
        # Without this a second router could bind the same port and take half of the requests.
        "noreuseport",
        # A whole request must fit: the model is read from it, and only then can it be sent once more.
        f"tune.bufsize {(body_kib + _BUFFER_MARGIN_KIB) * 1024}",
        f"hard-stop-after {_whole_answer_s(router) + 60}s",
        f"stats socket unix@{ADMIN_SOCKET} mode 600 level admin expose-fd listeners",
        f"server-state-file {SERVER_STATES}",
    ]


def _defaults(router: RouterFile) -> list[str]:
    answer_s = _whole_answer_s(router)
    return [
        "defaults",
        "mode http",
        f"timeout connect {rules.CONNECT_TIMEOUT_S}s",
        f"timeout client {answer_s}s",
        f"timeout server {answer_s}s",
        f"timeout queue {router.limits.queue_timeout_s}s",
        "timeout http-request 10s",
        f"timeout http-keep-alive {_KEEP_ALIVE_S}s",
        # Without this the first token of a stream waits for up to 200 ms.
        "option http-no-delay",
        # A client that hung up must not hold a place in a queue or at a target.
        "option abortonclose",
        # At a reload, idle connections of clients close after their next answer, never under a request.
        "option idle-close-on-response",
        "option dontlognull",
        *(f"errorfile {answer.status} {answer.status}.http" for answer in answers.FROM_HAPROXY),
    ]


def _metrics(router: RouterFile) -> list[str]:
    return [
        "frontend metrics",
        f"bind {router.metrics}",
        "no log",
        rules.reply(answers.WANTS_GET, "unless METH_GET"),
        "http-request use-service prometheus-exporter if { path /metrics }",
        rules.reply(answers.NO_METRICS_PATH, "unless { path /metrics/fleet }"),
        "default_backend fleet_metrics",
    ]


def _fleet_metrics() -> list[str]:
    """What the supervisor knows of the targets' adapters, at the same address as HAProxy's own figures."""
    return ["backend fleet_metrics", "timeout server 10s", f"server supervisor unix@{FLEET_SOCKET}"]


def _api(router: RouterFile) -> list[str]:
    log_format = "{" + ",".join(f'"{name}":{value}' for name, value in _LOG_FIELDS.items()) + "}"
    too_large = rules.reply(answers.body_too_large(router.limits.max_body_kib), "if generate body_too_large")
    return [
        "frontend api",
        f"bind {router.listen}",
        "log stdout len 8192 format raw local0 info",
        f"log-format {rules.quoted(log_format)}",
        "unique-id-format %[uuid()]",
        "http-request set-var(txn.method) method",
        "http-request set-var(txn.path) path",
        # A client's own id goes into logs and headers: it is kept only where it is harmless there.
        "http-request set-var(txn.request_id) req.fhdr(x-request-id)",
        "http-request set-var(txn.request_id) unique-id unless { var(txn.request_id) -m reg ^[A-Za-z0-9._:-]{1,128}$ }",
        "http-request set-header x-request-id %[var(txn.request_id)]",
        "http-after-response set-header x-request-id %[var(txn.request_id)] if { var(txn.request_id) -m found }",
        *(f"acl any_up nbsrv({names.target_backend(target.name)}) gt 0" for target in router.targets),
        "http-request set-log-level silent if { path /health }",
        "http-request return status 200 content-type application/json"
        ' string \'{"status": "ok"}\' if { path /health } any_up',
        rules.reply(answers.NOT_UP, "if { path /health }"),
        rules.reply(answers.HEADERS_TOO_LARGE, f"if {{ req.hdrs,length gt {HEADERS_KIB * 1024} }}"),
        # Only digests of keys are known here; the plain key leaves with the next rule.
        rules.reply(answers.BAD_KEY, "unless { http_auth_bearer,sha2(256),hex,lower -m str -f client-keys.txt }"),
        "http-request del-header authorization",
        # Who asks may say which session it is (one that stays on its side of a canary), and nothing else.
        "http-request set-var(txn.session) req.fhdr(x-lorafleet-session)",
        "http-request del-header x-lorafleet- -m beg",
        "http-request set-header x-lorafleet-session %[var(txn.session)]"
        f" if {{ var(txn.session) -m reg {rules.quoted(_SESSION)} }}",
        "acl models path /v1/models",
        "acl models path_beg /v1/models/",
        "acl generate path /v1/chat/completions /v1/completions",
        rules.reply(answers.NO_PATH, "unless models or generate"),
        rules.reply(answers.WANTS_GET, "if models !METH_GET"),
        rules.reply(answers.WANTS_POST, "if generate !METH_POST"),
        # Once by the length that the client announces, once by what came.
        f"acl body_too_large req.body_size gt {router.limits.max_body_kib * 1024}",
        too_large,
        # As `option http-buffer-request`, but behind the checks above: it holds no body of one without a key.
        f"http-request wait-for-body time {rules.UPLOAD_TIMEOUT_S}s if generate",
        too_large,
        "http-request set-var(txn.model) req.body,json_query('$.model') if generate",
        rules.reply(answers.NO_MODEL, "if generate !{ var(txn.model),length gt 0 }"),
        *_token_cap(router),
        "http-request set-var(txn.backend) var(txn.model),map_str(model-backends.map) if generate",
        rules.reply(
            answers.unknown_model(router, "%[var(txn.model),bytes(0,128),json(utf8s)]"),
            "if generate !{ var(txn.backend) -m found }",
            expression=True,
        ),
        "use_backend %[var(txn.backend)] if generate",
        "default_backend models",
    ]


def _token_cap(router: RouterFile) -> list[str]:
    """Both fields that limit an answer's length.

    `e+` and ten digits: numbers that HAProxy's integers do not hold. A field that stands twice is read once (the
    first); this cap spares the targets mistakes, it is no defence against a holder of a key.
    """
    caps: list[str] = []
    for field in ("max_tokens", "max_completion_tokens"):
        caps.append(f"http-request set-var(txn.{field}) req.body,json_query('$.{field}') if generate")
        for condition in (f"-m int gt {router.limits.max_tokens}", "-m reg e[+]|[0-9]{10}"):
            answer = answers.too_many_tokens(router.limits.max_tokens)
            caps.append(rules.reply(answer, f"if generate {{ var(txn.{field}) {condition} }}"))
    return caps


def _models(router: RouterFile) -> list[str]:
    """GET /v1/models and /v1/models/NAME."""
    name = "path,url_dec,regsub(^/v1/models/,)"
    return [
        "backend models",
        f"http-request set-var(txn.model) {name} unless {{ path /v1/models }}",
        "http-request return status 200 content-type application/json file models.json if { path /v1/models }",
        *(
            "http-request return status 200 content-type application/json"
            f" file {_card_file(model)} if {{ var(txn.model) -m str {model.name} }}"
            for model in router.models
        ),
        rules.reply(
            answers.unknown_model(router, "%[var(txn.model),bytes(0,128),json(utf8s)]"),
            "if TRUE",
            expression=True,
        ),
    ]


def _model_backend(router: RouterFile, model: Model) -> list[str]:
    """Counts one model's requests and gives each to the target with the fewest.

    A request goes to another target when none of it ran: the target was full or down (both are 503 here). It never
    does when a target is slow: that would make the same answer twice. A target that must not be asked for its health
    sleeps while nobody needs it, and costs money when it is woken: it gets what is more than the others can do at once.
    """
    targets = [target for target in router.targets if model.name in target.models]
    several = len(targets) > 1
    # Those that are awake first; the sort keeps the file's order otherwise.
    targets.sort(key=lambda target: target.health_path is None)
    mixed = targets[0].health_path is not None and targets[-1].health_path is None
    return [
        f"backend {names.model_backend(model.name)}",
        "balance leastconn",
        # A kept connection between two parts of one process would hold a former worker back after a reload.
        "http-reuse never",
        "option redispatch 1",
        f"retries {min(3, max(1, len(targets) - 1))}",
        "retry-on conn-failure empty-response" + (" 503" if several else ""),
        rules.reply(answers.BUSY, f"if {{ res.hdr({rules.REASON}) -m str busy }}", rules="http-response"),
        *(_free_one_first(model, target) for target in targets if mixed),
        *(
            f"server {target.name} unix@{names.target_socket(target.name)}"
            + (f" track {names.target_backend(target.name)}/up" if target.health_path else "")
            for target in targets
        ),
    ]


def _free_one_first(model: Model, target: Target) -> str:
    """Takes the first target with a free place. The balance is for when none has one, and for after a refusal.

    What counts are the requests of all models, those that wait for the target among them: by its own requests alone
    each model would fill the first target before anything reached the next one. The second condition is for requests
    that come at the same moment, which are not counted at the target yet.
    """
    most = target.max_in_flight
    return (
        f"use-server {target.name} if {{ be_conn({names.target_backend(target.name)}) lt {most} }}"
        f" {{ srv_conn({names.model_backend(model.name)}/{target.name}) lt {most} }}"
    )
