//! Control messages: length-prefixed JSON.
//!
//! A message is its length in bytes (u32, big endian) and that many bytes of JSON. What is read is bounded by
//! [`MESSAGE_BYTES_MAX`], or [`REPORT_BYTES_MAX`] where a report is expected. Fields that a reader does not know are
//! ignored, so that a revision can add some.

use std::fmt;
use std::io::{Read, Write};

use machine::push::{BootPathReport, PushOrder, Survey};
use machine::{ByteCount, ByteOffset, DiskIdentity, Machine};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::driver::DriverOutcome;
use crate::enrolment::EnrolmentSecret;
use crate::pairing::{Commitment, Nonce};
use crate::piece::FilePiece;
use crate::tls::Fingerprint;
use crate::{Error, ErrorKind, Result, Version, VersionRange};

/// Longest message in bytes, other than a report.
pub const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// Longest message in bytes from an approved agent, whose report lists every volume of a machine.
pub const REPORT_BYTES_MAX: usize = 16 << 20;

/// Thirty-two bytes, as 64 hexadecimal digits in JSON.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bytes32(pub [u8; 32]);

/// The first message of every connection, from the side that dialled. Frozen: fields may be added, none may change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Opening {
    /// Makes it a control connection.
    Hello(Hello),
    /// Makes it a data connection.
    OpenStream(OpenStream),
}

/// Who dials. Frozen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Revisions that it speaks.
    pub protocol: VersionRange,
    /// Version of the program.
    pub program: String,
    /// Where it runs.
    pub kind: AgentKind,
    /// Random at each start of the program: the same credential with the same instance is the same program after a cut
    /// link, with another instance it is a restart, or a copy.
    pub instance: Bytes32,
}

/// Where an agent runs. Frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentKind {
    /// On the installed operating system.
    Agent,
    /// In the boot image: nothing else uses the disks.
    BootImage,
    /// Something that this revision does not know.
    #[serde(other)]
    Unknown,
}

/// How a machine ends what runs on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PowerAction {
    /// Starts anew; from the boot image, its own system where the firmware prefers it.
    Restart,
    /// Is switched off.
    PowerOff,
    /// Something that this revision does not know: refused.
    #[serde(other)]
    Unknown,
}

/// What the boot image was started from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum BootMedium {
    /// The ISO: a CD, a USB stick or a BMC's virtual drive.
    Iso,
    /// PXE, of BIOS or UEFI.
    Pxe,
    /// HTTP boot of UEFI.
    UefiHttp,
    /// An automated Remote Cold Cloning put it on the machine.
    Push,
    /// Something that this revision does not know.
    #[serde(other)]
    Unknown,
}

/// Asks to be the data connection that a [`ServeDisk`] named. The token is valid once, and only on a connection with the
/// certificate of the agent that it was given to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenStream {
    /// From [`ServeDisk::stream`].
    pub token: StreamToken,
}

/// The answer to an [`Opening`]. Frozen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum OpeningReply {
    /// Go on, in this revision.
    Welcome {
        /// The revision chosen.
        protocol: Version,
        /// Version of the controller.
        program: String,
    },
    /// Not to be; the connection is closed.
    Refused {
        /// Why, for a person.
        reason: String,
        /// What to do about it, for a person: how to get a newer agent or boot image.
        remedy: Option<String>,
        /// Whether it is the agent's certificate that is not taken: without it the agent may wait for approval. Since
        /// revision 3.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        certificate: bool,
    },
}

