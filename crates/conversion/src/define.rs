//! The define step: the VM as libvirt knows it, and how to look at it without libvirt.

use std::fs;

use machine::FirmwareKind;
use target::{Definition, DiskFile};

use crate::error::Context;
use crate::fixup::selected_machine;
use crate::pipeline::Pipeline;
use crate::{ErrorKind, Result};

/// What a TPM in the definition means.
const TPM: &str = "the VM has a TPM 2.0 of its own, because its guest asks for one: keys that were kept in the source's do not move \
                   (Windows Hello has to be set up again), and its host needs the packages swtpm and swtpm-tools, without which \
                   libvirt refuses the definition; where no TPM is wanted, take <tpm> out of it";

/// Writes `NAME.xml` and the preview command into the working folder. Paths in them are those of the final folder.
pub(crate) fn define(pipeline: &mut Pipeline<'_>) -> Result<()> {
    let capabilities = pipeline.capabilities()?;
    let request = &pipeline.record.request;
    let file =
        |place: usize| DiskFile { path: pipeline.final_image(place), format: request.format.extension().to_string() };
    let disks: Vec<_> = (0..pipeline.record.selected.len()).map(file).collect();
    let machine = selected_machine(pipeline);
    let definition = Definition {
        name: &request.name,
        machine: &machine,
        capabilities: &capabilities,
        disks: &disks,
        link_up: false,
    };
    let xml = target::libvirt::domain_xml(&definition).context(ErrorKind::Refused, || "VM definition".into())?;
    let preview =
        target::preview::qemu_command(&definition).context(ErrorKind::Refused, || "preview command".into())?;
    for (name, text) in
        [(format!("{}.xml", request.name), xml), ("look.sh".to_string(), format!("#!/bin/sh\n{preview}\n"))]
    {
        let path = pipeline.workdir.file(name);
        fs::write(&path, text).context(ErrorKind::Target, || path.display().to_string())?;
    }
    if machine.firmware.kind == FirmwareKind::Unknown && capabilities.firmware != FirmwareKind::Unknown {
        let message = "the firmware of the source is not known: it was chosen by what lies on its disks".to_string();
        pipeline.warn(message);
    }
    if capabilities.secure_boot.or(machine.firmware.secure_boot) == Some(true)
        && target::firmware(&machine, &capabilities) == FirmwareKind::Uefi
        && !target::secure_boot(&machine, &capabilities)
    {
        let message = "Secure Boot is off in the VM, and it was on at the source: its disks are on IDE, and machines with IDE have none";
        pipeline.warn(message.to_string());
    }
    if capabilities.tpm {
        pipeline.warn(TPM.to_string());
    }
    Ok(())
}
