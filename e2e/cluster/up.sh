#!/usr/bin/env bash
# Start a real single-node Kubernetes, as root. Again: starts what does not run. Prints how to use it.
set -euo pipefail
# shellcheck source=common.sh
source "$(dirname "$0")/common.sh"

node=node1
# The node's address is on a bridge of its own: a "dummy" link is not everywhere.
link=mesh-node0
address=10.90.0.1
services=10.96.0.0/16
pods=10.244.0.0/24
# Both families where IPv6 is there to be had; the addresses are then lists.
address6=fd90::1
services6=fd96::/112
pods6=fd44::/64
addresses=$address
cidrs=$pods
ranges="[{\"subnet\":\"$pods\"}]"
routes='{"dst":"0.0.0.0/0"}'

main() {
    [[ $(id -u) == 0 ]] || die "a node needs root: run it with sudo"
    packages
    "$here/build.sh"
    mkdir -p "$state"/{pki,log,pids,etcd,containerd,cni}
    exec 9> "$state/lock"
    flock --nonblock 9 || die "another up.sh or down.sh is at work"
    cd "$state"
    elsewhere
    families
    network
    certificates
    control_plane
    runtime
    node
    cluster_dns
    say "it runs. To use it: export KUBECONFIG=$state/admin.kubeconfig PATH=$bin:\$PATH"
}

