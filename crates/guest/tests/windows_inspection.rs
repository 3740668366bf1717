//! Facts of the real hives of the test data, and of small ones for what those lack. The golden texts were compared with
//! what hivexregedit and reglookup say of the same hives, line by line.

#![allow(clippy::unwrap_used)]

mod support;
#[path = "support/windows.rs"]
mod windows;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use guest::MemoryTree;
use guest::windows::Windows;
use guest::windows::inspection::{BootDriver, Inspection, Surroundings};
use machine::FirmwareKind;
use support::{logs, test_data, unpack};
use windows::{hive_of, minimal_system, tree, version, version_10};

const BIOS: Surroundings = Surroundings { firmware: FirmwareKind::Bios, has_esp_bcd: false, has_boot_bcd: true };
const UEFI: Surroundings = Surroundings { firmware: FirmwareKind::Uefi, has_esp_bcd: true, has_boot_bcd: false };

fn inspect(tree: &MemoryTree, known: &Surroundings) -> Inspection {
    let windows = Windows::open(tree).unwrap().unwrap();
    Inspection::of(&windows, tree, known)
}

/// Compares with a golden file, which `UPDATE_GOLDEN=1` writes.
fn golden(name: &str, inspection: &Inspection) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("inspection-{name}.txt"));
    let text = inspection.to_string();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    println!("{name}: {} lines, {} notes", text.lines().count(), inspection.notes.len());
    for (at, (found, expected)) in text.lines().zip(expected.lines()).enumerate() {
        assert_eq!(found, expected, "{name}, line {}", at + 1);
    }
    assert_eq!(text.lines().count(), expected.lines().count(), "{name}");
    let again: Inspection = serde_json::from_str(&serde_json::to_string(inspection).unwrap()).unwrap();
    assert_eq!(again.to_string(), text, "{name}: by way of JSON");
}

#[test]
fn windows_xp_on_virtual_pc() {
    let Some(data) = test_data() else { return };
    let software = hive_of(&data, &version("5.1", 2600, "C:\\WINDOWS"));
    let tree = tree("/WINDOWS", unpack(&data, "hives/SYSTEM-xpsp3-x86-clean"), software)
        .with("/boot.ini", "")
        .with("/NTLDR", "")
        .with("/WINDOWS/system32/drivers/disk.sys", "")
        .with("/WINDOWS/system32/drivers/Atapi.sys", "");
    golden("xp", &inspect(&tree, &BIOS));
}

#[test]
fn windows_7_in_a_domain_with_fixed_addresses() {
    let Some(data) = test_data() else { return };
    let software = unpack(&data, "hives/SOFTWARE-win7sp1-x86-clean");
    let tree = tree("/Windows", unpack(&data, "hives/SYSTEM-win7sp1-x86-clean"), software)
        .with("/Windows/system32/drivers/disk.sys", "")
        .with("/hiberfil.sys", [0; 4096]);
    golden("7", &inspect(&tree, &BIOS));
}

#[test]
fn windows_10_1709_after_its_logs_on_a_laptop() {
    let Some(data) = test_data() else { return };
    let name = "hives/SYSTEM-win10-1709-x64-dirty";
    let logs = logs(&data, name);
    let tree = tree("/Windows", unpack(&data, name), hive_of(&data, &version_10(16299)))
        .with("/Windows/system32/config/SYSTEM.LOG1", &logs[0])
        .with("/Windows/system32/config/SYSTEM.LOG2", &logs[1])
        .with("/hiberfil.sys", b"HIBR");
    golden("10-1709", &inspect(&tree, &UEFI));
}

#[test]
fn windows_10_19041_on_vmware() {
    let Some(data) = test_data() else { return };
    let tree =
        tree("/Windows", unpack(&data, "hives/SYSTEM-win10-19041-x64-clean"), hive_of(&data, &version_10(19041)));
    golden("10-19041", &inspect(&tree, &UEFI));
}

