//! `vconverter convert --from FILE`: many conversions, from a table.

use std::path::Path;

use controller::api::{BatchView, CONVERSIONS_MAX, NewBatches, NewConversion, NewRequest, PreflightView, TaskSchedule};
use controller::tasks::Settings;
use conversion::{Allocation, Choices, OutputFormat};

use crate::arguments::Convert;
use crate::choices::{self, NamedDisk};
use crate::client::Client;
use crate::conversion_settings::Rate;
use crate::convert::{describe_batches, schedule};
use crate::failure::{Code, Failure, Result};
use crate::import::line_of;
use crate::{link_tests, preflight};

/// Columns of the table; all but the first may be missing, and so may values.
const COLUMNS: [&str; 16] = [
    "machine",
    "name",
    "output",
    "profile",
    "format",
    "verify",
    "disks",
    "skip_disks",
    "skip_volumes",
    "allocation",
    "keep_swap",
    "start_at",
    "window",
    "bandwidth",
    "back_by",
    "wait",
];
/// Largest table in bytes.
const BYTES_MAX: u64 = 4 << 20;

/// Checks a table, shows what is known of its conversions, and asks for them: all or none.
pub(crate) fn convert(client: &Client, file: &Path, arguments: &Convert, json: bool) -> Result<()> {
    let conversions = read(file, arguments)?;
    if arguments.test_links {
        link_tests::test(client, conversions.iter().map(|one| one.machine.as_str()))?;
    }
    let request = NewBatches { conversions };
    let reports: Vec<PreflightView> = client.post("/preflight", &request)?;
    if !json {
        let text: String = reports.iter().map(preflight::describe).collect();
        eprint!("{text}");
    }
    preflight::refuse_blocked(&reports)?;
    if arguments.dry_run {
        return match json {
            true => crate::print_json(&reports),
            false => crate::print(&format!("{} conversions can be made; nothing was asked for\n", reports.len())),
        };
    }
    let batches: Vec<BatchView> = client.post("/batches", &request)?;
    match json {
        true => crate::print_json(&batches),
        false => crate::print(&describe_batches(&batches)),
    }
}

fn read(file: &Path, arguments: &Convert) -> Result<Vec<NewConversion>> {
    let shown = file.display();
    let length = file.metadata().map_err(|e| Failure::io(&format!("table {shown}"), &e))?.len();
    if length > BYTES_MAX {
        return Err(Failure::new(
            Code::Usage,
            format!("table {shown}: expected at most {BYTES_MAX} bytes, found {length}"),
        ));
    }
    let text = std::fs::read_to_string(file).map_err(|e| Failure::io(&format!("table {shown}"), &e))?;
    let conversions = parse(&text, &defaults(arguments)?);
    conversions.map_err(|why| Failure::new(Code::Usage, format!("table {shown}: {why}")))
}

/// What the command line says for all rows.
fn defaults(arguments: &Convert) -> Result<NewConversion> {
    Ok(NewConversion {
        machine: String::new(),
        request: NewRequest {
            settings: arguments.settings.settings()?,
            choices: Choices { allow_unbootable: arguments.choices.allow_unbootable, ..Choices::default() },
            ..NewRequest::default()
        },
        profile: arguments.profile.clone(),
        wait: arguments.wait,
        schedule: schedule(&arguments.times),
        rcc: arguments.rcc.settings()?,
        held: arguments.rcc.confirm,
    })
}