/// What a controller says on a control connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ControllerMessage {
    /// The machine is not known yet: pairing begins, and the agent answers with its own commitment. (The controller
    /// commits first and reveals last.)
    PairingCommit {
        /// The controller's.
        commitment: Commitment,
    },
    /// Answer to [`AgentMessage::PairingReveal`]; from here both have the code.
    PairingReveal {
        /// The controller's.
        nonce: Nonce,
    },
    /// An operator approved the machine, now or earlier: report, and serve.
    Approved,
    /// An operator refused the machine, or the code was typed wrong too often. The connection is closed.
    Denied {
        /// Why, for a person.
        reason: String,
    },
    /// Answer to [`AgentMessage::Enrol`] with a token that is not taken. Since revision 3.
    EnrolmentRefused {
        /// Why, for a person.
        reason: String,
        /// Whether the same token may be good later: there were too many wrong ones from the agent's address.
        later: bool,
    },
    /// For an approved agent: what it shows from now on, on each new connection. Another follows before this one is over;
    /// connections that are open go on. Since revision 3.
    Certificate {
        /// PEM.
        certificate: String,
    },
    /// Open a data connection and send one disk.
    ServeDisk(ServeDisk),
    /// Stop a stream, whatever it is doing.
    CancelStream {
        /// From [`ServeDisk::stream`].
        stream: StreamToken,
    },
    /// A piece of a driver's file, for a machine in the boot image. Since revision 2.
    DriverPiece(FilePiece),
    /// All files are there: install them. Since revision 2.
    InstallDrivers {
        /// As in the pieces.
        push: u64,
    },
    /// Report again.
    Refresh,
    /// Something for the machine's screen.
    Show {
        /// One line, for a person.
        text: String,
    },
    /// The conversion ended; the machine has nothing left to do.
    Finish {
        /// One line for the machine's screen.
        text: String,
    },
    /// The machine is to end what runs on it: in the boot image, to start its own system again or to be switched off; on its
    /// own system, as an administrator would. Since revision 3.
    Power {
        /// Which.
        action: PowerAction,
        /// Why, one line for the machine's screen and log.
        text: String,
    },
    /// For a machine that runs its own system: say how it could be started from the boot image once. Nothing is changed for it. Since
    /// revision 4.
    Survey,
    /// A piece of a file of a push. Since revision 4.
    PushPiece(FilePiece),
    /// All files of a push are there: put them in place, after what is there was written down. Since revision 4.
    PlacePush {
        /// As in the pieces.
        push: u64,
        /// What is to be done with them.
        order: PushOrder,
    },
    /// What was placed is to be started now, and only now is anything changed that the firmware or a boot loader looks at; the
    /// connection ends with the machine's restart. Since revision 4.
    StartPush {
        /// Said to everybody who is logged in.
        text: String,
        /// Between that and the restart.
        warning_seconds: u32,
    },
    /// Undo what was placed. Since revision 4.
    WithdrawPush,
    /// For a machine in the boot image: nothing is to be done, and it stays there until somebody says more. Since revision 4.
    Stay {
        /// Why, one line for the machine's screen.
        text: String,
    },
    /// Answer to [`AgentMessage::BootPath`]: it was kept. Since revision 4.
    BootPathKept {
        /// As told.
        task: String,
    },
    /// Run a command of an operator's, by the shell of the machine's own system. Since revision 4.
    RunCommand {
        /// Comes back with the answer.
        id: u64,
        /// For `/bin/sh -c`.
        command: String,
        /// After so long it is ended; at most [`COMMAND_SECONDS_MAX`].
        seconds: u32,
    },
    /// Answer to [`AgentMessage::Heartbeat`].
    HeartbeatAck {
        /// As sent.
        sequence: u64,
    },
    /// Something that this revision does not know: ignored.
    #[serde(other)]
    Unknown,
}

/// Longest command in bytes.
pub const COMMAND_BYTES_MAX: usize = 8 << 10;
/// Longest time of a command.
pub const COMMAND_SECONDS_MAX: u32 = 3600;
/// Bytes of what a command printed last that are told.
pub const COMMAND_OUTPUT_MAX: usize = 8 << 10;