/// A `REG_MULTI_SZ` in a registration file.
fn multi(texts: &[&str]) -> String {
    let text: String = texts.iter().map(|text| format!("{text}\0")).chain(["\0".to_owned()]).collect();
    let bytes: Vec<String> = text.encode_utf16().flat_map(u16::to_le_bytes).map(|byte| format!("{byte:02x}")).collect();
    format!("hex(7):{}", bytes.join(","))
}

/// A server with what the real hives lack: secondary addresses, a team, IPv6, WINS, roles, filters, vendors' agents.
fn server(data: &Path) -> MemoryTree {
    const CLASS: &str = "ControlSet001\\Control\\Class\\{4D36E972-E325-11CE-BFC1-08002BE10318}";
    const NETWORK: &str = "ControlSet001\\Control\\Network\\{4D36E972-E325-11CE-BFC1-08002BE10318}";
    const IPV4: &str = "ControlSet001\\Services\\Tcpip\\Parameters\\Interfaces";
    const IPV6: &str = "ControlSet001\\Control\\Nsi\\{eb004a01-9b1a-11d4-9123-0050047759bc}";
    let id = |n: u32| format!("{{0000000{n}-0000-0000-0000-00000000000{n}}}");
    let adapter = |n: u32, component: &str, device: &str, place: &str, bits: u32| {
        let escaped = device.replace('\\', "\\\\");
        format!(
            "[{CLASS}\\000{n}]\n\"NetCfgInstanceId\"=\"{}\"\n\"ComponentId\"=\"{component}\"\n\"DriverDesc\"=\"NIC {n}\"\n\
             \"DeviceInstanceID\"=\"{escaped}\"\n\"Characteristics\"=dword:{bits:08x}\n\"*IfType\"=dword:00000006\n\
             \"NetLuidIndex\"=dword:0000000{n}\n[{NETWORK}\\{}\\Connection]\n\"Name\"=\"LAN {n}\"\n\
             [ControlSet001\\Enum\\{device}]\n\"Service\"=\"nic{n}\"\n\"LocationInformation\"=\"{place}\"\n",
            id(n),
            id(n)
        )
    };
    let place =
        |bus: u32| format!("@System32\\\\drivers\\\\pci.sys,#65536;PCI bus %1, device %2, function %3;({bus},0,0)");
    let mut system = minimal_system("AMD64", "LanmanNT");
    system = system.replace("\"Failed\"=dword:00000000", "\"Failed\"=dword:00000002");
    // Named and numbered against the order of the bus.
    system += &adapter(1, "pci\\\\ven_14e4", "PCI\\VEN_14E4\\2", &place(7), 0x84);
    system += &adapter(2, "pci\\\\ven_14e4", "PCI\\VEN_14E4\\1", &place(3), 0x84);
    system += &adapter(3, "pci\\\\ven_8086", "PCI\\VEN_8086\\001B21FFFFAABBCC00", &place(9), 0x84);
    system += &adapter(4, "COMPOSITEBUS\\\\MS_IMPLAT_MP", "COMPOSITEBUS\\MS_IMPLAT_MP\\1", "", 0x9);
    system += &format!("[{CLASS}\\0001]\n\"NetworkAddress\"=\"02-00-5E-00-00-01\"\n");
    // Two addresses with two gateways, metrics, name servers in both notations, no registration, WINS, NetBIOS off.
    system += &format!(
        "[{IPV4}\\{}]\n\"EnableDHCP\"=dword:00000000\n\"IPAddress\"={}\n\"SubnetMask\"={}\n\"DefaultGateway\"={}\n\
         \"DefaultGatewayMetric\"={}\n\"InterfaceMetric\"=dword:00000019\n\"NameServer\"=\"192.0.2.53,192.0.2.54\"\n\
         \"Domain\"=\"lab.example\"\n\"RegistrationEnabled\"=dword:00000000\n\"MTU\"=dword:00002328\n",
        id(2),
        multi(&["192.0.2.10", "192.0.2.11", "198.51.100.4", "203.0.113.1"]),
        multi(&["255.255.255.0", "255.255.255.0", "255.255.255.252", "255.0.255.0"]),
        multi(&["192.0.2.1", "192.0.2.2"]),
        multi(&["0", "20"]),
    );
    system += &format!(
        "[ControlSet001\\Services\\NetBT\\Parameters\\Interfaces\\Tcpip_{}]\n\"NameServerList\"={}\n\
         \"NetbiosOptions\"=dword:00000002\n",
        id(2),
        multi(&["192.0.2.60"])
    );
    // DHCP with name servers of its own and an alternate configuration; what stood before is given up.
    system += &format!(
        "[{IPV4}\\{}]\n\"EnableDHCP\"=dword:00000001\n\"IPAddress\"={}\n\"SubnetMask\"={}\n\
         \"NameServer\"=\"192.0.2.55 192.0.2.56\"\n\
         \"DhcpIPAddress\"=\"192.0.2.99\"\n\"DhcpSubnetMask\"=\"255.255.255.0\"\n\"ActiveConfigurations\"={}\n",
        id(1),
        multi(&["0.0.0.0"]),
        multi(&["0.0.0.0"]),
        multi(&["Alternate_{00000001-0000-0000-0000-000000000001}"]),
    );
    // The team, and one that is gone.
    for (n, address) in [(4, "10.0.0.4"), (5, "10.0.0.5")] {
        let (address, mask) = (multi(&[address]), multi(&["255.0.0.0"]));
        system += &format!("[{IPV4}\\{}]\n\"IPAddress\"={address}\n\"SubnetMask\"={mask}\n", id(n));
    }
    // IPv6 of the second adapter: an address, a default route, another route, a name server.
    let luid = "0000000200000600";
    let data_of = |at: usize, value: u32| -> String {
        let mut bytes = [0xffu8; 44];
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(",")
    };
    let route = |prefix: &str, length: u8, hop: &str| {
        format!("00000000{prefix}{length:02x}{}{luid}{luid}{hop}", "0".repeat(38))
    };
    system += &format!(
        "[{IPV6}\\10]\n\"{luid}20010db8000000000000000000000010\"=hex(3):{}\n[{IPV6}\\16]\n\
         \"{}\"=hex(3):{}\n\"{}\"=hex(3):{}\n\
         [ControlSet001\\Services\\Tcpip6\\Parameters\\Interfaces\\{}]\n\"NameServer\"=\"2001:db8::53\"\n",
        data_of(16, 64),
        route(&"0".repeat(32), 0, "fe800000000000000000000000000001"),
        data_of(12, 256),
        route("20010db8000100000000000000000000", 48, "20010db8000000000000000000000002"),
        data_of(12, 5),
        id(2)
    );
    system += "[ControlSet001\\Services\\Tcpip\\Parameters]\n\"NV Hostname\"=\"dc2\"\n\"Hostname\"=\"dc1\"\n\
               \"NV Domain\"=\"corp.example\"\n\"SearchList\"=\"corp.example,example\"\n\"IPEnableRouter\"=dword:00000001\n\
               [ControlSet001\\Services\\Tcpip\\Parameters\\PersistentRoutes]\n\"172.16.0.0,255.240.0.0,192.0.2.9,5\"=\"\"\n\
               \"0.0.0.0,0.0.0.0,192.0.2.1,-1\"=\"\"\n\
               [ControlSet001\\Services\\Tcpip6\\Parameters]\n\"DisabledComponents\"=dword:00000020\n";
    for (service, start, kind) in [
        ("NTDS", 2, 0x10),
        ("ClusSvc", 2, 0x10),
        ("MSExchangeIS", 2, 0x10),
        ("MSSQL$ONE", 3, 0x10),
        ("MSSQLSERVER", 4, 0x10),
        ("CertSvc", 2, 0x10),
        ("vmms", 2, 0x10),
        ("MSiSCSI", 2, 0x20),
        ("mpio", 0, 1),
        ("ddpsvc", 3, 0x10),
        ("BDESVC", 2, 0x20),
        ("Netlogon", 2, 0x20),
        ("dcevt64", 2, 0x10),
        ("IAStorDataMgrSvc", 2, 0x10),
        ("hasplms", 2, 0x10),
        ("EmcpBase", 0, 1),
    ] {
        system +=
            &format!("[ControlSet001\\Services\\{service}]\n\"Start\"=dword:{start:08x}\n\"Type\"=dword:{kind:08x}\n");
    }
    system += &format!(
        "[ControlSet001\\Services\\EmcpBase]\n\"ErrorControl\"=dword:00000003\n\"ImagePath\"=\"\\\\??\\\\E:\\\\x.sys\"\n\
         [ControlSet001\\Services\\EmcpBase\\StartOverride]\n\"0\"=dword:00000003\n\
         [ControlSet001\\Control\\Class\\{{4d36e967-e325-11ce-bfc1-08002be10318}}]\n\"UpperFilters\"={}\n",
        multi(&["partmgr", "EmcpBase", "gone"])
    );
    system += &format!(
        "[ControlSet001\\Control]\n\"SystemStartOptions\"=\" TESTSIGNING NOEXECUTE=OPTIN SAFEBOOT:MINIMAL\"\n\
         [ControlSet001\\Control\\SecureBoot\\State]\n\"UEFISecureBootEnabled\"=dword:00000001\n\
         [ControlSet001\\Control\\BitLockerStatus]\n\"BootStatus\"=dword:00000001\n\
         [ControlSet001\\Control\\CloudDomainJoin\\JoinInfo\\AB12]\n\"TenantId\"=\"x\"\n\
         [ControlSet001\\Control\\TimeZoneInformation]\n\"RealTimeIsUniversal\"=dword:00000001\n\
         \"StandardName\"=\"@tzres.dll,-1;UTC\"\n\
         [ControlSet001\\Control\\Session Manager\\Memory Management]\n\"PagingFiles\"={}\n\
         [ControlSet001\\Control\\Session Manager]\n\"PendingFileRenameOperations\"={}\n\"BootExecute\"={}\n\
         [ControlSet001\\Control\\CrashControl]\n\"CrashDumpEnabled\"=dword:00000001\n\"AutoReboot\"=dword:00000000\n\
         \"DedicatedDumpFile\"=\"D:\\\\dump.sys\"\n\
         [ControlSet001\\Services\\partmgr\\Parameters]\n\"SanPolicy\"=dword:00000002\n\
         [Setup]\n\"OOBEInProgress\"=dword:00000001\n",
        multi(&["D:\\pagefile.sys 4096 8192"]),
        multi(&["\\??\\C:\\a", "", "\\??\\C:\\b", "!\\??\\C:\\c"]),
        multi(&["autocheck autochk *", "autocheck autochk /r \\??\\C:"])
    );
    let mut channel = vec!["00"; 0x3f8];
    let text: Vec<String> = "OEM:SLP\0".encode_utf16().flat_map(u16::to_le_bytes).map(|b| format!("{b:02x}")).collect();
    channel.extend(text.iter().map(String::as_str));
    channel.resize(0x4f8, "00");
    let software = version_10(26100)
        + &format!(
            "\"ProductName\"=\"Windows Server 2025 Standard\"\n\"EditionID\"=\"ServerStandard\"\n\
             \"InstallationType\"=\"Server Core\"\n\
             \"DisplayVersion\"=\"24H2\"\n\"ReleaseId\"=\"2009\"\n\"UBR\"=dword:000003e8\n\"ProductId\"=\"00454-OEM-1\"\n\
             \"DigitalProductId4\"=hex(3):{}\n\
             [Microsoft\\Windows\\CurrentVersion\\Component Based Servicing\\RebootPending]\n\
             [Microsoft\\Windows\\CurrentVersion\\Component Based Servicing\\SessionsPending]\n\"Exclusive\"=dword:00000001\n\
             [Microsoft\\Windows\\CurrentVersion\\Component Based Servicing\\PackagesPending\\x]\n\
             [Microsoft\\Windows\\CurrentVersion\\WindowsUpdate\\Auto Update\\RebootRequired]\n\
             [Microsoft\\Windows\\CurrentVersion\\Setup\\State]\n\"ImageState\"=\"IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE\"\n\
             [Microsoft\\Windows\\CurrentVersion\\Uninstall\\a]\n\"DisplayName\"=\"Dell EMC OpenManage Systems Management\"\n\
             [WOW6432Node\\Microsoft\\Windows\\CurrentVersion\\Uninstall\\b]\n\"DisplayName\"=\"VMware Tools\"\n\
             \"UninstallString\"=\"MsiExec.exe /X{{1}}\"\n\"QuietUninstallString\"=\"MsiExec.exe /qn /X{{1}}\"\n",
            channel.join(",")
        );
    tree("/Windows", hive_of(data, &system), hive_of(data, &software)).with("/Windows/winsxs/Pending.XML", "")
}

