#!/usr/bin/env bash
# Run e2e/cluster-bench on the cluster that up.sh started, with the images of target/images; or on that of KUBECONFIG, which
# must have the images already, with the `kubectl` of the PATH. Arguments go to the program: bench.sh --installs 1
# MESH_BENCH_PROFILE=dev builds it, and meshctl, unoptimised: for work on the benchmark itself.
set -euo pipefail
# shellcheck source=common.sh
source "$(dirname "$0")/common.sh"

use_cluster
profile=${MESH_BENCH_PROFILE:-release}
cd "$here/../.."
cargo build --profile "$profile" --locked --package meshctl --package mesh-cluster-bench
[[ $profile != dev ]] || profile=debug
export MESHCTL=${CARGO_TARGET_DIR:-$PWD/target}/$profile/meshctl
exec "${CARGO_TARGET_DIR:-target}/$profile/mesh-cluster-bench" "$@"
