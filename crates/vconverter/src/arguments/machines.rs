//! What can be typed about machines.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};
use controller::inventory::Reach;

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Cold Cloning Ready are the machines that stand in the boot image, approved and reported. A machine leaves them when it is
restarted or switched off, and after 18 seconds of silence.

A machine that is added by its address waits for its agent. When an agent comes that agrees with it in two of SMBIOS UUID, address
and host name, contradicts none, and is the only one that does, the two become one machine; where only one agrees,
`machines show` names it, and an operator joins them. A machine is in one group at most, and groups hold no groups.

Examples:
  vconverter machines
  vconverter machines approve 7K2M-9QXD
  vconverter machines show m-4f9c21ab --json
  vconverter machines history web1
  vconverter machines add 192.0.2.10 --name web1 --group dmz --reach ssh --note 'rack 7'
  vconverter machines set web1 web2 --group office
  vconverter machines set web1 --note 'ask Ada before Monday'
  vconverter machines join m-0b17c3aa web1
  vconverter machines forget m-4f9c21ab
  vconverter machines groups
  vconverter machines groups make dmz
  vconverter machines groups rename dmz edge
  vconverter machines groups delete edge
  vconverter machines import inventory.csv --dry-run
  vconverter machines search 192.0.2.0/24
  vconverter machines search 192.0.2.10-50 --ports 22,2222 --rate 20/s --add all --group found"
)]
pub(crate) struct Machines {
    #[command(subcommand)]
    pub(crate) action: Option<MachinesAction>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MachinesAction {
    /// Approve the machine whose screen shows this pairing code; five wrong codes close all that wait
    Approve {
        /// As on the machine's screen: XXXX-XXXX
        code: String,
    },
    /// Revoke the keys of a machine's agents, end its sessions, and forget it
    Forget {
        /// Id, or host name where only one has it
        machine: String,
    },
    /// Show a machine: firmware, processors, NICs, disks and what is on them, notes and what happened last
    Show {
        /// Id, or host name where only one has it
        machine: String,
    },
    /// What happened to a machine: comings and goings, changed facts, tasks
    History {
        /// Id, or host name where only one has it
        machine: String,
        /// The last so many lines
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
        lines: u32,
    },
    /// Add machines by their addresses, before they have an agent
    Add(AddMachines),
    /// Name a machine, note something of it, put machines into a group or take them out
    Set(SetMachines),
    /// Say that a machine which was added is one whose agent came
    Join {
        /// The one that was added: its id, name or address; it is gone then
        added: String,
        /// The one with the agent
        machine: String,
    },
    /// Groups of machines
    Groups(Groups),
    /// Add the machines of a table (CSV), all or none
    Import(Import),
    /// Search a range of addresses for SSH and Windows ports, or show what the last search found
    Search(Search),
}

#[derive(Debug, Args)]
pub(crate) struct AddMachines {
    /// Host names or IP addresses
    #[arg(required = true, value_name = "ADDRESS")]
    pub(crate) addresses: Vec<String>,
    /// What it is to be called; only with one address
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// The group to put them into; it is made if there is none of this name
    #[arg(long, value_name = "NAME")]
    pub(crate) group: Option<String>,
    /// What should be remembered of them
    #[arg(long, value_name = "TEXT")]
    pub(crate) note: Option<String>,
    /// How they can be reached to get an agent: ssh, winrm or unknown
    #[arg(long, default_value = "unknown")]
    pub(crate) reach: Reach,
    /// Its SMBIOS UUID, by which its agent is recognised; only with one address
    #[arg(long, value_name = "UUID")]
    pub(crate) uuid: Option<String>,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("change").required(true).multiple(true))]
