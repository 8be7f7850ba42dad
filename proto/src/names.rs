//! Every label, annotation, environment variable, header, port and well-known name of the mesh, once.
//!
//! Everybody imports from here; nobody writes such a string anywhere else. It knows no logic.

/// Prefix of every label and annotation, and the API group of our custom resources.
pub const GROUP: &str = "meshctl.dev";

/// Label on a namespace or pod: `enabled` opts in, `disabled` on a pod opts out (the pod wins).
pub const LABEL_INJECT: &str = "meshctl.dev/inject";
/// Value of [`LABEL_INJECT`] that opts in.
pub const INJECT_ENABLED: &str = "enabled";
/// Value of [`LABEL_INJECT`] that opts out.
pub const INJECT_DISABLED: &str = "disabled";

/// Annotation that the injector leaves on an injected pod: the proxy version. Informative only: whether a pod
/// is meshed is read from its spec (contracts §1).
pub const ANNOTATION_PROXY_VERSION: &str = "meshctl.dev/proxy-version";
// What each of these may be set to, and what it does, is in the table of `injector/src/settings/table.rs`.

/// Annotation: inbound ports that are not redirected.
pub const ANNOTATION_SKIP_INBOUND_PORTS: &str = "meshctl.dev/skip-inbound-ports";
/// Annotation: outbound ports that are not redirected.
pub const ANNOTATION_SKIP_OUTBOUND_PORTS: &str = "meshctl.dev/skip-outbound-ports";
/// Annotation: networks (CIDR) to which connections are not redirected.
pub const ANNOTATION_SKIP_SUBNETS: &str = "meshctl.dev/skip-subnets";
/// Annotation: ports that carry opaque TCP (no detection).
pub const ANNOTATION_OPAQUE_PORTS: &str = "meshctl.dev/opaque-ports";
/// Annotation: see [`crate::inbound::DefaultPolicy`].
pub const ANNOTATION_DEFAULT_POLICY: &str = "meshctl.dev/default-policy";
/// Annotation: what to do with a destination never resolved while the controller is away.
pub const ANNOTATION_UNRESOLVED: &str = "meshctl.dev/unresolved";
/// Annotation: how long a TCP connect to an endpoint may take.
pub const ANNOTATION_CONNECT_TIMEOUT: &str = "meshctl.dev/connect-timeout";
/// Annotation: the longest a drain may take.
pub const ANNOTATION_DRAIN_SECONDS: &str = "meshctl.dev/drain-seconds";
/// Annotation: the proxy's log filter.
pub const ANNOTATION_LOG_LEVEL: &str = "meshctl.dev/log-level";
/// Annotation: how the proxy writes its log.
pub const ANNOTATION_LOG_FORMAT: &str = "meshctl.dev/log-format";
/// Annotation: whether the proxy logs every request.
pub const ANNOTATION_ACCESS_LOG: &str = "meshctl.dev/access-log";
/// Annotation: collector of traces.
pub const ANNOTATION_TRACE_ENDPOINT: &str = "meshctl.dev/trace-endpoint";
/// Annotation: share of traces that is sampled.
pub const ANNOTATION_TRACE_SAMPLE: &str = "meshctl.dev/trace-sample";
/// Annotation: image of sidecar and redirect.
pub const ANNOTATION_PROXY_IMAGE: &str = "meshctl.dev/proxy-image";
/// Annotation: `imagePullPolicy` of sidecar and redirect.
pub const ANNOTATION_PROXY_PULL_POLICY: &str = "meshctl.dev/proxy-pull-policy";
/// Annotation: worker threads of the data path.
pub const ANNOTATION_PROXY_WORKERS: &str = "meshctl.dev/proxy-workers";
/// Annotation: CPU that the sidecar requests.
pub const ANNOTATION_PROXY_CPU_REQUEST: &str = "meshctl.dev/proxy-cpu-request";
/// Annotation: most CPU of the sidecar.
pub const ANNOTATION_PROXY_CPU_LIMIT: &str = "meshctl.dev/proxy-cpu-limit";
/// Annotation: memory that the sidecar requests.
pub const ANNOTATION_PROXY_MEMORY_REQUEST: &str = "meshctl.dev/proxy-memory-request";
/// Annotation: most memory of the sidecar.
pub const ANNOTATION_PROXY_MEMORY_LIMIT: &str = "meshctl.dev/proxy-memory-limit";

