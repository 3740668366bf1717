//! The plan as single steps, in their order.

use machine::firstboot::{AdapterSettings, DiskSignature, Plan, Script, StagedDriver};

/// One thing to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A publisher of drivers is trusted: by the file of its certificate.
    Publisher(String),
    /// A driver package is installed.
    Driver(StagedDriver),
    /// A disk is brought online and made writable.
    Disk(DiskSignature),
    /// Partitions get their letters: together, because one can stand in another's way.
    Letters,
    /// An adapter that is gone is removed.
    Ghost(String),
    /// Connections get the names of the old ones: together, as letters do.
    Names,
    /// An adapter gets an old one's settings: by the old one's interface.
    Adapter {
        /// [`AdapterSettings::interface`].
        interface: String,
        /// [`AdapterSettings::name`].
        name: String,
    },
    /// Routes that name no adapter are set.
    Routes,
    /// A script of the operator's is run.
    Script(Script),
}

/// Steps between which the machine is restarted where one asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Drivers.
    Drivers,
    /// Disks, letters and the network.
    Settings,
    /// The operator's scripts: behind each of them.
    Scripts,
}

/// The steps of `plan`.
pub fn steps(plan: &Plan) -> Vec<Step> {
    let network = &plan.network;
    let adapters = network.adapters.iter().map(|AdapterSettings { interface, name, .. }| Step::Adapter {
        interface: interface.clone(),
        name: name.clone(),
    });
    let mut steps: Vec<Step> = plan.publishers.iter().cloned().map(Step::Publisher).collect();
    steps.extend(plan.drivers.iter().cloned().map(Step::Driver));
    steps.extend(plan.disks.iter().cloned().map(Step::Disk));
    steps.extend((!plan.mounts.is_empty()).then_some(Step::Letters));
    steps.extend(plan.ghosts.iter().cloned().map(Step::Ghost));
    steps.extend((!network.adapters.is_empty()).then_some(Step::Names));
    steps.extend(adapters);
    steps.extend((!network.routes.is_empty()).then_some(Step::Routes));
    steps.extend(plan.scripts.iter().cloned().map(Step::Script));
    steps
}

impl Step {
    /// For the log and the report.
    pub fn name(&self) -> String {
        match self {
            Self::Publisher(file) => format!("trust publisher {file}"),
            Self::Driver(driver) => format!("driver {}", driver.inf),
            Self::Disk(DiskSignature::Mbr { signature }) => format!("disk {signature:08x}"),
            Self::Disk(DiskSignature::Gpt { disk_guid }) => format!("disk {disk_guid}"),
            Self::Letters => "drive letters".to_owned(),
            Self::Ghost(instance) => format!("remove adapter {instance}"),
            Self::Names => "connection names".to_owned(),
            Self::Adapter { name, .. } => format!("network {name}"),
            Self::Routes => "routes".to_owned(),
            Self::Script(script) => format!("script {}", script.file),
        }
    }

    /// To which part it belongs.
    pub fn phase(&self) -> Phase {
        match self {
            Self::Publisher(_) | Self::Driver(_) => Phase::Drivers,
            Self::Script(_) => Phase::Scripts,
            _ => Phase::Settings,
        }
    }

    /// Whether it can be done again when the machine stopped in its midst.
    pub fn can_be_repeated(&self) -> bool {
        !matches!(self, Self::Script(_))
    }
}
