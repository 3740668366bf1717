//! The device tree: network adapters that are there and that are gone, drivers, and waiting until Windows found its devices.
//!
//! Unsafe for the Setup API, whose lists are handles.
#![allow(unsafe_code)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use machine::firstboot::StepResult;
use windows_sys::Win32::Devices::DeviceAndDriverInstallation::{
    CM_Get_DevNode_Status, CMP_WaitNoPendingInstallEvents, CR_NO_SUCH_DEVNODE, CR_SUCCESS, DI_REMOVEDEVICE_GLOBAL,
    DICS_FLAG_GLOBAL, DIF_REMOVE, DIGCF_PRESENT, DIREG_DRV, DiInstallDriverW, GUID_DEVCLASS_NET, HDEVINFO,
    SETUP_DI_GET_CLASS_DEVS_FLAGS, SETUP_DI_REGISTRY_PROPERTY, SP_CLASSINSTALL_HEADER, SP_DEVINFO_DATA,
    SP_REMOVEDEVICE_PARAMS, SPDRP_ADDRESS, SPDRP_BUSNUMBER, SetupDiCallClassInstaller, SetupDiDestroyDeviceInfoList,
    SetupDiEnumDeviceInfo, SetupDiGetClassDevsW, SetupDiGetDeviceInstanceIdW, SetupDiGetDeviceRegistryPropertyW,
    SetupDiOpenDevRegKey, SetupDiSetClassInstallParamsW,
};
use windows_sys::Win32::Foundation::{INVALID_HANDLE_VALUE, WAIT_TIMEOUT};
use windows_sys::Win32::System::Registry::KEY_READ;

use super::registry::Key;
use super::{from_wide, last_error, wide};
use crate::adapters::Location;
use crate::{Error, ErrorKind, Result};

/// Devices of one class that are looked at.
const DEVICES_MAX: u32 = 10_000;
/// MAX_DEVICE_ID_LEN, with its end.
const INSTANCE_UNITS: u32 = 201;

/// A network adapter's device.
pub(super) struct NetworkDevice {
    /// GUID of its interface, in braces, as the driver's key has it.
    pub(super) interface: String,
    /// Instance id.
    pub(super) instance_id: String,
    /// Where it is plugged in.
    pub(super) location: Option<Location>,
}

struct Devices(HDEVINFO);

impl Drop for Devices {
    fn drop(&mut self) {
        // SAFETY: the list is open, and this is its one owner.
        unsafe { SetupDiDestroyDeviceInfoList(self.0) };
    }
}

impl Devices {
    fn of_network(flags: SETUP_DI_GET_CLASS_DEVS_FLAGS) -> Result<Self> {
        let class = GUID_DEVCLASS_NET;
        // SAFETY: the class lives through the call; the rest is left out.
        let list = unsafe { SetupDiGetClassDevsW(&raw const class, std::ptr::null(), std::ptr::null_mut(), flags) };
        if list == INVALID_HANDLE_VALUE as HDEVINFO {
            return Err(last_error("network devices"));
        }
        Ok(Self(list))
    }

    fn get(&self, index: u32) -> Option<SP_DEVINFO_DATA> {
        let mut device = SP_DEVINFO_DATA { cbSize: size_u32::<SP_DEVINFO_DATA>(), ..Default::default() };
        // SAFETY: the list is open, `device` is written to.
        (index < DEVICES_MAX && unsafe { SetupDiEnumDeviceInfo(self.0, index, &raw mut device) } != 0).then_some(device)
    }

    fn instance_id(&self, device: &SP_DEVINFO_DATA) -> Option<String> {
        let mut units = [0; INSTANCE_UNITS as usize];
        let null = std::ptr::null_mut();
        // SAFETY: the list is open, the device is of it, the buffer is as long as said.
        let done = unsafe { SetupDiGetDeviceInstanceIdW(self.0, device, units.as_mut_ptr(), INSTANCE_UNITS, null) };
        (done != 0).then(|| from_wide(&units))
    }

    fn number(&self, device: &SP_DEVINFO_DATA, property: SETUP_DI_REGISTRY_PROPERTY) -> Option<u32> {
        let mut bytes = [0; 4];
        let null = std::ptr::null_mut;
        // SAFETY: the list is open, the device is of it, the buffer is as long as said.
        let done = unsafe {
            SetupDiGetDeviceRegistryPropertyW(
                self.0,
                device,
                property,
                null(),
                bytes.as_mut_ptr(),
                4,
                std::ptr::null_mut(),
            )
        };
        (done != 0).then(|| u32::from_le_bytes(bytes))
    }

