//! B5: whoever has no certificate of this mesh that is good now is let in nowhere.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_proto::names;
use mesh_runtime::tls::signatures_of_tls13;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType, string::Ia5String,
};
use rustls::{
    ClientConfig,
    client::danger::{ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::{
    invariants::{self, Spent},
    load::Place as _,
    oracle::backend::BYTES,
    outcome::Findings,
    process,
    rig::{Plan, Rig},
    row::Stage,
};

const DAY: Duration = Duration::from_hours(24);
const GOOD: &str = "spiffe://cluster.local/ns/shop/sa/client";

type Chain = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Takes every server: here the client is the attacker.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    signatures_of_tls13!();
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    chain: Vec<CertificateDer<'static>>,
}

impl Authority {
    /// The mesh's own issuer: what it signs is refused for what it says, not for who signed.
    fn of_mesh(rig: &Rig) -> anyhow::Result<Self> {
        let (certificate, key) = rig.mesh.control.issuer()?;
        let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<_, _>>()?;
        Ok(Self { issuer: Issuer::from_ca_cert_pem(&certificate, KeyPair::from_pem(&key)?)?, chain })
    }

    /// Somebody else's, that calls itself as the mesh's does.
    fn stranger() -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "mesh issuer");
        let root = params.self_signed(&key)?.der().clone();
        Ok(Self { issuer: Issuer::new(params, key), chain: vec![root] })
    }

    fn leaf(&self, change: impl FnOnce(&mut CertificateParams)) -> anyhow::Result<Chain> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.not_before = (SystemTime::now() - Duration::from_secs(20)).into();
        params.not_after = (SystemTime::now() + DAY).into();
        params.subject_alt_names = vec![uri(GOOD)?];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        change(&mut params);
        let leaf = params.signed_by(&key, &self.issuer)?.der().clone();
        let chain = std::iter::once(leaf).chain(self.chain.iter().cloned()).collect();
        Ok((chain, PrivateKeyDer::Pkcs8(key.serialize_der().into())))
    }
}

fn uri(text: &str) -> anyhow::Result<SanType> {
    Ok(SanType::URI(Ia5String::try_from(text.to_owned())?))
}

/// What must not be taken.
fn bad(mesh: &Authority) -> anyhow::Result<Vec<(&'static str, Option<Chain>)>> {
    let named = |text: &str| -> anyhow::Result<Chain> {
        let name = uri(text)?;
        mesh.leaf(|params| params.subject_alt_names = vec![name])
    };
    let (stranger, now) = (Authority::stranger()?, SystemTime::now());
    let alone = mesh.leaf(|_| {})?;
    let mut long = mesh.leaf(|_| {})?;
    for _ in 0..10 {
        long.0.push(stranger.leaf(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))?.0[0].clone());
    }
    let names =
        (0..5000).map(|nth| uri(&format!("spiffe://cluster.local/ns/shop/sa/s{nth}"))).collect::<Result<_, _>>()?;
    let two = [uri(GOOD)?, uri("spiffe://cluster.local/ns/shop/sa/other")?];
    let own_key = KeyPair::generate()?;
    let mut own = CertificateParams::default();
    own.subject_alt_names = vec![uri(GOOD)?];
    let own = (vec![own.self_signed(&own_key)?.der().clone()], PrivateKeyDer::Pkcs8(own_key.serialize_der().into()));
    // Signed by a leaf of the mesh, which may sign nothing.
    let leaf_key = KeyPair::generate()?;
    let mut leaf = CertificateParams::default();
    leaf.subject_alt_names = vec![uri(GOOD)?];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let leaf_der = leaf.signed_by(&leaf_key, &mesh.issuer)?.der().clone();
    let of_leaf = Authority {
        issuer: Issuer::new(leaf, leaf_key),
        chain: std::iter::once(leaf_der).chain(mesh.chain.iter().cloned()).collect(),
    };
    let of_leaf = of_leaf.leaf(|_| {})?;
    let broken = {
        let (mut chain, key) = mesh.leaf(|_| {})?;
        let mut bytes = chain[0].to_vec();
        if let Some(last) = bytes.last_mut() {
            *last ^= 1;
        }
        chain[0] = bytes.into();
        (chain, key)
    };
    let other_key = (alone.0.clone(), mesh.leaf(|_| {})?.1);
    let critical = mesh.leaf(|params| {
        let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![5, 0]);
        extension.set_criticality(true);
        params.custom_extensions.push(extension);
    })?;
    let only = |usage| mesh.leaf(|params| params.extended_key_usages = vec![usage]);
    Ok(vec![
        ("none", None),
        ("expired", Some(mesh.leaf(|params| params.not_after = (now - Duration::from_mins(1)).into())?)),
        ("of ten minutes ahead", Some(mesh.leaf(|params| params.not_before = (now + Duration::from_mins(10)).into())?)),
        ("of tomorrow", Some(mesh.leaf(|params| params.not_before = (now + DAY).into())?)),
        ("for servers alone", Some(only(ExtendedKeyUsagePurpose::ServerAuth)?)),
        ("for mail", Some(only(ExtendedKeyUsagePurpose::EmailProtection)?)),
        ("signed by itself", Some(own)),
        ("of a stranger", Some(stranger.leaf(|_| {})?)),
        ("signed by a leaf", Some(of_leaf)),
        ("with a broken signature", Some(broken)),
        ("with another key", Some(other_key)),
        ("with an unknown critical extension", Some(critical)),
        ("of another trust domain", Some(named("spiffe://other.test/ns/shop/sa/client")?)),
        ("of a trust domain in capitals", Some(named("spiffe://CLUSTER.local/ns/shop/sa/client")?)),
        ("with NUL in its name", Some(named("spiffe://cluster.local/ns/shop/sa/client\0")?)),
        ("with a wildcard", Some(named("spiffe://cluster.local/ns/*/sa/*")?)),
        ("with a path above", Some(named("spiffe://cluster.local/ns/shop/sa/../sa/client")?)),
        ("with a query", Some(named("spiffe://cluster.local/ns/shop/sa/client?a")?)),
        ("with a port", Some(named("spiffe://cluster.local:1/ns/shop/sa/client")?)),
        ("of another scheme", Some(named("https://cluster.local/ns/shop/sa/client")?)),
        ("with half a name", Some(named("spiffe://cluster.local/ns/shop")?)),
        ("with two names", Some(mesh.leaf(|params| params.subject_alt_names = two.into())?)),
        ("with 5,000 names", Some(mesh.leaf(|params| params.subject_alt_names = names)?)),
        ("without a name", Some(mesh.leaf(|params| params.subject_alt_names.clear())?)),
        (
            "with a name of DNS",
            Some(mesh.leaf(|params| {
                params.subject_alt_names =
                    Ia5String::try_from("cluster.local").map(SanType::DnsName).into_iter().collect();
            })?),
        ),
        ("without its issuer", Some((alone.0[..1].to_vec(), alone.1.clone_key()))),
        (
            "in a chain of twelve",
            Some((
                std::iter::once(stranger.leaf(|_| {})?.0[0].clone()).chain(long.0[1..].iter().cloned()).collect(),
                long.1,
            )),
        ),
    ])
}

