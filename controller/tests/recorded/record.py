#!/usr/bin/env python3
"""Records what a real kube-apiserver says to the controller: cluster.json, which `it/kube/recorded.rs` plays.

    record.py BIN CONTROLLER

BIN holds etcd, kube-apiserver and kubectl (the cluster's build makes them), CONTROLLER is mesh-controller. Everything
listens on loopback and ends with the script. Between the two stands a proxy that writes down each list and each watch,
line by line: a small shop is made, changed while it is watched, and the API server is started anew, whose watch cache
then knows nothing of before, so that it answers 410 to watches that resume.
"""

import http.server, json, os, pathlib, shutil, ssl, subprocess, sys, tempfile, threading, time, urllib.error, urllib.request

BIN, CONTROLLER = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[2]
ETCD, ETCD_PEER, API, RECORDER = 23790, 23800, 16443, 16080
WORK = pathlib.Path(tempfile.mkdtemp(prefix="record-"))
# What is recorded is how objects are followed, not the controller's own Secret, Lease and ConfigMaps.
KINDS = ("namespaces", "pods", "services", "endpointslices", "httproutes", "authorizationpolicies")

exchanges, lock = [], threading.Lock()
children = []


def sh(text):
    subprocess.run(["bash", "-euo", "pipefail", "-c", text], check=True, cwd=WORK, capture_output=True)


def certificates():
    sh("""
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=ca
    leaf() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $1.key -out $1.csr -subj "$2"
      printf 'extendedKeyUsage=%s\\n%s\\n' "$3" "$4" > $1.ext
      openssl x509 -req -in $1.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile $1.ext -out $1.crt; }
    leaf api /CN=kube-apiserver serverAuth subjectAltName=IP:127.0.0.1
    leaf admin /O=system:masters/CN=admin clientAuth ""
    openssl genrsa -out sa.key 2048; openssl rsa -in sa.key -pubout -out sa.pub
    """)


def start(name, *command):
    log = open(WORK / f"{name}.log", "ab")
    child = subprocess.Popen([str(word) for word in command], cwd=WORK, stdout=log, stderr=log)
    children.append(child)
    return child


def api_server():
    child = start(
        "api", BIN / "kube-apiserver", f"--etcd-servers=http://127.0.0.1:{ETCD}", "--bind-address=127.0.0.1",
        f"--secure-port={API}", "--service-cluster-ip-range=10.96.0.0/16", "--authorization-mode=RBAC",
        "--client-ca-file=ca.crt", "--tls-cert-file=api.crt", "--tls-private-key-file=api.key",
        "--service-account-key-file=sa.pub", "--service-account-signing-key-file=sa.key",
        "--service-account-issuer=https://kubernetes.default.svc", "--disable-admission-plugins=ServiceAccount",
    )
    until(lambda: kubectl("get", "--raw", "/readyz", check=False).returncode == 0, "the API server is ready")
    return child


def until(condition, what, seconds=90):
    end = time.time() + seconds
    while not condition():
        if time.time() > end:
            sys.exit(f"not within {seconds} s: {what}; logs in {WORK}")
        time.sleep(0.2)


def kubectl(*words, text=None, check=True):
    access = [f"--server=https://127.0.0.1:{API}", "--certificate-authority=ca.crt", "--client-certificate=admin.crt",
              "--client-key=admin.key"]
    return subprocess.run([str(BIN / "kubectl"), *access, *words], input=text, text=True, cwd=WORK, check=check,
                          capture_output=True)


class Recorder(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def pass_on(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0))) or None
        kind = self.path.split("?")[0].rsplit("/", 1)[-1]
        exchange = {"verb": self.command.lower(), "path": self.path, "status": 0, "lines": []}
        if kind in KINDS and self.command == "GET":
            with lock:
                exchanges.append(exchange)
        context = ssl.create_default_context(cafile=WORK / "ca.crt")
        context.load_cert_chain(WORK / "admin.crt", WORK / "admin.key")
        headers = {name: self.headers[name] for name in ("accept", "content-type") if self.headers[name]}
        request = urllib.request.Request(f"https://127.0.0.1:{API}{self.path}", body, headers, method=self.command)
        try:
            answer = urllib.request.urlopen(request, context=context)
        except urllib.error.HTTPError as error:
            answer = error
        except OSError:
            with lock:
                if exchange in exchanges:
                    exchanges.remove(exchange)
            self.close_connection = True
            return
        exchange["status"] = answer.status
        self.send_response(answer.status)
        self.send_header("content-type", answer.headers["content-type"])
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            for line in answer:
                exchange["lines"].append(line.decode().rstrip("\n"))
                self.wfile.write(line)
                self.wfile.flush()
        except OSError:
            pass

    do_GET = do_POST = do_PUT = do_PATCH = pass_on


def manifest(*objects):
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})