#[test]
fn a_server_with_everything_that_needs_care() {
    let Some(data) = test_data() else { return };
    golden("server", &inspect(&server(&data), &UEFI));
}

#[test]
fn names_that_no_screen_shows_are_passed_over() {
    let Some(data) = test_data() else { return };
    let driver =
        |name: &str| format!("[ControlSet001\\Services\\{name}]\n\"Start\"=dword:00000000\n\"Type\"=dword:00000001\n");
    let system = minimal_system("AMD64", "WinNT") + &driver("shown") + &driver("hid\0den") + &driver("\u{1b}[2J");
    let inspection = inspect(&tree("/Windows", hive_of(&data, &system), hive_of(&data, &version_10(19041))), &BIOS);
    let text = inspection.to_string();
    println!("{text}");
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'));
    let drivers = inspection.boot_drivers.unwrap().drivers;
    assert_eq!(drivers.iter().map(|driver| driver.name.as_str()).collect::<Vec<_>>(), ["shown"]);
}

#[test]
fn the_first_start_gives_settings_to_adapters_in_the_order_of_the_bus() {
    let Some(data) = test_data() else { return };
    let network = inspect(&server(&data), &UEFI).network.unwrap().for_first_boot();
    println!("{}", serde_json::to_string_pretty(&network).unwrap());
    let names: Vec<(&str, u32)> =
        network.adapters.iter().map(|adapter| (adapter.name.as_str(), adapter.order)).collect();
    // The third has the team's settings: it had none.
    assert_eq!(names, [("LAN 2", 0), ("LAN 1", 1), ("LAN 4", 2)]);
    let shown = |at: usize| {
        let adapter = &network.adapters[at];
        let all = adapter.ipv4.addresses.iter().chain(&adapter.ipv6.addresses).map(ToString::to_string);
        (all.collect::<Vec<_>>().join(" "), adapter.mac.map(|mac| mac.to_string()).unwrap_or_default())
    };
    let first = "192.0.2.10/24 192.0.2.11/24 198.51.100.4/30 2001:db8::10/64";
    assert_eq!(shown(0), (first.into(), String::new()));
    assert_eq!(shown(1), (String::new(), "02:00:5e:00:00:01".into()));
    assert_eq!(shown(2), ("10.0.0.4/8".into(), "00:1b:21:aa:bb:cc".into()));
    assert_eq!(network.adapters[0].interface, "00000002-0000-0000-0000-000000000002");
    assert!(network.adapters[1].ipv4.automatic && !network.adapters[0].ipv4.automatic);
    assert_eq!(network.adapters[0].ipv6.routes.len(), 1);
    let routes: Vec<String> = network.routes.iter().map(|route| route.destination.to_string()).collect();
    assert_eq!(routes, ["172.16.0.0/12"]);
}