pub(crate) struct SetMachines {
    /// Ids, or names where only one has it
    #[arg(required = true, value_name = "MACHINE")]
    pub(crate) machines: Vec<String>,
    /// What it is to be called; '' takes the name away
    #[arg(long, value_name = "NAME", group = "change")]
    pub(crate) name: Option<String>,
    /// The group to put them into
    #[arg(long, value_name = "NAME", group = "change")]
    pub(crate) group: Option<String>,
    /// Take them out of their groups
    #[arg(long, group = "change", conflicts_with = "group")]
    pub(crate) no_group: bool,
    /// What should be remembered of them; '' takes the note away
    #[arg(long, value_name = "TEXT", group = "change")]
    pub(crate) note: Option<String>,
    /// How they can be reached: ssh, winrm or unknown
    #[arg(long, group = "change")]
    pub(crate) reach: Option<Reach>,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Groups {
    #[command(subcommand)]
    pub(crate) action: Option<GroupsAction>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GroupsAction {
    /// Make a group
    Make {
        /// Its name; names that differ by case alone are one
        name: String,
    },
    /// Give a group another name
    Rename {
        /// The group
        name: String,
        /// Its other name
        new: String,
    },
    /// Delete a group; its machines stay
    Delete {
        /// The group
        name: String,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  vconverter machines import inventory.csv --dry-run

The first line names the columns: address (a host name or an IP address), and as you like name, group, note, reach (ssh, winrm,
unknown) and uuid. Lines that begin with # are left out; a field with a comma or a line's end stands in double quotes. At most
1000 machines; each line is checked, and all are added or none. Groups that are not there are made.

  address,name,group,note,reach
  192.0.2.10,web1,dmz,rack 7,ssh
  dc1.example.org,,office,\"ask Ada, before Monday\",winrm")]
pub(crate) struct Import {
    /// The table
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Check it, say what would be done, and add nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Leave out machines that are known; without this one of them keeps all from being added
    #[arg(long)]
    pub(crate) skip_known: bool,
    /// The group of those whose line names none
    #[arg(long, value_name = "NAME")]
    pub(crate) group: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vconverter machines search 192.0.2.0/24
  vconverter machines search 192.0.2.10-192.0.2.50 --ports 22,2222 --rate 20/s
  vconverter machines search                                    # how far it is, and what it found
  vconverter machines search --add 192.0.2.17,192.0.2.20 --group found
  vconverter machines search --cancel

The controller searches, one range at a time, of at most 65536 addresses (a /16, or a /112 of IPv6). It connects by TCP and leaves:
no login is tried and nothing is sent; what an SSH server says first is shown. It goes on when this command is interrupted.
Search only networks that are yours: others' may take it for an attack. It is in the audit log. What was found is kept until
the next search or the controller's end.")]
pub(crate) struct Search {
    /// 192.0.2.0/24, 192.0.2.10-192.0.2.50, 192.0.2.10-50 or one address [default: show the last search]
    pub(crate) range: Option<String>,
    /// Which ports, at most 16
    #[arg(long, value_delimiter = ',', value_name = "PORT,…", default_values_t = controller::search::PORTS, requires = "range")]
    pub(crate) ports: Vec<u16>,
    /// Connects a second, at most 1000/s
    #[arg(long, value_name = "N/s", default_value = "100/s", value_parser = parse_rate, requires = "range")]
    pub(crate) rate: u32,
    /// Do not wait for its end
    #[arg(long, requires = "range", conflicts_with = "add")]
    pub(crate) detach: bool,
    /// End the search that runs
    #[arg(long, conflicts_with_all = ["range", "add"])]
    pub(crate) cancel: bool,
    /// Add these of what was found, or all; machines that are known are left out
    #[arg(long, value_delimiter = ',', value_name = "all|ADDRESS,…")]
    pub(crate) add: Vec<String>,
    /// The group to put them into; it is made if there is none of this name
    #[arg(long, value_name = "NAME", requires = "add")]
    pub(crate) group: Option<String>,
}

/// `100/s` or `100`.
fn parse_rate(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).trim();
    let rate = number.parse().ok().filter(|rate| (1..=controller::search::RATE_MAX).contains(rate));
    rate.ok_or_else(|| format!("expected 1/s to {}/s", controller::search::RATE_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_connects_a_second() {
        assert_eq!((parse_rate("20/s"), parse_rate("1000")), (Ok(20), Ok(1000)));
        for wrong in ["0/s", "1001", "fast", "20/min", ""] {
            parse_rate(wrong).unwrap_err();
        }
    }
}