/// What an agent says on a control connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum AgentMessage {
    /// Answer to [`ControllerMessage::PairingCommit`].
    PairingCommit {
        /// The agent's.
        commitment: Commitment,
        /// What the machine says of itself, so that an operator knows which of several waits: not to be trusted.
        about: About,
    },
    /// Right behind [`AgentMessage::PairingCommit`]: the agent holds the controller's commitment already.
    PairingReveal {
        /// The agent's.
        nonce: Nonce,
    },
    /// Instead of a pairing, as the answer to [`ControllerMessage::PairingCommit`]: a token that approves the machine. The
    /// controller answers with [`ControllerMessage::Approved`] or [`ControllerMessage::EnrolmentRefused`]. Since revision 3.
    Enrol {
        /// The part of the token that is not public.
        secret: EnrolmentSecret,
        /// As in a pairing.
        about: About,
    },
    /// Answer to [`ControllerMessage::Certificate`]: it is kept, and the agent comes with no other from now on. Since
    /// revision 3.
    CertificateKept {
        /// Of the certificate.
        fingerprint: Fingerprint,
    },
    /// After [`ControllerMessage::Approved`] and [`ControllerMessage::Refresh`]. May be as long as [`REPORT_BYTES_MAX`].
    Report(Box<Report>),
    /// A disk cannot be served; the data connection was not opened.
    StreamFailed {
        /// From [`ServeDisk::stream`].
        stream: StreamToken,
        /// Why, for a person.
        reason: String,
    },
    /// Answer to [`ControllerMessage::InstallDrivers`], or to a piece that cannot be taken. Since revision 2.
    DriversInstalled {
        /// As asked.
        push: u64,
        /// What became of each file.
        outcomes: Vec<DriverOutcome>,
    },
    /// Answer to [`ControllerMessage::Power`] that cannot be done; else the connection ends. Since revision 3.
    PowerFailed {
        /// Why, for a person.
        reason: String,
    },
    /// Answer to [`ControllerMessage::Survey`]. Since revision 4.
    Surveyed(Box<Survey>),
    /// Answer to [`ControllerMessage::PlacePush`]. Since revision 4.
    PushPlaced {
        /// As asked.
        push: u64,
        /// What was done, a line each.
        done: Vec<String>,
    },
    /// Answer to a message about a push that cannot be done; everything that was done for it is undone. Since revision 4.
    PushFailed {
        /// Why, for a person.
        reason: String,
    },
    /// The boot path of the machine was looked at: in the boot image, after it was restored and before anything else; on its own
    /// system, where there is a record of a push, or as the answer to [`ControllerMessage::WithdrawPush`]. Said until it is
    /// answered by [`ControllerMessage::BootPathKept`]. Since revision 4.
    BootPath(BootPathReport),
    /// Answer to [`ControllerMessage::RunCommand`]. Since revision 4.
    CommandEnded {
        /// As asked.
        id: u64,
        /// How it ended; `None` where it did not end well by itself, and the output says why.
        status: Option<i32>,
        /// What it printed last, at most [`COMMAND_OUTPUT_MAX`] bytes.
        output: String,
    },
    /// Every [`HEARTBEAT_SECONDS`].
    Heartbeat {
        /// Counts up.
        sequence: u64,
    },
    /// Something that this revision does not know: ignored.
    #[serde(other)]
    Unknown,
}

/// Pause between two heartbeats of an agent.
pub const HEARTBEAT_SECONDS: u64 = 5;
/// Silence on a control connection after which the peer counts as gone.
pub const SILENCE_SECONDS_MAX: u64 = 18;

/// What a machine that is not approved says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct About {
    /// Manufacturer and product.
    pub product: String,
    /// Serial number.
    pub serial: String,
    /// Host name, where an operating system was found.
    pub hostname: String,
}

/// Everything that an agent knows of its machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The machine.
    pub machine: Machine,
    /// Kernel on which the agent runs: `6.1.0-38-amd64`.
    #[serde(default)]
    pub kernel: String,
    /// What was odd about disks and volumes, for a person.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Boot image only: what it was started from, where its boot loader said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_medium: Option<BootMedium>,
}

/// One disk is to be sent over a data connection of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServeDisk {
    /// Names the stream and opens it.
    pub stream: StreamToken,
    /// Which task it is for, for people and logs.
    pub task: String,
    /// The disk.
    pub disk: DiskSelector,
    /// What is to be sent of it.
    pub mode: StreamMode,
    /// How much of it. Since revision 3.
    #[serde(default, skip_serializing_if = "Scope::is_all")]
    pub scope: Scope,
}

/// How much of a disk is wanted, beside and against what the agent knows of its use. Since revision 3.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// With the content of swap areas, swap and page files, hibernation and shadow copies.
    #[serde(default)]
    pub keeps_swap: bool,
    /// Ranges that are left out and read as zeros, first byte and length; at most [`LEFT_OUT_MAX`].
    #[serde(default)]
    pub left_out: Vec<(ByteOffset, ByteCount)>,
    /// Only what lies in these ranges, which ascend; at most [`WITHIN_MAX`]. All of the disk where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub within: Vec<(ByteOffset, ByteCount)>,
}

/// Ranges that a [`Scope`] leaves out.
pub const LEFT_OUT_MAX: usize = 1000;
/// Ranges that a [`Scope`] is limited to.
pub const WITHIN_MAX: usize = 256;

impl Scope {
    /// Whether it is what an agent sends that is told nothing.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }
}