#[test]
fn letters_of_partitions_come_back_and_those_of_devices_do_not() {
    let Some(data) = test_data() else { return };
    let software = hive_of(&data, &version_10(16299));
    let name = "hives/SYSTEM-win10-1709-x64-dirty";
    let hive = windows::merged(&data, name, "");
    let letters = inspect(&tree("/Windows", hive, software), &UEFI).drive_letters.unwrap().for_first_boot();
    println!("{letters:?}");
    assert_eq!(letters.iter().map(|mount| mount.letter).collect::<String>(), "CF");
}

#[test]
fn a_guest_is_identified_as_its_hives_say() {
    let Some(data) = test_data() else { return };
    let software = unpack(&data, "hives/SOFTWARE-win7sp1-x86-clean");
    let windows_7 = tree("/Windows", unpack(&data, "hives/SYSTEM-win7sp1-x86-clean"), software);
    let eleven =
        version_10(22631) + "\"ProductName\"=\"Windows 10 Pro\"\n\"DisplayVersion\"=\"23H2\"\n\"UBR\"=dword:00000bb8\n";
    let windows_11 = tree("/Windows", unpack(&data, "hives/SYSTEM-win10-19041-x64-clean"), hive_of(&data, &eleven));
    for (tree, expected) in [
        (&windows_7, ["Windows 7 Ultimate Service Pack 1", "6.1.7601", "i386", "WKS-WIN732BITA"]),
        (&windows_11, ["Windows 11 Pro 23H2", "10.0.22631.3000", "x86_64", "DESKTOP-M3OSHQU"]),
        (&server(&data), ["Windows Server 2025 Standard 24H2", "10.0.26100.1000", "x86_64", "dc2"]),
    ] {
        let guest = guest::identify(tree);
        println!("{guest:?}");
        let told = [&guest.product, &guest.version, &guest.arch, &guest.hostname];
        assert_eq!(told.map(|text| text.as_deref().unwrap()), expected);
    }
}

