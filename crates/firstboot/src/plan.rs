//! Reads the plan. It lies where administrators alone write, and is checked all the same: what it names is run.

use machine::firstboot::{PLAN_BYTES_MAX, PLAN_VERSION, Plan, REBOOTS_MAX, SCRIPT_TIMEOUT_MAX_S};

use crate::{Error, ErrorKind, Result};

/// Most of anything that a plan lists.
pub const ITEMS_MAX: usize = 1000;
/// Most adapters of a machine.
pub const ADAPTERS_MAX: usize = 256;
/// Longest text of any kind, in bytes.
const TEXT_BYTES_MAX: usize = 1024;

/// The plan in `bytes`.
///
/// # Errors
/// [`ErrorKind::Malformed`] for what is no plan of this revision, is out of its bounds, or names a file outside its folder.
pub fn parse_plan(bytes: &[u8]) -> Result<Plan> {
    if bytes.len() as u64 > PLAN_BYTES_MAX {
        return Err(wrong(format!("expected at most {PLAN_BYTES_MAX} bytes, found {}", bytes.len())));
    }
    let plan: Plan = serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
    if plan.version != PLAN_VERSION {
        return Err(wrong(format!("expected version {PLAN_VERSION}, found {}", plan.version)));
    }
    check_counts(&plan)?;
    if plan.nonce.len() > 64 || !plan.nonce.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Err(wrong("nonce: expected letters, digits and -".to_owned()));
    }
    for publisher in &plan.publishers {
        check_path("publisher", publisher, &["cer"])?;
    }
    for driver in &plan.drivers {
        check_path("driver", &driver.inf, &["inf"])?;
    }
    for script in &plan.scripts {
        check_path("script", &script.file, &["cmd", "bat", "exe", "ps1"])?;
        if script.file.contains('/') || !(1..=SCRIPT_TIMEOUT_MAX_S).contains(&script.timeout_s) {
            let found = format!("{:?} with {} s", script.file, script.timeout_s);
            return Err(wrong(format!(
                "script: expected a file's name and 1 to {SCRIPT_TIMEOUT_MAX_S} s, found {found}"
            )));
        }
    }
    if let Some(mount) = plan.mounts.iter().find(|mount| !mount.letter.is_ascii_uppercase()) {
        return Err(wrong(format!("drive letter: expected A to Z, found {:?}", mount.letter)));
    }
    if let Some(port) = plan.serial_port.as_ref().filter(|port| !is_serial_port(port)) {
        return Err(wrong(format!("serial port: expected COM1 to COM99, found {port:?}")));
    }
    let last_name = |key: &str| key.rsplit('\\').next().unwrap_or_default().to_ascii_lowercase();
    if let Some(key) = plan.scaffolding.keys.iter().find(|key| !last_name(key).contains("vconverter")) {
        return Err(wrong(format!("key to remove: expected vconverter in its last name, found {key:?}")));
    }
    if plan.reboots_max > REBOOTS_MAX {
        return Err(wrong(format!("expected at most {REBOOTS_MAX} restarts, found {}", plan.reboots_max)));
    }
    Ok(plan)
}

fn check_counts(plan: &Plan) -> Result<()> {
    let count = plan.drivers.len()
        + plan.publishers.len()
        + plan.disks.len()
        + plan.mounts.len()
        + plan.ghosts.len()
        + plan.scripts.len()
        + plan.network.routes.len()
        + plan.scaffolding.keys.len()
        + plan.scaffolding.device_paths.len();
    if count > ITEMS_MAX {
        return Err(wrong(format!("expected at most {ITEMS_MAX} items, found {count}")));
    }
    let adapters = &plan.network.adapters;
    if adapters.len() > ADAPTERS_MAX {
        return Err(wrong(format!("expected at most {ADAPTERS_MAX} adapters, found {}", adapters.len())));
    }
    for adapter in adapters {
        let of = |ip: &machine::firstboot::IpSettings| {
            ip.addresses.len() + ip.gateways.len() + ip.dns.len() + ip.routes.len()
        };
        let count = of(&adapter.ipv4) + of(&adapter.ipv6) + adapter.wins.len();
        if count > ITEMS_MAX || adapter.name.len() > TEXT_BYTES_MAX || adapter.name.chars().any(char::is_control) {
            let name = adapter.name.chars().take(40).collect::<String>();
            return Err(wrong(format!("adapter {name:?}: {count} settings, or a name that is none")));
        }
    }
    Ok(())
}