/// Tells a disk by what it is, never by its name alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSelector {
    /// As reported.
    pub identity: DiskIdentity,
    /// Its place in [`Machine::disks`] as reported; tells disks without identity.
    pub index: u32,
    /// As reported; a disk of another size is refused.
    pub size: ByteCount,
}

/// What a data connection carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum StreamMode {
    /// The used contents in ascending order.
    Data {
        /// Everything before this position is durable at the controller.
        resume: ByteOffset,
        /// Whether to compress.
        compress: Compress,
        /// What to do where the disk cannot be read.
        on_unreadable: OnUnreadable,
    },
    /// Hashes of the used contents, read again from the disk.
    Hashes {
        /// Where to begin.
        resume: ByteOffset,
    },
}

/// Whether to compress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compress {
    /// When it is faster, by what the agent measures.
    #[default]
    WhenItPays,
    /// Never.
    Never,
    /// Always, save contents that do not shrink.
    Always,
}

/// What to do where a disk cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnUnreadable {
    /// Say so and stop.
    #[default]
    Stop,
    /// Say so and go on.
    Skip,
}

/// A random name for one data connection, valid once; 32 hexadecimal digits in JSON. Debug output does not show it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StreamToken([u8; 16]);

impl StreamToken {
    /// A fresh one.
    ///
    /// # Errors
    /// [`ErrorKind::Identity`] when the system gives no randomness.
    pub fn random() -> Result<Self> {
        let mut bytes = [0; 16];
        fill_random(&mut bytes)?;
        Ok(Self(bytes))
    }
}

impl Bytes32 {
    /// Fresh random bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Identity`] when the system gives no randomness.
    pub fn random() -> Result<Self> {
        let mut bytes = [0; 32];
        fill_random(&mut bytes)?;
        Ok(Self(bytes))
    }
}

/// Sends one message and flushes it.
///
/// # Errors
/// [`ErrorKind::Malformed`] for a message beyond [`REPORT_BYTES_MAX`], which is not sent; the link's own errors.
pub fn write_message<T: Serialize>(mut to: impl Write, message: &T) -> Result<()> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message).map_err(|e| Error::malformed("message to be sent").because(e))?;
    let length = bytes.len() - 4;
    let prefix = u32::try_from(length).ok().filter(|_| length <= REPORT_BYTES_MAX);
    let prefix = prefix.ok_or_else(|| Error::malformed(format!("message to be sent: {length} bytes are too long")))?;
    bytes[..4].copy_from_slice(&prefix.to_be_bytes());
    to.write_all(&bytes).and_then(|()| to.flush()).map_err(|e| Error::link("cannot send a message", e))
}

/// Receives one message of at most `bytes_max` bytes.
///
/// # Errors
/// [`ErrorKind::Malformed`] for a longer one or one that is no `T`; the link's own errors.
pub fn read_message<T: DeserializeOwned>(mut from: impl Read, bytes_max: usize) -> Result<T> {
    let mut prefix = [0; 4];
    from.read_exact(&mut prefix).map_err(|e| Error::link("cannot receive a message", e))?;
    let length = u32::from_be_bytes(prefix) as usize;
    if length > bytes_max {
        return Err(Error::malformed(format!("message of {length} bytes: expected at most {bytes_max}")));
    }
    // Grows with what arrives, not with what is announced.
    let mut bytes = Vec::with_capacity(length.min(MESSAGE_BYTES_MAX));
    let got = from.by_ref().take(length as u64).read_to_end(&mut bytes);
    got.map_err(|e| Error::link("cannot receive a message", e))?;
    if bytes.len() < length {
        return Err(Error::new(ErrorKind::Closed, "the connection ended inside a message"));
    }
    parse_message(&bytes)
}

/// Parses the JSON of one message.
///
/// # Errors
/// [`ErrorKind::Malformed`].
pub fn parse_message<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| Error::malformed("message is not understood").because(e))
}

