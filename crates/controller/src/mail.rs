//! E-mail to operators: a task is done, has failed, or waits for their yes.
//!
//! What is to be said stands in the store's queue, written together with what it is about. A thread of its own sends it, so a
//! mail server that is slow or down delays nothing else. A mail can come twice where the controller was killed between
//! sending and writing that down; both have the same message id.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use lettre::message::header::ContentType;
use lettre::message::{Mailbox, Mailboxes};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::{Message, SmtpTransport, Transport};
use serde::{Deserialize, Serialize};

use crate::store::{LogLevel, QueuedMail, Store, TaskRecord};
use crate::trust::Secret;
use crate::{Error, ErrorKind, Result, Timestamp};

/// A mail server that is silent for longer is down.
const SERVER_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause between two looks into the queue.
const QUEUE_INTERVAL: Duration = Duration::from_secs(5);
/// People who get each mail.
const RECIPIENTS_MAX: usize = 50;
const CA_BYTES_MAX: u64 = 1 << 20;

/// What operators are told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MailEvent {
    /// A task has ended well.
    Done,
    /// A task has failed.
    Failed,
    /// A machine is there, and its task waits for a yes.
    Waiting,
}

impl MailEvent {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Waiting => "waiting",
        }
    }

    pub(crate) fn parse(text: &str) -> Self {
        match text {
            "done" => Self::Done,
            "waiting" => Self::Waiting,
            _ => Self::Failed,
        }
    }
}

/// How the way to the mail server is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MailTls {
    /// TLS from the first byte (RFC 8314), port 465.
    Tls,
    /// `STARTTLS` (RFC 3207), and nothing is said without it; port 587.
    #[default]
    StartTls,
    /// None: for a server on this machine.
    None,
}

impl MailTls {
    /// The port where none is chosen.
    pub fn port(self) -> u16 {
        match self {
            Self::Tls => 465,
            Self::StartTls => 587,
            Self::None => 25,
        }
    }
}

/// How mail is sent, and to whom.
#[derive(Clone, Debug)]
pub struct MailConfig {
    /// Host name of the mail server, as in its certificate.
    pub server: String,
    /// Its port.
    pub port: u16,
    /// How the way there is protected.
    pub tls: MailTls,
    /// A certificate authority in PEM to be trusted instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// User and password, where the server wants them.
    pub login: Option<(String, Secret)>,
    /// Sender, such as `vconverter <vconverter@example.net>`.
    pub from: String,
    /// Recipients.
    pub to: Vec<String>,
    /// What they are told of.
    pub on: Vec<MailEvent>,
}

/// Sends mail by one server.
pub struct Mailer {
    transport: SmtpTransport,
    from: Mailbox,
    to: Mailboxes,
    on: Vec<MailEvent>,
    host: String,
}

/// The thread that sends; dropping it lets what it sends just now be sent.
pub(crate) struct MailService(Arc<Stop>);

#[derive(Default)]
struct Stop {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Mailer {
    /// A mailer; nothing is connected yet.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for addresses, a password that would travel unprotected, and a CA file that is none;
    /// [`ErrorKind::Io`].
    pub fn new(config: &MailConfig) -> Result<Self> {
        let invalid = |context: String| Error::new(ErrorKind::Invalid, context);
        let mailbox = |text: &str| {
            text.parse::<Mailbox>().map_err(|e| {
                Error::with(ErrorKind::Invalid, format!("e-mail address {:?}", text.escape_default().to_string()), e)
            })
        };
        if config.to.is_empty() || config.to.len() > RECIPIENTS_MAX {
            return Err(invalid(format!(
                "e-mail: expected 1 to {RECIPIENTS_MAX} recipients, found {}",
                config.to.len()
            )));
        }
        if config.tls == MailTls::None && config.login.is_some() {
            return Err(invalid("e-mail: a password is only sent with TLS: set tls to \"tls\" or \"starttls\"".into()));
        }
        let from = mailbox(&config.from)?;
        let to = config.to.iter().map(|address| mailbox(address)).collect::<Result<Mailboxes>>()?;
        let unusable = |e| Error::with(ErrorKind::Invalid, format!("mail server {}: TLS", config.server), e);
        let parameters = || -> Result<TlsParameters> {
            let builder = TlsParameters::builder(config.server.clone());
            let builder = match &config.ca_file {
                Some(path) => {
                    let certificate = Certificate::from_pem(&load_ca(path)?).map_err(unusable)?;
                    builder.certificate_store(CertificateStore::None).add_root_certificate(certificate)
                }
                None => builder,
            };
            builder.build_rustls().map_err(unusable)
        };
        let tls = match config.tls {
            MailTls::Tls => Tls::Wrapper(parameters()?),
            MailTls::StartTls => Tls::Required(parameters()?),
            MailTls::None => Tls::None,
        };
        let mut builder = SmtpTransport::builder_dangerous(config.server.clone())
            .port(config.port)
            .tls(tls)
            .timeout(Some(SERVER_TIMEOUT));
        if let Some((user, password)) = &config.login {
            builder = builder.credentials(Credentials::new(user.clone(), password.expose().to_owned()));
        }
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Ok(Self { transport: builder.build(), from, to, on: config.on.clone(), host })
    }

