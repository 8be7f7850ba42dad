#!/usr/bin/env bash
# Run the tests of e2e/cluster-tests on the cluster that up.sh started, with the images of target/images; or on that of
# KUBECONFIG, which must have the images already, with the `kubectl` of the PATH. Arguments go to the tests: test.sh shop
set -euo pipefail
# shellcheck source=common.sh
source "$(dirname "$0")/common.sh"

use_cluster
cd "$here/../.."
cargo build --quiet --locked --package meshctl
# One after the other: they share the mesh, and the last of them removes it.
cargo test --quiet --locked --no-fail-fast --package mesh-cluster-tests -- --ignored --test-threads=1 --nocapture "$@"
