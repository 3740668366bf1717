//! `vconverter preflight`: a readiness report.

use clap::Args;
use controller::api::{
    CONVERSIONS_MAX, MachineState, MachineView, NewBatches, NewConversion, NewRequest, PreflightView,
};
use conversion::{Allocation, Finding};
use machine::Severity;

use crate::arguments::RccArguments;
use crate::choices::ChoiceArguments;
use crate::client::{Client, segment};
use crate::conversion_settings::ConversionSettings;
use crate::failure::{Code, Failure, Result};
use crate::link_tests;
use crate::table::plain;

#[derive(Debug, Args)]
#[command(after_help = "\
Nothing is touched: it looks at what is known of the machines and at the place of the results. The exit code is 4 where
something keeps a machine from being converted.

Examples:
  vconverter preflight web1 --output /srv/vms
  vconverter preflight web1 --output /srv/vms --skip-volume /data --disk sda,sdb:full
  vconverter preflight --all --test-links --profile nightly

With --test-links some seconds of each connected machine's disks are read, sent and thrown away; it tells how long the copy takes.")]
pub(crate) struct PreflightArguments {
    /// Machines, by id or host name
    #[arg(value_name = "MACHINE", required_unless_present = "all", conflicts_with = "all")]
    pub(crate) machines: Vec<String>,
    /// All machines that are known
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) choices: ChoiceArguments,
    #[command(flatten)]
    pub(crate) settings: ConversionSettings,
    /// Take what is not said here from this profile [default: the default profile; "none" for none]
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// A machine that is not there will be waited for
    #[arg(long)]
    pub(crate) wait: bool,
    /// Test how fast the content of each machine comes
    #[arg(long)]
    pub(crate) test_links: bool,
    #[command(flatten)]
    pub(crate) rcc: RccArguments,
}

pub(crate) fn preflight(client: &Client, arguments: &PreflightArguments, json: bool) -> Result<()> {
    let machines: Vec<MachineView> = match arguments.all {
        true => client.list::<MachineView>("/machines")?.into_iter().filter(|machine| machine.id.is_some()).collect(),
        false => {
            let find = |name: &String| client.get(&format!("/machines/{}", segment(name)));
            arguments.machines.iter().map(find).collect::<Result<_>>()?
        }
    };
    let mut reports: Vec<PreflightView> = Vec::new();
    if machines.len() > 1 && !arguments.choices.is_empty() {
        return Err(Failure::new(Code::Usage, "what is said of disks and volumes is for one machine"));
    }
    if arguments.test_links {
        let connected = machines.iter().filter(|machine| machine.state == MachineState::Ready);
        link_tests::test(client, connected.filter_map(|machine| machine.id.as_deref()))?;
    }
    for some in machines.chunks(CONVERSIONS_MAX) {
        let mut conversions = Vec::new();
        for machine in some {
            let hostname = machine.report.as_ref().and_then(|report| report.guest.hostname.clone());
            let id = machine.id.clone().unwrap_or_else(|| machine.name.clone());
            let settings = arguments.settings.settings()?;
            let (disks, choices) = arguments.choices.choices()?;
            let name = hostname.unwrap_or_else(|| id.clone());
            let request = NewRequest { name, disks, choices, settings, dry_run: false };
            let (profile, wait) = (arguments.profile.clone(), arguments.wait);
            let (rcc, schedule) = (arguments.rcc.settings()?, None);
            conversions.push(NewConversion { machine: id, request, profile, wait, schedule, rcc, held: false });
        }
        reports.extend(client.post::<Vec<PreflightView>>("/preflight", &NewBatches { conversions })?);
    }
    match json {
        true => crate::print_json(&reports)?,
        false => crate::print(&reports.iter().map(describe).collect::<String>())?,
    }
    refuse_blocked(&reports)
}

/// An error where something keeps a machine from being converted.
pub(crate) fn refuse_blocked(reports: &[PreflightView]) -> Result<()> {
    let blocked = reports.iter().filter(|report| report.preflight.blockers().next().is_some()).count();
    match blocked {
        0 => Ok(()),
        _ => {
            let message = format!("{blocked} of {} machines cannot be converted like this", reports.len());
            Err(Failure::new(Code::Refused, message))
        }
    }
}

/// Two lines for each finding: what was found, and what to do about it.
pub(crate) fn lines(findings: &[Finding], indent: &str) -> String {
    let line = |finding: &Finding| {
        let severity = match finding.severity {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Blocker => "BLOCKER",
        };
        format!("{indent}{severity:<8}{}\n{indent}        {}\n", plain(&finding.found), plain(&finding.remedy))
    };
    findings.iter().map(line).collect()
}

pub(crate) fn describe(report: &PreflightView) -> String {
    let findings = &report.preflight.findings;
    let worst = findings.iter().map(|finding| finding.severity).max();
    let verdict = match worst {
        Some(Severity::Blocker) => "cannot be converted like this",
        Some(Severity::Warning) => "ready, with warnings",
        _ => "ready",
    };
    let (machine, name) = (&report.machine, &report.name);
    let bytes = report.preflight.bytes;
    let takes = match findings.iter().any(|finding| finding.rule == "agent") {
        true => String::new(),
        false => format!(", {}", link_tests::describe(report.forecast.as_ref())),
    };
    let mut text = format!("{machine} ({}): {verdict}; {bytes} to be read{takes}\n", plain(name));
    for disk in &report.preflight.disks {
        let folder = disk.folder.as_ref().map(|folder| format!(", into {}", folder.display())).unwrap_or_default();
        let room = match disk.allocation {
            Allocation::Thin => String::new(),
            Allocation::Full => format!(", with all its {} set aside", disk.image_bytes),
        };
        text.push_str(&plain(&format!("  disk    {}: {} to be read{room}{folder}", disk.disk, disk.bytes)));
        text.push('\n');
    }
    text.push_str(&lines(findings, "  "));
    text
}
