#!/usr/bin/env bash
# What a test does to the running cluster: fault.sh kill|stop|continue NAME…, where the names are those of `pids`
# (etcd, apiserver, …). What was killed is started again by up.sh.
set -euo pipefail
# shellcheck source=common.sh
source "$(dirname "$0")/common.sh"

ended() { ! alive "$1"; }
declare -A signals=([kill]=KILL [stop]=STOP [continue]=CONT)
signal=${signals[${1:-}]:-} && [[ -n $signal && $# -ge 2 ]] || die "fault.sh kill|stop|continue NAME…"
for name in "${@:2}"; do
    alive "$name" || die "$name does not run"
    read -r pid _ < "$state/pids/$name"
    kill -s "$signal" "$pid"
    [[ $signal != KILL ]] || until_true 10 "$name has ended" ended "$name"
done
