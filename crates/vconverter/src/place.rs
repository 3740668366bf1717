//! Where the controller is: its Unix socket here, or a URL, to which a token and a way to know it again belong.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use controller::DataDirectory;
use controller::trust::Secret;
use hyper::Uri;
use protocol::tls::{Fingerprint, load_authorities, pinned_client};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::arguments::Remote;
use crate::failure::{Code, Failure, Result};
use crate::settings::read_secret;

/// Holds a token where no file does.
const TOKEN_VARIABLE: &str = "VCONVERTER_TOKEN";
/// Certificates of authorities that Debian trusts: for a controller with an operator's own certificate.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Longest file of certificates in bytes.
const AUTHORITIES_BYTES_MAX: u64 = 4 << 20;
const HTTPS_PORT: u16 = 443;
/// Time for a connection and its handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Where the controller is.
#[derive(Clone)]
pub(crate) enum Place {
    /// Its socket on this machine.
    Socket(PathBuf),
    /// Its port, on whatever machine.
    Url(Arc<Site>),
}

/// A controller on the network.
pub(crate) struct Site {
    url: String,
    host: String,
    port: u16,
    name: ServerName<'static>,
    tls: TlsConnector,
    token: Secret,
}

/// Bytes to and from the controller.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Place {
    /// What the options say, else the data directory's socket.
    pub(crate) fn of(remote: &Remote, directory: &DataDirectory) -> Result<Self> {
        match &remote.controller {
            Some(url) => Site::new(url, remote).map(|site| Self::Url(Arc::new(site))),
            None => Ok(Self::socket(directory)),
        }
    }

    /// The socket of a data directory.
    pub(crate) fn socket(directory: &DataDirectory) -> Self {
        Self::Socket(directory.socket())
    }

    pub(crate) async fn connect(&self) -> Result<Box<dyn Stream>> {
        match self {
            Self::Socket(path) => {
                let connected = UnixStream::connect(path).await;
                connected
                    .map(|stream| Box::new(stream) as Box<dyn Stream>)
                    .map_err(|e| self.unreachable(&no_socket(&e)))
            }
            Self::Url(site) => {
                let connected = tokio::time::timeout(CONNECT_TIMEOUT, site.connect()).await;
                let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
                connected.map_err(|e| self.unreachable(&site.why(&e)))
            }
        }
    }

    /// The header `Authorization`, where one is needed.
    pub(crate) fn authorization(&self) -> Option<String> {
        match self {
            Self::Socket(_) => None,
            Self::Url(site) => Some(format!("Bearer {}", site.token.expose())),
        }
    }

    /// What HTTP's header `Host` says.
    pub(crate) fn host(&self) -> &str {
        match self {
            Self::Socket(_) => "controller",
            Self::Url(site) => &site.host,
        }
    }

    /// The host of a controller on the network.
    pub(crate) fn network_host(&self) -> Option<&str> {
        match self {
            Self::Socket(_) => None,
            Self::Url(site) => Some(&site.host),
        }
    }

    pub(crate) fn unreachable(&self, why: &str) -> Failure {
        let place = match self {
            Self::Socket(path) => path.display().to_string(),
            Self::Url(site) => site.url.clone(),
        };
        Failure::new(Code::Unreachable, format!("controller at {place}: {why}"))
    }
}

impl Site {
    fn new(url: &str, remote: &Remote) -> Result<Self> {
        let wrong = |why: &str| Failure::new(Code::Usage, format!("--controller {url}: {why}"));
        let uri: Uri = url.parse().map_err(|_| wrong("expected https://HOST:PORT"))?;
        let (Some("https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(wrong("expected https://HOST:PORT"));
        };
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() || authority.as_str().contains('@') {
            return Err(wrong("expected https://HOST:PORT and nothing behind or before it"));
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| wrong("expected a host name or an address"))?;
        let token = match &remote.token_file {
            Some(path) => read_secret(path)?,
            None => std::env::var(TOKEN_VARIABLE).map(Secret::new).unwrap_or_else(|_| Secret::new(String::new())),
        };
        if token.is_empty() || !token.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong(&format!(
                "it needs a token: --token-file or {TOKEN_VARIABLE}; `vconverter tokens make`"
            )));
        }
        Ok(Self {
            url: url.to_owned(),
            port: authority.port_u16().unwrap_or(HTTPS_PORT),
            host,
            name,
            tls: TlsConnector::from(Arc::new(trusted(remote)?)),
            token,
        })
    }

    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let socket = TcpStream::connect((self.host.as_str(), self.port)).await?;
        Ok(Box::new(self.tls.connect(self.name.clone(), socket).await?))
    }

    fn why(&self, error: &io::Error) -> String {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => "nothing listens there".into(),
            io::ErrorKind::TimedOut => format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()),
            io::ErrorKind::InvalidData => {
                format!("{error}; say whom to trust with --ca-fingerprint (`vconverter status`) or --ca-file")
            }
            _ => error.to_string(),
        }
    }
}

/// Whom a client trusts: the CA with a fingerprint, those of a file, or those of the system.
fn trusted(remote: &Remote) -> Result<ClientConfig> {
    let unusable = |e: protocol::Error| Failure::new(Code::Failed, controller::chain(&e));
    if let Some(fingerprint) = &remote.ca_fingerprint {
        let fingerprint: Fingerprint =
            fingerprint.parse().map_err(|e| Failure::new(Code::Usage, format!("--ca-fingerprint: {e}")))?;
        return pinned_client(fingerprint).map_err(unusable);
    }
    let path = remote.ca_file.clone().unwrap_or_else(|| SYSTEM_AUTHORITIES.into());
    let unreadable = |e| Failure::io(&format!("{}", path.display()), &e);
    let mut text = Vec::new();
    let file = std::fs::File::open(&path).map_err(unreadable)?;
    file.take(AUTHORITIES_BYTES_MAX).read_to_end(&mut text).map_err(unreadable)?;
    let mut roots = RootCertStore::empty();
    // Of many authorities some are of a kind that is not known here.
    roots.add_parsable_certificates(load_authorities(&text));
    if roots.is_empty() {
        return Err(Failure::new(Code::Usage, format!("{}: no certificate in there", path.display())));
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| Failure::new(Code::Failed, format!("TLS: {e}")))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn no_socket(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            "it is not running; start it with `vconverter serve`, or name another --data-dir".to_owned()
        }
        io::ErrorKind::PermissionDenied => "only for the user who runs it, and root".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_url_of_a_controller_is_told() {
        let remote = Remote { controller: None, token_file: None, ca_file: None, ca_fingerprint: None };
        for wrong in
            ["", "controller", "http://controller:8443", "https://a/api", "https://me@a", "https://", "ftp://a"]
        {
            let error = Site::new(wrong, &remote).err().unwrap();
            assert_eq!(error.code, Code::Usage, "{wrong}: {}", error.message);
        }
    }
}
