#!/usr/bin/env bash
# The images of the mesh, and of the demo shop, as OCI archives: build.sh [OUT] (default target/images), one static program
# each, FROM scratch, with a bill of materials (SPDX) beside each. Needs Rust and nothing else: no container runtime, no
# network. The same content as the Dockerfile's. MESH_IMAGE_PROFILE=test-images builds in a third of the time, for tests.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:-target/images}
profile=${MESH_IMAGE_PROFILE:-release}
host=$(rustc --version --verbose | sed -n 's/^host: //p')
# With --target the flag is not given to build scripts and macros, which must stay dynamic. A musl target makes the same
# kind of program; this one needs no further toolchain.
target=${MESH_IMAGE_TARGET:-$host}
export RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static"
# What `version` says. A checkout without git says nothing.
export MESH_COMMIT=${MESH_COMMIT:-$(git describe --always --dirty --abbrev=12 --exclude='*' 2>/dev/null || true)}
[[ -n $MESH_COMMIT ]] || unset MESH_COMMIT
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -1)
# Each has the user id that its pod runs it as (deploy/control-plane.yaml, proto/src/names.rs); the shop's is nobody's.
images=(mesh-proxy:2102 mesh-controller:2103 mesh-injector:2104 mesh-shop:65532)
# Most bytes that an image may hold, unpacked: every node pulls the proxy's. What is built fast, for tests, is half as large again.
bar=20000000
[[ $profile == release ]] || bar=30000000

packages=()
for image in "${images[@]}"; do packages+=(--package "${image%:*}"); done
cargo build --profile "$profile" --locked --target "$target" "${packages[@]}" --bins
mkdir -p "$out"
for image in "${images[@]}"; do
    name=${image%:*}
    program=${CARGO_TARGET_DIR:-target}/$target/$profile/$name
    # A program that asks for an interpreter finds none in its image.
    if readelf --program-headers "$program" | grep -q INTERP; then
        echo "$program is not static" >&2
        exit 1
    fi
    size=$(stat --format=%s "$program")
    if ((size > bar)); then
        echo "$name: $size bytes, over the bar of $bar for an image of profile $profile; nm --size-sort says of what" >&2
        exit 1
    fi
    tag=$version
    # deploy/demo is not released with the mesh.
    [[ $name != mesh-shop ]] || tag=dev
    deploy/images/oci-archive.sh "docker.io/library/$name:$tag" "$program" "${image#*:}" "$out/$name.tar"
    cargo tree --locked --package "$name" --target "$target" --edges normal --prefix none --no-dedupe --format '{p} {l}' \
        | sed 's/ (\*)$//; s/ (\/[^)]*)//; s/ (proc-macro)//' | sort -u | deploy/images/sbom.sh "$name" "$version" > "$out/$name.spdx.json"
    echo "$name:$tag  $size bytes  $out/$name.tar"
done
