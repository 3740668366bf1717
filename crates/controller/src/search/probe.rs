//! One connect to one port, and the clock that goes with the network: together they can be others in tests.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::banner::{BYTES_MAX, parse_banner};

/// Longest wait for an answer to a connect: one repetition of a lost SYN (after a second) is in it.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(2500);
/// Longest wait for an SSH server's greeting.
const BANNER_TIMEOUT: Duration = Duration::from_secs(3);
/// Ports of Windows, whose servers wait for the client to begin.
const SILENT_PORTS: [u16; 5] = [135, 445, 3389, 5985, 5986];

/// What a connect showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Knock {
    /// Something listens; with the version line of SSH, if it is that.
    Open { ssh: Option<String> },
    /// It was refused, or nobody answered.
    Closed,
    /// It could not be tried.
    Unreachable,
}

/// Where is knocked, and what time it is there.
pub(super) trait Network: Send + Sync + 'static {
    /// Since some moment; it never goes back.
    fn now(&self) -> Duration;
    /// Waits until then.
    fn wait_until(&self, at: Duration) -> impl Future<Output = ()> + Send;
    /// Connects, and leaves.
    fn knock(&self, address: SocketAddr) -> impl Future<Output = Knock> + Send;
}

/// The network of this machine.
pub(super) struct Tcp {
    start: Instant,
}

impl Tcp {
    pub(super) fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Network for Tcp {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    async fn wait_until(&self, at: Duration) {
        tokio::time::sleep(at.saturating_sub(self.now())).await;
    }

    async fn knock(&self, address: SocketAddr) -> Knock {
        let mut stream = match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return failed(&error),
            Err(_) => return Knock::Closed,
        };
        if SILENT_PORTS.contains(&address.port()) {
            return Knock::Open { ssh: None };
        }
        Knock::Open { ssh: tokio::time::timeout(BANNER_TIMEOUT, greeting(&mut stream)).await.unwrap_or_default() }
    }
}

fn failed(error: &io::Error) -> Knock {
    match error.kind() {
        // A host that is not there is what most of a range is: its neighbours' answer is the router's.
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::TimedOut
        | io::ErrorKind::HostUnreachable => Knock::Closed,
        _ => Knock::Unreachable,
    }
}

/// The version line of an SSH server, from its first bytes.
async fn greeting(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = [0; BYTES_MAX];
    let mut length = 0;
    while length < BYTES_MAX {
        match stream.read(&mut bytes[length..]).await {
            Ok(0) | Err(_) => return None,
            Ok(more) => length += more,
        }
        if let Some(banner) = parse_banner(&bytes[..length]) {
            return Some(banner);
        }
    }
    None
}

/// A network with a clock that stands still but for whoever waits on it.
#[cfg(test)]
pub(super) mod fake {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use super::*;

    type Answers = dyn Fn(SocketAddr) -> Knock + Send + Sync;

    #[derive(Clone)]
    pub(in crate::search) struct FakeNetwork(Arc<Inside>);

    struct Inside {
        now: Mutex<Duration>,
        knocks: Mutex<Vec<(Duration, SocketAddr)>>,
        open: AtomicUsize,
        answers: Option<Box<Answers>>,
    }

    struct Open<'a>(&'a AtomicUsize);

    impl Drop for Open<'_> {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    impl FakeNetwork {
        pub(in crate::search) fn new(answers: impl Fn(SocketAddr) -> Knock + Send + Sync + 'static) -> Self {
            Self::with(Some(Box::new(answers)))
        }

        /// Nobody ever answers.
        pub(in crate::search) fn silent() -> Self {
            Self::with(None)
        }

        fn with(answers: Option<Box<Answers>>) -> Self {
            let (now, knocks, open) = (Mutex::default(), Mutex::default(), AtomicUsize::new(0));
            Self(Arc::new(Inside { now, knocks, open, answers }))
        }

        /// When was knocked where, in this order.
        pub(in crate::search) fn knocks(&self) -> Vec<(Duration, SocketAddr)> {
            self.0.knocks.lock().unwrap().clone()
        }

        /// Connects that wait for an answer.
        pub(in crate::search) fn open(&self) -> usize {
            self.0.open.load(Ordering::SeqCst)
        }
    }

    impl Network for FakeNetwork {
        fn now(&self) -> Duration {
            *self.0.now.lock().unwrap()
        }

        async fn wait_until(&self, at: Duration) {
            // What was spawned before this moment happens before it.
            tokio::task::yield_now().await;
            let mut now = self.0.now.lock().unwrap();
            *now = at.max(*now);
        }

        async fn knock(&self, address: SocketAddr) -> Knock {
            self.0.open.fetch_add(1, Ordering::SeqCst);
            let _open = Open(&self.0.open);
            let now = self.now();
            self.0.knocks.lock().unwrap().push((now, address));
            match &self.0.answers {
                Some(answers) => answers(address),
                None => std::future::pending().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    fn listen(address: Ipv4Addr) -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    fn knock(address: SocketAddr) -> Knock {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(Tcp::new().knock(address))
    }

    #[test]
    fn an_ssh_server_is_told_by_its_first_line_and_nothing_is_sent_to_it() {
        let (listener, address) = listen(Ipv4Addr::new(127, 0, 13, 1));
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"SSH-2.0-Open").unwrap();
            stream.write_all(b"SSH_9.2\r\n").unwrap();
            let mut sent = Vec::new();
            let _ = stream.read_to_end(&mut sent);
            sent
        });
        assert_eq!(knock(address), Knock::Open { ssh: Some("SSH-2.0-OpenSSH_9.2".into()) });
        assert!(server.join().unwrap().is_empty());
    }

    #[test]
    fn a_server_that_says_something_else_is_only_open_and_a_closed_port_is_closed() {
        let (listener, address) = listen(Ipv4Addr::new(127, 0, 13, 2));
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // Without end: it is left after its first bytes.
            while stream.write_all(&[b'x'; 1000]).is_ok() {}
        });
        assert_eq!(knock(address), Knock::Open { ssh: None });
        server.join().unwrap();
        // Its listener is gone.
        assert_eq!(knock(address), Knock::Closed);
    }
}