fn config(issued: Option<Chain>, alpn: &[&[u8]]) -> anyhow::Result<Arc<ClientConfig>> {
    let builder = ClientConfig::builder_with_provider(mesh_runtime::tls::provider())
        .with_protocol_versions(mesh_runtime::tls::TLS13)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    let mut config = match issued {
        Some((chain, key)) => {
            // The key is looked at by who refuses it, not by this side.
            let key = mesh_runtime::tls::provider().key_provider.load_private_key(key)?;
            let certified = Arc::new(rustls::sign::CertifiedKey::new(chain, key));
            builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|alpn| alpn.to_vec()).collect();
    Ok(Arc::new(config))
}

/// Whether bytes of the application come back: only then it was let in.
async fn is_let_in(rig: &Rig, config: Arc<ClientConfig>) -> bool {
    let talk = async {
        let socket = TcpStream::connect(rig.direct(BYTES)).await?;
        let name = ServerName::try_from("web.test").map_err(std::io::Error::other)?;
        let mut stream = TlsConnector::from(config).connect(name, socket).await?;
        stream.write_all(b"torture\n").await?;
        let mut back = Vec::new();
        // The first byte is the proxy's word on whether it carries.
        while back.len() < 9 {
            if stream.read_buf(&mut back).await? == 0 {
                break;
            }
        }
        std::io::Result::Ok(back.ends_with(b"torture\n"))
    };
    tokio::time::timeout(Duration::from_secs(20), talk).await.is_ok_and(|talked| talked.unwrap_or(false))
}

pub(crate) fn refused(stage: &Stage, findings: &mut Findings) -> anyhow::Result<()> {
    let rig = Rig::start(&Plan::new(stage))?;
    let mesh = Authority::of_mesh(&rig)?;
    let tcp = names::ALPN_TCP;
    let good = config(Some(mesh.leaf(|_| {})?), &[tcp])?;
    // Otherwise nothing below means anything.
    let let_in = rig.outsider.block_on(|| async { Ok(is_let_in(&rig, Arc::clone(&good)).await) })?;
    anyhow::ensure!(let_in, "a good certificate of the mesh is not let in");
    let cases = bad(&mesh)?;
    let count = cases.len();
    let accepted = invariants::around(&rig, rig.server(), &Rig::victim(), findings, || {
        rig.outsider.block_on(|| async {
            let mut accepted = Vec::new();
            for (name, issued) in cases {
                if is_let_in(&rig, config(issued, &[tcp])?).await {
                    accepted.push(name);
                }
            }
            // A good certificate, and no word of the mesh, or an unknown one among known ones.
            for alpn in [&b"mesh/2/tcp"[..], b"mesh/1/tcp\0"] {
                if is_let_in(&rig, config(Some(mesh.leaf(|_| {})?), &[alpn])?).await {
                    accepted.push("another ALPN");
                }
            }
            Ok((accepted, Spent { cpu: process::own_cpu(), bytes: 1 << 20 }))
        })
    })?;
    findings.told("certificates", count as f64);
    findings.never(&format!("let in {accepted:?}"), accepted.len());
    // The good one again and again: what a session could be resumed from would show.
    let config = config(Some(mesh.leaf(|_| {})?), &[tcp])?;
    let (handshakes, resumed) = rig.outsider.block_on(|| async {
        let (mut done, mut resumed) = (0, 0);
        for _ in 0..stage.pick(200, 20) {
            let socket = TcpStream::connect(rig.direct(BYTES)).await?;
            let stream =
                TlsConnector::from(Arc::clone(&config)).connect(ServerName::try_from("web.test")?, socket).await?;
            let kind = stream.get_ref().1.handshake_kind();
            resumed += usize::from(kind == Some(rustls::HandshakeKind::Resumed));
            done += 1;
        }
        Ok((done, resumed))
    })?;
    findings.told("good handshakes", f64::from(handshakes));
    findings.never("sessions resumed", resumed);
    Ok(())
}