    fn interface(&self, device: &SP_DEVINFO_DATA) -> Option<String> {
        // SAFETY: the list is open, the device is of it.
        let key = unsafe { SetupDiOpenDevRegKey(self.0, device, DICS_FLAG_GLOBAL, 0, DIREG_DRV, KEY_READ) };
        if key.is_null() || key == INVALID_HANDLE_VALUE {
            return None;
        }
        // SAFETY: the key was just opened, and is closed by its new owner.
        let key = unsafe { Key::from_raw(key) };
        key.text("NetCfgInstanceId")
    }
}

/// The network adapters that are there.
pub(super) fn network_devices() -> Result<Vec<NetworkDevice>> {
    let list = Devices::of_network(DIGCF_PRESENT)?;
    let mut found = Vec::new();
    for index in 0.. {
        let Some(device) = list.get(index) else { break };
        let (Some(interface), Some(instance_id)) = (list.interface(&device), list.instance_id(&device)) else {
            continue;
        };
        let bus = list.number(&device, SPDRP_BUSNUMBER);
        let location = bus.zip(list.number(&device, SPDRP_ADDRESS)).map(|(bus, address)| Location { bus, address });
        found.push(NetworkDevice { interface, instance_id, location });
    }
    Ok(found)
}

/// Removes the adapter with this instance id, which is not there any more, as the device manager does.
pub(super) fn remove_ghost(instance_id: &str) -> Result<StepResult> {
    let list = Devices::of_network(0)?;
    for index in 0.. {
        let Some(device) = list.get(index) else { break };
        if !list.instance_id(&device).is_some_and(|id| id.eq_ignore_ascii_case(instance_id)) {
            continue;
        }
        let (mut status, mut problem) = (0, 0);
        // SAFETY: both numbers are written to.
        let answer = unsafe { CM_Get_DevNode_Status(&raw mut status, &raw mut problem, device.DevInst, 0) };
        match answer {
            CR_NO_SUCH_DEVNODE => {}
            // The new machine has the same adapter in the same place.
            CR_SUCCESS => return Ok(StepResult::AlreadySo),
            other => {
                return Err(Error::new(
                    ErrorKind::Refused,
                    format!("whether it is there: configuration manager says {other}"),
                ));
            }
        }
        remove(&list, &device)?;
        return Ok(StepResult::Done);
    }
    Ok(StepResult::AlreadySo)
}

fn remove(list: &Devices, device: &SP_DEVINFO_DATA) -> Result<()> {
    let header = SP_CLASSINSTALL_HEADER { cbSize: size_u32::<SP_CLASSINSTALL_HEADER>(), InstallFunction: DIF_REMOVE };
    let parameters = SP_REMOVEDEVICE_PARAMS { ClassInstallHeader: header, Scope: DI_REMOVEDEVICE_GLOBAL, HwProfile: 0 };
    let length = size_u32::<SP_REMOVEDEVICE_PARAMS>();
    // SAFETY: the list is open, the device is of it; the parameters begin with their header and are as long as said.
    let done = unsafe {
        SetupDiSetClassInstallParamsW(list.0, device, (&raw const parameters).cast(), length) != 0
            && SetupDiCallClassInstaller(DIF_REMOVE, list.0, device) != 0
    };
    if done { Ok(()) } else { Err(last_error("removal of the device")) }
}

/// Waits in short turns until Windows installs no device, at most `patience`; whether it came to that. `stops` ends it.
///
/// Not to be called before the service is said to run: Windows may start services before it installs devices.
pub(super) fn wait_until_installed(patience: Duration, stops: impl Fn() -> bool) -> bool {
    let begun = Instant::now();
    loop {
        // SAFETY: takes a number alone.
        if unsafe { CMP_WaitNoPendingInstallEvents(1000) } != WAIT_TIMEOUT {
            return true;
        }
        if begun.elapsed() >= patience || stops() {
            return false;
        }
    }
}

/// Installs the package of `inf`, on the devices that it fits and for those that come; the exit code is pnputil's.
pub(super) fn install_driver(inf: &str) -> ExitCode {
    let mut restart = 0;
    let text = wide(inf);
    // SAFETY: the text ends with a zero, `restart` is written to, there is no window.
    let done = unsafe { DiInstallDriverW(std::ptr::null_mut(), text.as_ptr(), 0, &raw mut restart) };
    if done == 0 {
        eprintln!("{}", last_error(format!("driver {inf}")).chain());
        return ExitCode::FAILURE;
    }
    if restart != 0 {
        // An exit code of a byte has no room for 3010.
        std::process::exit(3010);
    }
    ExitCode::SUCCESS
}

fn size_u32<T>() -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(0)
}
