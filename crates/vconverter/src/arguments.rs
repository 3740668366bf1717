//! What can be typed.

mod agents;
mod drivers;
mod machines;
mod rcc;
mod tasks;
mod users;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use controller::schedule::{StartAt, Window};

use crate::bcd::BootConfiguration;
use crate::choices::ChoiceArguments;
use crate::conversion_settings::ConversionSettings;
use crate::limits::LimitsArguments;
use crate::preflight::PreflightArguments;
use crate::profiles::Profiles;
use crate::registry::Registry;
use crate::windows_guests::WindowsArguments;

pub(crate) use agents::{Agents, AgentsAction, InstallAgent, ReachAgent, TokenAction};
pub(crate) use drivers::{Drivers, DriversAction, MatchDriver};
pub(crate) use machines::{AddMachines, GroupsAction, Import, Machines, MachinesAction, Search, SetMachines};
pub(crate) use rcc::RccArguments;
pub(crate) use tasks::{ScheduleTask, Tasks, TasksAction};
pub(crate) use users::{
    Credentials, CredentialsAction, Remote, SetCredential, Tokens, TokensAction, Users, UsersAction,
};

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed
  2    wrong usage
  3    not found: no such file, machine, task or pairing code
  4    refused: it does not fit the state of things (a busy name, a task that is over, a running controller)
  5    the controller cannot be reached
  6    made, with reservations: sectors are missing, or the boot proof is inconclusive
  130  interrupted; the same command goes on where it was

RUST_LOG=info (or controller=debug, conversion=debug, …) tells more on standard error.";

const EXAMPLES: &str = "\
Examples:
  vconverter inspect disk.img
  vconverter convert disk.img --output /srv/vms

  vconverter serve &
  vconverter boot-image build --output boot --controller 192.0.2.10:7770
  vconverter machines approve 7K2M-9QXD
  vconverter convert m-4f9c21ab --name web1 --output /srv/vms --verify";

/// Turns a physical machine into a virtual machine that boots, and proves it
#[derive(Debug, Parser)]
#[command(name = "vconverter", version, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
#[command(arg_required_else_help = true, max_term_width = 110)]
pub(crate) struct Arguments {
    /// The controller's data directory [default: /var/lib/vconverter for root, else ~/.local/share/vconverter]
    #[arg(long, global = true, value_name = "DIR", env = "VCONVERTER_DATA", hide_env_values = true)]
    pub(crate) data_dir: Option<PathBuf>,
    /// The configuration file [default: /etc/vconverter/vconverter.toml, where it is there]
    #[arg(long, global = true, value_name = "FILE", env = "VCONVERTER_CONFIG", hide_env_values = true)]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) remote: Remote,
    /// Print JSON; what takes time prints one JSON object a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the controller: wait for machines, convert them, serve the other commands
    Serve(Serve),
    /// Show whether the controller runs, where agents find it, and the fingerprint by which they know it
    #[command(after_help = "Example:\n  vconverter status --json")]
    Status,
    /// Show the machines that wait for approval, and those that are known
    Machines(Machines),
    /// Install agents over SSH; agents that were approved, their certificates, and one-time tokens that approve one
    #[command(visible_alias = "agent")]
    Agents(Agents),
    /// Convert a machine of the controller, or local disk images and block devices, into a VM
    Convert(Convert),
    /// Show the conversions of the controller
    Tasks(Tasks),
    /// Bring machines to the boot image over the network, beside the LAN's DHCP server; policies and log of that
    Pxe(Pxe),
    /// Switch a source off, see it gone, and start its VM in its place; or back
    Cutover(CutoverArguments),
    /// Look at conversions before anything is touched: space, encryption, names, what must be known of a guest
    Preflight(PreflightArguments),
    /// Named settings of conversions
    Profiles(Profiles),
    /// How many tasks run at once, and how fast data may come in
    Limits(LimitsArguments),
    /// Drivers: for machines in the boot image whose disk or network card has none, and for Windows guests
    Drivers(Drivers),
    /// Users of the console and the API, and what they may do
    Users(Users),
    /// API tokens: for programs, and for this command line on another machine
    Tokens(Tokens),
    /// Credentials for sources and targets; encrypted at rest, never shown again
    Credentials(Credentials),
    /// Show what is on disk images or block devices, without changing or mounting them
    Inspect(Inspect),
    /// Look into registry hives of Windows, export keys of them, and merge changes
    Registry(Registry),
    /// Show what Windows starts, and from where
    Bcd(BootConfiguration),
    /// Make the boot image from which machines are cold-cloned
    BootImage(BootImage),
    /// Check the configuration file, or show what is in force
    Config(Config),
    /// Save the controller's state to a file, while it runs or not
    Backup(Backup),
    /// Bring a saved state back
    Restore(Restore),
    /// Gather what somebody who helps needs to know, without secrets
    SupportBundle(SupportBundle),
    /// Print a shell's completions of this command line
    Completions(Completions),
    /// Write the man pages
    Manual(Manual),
}

