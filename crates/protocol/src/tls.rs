//! Keys, certificates and the TLS 1.3 configurations of both ends.
//!
//! Trust is in keys, never in names: the agent pins the controller's CA by fingerprint (or pins nothing, and the pairing
//! code authenticates), the controller knows an agent by the hash of its public key, and by the certificate that it gave it
//! ([`crate::certificate`]). The agent looks at no time of validity, because a machine's clock may stand in the year 2000.
//! Only TLS 1.3 (RFC 8446) is spoken, without session resumption.

use std::fmt;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use ring::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring as provider, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use serde::{Deserialize, Serialize};

use crate::message::Bytes32;
use crate::{Error, ErrorKind, Result};

/// SHA-256 of a certificate's DER, or of a key's SubjectPublicKeyInfo; prints and parses as 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(pub Bytes32);

/// A private key with its certificate chain: what a program is known by.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// The agent's side: its identity, and whom it trusts.
#[derive(Clone)]
pub struct AgentTls {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) key: Fingerprint,
}

/// The controller's side: its own CA and the certificate of its port.
#[derive(Clone)]
pub struct ControllerTls {
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) key: Fingerprint,
    pub(crate) authority: Fingerprint,
    pub(crate) ca: Arc<Identity>,
}

/// Whom an agent trusts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// A controller whose certificate is signed by the CA with this fingerprint.
    Authority(Fingerprint),
    /// Whoever answers with a certificate that the CA behind it signed: the pairing code tells the operators who it is.
    Pairing,
}

impl Fingerprint {
    /// Of a certificate's DER or of a SubjectPublicKeyInfo.
    pub fn of(der: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, der).as_ref());
        Self(Bytes32(hash))
    }

    /// Of the public key in a certificate.
    ///
    /// # Errors
    /// [`ErrorKind::Untrusted`] for something that is no X.509 certificate.
    pub fn of_key(certificate: &CertificateDer<'_>) -> Result<Self> {
        let parsed = webpki::EndEntityCert::try_from(certificate)
            .map_err(|e| Error::new(ErrorKind::Untrusted, "certificate is not understood").because(e))?;
        Ok(Self::of(parsed.subject_public_key_info().as_ref()))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for Fingerprint {
    type Err = Error;
    /// Reads 64 hexadecimal digits, with or without colons.
    fn from_str(text: &str) -> Result<Self> {
        Bytes32::try_from(text.trim().to_owned())
            .map(Self)
            .map_err(|reason| Error::malformed(format!("certificate fingerprint: {reason}")))
    }
}

impl Identity {
    /// The agent's identity of `state_dir`, made at first use: `agent.pem`, readable by its owner only. The folder is made
    /// if it is missing.
    ///
    /// # Errors
    /// [`ErrorKind::Identity`], naming the file.
    pub fn load_or_create_agent(state_dir: &Path) -> Result<Self> {
        let path = state_dir.join("agent.pem");
        if let Some(identity) = Self::load(&path)? {
            return Ok(identity);
        }
        let identity = Self::create_agent()?;
        identity.save(&path)?;
        Ok(identity)
    }

    /// A fresh self-signed identity in memory.
    ///
    /// # Errors
    /// [`ErrorKind::Identity`].
    pub fn create_agent() -> Result<Self> {
        let key = KeyPair::generate().map_err(unmade)?;
        let mut params = named("vconverter agent", ExtendedKeyUsagePurpose::ClientAuth)?;
        params.is_ca = IsCa::ExplicitNoCa;
        let certificate = params.self_signed(&key).map_err(unmade)?;
        Ok(Self { chain: vec![certificate.der().clone()], key: private(&key) })
    }

    /// SHA-256 of the public key.
    ///
    /// # Errors
    /// [`ErrorKind::Identity`] for a certificate that is not one.
    pub fn key(&self) -> Result<Fingerprint> {
        Fingerprint::of_key(self.certificate()?)
    }

    /// SHA-256 of the certificate that is shown.
    ///
    /// # Errors
    /// [`ErrorKind::Identity`] where there is none.
    pub fn certificate_fingerprint(&self) -> Result<Fingerprint> {
        self.certificate().map(|certificate| Fingerprint::of(certificate))
    }

    /// The certificate that is shown.
    ///
    /// # Errors
    /// [`ErrorKind::Identity`] where there is none.
    pub fn certificate(&self) -> Result<&CertificateDer<'static>> {
        self.chain.first().ok_or_else(|| Error::new(ErrorKind::Identity, "identity without certificate"))
    }

    /// The same key, that shows another certificate.
    pub(crate) fn with_certificate(&self, certificate: CertificateDer<'static>) -> Self {
        Self { chain: vec![certificate], key: self.key.clone_key() }
    }

    /// What a CA signs with.
    pub(crate) fn issuer(&self) -> Result<Issuer<'static, KeyPair>> {
        Ok(Issuer::new(authority_params()?, KeyPair::try_from(&self.key).map_err(unmade)?))
    }

    /// Reads an identity; `None` where the file does not exist.
    fn load(path: &Path) -> Result<Option<Self>> {
        let Some(pem) = read_secret(path)? else { return Ok(None) };
        let wrong = |e: rustls::pki_types::pem::Error| unreadable(path).because(e);
        let chain = CertificateDer::pem_slice_iter(&pem).collect::<std::result::Result<Vec<_>, _>>().map_err(wrong)?;
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(wrong)?;
        if chain.is_empty() {
            return Err(unreadable(path));
        }
        Ok(Some(Self { chain, key }))
    }

    fn save(&self, path: &Path) -> Result<()> {
        write_secret(path, self.text().as_bytes())
    }

    fn text(&self) -> String {
        let mut text = pem("PRIVATE KEY", self.key.secret_der());
        for certificate in &self.chain {
            text.push_str(&pem("CERTIFICATE", certificate));
        }
        text
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl AgentTls {
    /// The configuration of an agent.
    ///
    /// # Errors
    /// [`ErrorKind::Identity`] when key and certificate do not fit together.
    pub fn new(identity: &Identity, trust: Trust) -> Result<Self> {
        let verifier = ControllerVerifier {
            trust,
            clock_matters: false,
            algorithms: provider::default_provider().signature_verification_algorithms,
        };
        let mut config = ClientConfig::builder_with_provider(crypto())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(unmade)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
            .map_err(unmade)?;
        config.resumption = rustls::client::Resumption::disabled();
        config.enable_sni = false;
        Ok(Self { config: Arc::new(config), key: identity.key()? })
    }

    /// SHA-256 of the agent's public key.
    pub fn key(&self) -> Fingerprint {
        self.key
    }

    /// The same with a clock that stands still at that time since 1970, to show that no clock matters.
    #[doc(hidden)]
    pub fn with_clock_for_tests(self, now: Duration) -> Self {
        let mut config = (*self.config).clone();
        config.time_provider = Arc::new(StandingClock(now));
        Self { config: Arc::new(config), ..self }
    }
}

#[derive(Debug)]
struct StandingClock(Duration);

impl rustls::time_provider::TimeProvider for StandingClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.0))
    }
}