fn parse(text: &str, defaults: &NewConversion) -> std::result::Result<Vec<NewConversion>, String> {
    let text = text.trim_start_matches('\u{feff}');
    let mut table = csv::ReaderBuilder::new().trim(csv::Trim::All).comment(Some(b'#')).from_reader(text.as_bytes());
    let header = table.headers().map_err(|e| e.to_string())?.clone();
    if let Some(unknown) = header.iter().find(|name| !COLUMNS.contains(name)) {
        return Err(format!("line 1: column {unknown:?} is not known; the columns are {}", COLUMNS.join(", ")));
    }
    if !header.iter().any(|name| name == "machine") {
        return Err("line 1: expected a heading with the column machine".into());
    }
    let mut conversions: Vec<NewConversion> = Vec::new();
    for row in table.records() {
        let row = row.map_err(|e| e.to_string())?;
        let line = line_of(text, &row);
        let value = |name: &str| {
            let place = header.iter().position(|column| column == name);
            place.and_then(|place| row.get(place)).filter(|text| !text.is_empty())
        };
        let conversion = conversion(&value, defaults).map_err(|why| format!("line {line}: {why}"))?;
        if conversions.iter().any(|other| other.machine == conversion.machine) {
            return Err(format!("line {line}: machine {} stands twice", conversion.machine));
        }
        conversions.push(conversion);
        if conversions.len() > CONVERSIONS_MAX {
            return Err(format!("line {line}: expected at most {CONVERSIONS_MAX} machines; make several tables of it"));
        }
    }
    if conversions.is_empty() {
        return Err("it names no machine".into());
    }
    Ok(conversions)
}

fn conversion<'a>(
    value: &impl Fn(&str) -> Option<&'a str>,
    defaults: &NewConversion,
) -> std::result::Result<NewConversion, String> {
    let machine = value("machine").ok_or("no machine")?;
    let wrong = |column: &'static str| move |e: String| format!("{column}: {e}");
    let windows = value("window").map(|text| text.split(';').map(|one| one.trim().parse()).collect()).transpose();
    let windows: Option<Vec<_>> = windows.map_err(|e: controller::Error| format!("window: {e}"))?;
    let start_at = value("start_at").map(str::parse).transpose();
    let start_at = start_at.map_err(|e: controller::Error| format!("start_at: {e}"))?;
    let own = TaskSchedule { start_at, windows: windows.unwrap_or_default() };
    let format = match value("format") {
        None => None,
        Some("qcow2") => Some(OutputFormat::Qcow2),
        Some("raw") => Some(OutputFormat::Raw),
        Some(other) => return Err(format!("format: expected qcow2 or raw, found {other:?}")),
    };
    let allocation = match value("allocation") {
        None => None,
        Some("thin") => Some(Allocation::Thin),
        Some("full") => Some(Allocation::Full),
        Some(other) => return Err(format!("allocation: expected thin or full, found {other:?}")),
    };
    let settings = Settings {
        allocation,
        keep_swap: value("keep_swap").map(yes_or_no).transpose().map_err(wrong("keep_swap"))?,
        output: value("output").map(std::path::PathBuf::from),
        format,
        verify: value("verify").map(yes_or_no).transpose().map_err(wrong("verify"))?,
        bytes_per_second: value("bandwidth")
            .map(str::parse::<Rate>)
            .transpose()
            .map_err(wrong("bandwidth"))?
            .and_then(|r| r.0),
        back_by: value("back_by")
            .map(str::parse)
            .transpose()
            .map_err(|e: controller::Error| format!("back_by: {e}"))?,
        ..Settings::default()
    };
    let list = |name: &str| -> Vec<String> {
        let text = value(name).unwrap_or_default();
        text.split(';').map(str::trim).filter(|one| !one.is_empty()).map(str::to_owned).collect()
    };
    let named = list("disks").iter().map(|disk| disk.parse()).collect::<std::result::Result<Vec<NamedDisk>, _>>();
    let (disks, disk_settings) = choices::named(&named.map_err(wrong("disks"))?).map_err(|e| e.message)?;
    let choices = Choices {
        skip_disks: list("skip_disks"),
        skip_volumes: list("skip_volumes"),
        disk_settings,
        ..defaults.request.choices.clone()
    };
    Ok(NewConversion {
        machine: machine.to_owned(),
        request: NewRequest {
            // As `convert MACHINE` names it.
            name: value("name").unwrap_or(machine).to_owned(),
            disks,
            choices,
            dry_run: false,
            settings: settings.or(defaults.request.settings.clone()),
        },
        profile: value("profile").map(str::to_owned).or_else(|| defaults.profile.clone()),
        wait: value("wait").map(yes_or_no).transpose().map_err(wrong("wait"))?.unwrap_or(defaults.wait),
        schedule: if own == TaskSchedule::default() { defaults.schedule.clone() } else { Some(own) },
        rcc: defaults.rcc.clone(),
        held: defaults.held,
    })
}

