#!/usr/bin/env bash
# Write an OCI archive of an image FROM scratch that holds one static program:
#   oci-archive.sh NAME:TAG PROGRAM UID OUT.tar
# Needs tar, gzip and sha256sum: no container runtime, no root, no network. The same program gives the same bytes.
set -euo pipefail
reference=$1 program=$2 uid=$3 out=$4
name=$(basename "$program")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/root" "$work/oci/blobs/sha256"

pack() { # pack DIR: every file at the same time, by nobody in particular
    tar --create --directory "$1" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --format=gnu .
}
blob() { # blob FILE: moves it to where its digest is its name; prints the digest and its size
    local digest size
    digest=$(sha256sum "$1" | cut -d' ' -f1)
    size=$(stat --format=%s "$1")
    mv "$1" "$work/oci/blobs/sha256/$digest"
    echo "$digest $size"
}

install -D -m 0755 "$program" "$work/root/$name"
# Programs look for temporary files and their own user there.
install -d -m 1777 "$work/root/tmp"
pack "$work/root" > "$work/layer.tar"
diff_id=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
gzip --no-name --fast "$work/layer.tar"
read -r layer layer_size < <(blob "$work/layer.tar.gz")

case $(uname -m) in x86_64) arch=amd64 ;; aarch64) arch=arm64 ;; *) arch=$(uname -m) ;; esac
cat > "$work/config" <<JSON
{"architecture":"$arch","os":"linux","config":{"User":"$uid:$uid","Entrypoint":["/$name"],"Env":["PATH=/"],"WorkingDir":"/"},"rootfs":{"type":"layers","diff_ids":["sha256:$diff_id"]},"history":[{"created_by":"oci-archive.sh"}]}
JSON
read -r config config_size < <(blob "$work/config")
cat > "$work/manifest" <<JSON
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:$config","size":$config_size},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:$layer","size":$layer_size}]}
JSON
read -r manifest manifest_size < <(blob "$work/manifest")
cat > "$work/oci/index.json" <<JSON
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:$manifest","size":$manifest_size,"annotations":{"io.containerd.image.name":"$reference","org.opencontainers.image.ref.name":"${reference##*:}"}}]}
JSON
echo '{"imageLayoutVersion":"1.0.0"}' > "$work/oci/oci-layout"
mkdir -p "$(dirname "$out")"
pack "$work/oci" > "$out"