/// Namespace of the control plane.
pub const SYSTEM_NAMESPACE: &str = "mesh-system";
/// Service and service account of the controller.
pub const CONTROLLER_NAME: &str = "mesh-controller";
/// Service and service account of the injector.
pub const INJECTOR_NAME: &str = "mesh-injector";
/// Label on everything that the mesh makes in a cluster, with the value [`PART_OF`].
pub const LABEL_PART_OF: &str = "app.kubernetes.io/part-of";
/// Value of [`LABEL_PART_OF`].
pub const PART_OF: &str = "mesh";
/// Label with the release that made an object.
pub const LABEL_VERSION: &str = "app.kubernetes.io/version";
/// ConfigMap with the values that the mesh was installed with, in [`SYSTEM_NAMESPACE`].
pub const VALUES_NAME: &str = "mesh-values";
/// Secret with the root of the certificate authority, in [`SYSTEM_NAMESPACE`].
pub const CA_SECRET_NAME: &str = "mesh-ca";
/// The Secret with the certificate of the injector's webhook.
pub const WEBHOOK_SECRET_NAME: &str = "mesh-injector-webhook-tls";
/// Trust domain where none is set.
pub const DEFAULT_TRUST_DOMAIN: &str = "cluster.local";
/// Audience of bootstrap tokens (projected service-account tokens and join tokens).
pub const TOKEN_AUDIENCE: &str = "mesh-controller.meshctl.dev";

/// Container (native sidecar) that runs the proxy.
pub const CONTAINER_PROXY: &str = "mesh-proxy";
/// Init container that sets up the redirect.
pub const CONTAINER_REDIRECT: &str = "mesh-redirect";
/// User id of the proxy: its sockets are exempt from the redirect.
pub const PROXY_UID: u32 = 2102;
/// Socket mark of the proxy where one user id is all there is (playground, tests).
pub const PROXY_MARK: u32 = 0x2102;

/// Outbound listener of the proxy (loopback only).
pub const PORT_OUTBOUND: u16 = 4140;
/// Inbound listener of the proxy (all addresses of the pod).
pub const PORT_INBOUND: u16 = 4143;
/// Admin listener of the proxy.
pub const PORT_PROXY_ADMIN: u16 = 4191;
/// gRPC of the controller (TLS).
pub const PORT_CONTROLLER: u16 = 8443;
/// Admin listener of controller and injector.
pub const PORT_ADMIN: u16 = 9990;
/// Webhook of the injector (TLS).
pub const PORT_INJECTOR: u16 = 9443;

/// Ports that are opaque TCP unless declared otherwise: their protocols start with the server or look like nothing we know (contracts §2).
pub const DEFAULT_OPAQUE_PORTS: &[u16] = &[25, 587, 3306, 4444, 5432, 6379, 9300, 11211];

/// ALPN between proxies: HTTP/1 requests, many at once, each on a channel of its own.
pub const ALPN_MUX: &[u8] = b"mesh/1/mux";
/// ALPN between proxies: HTTP/1 requests.
pub const ALPN_HTTP1: &[u8] = b"mesh/1/http1";
/// ALPN between proxies: HTTP/2 requests.
pub const ALPN_H2: &[u8] = b"mesh/1/h2";
/// ALPN between proxies: bytes.
pub const ALPN_TCP: &[u8] = b"mesh/1/tcp";
/// ALPN between proxies: not known yet, both ends detect.
pub const ALPN_DETECT: &[u8] = b"mesh/1/detect";

/// Response header that carries the code of an outcome a proxy made itself.
pub const HEADER_ERROR: &str = "mesh-error";
/// Request header that a state-changing call to the loopback admin must carry, with the value [`ADMIN_MEANT`].
pub const HEADER_ADMIN: &str = "mesh-admin";
/// The only value of [`HEADER_ADMIN`] that lets a change through.
pub const ADMIN_MEANT: &str = "1";