/// Names of files, below their folder, without what a command line or Windows reads as something else.
fn check_path(what: &str, path: &str, extensions: &[&str]) -> Result<()> {
    let plain = |character: char| character.is_alphanumeric() || " ._-+~@#".contains(character);
    let name = |part: &str| !part.is_empty() && !part.ends_with(['.', ' ']) && part.chars().all(plain);
    let extension = path.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    if path.len() <= TEXT_BYTES_MAX && path.split('/').all(name) && extensions.contains(&extension.as_str()) {
        return Ok(());
    }
    let found = path.chars().take(60).collect::<String>();
    Err(wrong(format!(
        "{what}: expected a path below its folder that ends in {}, found {found:?}",
        extensions.join(", ")
    )))
}

fn is_serial_port(name: &str) -> bool {
    let number = name.strip_prefix("COM").unwrap_or_default();
    (1..=2).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit()) && !number.starts_with('0')
}

fn wrong(context: String) -> Error {
    Error::new(ErrorKind::Malformed, format!("plan: {context}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::firstboot::{MountRestore, PartitionIdentity, Scaffolding, Script, StagedDriver};
    use proptest::prelude::*;

    fn plan() -> Plan {
        Plan {
            version: PLAN_VERSION,
            nonce: "a-1".into(),
            drivers: vec![StagedDriver { inf: "virtio/netkvm/netkvm.inf".into() }],
            mounts: vec![MountRestore {
                partition: PartitionIdentity::Mbr { signature: 1, offset: machine::ByteOffset(1 << 20) },
                letter: 'E',
            }],
            scripts: vec![Script { file: "10-licence.cmd".into(), timeout_s: 60 }],
            serial_port: Some("COM1".into()),
            reboots_max: 3,
            scaffolding: Scaffolding { keys: vec![r"SOFTWARE\vconverter".into()], device_paths: vec![] },
            ..Plan::default()
        }
    }

    fn refusal(change: impl FnOnce(&mut Plan)) -> String {
        let mut plan = plan();
        change(&mut plan);
        parse_plan(&serde_json::to_vec(&plan).unwrap()).unwrap_err().chain()
    }

    #[test]
    fn a_plan_comes_back_as_it_was_written() {
        assert_eq!(parse_plan(&serde_json::to_vec(&plan()).unwrap()).unwrap(), plan());
    }

    #[test]
    fn nothing_outside_its_folder_is_run_or_removed() {
        for path in ["../x.cmd", "a/b.cmd", "C:/x.cmd", r"..\x.cmd", "x.cmd ", "x.vbs", "a&b.cmd", "%TEMP%.cmd", ""] {
            let text = refusal(|plan| plan.scripts[0].file = path.into());
            assert!(text.starts_with("plan: script: expected a "), "{path}: {text}");
        }
        for path in ["/x.inf", "a//x.inf", "../x.inf", "a/../x.inf", "x.exe"] {
            assert!(refusal(|plan| plan.drivers[0].inf = path.into()).starts_with("plan: driver: "), "{path}");
        }
        assert!(refusal(|plan| plan.publishers = vec!["../a.cer".into()]).starts_with("plan: publisher: "));
        assert!(refusal(|plan| plan.scaffolding.keys = vec!["SYSTEM".into()]).contains("vconverter in its last name"));
    }

    #[test]
    fn bounds_are_kept() {
        assert!(refusal(|plan| plan.version = 2).contains("expected version 1, found 2"));
        assert!(refusal(|plan| plan.reboots_max = 11).contains("at most 10 restarts"));
        assert!(refusal(|plan| plan.scripts[0].timeout_s = 0).contains("with 0 s"));
        assert!(refusal(|plan| plan.mounts[0].letter = '1').contains("drive letter"));
        assert!(refusal(|plan| plan.serial_port = Some(r"COM1\..\x".into())).contains("serial port"));
        assert!(refusal(|plan| plan.ghosts = vec![String::new(); 1001]).contains("at most 1000 items"));
        assert!(refusal(|plan| plan.nonce = "a\"b".into()).contains("nonce"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0..400_usize) {
            let _ = parse_plan(&bytes);
            let mut changed = serde_json::to_vec(&plan()).unwrap();
            let at = at % changed.len();
            let end = (at + bytes.len() / 50).min(changed.len());
            changed.splice(at..end, bytes.iter().copied().take(9));
            let _ = parse_plan(&changed);
        }
    }
}
