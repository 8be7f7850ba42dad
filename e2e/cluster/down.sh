#!/usr/bin/env bash
# Stop what up.sh started, by the ids it noted, and remove what it made. Does no harm where nothing runs.
set -uo pipefail
# shellcheck source=common.sh
source "$(dirname "$0")/common.sh"

main() {
    [[ $(id -u) == 0 ]] || die "a node needs root: run it with sudo"
    [[ -d $state ]] || { say "nothing runs"; return; }
    exec 9> "$state/lock"
    flock --nonblock 9 || die "another up.sh or down.sh is at work"
    # The kubelet first: it would start again what is stopped below.
    stop 10 kubelet kube-proxy scheduler controller-manager
    containers
    # Nobody needs them to end well: their data goes, too.
    stop 2 containerd apiserver etcd
    local mounts
    mounts=$(awk -v state="$state/" 'index($2, state) == 1 { print $2 }' /proc/mounts | sort --reverse)
    for mount in $mounts; do umount --lazy "$mount"; done
    local link
    for link in mesh-pods0 mesh-node0; do
        ip link delete "$link" 2>/dev/null
    done
    for family in ip ip6; do nft delete table "$family" kube-proxy 2>/dev/null; done
    cgroups
    elsewhere
    rm -rf --one-file-system "$state"
    [[ ! -e $state ]] || die "not all of $state could be removed"
    say "stopped"
}

stop() { # stop SECONDS NAME…: SIGTERM to all, SIGKILL to those that are there after that time
    local name pid deadline=$((SECONDS + $1))
    shift
    for name in "$@"; do
        if alive "$name"; then
            read -r pid _ < "$state/pids/$name"
            kill "$pid" 2>/dev/null
        fi
    done
    for name in "$@"; do
        while alive "$name" && ((SECONDS < deadline)); do sleep 0.1; done
        if alive "$name"; then
            read -r pid _ < "$state/pids/$name"
            kill -KILL "$pid" 2>/dev/null
        fi
        rm -f "$state/pids/$name"
    done
}

# All that runs in containers, with the network namespaces that their sandboxes were given.
containers() {
    local ctr=(ctr --address "$socket" --namespace k8s.io) task pid spec
    if ! "${ctr[@]}" version >/dev/null 2>&1; then
        # containerd was killed: another one knows what the first had running.
        [[ -f $state/containerd.toml ]] || return 0
        setsid nohup containerd --config "$state/containerd.toml" >> "$state/log/containerd.log" 2>&1 < /dev/null 9>&- &
        pid=$!
        echo "$pid $(began "$pid")" > "$state/pids/containerd"
        disown
        for _ in {1..100}; do
            "${ctr[@]}" version >/dev/null 2>&1 && break
            sleep 0.2
        done
    fi
    local namespaces=()
    for task in $("${ctr[@]}" tasks list --quiet 2>/dev/null); do
        spec=$("${ctr[@]}" containers info "$task" 2>/dev/null)
        mapfile -t -O "${#namespaces[@]}" namespaces < <(grep -o '/var/run/netns/cni-[0-9a-f-]*' <<< "$spec" | sort -u)
        "${ctr[@]}" tasks kill --signal SIGKILL --all "$task" >/dev/null 2>&1
    done
    for task in $("${ctr[@]}" containers list --quiet 2>/dev/null); do
        "${ctr[@]}" tasks delete --force "$task" >/dev/null 2>&1
        "${ctr[@]}" containers delete "$task" >/dev/null 2>&1
    done
    local namespace
    for namespace in $(printf '%s\n' "${namespaces[@]}" | sort -u); do
        ip netns delete "${namespace##*/}" 2>/dev/null
    done
}

# The kubelet's cgroups, empty by now.
cgroups() {
    local root
    for root in /sys/fs/cgroup/kubepods /sys/fs/cgroup/*/kubepods; do
        [[ -d $root ]] && find "$root" -depth -type d -exec rmdir {} + 2>/dev/null
    done
}

# What the programs write outside of the state, where up.sh did not find it there; otherwise what is ours in it.
elsewhere() {
    local path
    [[ -f $state/forward ]] && sysctl -qw "net.ipv4.ip_forward=$(cat "$state/forward")"
    [[ -f $state/forward6 ]] && sysctl -qw "net.ipv6.conf.all.forwarding=$(cat "$state/forward6")"
    while read -r path; do
        umount --lazy "$path" 2>/dev/null
        rm -rf --one-file-system "$path"
    done < <(cat "$state/made" 2>/dev/null)
    rm -f /var/lib/cni/results/mesh-pods-*
    find /var/log/containers -maxdepth 1 -type l -lname "$state/*" -delete 2>/dev/null
    return 0
}

main "$@"
exit 0