#[derive(Debug, Default, Args)]
#[command(after_help = "\
Examples:
  vconverter serve
  vconverter serve --data-dir /srv/vconverter --listen 192.0.2.10:7770

It works in the foreground until SIGINT or SIGTERM. Running tasks come to a safe point then and go on with the next
start; after a SIGKILL too. What is not said here is taken from the configuration file, see `vconverter config --help`.
The data directory holds the database, the controller's key and the socket of its API, for its owner and root.")]
pub(crate) struct Serve {
    /// Where to listen for agents [default: 0.0.0.0:7770]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// Where to serve the console and the API, by TLS [default: 0.0.0.0:8443]
    #[arg(long, value_name = "ADDR")]
    pub(crate) console: Option<SocketAddr>,
    /// Serve no console: only the Unix socket in the data directory
    #[arg(long, conflicts_with = "console")]
    pub(crate) no_console: bool,
    /// Certificate chain of the console (PEM), with --tls-key [default: one that the controller's own CA signs]
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Private key of the console's certificate (PEM, mode 0600)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Lock the credentials at rest with the passphrase in this file [default: the systemd credential
    /// `vconverter-passphrase`, else a key file in the data directory]
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Forget all credentials at rest, where their key or passphrase is lost
    #[arg(long)]
    pub(crate) forget_credentials: bool,
    /// Bring machines to the boot image over the network too (see `vconverter pxe --help`)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) pxe: Option<bool>,
    #[command(flatten)]
    pub(crate) pxe_service: PxeService,
}

/// What the PXE service works with.
#[derive(Debug, Default, Args)]
pub(crate) struct PxeService {
    /// The boot image: the folder that `boot-image build` made
    #[arg(long, value_name = "DIR")]
    pub(crate) boot_image: Option<PathBuf>,
    /// Answer on this interface only; can be given more than once [default: all with an IPv4 address]
    #[arg(long = "interface", value_name = "NAME")]
    pub(crate) interfaces: Vec<String>,
    /// Port for HTTP; some firmware takes no other than 80 [default: 80]
    #[arg(long, value_name = "PORT")]
    pub(crate) http_port: Option<u16>,
}

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  vconverter pxe --boot-image boot --interface eth0
  vconverter pxe policy 52:54:00:12:34:56 boot-once
  vconverter pxe policy m-4f9c21ab ignore
  vconverter pxe log --follow

The service adds the boot image to what the LAN's own DHCP server says (proxyDHCP), and never offers an address. A machine
that has no policy gets a menu of its firmware whose choice after 10 s is its own disk; F8 shows the boot image.
Alone it has policies of its own, in its data directory, and `boot-once` ends 3 minutes after the boot image was sent; within
`vconverter serve --pxe` it ends when the boot image reports in. It needs UDP 67, 69, 4011 and TCP 80.
UEFI with Secure Boot on starts by HTTP boot or from the ISO, not by PXE."
)]
pub(crate) struct Pxe {
    #[command(subcommand)]
    pub(crate) action: Option<PxeAction>,
    #[command(flatten)]
    pub(crate) service: PxeService,
    /// Refuse a boot image that calls another controller than this one
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) controller: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PxeAction {
    /// Show each request, what it was answered and why
    Log {
        /// Go on with what comes
        #[arg(long, short)]
        follow: bool,
    },
    /// Show the policies of machines, or set one
    Policy(PxePolicyArguments),
}

#[derive(Debug, Args)]
pub(crate) struct PxePolicyArguments {
    /// MAC address, SMBIOS UUID, or id of a known machine
    #[arg(requires = "policy")]
    pub(crate) machine: Option<String>,
    /// What it gets when it starts from the network
    #[arg(value_enum)]
    pub(crate) policy: Option<PolicyName>,
    /// Do not ask before boot-always
    #[arg(long)]
    pub(crate) yes: bool,
}