packages() {
    local wanted=(containerd runc containernetworking-plugins openssl iproute2 nftables conntrack) missing=() package
    for package in "${wanted[@]}"; do
        dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null | grep -q ' installed$' || missing+=("$package")
    done
    ((${#missing[@]} == 0)) && return
    say "installing ${missing[*]}"
    apt-get update -qq
    # Their own services are not wanted: the cluster starts its own containerd.
    local policy=/usr/sbin/policy-rc.d
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' > "$policy"
        chmod +x "$policy"
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >&2
}

# Where kubelet, containerd and CNI write whatever they are told: what is not there yet is removed by down.sh.
elsewhere() {
    [[ -f made ]] && return
    local path
    for path in /var/lib/kubelet /var/lib/cni /var/log/containers /run/containerd /run/netns; do
        [[ -e $path ]] || echo "$path"
    done > made
    sysctl -n net.ipv4.ip_forward > forward
    sysctl -n net.ipv6.conf.all.forwarding > forward6 2>/dev/null || rm -f forward6
}

# Who forwards no longer listens to routers: a machine that has its route from one stays without.
families() {
    [[ $(sysctl -n net.ipv6.conf.all.disable_ipv6 2>/dev/null) == 0 ]] || return 0
    [[ -z $(ip -6 route show default proto ra) ]] || return 0
    sysctl -qw net.ipv6.conf.all.forwarding=1 2>/dev/null || return 0
    addresses+=,$address6
    services+=,$services6
    cidrs+=,$pods6
    ranges+=",[{\"subnet\":\"$pods6\"}]"
    routes+=',{"dst":"::/0"}'
}

start() { # start NAME COMMAND…: in a session of its own, its id and beginning noted
    local name=$1
    shift
    alive "$name" && return
    setsid nohup "$@" >> "$state/log/$name.log" 2>&1 < /dev/null 9>&- &
    echo "$! $(began $!)" > "$state/pids/$name"
    disown
}

network() {
    if ! ip link show "$link" >/dev/null 2>&1; then
        ip link add "$link" type bridge
        ip address add "$address/32" dev "$link"
        ip link set "$link" up
        [[ $addresses == "$address" ]] || ip address add "$address6/128" dev "$link" nodad
    fi
    sysctl -qw net.ipv4.ip_forward=1
    # Pods on one bridge reach each other's Services only if bridged packets pass the rules; not every kernel has that.
    sysctl -qw net.bridge.bridge-nf-call-iptables=1 2>/dev/null || true
    sysctl -qw net.bridge.bridge-nf-call-ip6tables=1 2>/dev/null || true
}

authority() { # authority FILE NAME
    [[ -f $1.crt ]] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=$2" \
        -keyout "$1.key" -out "$1.crt" 2>/dev/null
}
leaf() { # leaf FILE AUTHORITY SUBJECT USAGE [NAMES]
    [[ -f $1.crt ]] && return
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$1.key" -out "$1.csr" -subj "$3" 2>/dev/null
    printf 'extendedKeyUsage=%s\n%s\n' "$4" "${5:+subjectAltName=$5}" > "$1.ext"
    openssl x509 -req -in "$1.csr" -CA "$2.crt" -CAkey "$2.key" -CAcreateserial -days 3650 -extfile "$1.ext" \
        -out "$1.crt" 2>/dev/null
}
certificates() {
    cd "$state/pki"
    authority ca kubernetes
    authority front-ca front-proxy
    local names="DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
    leaf apiserver ca /CN=kube-apiserver serverAuth "$names,DNS:localhost,IP:10.96.0.1,IP:127.0.0.1,IP:$address"
    leaf kubelet-server ca "/CN=$node" serverAuth "DNS:$node,IP:$address"
    leaf kubelet-client ca /O=system:masters/CN=apiserver-kubelet-client clientAuth
    leaf front-client front-ca /CN=front-proxy-client clientAuth
    leaf admin ca /O=system:masters/CN=admin clientAuth
    leaf controller-manager ca /CN=system:kube-controller-manager clientAuth
    leaf scheduler ca /CN=system:kube-scheduler clientAuth
    leaf proxy ca /CN=system:kube-proxy clientAuth
    leaf kubelet ca "/O=system:nodes/CN=system:node:$node" clientAuth
    if [[ ! -f sa.key ]]; then
        openssl genrsa -out sa.key 2048 2>/dev/null
        openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null
    fi
    cd "$state"
    local user
    for user in admin controller-manager scheduler proxy kubelet; do
        [[ -f $user.kubeconfig ]] || kubeconfig "$user"
    done
}
kubeconfig() {
    cat > "$state/$1.kubeconfig" <<YAML
apiVersion: v1
kind: Config
clusters: [{name: mesh, cluster: {server: "https://$address:6443", certificate-authority-data: $(base64 -w0 "$state/pki/ca.crt")}}]
users: [{name: $1, user: {client-certificate-data: $(base64 -w0 "$state/pki/$1.crt"), client-key-data: $(base64 -w0 "$state/pki/$1.key")}}]
contexts: [{name: mesh, context: {cluster: mesh, user: $1}}]
current-context: mesh
YAML
    chmod 600 "$state/$1.kubeconfig"
    # Whoever started the cluster by sudo uses it.
    [[ $1 != admin || -z ${SUDO_UID:-} ]] || chown "$SUDO_UID" "$state/$1.kubeconfig"
}

kubectl() { "$bin/kubectl" --kubeconfig "$state/admin.kubeconfig" "$@"; }

control_plane() {
    start etcd "$bin/etcd" --data-dir "$state/etcd" --unsafe-no-fsync \
        --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
        --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
        --initial-cluster default=http://127.0.0.1:2380
    start apiserver "$bin/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 \
        --advertise-address="$address" --bind-address="$address" --secure-port=6443 \
        --service-cluster-ip-range="$services" --authorization-mode=Node,RBAC \
        --enable-admission-plugins=NodeRestriction --allow-privileged=true \
        --client-ca-file=pki/ca.crt --tls-cert-file=pki/apiserver.crt --tls-private-key-file=pki/apiserver.key \
        --kubelet-client-certificate=pki/kubelet-client.crt --kubelet-client-key=pki/kubelet-client.key \
        --kubelet-certificate-authority=pki/ca.crt --kubelet-preferred-address-types=InternalIP \
        --service-account-key-file=pki/sa.pub --service-account-signing-key-file=pki/sa.key \
        --service-account-issuer=https://kubernetes.default.svc.cluster.local \
        --requestheader-client-ca-file=pki/front-ca.crt --requestheader-allowed-names=front-proxy-client \
        --requestheader-extra-headers-prefix=X-Remote-Extra- --requestheader-group-headers=X-Remote-Group \
        --requestheader-username-headers=X-Remote-User \
        --proxy-client-cert-file=pki/front-client.crt --proxy-client-key-file=pki/front-client.key
    until_true 120 "the API server is ready" kubectl get --raw /readyz
    start controller-manager "$bin/kube-controller-manager" --kubeconfig=controller-manager.kubeconfig \
        --authentication-kubeconfig=controller-manager.kubeconfig --authorization-kubeconfig=controller-manager.kubeconfig \
        --service-account-private-key-file=pki/sa.key --root-ca-file=pki/ca.crt --bind-address=127.0.0.1 \
        --use-service-account-credentials --service-cluster-ip-range="$services" --leader-elect=false
    start scheduler "$bin/kube-scheduler" --kubeconfig=scheduler.kubeconfig --bind-address=127.0.0.1 \
        --authentication-kubeconfig=scheduler.kubeconfig --authorization-kubeconfig=scheduler.kubeconfig --leader-elect=false
}

runtime() {
    # A container's root cannot be an overlay on an overlay, as where this runs in a container itself.
    local snapshotter=overlayfs
    [[ $(stat --file-system --format=%T "$state") == overlayfs ]] && snapshotter=native
    # Without CAP_SYS_RESOURCE runc cannot lower an oom score, and no sandbox starts: restrict_oom_score_adj.
    cat > containerd.toml <<TOML
version = 2
root = "$state/containerd/root"
state = "$state/containerd/state"
[grpc]
  address = "$socket"
[plugins."io.containerd.internal.v1.opt"]
  path = "$state/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "mesh.invalid/pause:1"
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "$snapshotter"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$state/cni"
TOML
    cat > cni/10-bridge.conflist <<JSON
{"cniVersion":"0.4.0","name":"mesh-pods","plugins":[
  {"type":"bridge","bridge":"mesh-pods0","isGateway":true,"hairpinMode":true,
   "ipam":{"type":"host-local","dataDir":"$state/cni-addresses","ranges":[$ranges],"routes":[$routes]}}]}
JSON
    start containerd containerd --config "$state/containerd.toml"
    until_true 60 "containerd answers" ctr --address "$socket" version
    local image
    for image in "$images"/*.tar; do
        ctr --address "$socket" --namespace k8s.io images import "$image" >/dev/null
    done
}

node() {
    cat > kubelet.yaml <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $address
cgroupDriver: cgroupfs
failSwapOn: false
podLogsDir: $state/log/pods
# cgroup v1 is there on some machines still.
failCgroupV1: false
containerRuntimeEndpoint: unix://$socket
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
authentication: {x509: {clientCAFile: $state/pki/ca.crt}, webhook: {enabled: true}, anonymous: {enabled: false}}
authorization: {mode: Webhook}
tlsCertFile: $state/pki/kubelet-server.crt
tlsPrivateKeyFile: $state/pki/kubelet-server.key
evictionHard: {nodefs.available: "1%", imagefs.available: "1%"}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
maxPods: 200
# kube-proxy works with nftables; nothing is to stay in iptables.
makeIPTablesUtilChains: false
YAML
    start kubelet "$bin/kubelet" --config="$state/kubelet.yaml" --kubeconfig="$state/kubelet.kubeconfig" \
        --root-dir="$state/kubelet" --hostname-override="$node" --node-ip="$addresses" --cert-dir="$state/kubelet-pki"
    start kube-proxy "$bin/kube-proxy" --kubeconfig="$state/proxy.kubeconfig" --proxy-mode=nftables \
        --hostname-override="$node" --cluster-cidr="$cidrs" --metrics-bind-address=127.0.0.1:10249 \
        --conntrack-max-per-core=0 --conntrack-tcp-timeout-established=0 --conntrack-tcp-timeout-close-wait=0
    until_true 120 "the node is ready" kubectl wait --for=condition=Ready "node/$node" --timeout=5s
}

cluster_dns() {
    kubectl apply --filename "$here/coredns.yaml" >&2
    kubectl --namespace kube-system rollout status deployment/coredns --timeout=120s >&2
}

main "$@"