def pod(name, account, ip):
    """Of the mesh: it has the sidecar."""
    return {"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "shop", "labels": {"app": account}},
            "spec": {"serviceAccountName": account, "nodeName": "node-1", "automountServiceAccountToken": False,
                     "initContainers": [{"name": "mesh-proxy", "image": "proxy", "restartPolicy": "Always"}],
                     "containers": [{"name": "web", "image": "web", "ports": [{"containerPort": 8080}]}]}}, {
            "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                       "conditions": [{"type": "Ready", "status": "True"}]}}


def add_pod(name, ip, account="web"):
    spec, status = pod(name, account, ip)
    kubectl("create", "-f", "-", text=json.dumps(spec))
    kubectl("-n", "shop", "patch", "pod", name, "--subresource=status", "--type=merge", "-p", json.dumps(status))


def endpoint_slice(*addresses):
    return {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": [{"addresses": [ip], "conditions": {"ready": True, "serving": True},
                           "targetRef": {"kind": "Pod", "name": name, "namespace": "shop"}} for name, ip in addresses]}


def told(text, after=0):
    def heard():
        with lock:
            return any(text in line for exchange in exchanges[after:] for line in exchange["lines"])
    return heard


def main():
    certificates()
    start("etcd", BIN / "etcd", "--data-dir=etcd", f"--listen-client-urls=http://127.0.0.1:{ETCD}",
          f"--advertise-client-urls=http://127.0.0.1:{ETCD}", f"--listen-peer-urls=http://127.0.0.1:{ETCD_PEER}",
          f"--initial-advertise-peer-urls=http://127.0.0.1:{ETCD_PEER}",
          f"--initial-cluster=default=http://127.0.0.1:{ETCD_PEER}", "--unsafe-no-fsync")
    server = api_server()
    kubectl("apply", "-f", str(ROOT / "deploy/crds/authorizationpolicies.yaml"))
    kubectl("wait", "--for=condition=Established", "crd", "--all")
    kubectl("create", "-f", "-", text=manifest(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"meshctl.dev/inject": "enabled"}}},
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "mesh-system"}}))
    kubectl("create", "-f", "-", text=manifest(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
         "spec": {"clusterIP": "10.96.0.80", "selector": {"app": "web"},
                  "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}},
        endpoint_slice(("web-1", "10.244.0.11"), ("web-2", "10.244.0.12"))))
    add_pod("load-1", "127.0.0.2", "load")
    add_pod("web-1", "10.244.0.11")
    add_pod("web-2", "10.244.0.12")
    recorder = http.server.ThreadingHTTPServer(("127.0.0.1", RECORDER), Recorder)
    recorder.daemon_threads = True
    threading.Thread(target=recorder.serve_forever, daemon=True).start()
    access = {"apiVersion": "v1", "kind": "Config", "current-context": "r",
              "clusters": [{"name": "r", "cluster": {"server": f"http://127.0.0.1:{RECORDER}"}}],
              "contexts": [{"name": "r", "context": {"cluster": "r", "user": "r"}}], "users": [{"name": "r", "user": {}}]}
    (WORK / "kubeconfig").write_text(json.dumps(access))
    start("controller", CONTROLLER, "run", "--source", "kube", "--kubeconfig", WORK / "kubeconfig", "--state-dir",
          WORK / "state", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    until(lambda: sum("watch=" in exchange["path"] for exchange in exchanges) >= 5, "all kinds are watched")
    # While it watches: a pod more, which serves; one that goes.
    add_pod("web-3", "10.244.0.13")
    three = endpoint_slice(("web-1", "10.244.0.11"), ("web-2", "10.244.0.12"), ("web-3", "10.244.0.13"))
    kubectl("replace", "-f", "-", text=json.dumps(three))
    kubectl("-n", "shop", "delete", "pod", "web-1", "--force", "--grace-period=0")
    kubectl("replace", "-f", "-", text=json.dumps(endpoint_slice(("web-2", "10.244.0.12"), ("web-3", "10.244.0.13"))))
    until(told('"type":"DELETED"'), "the pod's end is told")
    until(told('"type":"BOOKMARK"'), "a bookmark is told", 150)
    # The server starts anew after a change that nobody was told of.
    restarted = len(exchanges)
    server.terminate()
    server.wait()
    server = api_server()
    kubectl("replace", "-f", "-", text=json.dumps(endpoint_slice(("web-2", "10.244.0.12"))))
    until(lambda: sum("watch=" in exchange["path"] for exchange in exchanges[restarted:]) >= 5, "all is watched again", 150)
    until(told('"code":410', restarted), "a watch is too old", 150)
    time.sleep(5)


try:
    main()
finally:
    for child in reversed(children):
        child.terminate()
    for child in children:
        child.wait()
with lock:
    (HERE / "cluster.json").write_text("[\n" + ",\n".join(json.dumps(each) for each in exchanges) + "\n]\n")
shutil.rmtree(WORK)
print(f"{len(exchanges)} exchanges")