/// What a machine gets that starts from the network.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum PolicyName {
    /// No answer: it goes on in its own order
    Ignore,
    /// The boot image, once
    BootOnce,
    /// The boot image at every start, for 24 hours
    BootAlways,
    /// Forget the policy: the menu
    Menu,
}

#[derive(Debug, Args)]
#[command(after_help = "\
A SOURCE holds a '/' or is a file here: a raw or qcow2 image, or a block device; several are the disks of one machine.
Anything else is a MACHINE of the controller; several, as arguments or with commas between, become a VM each, named as they
are. Those that are Cold Cloning Ready are one batch then, and those that run their own system another.

Examples:
  vconverter convert disk.img --output /srv/vms --dry-run
  vconverter convert sda.qcow2 sdb.qcow2 --output /srv/vms --name web1
  vconverter convert /dev/sdb --output . --format raw --no-prove-boot
  vconverter convert m-4f9c21ab --name web1 --output /srv/vms --verify
  vconverter convert web1 --name web1 --output /srv/vms --disk /dev/sda --detach
  vconverter convert web1 --output /srv/vms --skip-volume /data --skip-disk sdc --dry-run
  vconverter convert web1 --output /srv/vms --disk sda,sdb:full --target sdb=/fast
  vconverter convert web1,web2,db1 --output /srv/vms
  vconverter convert web1 --name web1 --output /srv/vms --wait      # then start web1 from the boot image
  vconverter convert web1,web2 --output /srv/vms --start-at '2026-12-01T22:00[Europe/Berlin]'
  vconverter convert --from wave1.csv --profile nightly --dry-run     # checks all, and asks for nothing
  vconverter convert web1 --output /srv/vms --window 'Sat 22:00-06:00 Europe/Berlin' --window 'daily 01:00-05:00 UTC'
  vconverter convert web1 --output /srv/vms --rcc --dry-run          # how it would be restarted into the boot image
  vconverter convert web1 --output /srv/vms --rcc --at '2026-12-01T22:00[Europe/Berlin]' --warn 15m
  vconverter convert web1 --output /srv/vms --wait --back-by '06:00 Europe/Berlin'  # or the copy is stopped, and kept

A TIME is one of a zone's clocks (IANA name), daylight saving included, or a moment: 2026-12-01T21:00Z. A WINDOW that ends before
it begins ends on the next day; what has begun is not ended by it. If the controller was not running at the time, the
conversion begins when it is, once, and says so; with windows, in the next one.

What is left out is left out of the VM's table of filesystems too, so that it does not wait for it. Of swap only the header is
copied, so that its UUID stays, and of Windows' page files, hibernation file and storage of shadow copies only that they are there;
--keep-swap copies their content. A system that hibernated starts afresh.

The result is the folder DIR/NAME; it gets its name when everything in it is whole. A conversion that was killed or
failed goes on where it was when the same command is given again.")]
pub(crate) struct Convert {
    /// Disk images or block devices here, or machines of the controller (ids or host names)
    #[arg(value_name = "SOURCE|MACHINE", required_unless_present = "from")]
    pub(crate) sources: Vec<String>,
    /// Convert the machines of this table instead (CSV): columns machine, name, output, profile, format, verify, disks,
    /// skip_disks, skip_volumes, allocation, keep_swap, start_at, window, bandwidth, wait; what a row does not say is said here or by its profile
    #[arg(long, value_name = "FILE", conflicts_with_all = ["sources", "name", "disks", "skip_disks", "skip_volumes", "targets"])]
    pub(crate) from: Option<PathBuf>,
    /// Name of the VM [default for local sources: the name of the first, without extension; for machines: theirs]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) choices: ChoiceArguments,
    #[command(flatten)]
    pub(crate) settings: ConversionSettings,
    /// MACHINE only: take what is not said here from this profile [default: the default profile; "none" for none]
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// Show what would be done, and leave nothing behind
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// MACHINE only: return as soon as the task is kept
    #[arg(long)]
    pub(crate) detach: bool,
    /// MACHINE only: where it is not Cold Cloning Ready, let the task wait until it is, and for `tasks resume` then
    #[arg(long)]
    pub(crate) wait: bool,
    /// MACHINE only: test first how fast the content of each machine comes (some seconds each), and say how long its copy takes
    /// [default: those that begin later, but not those of a table]
    #[arg(long, conflicts_with = "no_link_test")]
    pub(crate) test_links: bool,
    /// MACHINE only: test no link
    #[arg(long)]
    pub(crate) no_link_test: bool,
    #[command(flatten)]
    pub(crate) times: Times,
    #[command(flatten)]
    pub(crate) rcc: RccArguments,
    #[command(flatten)]
    pub(crate) windows: WindowsArguments,
}

