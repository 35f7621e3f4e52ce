#!/usr/bin/env bash
# What a container of the image does; installed as `agentic-ray-node`.
#
#   agentic-ray-node master [SERVE OPTION...]  a Ray head, and `agentic-ray serve` on it
#   agentic-ray-node head   [RAY OPTION...]    a Ray head alone
#   agentic-ray-node serve  [SERVE OPTION...]  a Ray node that computes nothing, and `serve` on it
#   agentic-ray-node worker [RAY OPTION...]    a Ray node that computes
#   agentic-ray-node healthy                   whether the container's own parts answer
#   agentic-ray-node COMMAND...                any other command, as it is
#
# Settings from the environment (secrets are never arguments, which other users can see):
#   AGENTIC_RAY_TOKEN           token of the HTTP service; `serve` and `master` need it
#   AGENTIC_RAY_HEAD            HOST:PORT of the head to join  [master:6379]
#   AGENTIC_RAY_WAIT_SECONDS    how long the head is waited for  [300]
#   AGENTIC_RAY_JOURNAL         journal of `serve`  [/var/lib/agentic-ray/jobs.sqlite3]
#   AGENTIC_RAY_HTTP_PORT       port of the HTTP service  [8080]
#   AGENTIC_RAY_HEAD_PORT       port of the head  [6379]
#   AGENTIC_RAY_HEAD_CPUS       CPUs of the head that take work  [0]
#   AGENTIC_RAY_DASHBOARD_HOST  where the head's dashboard listens  [127.0.0.1]
#   AGENTIC_RAY_AGENT_PORT      port on which the node's health is asked for  [52365]
#   AGENTIC_RAY_RAY_OPTIONS     more options of `ray start`, divided by blanks
#   RAY_AUTH_MODE=token, RAY_AUTH_TOKEN   token of the Ray cluster itself
#   RAY_REDIS_ADDRESS, RAY_REDIS_PASSWORD, RAY_external_storage_namespace   GCS kept in Redis
#
# If one part of a container ends, the other is ended too, and the container with it: whoever runs
# it starts it anew. On SIGTERM the service lets jobs go on for its drain time, then Ray ends.
set -euo pipefail

head_address=${AGENTIC_RAY_HEAD:-master:6379}
http_port=${AGENTIC_RAY_HTTP_PORT:-8080}
head_port=${AGENTIC_RAY_HEAD_PORT:-6379}
agent_port=${AGENTIC_RAY_AGENT_PORT:-52365}
journal=${AGENTIC_RAY_JOURNAL:-/var/lib/agentic-ray/jobs.sqlite3}
role_file=${TMPDIR:-/tmp}/agentic-ray-role
read -r -a ray_options <<<"${AGENTIC_RAY_RAY_OPTIONS:-}"

export RAY_USAGE_STATS_ENABLED=${RAY_USAGE_STATS_ENABLED:-0}
ulimit -S -n "$(ulimit -H -n)" # a node of Ray holds many connections

say() { printf 'agentic-ray-node: %s\n' "$*" >&2; }

# These run in the background and become the program, so that signals reach it.
ray_node() {
  exec ray start --block --disable-usage-stats --dashboard-agent-listen-port="$agent_port" \
    "${ray_options[@]}" "$@"
}

ray_head() {
  # Ray takes the password in no other way; the processes of a container are among themselves.
  [[ -z ${RAY_REDIS_PASSWORD:-} ]] || ray_options+=("--redis-password=$RAY_REDIS_PASSWORD")
  ray_node --head --port="$head_port" --num-cpus="${AGENTIC_RAY_HEAD_CPUS:-0}" \
    --dashboard-host="${AGENTIC_RAY_DASHBOARD_HOST:-127.0.0.1}" "$@"
}

need_token() {
  [[ -n ${AGENTIC_RAY_TOKEN:-} ]] || {
    say 'set AGENTIC_RAY_TOKEN: the service takes work from other machines'
    exit 2
  }
}

# Containers of one cluster start in any order: wait until the head answers.
wait_for_head() {
  local address=$1 deadline=$((SECONDS + ${AGENTIC_RAY_WAIT_SECONDS:-300})) asked
  while ((!stopping)); do
    ray health-check --address "$address" >/dev/null 2>&1 &
    asked=$!
    if wait "$asked"; then # a signal ends the wait
      return
    fi
    if ((SECONDS >= deadline)); then
      say "no Ray head answers at $address"
      end_parts
      exit 1
    fi
    ((${#parts[@]} == 0)) || kill -0 "${parts[0]}" 2>/dev/null || return 0 # our own head has ended
    pause
  done
}

pause() {
  sleep 1 &
  wait "$!" || true
}

serve() {
  exec agentic-ray serve --host 0.0.0.0 --behind-proxy --port "$http_port" --journal "$journal" "$@"
}

parts=() # numbers of our processes: Ray first, then the service

# Ends the parts in turn, the service first; each may take its time.
end_parts() {
  local index
  for ((index = ${#parts[@]} - 1; index >= 0; index--)); do
    kill -TERM "${parts[index]}" 2>/dev/null || true
    wait "${parts[index]}" || true
  done
}

# Waits until a part ends or a signal comes; ends what is left; exits as the part did.
look_after() {
  local status sleeper ended
  while ((!stopping)); do
    sleep 1 & # a signal that comes just before the wait is seen after a second
    sleeper=$!
    status=0 ended=
    wait -n -p ended "${parts[@]}" "$sleeper" || status=$?
    if [[ -n ${ended:-} && $ended != "$sleeper" ]]; then
      say "a part has ended with $status; the rest follows"
      end_parts
      exit $((status ? status : 1)) # no part ends well by itself
    fi
  done
  end_parts
  exit 0
}

stopping=0
role=${1:-master}
(($#)) && shift
case $role in
  master | head | serve | worker)
    printf '%s\n' "$role" >"$role_file"
    trap 'stopping=1' TERM INT
    ;;
esac

# Starts a part in the background, unless the end has been asked for.
part() {
  ((stopping)) || {
    "$@" &
    parts+=("$!")
  }
}

case $role in
  master)
    need_token
    part ray_head
    wait_for_head "127.0.0.1:$head_port"
    part serve --address "127.0.0.1:$head_port" "$@"
    look_after
    ;;
  head)
    part ray_head "$@"
    look_after
    ;;
  serve)
    need_token
    wait_for_head "$head_address"
    part ray_node --address="$head_address" --num-cpus=0 --num-gpus=0
    part serve --address "$head_address" "$@"
    look_after
    ;;
  worker)
    wait_for_head "$head_address"
    part ray_node --address="$head_address" "$@"
    look_after
    ;;
  healthy)
    python3 - "$(cat "$role_file")" "$http_port" "$agent_port" <<'PYTHON'
import sys
import urllib.request

role, http_port, agent_port = sys.argv[1:]
urls = [f"http://127.0.0.1:{agent_port}/api/local_raylet_healthz"]
if role in ("master", "serve"):
    urls.append(f"http://127.0.0.1:{http_port}/healthz")
for url in urls:
    try:
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5).read()
    except OSError as error:
        sys.exit(f"{url}: {error}")
PYTHON
    ;;
  *) exec "$role" "$@" ;;
esac