impl ControllerTls {
    /// The controller's CA and certificate of `data_dir`, made at first use: `ca.pem` and `server.pem`, readable by their
    /// owner only.
    ///
    /// # Errors
    /// [`ErrorKind::Identity`], naming the file.
    pub fn load_or_create(data_dir: &Path) -> Result<Self> {
        let (ca_path, server_path) = (data_dir.join("ca.pem"), data_dir.join("server.pem"));
        let ca = match Identity::load(&ca_path)? {
            Some(ca) => ca,
            None => {
                let ca = create_authority()?;
                ca.save(&ca_path)?;
                ca
            }
        };
        let server = match Identity::load(&server_path)? {
            Some(server) if server.chain.get(1) == ca.chain.first() => server,
            _ => {
                let server = create_server(&ca)?;
                server.save(&server_path)?;
                server
            }
        };
        Self::new(&server, ca)
    }

    /// A fresh CA and certificate in memory.
    ///
    /// # Errors
    /// [`ErrorKind::Identity`].
    pub fn create() -> Result<Self> {
        let ca = create_authority()?;
        Self::new(&create_server(&ca)?, ca)
    }

    /// The configuration for a chain of two: server certificate, then that of `ca`.
    fn new(server: &Identity, ca: Identity) -> Result<Self> {
        let verifier = AnyAgent { algorithms: provider::default_provider().signature_verification_algorithms };
        let mut config = ServerConfig::builder_with_provider(crypto())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(unmade)?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_single_cert(server.chain.clone(), server.key.clone_key())
            .map_err(unmade)?;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let authority = Fingerprint::of(ca.certificate()?);
        Ok(Self { config: Arc::new(config), key: server.key()?, authority, ca: Arc::new(ca) })
    }

    /// Fingerprint of the CA: what a boot image is built with.
    pub fn authority(&self) -> Fingerprint {
        self.authority
    }
}

