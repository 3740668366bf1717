//! How Plug and Play finds the driver of a disk before it can read that disk: `CriticalDeviceDatabase` in each control set
//! before Windows 8, `DriverDatabase` at the root of the SYSTEM hive since.
//!
//! Layouts are those of Windows 7 SP1 and of 10 (19041) for drivers that they installed themselves: `DriverInfFiles` names
//! the package of a published INF file, `DeviceIds` the INF files of an identifier and of a class, `DriverPackages` holds
//! what the INF file says. `SignerScore`, `SignerName` and `StatusFlags` are not written: nothing was verified here, and the
//! first boot's own installation replaces the package.

use super::injection::{Edit, Key, Scope, class_key};
use crate::windows::Release;
use crate::windows::inf::{Change, Data, Installation, Model, Version};

/// Values of an identifier: the hardware id, or a compatible id, of the INF file; the second byte says nothing more.
const HARDWARE: [u8; 4] = [1, 0xff, 0, 0];
const COMPATIBLE: [u8; 4] = [2, 0xff, 0, 0];
/// `REG_NONE` and `REG_BINARY`.
const NONE: u32 = 0;
const BINARY: u32 = 3;
/// `ConfigScope` of every installed configuration.
const CONFIG_SCOPE: u32 = 7;

/// What is known of a driver.
pub(super) struct Entries<'e> {
    /// The INF file.
    pub(super) name: &'e str,
    /// Its package's folder in the driver store.
    pub(super) package: &'e str,
    /// Its published name.
    pub(super) published: &'e str,
    pub(super) version: &'e Version,
    /// Devices with their manufacturers.
    pub(super) models: &'e [(String, Model)],
}

impl Entries<'_> {
    /// The entries for the sections that start a driver at boot.
    pub(super) fn edits(&self, critical: &[&(String, Installation)], release: &Release) -> Vec<Edit> {
        if release.version() < (6, 2) {
            self.critical_devices(critical)
        } else {
            self.driver_database(critical, release)
        }
    }

    fn of<'m>(&'m self, section: &str) -> impl Iterator<Item = &'m (String, Model)> {
        self.models.iter().filter(move |(_, model)| model.install_section.eq_ignore_ascii_case(section))
    }

    fn critical_devices(&self, critical: &[&(String, Installation)]) -> Vec<Edit> {
        let mut edits = Vec::new();
        for (section, installation) in critical {
            let Some(service) = installation.service() else { continue };
            for (_, model) in self.of(section) {
                for id in ids(model).map(|(id, _)| id) {
                    let key = format!("Control\\CriticalDeviceDatabase\\{}", id.replace('\\', "#"));
                    if let Some(guid) = &self.version.class_guid {
                        edits.push(Edit::set(Scope::ControlSets, &key, "ClassGUID", Data::Sz(class_key(guid))));
                    }
                    edits.push(Edit::set(Scope::ControlSets, &key, "Service", Data::Sz(service.name.clone())));
                }
            }
        }
        edits
    }

    fn driver_database(&self, critical: &[&(String, Installation)], release: &Release) -> Vec<Edit> {
        let set =
            |key: &str, name: &str, data: Data| Edit::set(Scope::Hive, &format!("DriverDatabase\\{key}"), name, data);
        let text = |text: &str| Data::Sz(text.to_owned());
        let inf = format!("DriverInfFiles\\{}", self.published);
        let package = format!("DriverPackages\\{}", self.package);
        let sections = critical.iter().map(|(_, installation)| installation.section.clone()).collect();
        let mut edits = vec![
            set(&inf, "", Data::MultiSz(vec![self.package.to_owned()])),
            set(&inf, "Active", text(self.package)),
            set(&inf, "Configurations", Data::MultiSz(sections)),
        ];
        for (section, _) in critical {
            for (_, model) in self.of(section) {
                for (id, is_hardware) in ids(model) {
                    let value = if is_hardware { HARDWARE } else { COMPATIBLE };
                    edits.push(set(&format!("DeviceIds\\{id}"), self.published, Data::Bytes(BINARY, value.to_vec())));
                }
            }
        }
        if let Some(guid) = &self.version.class_guid {
            edits.push(set(&format!("DeviceIds\\{guid}"), self.published, Data::Bytes(NONE, Vec::new())));
        }
        edits.push(set(&package, "", text(self.published)));
        if let Some(catalog) = self.version.catalog(release.architecture) {
            edits.push(set(&package, "Catalog", text(catalog)));
        }
        edits.push(set(&package, "InfName", text(&self.name.to_lowercase())));
        if let Some(provider) = &self.version.provider {
            edits.push(set(&package, "Provider", text(provider)));
        }
        edits.push(set(&package, "Version", Data::Bytes(BINARY, self.version_bytes(release))));
        for (section, installation) in critical {
            let key = format!("{package}\\Configurations\\{}", installation.section);
            edits.push(set(&key, "ConfigFlags", Data::Dword(0)));
            edits.push(set(&key, "ConfigScope", Data::Dword(CONFIG_SCOPE)));
            if let Some(service) = installation.service() {
                edits.push(set(&key, "Service", text(&service.name)));
            }
            // What Windows puts below the device's own key when it finds the device: message signaled interrupts, say.
            for change in &installation.hardware {
                let path = if change.key.is_empty() {
                    format!("{key}\\Device")
                } else {
                    format!("{key}\\Device\\{}", change.key)
                };
                match &change.change {
                    Change::Set { name, data, .. } => edits.push(set(&path, name, data.clone())),
                    Change::MakeKey => {
                        let key = Key::new(Scope::Hive, format!("DriverDatabase\\{path}"));
                        edits.push(Edit::MakeKey { key });
                    }
                    _ => {}
                }
            }
            for (manufacturer, model) in self.of(section) {
                for (id, _) in ids(model) {
                    let key = format!("{package}\\Descriptors\\{id}");
                    edits.push(set(&key, "Configuration", text(&installation.section)));
                    edits.push(set(&key, "Description", text(&model.description)));
                    edits.push(set(&key, "Manufacturer", text(manufacturer)));
                }
            }
        }
        edits
    }

    /// 48 bytes: `00 ff`, the architecture, four of zero, the class's GUID, the date as FILETIME, the version, eight of zero.
    fn version_bytes(&self, release: &Release) -> Vec<u8> {
        let mut bytes = vec![0, 0xff];
        bytes.extend(release.architecture.number().to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(self.version.class_guid.as_deref().and_then(guid_bytes).unwrap_or_default());
        bytes.extend(self.version.date.filetime().to_le_bytes());
        bytes.extend(self.version.version.packed().to_le_bytes());
        bytes.extend([0; 8]);
        bytes
    }
}

