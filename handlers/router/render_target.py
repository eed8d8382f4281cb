"""One target's part of HAProxy's configuration: queue, count, health, what it is sent, how it is reached."""

from __future__ import annotations

import ipaddress

from handlers.router import answers, names, rules
from handlers.router.config import Access, RouterFile, Target


def hop(target: Target) -> list[str]:
    return [
        f"frontend hop_{names.encode(target.name)}",
        f"bind unix@{names.target_socket(target.name)} mode 600",
        "no log",
        f"default_backend {names.target_backend(target.name)}",
    ]


def backend(router: RouterFile, target: Target, access: Access) -> list[str]:
    name = names.target_backend(target.name)
    limits = router.limits
    queue_full = f"{{ queue({name}) ge {target.max_queue} }} {{ srv_conn({name}/up) ge {target.max_in_flight} }}"
    key = f'"Bearer %[str({target.name}),map_str({rules.TARGET_KEYS})]"'
    return [
        f"backend {name}",
        # Requests are logged by `api` to standard output; this is for "server is DOWN" and the like.
        "log stderr format raw local0 notice",
        f"timeout server {limits.response_timeout_s}s",
        *([f"timeout connect {rules.FAR_CONNECT_TIMEOUT_S}s"] if target.tls else []),
        # A target that forgot a kept connection resets it: that request ran nowhere and is sent once more. One that
        # died is asked again too: its work is lost, so nothing is generated twice side by side. A connection that
        # fails is not tried again: the target is marked down.
        "retries 1",
        "option redispatch 1",
        "retry-on empty-response",
        # A machine that vanished sends nothing, not even a reset: found out in about 25 s.
        "option srvtcpka",
        "srvtcpka-idle 10s",
        "srvtcpka-intvl 5s",
        "srvtcpka-cnt 3",
        # After a reload a target that is not ready stays so, without a request that finds out.
        "load-server-state-from-file global",
        *_check(target),
        "http-request set-var(txn.arrived_ms) date(0,ms)",
        f"http-request return status 503 hdr {rules.REASON} busy if {queue_full}",
        f"http-request set-header host {target.authority}",
        *_path(target),
        *_token(target),
        *([f"http-request set-header authorization {key}"] if access.key is not None else []),
        *(
            f'http-request set-header {header} "%[str({target.name}/{header}),map_str({rules.TARGET_HEADERS})]"'
            for header in sorted(access.headers)
        ),
        # Another target may take it (503). As it stands, the client would look for the fault in its own key.
        rules.reply(answers.refused_by(target.name), "if { status 401 403 }", rules="http-response"),
        f"http-response del-header {rules.REASON}",
        f"http-response set-header x-lorafleet-target {target.name}",
        # HAProxy says 503 when a request waited too long in the queue; to the client that is as a full queue.
        "http-after-response set-var(txn.waited_ms) date(0,ms),sub(txn.arrived_ms)",
        "acl waited_in_vain var(txn.waited_ms) -m int ge " + str(limits.queue_timeout_s * 1000),
        f"http-after-response set-header {rules.REASON} busy"
        f" if {{ status 503 }} waited_in_vain !{{ res.hdr(x-lorafleet-target) -m found }}",
        f"http-after-response set-status 429 if {{ res.hdr({rules.REASON}) -m found }} waited_in_vain",
        _server_line(target),
    ]


def _path(target: Target) -> list[str]:
    if target.paths is None:
        return [f"http-request set-path {target.prefix}%[path]"] if target.prefix else []
    streams = "{ req.body,json_query('$.stream') -m bool }"
    return [
        # It came through a socket, as a request of its own: whether a stream is asked for stands in its body.
        f"http-request wait-for-body time {rules.UPLOAD_TIMEOUT_S}s",
        f"http-request set-path {target.prefix}{target.paths.stream} if {streams}",
        f"http-request set-path {target.prefix}{target.paths.whole} if !{streams}",
    ]


def _token(target: Target) -> list[str]:
    """Without a token it would refuse each request: another target shall have them."""
    if target.token is None:
        return []
    none = f"{{ str({target.name}),map_str({rules.TARGET_KEYS}) -m str {rules.NO_TOKEN} }}"
    return [rules.reply(answers.NOT_UP, f"if {none}")]


def _check(target: Target) -> list[str]:
    """How it is found out whether the target can take requests. One that must not be asked counts as up."""
    if target.health_path is None:
        return []
    return [
        "option httpchk",
        f"http-check send meth GET uri {target.prefix}{target.health_path} ver HTTP/1.1"
        f" hdr host {target.authority} hdr connection close",
        "http-check expect status 200",
    ]


def _server_line(target: Target) -> str:
    checked = [
        "check inter 1s fall 2 rise 1",
        # The first refused connection marks it down; the health check brings it back.
        "observe layer4 error-limit 1 on-error mark-down",
    ]
    parts = [
        f"server up {target.address}:{target.port}",
        *(checked if target.health_path else []),
        f"maxconn {target.max_in_flight}",
        # vLLM's server forgets idle connections after 5 s: let go of them before.
        "pool-purge-delay 2s",
    ]
    if target.tls:
        parts.append(f"ssl verify required ca-file @system-ca sni str({target.host})")
        if target.health_path:
            parts.append(f"check-sni {target.host}")
    if needs_dns(target):
        parts.append("resolvers system init-addr last,libc,none")
    return " ".join(parts)


def needs_dns(target: Target) -> bool:
    """False for an IP address and for localhost, which name servers need not know."""
    if target.host == "localhost":
        return False
    try:
        ipaddress.ip_address(target.host)
    except ValueError:
        return True
    return False
