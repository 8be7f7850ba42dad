#!/usr/bin/env bash
# Run the tests of e2e/cluster-tests on the cluster that up.sh started, with the images of target/images; or on that of
# KUBECONFIG, which must have the images already, with the `kubectl` of the PATH. Arguments go to the tests: test.sh shop
set -euo pipefail
# shellcheck source=common.sh
source "$(dirname "$0")/common.sh"

if [[ -z ${KUBECONFIG:-} ]]; then
    [[ -f $state/admin.kubeconfig ]] || die "no cluster runs: just cluster-up, or set KUBECONFIG"
    export KUBECONFIG=$state/admin.kubeconfig PATH=$bin:$PATH
    import=("$here/import.sh")
    [[ $(id -u) == 0 ]] || import=(sudo --non-interactive env MESH_CLUSTER_CACHE="$(dirname "$cache")" "$here/import.sh")
    "${import[@]}"
    # What a cluster has that uses the Gateway API: given by the tests, once the mesh runs without.
    export MESH_E2E_GATEWAY_API=$cache/gateway-api.yaml
fi
cd "$here/../.."
cargo build --quiet --locked --package meshctl
# One after the other: they share the mesh, and the last of them removes it.
cargo test --quiet --locked --package mesh-cluster-tests -- --ignored --test-threads=1 --nocapture "$@"