/// `namespace/name` of the pod (downward API).
pub const ENV_POD_NAME: &str = "MESH_POD_NAME";
/// Namespace of the pod.
pub const ENV_POD_NAMESPACE: &str = "MESH_POD_NAMESPACE";
/// Uid of the pod.
pub const ENV_POD_UID: &str = "MESH_POD_UID";
/// Addresses of the pod, comma-separated (`status.podIPs`).
pub const ENV_POD_IPS: &str = "MESH_POD_IPS";
/// Service account of the pod.
pub const ENV_SERVICE_ACCOUNT: &str = "MESH_SERVICE_ACCOUNT";
/// Trust domain.
pub const ENV_TRUST_DOMAIN: &str = "MESH_TRUST_DOMAIN";
/// `host:port` of the controller's gRPC.
pub const ENV_CONTROLLER_ADDR: &str = "MESH_CONTROLLER_ADDR";
/// File with the bootstrap token.
pub const ENV_TOKEN_FILE: &str = "MESH_TOKEN_FILE";
/// PEM roots of trust that the injector put in (the last of the fallbacks of contracts §6).
pub const ENV_TRUST_BUNDLE: &str = "MESH_TRUST_BUNDLE";
/// File with PEM roots of trust (ConfigMap `mesh-trust-bundle`), optional.
pub const ENV_TRUST_BUNDLE_FILE: &str = "MESH_TRUST_BUNDLE_FILE";
/// Directory in memory-backed storage where the proxy keeps the last bundle it received.
pub const ENV_STATE_DIR: &str = "MESH_STATE_DIR";
/// Socket mark that exempts the proxy's sockets, where the user id cannot (decimal or 0x-hex).
pub const ENV_SOCKET_MARK: &str = "MESH_SOCKET_MARK";
/// Inbound ports the sidecar does not take over (same syntax as the annotation).
pub const ENV_SKIP_INBOUND_PORTS: &str = "MESH_SKIP_INBOUND_PORTS";
/// Outbound ports the sidecar does not take over.
pub const ENV_SKIP_OUTBOUND_PORTS: &str = "MESH_SKIP_OUTBOUND_PORTS";
/// Networks the sidecar does not take over.
pub const ENV_SKIP_SUBNETS: &str = "MESH_SKIP_SUBNETS";
/// `refuse` (default) or `pass-through`.
pub const ENV_UNRESOLVED: &str = "MESH_UNRESOLVED";
/// Log filter.
pub const ENV_LOG: &str = "MESH_LOG";
/// `plain` (default) or `json`.
pub const ENV_LOG_FORMAT: &str = "MESH_LOG_FORMAT";
/// Ports of the pod that carry opaque TCP. On the sidecar for the controller, where the pod has no annotation for it.
pub const ENV_OPAQUE_PORTS: &str = "MESH_OPAQUE_PORTS";
/// Longest a TCP connect to an endpoint may take, in milliseconds.
pub const ENV_CONNECT_TIMEOUT_MS: &str = "MESH_CONNECT_TIMEOUT_MS";
/// Longest a TCP connect to the pod's own application may take, in milliseconds (default 100).
pub const ENV_APP_CONNECT_TIMEOUT_MS: &str = "MESH_APP_CONNECT_TIMEOUT_MS";
/// What owns the pod, as `kind/name`, e.g. `deployment/web`; absent for a bare pod.
pub const ENV_WORKLOAD: &str = "MESH_WORKLOAD";
/// Number of data-path worker threads (default 1).
pub const ENV_WORKERS: &str = "MESH_WORKERS";
/// Longest a drain may take, in seconds.
pub const ENV_DRAIN_SECONDS: &str = "MESH_DRAIN_SECONDS";
/// Access log of the proxy: `off` (default) or `json`, one line per finished request or connection on standard output.
pub const ENV_ACCESS_LOG: &str = "MESH_ACCESS_LOG";
/// Collector of traces, OTLP over gRPC: `http://host:port`. Unset: no traces, and no header is touched.
pub const ENV_TRACE_ENDPOINT: &str = "MESH_TRACE_ENDPOINT";
/// Share of the traces that begin here which are sampled, `0` to `1` (default `0.1`; only with [`ENV_TRACE_ENDPOINT`]).
pub const ENV_TRACE_SAMPLE: &str = "MESH_TRACE_SAMPLE";
/// Most client connections of a proxy, both directions together.
pub const ENV_MAX_CONNECTIONS: &str = "MESH_MAX_CONNECTIONS";
/// Most series of metrics that a proxy makes for the edges of its traffic (default 800).
pub const ENV_MAX_SERIES: &str = "MESH_MAX_SERIES";
/// Bytes of resident memory that a proxy may use (default: what its cgroup allows).
pub const ENV_MEMORY_LIMIT: &str = "MESH_MEMORY_LIMIT";
/// Longest the head of a request may take, in seconds (default 15).
pub const ENV_HEAD_TIMEOUT: &str = "MESH_HEAD_TIMEOUT_SECONDS";
/// Longest a client's TLS handshake may take, in seconds (default 10).
pub const ENV_HANDSHAKE_TIMEOUT: &str = "MESH_HANDSHAKE_TIMEOUT_SECONDS";
/// How often an HTTP/2 client is asked whether it is there, in seconds (default 10).
pub const ENV_PING_INTERVAL: &str = "MESH_PING_INTERVAL_SECONDS";
/// How long it has to answer, in seconds (default 3).
pub const ENV_PING_TIMEOUT: &str = "MESH_PING_TIMEOUT_SECONDS";
/// JSON list of the application's original probes, performed by the proxy at `/probe/<container>/<kind>`.
pub const ENV_PROBES: &str = "MESH_PROBES";

/// Volume with the bootstrap token.
pub const VOLUME_TOKEN: &str = "mesh-identity-token";
/// Mount path of [`VOLUME_TOKEN`].
pub const TOKEN_DIR: &str = "/var/run/mesh/token";
/// File name of the bootstrap token in [`TOKEN_DIR`].
pub const TOKEN_FILE: &str = "token";
/// Memory-backed volume for the last bundle.
pub const VOLUME_STATE: &str = "mesh-state";
/// Mount path of [`VOLUME_STATE`].
pub const STATE_DIR: &str = "/var/run/mesh/state";
/// ConfigMap with the trust bundle, in every meshed namespace, and the volume that mounts it.
pub const TRUST_BUNDLE_NAME: &str = "mesh-trust-bundle";
/// Mount path of the trust bundle ConfigMap.
pub const TRUST_BUNDLE_DIR: &str = "/var/run/mesh/trust";
/// Key in the trust bundle ConfigMap and file name in [`TRUST_BUNDLE_DIR`].
pub const TRUST_BUNDLE_KEY: &str = "roots.pem";
