#!/usr/bin/env bash
# Build a whole Kubernetes from Go modules into the cache: once for each set of versions (kube/go.mod, coredns/go.mod).
# Needs Go, and 4 GB of disk while it works; README.md has the time. Does nothing when it is there already.
set -euo pipefail
# shellcheck source=common.sh
source "$(dirname "$0")/common.sh"

if [[ -f $cache/complete ]]; then
    say "programs are in $cache"
    exit 0
fi
command -v go >/dev/null || die "Go is not installed; kube/go.mod says which version is needed at least"
mkdir -p "$bin" "$images"
exec 9> "$cache/lock"
flock 9

# What Go keeps between builds is of use only until this one is through: what was cut short goes on where it was.
export CGO_ENABLED=0 GOCACHE=$cache/go-build
kubernetes=$(awk '$1 == "k8s.io/kubernetes" { print $2 }' "$here/kube/go.mod")
minor=${kubernetes#v1.}
minor=${minor%%.*}
stamp="-X k8s.io/component-base/version.gitVersion=$kubernetes -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=$minor"
build() { # build MODULE PACKAGE…: all in one, so that linking one overlaps compiling the next
    (cd "$here/$1" && nice go build -trimpath -buildvcs=false -ldflags "-s -w $stamp" -o "$bin/" "${@:2}")
}
say "building Kubernetes $kubernetes, etcd and CoreDNS into $cache: some minutes"
build kube go.etcd.io/etcd/server/v3 \
    k8s.io/kubernetes/cmd/{kubectl,kube-apiserver,kube-controller-manager,kube-scheduler,kubelet,kube-proxy}
mv "$bin/server" "$bin/etcd"
build coredns .
build pause .
# The resource definitions that a cluster has which uses the Gateway API.
(cd "$here/gateway-api" && go mod download sigs.k8s.io/gateway-api &&
    sed '$a ---' -s "$(go list -mod=mod -m -f '{{.Dir}}' sigs.k8s.io/gateway-api)"/config/crd/standard/*_*.yaml) > "$cache/gateway-api.yaml"
for image in coredns pause; do
    "$here/../../deploy/images/oci-archive.sh" "mesh.invalid/$image:1" "$bin/$image" 0 "$images/$image.tar"
done
rm -rf "$GOCACHE"
touch "$cache/complete"
say "built in $SECONDS s"