/// Services that the boot loader loads, with group, error control and program: by reglookup, whose names stand before a
/// comma and have `%25` for `%`.
fn boot_drivers_by_reglookup(hive: &[u8]) -> Option<Vec<String>> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), hive).unwrap();
    let Ok(output) = Command::new("reglookup").args(["-H", "-p", "/ControlSet001"]).arg(file.path()).output() else {
        println!("skipped: no reglookup");
        return None;
    };
    let mut services: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Some((path, rest)) = line.split_once(',') else { continue };
        let names: Vec<&str> = path.split('/').collect();
        if let ["", _, services_key, service, value] = names[..]
            && services_key.eq_ignore_ascii_case("services")
            && let Some((kind @ ("SZ" | "EXPAND_SZ" | "DWORD"), text)) = rest.split_once(',')
        {
            let text = text.trim_end_matches(',').replace("%2C", ",").replace("%25", "%");
            let text = if kind == "DWORD" { text.trim_start_matches("0x0000000").to_owned() } else { text };
            services.entry(service.to_owned()).or_default().insert(value.to_ascii_lowercase(), text);
        }
    }
    let lines = services.iter().filter_map(|(name, values)| {
        let value = |name: &str| values.get(name).map(String::as_str);
        let is_driver = value("start") == Some("0") && matches!(value("type"), Some("1" | "2" | "8"));
        let image = value("imagepath").map_or(format!("System32\\drivers\\{name}.sys"), str::to_owned);
        let (group, control) = (value("group").unwrap_or("no group"), value("errorcontrol").unwrap_or("0"));
        is_driver.then(|| format!("{} {group} {control} {image}", name.to_lowercase()))
    });
    let mut lines: Vec<String> = lines.collect();
    lines.sort();
    Some(lines)
}

