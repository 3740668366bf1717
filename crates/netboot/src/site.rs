//! What all servers of the service share.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::files::{BootFiles, BootPath, Content};
use crate::log::{Entry, Log};
use crate::{Policy, loader};
use machine::MacAddress;

/// Machines that were told a boot file and have not asked for it yet; more are not watched.
const OFFERED_MAX: usize = 1024;
/// For so long a machine that chose the boot image by a key needs not be asked again; its ROM loads iPXE meanwhile.
const CHOICE_VALID: Duration = Duration::from_secs(60);
/// After this time something is wrong.
const OFFER_PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Site {
    pub(crate) files: BootFiles,
    pub(crate) policy: Arc<dyn Policy>,
    pub(crate) log: Arc<Log>,
    offered: Mutex<HashMap<MacAddress, Offered>>,
    chosen: Mutex<HashMap<MacAddress, Instant>>,
}

struct Offered {
    at: Instant,
    path: String,
    interface: String,
}

impl Site {
    pub(crate) fn new(files: BootFiles, policy: Arc<dyn Policy>, log: Arc<Log>) -> Self {
        Self { files, policy, log, offered: Mutex::default(), chosen: Mutex::default() }
    }

    /// Opens what a path names. The machine has found its way to us.
    pub(crate) fn open(&self, path: &BootPath) -> Option<io::Result<Content>> {
        if let Some(mac) = path.machine {
            self.offered.lock().unwrap_or_else(PoisonError::into_inner).remove(&mac);
        }
        if let (Some(mac), loader::IPXE_SCRIPT) = (path.machine, path.file.as_str()) {
            self.chosen.lock().unwrap_or_else(PoisonError::into_inner).remove(&mac);
        }
        self.files.open(path)
    }

    /// A file was sent to its end.
    pub(crate) fn sent(&self, path: &BootPath) {
        if let Some(mac) = path.machine.filter(|_| loader::completes(&path.file)) {
            self.policy.delivered(mac);
        }
    }

    /// A ROM that is not iPXE chose the boot image by a key.
    pub(crate) fn chosen(&self, mac: MacAddress, now: Instant) {
        let mut chosen = self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        chosen.retain(|_, at| now.saturating_duration_since(*at) < CHOICE_VALID);
        if chosen.len() < OFFERED_MAX {
            chosen.insert(mac, now);
        }
    }

    /// Whether it did so just now.
    pub(crate) fn has_chosen(&self, mac: MacAddress, now: Instant) -> bool {
        let chosen = self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        chosen.get(&mac).is_some_and(|at| now.saturating_duration_since(*at) < CHOICE_VALID)
    }

    /// A machine was told its boot file and should ask for it soon.
    pub(crate) fn offered(&self, mac: MacAddress, path: &str, interface: &str) {
        let mut offered = self.offered.lock().unwrap_or_else(PoisonError::into_inner);
        if offered.len() < OFFERED_MAX {
            offered.entry(mac).or_insert_with(|| Offered {
                at: Instant::now(),
                path: path.to_owned(),
                interface: interface.to_owned(),
            });
        }
    }

    /// Notes the machines that were told a boot file and never asked for it.
    pub(crate) fn note_lost(&self, now: Instant) {
        let mut lost = Vec::new();
        self.offered.lock().unwrap_or_else(PoisonError::into_inner).retain(|mac, offered| {
            let is_lost = now.saturating_duration_since(offered.at) > OFFER_PATIENCE;
            if is_lost {
                lost.push((*mac, offered.path.clone(), offered.interface.clone()));
            }
            !is_lost
        });
        for (mac, path, interface) in lost {
            self.log.write(Entry {
                mac: Some(mac),
                interface,
                request: "nothing".into(),
                answer: format!("was told {path} {} s ago", OFFER_PATIENCE.as_secs()),
                why: "it took another server's answer, or a firewall keeps UDP port 69 (TFTP) or the HTTP port from us"
                    .into(),
                ..Entry::default()
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Client, Ruling, files};

    struct Nobody;
    impl Policy for Nobody {
        fn rule(&self, _: &Client) -> Ruling {
            Ruling::UNKNOWN
        }
    }

    #[test]
    fn a_choice_by_a_key_counts_for_one_start() {
        let site = Site::new(BootFiles::default(), Arc::new(Nobody), Arc::new(Log::default()));
        let (mac, now) = (MacAddress([2, 0, 0, 0, 0, 1]), Instant::now());
        site.chosen(mac, now);
        assert!(site.has_chosen(mac, now) && !site.has_chosen(mac, now + CHOICE_VALID));
        let _ = site.open(&files::parse_path("m/020000000001/boot.ipxe").unwrap());
        assert!(!site.has_chosen(mac, now), "the script was fetched");
    }

    #[test]
    fn a_machine_that_never_asks_for_its_file_is_noted_once() {
        let log = Arc::new(Log::default());
        let site = Site::new(BootFiles::default(), Arc::new(Nobody), Arc::clone(&log));
        for last in 0..2 {
            site.offered(MacAddress([2, 0, 0, 0, 0, last]), "m/x/pxelinux.0", "eth0");
        }
        let _ = site.open(&files::parse_path("m/020000000001/pxelinux.0").unwrap());
        let later = Instant::now() + OFFER_PATIENCE + Duration::from_secs(1);
        site.note_lost(Instant::now());
        site.note_lost(later);
        site.note_lost(later);
        let records = log.records(0, 10);
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].mac.as_deref(), Some("02:00:00:00:00:00"));
    }
}
