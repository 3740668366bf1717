//! The programs that a conversion runs, looked for before anything is copied: terabytes later is too late to say so.

use machine::Machine;

use crate::fixup::plan_without_guest;
use crate::{Error, ErrorKind, Request, Result};

/// Program and Debian package.
const QEMU: [(&str, &str); 2] = [("qemu-system-x86_64", "qemu-system-x86"), ("qemu-img", "qemu-utils")];

/// Refuses a conversion of `machine` for which a program is missing.
///
/// # Errors
/// [`ErrorKind::Refused`], with the packages to be installed.
pub(crate) fn check(machine: &Machine, request: &Request) -> Result<()> {
    let missing = missing_packages();
    let what = match (plan_without_guest(machine), request.prove_boot) {
        (None, _) => "the guest is fixed up in a small VM",
        (Some(_), Some(true)) if !request.dry_run => "the boot proof starts the VM",
        _ => return Ok(()),
    };
    match missing.is_empty() {
        true => Ok(()),
        false => {
            let context = format!("{what}, and QEMU is not whole here: install the packages {}", missing.join(" "));
            Err(Error::new(ErrorKind::Refused, context))
        }
    }
}

/// Whether a VM can be started here.
pub(crate) fn qemu_is_here() -> bool {
    missing_packages().is_empty()
}

fn missing_packages() -> Vec<&'static str> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let present = |program: &str| std::env::split_paths(&paths).any(|folder| folder.join(program).is_file());
    QEMU.iter().filter(|(program, _)| !present(program)).map(|(_, package)| *package).collect()
}
