//! What would keep the service from working, in plain words. What keeps it from starting at all is an error of the start.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::files::BootFiles;
use crate::port::udp;
use crate::probe::{Answer, probe};
use crate::proxy::{BOOT_SERVER_PORT, DHCP_PORT};
use crate::{Firmware, Interface, loader};

/// Time for answers of DHCP servers.
const PATIENCE: Duration = Duration::from_secs(4);
pub(crate) const TFTP_PORT: u16 = 69;

/// Something that was found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whether it keeps machines from starting.
    pub is_problem: bool,
    /// What it is, and what to do.
    pub text: String,
}

impl Finding {
    fn problem(text: impl Into<String>) -> Self {
        Self { is_problem: true, text: text.into() }
    }

    fn good(text: impl Into<String>) -> Self {
        Self { is_problem: false, text: text.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Which of our sockets on an interface heard this machine's own broadcast. The kernel delivers it through the firewall as
/// it delivers others'.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) dhcp: AtomicBool,
    pub(crate) tftp: AtomicBool,
    pub(crate) boot_server: AtomicBool,
}

/// What the boot image lacks.
pub(crate) fn look_at_files(files: &BootFiles) -> Vec<Finding> {
    let lacking = Firmware::SERVED.into_iter().filter_map(|firmware| {
        let missing = loader::missing_files(firmware, files);
        let text = format!("{firmware} is not served: the boot image has no {}", missing.join(", "));
        (!missing.is_empty()).then(|| Finding::problem(text))
    });
    let mut found: Vec<Finding> = lacking.collect();
    found.push(Finding::good(
        "UEFI PXE with Secure Boot on cannot be served beside another DHCP server: use HTTP boot or the ISO, or set \
         next-server on the DHCP server to this service, with the boot file shimx64.efi",
    ));
    found
}

/// Looks at an interface on which the service works already. Takes seconds.
pub(crate) fn look_at_network(interface: &Interface, heard: &Arc<Heard>) -> Vec<Finding> {
    let name = &interface.name;
    if !interface.has_link {
        return vec![Finding::problem(format!("{name}: no link: plug its cable in"))];
    }
    let mut findings = Vec::new();
    for port in [TFTP_PORT, BOOT_SERVER_PORT] {
        // An error packet of TFTP, which nobody answers.
        let packet = [0, 5, 0, 0, 0];
        let everybody = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::BROADCAST, port)).into();
        let sent =
            udp(interface, Ipv4Addr::UNSPECIFIED, 0, false).and_then(|socket| socket.send_to(&packet, &everybody));
        if let Err(failure) = sent {
            findings.push(Finding::problem(format!("{name}: nothing can be sent: {failure}")));
        }
    }
    match probe(interface, PATIENCE) {
        Ok(answers) => findings.extend(judge(interface, &answers)),
        Err(failure) => {
            findings.push(Finding::problem(format!("{name}: DHCP servers cannot be looked for: {failure}")))
        }
    }
    for (port, heard) in [(DHCP_PORT, &heard.dhcp), (TFTP_PORT, &heard.tftp), (BOOT_SERVER_PORT, &heard.boot_server)] {
        if !heard.load(Ordering::Relaxed) {
            findings.push(Finding::problem(format!(
                "{name}: UDP port {port} is filtered: a firewall of this machine keeps it from us; let UDP 67, 69 and 4011 in"
            )));
        }
    }
    findings
}

fn judge(interface: &Interface, answers: &[Answer]) -> Vec<Finding> {
    let name = &interface.name;
    let mut findings: Vec<Finding> = Vec::new();
    if !answers.iter().any(|answer| answer.gives_address) {
        findings.push(Finding::problem(format!(
            "{name}: no DHCP server was heard: machines get no address there, and without one no boot file"
        )));
    }
    for answer in answers {
        let server = answer.server;
        match &answer.boot_file {
            Some(file) => findings.push(Finding::problem(format!(
                "{name}: {server} names the boot file {file} already: machines may take that instead of ours"
            ))),
            None if answer.gives_address => findings.push(Finding::good(format!("{name}: DHCP server {server}"))),
            None => findings.push(Finding::problem(format!("{name}: {server} answers PXE clients too"))),
        }
    }
    findings
}