fn yes_or_no(text: &str) -> std::result::Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" | "1" => Ok(true),
        "no" | "false" | "0" => Ok(false),
        _ => Err(format!("expected yes or no, found {text:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing() -> NewConversion {
        NewConversion {
            machine: String::new(),
            request: NewRequest::default(),
            profile: Some("nightly".into()),
            wait: true,
            schedule: None,
            rcc: None,
            held: false,
        }
    }

    #[test]
    fn a_row_is_a_conversion_and_the_command_line_says_the_rest() {
        let text = "\u{feff}machine, name, verify, window, disks, bandwidth, wait, skip_volumes, allocation, keep_swap\n\
                    # the first wave\n\
                    web1,,,,,,,,,\n\
                    db1,db1-vm,yes,\"Sat 22:00-06:00 Europe/Berlin; Sun 22:00-06:00 Europe/Berlin\",/dev/sda;/dev/sdb:full=/fast,20M,no,/data; vg0/tmp,thin,yes\n";
        let found = parse(text, &nothing()).unwrap();
        assert_eq!(found.len(), 2);
        let (web, db) = (&found[0], &found[1]);
        assert_eq!((web.machine.as_str(), web.request.name.as_str(), web.wait), ("web1", "web1", true));
        assert_eq!((web.profile.as_deref(), web.request.settings.verify), (Some("nightly"), None));
        assert_eq!((db.request.name.as_str(), db.wait, db.request.disks.len()), ("db1-vm", false, 2));
        let (choices, settings) = (&db.request.choices, &db.request.settings);
        assert_eq!(db.request.disks, ["/dev/sda", "/dev/sdb"]);
        let setting = &choices.disk_settings[0];
        assert_eq!((setting.disk.as_str(), setting.allocation), ("/dev/sdb", Some(Allocation::Full)));
        assert_eq!(setting.folder.as_deref(), Some(Path::new("/fast")));
        assert_eq!(
            (choices.skip_volumes.as_slice(), choices.disk_settings.len()),
            (&["/data".into(), "vg0/tmp".into()][..], 1)
        );
        assert_eq!((settings.allocation, settings.keep_swap), (Some(Allocation::Thin), Some(true)));
        assert_eq!(web.request.choices, Choices::default());
        assert_eq!(db.schedule.as_ref().unwrap().windows.len(), 2);
        assert_eq!(db.request.settings.bytes_per_second, Some(20_000_000));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, expected) in [
            ("", "line 1: expected a heading"),
            ("name\nweb\n", "line 1: expected a heading"),
            ("machine,colour\nweb,red\n", "line 1: column \"colour\" is not known"),
            ("machine\n", "it names no machine"),
            ("machine,name\n,vm\n", "line 2: no machine"),
            ("machine,name\n# none\n\n,vm\n", "line 4: no machine"),
            ("machine\nweb\nweb\n", "line 3: machine web stands twice"),
            ("machine,verify\nweb,maybe\n", "line 2: verify: expected yes or no"),
            ("machine,start_at\nweb,22:00\n", "line 2: start_at:"),
            ("machine,window\nweb,whenever\n", "line 2: window:"),
            ("machine,format\nweb,vmdk\n", "line 2: format:"),
            ("machine,allocation\nweb,fat\n", "line 2: allocation:"),
            ("machine,disks\nweb,sda;:full\n", "line 2: disks:"),
            ("machine,bandwidth\nweb,fast\n", "line 2: bandwidth:"),
            ("machine,name\nweb\n", "line: 2"),
        ] {
            let found = parse(text, &nothing()).unwrap_err();
            assert!(found.contains(expected), "{text:?}: {found}");
        }
        let many: String = std::iter::once("machine\n".to_owned()).chain((0..201).map(|n| format!("m{n}\n"))).collect();
        assert!(parse(&many, &nothing()).unwrap_err().contains("line 202"));
    }
}