#[test]
fn boot_drivers_are_those_that_reglookup_tells() {
    let Some(data) = test_data() else { return };
    for (name, software, least) in [
        ("hives/SYSTEM-xpsp3-x86-clean", version("5.1", 2600, "C:\\WINDOWS"), 16),
        ("hives/SYSTEM-win7sp1-x86-clean", version("6.1", 7601, "C:\\Windows"), 36),
        // Its logs replayed, written whole.
        ("hives/SYSTEM-win10-1709-x64-dirty", version_10(16299), 86),
        ("hives/SYSTEM-win10-19041-x64-clean", version_10(19041), 94),
    ] {
        let hive = windows::merged(&data, name, "");
        let Some(expected) = boot_drivers_by_reglookup(&hive) else { return };
        let drivers = inspect(&tree("/Windows", hive, hive_of(&data, &software)), &BIOS).boot_drivers.unwrap().drivers;
        let line = |driver: &BootDriver| {
            let group = driver.group.as_deref().unwrap_or("no group");
            format!("{} {group} {} {}", driver.name.to_lowercase(), driver.error_control, driver.image)
        };
        let mut found: Vec<String> = drivers.iter().map(line).collect();
        found.sort();
        println!("{name}: {} boot drivers", found.len());
        assert_eq!(found, expected, "{name}");
        assert_eq!(found.len(), least, "{name}");
    }
}

