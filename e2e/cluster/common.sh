# Where things are; sourced by build.sh, up.sh and down.sh.
# shellcheck shell=bash disable=SC2034
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# Programs are made once for each set of versions, and outlive the checkout.
versions=$(cat "$here"/build.sh "$here"/kube/go.* "$here"/coredns/go.* "$here"/coredns/main.go "$here"/pause/* "$here"/gateway-api/* | sha256sum | cut -c1-16)
cache=${MESH_CLUSTER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mesh-cluster}/$versions
bin=$cache/bin
images=$cache/images
# Everything of the running cluster.
state=${MESH_CLUSTER_STATE:-/run/mesh-cluster}
socket=$state/containerd.sock

say() { echo "cluster: $*" >&2; }
die() { say "$*"; exit 1; }

# A process is ours only if it began when we said it did: ids are used again.
began() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }
alive() { # alive NAME
    local pid start
    [[ -f $state/pids/$1 ]] && read -r pid start < "$state/pids/$1" && [[ -n $start && $(began "$pid") == "$start" ]]
}
until_true() { # until_true SECONDS WHAT COMMAND…
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || die "$what: not within the time; see the logs in $state/log"
        sleep 0.2
    done
}
# What runs on a cluster uses that of KUBECONFIG, or the one that up.sh started, which is given the images of this checkout.
use_cluster() {
    [[ -z ${KUBECONFIG:-} ]] || return 0
    [[ -f $state/admin.kubeconfig ]] || die "no cluster runs: just cluster-up, or set KUBECONFIG"
    export KUBECONFIG=$state/admin.kubeconfig PATH=$bin:$PATH
    local as_root=()
    [[ $(id -u) == 0 ]] || as_root=(sudo --non-interactive env MESH_CLUSTER_CACHE="$(dirname "$cache")")
    "${as_root[@]}" "$here/import.sh"
    # How tests take parts of this cluster down, and up again.
    export MESH_E2E_FAULT="${as_root[*]@Q} ${here@Q}/fault.sh" MESH_E2E_UP="${as_root[*]@Q} ${here@Q}/up.sh"
    # Definitions of the Gateway API as others bring them. That they are named says also that the cluster has none of its own, and
    # may be given the mesh's.
    export MESH_E2E_GATEWAY_API=$cache/gateway-api.yaml
}
