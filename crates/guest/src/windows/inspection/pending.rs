//! What Windows would do at its next start: files to be renamed, updates half installed, a setup under way, a check of
//! its disk.
//!
//! Files to be renamed stand in pairs, the second empty where the first is to be deleted (Microsoft, "MoveFileEx",
//! `MOVEFILE_DELAY_UNTIL_REBOOT`). An update half installed shows in `Component Based Servicing`, in
//! `WinSxS\pending.xml`, and in what the session manager is told to run (`SetupExecute`).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::fields::{Reader, answer};
use crate::Result;
use machine::Note;

const SERVICING: &str = "Microsoft\\Windows\\CurrentVersion\\Component Based Servicing";
const UPDATES: &str = "Microsoft\\Windows\\CurrentVersion\\WindowsUpdate\\Auto Update";
/// What the session manager runs at every start.
const ORDINARY: &str = "autocheck autochk *";

/// Work that waits for the next start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Files to be renamed or deleted.
    pub renames: usize,
    /// Whether the servicing stack asks for a restart.
    pub servicing_restart: bool,
    /// Whether an update waits for an exclusive session (`SessionsPending\Exclusive`).
    pub servicing_session: bool,
    /// Packages that wait.
    pub packages: usize,
    /// `WinSxS\pending.xml`: transactions of an update that begin or go on at the next start.
    pub has_pending_xml: bool,
    /// Whether Windows Update asks for a restart.
    pub update_restart: bool,
    /// Whether setup, or an upgrade, has not ended.
    pub is_setup_running: bool,
    /// `IMAGE_STATE_…` where it is not complete: a generalized image.
    pub image_state: Option<String>,
    /// What the session manager runs once, or besides the ordinary check of disks.
    pub boot_programs: Vec<String>,
}

impl Pending {
    pub(super) fn read(reader: &Reader<'_>) -> Result<Self> {
        let manager = reader.control("Session Manager")?;
        let mut renames = 0;
        for name in ["PendingFileRenameOperations", "PendingFileRenameOperations2"] {
            let texts = manager.texts_and_gaps(name)?;
            renames += texts.chunks(2).filter(|pair| !pair[0].is_empty()).count();
        }
        let servicing = reader.software(SERVICING)?;
        let setup = reader.system("Setup")?;
        let mut boot_programs = manager.texts("SetupExecute")?;
        boot_programs
            .extend(manager.texts("BootExecute")?.into_iter().filter(|text| !text.eq_ignore_ascii_case(ORDINARY)));
        let state = reader.software("Microsoft\\Windows\\CurrentVersion\\Setup\\State")?.text("ImageState")?;
        let xml = format!("{}/WinSxS/pending.xml", reader.windows.root);
        Ok(Self {
            renames,
            servicing_restart: servicing.child("RebootPending")?.is_there()
                || servicing.child("RebootInProgress")?.is_there(),
            servicing_session: servicing.child("SessionsPending")?.flag("Exclusive")?.unwrap_or(false),
            packages: servicing.child("PackagesPending")?.children()?.len(),
            has_pending_xml: reader.is_file(&xml)?,
            update_restart: reader.software(UPDATES)?.child("RebootRequired")?.is_there(),
            is_setup_running: setup.flag("SystemSetupInProgress")?.unwrap_or(false)
                || setup.flag("OOBEInProgress")?.unwrap_or(false)
                || setup.number("SetupType")?.unwrap_or(0) != 0,
            image_state: state.filter(|state| state != "IMAGE_STATE_COMPLETE"),
            boot_programs,
        })
    }

    /// Whether an update is half installed.
    pub fn is_servicing(&self) -> bool {
        self.servicing_restart || self.servicing_session || self.has_pending_xml
    }

    pub(super) fn notes(&self) -> Vec<Note> {
        let mut notes = Vec::new();
        if self.is_servicing() {
            notes.push(Note::warning(
                "updates are half installed",
                "the VM ends them at its first start, on other hardware: restart the source first if you can",
            ));
        }
        if self.update_restart && !self.is_servicing() {
            notes.push(Note::warning("Windows Update asks for a restart", "restart the source first if you can"));
        }
        if self.renames > 0 {
            let what = format!("{} files wait to be renamed or deleted", self.renames);
            notes.push(Note::info(what, "the VM does it at its first start"));
        }
        if self.is_setup_running || self.image_state.is_some() {
            let state = self.image_state.as_deref().unwrap_or("a setup or upgrade has not ended");
            notes.push(Note::warning(
                state,
                "setup goes on in the VM, and nothing of ours runs before it ended: let it end on the source first",
            ));
        }
        for program in &self.boot_programs {
            notes.push(Note::info(format!("runs before the next start: {program}"), "it runs in the VM"));
        }
        notes
    }
}

impl fmt::Display for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "files to be renamed or deleted: {}", self.renames)?;
        for (what, is_so) in [
            ("servicing asks for a restart", self.servicing_restart),
            ("servicing session pending", self.servicing_session),
            ("pending.xml", self.has_pending_xml),
            ("windows update asks for a restart", self.update_restart),
            ("setup under way", self.is_setup_running),
        ] {
            writeln!(f, "{what}: {}", answer(Some(is_so)))?;
        }
        writeln!(f, "packages pending: {}", self.packages)?;
        if let Some(state) = &self.image_state {
            writeln!(f, "image state: {state}")?;
        }
        self.boot_programs.iter().try_for_each(|program| writeln!(f, "runs before the next start: {program}"))
    }
}