/// When a conversion is to begin.
#[derive(Debug, Args)]
pub(crate) struct Times {
    /// MACHINE only: do not begin before this, such as 2026-12-01T22:00[Europe/Berlin]; the command returns at once
    #[arg(long, visible_alias = "at", value_name = "TIME")]
    pub(crate) start_at: Option<StartAt>,
    /// MACHINE only: begin only in this window, such as "Sat 22:00-06:00 Europe/Berlin"; can be given more than once
    #[arg(long = "window", value_name = "WINDOW")]
    pub(crate) windows: Vec<Window>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vconverter cutover t-0b7d11c2                       # its machine stands in the boot image, and is switched off
  vconverter cutover t-0b7d11c2 --source-is-off       # somebody saw that
  vconverter cutover t-0b7d11c2 --undo

A VM with the source's name and addresses is started only when the source is seen to be gone: its agent has left, and nothing
answers at its addresses. The VM is defined and started by virsh on the controller. To undo it the VM is shut down and its NICs are
disconnected; then the source is asked to wake by magic packets, and switched on by hand where it does not.")]
pub(crate) struct CutoverArguments {
    /// The task whose VM it is; it is done
    #[arg(value_name = "TASK")]
    pub(crate) task: String,
    /// Stop and disconnect the VM, and wake the source
    #[arg(long, conflicts_with_all = ["hypervisor", "source_is_off", "lose_changes", "unproven"])]
    pub(crate) undo: bool,
    /// Where the VM is to run, as libvirt names it [default: qemu:///system]
    #[arg(long, value_name = "URI")]
    pub(crate) hypervisor: Option<String>,
    /// The source has no agent that could switch it off: somebody saw that it is off
    #[arg(long)]
    pub(crate) source_is_off: bool,
    /// The source ran its own system since it was copied: give up what it wrote since
    #[arg(long)]
    pub(crate) lose_changes: bool,
    /// Also where the boot proof did not pass
    #[arg(long)]
    pub(crate) unproven: bool,
    /// Do not wait for the end
    #[arg(long)]
    pub(crate) detach: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vconverter inspect disk.img
  vconverter inspect server.raw --details
  vconverter inspect /dev/sda /dev/sdb --json")]
pub(crate) struct Inspect {
    /// Disk images or block devices: the disks of one machine
    #[arg(value_name = "SOURCE", required = true)]
    pub(crate) sources: Vec<PathBuf>,
    /// All facts of a Windows: drivers, adapters, drive letters, roles (always there with --json)
    #[arg(long)]
    pub(crate) details: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vconverter boot-image build --output boot --controller 192.0.2.10:7770
  vconverter boot-image inspect boot --supports 14e4:1639")]
pub(crate) struct BootImage {
    #[command(subcommand)]
    pub(crate) action: BootImageAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BootImageAction {
    /// Make kernel, initramfs and a hybrid ISO for BIOS and UEFI
    Build(Box<Build>),
    /// Show what a boot image is made of, or whether it supports a device
    Inspect(InspectImage),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vconverter boot-image inspect boot
  vconverter boot-image inspect boot/vconverter.iso --supports 14e4:1639
  vconverter boot-image inspect boot --supports 1000:005b:1028:1f35 --json

The numbers of a machine's devices: lspci -nn. With --supports the exit code is 1 where a device does not work, because no
module serves it or a firmware file that it cannot do without is missing.")]
pub(crate) struct InspectImage {
    /// Folder of a build, ISO or initramfs
    #[arg(value_name = "DIR|FILE", default_value = ".")]
    pub(crate) path: PathBuf,
    /// A PCI device as vendor:device, or with its subsystem behind; can be given more than once
    #[arg(long, value_name = "ID")]
    pub(crate) supports: Vec<bootimage::PciId>,
    /// Name every firmware file that is missing
    #[arg(long, short)]
    pub(crate) verbose: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vconverter boot-image build --output boot --controller 192.0.2.10:7770
  vconverter boot-image build --output boot --controller [2001:db8::10]:7770 --ca-fingerprint 5f2c…
  vconverter boot-image build --output boot --address 192.0.2.7/24 --gateway 192.0.2.1
  vconverter boot-image build --output boot --network address=192.0.2.7/24,gateway=192.0.2.1,dns=192.0.2.53,vlan=12,mtu=9000
  vconverter boot-image build --output boot --network bond=802.3ad:52:54:00:12:34:56+52:54:00:12:34:57 --keymap de-latin1
  vconverter boot-image build --output boot --firmware-dir /lib/firmware --add-driver megaraid_sas.ko.xz
  vconverter boot-image build --output push --for-machine modaliases.txt

Start the source from boot/vconverter.iso: a CD, a USB stick (dd), or a BMC's virtual drive. boot/netboot holds the files
for starting over the network. A report for --for-machine: cat /sys/bus/*/devices/*/modalias > modaliases.txt")]
pub(crate) struct Build {
    /// Folder for the files; made if it is not there
    #[arg(long, short, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// The controller that the machine calls; without it the boot image asks on its screen
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) controller: Option<String>,
    /// SHA-256 of the controller's CA certificate [default: that of the data directory's controller]
    #[arg(long, value_name = "HEX")]
    pub(crate) ca_fingerprint: Option<String>,
    /// Leave the fingerprint out: only the pairing code tells who the controller is
    #[arg(long, conflicts_with = "ca_fingerprint")]
    pub(crate) no_ca_fingerprint: bool,
    /// Static address of the machine, with prefix length [default: DHCP]
    #[arg(long, value_name = "ADDRESS/LENGTH")]
    pub(crate) address: Option<String>,
    /// Gateway, with --address
    #[arg(long, value_name = "ADDRESS", requires = "address")]
    pub(crate) gateway: Option<IpAddr>,
    /// Name server; can be given more than once
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) dns: Vec<IpAddr>,
    /// Use only this interface, by its name in the boot image
    #[arg(long, value_name = "NAME", conflicts_with = "mac")]
    pub(crate) interface: Option<String>,
    /// Use only the interface with this MAC address
    #[arg(long, value_name = "MAC")]
    pub(crate) mac: Option<String>,
    /// All settings of the network: NAME=VALUE,… or a TOML file with a section [network], as the Network Configurator saves
    /// one [default: DHCP]
    #[arg(long, value_name = "SETTINGS|FILE", conflicts_with_all = ["address", "gateway", "dns", "interface", "mac"])]
    pub(crate) network: Option<String>,
    /// Keymap of the screen's console, one of Debian's: de-latin1, fr-latin9, uk [default: us]
    #[arg(long, value_name = "NAME")]
    pub(crate) keymap: Option<String>,
    /// Build a rescue shell in: SSH as root for the owner of this public key, and a shell on the screen's second console
    #[arg(long, value_name = "FILE")]
    pub(crate) ssh_key: Option<PathBuf>,
    /// Kernel package by name, or .deb file by a path with a slash in it; again for the packages of its modules where they
    /// are separate (Ubuntu) [default: Debian's newest]
    #[arg(long, value_name = "PACKAGE|FILE")]
    pub(crate) kernel: Vec<String>,
    /// Folder with firmware files, as /lib/firmware; for what Debian's packages do not give. Can be given more than once
    #[arg(long = "firmware-dir", value_name = "DIR")]
    pub(crate) firmware_folders: Vec<PathBuf>,
    /// Add a driver: a module (.ko, .ko.xz, .ko.zst) or a package of modules or firmware (.deb). Can be given more than once
    #[arg(long = "add-driver", value_name = "FILE")]
    pub(crate) drivers: Vec<PathBuf>,
    /// Only kernel and initramfs, with the drivers of one machine: a file with the modaliases of its devices
    #[arg(long, value_name = "REPORT")]
    pub(crate) for_machine: Option<PathBuf>,
    /// Name every firmware file that is missing
    #[arg(long, short)]
    pub(crate) verbose: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vconverter config check
  vconverter config check ./vconverter.toml
  vconverter config show --json
  vconverter config test-mail

The file is TOML; all of it is optional, and options of `vconverter serve` go before it:
  data-dir = \"/var/lib/vconverter\"
  listen = \"0.0.0.0:7770\"

  [pxe]
  enabled = true
  boot-image = \"/srv/vconverter/boot\"
  interfaces = [\"eth0\"]
  http-port = 80

  [mail]                                # when a task is done, has failed, or waits for a yes
  server = \"mail.example.net\"
  tls = \"starttls\"                      # or \"tls\", or \"none\" for a server here; port = 587, 465 or 25
  user = \"vconverter\"
  password-file = \"/etc/vconverter/mail-password\"
  from = \"vconverter <vconverter@example.net>\"
  to = [\"ops@example.net\"]
  on = [\"done\", \"failed\", \"waiting\"]
  ca-file = \"/etc/vconverter/mail-ca.pem\" # instead of the system's authorities

A key that is not known is an error.")]
pub(crate) struct Config {
    #[command(subcommand)]
    pub(crate) action: ConfigAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigAction {
    /// Say what in the file is wrong or cannot work on this machine
    Check {
        /// The file [default: the one that `serve` reads]
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Show all settings in force, and where each comes from
    Show,
    /// Send a mail that says that it works, to all who get mail
    TestMail,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vconverter backup /srv/backup/vconverter-$(date +%F).tar.zst
  vconverter backup --without-drivers --force state.tar.zst

It holds the database (machines, tasks, users, logs), the keys of the controller and of its credentials, and the driver
library; no images. Whoever has it can pose as this controller: its mode is 0600, keep it like a private key. The running
controller is not disturbed. `tar --zstd -tf FILE` shows what is in it.")]
pub(crate) struct Backup {
    /// File to make
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Leave the driver library out
    #[arg(long)]
    pub(crate) without_drivers: bool,
    /// Take the place of a file that is there
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vconverter restore /srv/backup/vconverter-2026-11-23.tar.zst
  vconverter restore --force state.tar.zst          # what is there is kept as before-restore-TIME in the data directory
  vconverter restore --data-dir /srv/vconverter state.tar.zst

Stop the controller before. The whole file is read and checked before anything is changed; then the state changes in one
step, which the next command finishes if this one is killed in it. Tasks that were running or scheduled when the backup was
made go on with the next `vconverter serve`. A backup is as trustworthy as where it was kept.")]
pub(crate) struct Restore {
    /// What `vconverter backup` made
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Keep a state that is there aside, and take its place
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  vconverter support-bundle support.tar.zst && tar --zstd -xf support.tar.zst

It holds versions, settings, the controller's log (where systemd keeps it), tasks with their logs, the audit log, reports of
machines, names and sizes in the data directory, and free space; of a running controller or a stopped one. No password, key,
token, credential or content of a disk is taken, and what looks like one in a log is removed. Names, addresses and serial
numbers of machines are in it: look through it before you send it.")]
pub(crate) struct SupportBundle {
    /// File to make
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Take the place of a file that is there
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vconverter completions bash > /etc/bash_completion.d/vconverter
  vconverter completions zsh > \"${fpath[1]}/_vconverter\"
  vconverter completions fish > ~/.config/fish/completions/vconverter.fish

The Debian package brings them along.")]
pub(crate) struct Completions {
    /// The shell that they are for
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  vconverter manual --output ~/.local/share/man/man1 && man vconverter-convert

A page for each command, for section 1. The Debian package brings them along.")]
pub(crate) struct Manual {
    /// Folder for the pages; made if it is not there
    #[arg(long, short, value_name = "DIR")]
    pub(crate) output: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        crate::help::command().debug_assert();
    }

    #[test]
    fn the_last_of_prove_boot_and_no_prove_boot_counts() {
        let wanted = |flags: &[&str]| {
            let line = ["vconverter", "convert", "a.img", "-o", "."].iter().chain(flags);
            match Arguments::try_parse_from(line).unwrap().command {
                Command::Convert(convert) => convert.settings.settings().unwrap().prove_boot,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(wanted(&[]), None);
        assert_eq!(wanted(&["--no-prove-boot"]), Some(false));
        assert_eq!(wanted(&["--no-prove-boot", "--prove-boot"]), Some(true));
    }
}