#[test]
fn a_damaged_key_costs_its_theme_and_nothing_else() {
    let Some(data) = test_data() else { return };
    let mut system = windows::merged(&data, "hives/SYSTEM-xpsp3-x86-clean", "");
    let names = system.windows(12).enumerate().filter(|(_, bytes)| *bytes == b"CrashControl");
    let keys: Vec<usize> = names.map(|(at, _)| at - 76).filter(|&at| system[at..at + 2] == *b"nk").collect();
    assert!(keys.len() >= 2, "one of each control set");
    keys.iter().for_each(|&at| system[at] = b'x');
    let tree = tree("/WINDOWS", system, hive_of(&data, &version("5.1", 2600, "C:\\WINDOWS")));
    let inspection = inspect(&tree, &BIOS);
    let note = inspection.notes.iter().find(|note| note.what.starts_with("settings: ")).unwrap();
    println!("{note}");
    assert!(inspection.settings.is_none() && inspection.network.is_some() && note.what.contains("expected nk"));
    assert!(inspection.to_string().contains("[settings]\nnot readable\n"));
}

#[test]
fn whatever_a_damaged_hive_holds_is_refused_or_told_in_printable_words() {
    let Some(data) = test_data() else { return };
    let system = windows::merged(&data, "hives/SYSTEM-xpsp3-x86-clean", "");
    let software = hive_of(&data, &version("5.1", 2600, "C:\\WINDOWS"));
    let (mut told, mut refused, mut unread) = (0, 0, 0);
    for round in 0..100u32 {
        // Up to a hundred bits, by a sequence of its own for each round.
        let mut bytes = system.clone();
        let mut state = round.wrapping_mul(2_654_435_761) | 1;
        for _ in 0..=round {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            let at = 4096 + state as usize % (bytes.len() - 4096);
            bytes[at] ^= 1 << (state >> 29);
        }
        match Windows::open(&tree("/WINDOWS", bytes, &software)) {
            Ok(Some(found)) => {
                let text = Inspection::of(&found, &MemoryTree::new(), &BIOS).to_string();
                unread += text.matches("not readable").count();
                assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "round {round}");
                told += 1;
            }
            Ok(None) => panic!("round {round}: no Windows"),
            Err(_) => refused += 1,
        }
    }
    println!("{told} told with {unread} themes unread, {refused} refused");
    assert!(told > 0);
}
