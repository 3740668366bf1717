//! `vconverter profiles`.

use clap::{Args, Subcommand};
use controller::api::NewProfile;
use controller::schedule::Window;
use controller::store::Profile;
use controller::tasks::Settings;
use conversion::Allocation;

use crate::client::{Client, segment};
use crate::conversion_settings::ConversionSettings;
use crate::failure::Result;
use crate::limits::rate;
use crate::table::{Table, plain};

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
A profile holds settings of conversions under a name. To apply it copies them: what is changed in it later reaches no task that
is there. The default profile is applied where a conversion names none.

Examples:
  vconverter profiles set nightly --output /srv/vms --verify --bandwidth 50M --window 'daily 22:00-06:00 Europe/Berlin'
  vconverter profiles set standard --output /srv/vms --default
  vconverter convert web1 --profile nightly
  vconverter profiles delete nightly"
)]
pub(crate) struct Profiles {
    #[command(subcommand)]
    pub(crate) action: Option<ProfilesAction>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProfilesAction {
    /// Make a profile, or give the one of this name these settings and no others
    Set(SetProfile),
    /// Forget a profile
    Delete {
        /// Its name
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SetProfile {
    /// Its name
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) settings: ConversionSettings,
    /// Begin only in this window, such as "Sat 22:00-06:00 Europe/Berlin"; can be given more than once
    #[arg(long = "window", value_name = "WINDOW")]
    pub(crate) windows: Vec<Window>,
    /// Apply it where a conversion names no profile
    #[arg(long)]
    pub(crate) default: bool,
}

pub(crate) fn list(client: &Client, json: bool) -> Result<()> {
    let profiles: Vec<Profile> = client.get("/profiles")?;
    if json {
        return crate::print_json(&profiles);
    }
    let mut table = Table::new(&["NAME", "DEFAULT", "SETTINGS"]);
    for profile in &profiles {
        let default = if profile.is_default { "yes" } else { "" };
        table.row(vec![profile.name.clone(), default.into(), describe(&profile.settings)]);
    }
    if table.is_empty() {
        return crate::print("no profiles\n");
    }
    crate::print(&table.to_string())
}

/// Makes a profile, or gives the one of this name these settings and no others.
pub(crate) fn set(client: &Client, new: &SetProfile, json: bool) -> Result<()> {
    let windows = (!new.windows.is_empty()).then(|| new.windows.clone());
    let settings = Settings { windows, ..new.settings.settings()? };
    let body = NewProfile { settings, is_default: new.default };
    let profile: Profile = client.put(&format!("/profiles/{}", segment(&new.name)), &body)?;
    match json {
        true => crate::print_json(&profile),
        false => crate::print(&format!("{}: {}\n", plain(&profile.name), plain(&describe(&profile.settings)))),
    }
}

pub(crate) fn delete(client: &Client, name: &str, json: bool) -> Result<()> {
    let left: Vec<Profile> = client.delete(&format!("/profiles/{}", segment(name)))?;
    match json {
        true => crate::print_json(&left),
        false => crate::print(&format!("{} is forgotten; tasks keep what it gave them\n", plain(name))),
    }
}

fn describe(settings: &Settings) -> String {
    let yes_no =
        |name: &str, value: Option<bool>| value.map(|value| format!("{name}: {}", if value { "yes" } else { "no" }));
    let windows = settings.windows.as_ref().map(|windows| {
        let windows: Vec<String> = windows.iter().map(ToString::to_string).collect();
        format!("in {}", windows.join(" or "))
    });
    let said = [
        settings.output.as_ref().map(|output| format!("to {}", output.display())),
        settings.format.map(|format| format!("as {}", format.extension())),
        settings.allocation.map(|allocation| match allocation {
            Allocation::Thin => "thin".into(),
            Allocation::Full => "full".into(),
        }),
        yes_no("swap", settings.keep_swap),
        yes_no("verify", settings.verify),
        yes_no("skip unreadable", settings.skip_unreadable),
        yes_no("boot proof", settings.prove_boot),
        settings.proof_time_s.map(|seconds| format!("proof time {seconds} s")),
        settings.back_by.as_ref().map(|time| format!("back by {time}")),
        settings.bytes_per_second.map(|bytes| format!("at most {}", rate(Some(bytes)))),
        windows,
    ];
    let said: Vec<String> = said.into_iter().flatten().collect();
    if said.is_empty() { "nothing".into() } else { said.join(", ") }
}
