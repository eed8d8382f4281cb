# shellcheck shell=sh
# Source this file (`. ./env.sh`, from any folder, in bash, zsh or a POSIX sh) and plain `pulumi` commands work on
# the `local` stack: the right tools come first on PATH, and everything that Pulumi keeps goes to .lorafleet/ of this
# checkout, so that nothing in your own ~/.pulumi is read or changed. Sourcing it again is harmless.

# Where this file lies. bash and zsh say it; a plain sh (dash) does not, but keeps the file that it is reading open.
_lorafleet_root=
_lorafleet_self=
if [ -n "${BASH_VERSION-}" ]; then
    eval '_lorafleet_self=${BASH_SOURCE[0]-}'
elif [ -n "${ZSH_VERSION-}" ]; then
    eval '_lorafleet_self=${(%):-%x}'
else
    # ($$ would be another process within `$(...)`.)
    read -r _lorafleet_pid _lorafleet_link </proc/self/stat || _lorafleet_pid=$$
    for _lorafleet_fd in "/proc/$_lorafleet_pid/fd"/*; do
        _lorafleet_link=$(readlink "$_lorafleet_fd" 2>/dev/null || :)
        case $_lorafleet_link in
            */env.sh) if [ -f "${_lorafleet_link%/env.sh}/tools/setup/__main__.py" ]; then
                          _lorafleet_self=$_lorafleet_link
                      fi ;;
        esac
    done
    if [ -z "$_lorafleet_self" ] && [ -f ./tools/setup/__main__.py ]; then
        _lorafleet_self=./env.sh
    fi
fi
if [ -n "$_lorafleet_self" ]; then
    _lorafleet_root=$(CDPATH='' cd -- "$(dirname -- "$_lorafleet_self")" >/dev/null 2>&1 && pwd -P || :)
fi

_lorafleet_first_on_path() {
    _lorafleet_path=":$PATH:"
    while :; do
        case $_lorafleet_path in
            *":$1:"*) _lorafleet_path="${_lorafleet_path%%":$1:"*}:${_lorafleet_path#*":$1:"}" ;;
            *) break ;;
        esac
    done
    _lorafleet_path=${_lorafleet_path#:}
    PATH="$1:${_lorafleet_path%:}"
}

if [ -z "$_lorafleet_root" ] || [ ! -f "$_lorafleet_root/tools/setup/__main__.py" ]; then
    echo "env.sh: this shell does not say where the file lies: cd to the folder that holds env.sh and source ./env.sh" >&2
else
    # HAProxy lies in /usr/sbin, which an ordinary user's PATH may lack.
    case ":$PATH:" in *:/usr/sbin:*) ;; *) PATH="$PATH:/usr/sbin" ;; esac
    # The engine's folder is there only if the set-up had to get a Pulumi CLI of its own.
    if [ -d "$_lorafleet_root/.lorafleet/engine/bin" ]; then
        _lorafleet_first_on_path "$_lorafleet_root/.lorafleet/engine/bin"
    fi
    # Pulumi runs the program with the first python on PATH.
    _lorafleet_first_on_path "$_lorafleet_root/.venv/bin"
    export PATH
    export VIRTUAL_ENV="$_lorafleet_root/.venv"

    # A random passphrase for the secrets in the local stack's state, made once per checkout. Written aside and then
    # linked, so that two shells at once agree on one.
    if [ ! -s "$_lorafleet_root/.lorafleet/passphrase" ]; then
        (
            umask 077
            mkdir -p "$_lorafleet_root/.lorafleet"
            _lorafleet_new=$(mktemp "$_lorafleet_root/.lorafleet/passphrase.XXXXXX") || exit 0
            od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$_lorafleet_new"
            # A salt of a former passphrase (its checkout was moved, or .lorafleet removed) would only be in the way.
            if ln "$_lorafleet_new" "$_lorafleet_root/.lorafleet/passphrase" 2>/dev/null &&
                [ -f "$_lorafleet_root/stacks/Pulumi.local.yaml" ]; then
                sed -i '/^encryptionsalt:/d' "$_lorafleet_root/stacks/Pulumi.local.yaml"
            fi
            rm -f "$_lorafleet_new"
        )
    fi
    mkdir -p "$_lorafleet_root/.lorafleet/backend" "$_lorafleet_root/.lorafleet/pulumi-home"

    export PULUMI_HOME="$_lorafleet_root/.lorafleet/pulumi-home"
    # A file:// URL may not hold a bare space or percent sign.
    PULUMI_BACKEND_URL="file://$(printf '%s' "$_lorafleet_root/.lorafleet/backend" | sed 's/%/%25/g; s/ /%20/g')"
    export PULUMI_BACKEND_URL
    export PULUMI_CONFIG_PASSPHRASE_FILE="$_lorafleet_root/.lorafleet/passphrase"
    # This one would win over the file.
    unset PULUMI_CONFIG_PASSPHRASE
    # The salt that belongs to the passphrase is kept in the state too. If git or an editor takes it out of
    # stacks/Pulumi.local.yaml (see .gitattributes), the engine puts it back from there.
    export PULUMI_FALLBACK_TO_STATE_SECRETS_MANAGER=true
    export PULUMI_SKIP_UPDATE_CHECK=true
    # The engine takes every provider whose Python package is installed for needed, and would fetch pulumi-gcp's plugin
    # (or try to, for seconds, without a network) at each preview of `local`, which does not use it. The stacks that do
    # are told by the engine how to install it: pulumi plugin install resource gcp v10.2.0
    export PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION=true
    # Without .pyc files every preview is seconds slower.
    unset PYTHONDONTWRITEBYTECODE
fi
unset _lorafleet_root _lorafleet_self _lorafleet_pid _lorafleet_fd _lorafleet_link _lorafleet_path
unset -f _lorafleet_first_on_path
