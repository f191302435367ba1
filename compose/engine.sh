# Sourced by compose/test.sh and compose/image.sh: a container engine that works, or the reason why there is none.
# An engine that already runs is used. Otherwise, as root, one is installed from Debian and started with data, socket and
# pid of its own, and stopped by that pid at the end.
engine_home="${MERIDIAN_CACHE:?}/docker"
engine_wait_s=60
# The port of a name that this engine's clients would be asked at is never taken: the socket is a file.
engine_socket="$engine_home/docker.sock"

# Leaves the reason in engine_missing and returns 1 when no engine can be had.
start_engine() {
    export PATH="$PATH:/usr/sbin:/sbin"
    if command -v docker >/dev/null && timeout 20 docker info >/dev/null 2>&1; then
        return 0
    fi
    [ "$(id -u)" = 0 ] || { engine_missing="no container engine runs, and only root may start one"; return 1; }
    if ! command -v dockerd >/dev/null || ! command -v iptables >/dev/null; then
        echo "Installing a container engine from Debian: docker.io docker-compose iptables"
        export DEBIAN_FRONTEND=noninteractive
        { apt-get update -qq && apt-get install -y -qq --no-install-recommends docker.io docker-compose iptables; } >/dev/null 2>&1 ||
            { engine_missing="docker.io could not be installed"; return 1; }
    fi
    mkdir -p "$engine_home"
    dockerd --data-root "$engine_home/data" --exec-root "$engine_home/exec" --pidfile "$engine_home/dockerd.pid" \
        -H "unix://$engine_socket" >"$engine_home/dockerd.log" 2>&1 </dev/null &
    engine_pid=$!
    export DOCKER_HOST="unix://$engine_socket"
    local waited
    for ((waited = 0; waited < engine_wait_s; waited++)); do
        docker info >/dev/null 2>&1 && return 0
        kill -0 "$engine_pid" 2>/dev/null || break
        sleep 1
    done
    engine_missing="dockerd did not start: $(tail -n 1 "$engine_home/dockerd.log" | cut -c1-300)"
    stop_engine
    return 1
}

# Stops the engine if it is ours, by its pid.
stop_engine() {
    [ -n "${engine_pid:-}" ] || return 0
    kill "$engine_pid" 2>/dev/null || true
    wait "$engine_pid" 2>/dev/null || true
    engine_pid=""
}

# docker-compose, by whichever program has it.
find_compose() {
    if command -v docker-compose >/dev/null; then
        compose=(docker-compose)
    elif docker compose version >/dev/null 2>&1; then
        compose=(docker compose)
        docker-compose() { docker compose "$@"; }
        export -f docker-compose # the tour's own shells call it by this name
    else
        engine_missing="neither docker-compose nor the compose plugin of docker is installed"
        return 1
    fi
}