    /// Sends one that says that it works.
    ///
    /// # Errors
    /// [`ErrorKind::Network`] with what the server said.
    pub fn send_test(&self) -> Result<()> {
        let text = format!("The controller on {} can send e-mail.\n", self.host);
        self.send("test", &format!("test-{}", Timestamp::now().0), &text)
    }

    fn send(&self, about: &str, id: &str, text: &str) -> Result<()> {
        let subject: String = format!("[vconverter] {about}").chars().filter(|c| !c.is_control()).take(200).collect();
        let domain = self.from.email.domain();
        let mut builder = Message::builder()
            .from(self.from.clone())
            .subject(subject)
            .message_id(Some(format!("<{id}.vconverter@{domain}>")))
            .header(ContentType::TEXT_PLAIN);
        for to in self.to.iter() {
            builder = builder.to(to.clone());
        }
        let message = builder
            .body(text.to_owned())
            .map_err(|e| Error::with(ErrorKind::Invalid, "e-mail cannot be composed", e))?;
        let sent = self.transport.send(&message);
        sent.map(drop).map_err(|e| Error::with(ErrorKind::Network, "e-mail cannot be sent", e))
    }

    /// Sends what the queue holds and is due.
    fn send_due(&self, store: &Store) -> Result<()> {
        while let Some(mail) = store.next_mail(Timestamp::now())? {
            // One that was deleted has nothing to be told.
            let Some(task) = store.task(&mail.task)? else {
                store.mail_ended(mail.id, Timestamp::now())?;
                continue;
            };
            let (about, text) = words(&mail, &task, &self.host);
            let id = format!("{}.{}.{}", mail.task, mail.id, mail.created_at.0);
            match self.send(&about, &id, &text) {
                Ok(()) => store.mail_ended(mail.id, Timestamp::now())?,
                Err(error) => {
                    let why = error.chain();
                    let again = store.mail_failed(&mail, &why, Timestamp::now())?;
                    match again {
                        Some(again) => tracing::warn!(task = %mail.task, "{why}; tried again at {again}"),
                        None => {
                            tracing::error!(task = %mail.task, "{why}; given up");
                            store.log_task(&mail.task, LogLevel::Warning, &format!("{why}; given up"))?;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

impl MailService {
    /// Sends what comes into the queue of `store`, from now on.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`]; [`ErrorKind::Io`] without a thread.
    pub(crate) fn start(store: Arc<Store>, mailer: Mailer) -> Result<Self> {
        store.want_mails(&mailer.on)?;
        let stop = Arc::new(Stop::default());
        let stopped = Arc::clone(&stop);
        let work = move || {
            loop {
                if let Err(error) = mailer.send_due(&store) {
                    tracing::error!("{}", error.chain());
                }
                let guard = stopped.stopped.lock().unwrap_or_else(PoisonError::into_inner);
                let waited = stopped.changed.wait_timeout_while(guard, QUEUE_INTERVAL, |stopped| !*stopped);
                if *waited.unwrap_or_else(PoisonError::into_inner).0 {
                    return;
                }
            }
        };
        let spawned = std::thread::Builder::new().name("mail".into()).spawn(work);
        spawned.map(|_| Self(stop)).map_err(|e| Error::io("no thread for e-mail", e))
    }
}

impl Drop for MailService {
    fn drop(&mut self) {
        *self.0.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.changed.notify_all();
    }
}

/// Subject and text.
fn words(mail: &QueuedMail, task: &TaskRecord, host: &str) -> (String, String) {
    let (about, says) = match mail.event {
        MailEvent::Done => (format!("{} is converted", task.name), "is done".to_owned()),
        MailEvent::Failed => {
            let error = task.error.as_deref().unwrap_or("for a reason that is in its log");
            (format!("{} failed", task.name), format!("has failed: {error}"))
        }
        MailEvent::Waiting => (
            format!("{} waits for you", task.name),
            format!("waits for your yes: its machine is Cold Cloning Ready\n\n    vconverter tasks resume {}", task.id),
        ),
    };
    let step = task.step.as_deref().map(|step| format!("step      {step}\n")).unwrap_or_default();
    let text = format!(
        "Task {} ({}) {says}\n\nmachine   {}\noutput    {}\n{step}at        {}\ncontroller {host}\n\n    vconverter tasks show {}\n    vconverter tasks log {}\n",
        task.id, task.name, task.machine, task.output, mail.created_at, task.id, task.id
    );
    (about, text)
}

fn load_ca(path: &std::path::Path) -> Result<Vec<u8>> {
    use std::io::Read;
    let failed = |e| Error::io(format!("CA file {}: cannot be read", path.display()), e);
    let mut pem = Vec::new();
    std::fs::File::open(path).and_then(|file| file.take(CA_BYTES_MAX).read_to_end(&mut pem)).map_err(failed)?;
    match pem.windows(11).any(|window| window == b"-----BEGIN ") {
        true => Ok(pem),
        false => Err(Error::new(ErrorKind::Invalid, format!("CA file {}: expected PEM", path.display()))),
    }
}