/// Identifiers of an entry, and whether each is its hardware id.
fn ids(model: &Model) -> impl Iterator<Item = (&str, bool)> {
    let hardware = (!model.hardware_id.is_empty()).then_some((model.hardware_id.as_str(), true));
    hardware.into_iter().chain(model.compatible_ids.iter().map(|id| (id.as_str(), false)))
}

/// A GUID in its binary form: the first three fields little endian.
fn guid_bytes(guid: &str) -> Option<[u8; 16]> {
    let digits: String = guid.trim_matches(['{', '}']).split('-').collect();
    let number = u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32)?;
    let mut bytes = number.to_be_bytes();
    bytes[..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::windows::Architecture;
    use crate::windows::inf::Inf;

    /// `DriverPackages\vmci.inf_amd64_5e38a278d114b813`, value `Version`, as Windows 10 (19041) wrote it for VMware's vmci.inf
    /// of 07/11/2019, 9.8.16.0.
    #[test]
    fn the_version_of_a_package_is_packed_as_windows_packs_it() {
        let windows =
            "00ff0900000000007de9364d25e3ce11bfc108002be10318008024957b37d50100001000080009000000000000000000";
        let text = "[Version]\nSignature=\"$Windows NT$\"\nClassGuid={4D36E97D-E325-11CE-BFC1-08002BE10318}\nDriverVer=07/11/2019,9.8.16.0";
        let version = Inf::parse(text.as_bytes()).unwrap().version().unwrap();
        let entries = Entries { name: "vmci.inf", package: "", published: "oem2.inf", version: &version, models: &[] };
        let bytes = entries.version_bytes(&Release::parse("10", Architecture::Amd64).unwrap());
        assert_eq!(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), windows);
    }
}
