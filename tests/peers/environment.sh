# For scripts that install peers below target/peers: $prefix is that folder. What is already there is not asked for again.

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "need root (or sudo) for: $*" >&2
        exit 1
    fi
}

# PACKAGE...: from the system.
packages() {
    echo "installing $*"
    as_root apt-get -qq update
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "$@" >/dev/null
}

# fresh NAME LIST: whether what is to be installed has changed; then the old one is removed.
fresh() {
    if cmp -s "$2" "$prefix/$1/installed.txt"; then
        return 1
    fi
    echo "installing $1"
    rm -rf "${prefix:?}/$1"
}

# NAME LIST: a Python environment with the packages of a list.
environment() {
    if fresh "$1" "$2"; then
        python3 -m venv "$prefix/$1"
        "$prefix/$1/bin/pip" install --quiet --disable-pip-version-check --requirement "$2"
        cp "$2" "$prefix/$1/installed.txt"
    fi
}
