# Short names for the stages of .ci/run, which is the one place that says what each does: CI runs them all in order.

# List the recipes.
default:
    @just --list --unsorted

# Check the format (`cargo fmt` repairs it).
fmt:
    .ci/run fmt

# Clippy on everything, warnings denied.
lint:
    .ci/run lint

# Bans, licences and sources of all dependencies.
deny:
    .ci/run deny

# Regenerate what is checked in though generated: protobuf code (needs protoc) and resource definitions.
gen:
    cargo run --quiet --locked --package mesh-proto-gen
    cargo fmt --package mesh-proto
    cargo run --quiet --locked --package mesh-proto --features crd --example crds

# Write the code map, the pages of reference and the Helm chart anew, from the code and the manifests.
docs:
    UPDATE_DOCS=1 cargo test --quiet --locked --package mesh-e2e --test architecture --test reference
    UPDATE_DOCS=1 cargo test --quiet --locked --package meshctl --bin meshctl -- the_page_of_commands the_chart_is_made

# Take the definition of HTTPRoute anew from the Gateway API's release that e2e/cluster/gateway-api names (needs Go).
gateway-api:
    cd e2e/cluster/gateway-api && go mod download sigs.k8s.io/gateway-api
    UPDATE_DOCS=1 GATEWAY_API_CRDS="$(cd e2e/cluster/gateway-api && go list -mod=mod -m -f '{{{{.Dir}}' sigs.k8s.io/gateway-api)/config/crd/standard" \
        cargo test --quiet --locked --package meshctl --bin meshctl -- the_gateway_api
    UPDATE_DOCS=1 cargo test --quiet --locked --package meshctl --bin meshctl -- the_chart_is_made

# As `gen`, and fail on a difference.
gen-check:
    .ci/run gen

# The README's test command: everything that needs only Rust and Linux.
test:
    .ci/run test

# The README's commands, run as written.
readme:
    .ci/run readme

# Fuzz every parser of foreign bytes for a minute (fuzz/README.md has the long run).
fuzz:
    .ci/run fuzz

# All that CI runs.
ci:
    .ci/run

# The playground, as the README starts it.
playground *args:
    cargo run --release --package meshctl -- playground {{args}}

# Measure what is promised in numbers (docs/performance.md, docs/benchmarks.md): tables, and target/bench/report.json.
bench *args:
    cargo build --release --locked --package mesh-proxy
    cargo run --release --locked --package mesh-bench -- {{args}}

# Count the instructions that one request costs the proxies (needs valgrind); `--update` holds what it counts from now on.
instructions *args:
    cargo build --release --locked --package mesh-proxy
    cargo run --quiet --locked --package mesh-bench -- --only instructions --proxy "${CARGO_TARGET_DIR:-target}/release/mesh-proxy" {{args}}

# Build (once) and start a real single-node Kubernetes, as root: e2e/cluster/README.md.
cluster-up:
    e2e/cluster/up.sh

# Stop it; leaves nothing but the cached programs.
cluster-down:
    e2e/cluster/down.sh

# The images of the mesh as OCI archives, with a bill of materials each, into target/images.
images *args:
    deploy/images/build.sh {{args}}

# The tests on the running cluster, or on that of KUBECONFIG: e2e/cluster-tests.
e2e *args:
    e2e/cluster/test.sh {{args}}

# Measure on that cluster what is promised in numbers (docs/benchmarks.md): a table, and target/bench/cluster.json.
bench-cluster *args:
    e2e/cluster/bench.sh {{args}}

# Attack the mesh and break what is around it (docs/reliability.md): a scored table, and target/torture/report.json.
torture *args:
    cargo build --release --locked --package mesh-proxy
    cargo run --release --locked --package mesh-torture -- {{args}}