/// The certificate chain and key of the controller's console, for browsers: signed by the CA of `identity_dir`, for these
/// names and addresses. It is kept in `console.pem`, so that what a browser was told to trust stays, and made anew where
/// names, CA or time ask for it.
///
/// # Errors
/// [`ErrorKind::Identity`], naming the file; also where there is no CA yet.
pub fn web_identity(
    identity_dir: &Path,
    names: &[String],
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let (ca_path, path) = (identity_dir.join("ca.pem"), identity_dir.join("console.pem"));
    let ca = Identity::load(&ca_path)?.ok_or_else(|| unreadable(&ca_path))?;
    // A line before the first block is none of PEM's (RFC 7468, section 2).
    let heading = format!("names: {}\n", names.join(" "));
    if let Some(kept) = Identity::load(&path)?
        && kept.chain.get(1) == ca.chain.first()
        && read_secret(&path)?.is_some_and(|text| text.starts_with(heading.as_bytes()))
        && is_recent(&path)
    {
        return Ok((kept.chain, kept.key));
    }
    let issuer = ca.issuer()?;
    let key = KeyPair::generate().map_err(unmade)?;
    let mut params = CertificateParams::new(names.to_vec()).map_err(unmade)?;
    params.distinguished_name.push(DnType::CommonName, "vconverter console");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let now = SystemTime::now();
    params.not_before = (now - WEB_BEFORE).into();
    params.not_after = (now + WEB_LIFE).into();
    let certificate = params.signed_by(&key, &issuer).map_err(unmade)?;
    let mut chain = vec![certificate.der().clone()];
    chain.extend(ca.chain);
    let made = Identity { chain, key: private(&key) };
    write_secret(&path, format!("{heading}{}", made.text()).as_bytes())?;
    Ok((made.chain, made.key))
}

/// An operator's certificate chain and private key, of PEM files; others must not be able to read the key.
///
/// # Errors
/// [`ErrorKind::Identity`], naming the file.
pub fn load_web_identity(chain: &Path, key: &Path) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let missing = |path: &Path| Error::new(ErrorKind::Identity, format!("{}: no such file", path.display()));
    let wrong = |path: &Path, e: rustls::pki_types::pem::Error| unreadable(path).because(e);
    let text = read_secret(key)?.ok_or_else(|| missing(key))?;
    let private = PrivateKeyDer::from_pem_slice(&text).map_err(|e| wrong(key, e))?;
    let metadata = fs::metadata(chain).map_err(|e| unreadable(chain).because(e))?;
    if metadata.len() > PEM_BYTES_MAX {
        return Err(unreadable(chain));
    }
    let text = fs::read(chain).map_err(|e| unreadable(chain).because(e))?;
    let certificates = CertificateDer::pem_slice_iter(&text).collect::<std::result::Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|e| wrong(chain, e))?;
    if certificates.is_empty() {
        return Err(unreadable(chain));
    }
    Ok((certificates, private))
}

/// The certificates of a PEM file of authorities; what is none is left out.
pub fn load_authorities(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem).filter_map(std::result::Result::ok).collect()
}

/// What a client of the console's port trusts: a server whose certificate the CA with this fingerprint signed, by whatever
/// name it is called.
///
/// # Errors
/// [`ErrorKind::Identity`].
pub fn pinned_client(authority: Fingerprint) -> Result<ClientConfig> {
    let algorithms = provider::default_provider().signature_verification_algorithms;
    let verifier = ControllerVerifier { trust: Trust::Authority(authority), clock_matters: true, algorithms };
    Ok(ClientConfig::builder_with_provider(crypto())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unmade)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

/// Clocks differ a little.
const WEB_BEFORE: Duration = Duration::from_secs(24 * 3600);
/// Browsers take no certificate for more than 398 days.
const WEB_LIFE: Duration = Duration::from_secs(396 * 24 * 3600);
/// It is made anew long before its end.
const WEB_KEPT: Duration = Duration::from_secs(300 * 24 * 3600);

fn is_recent(path: &Path) -> bool {
    let age =
        fs::metadata(path).and_then(|metadata| metadata.modified()).map(|at| SystemTime::now().duration_since(at));
    matches!(age, Ok(Ok(age)) if age < WEB_KEPT)
}

fn create_authority() -> Result<Identity> {
    let key = KeyPair::generate().map_err(unmade)?;
    let certificate = authority_params()?.self_signed(&key).map_err(unmade)?;
    Ok(Identity { chain: vec![certificate.der().clone()], key: private(&key) })
}

/// The CA's certificate is always made from these, so that an issuer can be had from its key alone.
fn authority_params() -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "vconverter controller CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    Ok(params)
}

fn create_server(ca: &Identity) -> Result<Identity> {
    let issuer = ca.issuer()?;
    let key = KeyPair::generate().map_err(unmade)?;
    let params = named("vconverter controller", ExtendedKeyUsagePurpose::ServerAuth)?;
    let certificate = params.signed_by(&key, &issuer).map_err(unmade)?;
    let mut chain = vec![certificate.der().clone()];
    chain.extend(ca.chain.iter().cloned());
    Ok(Identity { chain, key: private(&key) })
}