pub(crate) fn fill_random(bytes: &mut [u8]) -> Result<()> {
    use ring::rand::{SecureRandom, SystemRandom};
    SystemRandom::new().fill(bytes).map_err(|_| Error::new(ErrorKind::Identity, "the system gives no random numbers"))
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn from_hex<const N: usize>(text: &str) -> std::result::Result<[u8; N], String> {
    let wrong = || format!("expected {} hexadecimal digits", 2 * N);
    // Colons are what other tools print fingerprints with.
    let digits: Vec<u8> = text.bytes().filter(|b| *b != b':').take(2 * N + 1).collect();
    if digits.len() != 2 * N {
        return Err(wrong());
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
        *byte = digit(pair[0]).zip(digit(pair[1])).map(|(high, low)| high << 4 | low).ok_or_else(wrong)?;
    }
    Ok(bytes)
}

impl TryFrom<String> for Bytes32 {
    type Error = String;
    fn try_from(text: String) -> std::result::Result<Self, String> {
        from_hex(&text).map(Self)
    }
}

impl From<Bytes32> for String {
    fn from(bytes: Bytes32) -> String {
        to_hex(&bytes.0)
    }
}

impl fmt::Display for Bytes32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

impl fmt::Debug for Bytes32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl TryFrom<String> for StreamToken {
    type Error = String;
    fn try_from(text: String) -> std::result::Result<Self, String> {
        from_hex(&text).map(Self)
    }
}

impl From<StreamToken> for String {
    fn from(token: StreamToken) -> String {
        to_hex(&token.0)
    }
}

impl fmt::Debug for StreamToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamToken(not shown)")
    }
}

/// For the fuzzer: everything that parses messages.
pub fn fuzz_message(bytes: &[u8]) {
    let _ = read_message::<Opening>(bytes, MESSAGE_BYTES_MAX);
    let _ = read_message::<OpeningReply>(bytes, MESSAGE_BYTES_MAX);
    let _ = read_message::<AgentMessage>(bytes, REPORT_BYTES_MAX);
    let _ = read_message::<ControllerMessage>(bytes, MESSAGE_BYTES_MAX);
    if let Ok(message) = parse_message::<AgentMessage>(bytes) {
        let again = serde_json::to_vec(&message).ok().and_then(|text| parse_message(&text).ok());
        assert_eq!(again.as_ref(), Some(&message), "a message that was read can be sent");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_opening_is_frozen() {
        let hello = Opening::Hello(Hello {
            protocol: VersionRange::SPOKEN,
            program: "0.1.0".into(),
            kind: AgentKind::BootImage,
            instance: Bytes32([0xab; 32]),
        });
        let text = format!(
            r#"{{"type":"hello","protocol":{{"oldest":2,"newest":4}},"program":"0.1.0","kind":"boot_image","instance":"{}"}}"#,
            "ab".repeat(32)
        );
        assert_eq!(serde_json::to_string(&hello).unwrap(), text);
        let later = text.replace(r#""kind":"boot_image""#, r#""kind":"toaster","colour":"red""#);
        let Opening::Hello(hello) = parse_message(later.as_bytes()).unwrap() else { panic!("expected a hello") };
        assert_eq!(hello.kind, AgentKind::Unknown);
    }

    #[test]
    fn messages_come_back_as_they_were_sent() {
        let disk = DiskSelector {
            identity: DiskIdentity { serial: Some("S1".into()), ..DiskIdentity::default() },
            index: 1,
            size: ByteCount(u64::MAX),
        };
        let mode = StreamMode::Data {
            resume: ByteOffset(1 << 60),
            compress: Compress::WhenItPays,
            on_unreadable: OnUnreadable::Stop,
        };
        let sent = ControllerMessage::ServeDisk(ServeDisk {
            stream: StreamToken::random().unwrap(),
            task: "7".into(),
            disk,
            mode,
            scope: Scope {
                keeps_swap: true,
                left_out: vec![(ByteOffset(1 << 20), ByteCount(4096))],
                ..Scope::default()
            },
        });
        let mut wire = Vec::new();
        write_message(&mut wire, &sent).unwrap();
        assert_eq!(read_message::<ControllerMessage>(&wire[..], MESSAGE_BYTES_MAX).unwrap(), sent);
        for cut in 0..wire.len() {
            let error = read_message::<ControllerMessage>(&wire[..cut], MESSAGE_BYTES_MAX).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Closed, "cut at {cut}");
        }
    }

    #[test]
    fn an_unknown_message_is_not_an_error_and_an_overlong_one_is() {
        let message: ControllerMessage = parse_message(br#"{"type":"sing","song":"x"}"#).unwrap();
        assert_eq!(message, ControllerMessage::Unknown);
        let wire = u32::MAX.to_be_bytes();
        let error = read_message::<ControllerMessage>(&wire[..], MESSAGE_BYTES_MAX).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Malformed);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_parse_without_panic(bytes: Vec<u8>) {
            fuzz_message(&bytes);
        }
    }
}
