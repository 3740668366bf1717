//! A restart of the machine. Unsafe for the privilege and the call.
#![allow(unsafe_code)]

use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};

use windows_sys::Win32::Security::{
    AdjustTokenPrivileges, LUID_AND_ATTRIBUTES, LookupPrivilegeValueW, SE_PRIVILEGE_ENABLED, TOKEN_ADJUST_PRIVILEGES,
    TOKEN_PRIVILEGES, TOKEN_QUERY,
};
use windows_sys::Win32::System::Shutdown::{
    InitiateSystemShutdownExW, SHTDN_REASON_FLAG_PLANNED, SHTDN_REASON_MAJOR_OPERATINGSYSTEM,
    SHTDN_REASON_MINOR_RECONFIG,
};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, OpenProcessToken};

use super::{last_error, wide};
use crate::Result;

/// Seconds in which somebody at the screen can read why.
const WARNING_S: u32 = 5;

/// Asks Windows to restart, whoever may be logged on.
pub(super) fn restart() -> Result<()> {
    enable_privilege()?;
    let message = wide("vconverter: drivers or a script of the first start ask for a restart");
    let reason = SHTDN_REASON_MAJOR_OPERATINGSYSTEM | SHTDN_REASON_MINOR_RECONFIG | SHTDN_REASON_FLAG_PLANNED;
    // SAFETY: the text ends with a zero; no name means this machine.
    let done = unsafe { InitiateSystemShutdownExW(std::ptr::null(), message.as_ptr(), WARNING_S, 1, 1, reason) };
    if done == 0 { Err(last_error("restart")) } else { Ok(()) }
}

fn enable_privilege() -> Result<()> {
    let mut token = std::ptr::null_mut();
    // SAFETY: `token` is written to.
    if unsafe { OpenProcessToken(GetCurrentProcess(), TOKEN_ADJUST_PRIVILEGES | TOKEN_QUERY, &raw mut token) } == 0 {
        return Err(last_error("this program's token"));
    }
    // SAFETY: the handle was just given to this program and is closed nowhere else.
    let token = unsafe { OwnedHandle::from_raw_handle(token) };
    let name = wide("SeShutdownPrivilege");
    let mut privilege = LUID_AND_ATTRIBUTES { Attributes: SE_PRIVILEGE_ENABLED, ..Default::default() };
    // SAFETY: the text ends with a zero, the privilege's number is written to.
    if unsafe { LookupPrivilegeValueW(std::ptr::null(), name.as_ptr(), &raw mut privilege.Luid) } == 0 {
        return Err(last_error("the privilege to restart"));
    }
    let privileges = TOKEN_PRIVILEGES { PrivilegeCount: 1, Privileges: [privilege] };
    let null = std::ptr::null_mut;
    // SAFETY: the token is open, the privileges are as many as said; the old ones are not asked for.
    let done = unsafe {
        AdjustTokenPrivileges(token.as_raw_handle(), 0, &raw const privileges, 0, null(), std::ptr::null_mut())
    };
    if done == 0 { Err(last_error("the privilege to restart")) } else { Ok(()) }
}