pub(crate) fn named(name: &str, usage: ExtendedKeyUsagePurpose) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(vec!["vconverter.invalid".to_owned()]).map_err(unmade)?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    Ok(params)
}

fn private(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(key.serialize_der().into())
}

/// Ring's provider; AES-128-GCM first where the processor has instructions for it, else ChaCha20. The controller follows
/// the agent's order.
fn crypto() -> Arc<CryptoProvider> {
    use provider::cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256};
    #[cfg(target_arch = "x86_64")]
    let has_aes = std::is_x86_feature_detected!("aes") && std::is_x86_feature_detected!("pclmulqdq");
    #[cfg(not(target_arch = "x86_64"))]
    let has_aes = true;
    let cipher_suites = match has_aes {
        true => vec![TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256],
        false => vec![TLS13_CHACHA20_POLY1305_SHA256, TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384],
    };
    Arc::new(CryptoProvider { cipher_suites, ..provider::default_provider() })
}

/// An agent's view of a controller's certificate.
#[derive(Debug)]
struct ControllerVerifier {
    trust: Trust,
    /// The console's certificates end, as browsers want it; those of the agent port do not.
    clock_matters: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

/// Inside the validity of every certificate that a controller makes (1975 to 4096). A pin is no statement about time, so
/// the machine's own clock has no say.
const ANY_TIME: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(2_000_000_000));

impl ServerCertVerifier for ControllerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let now = if self.clock_matters { now } else { ANY_TIME };
        let unknown = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let ca = match self.trust {
            Trust::Authority(pin) => others.iter().find(|certificate| Fingerprint::of(certificate) == pin),
            // The pairing code and what is remembered of it name this CA: so its own signature has to be there.
            Trust::Pairing => others.last(),
        };
        let ca = ca.ok_or(unknown)?;
        let wrong = |e: webpki::Error| rustls::Error::General(format!("the controller's certificate: {e}"));
        let anchor = webpki::anchor_from_trusted_cert(ca).map_err(wrong)?;
        webpki::EndEntityCert::try_from(leaf)
            .and_then(|leaf| {
                let usage = webpki::KeyUsage::server_auth();
                leaf.verify_for_usage(self.algorithms.all, &[anchor], &[], now, usage, None, None).map(|_| ())
            })
            .map_err(wrong)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The controller's view of an agent's certificate: any will do for TLS, if the agent holds its key. What it is worth is
/// told by [`ControllerTls::examine`], so that an agent hears why it is refused, and an unknown one can wait for approval.
#[derive(Debug)]
struct AnyAgent {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for AnyAgent {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> std::result::Result<ClientCertVerified, rustls::Error> {
        match Fingerprint::of_key(leaf) {
            Ok(_) => Ok(ClientCertVerified::assertion()),
            Err(_) => Err(rustls::Error::InvalidCertificate(rustls::CertificateError::BadEncoding)),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Longest file of keys and certificates in bytes.
const PEM_BYTES_MAX: u64 = 64 << 10;

fn read_secret(path: &Path) -> Result<Option<Vec<u8>>> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(unreadable(path).because(e)),
    };
    if metadata.mode() & 0o077 != 0 {
        let text = format!(
            "{}: expected mode 0600, found {:04o}: others may have read the key",
            path.display(),
            metadata.mode() & 0o7777
        );
        return Err(Error::new(ErrorKind::Identity, text));
    }
    if metadata.len() > PEM_BYTES_MAX {
        return Err(unreadable(path));
    }
    fs::read(path).map(Some).map_err(|e| unreadable(path).because(e))
}

/// Writes beside and renames, so that a half-written key never has the name of a whole one.
pub(crate) fn write_secret(path: &Path, text: &[u8]) -> Result<()> {
    let unwritten =
        |e: std::io::Error| Error::new(ErrorKind::Identity, format!("cannot write {}", path.display())).because(e);
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(unwritten)?;
    let beside = PathBuf::from(format!("{}.{}.new", path.display(), std::process::id()));
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        fs::File::open(folder)?.sync_all()
    };
    write().map_err(|e| {
        let _ = fs::remove_file(&beside);
        unwritten(e)
    })
}

/// RFC 7468.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in der.chunks(48) {
        for group in line.chunks(3) {
            let bits = (0..3).fold(0_u32, |bits, at| bits << 8 | u32::from(group.get(at).copied().unwrap_or(0)));
            for place in 0..4 {
                let digit = char::from(ALPHABET[(bits >> (18 - 6 * place) & 63) as usize]);
                text.push(if place > group.len() { '=' } else { digit });
            }
        }
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

fn unreadable(path: &Path) -> Error {
    Error::new(ErrorKind::Identity, format!("{}: cannot read a key and its certificate", path.display()))
}

pub(crate) fn unmade(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Identity, "cannot make keys or certificates").because(error)
}
